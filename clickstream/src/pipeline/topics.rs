//! The topics, and who reads them.
use anyhow::{Context, Result, bail};
use broker::{Broker, Cleanup, Topic, TopicSpec};
use records::topics;

use super::Parts;

/// What is done about the topics at the start. Either way they are checked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Topics {
    /// Those that are missing are made, with so many partitions.
    Make { partitions: u32 },
    /// They are there.
    Expect,
}

/// A part's consumer group.
pub(super) struct Group {
    pub(super) part: &'static str,
    pub(super) name: String,
    pub(super) topics: Vec<Topic>,
}

pub(crate) fn topic(prefix: &str, name: &str) -> Topic {
    Topic::from(format!("{prefix}{name}").as_str())
}

/// The topics as they should be.
pub(crate) fn specs(prefix: &str, partitions: u32) -> Vec<TopicSpec> {
    /// People look at dead letters after the groups have done with them.
    const DEAD_LETTERS_KEPT_BYTES: u64 = 64 << 20;
    let spec = |name: &str, partitions, cleanup| TopicSpec { topic: topic(prefix, name), partitions, cleanup };
    vec![
        spec(topics::EVENTS, partitions, Cleanup::Delete),
        spec(topics::FUNNEL_STEPS, partitions, Cleanup::Delete),
        spec(topics::SESSIONS, partitions, Cleanup::Delete),
        spec(topics::DEAD_LETTERS, 1, Cleanup::Bounded { bytes: DEAD_LETTERS_KEPT_BYTES }),
        spec(topics::REPLAY_PROGRESS, 1, Cleanup::Compact),
        spec(topics::REPLAY_CONTROL, 1, Cleanup::Compact),
    ]
}

/// How many partitions the topic of events has; None where it is missing.
pub(crate) fn partitions(broker: &dyn Broker, prefix: &str) -> Result<Option<u32>> {
    let info = broker.describe(&topic(prefix, topics::EVENTS))?;
    info.map(|info| u32::try_from(info.partitions.len()).context("a topic of that many partitions")).transpose()
}

/// The topics are there and as they must be, and the groups are known, before the first write.
pub(super) fn prepare(broker: &dyn Broker, parts: &Parts) -> Result<()> {
    let partitions = match parts.topics {
        Topics::Make { partitions } => {
            broker.create_topics(&specs(&parts.prefix, partitions))?;
            partitions
        }
        Topics::Expect => partitions(broker, &parts.prefix)?.unwrap_or(topics::DEFAULT_PARTITIONS),
    };
    let faults = broker.faults_of_topics(&specs(&parts.prefix, partitions))?;
    if !faults.is_empty() {
        bail!("the topics are not as they must be:\n  {}", faults.join("\n  "));
    }
    for Group { part, name, topics } in &groups(parts) {
        for (partition, missed) in broker.register_group(name, topics)? {
            tracing::warn!("{part} begins late: {missed} records of {partition} are gone and will be missing from it");
        }
    }
    let ours = groups(parts);
    for name in broker.registered_groups() {
        if !ours.iter().any(|group| group.name == name) {
            tracing::warn!(
                "{name} reads this log as well and is not part of this run: when the log is full (--max-log-mib) the \
                 replay waits for it. Run it too, or give it up: --forget-group {name}"
            );
        }
    }
    Ok(())
}

/// Of the parts that run in this process.
pub(super) fn groups(parts: &Parts) -> Vec<Group> {
    let mut groups = Vec::new();
    if let Some(sessionizer) = &parts.sessionizer {
        let topics = vec![topic(&parts.prefix, topics::EVENTS)];
        groups.push(Group { part: "sessionizer", name: sessionizer.group(), topics });
    }
    if !parts.lake.is_empty() {
        let topics = consumer::lake::TOPICS.iter().map(|name| topic(&parts.prefix, name)).collect();
        groups.push(Group { part: super::LAKE, name: format!("{}{}", parts.prefix, consumer::lake::GROUP), topics });
    }
    if parts.warehouse.is_some() {
        let topics = consumer::warehouse::TOPICS.iter().map(|name| topic(&parts.prefix, name)).collect();
        let name = format!("{}{}", parts.prefix, consumer::warehouse::GROUP);
        groups.push(Group { part: super::WAREHOUSE, name, topics });
    }
    if let Some(marts) = &parts.marts {
        groups.push(Group { part: "marts", name: marts.group.clone(), topics: marts.topics() });
    }
    groups
}
