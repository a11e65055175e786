//! The data folder.
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::folder::Folder;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataOptions {
    /// Where all is kept: broker.db, marts.db, lake/
    #[arg(long, value_name = "DIR", default_value = "clickstream-data")]
    data_dir: PathBuf,

    /// Empties the data folder first, after asking
    #[arg(long)]
    restart: bool,

    /// Answers yes to --restart
    #[arg(long, requires = "restart")]
    yes: bool,
}

impl DataOptions {
    /// The folder, emptied where that was asked for.
    pub(crate) fn open(&self) -> Result<Folder> {
        let folder = Folder::open(&self.data_dir)?;
        if self.restart {
            folder.empty(self.yes)?;
        }
        Ok(folder)
    }
}
