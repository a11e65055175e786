//! A batch of records in two allocations: one arena of bytes, one index.
use std::sync::Arc;

use crate::{Offset, Topic};

/// Records of one topic and partition, in order, as they are appended and as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Key, headers and value of each record, one after another. Headers that are those of the
    /// record before are not written again: neighbours mostly share them.
    pub(crate) arena: Vec<u8>,
    pub(crate) index: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) timestamp_ms: i64,
    /// Where the record begins in the arena; its end is where the next one begins.
    pub(crate) start: usize,
    /// Behind the key, or where those of the record before stand.
    pub(crate) headers_at: usize,
    pub(crate) key_len: u32,
    pub(crate) headers_len: u32,
}

impl Entry {
    pub(crate) fn shares_headers(&self) -> bool {
        self.headers_at != self.start + self.key_len as usize
    }
}

/// The headers of a record: name and value pairs, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a>(&'a [u8]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    pub offset: Offset,
    pub timestamp_ms: i64,
    /// Empty where Kafka has null.
    pub key: &'a [u8],
    /// Empty where Kafka has null.
    pub value: &'a [u8],
    pub headers: Headers<'a>,
}

impl Records {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of keys, headers (once where neighbours share them) and values together.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Makes room for so many bytes altogether, and not for more.
    pub fn reserve_to(&mut self, bytes: usize) {
        if self.arena.capacity() < bytes {
            self.arena.reserve_exact(bytes - self.arena.len());
        }
    }

    /// Keeps the allocations.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.index.clear();
    }

    /// What the other holds, in allocations that are there already if they are not far too large.
    pub(crate) fn copy_of(other: &Self, mut used: Self) -> Self {
        if used.arena.capacity() > 2 * other.arena.len() {
            return other.clone();
        }
        used.clear();
        used.arena.extend_from_slice(&other.arena);
        used.index.extend_from_slice(&other.index);
        used
    }

    /// Whether no more than half of the room taken is unused.
    pub(crate) fn is_half_full(&self) -> bool {
        self.arena.len() >= self.arena.capacity() / 2 && self.index.len() >= self.index.capacity() / 4
    }

    /// Bytes allocated.
    pub(crate) fn memory(&self) -> usize {
        self.arena.capacity() + self.index.capacity() * size_of::<Entry>()
    }

    /// Appends one record; `value` writes its bytes to the end of the arena it is given.
    ///
    /// # Panics
    /// If the key or a header is longer than a u32 can say, or a header's name than 255 bytes
    /// or its value than 65,535.
    pub fn push(&mut self, timestamp_ms: i64, key: &[u8], headers: &[(&str, &[u8])], value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.arena.len();
        self.arena.extend_from_slice(key);
        let mut headers_at = self.arena.len();
        #[allow(clippy::expect_used, reason = "documented: a key of 4 GiB is the caller's fault")]
        let length = |n: usize| u32::try_from(n).expect("shorter than 4 GiB");
        let key_len = length(headers_at - start);
        let headers_len = match self.index.last() {
            Some(before) if are(headers, self.headers(before)) => {
                if before.headers_len > 0 {
                    headers_at = before.headers_at;
                }
                before.headers_len
            }
            _ => {
                for (name, value) in headers {
                    assert!(name.len() <= 0xff && value.len() <= 0xffff, "header {name} is too long");
                    #[allow(clippy::cast_possible_truncation, reason = "checked above")]
                    self.arena.push(name.len() as u8);
                    self.arena.extend_from_slice(name.as_bytes());
                    #[allow(clippy::cast_possible_truncation, reason = "checked above")]
                    self.arena.extend_from_slice(&(value.len() as u16).to_le_bytes());
                    self.arena.extend_from_slice(value);
                }
                length(self.arena.len() - headers_at)
            }
        };
        self.index.push(Entry { timestamp_ms, start, headers_at, key_len, headers_len });
        value(&mut self.arena);
    }

    /// Appends a record with the headers of the one before, which there must be.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "for what is fetched from Kafka"))]
    pub(crate) fn push_alike(&mut self, timestamp_ms: i64, key: &[u8], value: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(key);
        let (mut headers_at, mut headers_len) = (self.arena.len(), 0);
        if let Some(before) = self.index.last().filter(|before| before.headers_len > 0) {
            (headers_at, headers_len) = (before.headers_at, before.headers_len);
        }
        #[allow(clippy::cast_possible_truncation, reason = "Kafka's lengths are of 31 bits")]
        let key_len = key.len() as u32;
        self.index.push(Entry { timestamp_ms, start, headers_at, key_len, headers_len });
        self.arena.extend_from_slice(value);
    }

    /// Appends a record as another batch holds it.
    #[inline]
    pub fn push_ref(&mut self, record: RecordRef<'_>) {
        let start = self.arena.len();
        self.arena.extend_from_slice(record.key);
        let mut headers_at = self.arena.len();
        match self.index.last() {
            Some(before) if record.headers.0 == self.headers(before) && before.headers_len > 0 => {
                headers_at = before.headers_at;
            }
            _ => self.arena.extend_from_slice(record.headers.0),
        }
        #[allow(clippy::cast_possible_truncation, reason = "lengths of an existing record")]
        self.index.push(Entry {
            timestamp_ms: record.timestamp_ms,
            start,
            headers_at,
            key_len: record.key.len() as u32,
            headers_len: record.headers.0.len() as u32,
        });
        self.arena.extend_from_slice(record.value);
    }

    /// Appends all records of another batch.
    pub fn extend(&mut self, other: &Self) {
        let shift = self.arena.len();
        self.arena.extend_from_slice(&other.arena);
        let shifted =
            |entry: &Entry| Entry { start: entry.start + shift, headers_at: entry.headers_at + shift, ..*entry };
        self.index.extend(other.index.iter().map(shifted));
    }

    /// Record `i`, with `offset` as its place in the log.
    ///
    /// # Panics
    /// If there is no record `i`.
    #[inline]
    pub fn get(&self, i: usize, offset: Offset) -> RecordRef<'_> {
        let entry = &self.index[i];
        let end = self.index.get(i + 1).map_or(self.arena.len(), |next| next.start);
        let key_end = entry.start + entry.key_len as usize;
        let value_at = if entry.headers_at == key_end { key_end + entry.headers_len as usize } else { key_end };
        RecordRef {
            offset,
            timestamp_ms: entry.timestamp_ms,
            key: &self.arena[entry.start..key_end],
            headers: Headers(self.headers(entry)),
            value: &self.arena[value_at..end],
        }
    }

    #[inline]
    fn headers(&self, entry: &Entry) -> &[u8] {
        &self.arena[entry.headers_at..entry.headers_at + entry.headers_len as usize]
    }
}

