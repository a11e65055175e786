//! The backend on Apache Kafka: rdkafka, with transactions, read_committed readers and static
//! members.
//!
//! | file | what it holds |
//! |---|---|
//! | `config` | [`Settings`], and what librdkafka's clients are set to |
//! | `statistics`, `token` | what librdkafka says of a client; what it is told of who it is |
//! | `context` | what librdkafka tells its clients: logs, errors, rebalances |
//! | `errors` | librdkafka's errors, by what the caller should do |
//! | `admin` | topics, their ids and settings, what groups have committed |
//! | `ends` | where partitions begin, and where their last readable record is |
//! | `writer`, `reader` | the port's two halves |
//! | `reading` | a partition that is being read |
//! | `share`, `window` | what several readers of a process read, fetched once |
//! | `supply` | what writers of a process have committed, for its readers without fetching |
//! | `flow` | how far its readers are behind its writers |
//! | `ffi` | what goes below rdkafka; all that is unsafe |
//!
//! Who owns what: a reader and a writer have a librdkafka client each, whose threads do the work;
//! one more client, [`Core`]'s, answers questions for all of them.

mod admin;
mod config;
mod context;
mod ends;
mod errors;
mod ffi;
mod flow;
mod reader;
mod reading;
mod share;
mod statistics;
mod supply;
mod token;
mod window;
mod writer;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;

pub use self::config::{OnStatistics, Settings, Statistics, is_secret, may_be_shown};
use self::context::{Common, Health, ReaderContext};
use self::ends::Ends;
use self::errors::{is_certificate_refused, is_of_groups, of_code, of_kafka, remedy};
use self::reader::KafkaReader;
use self::share::Share;
use self::writer::KafkaWriter;
use crate::{
    Broker, Cancel, Commit, Committed, Error, Incarnation, LogBounds, METADATA_MAX_BYTES, Offset, Reader, Result,
    Subscription, Topic, TopicInfo, TopicPartition, TopicSpec, Writer,
};

/// How long a broker may take to answer a question.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// The same of the first one: who only looks is told soon.
const CONNECT_WAIT: Duration = Duration::from_secs(8);
/// To hear what a client has to say about a question that failed.
const EVENTS_WAIT: Duration = Duration::from_millis(5);
const TIMED_OUT_WAIT: Duration = Duration::from_secs(12);

/// A Kafka cluster.
pub struct Kafka(Arc<Core>);

struct Core {
    settings: Settings,
    health: Arc<Health>,
    /// Asks; it is in no group. Only who holds `ends` polls it or assigns it anything.
    client: BaseConsumer<ReaderContext>,
    ends: Mutex<Ends>,
    /// Of each group that was asked about: the client that asks.
    groups: Mutex<HashMap<String, Arc<BaseConsumer<ReaderContext>>>>,
    /// Where transactions of this process have written since the ends were last looked for.
    written: Mutex<HashSet<(Topic, u32)>>,
    share: Arc<Share>,
}

impl Drop for Core {
    fn drop(&mut self) {
        self.share.close();
    }
}

impl Kafka {
    /// Checks the settings, and that a broker answers.
    ///
    /// # Errors
    /// [`Error::Stop`] for settings that are wrong or refused; [`Error::Retry`] while no broker
    /// answers.
    pub fn connect(settings: Settings) -> Result<Arc<Self>> {
        settings.check()?;
        let health = Arc::new(Health::default());
        let context = ReaderContext::new(Common::new(&health, &settings, None));
        context.leave();
        let client: BaseConsumer<ReaderContext> =
            settings.probe().create_with_context(context).map_err(|e| of_kafka("connecting to Kafka", &e))?;
        let core = Core {
            settings,
            health,
            client,
            ends: Mutex::default(),
            groups: Mutex::default(),
            written: Mutex::default(),
            share: Arc::default(),
        };
        core.ask_for_the_cluster()?;
        Ok(Arc::new(Self(Arc::new(core))))
    }
}

