//! Errors, by what the caller should do about them. All of them end the replay; none writes an end.
use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read as what it should be. Rows before the fault are published.
    #[error("{file}: {why}")]
    File { file: String, why: String },
    /// It could be read, but is not what was begun here earlier.
    #[error("{0}")]
    Refused(String),
    /// What is wrong with the rows, where the settings allow so many and no more.
    #[error("more than {limit} rows went to dead-letters (--max-dead-letters); the first: {}", list(.reasons))]
    DeadLetters { limit: u64, reasons: Vec<RowFault> },
    /// A setting that cannot be obeyed.
    #[error("{0}")]
    Setting(String),
    /// The feed has moved on without this producer: it is left to whoever has it.
    #[error("this feed is no longer this producer's, which stops: {0}")]
    Superseded(String),
    /// By another producer of the feed, or by a broker that has given up on a transaction: how far the
    /// feed has come tells which.
    #[error(
        "the broker takes nothing more from this writer, because another one has begun or a transaction took too long: {0}"
    )]
    Fenced(String),
    #[error(transparent)]
    Broker(broker::Error),
    /// As often as it was tried.
    #[error(
        "given up after {attempts} attempts, and the same command goes on from what is committed; the last: {source}"
    )]
    Retried { attempts: u32, source: broker::Error },
}

/// A row that went to the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    pub file: String,
    /// 1 is the first after the header.
    pub row: u64,
    pub reason: String,
}

impl Error {
    pub(crate) fn file(file: impl Into<String>, why: impl Into<String>) -> Self {
        Self::File { file: file.into(), why: why.into() }
    }
}

impl From<broker::Error> for Error {
    fn from(error: broker::Error) -> Self {
        match error {
            broker::Error::Fenced(why) => Self::Fenced(why),
            other => Self::Broker(other),
        }
    }
}

impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} row {}: {}", self.file, self.row, self.reason)
    }
}

fn list(faults: &[RowFault]) -> String {
    faults.iter().map(RowFault::to_string).collect::<Vec<_>>().join("; ")
}
