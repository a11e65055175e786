//! How the part fails: whatever could be tried again has been.
use crate::MetadataError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Going on would lose records, count some twice, or cut sessions otherwise than before.
    #[error("sessionizer: {0}")]
    Refused(String),
    /// More feeds are unfinished than a commit can remember.
    #[error("sessionizer: {partition}: {source}")]
    Metadata { partition: broker::TopicPartition, source: MetadataError },
    #[error("sessionizer: {doing}: {source}")]
    Broker { doing: &'static str, source: broker::Error },
    /// As often as it was tried.
    #[error(
        "sessionizer: given up after {attempts} failed transactions in a row, and the same command goes on from what is committed; the last: {source}"
    )]
    Retried { attempts: u32, source: broker::Error },
    #[error("sessionizer: its metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Error {
    pub(crate) fn broker(doing: &'static str) -> impl FnOnce(broker::Error) -> Self {
        move |source| Self::Broker { doing, source }
    }
}
