//! The data folder.
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::folder::Folder;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct FolderOptions {
    /// Where all is kept: broker.db, marts.db, lake/
    #[arg(long, value_name = "DIR", default_value = "clickstream-data")]
    data_dir: PathBuf,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct RestartOptions {
    /// Empties the data folder first, after asking
    #[arg(long)]
    pub(crate) restart: bool,

    /// Answers yes to --restart
    #[arg(long, requires = "restart")]
    yes: bool,
}

impl FolderOptions {
    /// The folder; it is made where it is missing.
    pub(crate) fn open(&self) -> Result<Folder> {
        Folder::open(&self.data_dir)
    }

    /// The folder as it is, or is not.
    pub(crate) fn look(&self) -> Folder {
        Folder::at(&self.data_dir)
    }
}

impl RestartOptions {
    /// Empties the folder where that was asked for.
    pub(crate) fn apply(&self, folder: &Folder) -> Result<()> {
        if self.restart { folder.empty(self.yes) } else { Ok(()) }
    }
}
