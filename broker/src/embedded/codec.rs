//! How a batch of records is stored: one blob, its index and its bytes compressed apart (lz4),
//! under one checksum (xxh3). The offset is not in it: it is the row's key.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version of this form |
//! | 8 | xxh3 of all that follows |
//! | 4 × 4 | records; length of the index; its compressed length; length of keys, headers and values |
//! | … | the index: for each record four varints: time since the record before, length, key's, twice the headers' (1: those of the record before) |
//! | … | keys, headers and values |
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress, decompress_into, get_maximum_output_size};
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::Entry;
use crate::{Error, Records, Result};

const VERSION: u8 = 2;
const CHECKED_FROM: usize = 9;
/// In place of the length of a record's headers: they are those of the record before.
const SHARED: u64 = 1;
const HEADER_BYTES: usize = CHECKED_FROM + 16;
/// The most one append may hold, and what a blob that says more is not believed.
pub(super) const APPEND_MAX_BYTES: usize = 256 << 20;

/// A stored batch, in a buffer that is used again.
#[derive(Debug, Default)]
pub(super) struct Blob {
    buffer: Vec<u8>,
    len: usize,
}

impl Blob {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// What is used again from one batch to the next.
pub(super) struct Encoder {
    table: CompressTable,
    index: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { table: CompressTable::large(), index: Vec::new() }
    }
}

impl Encoder {
    pub(super) fn encode(&mut self, records: &Records, blob: &mut Blob) -> Result<()> {
        let length = |n: usize| {
            u32::try_from(n)
                .map_err(|_| Error::Stop(format!("a batch of {n} bytes is too long: {APPEND_MAX_BYTES} at the most")))
        };
        self.index.clear();
        let (mut before_ms, last) = (0_i64, records.arena.len());
        for (i, entry) in records.index.iter().enumerate() {
            let end = records.index.get(i + 1).map_or(last, |next| next.start);
            let since = entry.timestamp_ms.wrapping_sub(before_ms);
            before_ms = entry.timestamp_ms;
            put(&mut self.index, ((since << 1) ^ (since >> 63)).cast_unsigned());
            put(&mut self.index, (end - entry.start) as u64);
            put(&mut self.index, u64::from(entry.key_len));
            let headers = if entry.shares_headers() { SHARED } else { u64::from(entry.headers_len) << 1 };
            put(&mut self.index, headers);
        }
        let room = HEADER_BYTES + get_maximum_output_size(self.index.len()) + get_maximum_output_size(last);
        if blob.buffer.len() < room {
            blob.buffer.resize(room, 0);
        }
        let out = &mut blob.buffer;
        let failed = |e| Error::Stop(format!("a batch could not be compressed: {e}"));
        let index_end = HEADER_BYTES
            + compress_into_with_table(&self.index, &mut out[HEADER_BYTES..], &mut self.table).map_err(failed)?;
        let end = index_end
            + compress_into_with_table(&records.arena, &mut out[index_end..], &mut self.table).map_err(failed)?;
        let lengths = [records.len(), self.index.len(), index_end - HEADER_BYTES, last];
        for (slot, n) in out[CHECKED_FROM..HEADER_BYTES].chunks_exact_mut(4).zip(lengths) {
            slot.copy_from_slice(&length(n)?.to_le_bytes());
        }
        let sum = xxh3_64(&out[CHECKED_FROM..end]);
        out[0] = VERSION;
        out[1..CHECKED_FROM].copy_from_slice(&sum.to_le_bytes());
        blob.len = end;
        Ok(())
    }
}

/// The number of records in a stored batch whose checksum is right, or what is wrong with it.
pub(super) fn check(blob: &[u8]) -> Result<u32, &'static str> {
    if blob.len() < HEADER_BYTES {
        return Err("it is cut short");
    }
    if blob[0] != VERSION {
        return Err("it is of a form that this version does not know");
    }
    let sum = xxh3_64(&blob[CHECKED_FROM..]);
    if sum.to_le_bytes() != blob[1..CHECKED_FROM] {
        return Err("its checksum does not match");
    }
    Ok(lengths(blob)[0])
}

fn lengths(blob: &[u8]) -> [u32; 4] {
    let mut lengths = [0; 4];
    for (length, bytes) in lengths.iter_mut().zip(blob[CHECKED_FROM..HEADER_BYTES].chunks_exact(4)) {
        *length = bytes.iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte));
    }
    lengths
}

