//! A broker in a folder of its own, the real sample, and what was written.
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use broker::embedded::{Embedded, Options};
use broker::{Broker, Cleanup, Offset, PollLimits, Polled, Records, Topic, TopicPartition, TopicSpec, partition_for};
use records::{
    CONTENT_TYPE, Cents, Decoder, EventTime, EventType, EventsRecord, Feed, Format, FunnelStep, Mark, Message, SENT_AT,
    Session, ShopEvent, SourceId, micros_header, proto,
};
use sessionizer::Settings;

const PARTITIONS: u32 = 4;

pub(crate) struct World {
    folder: tempfile::TempDir,
    broker: Option<Arc<Embedded>>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outputs {
    pub(crate) steps: Vec<String>,
    pub(crate) sessions: Vec<String>,
    pub(crate) headers: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) key: String,
    pub(crate) reason: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) payload_length: u64,
    pub(crate) topic: String,
    pub(crate) at_ms: i64,
}

pub(crate) fn feed() -> Feed {
    Feed { source: SourceId(0xab), shard: 0 }
}

/// The real sample, and its end.
pub(crate) fn sample() -> Vec<EventsRecord<'static>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/2019-Oct-head.csv.gz");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let text: &'static str = text.leak();
    let event = |(row, line): (u64, &'static str)| {
        let fields: Vec<&'static str> = line.split(',').collect();
        EventsRecord::Event(ShopEvent {
            feed: feed(),
            time: EventTime::parse(fields[0].as_bytes()).unwrap(),
            source_row: row,
            copy: 0,
            event_type: match fields[1] {
                "view" => EventType::View,
                "cart" => EventType::Cart,
                "purchase" => EventType::Purchase,
                other => panic!("{other}"),
            },
            product_id: fields[2].parse().unwrap(),
            category_id: Some(fields[3].parse().unwrap()),
            category_code: fields[4],
            brand: fields[5],
            price: Cents::parse(fields[6].as_bytes()).unwrap(),
            user_id: fields[7].parse().unwrap(),
            user_session: fields[8],
        })
    };
    let mut records: Vec<_> = (0..).zip(text.lines().skip(1)).map(event).collect();
    assert_eq!(records.len(), 17_434);
    records.push(EventsRecord::End(Mark { feed: feed(), clock: EventTime(0) }));
    records
}