/// Whether `stored` holds just these.
fn are(headers: &[(&str, &[u8])], mut stored: &[u8]) -> bool {
    for (name, value) in headers {
        let (name_end, value_at) = (1 + name.len(), 3 + name.len());
        let Some((this, rest)) = stored.split_at_checked(value_at + value.len()) else { return false };
        if usize::from(this[0]) != name.len()
            || this[1..name_end] != *name.as_bytes()
            || usize::from(u16::from_le_bytes([this[name_end], this[name_end + 1]])) != value.len()
            || this[value_at..] != **value
        {
            return false;
        }
        stored = rest;
    }
    stored.is_empty()
}

impl<'a> Headers<'a> {
    /// Whether they are the very bytes of the other's: what one says, the other does.
    #[inline]
    pub fn are_those_of(self, other: Headers<'_>) -> bool {
        std::ptr::eq(self.0, other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.pairs().map(|(name, value)| (std::str::from_utf8(name).unwrap_or(""), value))
    }

    #[inline]
    fn pairs(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (&name_len, tail) = rest.split_first()?;
            let (name, tail) = tail.split_at_checked(usize::from(name_len))?;
            let (len, tail) = tail.split_first_chunk::<2>()?;
            let (value, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            rest = tail;
            Some((name, value))
        })
    }

    #[inline]
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.pairs().find_map(|(n, value)| (n == name.as_bytes()).then_some(value))
    }
}

/// Records as read from one partition, each with its offset. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Batch {
    pub topic: Topic,
    pub partition: u32,
    records: Arc<Records>,
    offsets: Offsets,
    /// The records at hand are `records[first..last]`.
    first: usize,
    last: usize,
}

#[derive(Clone, Debug)]
enum Offsets {
    /// Record i of the whole is at base + i.
    From(Offset),
    /// Kafka's offsets have holes where markers stand.
    Each(Arc<Vec<Offset>>),
}

impl Batch {
    /// Records that stand at `base`, `base + 1`, …
    pub fn contiguous(topic: Topic, partition: u32, base: Offset, records: Arc<Records>) -> Self {
        let last = records.len();
        Self { topic, partition, records, offsets: Offsets::From(base), first: 0, last }
    }

    /// Records with an offset each, ascending.
    pub fn with_offsets(topic: Topic, partition: u32, offsets: Vec<Offset>, records: Records) -> Self {
        assert_eq!(offsets.len(), records.len(), "an offset for each record");
        let last = records.len();
        let (records, offsets) = (Arc::new(records), Offsets::Each(Arc::new(offsets)));
        Self { topic, partition, records, offsets, first: 0, last }
    }

    /// The same batch from record `skip` on, `take` records at the most.
    #[must_use]
    pub fn slice(&self, skip: usize, take: usize) -> Self {
        let first = (self.first + skip).min(self.last);
        Self { first, last: first.saturating_add(take).min(self.last), ..self.clone() }
    }

