//! How a bucket is reached, beside what the environment says: the one place that decides who asks a
//! server of one's own.
use std::path::PathBuf;
use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::aws::AmazonS3Builder;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};

/// Without credentials of its own: those of the environment, as the clouds' own tools look for them,
/// down to the machine's metadata server.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Another server than the cloud's own: a store that speaks the same, or a test's.
    pub endpoint: Option<String>,
    /// A service account's key file, or application default credentials (Google).
    pub credentials: Option<PathBuf>,
}

impl Access {
    /// Whether what is named here is spoken to without TLS.
    pub fn is_plain(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    pub fn gs(&self, mut builder: GoogleCloudStorageBuilder) -> GoogleCloudStorageBuilder {
        if let Some(file) = &self.credentials {
            builder = builder.with_application_credentials(file.display().to_string());
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_base_url(endpoint);
            if self.credentials.is_none() {
                let nobody = GcpCredential { bearer: String::new() };
                builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
            }
        }
        builder
    }

    pub fn s3(&self, builder: AmazonS3Builder) -> AmazonS3Builder {
        match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint),
            None => builder,
        }
    }
}
