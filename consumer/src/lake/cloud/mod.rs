//! The lake in a bucket: `gs://bucket/prefix` and `s3://bucket/prefix`.
//!
//! `object_store` speaks to the stores and finds credentials; here is what it is told, what every
//! request passes (`throttle`), and what is found out before anything is sent (`check`, `location`).
mod check;
mod location;
mod throttle;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::Metrics;
use super::error::{Error, Result};

pub use remote::Access;

pub(super) use check::{reason, status};
pub use location::location;

/// A single request; the whole of its retries is bounded by `Settings::retry_for`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A PUT has as much longer as its bytes take at this rate: it shares the line with seven others.
const UPLOAD_BYTES_PER_SECOND: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Gs,
    S3,
}

/// A bucket and the prefix in it, as in `gs://bucket/prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub scheme: Scheme,
    pub name: String,
    /// Empty for all of the bucket; no slash at either end.
    pub prefix: String,
}

impl FromStr for Bucket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("gs", rest)) => (Scheme::Gs, rest),
            Some(("s3", rest)) => (Scheme::S3, rest),
            _ => return Err(format!("{text:?} is not a bucket: gs://bucket/prefix or s3://bucket/prefix")),
        };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let named = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if !(3..=222).contains(&name.len()) || !name.bytes().all(named) {
            return Err(format!(
                "{text:?}: {name:?} is not a bucket's name: 3 letters or more, lower case, digits, - _ and ."
            ));
        }
        let prefix = prefix.trim_end_matches('/');
        Path::parse(prefix).map_err(|why| format!("{text:?}: {prefix:?} cannot be a prefix: {why}"))?;
        Ok(Self { scheme, name: name.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.as_str();
        match self.prefix.as_str() {
            "" => write!(f, "{scheme}://{}", self.name),
            prefix => write!(f, "{scheme}://{}/{prefix}", self.name),
        }
    }
}

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Gs => "gs",
            Self::S3 => "s3",
        }
    }
}

/// What sending so many bytes may take, beside what a request may take without.
pub(super) fn upload_time(bytes: usize) -> Duration {
    Duration::from_secs(bytes.div_ceil(UPLOAD_BYTES_PER_SECOND) as u64)
}

/// What is said of a call whose answer did not come in time.
pub(super) fn late(bytes_sent: usize) -> String {
    match bytes_sent >> 20 {
        0 => "no answer".to_owned(),
        mib => format!("{mib} MiB were not taken in time; smaller files (--lake-file-size) take less"),
    }
}

/// The store of a bucket, once it is known that objects can be listed and created there: a missing
/// bucket, or missing rights or credentials, are told here and not when the first file is full.
pub fn open_bucket(
    bucket: &Bucket,
    access: &Access,
    runtime: &tokio::runtime::Handle,
    metrics: &Metrics,
) -> Result<Arc<dyn ObjectStore>> {
    let (store, credentials) = build(bucket, access, metrics)?;
    runtime.block_on(check::check(bucket, access, store.as_ref(), &credentials))?;
    Ok(store)
}

/// Asks for credentials and throws them away.
type Credentials = Box<dyn Fn() -> futures::future::BoxFuture<'static, object_store::Result<()>> + Send + Sync>;

fn build(bucket: &Bucket, access: &Access, metrics: &Metrics) -> Result<(Arc<dyn ObjectStore>, Credentials)> {
    let refused = |e: object_store::Error| {
        let told = check::told(bucket, access, &e, None);
        Error::Stop(match &access.credentials {
            Some(file) => format!("{bucket}, with the credentials in {}: {told}", file.display()),
            None => format!("{bucket}: {told}"),
        })
    };
    // What is tried again, and for how long, is decided in one place: `store`.
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let options = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(access.is_plain());
    let connector = throttle::Connector::new(metrics);
    let prefix = bucket.prefix.as_str();
    match bucket.scheme {
        Scheme::Gs => {
            let builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(&bucket.name)
                .with_retry(once)
                // The metadata server is plain HTTP.
                .with_client_options(options.with_allow_http(true))
                .with_http_connector(connector);
            let store = access.gs(builder).build().map_err(refused)?;
            let provider = store.credentials().clone();
            let credentials: Credentials = Box::new(move || {
                let provider = provider.clone();
                Box::pin(async move { provider.get_credential().await.map(|_| ()) })
            });
            Ok((Arc::new(PrefixStore::new(store, prefix)), credentials))
        }
        Scheme::S3 => {
            let builder = AmazonS3Builder::from_env()
                .with_bucket_name(&bucket.name)
                .with_retry(once)
                .with_client_options(options)
                .with_http_connector(connector);
            let store = access.s3(builder).build().map_err(refused)?;
            let provider = store.credentials().clone();
            let credentials: Credentials = Box::new(move || {
                let provider = provider.clone();
                Box::pin(async move { provider.get_credential().await.map(|_| ()) })
            });
            Ok((Arc::new(PrefixStore::new(store, prefix)), credentials))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_upload_has_longer() {
        for (bytes, seconds, says) in [
            (0, 0, "no answer"),
            (1, 1, "no answer"),
            (32 << 20, 128, "32 MiB were not taken in time; smaller files (--lake-file-size)"),
            (1 << 30, 4096, "1024 MiB"),
        ] {
            assert_eq!(upload_time(bytes).as_secs(), seconds, "{bytes}");
            assert!(late(bytes).starts_with(says), "{}", late(bytes));
        }
    }

    #[test]
    fn buckets() {
        let of = |scheme, name: &str, prefix: &str| Ok(Bucket { scheme, name: name.into(), prefix: prefix.into() });
        for (text, expected) in [
            ("gs://shop/lake", of(Scheme::Gs, "shop", "lake")),
            ("gs://shop/lake/", of(Scheme::Gs, "shop", "lake")),
            ("s3://shop-eu.data/a/b", of(Scheme::S3, "shop-eu.data", "a/b")),
            ("s3://shop", of(Scheme::S3, "shop", "")),
            ("s3://shop/", of(Scheme::S3, "shop", "")),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for (text, says) in [
            ("lake", "not a bucket"),
            ("az://shop/lake", "gs://bucket/prefix"),
            ("gs:///lake", "not a bucket's name"),
            ("gs://Shop", "lower case"),
            ("gs://ab", "3 letters"),
            ("s3://shop/a//b", "cannot be a prefix"),
            ("s3://shop/../b", "cannot be a prefix"),
        ] {
            let why = text.parse::<Bucket>().unwrap_err();
            assert!(why.contains(says) && why.contains(text), "{text}: {why}");
        }
        for text in ["gs://shop/a/b", "s3://shop"] {
            assert_eq!(text.parse::<Bucket>().unwrap().to_string(), text);
        }
    }
}
