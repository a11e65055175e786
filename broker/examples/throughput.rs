//! How fast the embedded log is: one thread writes, one reads; then all is read from the database.
//!
//! `cargo run --release -p broker --example throughput [millions of records] [records a commit]`
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_possible_truncation, reason = "a measurement")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]
use std::time::{Duration, Instant};

use broker::embedded::{Embedded, Options};
use broker::{Broker, Cleanup, Commit, Offset, PollLimits, Polled, Records, Topic, TopicPartition, TopicSpec};

const PARTITIONS: u32 = 4;
const LIMITS: PollLimits = PollLimits { records: 16_384, bytes: 4 << 20, timeout: Duration::from_secs(1) };

/// As shop events are: a session's key, a header, ids and a price that hardly repeat; 130 bytes.
fn push(records: &mut Records, state: &mut u64, n: u64) {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let (a, b) = (*state >> 20, *state >> 41);
    let key = format!("{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}", a as u32, b & 0xffff, b & 0xfff, a & 0xfff, a);
    let at = 1_569_888_000_000 + i64::try_from(n / 20).unwrap() * 1_000;
    records.push(at, key.as_bytes(), &[("content-type", b"application/protobuf")], |out| {
        out.extend_from_slice(&n.to_le_bytes());
        out.extend_from_slice(&a.to_le_bytes()[..5]);
        out.extend_from_slice(&b.to_le_bytes()[..3]);
        out.extend_from_slice(
            [&b"electronics.smartphone samsung view"[..], b"appliances.kitchen lg cart"][(b % 2) as usize],
        );
    });
}

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn report(what: &str, records: u64, bytes: u64, wall: f64, cpu: f64) {
    println!(
        "{what}: {:.0} records/s, {:.0} MB/s, {:.3} us CPU a record ({wall:.2} s)",
        records as f64 / wall,
        bytes as f64 / wall / 1e6,
        cpu * 1e6 / records as f64
    );
}

fn read_all(broker: &Embedded, topic: &Topic, total: u64, group: bool, what: &str) {
    let from: Vec<_> = (0..PARTITIONS).map(|p| (TopicPartition::new(topic, p), Offset(0))).collect();
    let mut reader = broker.assign(group.then_some("g"), &from).unwrap();
    let (start, cpu_before, mut count, mut bytes, mut sum, mut polls) = (Instant::now(), cpu(), 0, 0, 0, 0_u64);
    let mut next = vec![Offset(0); PARTITIONS as usize];
    while count < total {
        let Polled::Batch(batch) = reader.poll(&LIMITS).unwrap() else { continue };
        count += batch.len() as u64;
        bytes += batch.bytes() as u64;
        sum += batch.iter().map(|record| record.value.len()).sum::<usize>();
        next[batch.partition as usize] = batch.next_offset().unwrap();
        polls += 1;
        if group && polls.is_multiple_of(16) {
            let commits = (0..).zip(&next).map(|(p, offset)| {
                let (partition, offset) = (TopicPartition::new(topic, p), *offset);
                Commit { partition, offset, keep_from: offset, metadata: String::new() }
            });
            reader.commit(&commits.collect::<Vec<_>>()).unwrap();
        }
    }
    assert!(sum > 0);
    report(what, count, bytes, start.elapsed().as_secs_f64(), cpu() - cpu_before);
}

fn main() {
    let argument = |n: usize, default: u64| std::env::args().nth(n).map_or(default, |a| a.parse().unwrap());
    let (total, batch) = (argument(1, 4) * 1_000_000, argument(2, 32_768));
    for (group, what) in [(false, "kept"), (true, "deleted as it is read")] {
        let folder = std::env::temp_dir().join(format!("broker-throughput-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let broker = Embedded::open(folder.join("broker.db"), Options::default()).unwrap();
        let topic: Topic = "events".into();
        broker
            .create_topics(&[TopicSpec { topic: topic.clone(), partitions: PARTITIONS, cleanup: Cleanup::Delete }])
            .unwrap();
        if group {
            broker.register_group("g", std::slice::from_ref(&topic)).unwrap();
        }
        println!("{what}: {total} records, {batch} a commit");
        // Made once: what is measured is the log.
        let (mut state, mut bytes) = (1, 0);
        let made: Vec<Vec<Records>> = (0..8)
            .map(|_| {
                let mut partitions = vec![Records::new(); PARTITIONS as usize];
                (0..batch).for_each(|n| push(&mut partitions[(n % u64::from(PARTITIONS)) as usize], &mut state, n));
                partitions
            })
            .collect();
        std::thread::scope(|scope| {
            scope.spawn(|| read_all(&broker, &topic, total / batch * batch, group, "  read beside it"));
            let mut writer = broker.writer("w").unwrap();
            let cancel = broker::Cancel::new();
            let (start, cpu_before) = (Instant::now(), cpu());
            for i in 0..total / batch {
                writer.wait_for_room(&cancel).unwrap();
                writer.begin().unwrap();
                for (partition, records) in (0..).zip(&made[(i % 8) as usize]) {
                    writer.append(&topic, partition, records).unwrap();
                    bytes += records.bytes() as u64;
                }
                writer.commit().unwrap();
            }
            report("  written", total / batch * batch, bytes, start.elapsed().as_secs_f64(), cpu() - cpu_before);
        });
        if !group {
            read_all(&broker, &topic, total / batch * batch, false, "  read again");
        }
        drop(broker);
        let size = std::fs::metadata(folder.join("broker.db")).unwrap().len();
        println!("  the file: {:.2} of the bytes appended", size as f64 / bytes as f64);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
