//! What the lake is told.
use std::str::FromStr;
use std::time::Duration;

use broker::{PollLimits, Ready};

#[derive(Clone, Debug)]
pub struct Settings {
    /// Of the topics' and the group's names.
    pub prefix: String,
    /// The member's name within the group.
    pub instance: String,
    /// Where the lake is, as the user named it: for messages. The store itself is passed to `run`.
    pub lake: String,
    /// It lists names in their order, as buckets do and folders do not: a list that was cut off goes
    /// on after the last name.
    pub lists_in_order: bool,
    /// A plan is cut when one of its files has this many encoded bytes,
    pub file_bytes: usize,
    /// or it has this many rows,
    pub max_rows: u64,
    /// or it has been open for this long by the wall clock.
    pub max_age: Duration,
    /// All open files together; the partition that holds most is cut first.
    pub budget_bytes: usize,
    /// Files that are stored at the same time.
    pub concurrent_puts: usize,
    /// How long a broker or a store that does not answer is tried,
    pub retry_for: Duration,
    /// and how long once it is asked to drain.
    pub grace: Duration,
    pub codec: Codec,
    pub row_group_rows: usize,
    pub poll: PollLimits,
    /// Set once the first assignment is accepted.
    pub ready: Ready,
}

impl Settings {
    /// For one of so many members of the group in one process: a name of its own, and its share of
    /// the memory.
    #[must_use]
    pub fn member(&self, number: usize, of: usize) -> Self {
        if of <= 1 {
            return self.clone();
        }
        Self {
            instance: format!("{}.{number}", self.instance),
            budget_bytes: self.budget_bytes / of,
            ready: Ready::default(),
            ..self.clone()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: records::topics::DEFAULT_PREFIX.to_owned(),
            instance: "0".to_owned(),
            lake: "lake".to_owned(),
            lists_in_order: false,
            file_bytes: 32 << 20,
            max_rows: 4 << 20,
            max_age: Duration::from_secs(60),
            budget_bytes: 64 << 20,
            concurrent_puts: 8,
            retry_for: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            codec: Codec::default(),
            row_group_rows: 256 << 10,
            poll: PollLimits { records: 16 << 10, bytes: 4 << 20, timeout: Duration::from_millis(100) },
            ready: Ready::default(),
        }
    }
}

/// How pages are compressed. The default is the quickest of those that were measured
/// (`columns` names the command).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    #[default]
    Lz4Raw,
    Snappy,
    Zstd,
    None,
}

impl FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "lz4" | "lz4_raw" => Ok(Self::Lz4Raw),
            "snappy" => Ok(Self::Snappy),
            "zstd" => Ok(Self::Zstd),
            "none" => Ok(Self::None),
            _ => Err(format!("{text:?} is not a codec of the lake: lz4, snappy, zstd or none")),
        }
    }
}