fn topic(name: &str) -> Topic {
    Topic::from(format!("clickstream.{name}").as_str())
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self { folder: tempfile::tempdir().unwrap(), broker: None };
        world.reopen();
        let spec = |name, partitions| TopicSpec { topic: topic(name), partitions, cleanup: Cleanup::Delete };
        let topics =
            [("events", PARTITIONS), ("funnel-steps", PARTITIONS), ("sessions", PARTITIONS), ("dead-letters", 1)];
        world.broker().create_topics(&topics.map(|(name, partitions)| spec(name, partitions))).unwrap();
        // Nothing that is written goes before it was looked at.
        let outputs = ["funnel-steps", "sessions", "dead-letters"].map(topic);
        world.broker().register_group("onlooker", &outputs).unwrap();
        let group = Settings::default().group();
        world.broker().register_group(&group, &[topic("events")]).unwrap();
        world
    }

    pub(crate) fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone().unwrap()
    }

    /// Closes the log, and opens it again.
    pub(crate) fn reopen(&mut self) {
        self.broker = None;
        self.broker = Some(Embedded::open(self.folder.path().join("broker.db"), Options::default()).unwrap());
    }

    pub(crate) fn write(&self, records: &[EventsRecord<'_>], format: Format) {
        let mut writer = self.broker().writer("producer").unwrap();
        for some in records.chunks(1_000) {
            let mut partitions: Vec<Records> = (0..PARTITIONS).map(|_| Records::new()).collect();
            for record in some {
                let push = |to: &mut Records, key: &str, time: EventTime, sent_at: i64| {
                    let sent_at = micros_header(sent_at);
                    let headers = [(CONTENT_TYPE, format.content_type().as_bytes()), (SENT_AT, &sent_at)];
                    to.push(time.millis(), key.as_bytes(), &headers, |out| record.encode(format, out));
                };
                match record {
                    EventsRecord::Event(event) => {
                        let key = event.session_key().to_string();
                        let partition = partition_for(key.as_bytes(), PARTITIONS) as usize;
                        let sent_at = i64::try_from(event.source_row).unwrap();
                        push(&mut partitions[partition], &key, event.time, sent_at);
                    }
                    EventsRecord::Watermark(mark) | EventsRecord::End(mark) => {
                        for to in &mut partitions {
                            push(to, &mark.feed.to_string(), mark.clock, -1);
                        }
                    }
                }
            }
            writer.begin().unwrap();
            for (partition, records) in (0..).zip(&partitions) {
                if !records.is_empty() {
                    writer.append(&topic("events"), partition, records).unwrap();
                }
            }
            writer.commit().unwrap();
        }
    }

    pub(crate) fn write_raw(&self, values: &[(&str, &[u8])]) {
        let mut writer = self.broker().writer("producer").unwrap();
        let mut records = Records::new();
        for (content_type, value) in values {
            records.push(0, b"", &[(CONTENT_TYPE, content_type.as_bytes())], |out| out.extend_from_slice(value));
        }
        writer.begin().unwrap();
        writer.append(&topic("events"), 1, &records).unwrap();
        writer.commit().unwrap();
    }

    pub(crate) fn caught_up(&self, group: &str) -> bool {
        let events = topic("events");
        let ends = self.broker().describe(&events).unwrap().unwrap().partitions;
        let partitions: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition::new(&events, partition)).collect();
        let committed = self.broker().committed(group, &partitions).unwrap();
        ends.iter().zip(&committed).all(|(end, committed)| {
            committed.as_ref().is_some_and(|committed| committed.offset == end.end) || end.end == Offset(0)
        })
    }

    /// Each record of a topic: partition, key, content type, value, headers, timestamp.
    fn each(&self, name: &str, partitions: u32, mut f: impl FnMut(u32, broker::RecordRef<'_>)) {
        let all: Vec<_> = (0..partitions).map(|p| (TopicPartition::new(&topic(name), p), Offset(0))).collect();
        let mut reader = self.broker().assign(None, &all).unwrap();
        let limits = PollLimits { records: 10_000, bytes: 1 << 20, timeout: Duration::ZERO };
        loop {
            match reader.poll(&limits).unwrap() {
                Polled::Batch(batch) => batch.iter().for_each(|record| f(batch.partition, record)),
                Polled::Idle => break,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sorted, for members and restarts may take the partitions in any order.
    pub(crate) fn outputs(&self) -> Outputs {
        let (mut out, mut decoder) = (Outputs::default(), Decoder::new());
        for name in ["funnel-steps", "sessions"] {
            let Outputs { steps, sessions, headers } = &mut out;
            self.each(name, PARTITIONS, |partition, record| {
                let key = std::str::from_utf8(record.key).unwrap();
                assert_eq!(partition_for(record.key, PARTITIONS), partition);
                let content_type = record.headers.get(CONTENT_TYPE);
                let (line, id, at) = if name == "sessions" {
                    let session: Session<'_> = decoder.decode(content_type, record.value).unwrap();
                    (format!("{key} {session:?}"), session.session_id.to_owned(), session.start)
                } else {
                    let step: FunnelStep<'_> = decoder.decode(content_type, record.value).unwrap();
                    (format!("{key} {step:?}"), step.session_id.to_owned(), step.step_time)
                };
                assert_eq!(record.timestamp_ms, at.millis());
                assert!(id.starts_with(&format!("000000ab:{key}@")), "{id}");
                let each: Vec<_> = record.headers.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                headers.push(format!("{id} {}", each.join(" ")));
                if name == "sessions" { sessions.push(line) } else { steps.push(line) }
            });
        }
        out.steps.sort();
        out.sessions.sort();
        out.headers.sort();
        out
    }

    pub(crate) fn dead_letters(&self) -> Vec<Letter> {
        let (mut letters, mut decoder) = (Vec::new(), Decoder::new());
        self.each("dead-letters", 1, |_, record| {
            let content_type = record.headers.get(CONTENT_TYPE);
            let view: proto::DeadLetterView<'_> = decoder.view("DeadLetter", content_type, record.value).unwrap();
            letters.push(Letter {
                key: String::from_utf8(record.key.to_vec()).unwrap(),
                reason: view.reason.to_owned(),
                payload: view.payload.to_vec(),
                payload_length: view.payload_length,
                topic: view.topic.to_owned(),
                at_ms: record.timestamp_ms,
            });
        });
        letters
    }
}
