//! What the part is told.
use std::time::Duration;

use broker::{Ready, Topic};
use records::{Format, topics};

use crate::core::Rules;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Before the names of topics, of the group and of the transactional id.
    pub prefix: String,
    /// This member's name within the group.
    pub instance: String,
    pub rules: Rules,
    /// How steps and sessions are written.
    pub format: Format,
    /// How long a record waits for others to share its transaction, while few come.
    pub linger: Duration,
    /// The longest it waits while records keep coming.
    pub linger_max: Duration,
    /// A transaction takes no further batch from so many records or bytes of output on.
    pub transaction_records: usize,
    pub transaction_bytes: usize,
    /// Set once the first assignment is accepted.
    pub ready: Ready,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: topics::DEFAULT_PREFIX.to_owned(),
            instance: "0".to_owned(),
            rules: Rules::default(),
            format: Format::default(),
            linger: Duration::from_millis(20),
            linger_max: Duration::from_millis(80),
            transaction_records: 64 << 10,
            transaction_bytes: 8 << 20,
            ready: Ready::default(),
        }
    }
}

impl Settings {
    /// The consumer group of every sessionizer under this prefix.
    pub fn group(&self) -> String {
        group(&self.prefix)
    }

    pub(crate) fn transactional_id(&self) -> String {
        format!("{}sessionizer-{}", self.prefix, self.instance)
    }
}

/// The consumer group of the sessionizers under a prefix.
pub fn group(prefix: &str) -> String {
    format!("{prefix}sessionizer")
}

/// The topics that the part reads and writes, by their full names.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    pub(crate) events: Topic,
    pub(crate) steps: Topic,
    pub(crate) sessions: Topic,
    pub(crate) dead_letters: Topic,
    pub(crate) progress: Topic,
}

impl Topics {
    pub(crate) fn new(prefix: &str) -> Self {
        let topic = |name: &str| Topic::from(format!("{prefix}{name}").as_str());
        Self {
            events: topic(topics::EVENTS),
            steps: topic(topics::FUNNEL_STEPS),
            sessions: topic(topics::SESSIONS),
            dead_letters: topic(topics::DEAD_LETTERS),
            progress: topic(topics::REPLAY_PROGRESS),
        }
    }
}
