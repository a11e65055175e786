//! What the lake costs: rows/s and µs/row for each topic, through `lake::run` into memory, beside
//! what arrow-rs's own writer with its default settings takes for the same columns. Times are CPU
//! times of the one thread that does it (Linux), so that a busy machine does not matter.
//!
//! ```text
//! zcat data/2019-Oct-head.csv.gz > /tmp/head.csv
//! cargo run --release -p consumer --example lake_speed -- /tmp/head.csv 100
//! ```
//! The file is repeated so many times, each time a day's stretch later and with fresh session ids.
//! Further arguments: a codec (lz4, snappy, zstd, none), and a folder to keep the files in.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a program for people at a terminal")]
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use broker::{
    Assigned, Batch, Broker, Cancel, Commit, Committed, Incarnation, LogBounds, Membership, Offset, PollLimits, Polled,
    Reader, Records, Subscription, Target, Topic, TopicInfo, TopicPartition, TopicSpec, Writer,
};
use consumer::lake::{self, Metrics, ObjectStore, Report, Settings};
use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use records::{
    Cents, EventTime, EventType, EventsRecord, Feed, Format, FunnelStep, LeftInCart, Message, SENT_AT, Session,
    ShopEvent, SourceId, Stage, micros_header,
};

const PARTITIONS: u32 = 4;
const BATCH: usize = 8192;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(copies)) = (arguments.next(), arguments.next()) else {
        println!("lake_speed FILE.csv COPIES [CODEC] [FOLDER]");
        return;
    };
    let copies: i64 = copies.parse().expect("COPIES is a number");
    let codec = arguments.next().map(|codec| codec.parse().expect("a codec")).unwrap_or_default();
    let folder = arguments.next();
    let text = std::fs::read_to_string(&file).expect("FILE.csv can be read");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    println!(
        "{:<14} {:>10} {:>12} {:>8} {:>10} {:>22}",
        "topic", "rows", "rows/s", "us/row", "bytes/row", "arrow-rs us/row, bytes"
    );
    let mut per_event = 0.0;
    let mut events = 0;
    for (topic, batches) in make(&text, copies) {
        let rows: usize = batches.iter().map(Batch::len).sum();
        let store: Arc<dyn ObjectStore> = match &folder {
            Some(folder) => lake::open_local(folder.as_ref()).expect("FOLDER can be written"),
            None => Arc::new(InMemory::new()),
        };
        let settings = Settings { prefix: String::new(), codec, ..Settings::default() };
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let cancel = Cancel::new();
        let canned = Canned { topic: topic.into(), batches, cancel: cancel.clone() };
        let started = cpu_seconds();
        lake::run(&canned, &settings, store.clone(), runtime.handle(), &metrics, &Target::new(), &cancel)
            .expect("nothing is in the way");
        let seconds = cpu_seconds() - started;
        let report = Report::of(&metrics);
        let bytes: u64 = report.topics.iter().map(|topic| topic.bytes).sum();
        assert_eq!(report.topics.iter().map(|topic| topic.rows).sum::<u64>(), rows as u64);
        let (theirs, their_bytes) = runtime.block_on(arrow_rs(store, topic));
        let count = rows as f64;
        println!(
            "{topic:<14} {rows:>10} {:>12.0} {:>8.3} {:>10.1} {:>14.3} {:>7.1}",
            count / seconds,
            seconds * 1e6 / count,
            bytes as f64 / count,
            theirs * 1e6 / count,
            their_bytes as f64 / count
        );
        if topic == "events" {
            events = rows;
        }
        per_event += seconds * 1e6 / events as f64;
    }
    println!("all topics: {per_event:.3} us an event");
}

/// Of this thread.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds") / 1e9
}

/// The same columns, written again with arrow-rs's defaults (and snappy): seconds and bytes.
async fn arrow_rs(store: Arc<dyn ObjectStore>, topic: &str) -> (f64, usize) {
    let (mut seconds, mut bytes) = (0.0, 0);
    let files: Vec<_> = store.list(Some(&topic.into())).try_collect().await.unwrap();
    for file in files {
        let whole = store.get(&file.location).await.unwrap().bytes().await.unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(whole).unwrap().with_batch_size(8192).build().unwrap();
        let batches: Vec<_> = reader.map(|batch| batch.unwrap()).collect();
        let properties = parquet::file::properties::WriterProperties::builder()
            .set_compression(parquet::basic::Compression::SNAPPY)
            .build();
        let started = cpu_seconds();
        let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        bytes += writer.into_inner().unwrap().len();
        seconds += cpu_seconds() - started;
    }
    (seconds, bytes)
}

