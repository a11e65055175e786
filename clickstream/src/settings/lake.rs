//! Where the lake is.
use anyhow::Result;
use clap::Args;
use consumer::lake::{Metrics, Settings, open_bucket, open_local, open_local_synced};
use prometheus::Registry;
use tokio::runtime::Handle;

use super::cloud::CloudOptions;
use super::embedded::Durability;
use super::values::LakeAt;
use crate::folder::Folder;
use crate::pipeline::Lake;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct LakeOptions {
    /// A folder, gs://bucket/prefix or s3://bucket/prefix [default: lake/ in the data folder]
    #[arg(long, value_name = "DIR|URL")]
    lake: Option<LakeAt>,

    /// Another server than the cloud's own for the lake's bucket: a store that speaks S3, as in
    /// http://127.0.0.1:9000, or a test's; gs:// then goes without credentials unless they are named
    #[arg(long, value_name = "URL")]
    lake_endpoint: Option<String>,
}

impl LakeOptions {
    /// Where it is, if that was said.
    pub(crate) fn given(&self) -> Option<&LakeAt> {
        self.lake.as_ref()
    }

    /// What the lake is told. A bucket is looked at here: what is wrong with it is said before
    /// anything is sent.
    pub(crate) fn lake(
        &self,
        prefix: &str,
        folder: &Folder,
        cloud: &CloudOptions,
        durability: Durability,
        runtime: Handle,
        registry: &Registry,
    ) -> Result<Lake> {
        let metrics = Metrics::register(registry)?;
        let (lake, store) = match self.lake.clone().unwrap_or_else(|| LakeAt::Folder(folder.lake())) {
            LakeAt::Bucket(bucket) => {
                let access = cloud.bucket(self.lake_endpoint.as_deref());
                (bucket.to_string(), open_bucket(&bucket, &access, &runtime, &metrics)?)
            }
            LakeAt::Folder(dir) => {
                let store = match durability {
                    Durability::Process => open_local(&dir)?,
                    Durability::Power => open_local_synced(&dir)?,
                };
                (dir.display().to_string(), store)
            }
        };
        let settings = Settings { prefix: prefix.to_owned(), lake, ..Settings::default() };
        Ok(Lake { settings, store, runtime, metrics })
    }
}
