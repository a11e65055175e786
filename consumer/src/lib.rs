//! The sinks: topics into storage that people query, exactly once.
//!
//! Every sink goes poll → plan → encode → store → commit: the range of offsets that is to be stored
//! together is committed first, as metadata of the group's offset, then written under a name that
//! follows from it, then committed as done. A restart finds the plan and does exactly it again.
//!
//! | module | what it holds |
//! |---|---|
//! | [`lake`] | Parquet files over `object_store`: a local folder, GCS or S3 |
//! | [`warehouse`] | tables of BigQuery: the Storage Write API, or streaming inserts |
//! | `columns` | records into Arrow columns, one file a topic: what both store |
//! | `retry` | how long something that may go through later is tried |

mod columns;
pub mod lake;
mod retry;
pub mod warehouse;
