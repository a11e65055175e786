//! Replays files of shop events into the topic `events`, on a schedule, exactly once.
//!
//! | file | what it holds |
//! |---|---|
//! | `run` | [`run`]: the whole wiring, and the three paces |
//! | `settings` | [`Settings`], [`Input`], [`Pace`] |
//! | `input/` | files, archives and streams to rows |
//! | `row` | a row to a shop event, or why not (pure) |
//! | `source` | what a source is, and how it differs from another (pure) |
//! | `schedule` | when a row is due (pure) |
//! | `held`, `pace` | the rows of a second until it is whole; waiting for what is due |
//! | `publish` | rows, watermarks and the end to batches |
//! | `commit` | batches to transactions, on a thread of its own |
//! | `progress` | how far a feed has come: written with each transaction, read at the start |
//! | `retry` | bounded waits before something is done again |
//! | `quantiles`, `metrics`, `status` | what is measured, counted and shown |

mod commit;
mod error;
mod held;
mod input;
mod metrics;
mod pace;
mod progress;
mod publish;
mod quantiles;
mod retry;
mod row;
mod run;
mod schedule;
mod settings;
mod source;
mod status;

pub use error::{Error, Result, RowFault};
pub use metrics::Metrics;
pub use quantiles::{Quantiles, Spread};
pub use row::COLUMNS;
pub use run::{Outcome, Report, run};
pub use settings::{DEFAULT_LINGER, Input, MAX_LINGER, Pace, Settings, Stream};
pub use status::{Phase, Status};
