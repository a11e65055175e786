//! A broker in a folder of its own, and all that its topics hold.
use std::sync::Arc;
use std::time::Duration;

use broker::embedded::{Embedded, Options};
use broker::{Broker, Cancel, Cleanup, PollLimits, Polled, Topic, TopicPartition, TopicSpec};
use producer::{Error, Input, Metrics, Outcome, Pace, Report, Settings, Status, run};
use prometheus::Registry;
use records::{
    CONTENT_TYPE, Decoder, EventTime, EventsRecord, Feed, Format, INTENDED_AT, SENT_AT, ShopEvent, SourceId,
    encode_owned, proto, read_micros_header, topics,
};

pub(crate) const HEADER: &str =
    "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session";
pub(crate) const PARTITIONS: u32 = 4;

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) broker: Arc<Embedded>,
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
    pub(crate) status: Status,
    pub(crate) cancel: Cancel,
}

/// A record of `events`, as text that is easy to compare, and what its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) what: What,
    pub(crate) intended_us: Option<i64>,
    pub(crate) sent_us: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Source row, time, and all the rest.
    Event(u64, EventTime, String),
    Watermark(EventTime),
    End(EventTime),
}

/// What a dead letter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) reason: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) length: u64,
    pub(crate) file: String,
    pub(crate) source_row: u64,
    pub(crate) file_row: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Embedded::open(folder.path().join("broker.db"), Options::default()).unwrap();
        let spec = |name: &str, partitions, cleanup| TopicSpec { topic: topic(name), partitions, cleanup };
        broker
            .create_topics(&[
                spec(topics::EVENTS, PARTITIONS, Cleanup::Delete),
                spec(topics::DEAD_LETTERS, 1, Cleanup::Bounded { bytes: 64 << 20 }),
                spec(topics::REPLAY_PROGRESS, 1, Cleanup::Compact),
                spec(topics::REPLAY_CONTROL, 1, Cleanup::Compact),
            ])
            .unwrap();
        broker.register_group("test", &[topic(topics::EVENTS), topic(topics::DEAD_LETTERS)]).unwrap();
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        Self { folder, broker, registry, metrics, status: Status::new(), cancel: Cancel::new() }
    }

    pub(crate) fn run(&self, settings: &Settings) -> Result<Report, Error> {
        run(self.broker.as_ref(), settings, &self.metrics, &self.status, &self.cancel)
    }

    /// A file of the folder.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> Input {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Input::Path(path.to_str().unwrap().to_owned())
    }

    /// All partitions of a topic, each from its start.
    fn read<T>(&self, name: &str, mut each: impl FnMut(broker::RecordRef<'_>) -> T) -> Vec<Vec<T>> {
        let topic = topic(name);
        let info = self.broker.describe(&topic).unwrap().unwrap();
        (0..)
            .zip(&info.partitions)
            .map(|(partition, bounds)| {
                let mut records = Vec::new();
                let mut position = bounds.start;
                let mut reader =
                    self.broker.assign(None, &[(TopicPartition::new(&topic, partition), position)]).unwrap();
                let limits = PollLimits { records: 10_000, bytes: 8 << 20, timeout: Duration::from_secs(5) };
                while position < bounds.end {
                    match reader.poll(&limits).unwrap() {
                        Polled::Batch(batch) => {
                            position = batch.next_offset().unwrap();
                            records.extend(batch.iter().map(&mut each));
                        }
                        Polled::Idle => panic!("{topic}-{partition} stops at {position}"),
                        _ => {}
                    }
                }
                records
            })
            .collect()
    }

    /// By partition.
    pub(crate) fn sent(&self) -> Vec<Vec<Sent>> {
        let mut decoder = Decoder::new();
        self.read(topics::EVENTS, |record| {
            let us = |name| record.headers.get(name).and_then(read_micros_header);
            let what = match decoder.decode(record.headers.get(CONTENT_TYPE), record.value).unwrap() {
                EventsRecord::Event(event) => {
                    assert_eq!(record.key, event.session_key().to_string().as_bytes());
                    assert_eq!(record.timestamp_ms, event.time.millis());
                    What::Event(event.source_row, event.time, text(&event))
                }
                EventsRecord::Watermark(mark) => What::Watermark(mark.clock),
                EventsRecord::End(mark) => What::End(mark.clock),
            };
            Sent { what, intended_us: us(INTENDED_AT), sent_us: us(SENT_AT) }
        })
    }

    /// Events only, by source row.
    pub(crate) fn events(&self) -> Vec<(u64, EventTime, String)> {
        let events = |sent: Vec<Sent>| {
            sent.into_iter().filter_map(|sent| match sent.what {
                What::Event(row, time, text) => Some((row, time, text)),
                _ => None,
            })
        };
        let mut all: Vec<_> = self.sent().into_iter().flat_map(events).collect();
        all.sort();
        all
    }

    /// Of every event: source row, and when it was meant to be sent. By source row.
    pub(crate) fn intended(&self) -> Vec<(u64, i64)> {
        let intended = |sent: Sent| match sent.what {
            What::Event(row, ..) => Some((row, sent.intended_us.unwrap())),
            _ => None,
        };
        let mut all: Vec<_> = self.sent().into_iter().flatten().filter_map(intended).collect();
        all.sort_unstable();
        all
    }

    /// Source row and copy of every event, in the order of each partition.
    pub(crate) fn order(&self) -> Vec<Vec<(u64, u32)>> {
        let of = |sent: Sent| match sent.what {
            What::Event(row, _, text) => Some((row, text.split(' ').nth(1).unwrap().parse().unwrap())),
            _ => None,
        };
        self.sent().into_iter().map(|sent| sent.into_iter().filter_map(of).collect()).collect()
    }

    /// How many ends each partition holds.
    pub(crate) fn ends(&self) -> Vec<usize> {
        self.sent().iter().map(|sent| sent.iter().filter(|sent| matches!(sent.what, What::End(_))).count()).collect()
    }

    /// As producers of other sources have left them: numbers of sources, partitions, ended or not.
    pub(crate) fn write_feeds(&self, feeds: impl IntoIterator<Item = (u32, u32, bool)>) {
        let mut records = broker::Records::new();
        let headers = [(CONTENT_TYPE, Format::Protobuf.content_type().as_bytes())];
        for (source, partitions, ended) in feeds {
            let feed = Feed { source: SourceId(source), shard: 0 };
            let source = feed.source.to_string();
            let progress = proto::ReplayProgress { source, partitions, ended, next_row: 9, ..Default::default() };
            records.push(0, feed.to_string().as_bytes(), &headers, |out| {
                encode_owned(&progress, Format::Protobuf, out);
            });
        }
        let mut writer = self.broker.writer("others").unwrap();
        writer.begin().unwrap();
        writer.append(&topic(topics::REPLAY_PROGRESS), 0, &records).unwrap();
        writer.commit().unwrap();
    }

    pub(crate) fn letters(&self) -> Vec<Letter> {
        let mut decoder = Decoder::new();
        let mut letters = self.read(topics::DEAD_LETTERS, |record| {
            let view: proto::DeadLetterView<'_> =
                decoder.view("DeadLetter", record.headers.get(CONTENT_TYPE), record.value).unwrap();
            assert_eq!(record.key, view.source.as_bytes());
            Letter {
                reason: view.reason.to_owned(),
                payload: view.payload.to_vec(),
                length: view.payload_length,
                file: view.file.to_owned(),
                source_row: view.source_row,
                file_row: view.file_row,
            }
        });
        letters.remove(0)
    }
}

