//! A broker, a folder, records to store and what the lake made of them.
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use broker::embedded::{Embedded, Options};
use broker::{Broker, Cancel, Cleanup, Records, Target, Topic, TopicPartition, TopicSpec};
use consumer::lake::{self, Metrics, ObjectStore, Report, Settings, TOPICS};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use records::{
    Cents, EventTime, EventType, EventsRecord, Feed, Format, FunnelStep, LeftInCart, Mark, Message, SENT_AT, Session,
    ShopEvent, SourceId, Stage, encode_owned, micros_header, proto,
};

pub(crate) const PREFIX: &str = "t.";
pub(crate) const DAY_US: i64 = 86_400_000_000;
/// 2019-10-01.
pub(crate) const FIRST_DAY: i64 = 18_170;

/// Topic without prefix, partition, offset: how often the lake has it.
pub(crate) type Counts = BTreeMap<(String, i64, i64), u32>;

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) broker: Arc<Embedded>,
    /// What the lake shall hold, each once.
    pub(crate) rows: Counts,
    ends: std::collections::HashMap<TopicPartition, broker::Offset>,
    /// Events (partition, offset) in years that no TIMESTAMP has.
    far_away: Vec<(i64, i64)>,
    runtime: tokio::runtime::Runtime,
    written: i64,
}

/// A record to write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item {
    Event {
        day: i64,
    },
    /// An event of so many KiB.
    Large {
        kib: usize,
    },
    Watermark,
    Unreadable,
    Step {
        day: i64,
    },
    Session {
        day: i64,
    },
    DeadLetter,
}

pub(crate) fn topic(name: &str) -> Topic {
    format!("{PREFIX}{name}").as_str().into()
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Embedded::open(dir.path().join("broker.db"), Options::default()).unwrap();
        let specs = TOPICS.map(|name| TopicSpec {
            topic: topic(name),
            partitions: if name == "dead-letters" { 1 } else { 2 },
            cleanup: Cleanup::Delete,
        });
        broker.create_topics(&specs).unwrap();
        let topics = TOPICS.map(topic);
        broker.register_group("t.lake", &topics).unwrap();
        broker.register_group("t.warehouse", &topics).unwrap();
        // Keeps everything, so that a test may look back.
        broker.register_group("t.keeper", &topics).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { dir, broker, rows: Counts::new(), ends: Default::default(), far_away: Vec::new(), runtime, written: 0 }
    }

    pub(crate) fn lake_dir(&self) -> PathBuf {
        self.dir.path().join("lake")
    }

    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        lake::open_local(&self.lake_dir()).unwrap()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            prefix: PREFIX.into(),
            lake: self.lake_dir().display().to_string(),
            retry_for: Duration::from_secs(2),
            ..Settings::default()
        }
    }

    /// Appends in one transaction.
    pub(crate) fn write(&mut self, items: &[(Item, u32)]) {
        let mut writer = self.broker.writer("test").unwrap();
        writer.begin().unwrap();
        for (item, partition) in items {
            let (name, partition) = item.place(*partition);
            let key = TopicPartition::new(&topic(name), partition);
            let end = self.ends.entry(key).or_default();
            if !matches!(item, Item::Watermark | Item::Unreadable) {
                self.rows.insert((name.into(), i64::from(partition), end.0), 1);
            }
            if matches!(item, Item::Event { day } if !(-600_000..2_900_000).contains(day)) {
                self.far_away.push((i64::from(partition), end.0));
            }
            end.0 += 1;
            writer.append(&topic(name), partition, &item.record(self.written)).unwrap();
            self.written += 1;
        }
        writer.commit().unwrap();
    }

    pub(crate) fn ends(&self) -> std::collections::HashMap<TopicPartition, broker::Offset> {
        self.ends.clone()
    }

    pub(crate) fn far_away(&self) -> &[(i64, i64)] {
        &self.far_away
    }

    /// Runs the lake until it has stored all that was written, or failed.
    pub(crate) fn run(&self) -> Result<Report, lake::Error> {
        self.run_with(self.broker.as_ref(), self.store(), &self.settings())
    }

    pub(crate) fn run_with(
        &self,
        broker: &dyn Broker,
        store: Arc<dyn ObjectStore>,
        settings: &Settings,
    ) -> Result<Report, lake::Error> {
        self.run_measured(broker, store, settings, &prometheus::Registry::new())
    }

    pub(crate) fn run_measured(
        &self,
        broker: &dyn Broker,
        store: Arc<dyn ObjectStore>,
        settings: &Settings,
        registry: &prometheus::Registry,
    ) -> Result<Report, lake::Error> {
        let metrics = Metrics::register(registry).unwrap();
        let (target, cancel, handle) = (Target::new(), Cancel::new(), self.runtime.handle().clone());
        target.set(self.ends.clone());
        std::thread::scope(|scope| {
            let running = scope.spawn(|| lake::run(broker, settings, store, &handle, &metrics, &target, &cancel));
            let deadline = records::clock::now() + Duration::from_secs(30);
            while !running.is_finished() && !self.is_stored() && records::clock::now() < deadline {
                cancel.wait(Duration::from_millis(1));
            }
            cancel.cancel();
            running.join().unwrap().map(|()| Report::of(&metrics))
        })
    }

    fn is_stored(&self) -> bool {
        let partitions: Vec<_> = self.ends.keys().cloned().collect();
        let committed = self.broker.committed("t.lake", &partitions).unwrap();
        partitions.iter().zip(committed).all(|(key, at)| at.is_some_and(|at| at.offset >= self.ends[key]))
    }

    pub(crate) fn committed(&self, name: &str, partition: u32) -> broker::Committed {
        let key = TopicPartition::new(&topic(name), partition);
        self.broker.committed("t.lake", &[key]).unwrap().remove(0).unwrap()
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        gather(&self.lake_dir(), &self.lake_dir(), &mut files);
        files.sort();
        files
    }

    /// What is in the lake's files.
    pub(crate) fn stored_rows(&self) -> Counts {
        let mut counts = Counts::new();
        for path in self.files() {
            let name = path.split('/').next().unwrap().to_owned();
            let file = File::open(self.lake_dir().join(&path)).unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                let column = |name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
                let (partitions, offsets) = (column("topic_partition"), column("topic_offset"));
                for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
                    *counts.entry((name.clone(), *partition, *offset)).or_default() += 1;
                }
            }
        }
        counts
    }

    pub(crate) fn assert_exactly_once(&self, case: &str) {
        let stored = self.stored_rows();
        assert!(stored == self.rows, "{case}: stored {stored:?}\ninstead of {:?}\nin {:?}", self.rows, self.files());
    }
}

