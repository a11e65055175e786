//! The suite that every backend passes. A backend is a function that opens it; what one handle
//! wrote, the next one that is opened must find. The suite holds one handle at a time.
//!
//! It knows what the port promises and no more: offsets may have holes and begin anywhere, what
//! was committed may take a while to be seen, and a rebalance takes many polls.
//!
//! | file | what it tries |
//! |---|---|
//! | `transactions` | atomicity, abort, fencing, offsets within transactions |
//! | `reading` | order, bounds, seeking, assigned readers, compaction, what a record is |
//! | `membership` | rebalances, leaving, taking over, stale members |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed assertion is its result")]

mod membership;
mod reading;
mod transactions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::{
    Assigned, Batch, Broker, Cleanup, Commit, Error, Offset, PollLimits, Polled, Reader, Records, Subscription, Topic,
    TopicPartition, TopicSpec, Writer,
};

/// Opens the backend; the log behind it is the same each time.
pub type Make<'a> = &'a dyn Fn() -> Arc<dyn Broker>;

pub struct Case {
    pub name: &'static str,
    pub run: fn(Make<'_>),
}

macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        /// Every case of the suite, by name.
        pub const CASES: &[Case] = &[$(Case { name: stringify!($case), run: $module::$case }),*];
        $(pub use $module::$case;)*
    };
}

cases! {
    transactions::a_transaction_over_topics_is_seen_whole,
    transactions::what_is_taken_is_appended_in_order,
    transactions::what_is_aborted_is_never_seen,
    transactions::outputs_and_offsets_are_one,
    transactions::metadata_comes_back_and_has_a_limit,
    transactions::a_later_writer_fences_the_earlier,
    transactions::calls_out_of_turn_are_refused,
    reading::offsets_alone_are_where_the_next_member_begins,
    reading::a_partition_is_read_in_order,
    reading::a_poll_keeps_its_bounds,
    reading::seeking_stays_within_the_log,
    reading::an_assigned_reader_begins_where_it_is_told,
    reading::compaction_keeps_the_latest_of_each_key,
    reading::topics_are_made_once,
    reading::a_record_comes_back_as_written,
    reading::a_large_record_comes_back,
    reading::reopening_changes_nothing,
    membership::two_members_share_and_hand_over,
    membership::the_same_instance_takes_over,
    membership::a_stale_member_commits_nothing,
}

/// Runs every case, one after another.
///
/// # Panics
/// When one fails; its name was printed before.
#[allow(clippy::print_stderr, reason = "the name of the case that is under way")]
pub fn run_all(make: Make<'_>) {
    for case in CASES {
        eprintln!("conformance: {}", case.name);
        (case.run)(make);
    }
}

const POLL: Duration = Duration::from_millis(50);
/// With the time of a poll: half a minute. Kafka's rebalances take seconds.
const POLLS_MAX: u32 = 600;
/// How long nothing must come for nothing to be there.
const QUIET_POLLS: u32 = 3;
const LIMITS: PollLimits = PollLimits { records: 1_000, bytes: 1 << 20, timeout: POLL };

/// Names that no other case and no earlier run has used.
fn unique(name: &str) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    format!("conformance-{name}-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

/// A topic of its own for a case.
fn topic(broker: &dyn Broker, partitions: u32, cleanup: Cleanup) -> Topic {
    let topic: Topic = unique("topic").as_str().into();
    broker.create_topics(&[TopicSpec { topic: topic.clone(), partitions, cleanup }]).unwrap();
    topic
}

fn group(broker: &dyn Broker, topics: &[&Topic]) -> String {
    let group = unique("group");
    let topics: Vec<Topic> = topics.iter().map(|topic| (*topic).clone()).collect();
    assert_eq!(broker.register_group(&group, &topics).unwrap(), [], "registered before the first write");
    group
}

fn records<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Records {
    let mut records = Records::new();
    for value in values {
        records.push(1_000, b"key", &[], |out| out.extend_from_slice(value.as_ref()));
    }
    records
}

/// One transaction that holds these values alone.
fn write(writer: &mut dyn Writer, topic: &Topic, partition: u32, values: &[&str]) {
    writer.begin().unwrap();
    writer.append(topic, partition, &records(values)).unwrap();
    writer.commit().unwrap();
}

/// A reader of all of a topic, from its start.
fn reader_of(broker: &dyn Broker, topic: &Topic) -> Box<dyn Reader> {
    let info = broker.describe(topic).unwrap().expect("the topic was made");
    let starts: Vec<(TopicPartition, Offset)> =
        (0..).zip(&info.partitions).map(|(number, log)| (TopicPartition::new(topic, number), log.start)).collect();
    broker.assign(None, &starts).unwrap()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    partition: u32,
    offset: Offset,
    timestamp_ms: i64,
    key: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    value: Vec<u8>,
}

fn rows_of(batch: &Batch) -> impl Iterator<Item = Row> {
    batch.iter().map(|record| Row {
        partition: batch.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.to_vec(),
        headers: record.headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
        value: record.value.to_vec(),
    })
}

fn values(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| std::str::from_utf8(&row.value).unwrap()).collect()
}

/// Polls until `done` says so.
fn poll_until<T>(reader: &mut dyn Reader, what: &str, mut done: impl FnMut(Polled) -> Option<T>) -> T {
    for _ in 0..POLLS_MAX {
        if let Some(done) = done(reader.poll(&LIMITS).unwrap()) {
            return done;
        }
    }
    panic!("{what} did not come within {POLLS_MAX} polls");
}

/// Exactly so many records: no more come after them.
fn read(reader: &mut dyn Reader, count: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    if count > 0 {
        poll_until(reader, &format!("{count} records"), |polled| {
            if let Polled::Batch(batch) = polled {
                rows.extend(rows_of(&batch));
            }
            (rows.len() >= count).then_some(())
        });
    }
    for _ in 0..QUIET_POLLS {
        if let Polled::Batch(batch) = reader.poll(&LIMITS).unwrap() {
            rows.extend(rows_of(&batch));
        }
    }
    assert_eq!(rows.len(), count, "{rows:?}");
    rows
}

fn subscribe(broker: &dyn Broker, group: &str, instance: &str, topics: &[&Topic]) -> Box<dyn Reader> {
    broker
        .subscribe(&Subscription {
            group: group.to_owned(),
            instance: instance.to_owned(),
            topics: topics.iter().map(|topic| (*topic).clone()).collect(),
        })
        .unwrap()
}

/// The assignment of a member that has its group to itself.
fn assigned(reader: &mut dyn Reader) -> Vec<Assigned> {
    poll_until(reader, "an assignment", |polled| match polled {
        Polled::Assigned(assigned) if !assigned.is_empty() => Some(assigned),
        _ => None,
    })
}

fn commit_at(partition: &TopicPartition, offset: Offset, metadata: &str) -> Commit {
    Commit { partition: partition.clone(), offset, keep_from: offset, metadata: metadata.to_owned() }
}

/// The committed offset and metadata of a partition.
fn committed(broker: &dyn Broker, group: &str, partition: &TopicPartition) -> Option<(Offset, String)> {
    let found = broker.committed(group, std::slice::from_ref(partition)).unwrap().remove(0);
    found.map(|committed| (committed.offset, committed.metadata))
}

fn is_stop<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Stop(why)) => why,
        Err(other) => panic!("refused for good was expected, not {other:?}"),
        Ok(_) => panic!("refused for good was expected, and it went through"),
    }
}

fn is_lost<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Abort(_)))
}

fn is_fenced<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Fenced(_)))
}