impl Core {
    fn ask_for_the_cluster(&self) -> Result<()> {
        const STEP: Duration = Duration::from_millis(250);
        let brokers = &self.settings.brokers;
        if ffi::connect(self.client.client(), STEP).is_ok() {
            self.health.connected();
            return Ok(());
        }
        let mut waited = Duration::ZERO;
        while waited < CONNECT_WAIT {
            if self.client.client().fetch_cluster_id(STEP).is_some() {
                self.health.connected();
                return Ok(());
            }
            waited += STEP;
            // A refusal comes as an event.
            while let Some(event) = self.client.poll(EVENTS_WAIT) {
                if let Err(error) = event
                    && let Some(code) =
                        error.rdkafka_error_code().filter(|code| remedy(*code).is_some() && !is_of_groups(*code))
                {
                    let why = self.health.refusal().unwrap_or_default();
                    return Err(of_code(format_args!("connecting to Kafka at {brokers}"), code, &why));
                }
            }
            if let Some(why) = self.health.refusal().filter(|why| is_certificate_refused(why)) {
                return Err(of_code(format_args!("connecting to Kafka at {brokers}"), RDKafkaErrorCode::SSL, &why));
            }
        }
        Err(Error::Retry(format!("no Kafka broker answers at {brokers}")))
    }

    /// Answers what librdkafka asks of the client: a new token, say. Whoever has it does so too.
    fn serve(&self) {
        if let Ok(_ends) = self.ends.try_lock() {
            hear(&self.client);
        }
    }

    /// How long a transaction may hold what comes after it: the coordinator aborts what is open for too
    /// long, and looks every ten seconds.
    fn settle_wait(&self) -> Duration {
        self.settings.transaction_timeout + TIMED_OUT_WAIT
    }

    /// A transaction of this process that wrote there was committed.
    fn note_written(&self, partitions: impl Iterator<Item = (Topic, u32)>) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).extend(partitions);
    }

    fn take_written(&self, topic: &Topic, partitions: &[u32]) -> Vec<u32> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.iter().copied().filter(|number| written.remove(&(topic.clone(), *number))).collect()
    }

    fn bounds(&self, topic: &Topic, incarnation: &Incarnation, partitions: &[u32]) -> Result<Vec<LogBounds>> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.take_written(topic, partitions);
        let found = ends.find(&self.client, topic, incarnation, partitions, &own, self.settle_wait());
        match found {
            Ok(_) => self.health.answered(),
            Err(_) => self.note_written(own.into_iter().map(|number| (topic.clone(), number))),
        }
        found
    }

    /// The bounds of each partition, and its topic's id.
    fn bounds_of(&self, wanted: &[TopicPartition]) -> Result<Vec<(Incarnation, LogBounds)>> {
        let mut topics: HashMap<&Topic, BTreeSet<u32>> = HashMap::new();
        for TopicPartition { topic, partition } in wanted {
            topics.entry(topic).or_default().insert(*partition);
        }
        let unknown =
            |name: &dyn fmt::Display| Error::Stop(format!("there is no {name}: make it with `topics create`"));
        let mut found = HashMap::new();
        for (topic, numbers) in topics {
            let (incarnation, count) = self.topic(topic)?.ok_or_else(|| unknown(topic))?;
            if let Some(number) = numbers.iter().find(|number| **number >= count) {
                return Err(unknown(&TopicPartition::new(topic, *number)));
            }
            let numbers: Vec<u32> = numbers.into_iter().collect();
            let bounds = self.bounds(topic, &incarnation, &numbers)?;
            for (number, bounds) in numbers.into_iter().zip(bounds) {
                found.insert(TopicPartition::new(topic, number), (incarnation.clone(), bounds));
            }
        }
        wanted.iter().map(|name| found.get(name).cloned().ok_or_else(|| unknown(name))).collect()
    }

    fn bounds_of_one(&self, partition: &TopicPartition) -> Result<LogBounds> {
        let found = self.bounds_of(std::slice::from_ref(partition))?;
        let found = found.first().map(|(_, bounds)| *bounds);
        found.ok_or_else(|| Error::Stop(format!("there is no {partition}")))
    }
}

/// Lets a client say what it has to, without waiting. A poll that waits for nothing ends at each line
/// that librdkafka logs, so one of them does not do.
fn hear(client: &BaseConsumer<ReaderContext>) {
    const POLLS: usize = 256;
    for _ in 0..POLLS {
        let _ = client.poll(Duration::ZERO);
    }
}

