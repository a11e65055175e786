//! Errors, by what the caller should do.

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It will not go through until a person has done something: stop, and show the remedy.
    #[error("warehouse: {0}")]
    Stop(String),
    /// Another member has taken this one's place: stop. Nothing is lost.
    #[error("warehouse: {0}")]
    Fenced(String),
    /// The group has gone on without this member: what is under way is another's to finish, or will
    /// be read again.
    #[error("warehouse: {0}")]
    Lost(String),
    /// The broker or BigQuery did not answer in time: starting again goes on from the plans.
    #[error("warehouse: {0}; nothing is lost: start again once it can be reached")]
    Unavailable(String),
}
