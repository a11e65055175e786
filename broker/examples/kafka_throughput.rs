//! Measures the Kafka backend: records written in transactions of 100 ms, then read.
//!
//! `cargo run --release -p broker --features kafka --example kafka_throughput -- 127.0.0.1:9092 [RECORDS]`
//! HEADERS=0 to 3 says with how many headers; an event has three.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures, and says what it measured")]

use std::time::{Duration, Instant};

use broker::kafka::{Kafka, Settings};
use broker::{Broker, Cleanup, PollLimits, Polled, Records, Topic, TopicPartition, TopicSpec};

const PARTITIONS: u32 = 4;
/// Appended at once.
const BATCH: u64 = 1_000;
const TRANSACTION: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let count: u64 = arguments.next().map_or(Ok(2_000_000), |count| count.parse())?;
    let headers: usize = std::env::var("HEADERS").map_or(Ok(3), |count| count.parse())?;
    let kafka = Kafka::connect(Settings::new(address))?;
    let topic: Topic = format!("throughput-{}", std::process::id()).as_str().into();
    kafka.create_topics(&[TopicSpec { topic: topic.clone(), partitions: PARTITIONS, cleanup: Cleanup::Delete }])?;

    let mut writer = kafka.writer("throughput")?;
    let (mut commits, mut records, mut written) = (Vec::new(), Records::new(), 0);
    let (began, cpu) = (Instant::now(), cpu_ticks());
    while written < count {
        writer.begin()?;
        let opened = Instant::now();
        while written < count && opened.elapsed() < TRANSACTION {
            records.clear();
            for i in written..written + BATCH {
                // A session's id as the key, and a value that compresses as events do.
                let key = format!("{:08x}-0000-4000-8000-{:012x}", i % 50_000, i % 50_000);
                let sent = i.to_le_bytes();
                let with: [(&str, &[u8]); 3] =
                    [("content-type", b"application/x-protobuf"), ("intended-at", &sent), ("sent-at", &sent)];
                let with = &with[..headers.min(with.len())];
                records.push(1_569_888_000_000 + i64::try_from(i / 10)?, key.as_bytes(), with, |out| {
                    out.extend_from_slice(
                        format!("{i:>12}|view|electronics.smartphone|samsung|{:>10}", i % 977).as_bytes(),
                    );
                    out.resize(out.len() + 30, b'x');
                });
            }
            writer.append(&topic, u32::try_from(written / BATCH % u64::from(PARTITIONS))?, &records)?;
            written += BATCH;
        }
        let committing = Instant::now();
        writer.commit()?;
        commits.push(committing.elapsed());
    }
    report("written", written, began.elapsed(), cpu_ticks() - cpu);
    commits.sort_unstable();
    let at = |p: usize| commits[(commits.len() - 1) * p / 100];
    println!("full commits ({}): p50 {:?}, p99 {:?}, most {:?}", commits.len(), at(50), at(99), at(100));

    let mut small: Vec<Duration> = Vec::new();
    for _ in 0..300 {
        records.clear();
        records.push(1_569_888_000_000, b"key", &[], |out| out.extend_from_slice(b"value"));
        writer.begin()?;
        writer.append(&topic, 0, &records)?;
        let committing = Instant::now();
        writer.commit()?;
        small.push(committing.elapsed());
    }
    small.sort_unstable();
    println!("commits of one record: p50 {:?}, p99 {:?}", small[small.len() / 2], small[small.len() * 99 / 100]);
    let written = written + 300;

    let asked = Instant::now();
    let bounds = kafka.describe(&topic)?.ok_or("the topic is gone")?.partitions;
    println!("describe: {:?}", asked.elapsed());
    let from: Vec<_> =
        (0..PARTITIONS).zip(&bounds).map(|(number, log)| (TopicPartition::new(&topic, number), log.start)).collect();
    for records in [1_000, 16_384] {
        let mut reader = kafka.assign(None, &from)?;
        let limits = PollLimits { records, bytes: 4 << 20, timeout: Duration::from_secs(1) };
        let (mut read, mut batches, mut idle) = (0_u64, 0_u64, 0);
        let (began, cpu) = (Instant::now(), cpu_ticks());
        while read < written && idle < 30 {
            match reader.poll(&limits)? {
                Polled::Batch(batch) => {
                    read += batch.len() as u64;
                    batches += 1;
                }
                _ => idle += 1,
            }
        }
        report("read", read, began.elapsed(), cpu_ticks() - cpu);
        println!("    polls of up to {records} records, {} a batch", read / batches.max(1));
    }
    Ok(())
}

fn report(what: &str, records: u64, time: Duration, cpu_ticks: u64) {
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let (rate, cpu_us) = (records as f64 / time.as_secs_f64(), cpu_ticks as f64 * 1e4 / records as f64);
    println!("{what}: {records} records in {time:.2?}: {rate:.0} records/s, {cpu_us:.2} µs of CPU each");
}

/// CPU time of this process in ticks of 10 ms, where /proc tells (0 elsewhere): on a busy machine it
/// says more than the time that passed.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}