/// Reads a stored batch into `records`, whatever they held: allocations are used again.
pub(super) fn decode(blob: &[u8], mut records: Records) -> Result<Records, &'static str> {
    const WRONG: &str = "its lengths do not fit one another";
    check(blob)?;
    let [count, index_len, index_stored, arena_len] = lengths(blob).map(|n| n as usize);
    if arena_len > APPEND_MAX_BYTES || index_len > APPEND_MAX_BYTES || count > index_len {
        return Err(WRONG);
    }
    let (index_blob, arena_blob) = blob[HEADER_BYTES..].split_at_checked(index_stored).ok_or(WRONG)?;
    let raw = decompress(index_blob, index_len).ok().filter(|raw| raw.len() == index_len);
    let raw = raw.ok_or("it cannot be decompressed")?;
    let Records { arena, index } = &mut records;
    // Shorter than it was, it need not be filled with zeros first.
    arena.resize(arena_len, 0);
    if decompress_into(arena_blob, arena).ok() != Some(arena_len) {
        return Err("it cannot be decompressed");
    }
    let (mut rest, mut start, mut timestamp_ms) = (raw.as_slice(), 0_usize, 0_i64);
    let mut shared = None;
    index.clear();
    index.reserve(count);
    for _ in 0..count {
        let mut next = || take(&mut rest).ok_or(WRONG);
        let (since, len, key_len, headers) = (next()?, next()?, next()?, next()?);
        let short = |n: u64| u32::try_from(n).map_err(|_| WRONG);
        let (len, key_len) = (short(len)?, short(key_len)?);
        let (headers_at, headers_len, own_len) = if headers == SHARED {
            let (at, len) = shared.ok_or(WRONG)?;
            (at, len, 0)
        } else {
            let headers_len = short(headers >> 1)?;
            (start + key_len as usize, headers_len, headers_len)
        };
        if u64::from(key_len) + u64::from(own_len) > u64::from(len) {
            return Err(WRONG);
        }
        shared = Some((headers_at, headers_len));
        timestamp_ms = timestamp_ms.wrapping_add((since >> 1).cast_signed() ^ -(since & 1).cast_signed());
        index.push(Entry { timestamp_ms, start, headers_at, key_len, headers_len });
        start += len as usize;
    }
    if start != arena_len || !rest.is_empty() {
        return Err(WRONG);
    }
    Ok(records)
}

#[inline]
fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        #[allow(clippy::cast_possible_truncation, reason = "seven bits of it")]
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    #[allow(clippy::cast_possible_truncation, reason = "below 0x80")]
    out.push(n as u8);
}

#[inline]
fn take(from: &mut &[u8]) -> Option<u64> {
    let (mut n, mut shift) = (0_u64, 0);
    loop {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        n |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(n);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(records: &Records) -> Vec<u8> {
        let mut blob = Blob::default();
        Encoder::default().encode(records, &mut blob).unwrap();
        blob.bytes().to_vec()
    }

    proptest! {
        #[test]
        fn any_batch_comes_back(rows in prop::collection::vec((any::<i64>(), any::<Vec<u8>>(), any::<bool>(), any::<Vec<u8>>()), 0..40)) {
            let mut records = Records::new();
            let mut used = Records::new();
            used.push(1, b"used before", &[("h", b"1")], |out| out.resize(100, 7));
            for (at, key, header, value) in &rows {
                let headers: &[(&str, &[u8])] = if *header { &[("h", b"1")] } else { &[] };
                records.push(*at, key, headers, |out| out.extend_from_slice(value));
            }
            prop_assert_eq!(decode(&stored(&records), used), Ok(records));
        }

        #[test]
        fn any_changed_byte_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut records = Records::new();
            for i in 0..50 {
                records.push(i, b"key", &[("h", b"1")], |out| out.extend_from_slice(&i.to_le_bytes()));
            }
            let mut blob = stored(&records);
            let at = at.index(blob.len());
            blob[at] ^= 1 << bit;
            prop_assert!(decode(&blob, Records::new()).is_err());
            prop_assert!(decode(&blob[..at], Records::new()).is_err());
        }
    }
}
