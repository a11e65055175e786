//! Where the lake is.
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use object_store::ObjectStore;

use super::embedded::Durability;
use crate::folder::Folder;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct LakeOptions {
    /// A folder for the lake [default: lake/ in the data folder]
    #[arg(long, value_name = "DIR")]
    lake: Option<String>,
}

impl LakeOptions {
    pub(crate) fn settings(
        &self,
        prefix: &str,
        folder: &Folder,
        durability: Durability,
    ) -> Result<(consumer::lake::Settings, Arc<dyn ObjectStore>)> {
        let dir: PathBuf = match &self.lake {
            Some(lake) if lake.contains("://") => {
                bail!("--lake {lake}: this version writes the lake into a local folder; gs:// and s3:// come later")
            }
            Some(lake) => lake.into(),
            None => folder.lake(),
        };
        let store = match durability {
            Durability::Process => consumer::lake::open_local(&dir)?,
            Durability::Power => consumer::lake::open_local_synced(&dir)?,
        };
        let settings = consumer::lake::Settings {
            prefix: prefix.to_owned(),
            lake: dir.display().to_string(),
            ..consumer::lake::Settings::default()
        };
        Ok((settings, store))
    }
}
