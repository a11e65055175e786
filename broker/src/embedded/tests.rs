//! What is true of this backend alone; the rest is in the conformance suite.
use std::time::Duration;

use super::*;
use crate::{PollLimits, Polled, Records};

pub(super) const LIMITS: PollLimits = PollLimits { records: 1000, bytes: 1 << 20, timeout: Duration::ZERO };

pub(super) fn spec(topic: &str, partitions: u32, cleanup: Cleanup) -> TopicSpec {
    TopicSpec { topic: topic.into(), partitions, cleanup }
}

pub(super) fn records(values: &[&str]) -> Records {
    let mut records = Records::new();
    for value in values {
        records.push(1, b"key", &[], |out| out.extend_from_slice(value.as_bytes()));
    }
    records
}

#[test]
fn what_is_committed_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Embedded::open(folder.path().join("broker.db"), Options::default()).unwrap();
    broker.create_topics(&[spec("t", 2, Cleanup::Delete)]).unwrap();
    let mut writer = broker.writer("w").unwrap();
    writer.begin().unwrap();
    writer.append(&"t".into(), 0, &records(&["a", "b"])).unwrap();
    writer.append(&"t".into(), 0, &records(&["c"])).unwrap();
    let mut reader = broker.assign(None, &[(TopicPartition::new(&"t".into(), 0), Offset(0))]).unwrap();
    assert!(matches!(reader.poll(&LIMITS).unwrap(), Polled::Idle));
    writer.commit().unwrap();
    let Polled::Batch(batch) = reader.poll(&LIMITS).unwrap() else { panic!("no batch") };
    let values: Vec<_> = batch.iter().map(|record| record.value.to_vec()).collect();
    assert_eq!(values, [b"a", b"b", b"c"]);
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
