//! The warehouse: each topic as a table of BigQuery, by the Storage Write API (exactly once) or by
//! streaming inserts (at least once; BigQuery drops repeats for about a minute).
//!
//! | file | step | what it holds |
//! |---|---|---|
//! | `run` | poll, commit, send | [`run`]: the loop, and the protocol of a plan |
//! | `send` | store | sending, hearing, and doing what the answers ask for |
//! | `partition` | | what of a partition is gathered, under way and committed (no I/O) |
//! | `plan` | plan | the metadata of a commit, and where to go on after a restart (pure) |
//! | `recover` | | what an answer means and what is done about it (pure) |
//! | `rows` | encode | records into Arrow, checked, and as they are sent |
//! | `schema` | | the tables: one definition for the DDL, the API, the check (pure) |
//! | `letters` | | the dead letters of rows that are left out |
//! | `location` | | whether a dataset can read a bucket (pure) |
//! | `backend` | store | what is asked of BigQuery, as a trait |
//! | `bigquery/` | store | that trait on Google's own client |
//! | `settings`, `metrics`, `error` | | as their names say |

mod backend;
mod bigquery;
mod error;
mod letters;
mod location;
mod metrics;
mod partition;
mod plan;
mod recover;
mod rows;
mod run;
pub mod schema;
mod send;
mod settings;

pub use backend::{Answer, Backend, Connection, Done, Fault, Request, Seen};
pub use bigquery::{Access, BigQuery, Checked, Dataset, Made, Mode};
pub use error::Error;
pub use location::apart;
pub use metrics::Metrics;
pub use run::{Report, TableReport, run};
pub use settings::Settings;

/// The group's name, without the prefix.
pub const GROUP: &str = "warehouse";

/// The topics that the warehouse stores, without the prefix; in the order of [`schema::tables`].
pub const TOPICS: [&str; 3] = [records::topics::EVENTS, records::topics::FUNNEL_STEPS, records::topics::SESSIONS];
