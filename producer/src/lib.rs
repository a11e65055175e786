//! Replays files of shop events into the topic `events`, on a schedule, exactly once.
//!
//! | file | what it holds |
//! |---|---|
//! | `run` | [`run`]: the whole wiring, one pass of the input after another |
//! | `replay` | rows to their turns |
//! | `settings` | [`Settings`], [`Input`], [`Pace`] |
//! | `input/` | files, archives and streams to rows |
//! | `row` | a row to a shop event, or why not (pure) |
//! | `source` | what a source is, and how it differs from another (pure) |
//! | `window`, `disorder` | which rows are the source's; shuffles, copies and damage on purpose (pure) |
//! | `rows` | the rows of the source, read and judged |
//! | `schedule`, `rates`, `course` | a row's place in time; what changing rates ask for; when it is due, and how that is steered (pure) |
//! | `held`, `pace` | the rows of a second until it is whole; waiting for a row's turn |
//! | `control` | steering: what the topic says, and how the replay hears of it |
//! | `end` | the end of a source that will not come back |
//! | `publish` | rows, watermarks and the end to batches |
//! | `commit` | batches to transactions, on a thread of its own |
//! | `topic` | reading a small topic from its start to its end |
//! | `progress` | how far a feed has come: written with each transaction, read at the start |
//! | `retry` | bounded waits before something is done again |
//! | `quantiles`, `metrics`, `status` | what is measured, counted and shown |

mod commit;
mod control;
mod course;
mod disorder;
mod end;
mod error;
mod held;
mod input;
mod metrics;
mod pace;
mod progress;
mod publish;
mod quantiles;
mod rates;
mod replay;
mod retry;
mod row;
mod rows;
mod run;
mod schedule;
mod settings;
mod source;
mod status;
mod topic;
mod window;

pub use control::{Change, Control, FeedStanding, Standing, Steered, standings, steer};
pub use disorder::Disorder;
pub use end::{Ended, Named, Playing, end};
pub use error::{Error, Result, RowFault};
pub use metrics::Metrics;
pub use quantiles::{Quantiles, Spread};
pub use rates::{MAX_RATE, Rates, Segment};
pub use replay::Made;
pub use row::COLUMNS;
pub use run::{Outcome, Report, look, run};
pub use settings::{CatchUp, DEFAULT_LINGER, GzipIndex, Input, MAX_LINGER, Pace, Passes, Settings, Stream, Synthetic};
pub use status::{Going, Phase, Status};
pub use window::{Shard, Share, Window};
