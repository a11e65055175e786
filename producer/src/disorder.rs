//! Disorder on purpose, for testing what reads: rows out of order, copies, rows that cannot be read.
//! Drawn from a seed and the row's number alone, so that a resumed replay draws the same. Pure.
use std::time::Duration;

use records::EventTime;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::window::Share;

/// None of it by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Disorder {
    pub seed: u64,
    /// Rows change places within stretches of so much event time.
    pub shuffle: Option<Duration>,
    /// So many rows are sent twice.
    pub duplicate: Share,
    /// So many rows are damaged, so that they cannot be read.
    pub corrupt: Share,
}

#[derive(Clone, Copy)]
enum Draw {
    Place = 1,
    Copy = 2,
    Damage = 3,
    Kind = 4,
}

impl Disorder {
    fn draw(&self, what: Draw, row: u64) -> u64 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&row.to_le_bytes());
        bytes[8..].copy_from_slice(&(what as u64).to_le_bytes());
        xxh3_64_with_seed(&bytes, self.seed)
    }

    /// Whether there is any.
    pub(crate) fn is_some(&self) -> bool {
        self.shuffle.is_some() || !self.duplicate.is_zero() || !self.corrupt.is_zero()
    }

    /// How many times the row is sent.
    pub(crate) fn times(&self, row: u64) -> u32 {
        1 + u32::from(!self.duplicate.is_zero() && self.duplicate.takes(self.draw(Draw::Copy, row)))
    }

    pub(crate) fn damages(&self, row: u64) -> bool {
        !self.corrupt.is_zero() && self.corrupt.takes(self.draw(Draw::Damage, row))
    }

    /// Makes of a row's text one that no reader takes: cut off, not UTF-8, or with a field too many.
    pub(crate) fn damage(&self, row: u64, text: &mut Vec<u8>) {
        let drawn = self.draw(Draw::Kind, row);
        let place = |n: usize| usize::try_from(drawn / 3 % n.max(1) as u64).unwrap_or(0);
        match drawn % 3 {
            0 => {
                // Before its last comma that is in no quotes for certain: fields are missing, whatever follows.
                let plain = text.iter().position(|byte| *byte == b'"').unwrap_or(text.len());
                let last = text[..plain].iter().rposition(|byte| *byte == b',').unwrap_or(0);
                text.truncate(place(last + 1));
            }
            1 if !text.is_empty() => {
                let at = place(text.len());
                text[at] = 0xff;
            }
            _ => text.push(b','),
        }
    }

    /// Where the stretch ends whose first row has this time.
    pub(crate) fn stretch_end(&self, first: EventTime) -> Option<EventTime> {
        let length = i64::try_from(self.shuffle?.as_micros()).unwrap_or(i64::MAX).max(1);
        Some(EventTime(first.0.div_euclid(length).saturating_add(1).saturating_mul(length)))
    }

    /// Puts a stretch into its drawn order: `number` tells each entry's row and copy.
    pub(crate) fn shuffle<T>(&self, stretch: &mut [T], number: impl Fn(&T) -> (u64, u32)) {
        stretch.sort_by_cached_key(|entry| {
            let (row, copy) = number(entry);
            (self.draw(Draw::Place, row.wrapping_mul(2).wrapping_add(u64::from(copy))), row, copy)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{COLUMNS, Header, Parser};
    use proptest::prelude::*;

    const ROW: &str =
        "2019-10-01 00:00:01 UTC,view,17200506,2053013559792632471,furniture.sofa,ikea,543.10,519107250,566511c2";

    fn disorder(seed: u64) -> Disorder {
        let share = Share::new(0.01).unwrap();
        Disorder { seed, shuffle: Some(Duration::from_secs(30)), duplicate: share, corrupt: share }
    }

    #[test]
    fn drawn_by_seed_and_share() {
        let (one, other) = (disorder(7), disorder(8));
        let copies = |d: &Disorder| (0..100_000).filter(|row| d.times(*row) == 2).collect::<Vec<u64>>();
        let damaged = |d: &Disorder| (0..100_000).filter(|row| d.damages(*row)).collect::<Vec<u64>>();
        assert_eq!(copies(&one), copies(&disorder(7)));
        assert_ne!(copies(&one), copies(&other));
        assert_ne!(copies(&one), damaged(&one));
        for drawn in [copies(&one).len(), damaged(&one).len()] {
            assert!((850..=1150).contains(&drawn), "{drawn} of 100,000");
        }
        assert!((0..1000).all(|row| Disorder::default().times(row) == 1 && !Disorder::default().damages(row)));
    }

    #[test]
    fn stretches_end_at_whole_multiples() {
        let at = EventTime::from_seconds;
        for (first, end) in [(0, 30), (29, 30), (30, 60), (-1, 0)] {
            assert_eq!(disorder(1).stretch_end(at(first)), Some(at(end)), "{first}");
        }
        assert_eq!(Disorder::default().stretch_end(at(5)), None);
    }

    proptest! {
        /// A damaged row is always one that cannot be read, and another draw damages it otherwise.
        #[test]
        fn damage_is_damage(
            seed in any::<u64>(),
            row in any::<u64>(),
            text in proptest::sample::select(vec![ROW, "", ",,,,,,,,", "\"a\",b"]),
            session in "[a,\"\r]{0,6}",
            (quoted, wide) in any::<(bool, bool)>(),
        ) {
            let session = if quoted { format!("\"{}\"", session.replace('"', "\"\"")) } else { session };
            let more = if wide { ",more" } else { "" };
            let header = Header::parse(format!("{}{more}", COLUMNS.join(",")).as_bytes()).unwrap();
            let mut damaged = (text.replace("566511c2", &session) + more).into_bytes();
            // Of a row that cannot be read as it is nothing is asked.
            prop_assume!(text != ROW || Parser::new().parse(&header, &damaged).is_ok());
            disorder(seed).damage(row, &mut damaged);
            prop_assert!(Parser::new().parse(&header, &damaged).is_err(), "{}", String::from_utf8_lossy(&damaged));
        }

        #[test]
        fn a_shuffle_keeps_all_and_does_not_depend_on_the_order_before(seed in any::<u64>(), rows in 2_u64..200) {
            let mut forward: Vec<(u64, u32)> = (0..rows).flat_map(|row| [(row, 0), (row, 1)]).collect();
            let mut backward = forward.clone();
            backward.reverse();
            disorder(seed).shuffle(&mut forward, |entry| *entry);
            disorder(seed).shuffle(&mut backward, |entry| *entry);
            prop_assert_eq!(&forward, &backward);
            forward.sort_unstable();
            prop_assert!(forward.iter().copied().eq((0..rows).flat_map(|row| [(row, 0), (row, 1)])));
        }
    }
}
