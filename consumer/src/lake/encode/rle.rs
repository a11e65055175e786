//! Parquet's hybrid of runs and bit-packed groups of eight: levels and dictionary indices.
use super::bits::{pack, varint};

/// A shorter run is packed with its neighbours.
const MIN_RUN: usize = 8;

pub(super) fn encode<T: Copy + PartialEq + Into<u64>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    let (mut packed_from, mut at) = (0, 0);
    while let Some(first) = values.get(at) {
        let run = values[at..].iter().take_while(|value| *value == first).count();
        // What is packed before the run must fill its last group.
        let fill = (at - packed_from).next_multiple_of(8) - (at - packed_from);
        if run >= MIN_RUN + fill {
            packed(&values[packed_from..at + fill], width, out);
            varint(((run - fill) as u64) << 1, out);
            out.extend_from_slice(&(*first).into().to_le_bytes()[..width.div_ceil(8) as usize]);
            packed_from = at + run;
        }
        at += run;
    }
    packed(&values[packed_from..], width, out);
}

fn packed<T: Copy + Into<u64>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(8);
    varint((groups as u64) << 1 | 1, out);
    let end = out.len() + groups * width as usize;
    pack(values.iter().map(|value| (*value).into()), width, out);
    out.resize(end, 0);
}
