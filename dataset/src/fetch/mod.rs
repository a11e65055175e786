//! The months of the real data, from where they are served to a folder or a bucket.
//!
//! | file | what it holds |
//! |---|---|
//! | `source` | a month's bytes: a file of the public mirror, or a member of Kaggle's archive |
//! | `kaggle` | the user's token, and where the archive is |
//! | `folder`, `bucket` | where the bytes go; a folder's are resumed |
//! | `check` | whether what came is that month |
mod bucket;
mod check;
mod folder;
mod kaggle;
mod source;

pub use bucket::to_bucket;
pub use folder::to_folder;
pub use kaggle::{KAGGLE, Token};
pub use source::{MIRROR, Origin, Source};

use std::fmt::Display;

/// What could not be had, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Error {
    what: String,
    why: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(what: impl Display, why: impl Display) -> Self {
        Self { what: what.to_string(), why: why.to_string() }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// So many bytes came in this run.
    Done { bytes: u64 },
    /// It was there, of the right size.
    AlreadyThere,
    /// `progress` asked for it.
    Stopped,
}

/// Told the bytes that are there and those that there will be, also while none come; false asks to stop.
pub type Progress<'p> = &'p mut dyn FnMut(u64, u64) -> bool;

/// How much is read at once.
const CHUNK_BYTES: usize = 256 << 10;