fn topic(name: &str) -> Topic {
    Topic::from(format!("{}{name}", topics::DEFAULT_PREFIX).as_str())
}

fn text(event: &ShopEvent<'_>) -> String {
    format!(
        "{} {} {} {} {:?} {} {} {} {} {}",
        event.feed,
        event.copy,
        event.event_type.as_str(),
        event.product_id,
        event.category_id,
        event.category_code,
        event.brand,
        event.price,
        event.user_id,
        event.user_session
    )
}

pub(crate) fn flat_out(inputs: Vec<Input>) -> Settings {
    Settings::new(inputs, Pace::FlatOut)
}

pub(crate) fn json(inputs: Vec<Input>) -> Settings {
    Settings { format: Format::Json, ..flat_out(inputs) }
}

pub(crate) fn memory(name: &str, bytes: impl Into<Vec<u8>>) -> Input {
    Input::Memory { name: name.to_owned(), bytes: Vec::leak(bytes.into()) }
}

/// Row `i` of a made-up source, without a line end: two rows a second.
pub(crate) fn row(i: usize) -> String {
    let (minute, second) = (i / 120 % 60, i / 2 % 60);
    format!(
        "2019-10-01 00:{minute:02}:{second:02} UTC,view,{},2053013559792632471,furniture.sofa,ikea,543.{:02},{},session-{}",
        i + 1,
        i % 100,
        i % 7 + 1,
        i % 13
    )
}

pub(crate) fn csv(rows: std::ops::Range<usize>) -> String {
    let mut text = format!("{HEADER}\n");
    for i in rows {
        text.push_str(&row(i));
        text.push('\n');
    }
    text
}

pub(crate) fn assert_finished(report: &Report, events: u64, dead_letters: u64) {
    assert_eq!((report.outcome, report.events, report.dead_letters), (Outcome::Finished, events, dead_letters));
}
