//! The quick way to read a message: each field at most once, in the order of its number, and no other.
//! That is what encoders write; whatever else a value is, it is left to buffa, which reads all that
//! Protobuf allows and says what is wrong with the rest.
use crate::text::utf8;

/// The fields of a value, asked for in the order of their numbers. One that is absent is its default.
#[derive(Debug)]
pub struct InOrder<'a> {
    rest: &'a [u8],
    failed: bool,
}

const VARINT: u32 = 0;
const BYTES: u32 = 2;
/// Of a number of 64 bits, the last of which stands in the tenth.
const VARINT_MAX_BYTES: usize = 10;

/// What `read` makes of a value that holds its fields and nothing else.
pub(crate) fn read<'a, V>(value: &'a [u8], read: impl FnOnce(&mut InOrder<'a>) -> V) -> Option<V> {
    let mut fields = InOrder { rest: value, failed: false };
    let view = read(&mut fields);
    (fields.rest.is_empty() && !fields.failed).then_some(view)
}

impl<'a> InOrder<'a> {
    #[inline]
    pub(crate) fn number(&mut self, field: u32) -> Option<u64> {
        self.tag(field, VARINT).then(|| self.varint())
    }

    #[inline]
    pub(crate) fn u64(&mut self, field: u32) -> u64 {
        self.number(field).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn i64(&mut self, field: u32) -> i64 {
        self.u64(field).cast_signed()
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "as Protobuf has it: higher bits are dropped")]
    pub(crate) fn u32(&mut self, field: u32) -> u32 {
        self.u64(field) as u32
    }

    #[inline]
    pub(crate) fn i32(&mut self, field: u32) -> i32 {
        self.u32(field).cast_signed()
    }

    #[inline]
    pub(crate) fn bool(&mut self, field: u32) -> bool {
        self.u64(field) != 0
    }

    #[inline]
    pub(crate) fn text(&mut self, field: u32) -> &'a str {
        if !self.tag(field, BYTES) {
            return "";
        }
        let len = usize::try_from(self.varint()).unwrap_or(usize::MAX);
        let text = self.rest.split_at_checked(len).and_then(|(text, rest)| {
            self.rest = rest;
            utf8(text)
        });
        self.failed |= text.is_none();
        text.unwrap_or_default()
    }

    /// Whether the next field is this one.
    #[inline(always)]
    fn tag(&mut self, field: u32, kind: u32) -> bool {
        #[allow(clippy::cast_possible_truncation, reason = "field numbers are below 2048: two bytes at the most")]
        let (low, high) = ((field << 3 | kind) as u8, (field >> 4) as u8);
        let rest = match high {
            0 => self.rest.strip_prefix(&[low]),
            _ => self.rest.strip_prefix(&[low | 0x80, high]),
        };
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    #[inline]
    fn varint(&mut self) -> u64 {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                u64::from(*byte)
            }
            _ => self.long_varint(),
        }
    }

    /// Up to eight bytes at once: seven bits of each, put together two by two.
    #[inline]
    fn long_varint(&mut self) -> u64 {
        let Some(word) = self.rest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
            return self.varint_by_byte();
        };
        let ends = !word & 0x8080_8080_8080_8080;
        if ends == 0 {
            return self.varint_by_byte();
        }
        // All bits up to that of the first byte that ends.
        let n = word & (ends ^ (ends - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
        let n = n & 0x007f_007f_007f_007f | (n & 0x7f00_7f00_7f00_7f00) >> 1;
        let n = n & 0x0000_3fff_0000_3fff | (n & 0x3fff_0000_3fff_0000) >> 2;
        self.rest = &self.rest[ends.trailing_zeros() as usize / 8 + 1..];
        n & 0x0fff_ffff | (n & 0x0fff_ffff_0000_0000) >> 4
    }

    fn varint_by_byte(&mut self) -> u64 {
        let mut n = 0;
        for (i, &byte) in self.rest.iter().take(VARINT_MAX_BYTES).enumerate() {
            n |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                self.failed |= i + 1 == VARINT_MAX_BYTES && byte > 1;
                return n;
            }
        }
        self.failed = true;
        0
    }
}
