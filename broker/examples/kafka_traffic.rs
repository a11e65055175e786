//! What Kafka itself costs the pipeline: the same traffic through the same backend, with nothing done
//! to the records. A producer writes events in transactions; one member reads them and writes steps
//! and sessions with its offsets, exactly once; two readers read all three topics. In the proportions
//! of the real sample. All that is read is fetched, once for all readers, as readers in a process of their
//! own have it; with `apart` each fetches for itself, as in processes of their own each; with `supplied` they
//! have from memory what was committed, as the parts of one process do.
//!
//! `cargo run --release -p broker --features kafka --example kafka_traffic -- 127.0.0.1:9092 [EVENTS [apart|supplied]]`
//! prints one JSON object.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures, and says what it measured")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker::kafka::{Kafka, Settings};
use broker::{
    Broker, Cleanup, Commit, Offset, PollLimits, Polled, Reader, Records, Subscription, Topic, TopicPartition,
    TopicSpec,
};

/// As the command has it, with the settings that bench/kafka.py gives: librdkafka allocates for every
/// record.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PARTITIONS: u32 = 4;
/// Appended at once, to one partition.
const BATCH: u64 = 1_000;
const TRANSACTION: Duration = Duration::from_millis(100);
const LIMITS: PollLimits = PollLimits { records: 16 << 10, bytes: 4 << 20, timeout: Duration::from_millis(100) };
/// Of 17,434 events of the sample: 12,633 steps and 5,067 sessions.
const EVENTS: u64 = 17_434;
const STEPS: u64 = 12_633;
const SESSIONS: u64 = 5_067;
/// Bytes of a value, about.
const EVENT_BYTES: usize = 95;
const STEP_BYTES: usize = 150;
const SESSION_BYTES: usize = 120;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let events: u64 = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;
    let how = arguments.next().unwrap_or_default();
    let apart = how == "apart";
    let kafka: Arc<dyn Broker> = Kafka::connect(Settings::new(address.clone()))?;
    // Readers know nothing of what another connection writes.
    let read_by: Arc<dyn Broker> =
        if how == "supplied" { Arc::clone(&kafka) } else { Kafka::connect(Settings::new(address))? };
    let topics: Vec<Topic> = ["events", "steps", "sessions"]
        .iter()
        .map(|name| format!("traffic-{}-{name}", std::process::id()).as_str().into())
        .collect();
    let spec = |topic: &Topic| TopicSpec { topic: topic.clone(), partitions: PARTITIONS, cleanup: Cleanup::Delete };
    kafka.create_topics(&topics.iter().map(spec).collect::<Vec<_>>())?;
    // A share of a batch is rounded down: what is to be read in all is known when it is written.
    let all = AtomicU64::new(u64::MAX);
    let began = Instant::now();
    let totals = std::thread::scope(|scope| -> Result<(u64, u64), Failure> {
        let readers = ["a", "b"].map(|group| {
            // Who is in no group shares nothing.
            let (group, broker, topics, all) = ((!apart).then_some(group), read_by.as_ref(), &topics, &all);
            scope.spawn(move || read(broker, group, topics, all))
        });
        let producer = scope.spawn(|| produce(kafka.as_ref(), &topics[0], events));
        let middle = scope.spawn(|| transform(kafka.as_ref(), read_by.as_ref(), &topics, events));
        let outputs = join(producer).and_then(|()| join(middle));
        // After a failure nobody shall wait for what does not come.
        all.store(outputs.as_ref().map_or(0, |outputs| events + outputs), Relaxed);
        readers.into_iter().try_for_each(|reader| join(reader))?;
        Ok((events, outputs?))
    });
    let (events, outputs) = totals?;
    println!("{{\"events\": {events}, \"outputs\": {outputs}, \"seconds\": {:.3}}}", began.elapsed().as_secs_f64());
    Ok(())
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure::from("a thread has died"))?
}