    /// The records that stand at `offset` or behind it.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "what is fetched from Kafka comes with holes"))]
    pub(crate) fn at_or_after(&self, offset: Offset) -> Self {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.offset(self.first + middle) < offset { low = middle + 1 } else { high = middle }
        }
        self.slice(low, usize::MAX)
    }

    /// As many of the first records as fit both bounds; at least one.
    pub(crate) fn bounded(&self, records: usize, bytes: usize) -> Self {
        let start = self.records.index.get(self.first).map_or(0, |entry| entry.start);
        let index = &self.records.index[self.first..self.last];
        // Record i ends where i + 1 begins.
        let fits = index.partition_point(|entry| entry.start - start <= bytes);
        let fits = if self.bytes() <= bytes { self.len() } else { fits.saturating_sub(1) };
        self.slice(0, fits.min(records).max(1))
    }

    /// Its records, if nobody else holds them.
    pub(crate) fn into_records(self) -> Option<Records> {
        Arc::into_inner(self.records)
    }

    pub fn len(&self) -> usize {
        self.last - self.first
    }

    pub fn is_empty(&self) -> bool {
        self.first == self.last
    }

    #[inline]
    fn offset(&self, i: usize) -> Offset {
        match &self.offsets {
            #[allow(clippy::cast_possible_wrap, reason = "an index into memory")]
            Offsets::From(base) => Offset(base.0 + i as i64),
            Offsets::Each(offsets) => offsets[i],
        }
    }

    pub fn first_offset(&self) -> Option<Offset> {
        (!self.is_empty()).then(|| self.offset(self.first))
    }

    /// The offset after the last record: next to read.
    pub fn next_offset(&self) -> Option<Offset> {
        (!self.is_empty()).then(|| Offset(self.offset(self.last - 1).0 + 1))
    }

    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = RecordRef<'_>> {
        (self.first..self.last).map(|i| self.records.get(i, self.offset(i)))
    }

    /// Bytes of keys, headers and values.
    pub fn bytes(&self) -> usize {
        let at = |i: usize| self.records.index.get(i).map_or(self.records.arena.len(), |e| e.start);
        at(self.last) - at(self.first)
    }

    pub fn topic_partition(&self) -> crate::TopicPartition {
        crate::TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_pushed() {
        let mut records = Records::new();
        records.push(7, b"key", &[("a", b"1"), ("bb", b"")], |out| out.extend_from_slice(b"value"));
        records.push(8, b"", &[], |_| {});
        let mut copy = Records::new();
        copy.push_ref(records.get(0, Offset(0)));
        copy.push_ref(records.get(1, Offset(1)));
        assert_eq!(records, copy);
        let batch = Batch::contiguous("t".into(), 3, Offset(40), Arc::new(records));
        let read: Vec<_> = batch.iter().collect();
        assert_eq!(read[0].offset, Offset(40));
        assert_eq!((read[0].key, read[0].value), (&b"key"[..], &b"value"[..]));
        assert_eq!(read[0].headers.get("a"), Some(&b"1"[..]));
        assert_eq!(read[0].headers.get("bb"), Some(&b""[..]));
        assert_eq!(read[0].headers.get("c"), None);
        assert_eq!((read[1].offset, read[1].timestamp_ms), (Offset(41), 8));
        assert_eq!(batch.next_offset(), Some(Offset(42)));
        let tail = batch.slice(1, 9);
        assert_eq!((tail.len(), tail.first_offset(), tail.bytes()), (1, Some(Offset(41)), 0));
        assert_eq!(batch.slice(5, 1).next_offset(), None);
    }

    #[test]
    fn headers_are_written_once_while_they_stay_the_same() {
        type Named = [(&'static str, &'static [u8])];
        let (a, b): (&Named, &Named) = (&[("n", b"1"), ("m", b"")], &[("n", b"2"), ("m", b"")]);
        let rows = [a, a, &a[..1], &[], &[], a, a, b, b];
        let mut records = Records::new();
        for (i, headers) in rows.iter().enumerate() {
            let before = records.bytes();
            records.push(0, b"k", headers, |out| out.push(b'v'));
            let shared = i > 0 && rows[i - 1] == *headers;
            assert_eq!(records.bytes() - before == 2, shared || headers.is_empty(), "record {i}");
        }
        let (mut twice, mut copy) = (records.clone(), Records::new());
        twice.extend(&records);
        for (i, headers) in rows.iter().chain(&rows).enumerate() {
            let record = twice.get(i, Offset(0));
            assert_eq!((record.key, record.value), (&b"k"[..], &b"v"[..]), "record {i}");
            assert_eq!(record.headers.iter().collect::<Vec<_>>(), *headers, "record {i}");
            copy.push_ref(record);
        }
        let read = |records: &Records| (0..records.len()).map(|i| format!("{:?}", records.get(i, Offset(0)))).collect();
        let (copied, doubled): (Vec<_>, Vec<_>) = (read(&copy), read(&twice));
        assert_eq!(copied, doubled);
        let headers = |i| records.get(i, Offset(0)).headers;
        assert!(headers(0).are_those_of(headers(1)) && !headers(1).are_those_of(headers(2)));
    }
}
