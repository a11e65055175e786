//! events → funnel steps and closed sessions, exactly once.
//!
//! | file | what it holds |
//! |---|---|
//! | `core` | one partition's sessions: a state machine without clock or I/O |
//! | `metadata` | what each commit says, so that a restart can rebuild that state from the log alone |
//! | `recover` | whether a position may be gone on from, and where to read again from |
//! | `publish` | the outputs of a transaction, encoded; unreadable messages as dead letters |
//! | `commit` | transactions, on a thread of their own |
//! | `run` | the part: poll → sessionize → publish and commit |
//! | `settings`, `metrics`, `error` | what it is told, what it shows, how it fails |

mod commit;
pub mod core;
mod error;
mod metadata;
mod metrics;
mod progress;
mod publish;
mod recover;
mod run;
mod settings;

pub use self::core::{Gap, Rules};
pub use error::Error;
pub use metadata::{Metadata, MetadataError};
pub use metrics::{Metrics, Status};
pub use run::{Report, run};
pub use settings::{Settings, group};
