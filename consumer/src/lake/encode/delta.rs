//! `DELTA_BINARY_PACKED`: what each value adds to the one before, less the least of its block.
use super::bits::{pack, varint, width, zigzag};

const BLOCK: usize = 128;
const MINIBLOCKS: usize = 4;
const MINIBLOCK: usize = BLOCK / MINIBLOCKS;

pub(super) fn encode(values: &[i64], out: &mut Vec<u8>) {
    varint(BLOCK as u64, out);
    varint(MINIBLOCKS as u64, out);
    varint(values.len() as u64, out);
    let Some((first, rest)) = values.split_first() else { return zigzag(0, out) };
    zigzag(*first, out);
    let (mut deltas, mut previous) = ([0_i64; BLOCK], *first);
    for block in rest.chunks(BLOCK) {
        let mut least = i64::MAX;
        for (delta, value) in deltas.iter_mut().zip(block) {
            *delta = value.wrapping_sub(previous);
            least = least.min(*delta);
            previous = *value;
        }
        zigzag(least, out);
        let widths_at = out.len();
        out.extend_from_slice(&[0; MINIBLOCKS]);
        for (i, deltas) in deltas[..block.len()].chunks(MINIBLOCK).enumerate() {
            let (mut above, mut all) = ([0_u64; MINIBLOCK], 0);
            for (above, delta) in above.iter_mut().zip(deltas) {
                *above = delta.wrapping_sub(least).cast_unsigned();
                all |= *above;
            }
            let width = width(all);
            #[allow(clippy::cast_possible_truncation, reason = "64 at the most")]
            {
                out[widths_at + i] = width as u8;
            }
            if width > 0 {
                pack(above.into_iter(), width, out);
            }
        }
    }
}
