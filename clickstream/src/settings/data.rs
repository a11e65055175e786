//! The data folder.
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::values::quoted;
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
    /// Plays the input anew: empties the data folder first, after asking, once it is sure that the
    /// input can be played; a lake elsewhere must be empty, and a warehouse keeps what it has. On
    /// Kafka, where all stays, plays it as one more source, which the outputs count beside the first
    #[arg(long)]
    pub(crate) restart: bool,

    /// Answers yes to --restart
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Of a producer on Kafka, which has no folder.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Input")]
pub(crate) struct AnewOptions {
    /// Plays the input anew, as one more source, which the outputs count beside the first; without it
    /// the one that was begun last goes on
    #[arg(long)]
    pub(crate) restart: bool,
}

impl FolderOptions {
    /// The folder; it is made where it is missing.
    pub(crate) fn open(&self) -> Result<Folder> {
        Folder::open(&self.data_dir)
    }

    /// The flags that take another command there.
    pub(crate) fn flags(&self) -> String {
        format!("--data-dir {}", quoted(&self.data_dir.display().to_string()))
    }

    /// The folder as it is, or is not.
    pub(crate) fn look(&self) -> Folder {
        Folder::at(&self.data_dir)
    }
}
