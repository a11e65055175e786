//! The lake: each topic as Parquet files, one for each plan and UTC day.
//!
//! | file | step | what it holds |
//! |---|---|---|
//! | `run` | poll, commit | [`run`]: the loop, assignments, the protocol of a cut |
//! | `partition` | | what is open of one partition, and what is committed |
//! | `plan` | plan | the metadata of a commit, file names, where to resume (pure) |
//! | `budget` | plan | which partitions to cut, and why (pure) |
//! | `writer` | encode | the open Parquet writers of a partition, one for each day |
//! | `store` | store | PUT that may only create, the check of a footer, what is there |
//! | `cloud/` | store | buckets: how they are reached, slowed down for and checked |
//! | `settings`, `metrics`, `error` | | as their names say |

mod budget;
mod cloud;
mod error;
mod metrics;
mod partition;
mod plan;
mod run;
mod settings;
mod store;
mod writer;

pub use cloud::{Access, Bucket, Scheme, location, open_bucket};
pub use error::Error;
pub use metrics::Metrics;
pub use object_store::ObjectStore;
pub use run::{Report, TopicReport, run};
pub use settings::{Codec, Settings};
pub use store::{first_file, open_local, open_local_synced};

/// The group's name, without the prefix.
pub const GROUP: &str = "lake";

/// The topics that the lake stores, without the prefix.
pub const TOPICS: [&str; 4] =
    [records::topics::EVENTS, records::topics::FUNNEL_STEPS, records::topics::SESSIONS, records::topics::DEAD_LETTERS];