fn within(partition: &TopicPartition, offset: Offset, bounds: LogBounds) -> Result<()> {
    let LogBounds { start, end } = bounds;
    if (start..=end).contains(&offset) {
        return Ok(());
    }
    Err(Error::Stop(format!(
        "{partition}: offset {offset} is outside the log, which holds {start} to {end}; its records are gone or never \
         were: this log and the outputs do not belong together"
    )))
}

fn check_commits(group: &str, commits: &[Commit]) -> Result<()> {
    for Commit { partition, metadata, .. } in commits {
        if metadata.len() > METADATA_MAX_BYTES {
            return Err(Error::Stop(format!(
                "group {group}, {partition}: {} bytes of metadata; {METADATA_MAX_BYTES} is the most",
                metadata.len()
            )));
        }
    }
    Ok(())
}

/// A partition's number as librdkafka has it.
fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

fn pause(time: Duration) {
    Cancel::new().wait(time);
}

impl Broker for Kafka {
    fn kind(&self) -> &'static str {
        "kafka"
    }

    fn answers(&self) -> bool {
        self.0.health.is_up()
    }

    /// Between two transactions nothing is sent for several round trips.
    fn transaction_records(&self) -> usize {
        32 << 10
    }

    fn faults_of_topics(&self, topics: &[TopicSpec]) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        for spec in topics {
            faults.extend(self.0.faults_of_topic(spec)?);
        }
        Ok(faults)
    }

    fn missing_rights(&self, topics: &[Topic]) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for topic in topics {
            missing.extend(self.0.missing_rights(topic)?);
        }
        Ok(missing)
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<()> {
        self.0.create_topics(topics)
    }

    fn describe(&self, topic: &Topic) -> Result<Option<TopicInfo>> {
        let Some((incarnation, partitions)) = self.0.topic(topic)? else { return Ok(None) };
        let numbers: Vec<u32> = (0..partitions).collect();
        let partitions = self.0.bounds(topic, &incarnation, &numbers)?;
        Ok(Some(TopicInfo { incarnation, partitions }))
    }

    fn describe_settled(&self, topic: &Topic, cancel: &Cancel) -> Result<Option<TopicInfo>> {
        let Some((_, partitions)) = self.0.topic(topic)? else { return Ok(None) };
        let numbers: Vec<u32> = (0..partitions).collect();
        // Not under the lock of the ends: others may ask meanwhile.
        ends::settle(&self.0.client, topic, &numbers, self.0.settle_wait(), cancel)?;
        self.describe(topic)
    }

    fn check_logs(&self, logs: &[(Topic, Incarnation)]) -> Result<()> {
        self.0.check_logs(logs.iter().map(|(topic, incarnation)| (topic, incarnation)))
    }

    fn register_group(&self, group: &str, topics: &[Topic]) -> Result<Vec<(TopicPartition, u64)>> {
        let mut missed = Vec::new();
        for topic in topics {
            let Some((_, partitions)) = self.0.topic(topic)? else { continue };
            let numbers: Vec<u32> = (0..partitions).collect();
            let starts = ends::starts(&self.0.client, topic, &numbers)?;
            let begun = numbers.into_iter().zip(starts).filter(|(_, start)| *start > 0);
            missed.extend(begun.map(|(number, start)| (TopicPartition::new(topic, number), start.cast_unsigned())));
        }
        if missed.is_empty() {
            return Ok(missed);
        }
        let partitions: Vec<_> = missed.iter().map(|(partition, _)| partition.clone()).collect();
        let committed = self.committed(group, &partitions)?;
        Ok(missed.into_iter().zip(committed).filter(|(_, found)| found.is_none()).map(|(missed, _)| missed).collect())
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>> {
        self.0.committed(group, partitions)
    }

    fn writer(&self, transactional_id: &str) -> Result<Box<dyn Writer>> {
        Ok(Box::new(KafkaWriter::open(Arc::clone(&self.0), transactional_id)?))
    }

    fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Reader>> {
        Ok(Box::new(KafkaReader::of_member(Arc::clone(&self.0), subscription)?))
    }

    fn assign(&self, group: Option<&str>, partitions: &[(TopicPartition, Offset)]) -> Result<Box<dyn Reader>> {
        Ok(Box::new(KafkaReader::of_partitions(Arc::clone(&self.0), group, partitions)?))
    }
}
