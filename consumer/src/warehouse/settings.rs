//! What the warehouse is told.
use std::time::Duration;

use broker::{PollLimits, Ready};
use records::Format;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Of the topics' and the group's names.
    pub prefix: String,
    /// The member's name within the group.
    pub instance: String,
    /// `PROJECT.DATASET`, for messages.
    pub dataset: String,
    /// How dead letters are written.
    pub format: Format,
    /// A request is sent when it has this many rows,
    pub max_rows: usize,
    /// or this many bytes,
    pub max_bytes: usize,
    /// or its first record has waited this long.
    pub linger: Duration,
    /// Rows gathered and sent, of all partitions: beyond it nothing is read.
    pub budget_bytes: usize,
    /// A request without an answer for so long is sent again.
    pub answer_within: Duration,
    /// A connection on which nothing was sent for so long is made anew.
    pub connection_idle: Duration,
    /// How long a broker, or a BigQuery, that does not do it is tried,
    pub retry_for: Duration,
    /// and how long once it is asked to drain.
    pub grace: Duration,
    pub poll: PollLimits,
    /// The log was begun anew on purpose: rows of an earlier one stay in the tables, beside its own.
    pub begins_anew: bool,
    /// Set once the first assignment is accepted.
    pub ready: Ready,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: records::topics::DEFAULT_PREFIX.to_owned(),
            instance: "0".to_owned(),
            dataset: String::new(),
            format: Format::default(),
            max_rows: 20_000,
            max_bytes: 4 << 20,
            linger: Duration::from_millis(500),
            budget_bytes: 64 << 20,
            answer_within: Duration::from_secs(30),
            // BigQuery closes one after ten minutes.
            connection_idle: Duration::from_secs(300),
            retry_for: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            poll: PollLimits { records: 8 << 10, bytes: 2 << 20, timeout: Duration::from_millis(50) },
            begins_anew: false,
            ready: Ready::default(),
        }
    }
}
