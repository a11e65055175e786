//! Topics, their ids and settings, and what groups have committed.
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset as Position, TopicPartitionList};

use super::config::RECORD_MAX_BYTES;
use super::context::{Common, ReaderContext};
use super::errors::{of_call, of_code, of_kafka, remedy};
use super::{ANSWER_WAIT, Core, EVENTS_WAIT, ffi, number, pause};
use crate::{Cleanup, Committed, Error, Incarnation, Offset, Result, Topic, TopicPartition, TopicSpec};

/// How often what is expected to come true soon is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LOOKS: u32 = 500;

/// What a topic is made with: nothing expires, and no time of an event is refused.
fn configs(cleanup: Cleanup) -> Vec<(&'static str, String)> {
    let policy = match cleanup {
        Cleanup::Delete | Cleanup::Bounded { .. } => "delete",
        Cleanup::Compact => "compact",
    };
    vec![
        ("cleanup.policy", policy.to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("message.timestamp.type", "CreateTime".to_owned()),
        ("message.timestamp.before.max.ms", i64::MAX.to_string()),
        ("message.timestamp.after.max.ms", i64::MAX.to_string()),
        ("max.message.bytes", RECORD_MAX_BYTES.to_string()),
    ]
}

impl Core {
    /// A topic's id and its number of partitions; none if it is not there.
    pub(super) fn topic(&self, topic: &Topic) -> Result<Option<(Incarnation, u32)>> {
        self.serve();
        let found = self.described(topic, false)?;
        let partitions = |partitions| u32::try_from(partitions).unwrap_or(u32::MAX);
        Ok(found.map(|found| (Incarnation(found.id.into()), partitions(found.partitions))))
    }

    fn described(&self, topic: &Topic, with_rights: bool) -> Result<Option<ffi::Described>> {
        // While nobody answers, librdkafka spins over an admin request; it waits quietly with this one.
        if !self.health.is_up() {
            let asked = self.client.fetch_metadata(Some(topic.as_str()), ANSWER_WAIT);
            asked.map_err(|error| of_kafka(format_args!("asking for topic {topic}"), &error))?;
        }
        match ffi::describe_topic(self.client.client(), topic.as_str(), with_rights, ANSWER_WAIT) {
            Ok(found) => {
                self.health.answered();
                Ok(Some(found))
            }
            Err(error) if matches!(error.code, Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
            Err(error) => {
                self.health.failed(error.code);
                Err(of_call(format_args!("describing topic {topic}"), &error))
            }
        }
    }

    /// Offsets of one log mean nothing in another.
    pub(super) fn check_logs<'a>(&self, logs: impl Iterator<Item = (&'a Topic, &'a Incarnation)>) -> Result<()> {
        for (topic, Incarnation(known)) in logs {
            let Some(found) = self.described(topic, false)? else {
                return Err(Error::Retry(format!("topic {topic} is gone")));
            };
            if *found.id != **known {
                return Err(Error::Stop(format!(
                    "topic {topic} was deleted and made again while it was read (its id was {known} and is {}): \
                     positions in the old one mean nothing in the new one. Take another --topic-prefix, or reset the \
                     groups and remove what was made of the old one",
                    found.id
                )));
            }
        }
        Ok(())
    }

    /// What this user lacks on a topic to read and to write it.
    pub(super) fn missing_rights(&self, topic: &Topic) -> Result<Vec<String>> {
        let Some(found) = self.described(topic, true)? else { return Ok(Vec::new()) };
        let rights = [("READ", found.may_read), ("WRITE", found.may_write)];
        let missing = rights.iter().filter(|(_, may)| !may);
        Ok(missing.map(|(right, _)| format!("this user lacks {right} on the topic {topic}")).collect())
    }

    /// Makes those that are missing in one request: a controller writes down all of it at once.
    pub(super) fn create_topics(&self, specs: &[TopicSpec]) -> Result<()> {
        let mut missing = Vec::new();
        for spec in specs {
            let TopicSpec { topic, partitions, .. } = spec;
            if *partitions == 0 {
                return Err(Error::Stop(format!("topic {topic}: it needs at least one partition")));
            }
            match self.topic(topic)? {
                Some((_, there)) => same_partitions(spec, there)?,
                None => missing.push(spec),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let new = missing.iter().map(|TopicSpec { topic, partitions, cleanup }| ffi::New {
            topic: topic.as_str(),
            partitions: number(*partitions),
            configs: configs(*cleanup),
        });
        let new: Vec<_> = new.collect();
        let replication = self.settings.replication_factor.map_or(-1, i32::from);
        let made = ffi::create_topics(self.client.client(), &new, replication, ANSWER_WAIT);
        let made = made.map_err(|e| of_call(format_args!("making topic {}", missing[0].topic), &e))?;
        for (TopicSpec { topic, .. }, made) in missing.iter().zip(made) {
            match made {
                Err(error) if error.code != Code::TopicAlreadyExists => {
                    return Err(of_call(format_args!("making topic {topic}"), &error));
                }
                _ => {}
            }
        }
        missing.into_iter().try_for_each(|spec| self.wait_for_topic(spec))
    }

    /// The brokers learn of a topic one after another.
    fn wait_for_topic(&self, spec: &TopicSpec) -> Result<()> {
        for _ in 0..LOOKS {
            if let Some((_, there)) = self.topic(&spec.topic)? {
                return same_partitions(spec, there);
            }
            pause(LOOK_AGAIN);
        }
        Err(Error::Retry(format!("topic {} was made, and is not to be seen yet", spec.topic)))
    }

    pub(super) fn faults_of_topic(&self, spec: &TopicSpec) -> Result<Vec<String>> {
        let TopicSpec { topic, cleanup, .. } = spec;
        let Some((_, there)) = self.topic(topic)? else {
            return Ok(vec![format!("topic {topic} is missing: make it with `topics create`")]);
        };
        let mut faults = Vec::new();
        if there != spec.partitions {
            let mend = if there < spec.partitions {
                format!(
                    "kafka-topics.sh --bootstrap-server {} --alter --topic {topic} --partitions {}",
                    self.settings.brokers, spec.partitions
                )
            } else {
                "partitions cannot be taken away: take another topic prefix".to_owned()
            };
            faults.push(format!("topic {topic} has {there} partitions and needs {}: {mend}", spec.partitions));
        }
        let found = ffi::describe_topic_configs(self.client.client(), topic.as_str(), ANSWER_WAIT)
            .map_err(|e| of_call(format_args!("reading the settings of topic {topic}"), &e))?;
        for (name, wanted) in configs(*cleanup) {
            let Some((_, value)) = found.iter().find(|(found, _)| found == name) else { continue };
            // As much as is asked for, or more, of what is a size.
            let enough = name == "max.message.bytes" && value.parse::<usize>().is_ok_and(|n| n >= RECORD_MAX_BYTES);
            if *value != wanted && !enough {
                faults.push(format!(
                    "topic {topic} has {name}={value} and needs {wanted}: kafka-configs.sh --bootstrap-server {} \
                     --alter --entity-type topics --entity-name {topic} --add-config {name}={wanted}",
                    self.settings.brokers
                ));
            }
        }
        Ok(faults)
    }

    /// What the group has committed; an open transaction's commits are waited for.
    ///
    /// A client of that group asks, which joins nothing. (The admin request for it ends the process
    /// when a coordinator goes in the middle: confluentinc/librdkafka#4605.)
    pub(super) fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let doing = || format!("reading what group {group} has committed");
        let client = self.client_of(group)?;
        // It looks for the group's coordinator until the time is up. Why there is none for this user comes
        // as an event, once: as soon as the client is made, or later.
        let refusal = |wait| {
            let codes = std::iter::from_fn(|| client.poll(wait)).filter_map(|event| event.err()?.rdkafka_error_code());
            codes.filter(|code| remedy(*code).is_some()).last()
        };
        let refused_before = refusal(Duration::ZERO);
        for _ in 0..LOOKS {
            let mut list = TopicPartitionList::with_capacity(partitions.len());
            for TopicPartition { topic, partition } in partitions {
                list.add_partition(topic.as_str(), number(*partition));
            }
            let found = match client.committed_offsets(list, ANSWER_WAIT) {
                Ok(found) => found,
                Err(error) if error.rdkafka_error_code() == Some(Code::UnstableOffsetCommit) => {
                    pause(LOOK_AGAIN);
                    continue;
                }
                Err(error) => {
                    error.rdkafka_error_code().into_iter().for_each(|code| self.health.failed(code));
                    let refused = refusal(EVENTS_WAIT).or(refused_before);
                    return Err(refused.map_or_else(|| of_kafka(doing(), &error), |code| of_code(doing(), code, "")));
                }
            };
            let of = |TopicPartition { topic, partition }: &TopicPartition| {
                let Some(at) = found.find_partition(topic.as_str(), number(*partition)) else { return Ok(None) };
                at.error()?;
                Ok(match at.offset() {
                    Position::Offset(offset) => {
                        Some(Committed { offset: Offset(offset), metadata: at.metadata().to_owned() })
                    }
                    _ => None,
                })
            };
            let committed: Result<Vec<_>, KafkaError> = partitions.iter().map(of).collect();
            match committed {
                Ok(committed) => {
                    self.health.answered();
                    return Ok(committed);
                }
                Err(error) if error.rdkafka_error_code() == Some(Code::UnstableOffsetCommit) => pause(LOOK_AGAIN),
                Err(error) => return Err(of_kafka(doing(), &error)),
            }
        }
        Err(Error::Retry(format!("{}: a transaction that commits for it is still open", doing())))
    }

    /// The client that asks about a group; made once.
    fn client_of(&self, group: &str) -> Result<Arc<BaseConsumer<ReaderContext>>> {
        let mut clients = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(group) {
            return Ok(Arc::clone(client));
        }
        let context = ReaderContext::new(Common::new(&self.health, &self.settings, Some(group)));
        context.leave();
        let client: BaseConsumer<ReaderContext> = self
            .settings
            .inquirer(group)
            .create_with_context(context)
            .map_err(|e| of_kafka(format_args!("asking about group {group}"), &e))?;
        let client = Arc::new(client);
        clients.insert(group.to_owned(), Arc::clone(&client));
        Ok(client)
    }
}

fn same_partitions(spec: &TopicSpec, there: u32) -> Result<()> {
    let TopicSpec { topic, partitions, .. } = spec;
    if there == *partitions {
        return Ok(());
    }
    Err(Error::Stop(format!(
        "topic {topic} has {there} partitions, {partitions} were asked for; ask for {there}, or take another topic \
         prefix"
    )))
}
