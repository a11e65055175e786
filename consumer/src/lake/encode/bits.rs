//! Bit packing (the least significant bit first) and variable-length integers.

/// Appends each value's lowest `width` bits; the last byte is filled with zeros.
pub(super) fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let (mut word, mut filled) = (0_u64, 0_u32);
    for value in values {
        word |= value << filled;
        let total = filled + width;
        if total >= u64::BITS {
            out.extend_from_slice(&word.to_le_bytes());
            word = if filled == 0 { 0 } else { value >> (u64::BITS - filled) };
            filled = total - u64::BITS;
        } else {
            filled = total;
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..filled.div_ceil(8) as usize]);
}

/// How many bits `value` takes; none for 0.
pub(super) fn width(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// ULEB128.
#[allow(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
}
