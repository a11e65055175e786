//! The marts: records of the topics `events`, `funnel-steps` and `sessions`, folded into SQLite.
//!
//! ```text
//! broker ──batch──► fold ──deltas──► store ──► marts.db ──► read ──► API, page, summary
//!                   (memory)         (sums and positions, one transaction)
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `schema.sql`, `schema` | the tables and views; the schema version and what is refused |
//! | `deltas`, `texts` | pure: what records add to the marts, by key |
//! | `fold` | batches to deltas, and when they are to be committed |
//! | `position` | pure: where to read on, and what does not fit together |
//! | `store` | the one writer of `marts.db`: sums and positions in one transaction |
//! | `run` | the part: poll, fold, commit; the whole wiring |
//! | `read` | the read API |
//! | `metrics`, `error` | what it publishes of itself; errors by what the caller should do |
//!
//! Exactly once: a position moves by compare and swap in the transaction that adds what was read
//! up to it. The commit to the broker afterwards serves lag and deletion only.

mod deltas;
mod error;
mod fold;
mod metrics;
mod position;
mod read;
mod run;
mod schema;
mod store;
mod texts;

pub use error::{Error, Result};
pub use metrics::Metrics;
pub use read::*;
pub use run::{Report, Settings, run};
pub use store::Lock;
