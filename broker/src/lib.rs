//! The broker port and its backends.
//!
//! | file | what it holds |
//! |---|---|
//! | `port` | the port: [`Broker`], [`Writer`], [`Reader`] and the values that cross it |
//! | `batch` | [`Records`], a batch of records in one allocation, and [`Batch`], such a batch as read |
//! | `error` | [`Error`], by what the caller should do |
//! | `cancel` | [`Cancel`], the one way a part is told to drain; [`Ready`], [`Target`]: what a supervisor and its parts agree on |
//! | `backoff` | [`Backoff`]: how long to wait before a next attempt |
//! | `partition` | the partitioner of Java clients (murmur2) |
//! | `embedded` | the backend for one process: a log in one SQLite database |
//! | `kafka` | the backend on Apache Kafka (the feature `kafka`) |
//! | `conformance` | the suite that every backend passes |
//!
//! The port is synchronous, object-safe and per batch. It knows bytes, keys, headers,
//! transactions and groups, and nothing of what the records say.
//! Kafka's semantics are the measure: whatever holds here must hold there.

mod backoff;
mod batch;
mod cancel;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod embedded;
mod error;
#[cfg(feature = "kafka")]
pub mod kafka;
mod partition;
mod port;

pub use backoff::Backoff;
pub use batch::{Batch, Headers, RecordRef, Records};
pub use cancel::{Cancel, Ready, Target};
pub use error::{Error, Result};
pub use partition::partition_for;
pub use port::*;