fn gather(root: &Path, dir: &Path, files: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(root, &path, files);
        } else {
            files.push(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
}

impl Item {
    /// The topic without prefix, and the partition.
    fn place(self, partition: u32) -> (&'static str, u32) {
        match self {
            Self::Event { .. } | Self::Large { .. } | Self::Watermark | Self::Unreadable => ("events", partition % 2),
            Self::Step { .. } => ("funnel-steps", partition % 2),
            Self::Session { .. } => ("sessions", partition % 2),
            Self::DeadLetter => ("dead-letters", 0),
        }
    }

    fn record(self, n: i64) -> Records {
        let (mut records, feed) = (Records::new(), Feed { source: SourceId(0xa1), shard: 0 });
        let time = |day: i64| EventTime((FIRST_DAY + day) * DAY_US + n * 1000);
        let sent = micros_header(records::clock::wall_us());
        let mut push = |time: EventTime, value: &dyn Fn(&mut Vec<u8>)| {
            records.push(time.millis(), b"k", &[("content-type", b"application/x-protobuf"), (SENT_AT, &sent)], value);
        };
        match self {
            Self::Event { .. } | Self::Large { .. } => {
                let (day, brand) = match self {
                    Self::Large { kib } => (0, "x".repeat(kib << 10)),
                    Self::Event { day } => (day, String::new()),
                    _ => return records,
                };
                let event = ShopEvent {
                    feed,
                    time: time(day),
                    source_row: n.cast_unsigned(),
                    copy: 0,
                    event_type: EventType::View,
                    product_id: n,
                    category_id: (n % 2 == 0).then_some(n),
                    category_code: if n % 3 == 0 { "" } else { "a.b" },
                    brand: &brand,
                    price: Cents(n),
                    user_id: 7,
                    user_session: "s",
                };
                push(event.time, &|out| EventsRecord::Event(event).encode(Format::Protobuf, out));
            }
            Self::Watermark => {
                let mark = Mark { feed, clock: time(0) };
                push(mark.clock, &|out| EventsRecord::Watermark(mark).encode(Format::Protobuf, out));
            }
            Self::Unreadable => push(time(0), &|out| out.extend_from_slice(b"\xff\xff\xff")),
            Self::Step { day } => {
                let step = FunnelStep {
                    source: feed.source,
                    session_id: "000000a1:s@0",
                    user_id: 7,
                    product_id: n,
                    stage: Stage::Cart,
                    step_time: time(day),
                    category_id: None,
                    category_code: "",
                    brand: "b",
                    price: Cents(n),
                    first_touch_time: time(day),
                    after_view: true,
                    after_cart: false,
                    opens_session: n % 2 == 0,
                    session_start: time(day),
                };
                push(time(day), &|out| step.encode(Format::Protobuf, out));
            }
            Self::Session { day } => {
                let left = LeftInCart { product_id: n, category_code: "", brand: "b", value: Cents(n) };
                let session = Session {
                    source: feed.source,
                    session_id: "000000a1:s@0",
                    part: 0,
                    user_id: 7,
                    users: 1,
                    start: time(day),
                    end: time(day),
                    views: 1,
                    carts: 2,
                    purchases: 0,
                    products_viewed: 1,
                    products_carted: 1,
                    products_purchased: 0,
                    revenue: Cents(0),
                    furthest_stage: Stage::Cart,
                    entry_category_code: "",
                    exit_category_code: "a.b",
                    last_event_type: EventType::Cart,
                    left_in_cart: vec![left; usize::try_from(n % 3).unwrap()],
                };
                push(time(day), &|out| session.encode(Format::Protobuf, out));
            }
            Self::DeadLetter => {
                let letter = proto::DeadLetter {
                    source: "000000a1".into(),
                    reason: "a price is never negative".into(),
                    payload: b"\xff,row".to_vec(),
                    payload_length: 5,
                    file: "2019-Oct.csv".into(),
                    source_row: n.cast_unsigned(),
                    file_row: 1,
                    ..Default::default()
                };
                push(time(0), &|out| encode_owned(&letter, Format::Protobuf, out));
            }
        }
        records
    }
}
