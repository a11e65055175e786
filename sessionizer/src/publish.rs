//! What a transaction is going to write: steps and sessions of each partition, and dead letters.
use broker::{RecordRef, Records, Topic};
use records::{
    CONTENT_TYPE, DecodeError, Decoder, Feed, Format, FunnelStep, Message, SENT_AT, Session, SourceId, encode_view,
    proto, topics,
};

use crate::core::Sink;

/// An append of at most about so many bytes: readers take an append as a whole.
const APPEND_BYTES: usize = 1 << 20;

/// What was done, as counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    /// In the order of [`records::Stage::ALL`].
    pub(crate) steps: [u64; 3],
    pub(crate) sessions: u64,
    pub(crate) late_events: u64,
    pub(crate) dead_letters: u64,
    pub(crate) finished_feeds: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        for (sum, n) in self.steps.iter_mut().zip(other.steps) {
            *sum += n;
        }
        self.sessions += other.sessions;
        self.late_events += other.late_events;
        self.dead_letters += other.dead_letters;
        self.finished_feeds += other.finished_feeds;
    }
}

/// Records of one topic and partition, in appends of bounded size.
#[derive(Debug, Default)]
pub(crate) struct Appends {
    full: Vec<Records>,
    current: Records,
    /// Empty ones, to be filled again.
    spare: Vec<Records>,
}

/// How many emptied appends of a topic and partition wait to be filled again.
const SPARE_MAX: usize = 4;

impl Appends {
    fn next(&mut self) -> &mut Records {
        if self.current.bytes() >= APPEND_BYTES {
            let empty = self.spare.pop().unwrap_or_default();
            self.full.push(std::mem::replace(&mut self.current, empty));
        }
        if self.current.bytes() >= APPEND_BYTES / 4 {
            // It is likely to be filled, and not far beyond.
            self.current.reserve_to(APPEND_BYTES + APPEND_BYTES / 16);
        }
        &mut self.current
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Records> {
        self.full.iter().chain([&self.current]).filter(|records| !records.is_empty())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.iter().map(Records::bytes).sum()
    }

    /// For whoever takes what they hold.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Records> {
        self.full.iter_mut().chain([&mut self.current]).filter(|records| !records.is_empty())
    }

    pub(crate) fn clear(&mut self) {
        for mut records in self.full.drain(..) {
            if self.spare.len() < SPARE_MAX {
                records.clear();
                self.spare.push(records);
            }
        }
        self.current.clear();
    }
}

/// The outputs of one partition.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) steps: Appends,
    pub(crate) sessions: Appends,
    pub(crate) tally: Tally,
    format: Format,
    /// Of the record at hand: what it causes was caused then.
    sent_at: Option<[u8; 8]>,
}

impl Outputs {
    pub(crate) fn new(format: Format) -> Self {
        Self { steps: Appends::default(), sessions: Appends::default(), tally: Tally::default(), format, sent_at: None }
    }

    pub(crate) fn caused_by(&mut self, sent_at: Option<&[u8]>) {
        self.sent_at = sent_at.and_then(|sent_at| sent_at.try_into().ok());
    }

    pub(crate) fn bytes(&self) -> usize {
        self.steps.bytes() + self.sessions.bytes()
    }

    pub(crate) fn clear(&mut self) {
        self.steps.clear();
        self.sessions.clear();
        self.tally = Tally::default();
    }
}

fn push<'a>(
    to: &mut Appends,
    format: Format,
    sent_at: Option<&[u8; 8]>,
    key: &str,
    timestamp_ms: i64,
    message: &impl Message<'a>,
) {
    let content_type = (CONTENT_TYPE, format.content_type().as_bytes());
    let value = |out: &mut Vec<u8>| message.encode(format, out);
    match sent_at {
        Some(sent_at) => to.next().push(timestamp_ms, key.as_bytes(), &[content_type, (SENT_AT, sent_at)], value),
        None => to.next().push(timestamp_ms, key.as_bytes(), &[content_type], value),
    }
}

impl Sink for Outputs {
    fn step(&mut self, key: &str, step: &FunnelStep<'_>) {
        self.tally.steps[step.stage as usize] += 1;
        push(&mut self.steps, self.format, self.sent_at.as_ref(), key, step.step_time.millis(), step);
    }

    fn session(&mut self, key: &str, session: &Session<'_>) {
        self.tally.sessions += u64::from(session.part == 0);
        push(&mut self.sessions, self.format, self.sent_at.as_ref(), key, session.start.millis(), session);
    }

    fn late(&mut self) {
        self.tally.late_events += 1;
    }

    fn ended(&mut self, _: Feed) {
        self.tally.finished_feeds += 1;
    }
}

/// Appends an unreadable message of the topic `events` as a dead letter; `now_ms` is when.
pub(crate) fn dead_letter(
    to: &mut Appends,
    format: Format,
    (topic, partition): (&Topic, u32),
    record: RecordRef<'_>,
    error: &DecodeError,
    now_ms: i64,
) {
    let content_type = record.headers.get(CONTENT_TYPE);
    // What is wrong may be another field than the source.
    let mut decoder = Decoder::new();
    let view = decoder.view::<proto::EventView<'_>>("Event", content_type, record.value);
    let source = view.ok().and_then(|view| view.source.parse::<SourceId>().ok()).map(|source| source.to_string());
    let source = source.unwrap_or_default();
    let reason = error.to_string();
    let letter = proto::DeadLetterView {
        source: &source,
        reason: &reason,
        payload: record.value.get(..topics::DEAD_LETTER_BYTES).unwrap_or(record.value),
        payload_length: record.value.len() as u64,
        topic: topic.as_str(),
        topic_partition: partition,
        topic_offset: record.offset.0,
        ..Default::default()
    };
    let headers = [(CONTENT_TYPE, format.content_type().as_bytes())];
    to.next().push(now_ms, source.as_bytes(), &headers, |out| encode_view(&letter, format, out));
}
