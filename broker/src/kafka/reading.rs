//! A partition that is being read, and how what is fetched comes into it.
use std::time::Duration;

use rdkafka::message::{BorrowedMessage, Message};

use super::context::ReaderContext;
use super::errors::{is_passing, of_code};
use super::ffi::{Fetched, Fetcher};
use super::number;
use crate::{Batch, Error, Incarnation, Offset, PollLimits, Records, TopicPartition};

/// Whose client fetches a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The reader's own.
    Own,
    /// The one for all of this process; the reader's own is paused.
    Shared,
    /// The reader's own, once it is where the reader is.
    Returning,
}

pub(super) struct Reading {
    pub(super) name: TopicPartition,
    pub(super) incarnation: Incarnation,
    pub(super) source: Source,
    /// Next to read.
    pub(super) position: i64,
    /// Of the fetch that is under way.
    pub(super) records: Records,
    pub(super) offsets: Vec<Offset>,
    /// The headers of the last record, as they came. Empty where that is not known.
    headers: Vec<u8>,
    /// For the allocation of the next batch: records and bytes of the largest of late.
    room: (usize, usize),
}

/// Fetches what is there, or waits for the first record for `wait`; what went wrong, if anything did.
pub(super) fn fetch(
    fetcher: &mut Fetcher<ReaderContext>,
    partitions: &mut [Reading],
    limits: &PollLimits,
    wait: Duration,
) -> Option<Error> {
    let mut gathering = Gathering { partitions, last: None, bytes: 0, failed: None };
    let mut left = limits.records.max(1);
    if !wait.is_zero() {
        left -= fetcher.fetch(wait, 1, |fetched| gathering.take(fetched));
        if gathering.last.is_none() {
            left = 0;
        }
    }
    while left > 0 && gathering.bytes < limits.bytes && gathering.failed.is_none() {
        let got = fetcher.fetch(Duration::ZERO, left, |fetched| gathering.take(fetched));
        if got == 0 {
            break;
        }
        left = left.saturating_sub(got);
    }
    gathering.failed
}

/// Every partition's records are routed to our queue before it is assigned: one that comes with the
/// events is missing there.
pub(super) fn wrong_queue(record: &BorrowedMessage<'_>) -> String {
    format!("{}-{}, offset {}: the record came by the wrong queue", record.topic(), record.partition(), record.offset())
}

/// Where fetched records go.
struct Gathering<'a> {
    partitions: &'a mut [Reading],
    /// Topic and partition of the record before, and its place in `partitions`.
    last: Option<(usize, i32, usize)>,
    bytes: usize,
    failed: Option<Error>,
}

impl Gathering<'_> {
    fn take(&mut self, fetched: &Fetched<'_>) {
        let (topic, partition) = (fetched.topic_id(), fetched.partition());
        if let Some((code, text)) = fetched.error() {
            if !is_passing(code) {
                let at = self.place(fetched).map(|at| self.partitions[at].position);
                let at = at.map(|offset| format!(", offset {offset}")).unwrap_or_default();
                let doing = format!("reading {}-{partition}{at}", fetched.topic());
                self.failed.get_or_insert(of_code(doing, code, &text));
            }
            return;
        }
        let at = match self.last {
            Some((t, p, at)) if (t, p) == (topic, partition) => Some(at),
            _ => self.place(fetched),
        };
        let Some(at) = at else {
            let name = format!("{}-{partition}", fetched.topic());
            self.failed.get_or_insert(Error::Stop(format!("{name}: a record of a partition that is not assigned")));
            return;
        };
        self.last = Some((topic, partition, at));
        let reading = &mut self.partitions[at];
        if reading.source != Source::Own {
            // Fetched before it was paused: it has come, or comes, by the other way.
            return;
        }
        if fetched.offset() < reading.position {
            let (name, position, offset) = (&reading.name, reading.position, fetched.offset());
            let why = format!("{name}: offset {offset} came where {position} or later was expected");
            self.failed.get_or_insert(Error::Stop(why));
            return;
        }
        self.bytes += reading.push(fetched);
    }

    fn place(&self, fetched: &Fetched<'_>) -> Option<usize> {
        let (topic, partition) = (fetched.topic(), fetched.partition());
        self.partitions.iter().position(|r| number(r.name.partition) == partition && r.name.topic.as_str() == topic)
    }
}

impl Reading {
    pub(super) fn new(name: TopicPartition, incarnation: Incarnation, position: Offset) -> Self {
        let (source, records, offsets) = (Source::Own, Records::new(), Vec::new());
        Self { name, incarnation, source, position: position.0, records, offsets, headers: Vec::new(), room: (0, 0) }
    }

    fn push(&mut self, fetched: &Fetched<'_>) -> usize {
        if self.offsets.is_empty() {
            self.offsets.reserve(self.room.0);
            self.records.index.reserve(self.room.0);
            self.records.arena.reserve(self.room.1);
        }
        let before = self.records.arena.len();
        let header_bytes = fetched.header_bytes().unwrap_or_default();
        if !self.records.is_empty() && !header_bytes.is_empty() && header_bytes == self.headers {
            self.records.push_alike(fetched.timestamp_ms(), fetched.key(), fetched.value());
            debug_assert!(
                self.records.get(self.records.len() - 1, Offset(0)).headers.iter().eq(fetched.headers()),
                "the same bytes are the same headers"
            );
        } else {
            self.push_parsed(fetched);
            self.headers.clear();
            self.headers.extend_from_slice(header_bytes);
        }
        self.offsets.push(Offset(fetched.offset()));
        self.position = fetched.offset() + 1;
        self.records.arena.len() - before
    }

    fn push_parsed(&mut self, fetched: &Fetched<'_>) {
        const HEADERS: usize = 8;
        let (key, value) = (fetched.key(), fetched.value());
        let mut headers: [(&str, &[u8]); HEADERS] = [("", &[]); HEADERS];
        let mut count = 0;
        let mut more = Vec::new();
        for header in fetched.headers() {
            // Our own are short; others' that no batch can hold are none of ours.
            if header.0.len() > 0xff || header.1.len() > 0xffff {
                continue;
            }
            if count < HEADERS {
                headers[count] = header;
                count += 1;
            } else {
                more.push(header);
            }
        }
        let at = fetched.timestamp_ms();
        if more.is_empty() {
            self.records.push(at, key, &headers[..count], |out| out.extend_from_slice(value));
        } else {
            let all: Vec<(&str, &[u8])> = headers.iter().copied().chain(more).collect();
            self.records.push(at, key, &all, |out| out.extend_from_slice(value));
        }
    }

    pub(super) fn take_batch(&mut self) -> Option<Batch> {
        if self.offsets.is_empty() {
            return None;
        }
        // How many of a partition come at once is now much and now little. A batch that outgrows its
        // room moves, into memory that the system may have to clear first.
        let larger = |room: usize, now: usize| now.max(room - room / 8);
        self.room = (larger(self.room.0, self.offsets.len()), larger(self.room.1, self.records.arena.len()));
        let (offsets, records) = (std::mem::take(&mut self.offsets), std::mem::take(&mut self.records));
        Some(Batch::with_offsets(self.name.topic.clone(), self.name.partition, offsets, records))
    }
}
