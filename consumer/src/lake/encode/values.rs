//! The kinds of values that a column holds: gathered in the form in which they are encoded.
use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parquet::basic::Encoding;
use parquet::data_type::ByteArray;
use parquet::file::statistics::Statistics;

use super::{bits, delta, rle};

/// A dictionary that has grown larger than this stays as it is: later chunks are plain.
const DICTIONARY_BYTES: usize = 1 << 20;
const DICTIONARY_VALUES: usize = 1 << 16;
/// Longer texts are no use as bounds.
const BOUND_BYTES: usize = 64;

/// The values of a column, absent ones left out.
pub(crate) trait Values: Send {
    type Value: ?Sized;

    /// Hardly anything is left to compress.
    const PACKED: bool = false;

    fn push(&mut self, value: &Self::Value);

    /// Gathered since the last page.
    fn len(&self) -> usize;

    /// Bytes gathered since the last page.
    fn bytes(&self) -> usize;

    /// Memory that outlasts a page.
    fn kept_bytes(&self) -> usize {
        0
    }

    /// Appends what was gathered, and starts anew.
    fn encode(&mut self, out: &mut Vec<u8>) -> Encoding;

    /// The plain values that the pages' indices mean, and how many.
    fn dictionary(&self) -> Option<(&[u8], usize)> {
        None
    }

    /// Of the row group.
    fn statistics(&self, nulls: u64) -> Statistics;

    /// Forgets the row group.
    fn reset(&mut self);
}

/// Packed as differences: a few bits each where they grow by little, and no hashing.
#[derive(Default)]
pub(crate) struct Integers {
    values: Vec<i64>,
    bounds: Option<(i64, i64)>,
}

impl Values for Integers {
    type Value = i64;

    const PACKED: bool = true;

    #[inline]
    fn push(&mut self, value: &i64) {
        self.values.push(*value);
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn bytes(&self) -> usize {
        self.values.len() * 8
    }

    fn encode(&mut self, out: &mut Vec<u8>) -> Encoding {
        delta::encode(&self.values, out);
        for value in self.values.drain(..) {
            let (least, greatest) = self.bounds.unwrap_or((value, value));
            self.bounds = Some((least.min(value), greatest.max(value)));
        }
        Encoding::DELTA_BINARY_PACKED
    }

    fn statistics(&self, nulls: u64) -> Statistics {
        Statistics::int64(self.bounds.map(|b| b.0), self.bounds.map(|b| b.1), None, Some(nulls), false)
    }

    fn reset(&mut self) {
        self.values.clear();
        self.bounds = None;
    }
}

#[derive(Default)]
pub(crate) struct Flags {
    values: Vec<bool>,
    seen: [bool; 2],
}

impl Values for Flags {
    type Value = bool;

    #[inline]
    fn push(&mut self, value: &bool) {
        self.values.push(*value);
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn bytes(&self) -> usize {
        self.values.len()
    }

    fn encode(&mut self, out: &mut Vec<u8>) -> Encoding {
        for value in [false, true] {
            self.seen[usize::from(value)] |= self.values.contains(&value);
        }
        bits::pack(self.values.drain(..).map(u64::from), 1, out);
        Encoding::PLAIN
    }

    fn statistics(&self, nulls: u64) -> Statistics {
        let [no, yes] = self.seen;
        let any = no || yes;
        Statistics::boolean(any.then_some(!no), any.then_some(yes), None, Some(nulls), false)
    }

    fn reset(&mut self) {
        self.values.clear();
        self.seen = [false; 2];
    }
}

/// For texts that hardly repeat: a dictionary would only be hashed for nothing. Their bounds would
/// say nothing either.
#[derive(Default)]
pub(crate) struct PlainBytes {
    plain: Vec<u8>,
    count: usize,
}

impl Values for PlainBytes {
    type Value = [u8];

    #[inline]
    fn push(&mut self, value: &[u8]) {
        push_plain(value, &mut self.plain);
        self.count += 1;
    }

    fn len(&self) -> usize {
        self.count
    }

    fn bytes(&self) -> usize {
        self.plain.len()
    }

