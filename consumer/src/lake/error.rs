//! Errors, by what the caller should do.

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It will not go through until a person has done something: stop, and show the remedy.
    #[error("lake: {0}")]
    Stop(String),
    /// Another member has taken this one's place: stop. Nothing is lost.
    #[error("lake: {0}")]
    Fenced(String),
    /// The group has gone on without this member: what is open is another's to store, or will be
    /// read again.
    #[error("lake: {0}")]
    Lost(String),
    /// The broker or the store did not answer in time: starting again goes on from the plan.
    #[error("lake: {0}; nothing is lost: the same command goes on from there")]
    Unavailable(String),
}

impl Error {
    pub(crate) fn stop(why: impl Into<String>) -> Self {
        Self::Stop(why.into())
    }
}
