//! What the warehouse asks of BigQuery, so that a test can stand in for it.
use std::ops::RangeInclusive;
use std::time::Duration;

use arrow_array::RecordBatch;
use broker::Cancel;

/// What came of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Appended,
    /// There are rows at that place already.
    AlreadyExists,
    /// That place is beyond the end of the stream.
    OutOfRange,
    /// None of the request was appended, because of these rows (by their place in it), and why.
    RowErrors(Vec<(usize, String)>),
    /// The stream takes no more rows: it was finalized, has expired, or is unknown.
    StreamGone(String),
    /// Less is asked for.
    Throttled(String),
    /// It may have been appended or not: the answer was lost, or it failed for a while.
    Unknown(String),
    /// It will be refused every time.
    Refused(String),
}

/// Of one table and topic partition.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where in the stream; ignored where there is none.
    pub offset: i64,
    pub rows: RecordBatch,
    /// Names a row together with its offset, the same after a restart: log, topic and partition.
    pub origin: String,
}

/// Called once, from any thread; not at all if the connection is lost without a word.
pub type Done = Box<dyn FnOnce(Answer) + Send>;

/// A call that did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It may go through later.
    #[error("{0}")]
    Retry(String),
    /// The same, and less is asked for.
    #[error("{0}")]
    Throttled(String),
    /// There is no such thing (any more).
    #[error("{0}")]
    Gone(String),
    #[error("{0}")]
    Stop(String),
}

/// What is seen of a table without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it has any; what was sent in the last minutes may not show yet.
    pub rows: bool,
    /// When it was made, in Unix milliseconds: one that was dropped and made again has another time.
    /// 0 if that is not known.
    pub made_ms: i64,
}

/// Called from outside the async runtime; these block.
pub trait Backend: Send + Sync {
    /// No call is waited for longer than `within`, and once `cancel` is set not much longer.
    fn waits(&self, _within: Duration, _cancel: &Cancel) {}

    /// Whether appends have an offset in a stream (storage-write), or only ids (insert-all).
    fn has_streams(&self) -> bool;

    /// Makes a committed stream of the table (by its place among the tables), and names it.
    fn create_stream(&self, table: usize) -> Result<String, Fault>;

    /// Ends a stream, and how many rows it has; again if it is asked again. One that was idle for some
    /// days is gone.
    fn finalize_stream(&self, stream: &str) -> Result<i64, Fault>;

    /// How many rows the table has of these offsets of a topic partition, all that were ever acknowledged
    /// among them.
    fn count_rows(&self, table: usize, partition: u32, offsets: RangeInclusive<i64>) -> Result<i64, Fault>;

    fn look(&self, table: usize) -> Result<Seen, Fault>;

    /// A connection on which appends are done in order.
    fn connect(&self, table: usize, stream: Option<&str>) -> Box<dyn Connection>;
}

pub trait Connection: Send {
    /// Returns at once: how many bytes it sends.
    fn append(&mut self, request: Request, done: Done) -> usize;
}