    fn kept_bytes(&self) -> usize {
        self.plain.capacity()
    }

    fn encode(&mut self, out: &mut Vec<u8>) -> Encoding {
        if out.is_empty() {
            std::mem::swap(out, &mut self.plain);
        } else {
            out.extend_from_slice(&self.plain);
            self.plain.clear();
        }
        self.count = 0;
        Encoding::PLAIN
    }

    fn statistics(&self, nulls: u64) -> Statistics {
        Statistics::byte_array(None, None, None, Some(nulls), false)
    }

    fn reset(&mut self) {
        self.plain.clear();
        self.count = 0;
    }
}

/// Bytes with their length before them. A record is at most a few MiB.
#[inline]
fn push_plain(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(value);
}

/// Texts that repeat: each distinct one is stored once a row group.
#[derive(Default)]
pub(crate) struct TextDictionary {
    /// The distinct values, plain.
    page: Vec<u8>,
    /// Where each of them ends in `page`; its length stands before it.
    ends: Vec<usize>,
    table: HashTable<u32>,
    hasher: RandomState,
    last: u32,
    /// What the last value is known by, if it is.
    last_code: Option<u64>,
    indices: Vec<u32>,
    /// Of `page`, before this chunk.
    known_bytes: usize,
    /// Once the dictionary is full.
    rest: PlainBytes,
    full: bool,
}

impl TextDictionary {
    #[inline]
    fn value<'a>(page: &'a [u8], ends: &[usize], i: u32) -> &'a [u8] {
        let i = i as usize;
        let start = if i == 0 { 0 } else { ends[i - 1] };
        &page[start + 4..ends[i]]
    }

    /// As `push`, for a value that is known by a code: it is looked at where the code changes only.
    #[inline]
    pub(super) fn push_coded<T: AsRef<[u8]>>(&mut self, code: u64, value: impl FnOnce() -> T) {
        if self.last_code == Some(code) && !self.full {
            self.indices.push(self.last);
        } else {
            self.push(value().as_ref());
            self.last_code = Some(code);
        }
    }

    fn intern(&mut self, value: &[u8]) -> u32 {
        let hash = |value: &[u8]| {
            let mut hasher = self.hasher.build_hasher();
            hasher.write(value);
            hasher.finish()
        };
        let (page, ends) = (&mut self.page, &mut self.ends);
        let of_hash = hash(value);
        if let Some(i) = self.table.find(of_hash, |i| Self::value(page, ends, *i) == value) {
            return *i;
        }
        let i = u32::try_from(ends.len()).unwrap_or(u32::MAX);
        push_plain(value, page);
        ends.push(page.len());
        self.table.insert_unique(of_hash, i, |i| hash(Self::value(page, ends, *i)));
        i
    }

    /// Of all values; None where one of them is too long to be of use, or not all are here.
    fn bounds(&self) -> Option<(&[u8], &[u8])> {
        let all = || (0..).take(self.ends.len()).map(|i| Self::value(&self.page, &self.ends, i));
        let short = |bound: &&[u8]| bound.len() <= BOUND_BYTES && !self.full;
        Some((all().min().filter(short)?, all().max().filter(short)?))
    }
}

impl Values for TextDictionary {
    type Value = [u8];

    #[inline]
    fn push(&mut self, value: &[u8]) {
        if self.full {
            return self.rest.push(value);
        }
        // Values come in runs, and many columns have hardly more than one.
        if self.ends.is_empty() || Self::value(&self.page, &self.ends, self.last) != value {
            self.last = self.intern(value);
        }
        self.indices.push(self.last);
    }

    fn len(&self) -> usize {
        self.indices.len() + self.rest.len()
    }

    fn bytes(&self) -> usize {
        self.indices.len() * 4 + self.page.len() - self.known_bytes + self.rest.bytes()
    }

    fn kept_bytes(&self) -> usize {
        self.page.capacity() + self.ends.capacity() * 16 + self.rest.kept_bytes()
    }

