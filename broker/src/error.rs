//! Errors, by what the caller should do.

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It may go through later: try again, with a bounded back-off.
    #[error("{0}")]
    Retry(String),
    /// The open transaction is lost: abort it, go back to the last commit and do it again.
    #[error("the transaction was lost: {0}")]
    Abort(String),
    /// Another writer, or a later generation of the group, has taken this one's place: stop.
    #[error("fenced: {0}")]
    Fenced(String),
    /// It will not go through, whatever is tried: stop, and say the remedy.
    #[error("{0}")]
    Stop(String),
    /// The caller's [`Cancel`](crate::Cancel) was set while it waited.
    #[error("cancelled")]
    Cancelled,
}
