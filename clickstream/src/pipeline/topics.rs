//! The topics, and who reads them.
use anyhow::Result;
use broker::{Broker, Cleanup, Topic, TopicSpec};
use records::topics;

use super::Parts;

pub(super) fn topic(prefix: &str, name: &str) -> Topic {
    Topic::from(format!("{prefix}{name}").as_str())
}

/// The groups and what they read, registered before the first write.
pub(super) fn create_topics(broker: &dyn Broker, parts: &Parts) -> Result<()> {
    /// People look at dead letters after the groups have done with them.
    const DEAD_LETTERS_KEPT_BYTES: u64 = 64 << 20;
    let spec = |name: &str, partitions, cleanup| TopicSpec { topic: topic(&parts.prefix, name), partitions, cleanup };
    broker.create_topics(&[
        spec(topics::EVENTS, parts.partitions, Cleanup::Delete),
        spec(topics::FUNNEL_STEPS, parts.partitions, Cleanup::Delete),
        spec(topics::SESSIONS, parts.partitions, Cleanup::Delete),
        spec(topics::DEAD_LETTERS, 1, Cleanup::Bounded { bytes: DEAD_LETTERS_KEPT_BYTES }),
        spec(topics::REPLAY_PROGRESS, 1, Cleanup::Compact),
        spec(topics::REPLAY_CONTROL, 1, Cleanup::Compact),
    ])?;
    for (part, names) in READS {
        let topics: Vec<_> = names.iter().map(|name| topic(&parts.prefix, name)).collect();
        for (partition, missed) in broker.register_group(&format!("{}{part}", parts.prefix), &topics)? {
            tracing::warn!("{part} begins late: {missed} records of {partition} are gone and will be missing from it");
        }
    }
    Ok(())
}

/// Each group and the topics that it reads.
pub(super) const READS: [(&str, &[&str]); 3] = [
    ("sessionizer", &[topics::EVENTS]),
    ("lake", &consumer::lake::TOPICS),
    ("marts", &[topics::EVENTS, topics::FUNNEL_STEPS, topics::SESSIONS]),
];