    fn encode(&mut self, out: &mut Vec<u8>) -> Encoding {
        if self.full {
            return self.rest.encode(out);
        }
        encode_indices(&mut self.indices, self.ends.len(), out);
        self.known_bytes = self.page.len();
        self.full = self.page.len() > DICTIONARY_BYTES || self.ends.len() > DICTIONARY_VALUES;
        Encoding::RLE_DICTIONARY
    }

    fn dictionary(&self) -> Option<(&[u8], usize)> {
        Some((&self.page, self.ends.len()))
    }

    fn statistics(&self, nulls: u64) -> Statistics {
        let bounds = self.bounds();
        let value = |bound: &[u8]| ByteArray::from(bound.to_vec());
        Statistics::byte_array(bounds.map(|b| value(b.0)), bounds.map(|b| value(b.1)), None, Some(nulls), false)
    }

    fn reset(&mut self) {
        self.page.clear();
        self.ends.clear();
        self.table.clear();
        self.indices.clear();
        self.known_bytes = 0;
        self.rest.reset();
        self.full = false;
        self.last = 0;
        self.last_code = None;
    }
}

/// Large numbers that repeat (categories): each distinct one is stored once a row group.
#[derive(Default)]
pub(crate) struct IntegerDictionary {
    page: Vec<u8>,
    values: Vec<i64>,
    table: HashTable<u32>,
    hasher: RandomState,
    last: u32,
    indices: Vec<u32>,
    bounds: Option<(i64, i64)>,
    /// Once the dictionary is full.
    rest: Integers,
    full: bool,
}

impl IntegerDictionary {
    fn intern(&mut self, value: i64) -> u32 {
        let values = &mut self.values;
        let of_hash = self.hasher.hash_one(value);
        if let Some(i) = self.table.find(of_hash, |i| values[*i as usize] == value) {
            return *i;
        }
        let i = u32::try_from(values.len()).unwrap_or(u32::MAX);
        self.page.extend_from_slice(&value.to_le_bytes());
        values.push(value);
        let (least, greatest) = self.bounds.unwrap_or((value, value));
        self.bounds = Some((least.min(value), greatest.max(value)));
        self.table.insert_unique(of_hash, i, |i| self.hasher.hash_one(values[*i as usize]));
        i
    }
}

impl Values for IntegerDictionary {
    type Value = i64;

    #[inline]
    fn push(&mut self, value: &i64) {
        if self.full {
            return self.rest.push(value);
        }
        if self.values.get(self.last as usize) != Some(value) {
            self.last = self.intern(*value);
        }
        self.indices.push(self.last);
    }

    fn len(&self) -> usize {
        self.indices.len() + self.rest.len()
    }

    fn bytes(&self) -> usize {
        self.indices.len() * 4 + self.rest.bytes()
    }

    fn kept_bytes(&self) -> usize {
        self.values.capacity() * 24
    }

    fn encode(&mut self, out: &mut Vec<u8>) -> Encoding {
        if self.full {
            return self.rest.encode(out);
        }
        encode_indices(&mut self.indices, self.values.len(), out);
        self.full = self.values.len() > DICTIONARY_VALUES;
        Encoding::RLE_DICTIONARY
    }

    fn dictionary(&self) -> Option<(&[u8], usize)> {
        Some((&self.page, self.values.len()))
    }

    fn statistics(&self, nulls: u64) -> Statistics {
        let all = [self.bounds, self.rest.bounds].into_iter().flatten();
        let bounds = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        Statistics::int64(bounds.map(|b| b.0), bounds.map(|b| b.1), None, Some(nulls), false)
    }

    fn reset(&mut self) {
        self.page.clear();
        self.values.clear();
        self.table.clear();
        self.indices.clear();
        self.bounds = None;
        self.rest.reset();
        self.full = false;
        self.last = 0;
    }
}

/// A byte says how wide they are: as wide as the dictionary has grown so far.
fn encode_indices(indices: &mut Vec<u32>, values: usize, out: &mut Vec<u8>) {
    let width = bits::width(values.saturating_sub(1) as u64);
    #[allow(clippy::cast_possible_truncation, reason = "64 at the most")]
    out.push(width as u8);
    rle::encode(indices, width, out);
    indices.clear();
}
