//! Errors, by what the caller should do.

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It may go through later: try again, with a bounded back-off.
    #[error("{0}")]
    Retry(String),
    /// What was in hand is lost with its transaction, or with the place in the group: go back to the
    /// last commit and do it again, with a new writer. A reader's next polls tell what it has now.
    #[error("the transaction was lost: {0}")]
    Abort(String),
    /// A writer: another of that transactional id has taken its place, or (on Kafka) the transaction
    /// was open for too long. A new writer takes the place back; whether there is a rival shows by
    /// what it has committed meanwhile. A reader: another member of that instance has its place: stop.
    #[error("fenced: {0}")]
    Fenced(String),
    /// It will not go through, whatever is tried: stop, and say the remedy.
    #[error("{0}")]
    Stop(String),
    /// The caller's [`Cancel`](crate::Cancel) was set while it waited.
    #[error("cancelled")]
    Cancelled,
}
