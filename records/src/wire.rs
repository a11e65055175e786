//! Protobuf by hand, for the three records that there are millions of: one pass, no intermediate
//! form. It writes the very bytes that the generated code writes, and reads what that code writes;
//! whatever else it meets (an unknown field, another wire type, a wrong value), it leaves to the
//! generated code, which then reads it or says what is wrong.

/// Fields on their way out, so that the arena is extended by many at once.
#[derive(Debug)]
pub(crate) struct Fields {
    bytes: [u8; ROOM],
    len: usize,
}

/// More than the longest run of fields that any record puts.
const ROOM: usize = 160;

impl Fields {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; ROOM], len: 0 }
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    #[inline]
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            #[allow(clippy::cast_possible_truncation, reason = "seven bits of it")]
            self.byte(n as u8 | 0x80);
            n >>= 7;
        }
        #[allow(clippy::cast_possible_truncation, reason = "below 0x80")]
        self.byte(n as u8);
    }

    /// A varint of field `number`, though it be 0.
    #[inline]
    pub(crate) fn put_present(&mut self, number: u32, n: u64) {
        self.varint(u64::from(number << 3));
        self.varint(n);
    }

    /// The same, but 0 is left out.
    #[inline]
    pub(crate) fn put(&mut self, number: u32, n: u64) {
        if n != 0 {
            self.put_present(number, n);
        }
    }

    #[inline]
    pub(crate) fn put_signed(&mut self, number: u32, n: i64) {
        self.put(number, n.cast_unsigned());
    }

    /// A string of 8 bytes.
    #[inline]
    pub(crate) fn put_digits(&mut self, number: u32, digits: [u8; 8]) {
        self.varint(u64::from(number << 3 | LENGTH_DELIMITED));
        self.byte(8);
        if let Some(slots) = self.bytes.get_mut(self.len..self.len + 8) {
            slots.copy_from_slice(&digits);
            self.len += 8;
        }
    }

    /// A string; all that was put before goes out with it.
    #[inline]
    pub(crate) fn put_text(&mut self, number: u32, text: &str, out: &mut Vec<u8>) {
        if !text.is_empty() {
            self.varint(u64::from(number << 3 | LENGTH_DELIMITED));
            self.varint(text.len() as u64);
            self.flush(out);
            out.extend_from_slice(text.as_bytes());
        }
    }

    #[inline]
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.len]);
        self.len = 0;
    }
}

const LENGTH_DELIMITED: u32 = 2;

/// The key of a varint field below 16, as it stands before its value.
pub(crate) const fn varint_key(number: u8) -> u64 {
    (number << 3) as u64
}

/// The key of a string field.
pub(crate) const fn text_key(number: u8) -> u64 {
    ((number as u64) << 3) | LENGTH_DELIMITED as u64
}

/// A varint, from the front of `from`. None where the generated code should say what is wrong.
#[inline]
pub(crate) fn varint(from: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = from.split_first()?;
    if first < 0x80 {
        *from = rest;
        return Some(u64::from(first));
    }
    if let Some(word) = from.first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let last = !word & 0x8080_8080_8080_8080;
        if last != 0 {
            // Up to and with the first byte without a continuation bit.
            let bits = last.trailing_zeros() + 1;
            let word = word & (u64::MAX >> (64 - bits)) & 0x7f7f_7f7f_7f7f_7f7f;
            let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
            let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
            let word = word & 0x0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4;
            *from = from.get(bits as usize / 8..)?;
            return Some(word);
        }
    }
    let (mut n, mut shift) = (0_u64, 0_u32);
    loop {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        // The tenth byte has room for one bit.
        if shift == 63 && byte > 1 {
            return None;
        }
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

#[inline]
pub(crate) fn signed(from: &mut &[u8]) -> Option<i64> {
    varint(from).map(u64::cast_signed)
}

/// None too where it does not fit: the generated code cuts it.
#[inline]
pub(crate) fn short(from: &mut &[u8]) -> Option<u32> {
    varint(from).and_then(|n| u32::try_from(n).ok())
}

#[inline]
pub(crate) fn flag(from: &mut &[u8]) -> Option<bool> {
    match varint(from)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[inline]
pub(crate) fn text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    buffa::types::borrow_str(from).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_come_back(n: u64, cut in 0_u32..64, rest in any::<Vec<u8>>()) {
            let n = n >> cut;
            let (mut fields, mut out) = (Fields::new(), Vec::new());
            fields.put_present(1, n);
            fields.flush(&mut out);
            out.extend_from_slice(&rest);
            let mut from = &out[1..];
            prop_assert_eq!(varint(&mut from), Some(n));
            prop_assert_eq!(from, &rest[..]);
        }

        #[test]
        fn any_bytes_are_read_as_the_generated_code_does(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff), Just(0x80)], 0..14)) {
            let (mut ours, mut theirs) = (&bytes[..], &bytes[..]);
            if let Some(n) = varint(&mut ours) {
                prop_assert_eq!(buffa::encoding::decode_varint(&mut theirs).ok(), Some(n));
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