fn fill(records: &mut Records, count: u64, bytes: usize) {
    records.clear();
    for i in 0..count {
        let key = format!("{:08x}-0000-4000-8000-{:012x}", i % 5_000, i % 5_000);
        let stamp = i.to_le_bytes();
        let headers: [(&str, &[u8]); 3] =
            [("content-type", b"application/x-protobuf"), ("intended-at", &stamp), ("sent-at", &stamp)];
        records.push(1_569_888_000_000, key.as_bytes(), &headers, |out| {
            let end = out.len() + bytes;
            out.extend_from_slice(format!("{i:>12}|view|electronics.smartphone|samsung|{:>10}", i % 977).as_bytes());
            out.resize(end, b'x');
        });
    }
}

fn produce(broker: &dyn Broker, topic: &Topic, count: u64) -> Result<(), Failure> {
    let mut writer = broker.writer(topic.as_str())?;
    let (mut records, mut written) = (Records::new(), 0);
    while written < count {
        writer.begin()?;
        let opened = Instant::now();
        while written < count && opened.elapsed() < TRANSACTION {
            let batch = BATCH.min(count - written);
            fill(&mut records, batch, EVENT_BYTES);
            writer.append(topic, u32::try_from(written / BATCH % u64::from(PARTITIONS))?, &records)?;
            written += batch;
        }
        writer.commit()?;
    }
    Ok(())
}

/// How many steps and sessions it has written.
fn transform(broker: &dyn Broker, read_by: &dyn Broker, topics: &[Topic], count: u64) -> Result<u64, Failure> {
    let group = format!("{}-group", topics[0]);
    let mut writer = broker.writer(&group)?;
    let mut reader =
        read_by.subscribe(&Subscription { group, instance: "0".to_owned(), topics: vec![topics[0].clone()] })?;
    let (mut read, mut outputs, mut records) = (0, 0, Records::new());
    while read < count {
        let Some(batch) = next(&mut *reader)? else { continue };
        let partition = batch.partition;
        let (mut taken, mut at) = (batch.len() as u64, batch.next_offset().unwrap_or(Offset(0)));
        writer.begin()?;
        let opened = Instant::now();
        let mut commits = vec![(partition, at)];
        // As the part does: what has come by now shares a transaction.
        while opened.elapsed() < Duration::from_millis(40) && read + taken < count {
            let Some(more) = next(&mut *reader)? else { break };
            taken += more.len() as u64;
            at = more.next_offset().unwrap_or(at);
            commits.retain(|(partition, _)| *partition != more.partition);
            commits.push((more.partition, at));
        }
        for (topic, share, bytes) in [(&topics[1], STEPS, STEP_BYTES), (&topics[2], SESSIONS, SESSION_BYTES)] {
            let count = taken * share / EVENTS;
            fill(&mut records, count, bytes);
            writer.append(topic, partition, &records)?;
            outputs += count;
        }
        let membership = reader.membership().ok_or("no longer in the group")?;
        let commit = |(number, offset): &(u32, Offset)| Commit {
            partition: TopicPartition::new(&topics[0], *number),
            offset: *offset,
            keep_from: *offset,
            metadata: String::new(),
        };
        writer.commit_offsets(&membership, &commits.iter().map(commit).collect::<Vec<_>>())?;
        writer.commit()?;
        read += taken;
    }
    reader.leave()?;
    Ok(outputs)
}

fn next(reader: &mut dyn Reader) -> Result<Option<broker::Batch>, Failure> {
    Ok(match reader.poll(&LIMITS)? {
        Polled::Batch(batch) => Some(batch),
        _ => None,
    })
}

fn read(broker: &dyn Broker, group: Option<&str>, topics: &[Topic], count: &AtomicU64) -> Result<(), Failure> {
    let from: Vec<_> = topics
        .iter()
        .flat_map(|topic| (0..PARTITIONS).map(move |number| (TopicPartition::new(topic, number), Offset(0))))
        .collect();
    let mut reader = broker.assign(group, &from)?;
    let mut read = 0;
    while read < count.load(Relaxed) {
        read += next(&mut *reader)?.map_or(0, |batch| batch.len() as u64);
    }
    Ok(())
}
