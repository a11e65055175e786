//! What is true of this backend alone; the rest is in the conformance suite.
mod durable;
mod model;
mod room;

use std::time::Duration;

use super::*;
use crate::{Batch, Commit, PollLimits, Polled, Records};

const LIMITS: PollLimits = PollLimits { records: 100_000, bytes: 1 << 30, timeout: Duration::ZERO };

fn spec(topic: &str, partitions: u32, cleanup: Cleanup) -> TopicSpec {
    TopicSpec { topic: topic.into(), partitions, cleanup }
}

fn partition(topic: &str, number: u32) -> TopicPartition {
    TopicPartition::new(&topic.into(), number)
}

fn records(values: &[&str]) -> Records {
    let mut records = Records::new();
    for value in values {
        records.push(1, b"key", &[], |out| out.extend_from_slice(value.as_bytes()));
    }
    records
}

/// One record that lz4 cannot shorten.
fn noise(seed: u64, bytes: usize) -> Records {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut records = Records::new();
    records.push(1, &seed.to_le_bytes(), &[], |out| {
        out.extend(
            std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            })
            .take(bytes),
        );
    });
    records
}

fn write(writer: &mut dyn Writer, topic: &str, partition: u32, records: &Records) {
    writer.begin().unwrap();
    writer.append(&topic.into(), partition, records).unwrap();
    writer.commit().unwrap();
}

fn commit(topic: &str, number: u32, offset: i64, keep_from: i64) -> Commit {
    let (offset, keep_from) = (Offset(offset), Offset(keep_from));
    Commit { partition: partition(topic, number), offset, keep_from, metadata: format!("at {offset}") }
}

fn bounds(broker: &Embedded, topic: &str, partition: usize) -> (i64, i64) {
    let log = broker.describe(&topic.into()).unwrap().unwrap().partitions[partition];
    (log.start.0, log.end.0)
}

/// All values of a partition from its start, each with its offset.
fn all(broker: &Embedded, topic: &str, number: u32) -> Vec<(i64, Vec<u8>)> {
    let (start, end) = bounds(broker, topic, number as usize);
    let mut reader = broker.assign(None, &[(partition(topic, number), Offset(start))]).unwrap();
    let mut read = Vec::new();
    while let Polled::Batch(batch) = reader.poll(&LIMITS).unwrap() {
        read.extend(batch.iter().map(|record| (record.offset.0, record.value.to_vec())));
    }
    assert_eq!(read.last().map_or(end, |(offset, _)| offset + 1), end);
    read
}

fn next_batch(reader: &mut dyn Reader) -> Batch {
    match reader.poll(&LIMITS).unwrap() {
        Polled::Batch(batch) => batch,
        other => panic!("a batch was expected, not {other:?}"),
    }
}

/// The message of an error for good, which must name all of these.
fn refused<T>(result: Result<T>, named: &[&str]) {
    match result {
        Err(Error::Stop(why)) => named.iter().for_each(|name| assert!(why.contains(name), "{name:?} in: {why}")),
        Err(other) => panic!("refused for good was expected, not {other:?}"),
        Ok(_) => panic!("{named:?}: refused for good was expected, and it went through"),
    }
}

fn conforms(options: Options) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    crate::conformance::run_all(&|| Embedded::open(&path, options.clone()).unwrap());
}

#[test]
fn passes_the_conformance_suite() {
    conforms(Options::default());
}

#[test]
fn passes_it_when_every_read_goes_to_the_database() {
    conforms(Options { tail_cache_bytes: 0, ..Options::default() });
}

#[test]
fn partitions_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Embedded::open(folder.path().join("broker.db"), Options::default()).unwrap();
    broker.create_topics(&[spec("t", 3, Cleanup::Delete)]).unwrap();
    let mut writer = broker.writer("w").unwrap();
    for _ in 0..3 {
        for number in 0..3 {
            write(&mut *writer, "t", number, &records(&["1"]));
        }
    }
    let all: Vec<_> = (0..3).map(|number| (partition("t", number), Offset(0))).collect();
    let mut reader = broker.assign(None, &all).unwrap();
    let turns: Vec<u32> = (0..9).map(|_| next_batch(&mut *reader).partition).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_reader_that_waits_is_woken_by_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Embedded::open(folder.path().join("broker.db"), Options::default()).unwrap();
    broker.create_topics(&[spec("t", 1, Cleanup::Delete)]).unwrap();
    let mut reader = broker.assign(None, &[(partition("t", 0), Offset(0))]).unwrap();
    std::thread::scope(|scope| {
        // Far longer than any test may take: only the commit can end it.
        let patient = PollLimits { timeout: Duration::from_secs(3_600), ..LIMITS };
        let waiting = scope.spawn(move || matches!(reader.poll(&patient).unwrap(), Polled::Batch(_)));
        write(&mut *broker.writer("w").unwrap(), "t", 0, &records(&["1"]));
        assert!(waiting.join().unwrap());
    });
}
