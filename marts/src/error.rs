//! Errors, by what the caller should do.
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What helps where what was counted cannot be gone on with.
pub(crate) const ANEW: &str = "start anew: with --restart, which empties the folder (embedded), or as a copy, under a \
                               name and in a folder of its own: --instance NAME --data-dir DIR (Kafka)";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else holds the database: it may go through later.
    #[error("{}: another program keeps it locked while {doing}; close that program's transaction", path.display())]
    Busy { path: PathBuf, doing: &'static str },
    /// It will not go through, whatever is tried: stop, and say the remedy (it is in the text).
    #[error("{0}")]
    Stop(String),
    /// SQLite could not.
    #[error("{}: {doing}: {source}", path.display())]
    Sqlite { path: PathBuf, doing: &'static str, source: rusqlite::Error },
    /// The broker could not.
    #[error("marts: {0}")]
    Broker(#[from] broker::Error),
}

impl Error {
    /// What SQLite said while `doing` something with the database at `path`.
    pub(crate) fn sqlite(path: &Path, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| {
            let (shown, path) = (path.display(), path.to_path_buf());
            match source.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path, doing },
                Some(ErrorCode::DiskFull) => {
                    Self::Stop(format!("{shown}: {doing}: the disk is full; free some space and start again"))
                }
                Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => Self::Stop(format!(
                    "{shown}: {doing}: {source}; the folder and the file must be there and be writable"
                )),
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Stop(format!(
                    "{shown}: {doing}: it is damaged, or not an SQLite database ({source}); restore it, or \
                     {ANEW}"
                )),
                _ => Self::Sqlite { path, doing, source },
            }
        }
    }
}