/// The records of the three large topics, in batches as a reader gives them.
fn make(text: &str, copies: i64) -> Vec<(&'static str, Vec<Batch>)> {
    let (mut events, mut steps, mut sessions) = (Log::new("events"), Log::new("funnel-steps"), Log::new("sessions"));
    let source = SourceId(0xa1b2_c3d4);
    for copy in 0..copies {
        let mut touched = HashSet::new();
        let mut open: HashMap<String, (Session<'_>, u32)> = HashMap::new();
        for (row, line) in text.lines().skip(1).enumerate() {
            let cells: Vec<&str> = line.split(',').collect();
            let [time, kind, product, category, code, brand, price, user, session] = cells[..] else { continue };
            let event_type = match kind {
                "view" => EventType::View,
                "cart" => EventType::Cart,
                _ => EventType::Purchase,
            };
            let time = EventTime(EventTime::parse(time.as_bytes()).unwrap().0 + copy * 10_200_000_000);
            let session = format!("{:08x}{}", copy, session.get(8..).unwrap_or_default());
            let partition = broker::partition_for(session.as_bytes(), PARTITIONS);
            let event = ShopEvent {
                feed: Feed { source, shard: 0 },
                time,
                source_row: u64::try_from(copy).unwrap() * 17_434 + row as u64,
                copy: 0,
                event_type,
                product_id: product.parse().unwrap(),
                category_id: category.parse().ok(),
                category_code: code,
                brand,
                price: Cents::parse(price.as_bytes()).unwrap(),
                user_id: user.parse::<i64>().unwrap() + copy,
                user_session: &session,
            };
            events.push(partition, time, |out| EventsRecord::Event(event).encode(Format::Protobuf, out));
            let id = format!("{source}:{session}@{}", time.seconds() / 3600);
            if touched.insert((session.clone(), event.product_id, kind)) {
                let step = FunnelStep {
                    source,
                    session_id: &id,
                    user_id: event.user_id,
                    product_id: event.product_id,
                    stage: Stage::from(event_type),
                    step_time: time,
                    category_id: event.category_id,
                    category_code: code,
                    brand,
                    price: event.price,
                    first_touch_time: time,
                    after_view: false,
                    after_cart: false,
                    opens_session: !open.contains_key(&session),
                    session_start: time,
                };
                steps.push(partition, time, |out| step.encode(Format::Protobuf, out));
            }
            let (summary, _) = open.entry(session.clone()).or_insert_with(|| {
                let summary = Session {
                    source,
                    session_id: "",
                    part: 0,
                    user_id: event.user_id,
                    users: 1,
                    start: time,
                    end: time,
                    views: 0,
                    carts: 0,
                    purchases: 0,
                    products_viewed: 1,
                    products_carted: 0,
                    products_purchased: 0,
                    revenue: Cents(0),
                    furthest_stage: Stage::View,
                    entry_category_code: code,
                    exit_category_code: code,
                    last_event_type: event_type,
                    left_in_cart: Vec::new(),
                };
                (summary, partition)
            });
            summary.end = time;
            summary.views += 1;
            summary.exit_category_code = code;
            if event_type == EventType::Cart {
                let left = LeftInCart { product_id: event.product_id, category_code: code, brand, value: event.price };
                summary.left_in_cart.push(left);
            }
        }
        for (session, (summary, partition)) in open {
            let id = format!("{source}:{session}@{}", summary.start.seconds());
            let summary = Session { session_id: &id, ..summary };
            sessions.push(partition, summary.start, |out| summary.encode(Format::Protobuf, out));
        }
    }
    [events, steps, sessions].into_iter().map(|log| (log.topic, log.batches())).collect()
}

struct Log {
    topic: &'static str,
    partitions: Vec<Vec<Records>>,
}

impl Log {
    fn new(topic: &'static str) -> Self {
        Self { topic, partitions: (0..PARTITIONS).map(|_| vec![Records::new()]).collect() }
    }

    fn push(&mut self, partition: u32, time: EventTime, value: impl FnOnce(&mut Vec<u8>)) {
        let batches = &mut self.partitions[partition as usize];
        if batches.last().unwrap().len() == BATCH {
            batches.push(Records::new());
        }
        let sent = micros_header(time.0);
        let headers: [(&str, &[u8]); 3] =
            [("content-type", b"application/x-protobuf"), ("intended-at", &sent), (SENT_AT, &sent)];
        batches.last_mut().unwrap().push(time.millis(), b"a key that nobody reads", &headers, value);
    }

    /// Partition after partition in turn, the last batch first (they are popped).
    fn batches(self) -> Vec<Batch> {
        let (topic, most) = (Topic::from(self.topic), self.partitions.iter().map(Vec::len).max().unwrap());
        let mut logs: Vec<_> = self.partitions.into_iter().map(|batches| (0, batches.into_iter())).collect();
        let mut all = Vec::new();
        for _ in 0..most {
            for (partition, (next, log)) in (0..).zip(&mut logs) {
                let Some(records) = log.next() else { continue };
                let base = Offset(*next);
                *next += i64::try_from(records.len()).unwrap();
                all.push(Batch::contiguous(topic.clone(), partition, base, Arc::new(records)));
            }
        }
        all.reverse();
        all
    }
}

/// A broker that has nothing but these batches, and cancels when they are read.
struct Canned {
    topic: Topic,
    batches: Vec<Batch>,
    cancel: Cancel,
}

struct CannedReader {
    topic: Topic,
    batches: Vec<Batch>,
    assigned: bool,
    cancel: Cancel,
}

impl Broker for Canned {
    fn kind(&self) -> &'static str {
        "canned"
    }

    fn create_topics(&self, _: &[TopicSpec]) -> broker::Result<()> {
        Ok(())
    }

    fn describe(&self, _: &Topic) -> broker::Result<Option<TopicInfo>> {
        Ok(None)
    }

    fn register_group(&self, _: &str, _: &[Topic]) -> broker::Result<Vec<(TopicPartition, u64)>> {
        Ok(Vec::new())
    }

    fn committed(&self, _: &str, partitions: &[TopicPartition]) -> broker::Result<Vec<Option<Committed>>> {
        Ok(vec![None; partitions.len()])
    }

    fn writer(&self, _: &str) -> broker::Result<Box<dyn Writer>> {
        Err(broker::Error::Stop("read only".into()))
    }

    fn subscribe(&self, _: &Subscription) -> broker::Result<Box<dyn Reader>> {
        Ok(Box::new(CannedReader {
            topic: self.topic.clone(),
            batches: self.batches.clone(),
            assigned: false,
            cancel: self.cancel.clone(),
        }))
    }

    fn assign(&self, _: Option<&str>, _: &[(TopicPartition, Offset)]) -> broker::Result<Box<dyn Reader>> {
        Err(broker::Error::Stop("subscribe".into()))
    }
}

impl Reader for CannedReader {
    fn poll(&mut self, _: &PollLimits) -> broker::Result<Polled> {
        if !std::mem::replace(&mut self.assigned, true) {
            let assigned = (0..PARTITIONS).map(|partition| Assigned {
                partition: TopicPartition::new(&self.topic, partition),
                incarnation: Incarnation("canned".into()),
                bounds: LogBounds { start: Offset(0), end: Offset(i64::MAX) },
                committed: None,
            });
            return Ok(Polled::Assigned(assigned.collect()));
        }
        match self.batches.pop() {
            Some(batch) => Ok(Polled::Batch(batch)),
            None => {
                self.cancel.cancel();
                self.cancel.wait(Duration::ZERO);
                Ok(Polled::Idle)
            }
        }
    }

    fn seek(&mut self, _: &TopicPartition, _: Offset) -> broker::Result<()> {
        Ok(())
    }

    fn commit(&mut self, _: &[Commit]) -> broker::Result<()> {
        Ok(())
    }

    fn release(&mut self) -> broker::Result<()> {
        Ok(())
    }

    fn membership(&self) -> Option<Membership> {
        None
    }

    fn leave(&mut self) -> broker::Result<()> {
        Ok(())
    }
}
