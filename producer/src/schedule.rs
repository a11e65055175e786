//! When each row is due: arithmetic of event times. Pure: no clock, no rows.
//!
//! Schedule time is event time with two changes. The data has whole seconds: the n rows of one
//! second are spread evenly over it, row i at i/n. And no silence is longer than `max_gap`. A row
//! out of order does not turn the schedule back: it belongs to the second that it arrives in (the
//! running maximum of event time). Nor does a single row whose time is far ahead turn it forward
//! (`held`): such a row belongs to the second that it arrives in as well.
//!
//! How many rows a second has is known when the next one begins, so rows wait for that. Where more
//! of them come than may wait, those at hand take half of what is left of the second, and so on.
use std::time::Duration;

use records::EventTime;

const SECOND_US: i64 = 1_000_000;

/// Where the schedule stands: its own time, and the event time that it has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) us: i64,
    pub(crate) clock: EventTime,
}

/// Maps the seconds of a source, in order, to schedule time in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    max_gap_us: i64,
    /// Over how much of a second its rows are spread.
    width_us: i64,
    second: Option<Second>,
}

#[derive(Clone, Copy, Debug)]
struct Second {
    time: EventTime,
    /// The schedule's time of it.
    base_us: i64,
    /// How much of it rows have taken.
    used_us: i64,
}

/// The rows of one second, or a part of them, in schedule time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    from_us: i64,
    length_us: i64,
    rows: i64,
}

impl Schedule {
    pub(crate) fn new(max_gap: Option<Duration>) -> Self {
        let max_gap_us = max_gap.map_or(i64::MAX, |gap| i64::try_from(gap.as_micros()).unwrap_or(i64::MAX));
        let max_gap_us = max_gap_us.max(1);
        Self { max_gap_us, width_us: SECOND_US.min(max_gap_us), second: None }
    }

    /// The rows of a second are due together, at its beginning.
    #[must_use]
    pub(crate) fn in_bursts(mut self) -> Self {
        self.width_us = 0;
        self
    }

    /// Goes on after a row that was due there. What is left of its second begins there.
    #[must_use]
    pub(crate) fn resume(mut self, point: Point) -> Self {
        self.second = Some(Second { time: point.clock, base_us: point.us, used_us: 0 });
        self
    }

    /// The next `rows` rows, all of the second that begins at `time`; `whole` when no more of it
    /// are known to come. `time` never goes back.
    pub(crate) fn place(&mut self, time: EventTime, rows: usize, whole: bool) -> Spread {
        let mut second = match self.second {
            None => Second { time, base_us: time.0, used_us: 0 },
            Some(before) if time > before.time => {
                let gap_us = time.0.saturating_sub(before.time.0).min(self.max_gap_us);
                // What is resumed may begin within its second: the next one still comes after it.
                Second { time, base_us: before.base_us.saturating_add(gap_us), used_us: 0 }
            }
            Some(same) => same,
        };
        let left_us = (self.width_us - second.used_us).max(0);
        let length_us = if whole { left_us } else { left_us / 2 };
        let from_us = second.base_us.saturating_add(second.used_us);
        second.used_us += length_us;
        self.second = Some(second);
        Spread { from_us, length_us, rows: i64::try_from(rows).unwrap_or(i64::MAX).max(1) }
    }
}

impl Spread {
    /// The schedule's time of row `i` of these, from 0.
    pub(crate) fn at(&self, i: usize) -> i64 {
        let i = i64::try_from(i).unwrap_or(i64::MAX).min(self.rows);
        self.from_us + self.length_us * i / self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(s: i64) -> EventTime {
        EventTime::from_seconds(s)
    }

    /// Places whole seconds, and returns all rows' times.
    fn run(schedule: &mut Schedule, counts: &[(i64, usize)]) -> Vec<i64> {
        counts
            .iter()
            .flat_map(|(second, rows)| {
                let spread = schedule.place(seconds(*second), *rows, true);
                (0..*rows).map(move |i| spread.at(i))
            })
            .collect()
    }

    #[test]
    fn rows_are_spread_within_their_second_and_silences_squeezed() {
        let s = |n: i64| n * SECOND_US;
        let mut plain = Schedule::new(None);
        assert_eq!(
            run(&mut plain, &[(10, 4), (11, 1), (100, 2)]),
            [s(10), s(10) + 250_000, s(10) + 500_000, s(10) + 750_000, s(11), s(100), s(100) + 500_000]
        );
        let mut capped = Schedule::new(Some(Duration::from_secs(30)));
        assert_eq!(run(&mut capped, &[(10, 1), (40, 1), (100, 1), (101, 1)]), [s(10), s(40), s(70), s(71)]);
        let mut bursts = Schedule::new(None).in_bursts();
        let burst = bursts.place(EventTime::from_seconds(7), 4, true);
        assert_eq!((burst.at(0), burst.at(3)), (7 * SECOND_US, 7 * SECOND_US));
        assert_eq!(bursts.place(EventTime::from_seconds(9), 1, true).at(0), 9 * SECOND_US);
        let mut narrow = Schedule::new(Some(Duration::from_millis(100)));
        assert_eq!(run(&mut narrow, &[(10, 2), (11, 1)]), [s(10), s(10) + 50_000, s(10) + 100_000]);
    }

    #[test]
    fn more_rows_than_may_wait_stay_within_their_second() {
        let mut schedule = Schedule::new(None);
        let times: Vec<_> =
            [(4, false), (4, false), (2, true)].map(|(n, whole)| schedule.place(seconds(0), n, whole)).to_vec();
        assert_eq!(times.iter().map(|t| t.at(0)).collect::<Vec<_>>(), [0, 500_000, 750_000]);
        assert_eq!(times[2].at(1), 875_000);
        assert_eq!(schedule.place(seconds(1), 1, true).at(0), SECOND_US);
    }

    /// A day at 10 rows a second: the last is placed a day, less a tenth of a second, after the first.
    #[test]
    fn a_day_has_no_drift() {
        let mut schedule = Schedule::new(None);
        let mut last = 0;
        for second in 0..86_400 {
            last = schedule.place(seconds(1_569_888_000 + second), 10, true).at(9);
        }
        assert_eq!(last - 1_569_888_000 * SECOND_US, 86_400 * SECOND_US - 100_000);
    }

    proptest! {
        #[test]
        fn schedule_time_never_goes_back_and_no_gap_is_longer(
            steps in proptest::collection::vec((0_i64..5000, 1_usize..20, any::<bool>()), 1..50),
            max_gap_ms in proptest::option::of(1_u64..100_000),
        ) {
            let max_gap = max_gap_ms.map(Duration::from_millis);
            let mut schedule = Schedule::new(max_gap);
            let (mut time, mut last) = (1000, i64::MIN);
            for (step, rows, whole) in steps {
                time += step;
                let spread = schedule.place(seconds(time), rows, whole);
                for i in 0..rows {
                    let at = spread.at(i);
                    prop_assert!(at >= last);
                    if let Some(gap) = max_gap && last > i64::MIN {
                        prop_assert!(at - last <= i64::try_from(gap.as_micros()).unwrap());
                    }
                    if max_gap.is_none() {
                        prop_assert!((time * SECOND_US..(time + 1) * SECOND_US + 1).contains(&at));
                    }
                    last = at;
                }
            }
        }

        /// Wherever it is resumed, it goes on without a step back, and later gaps are what they were.
        #[test]
        fn a_resumed_schedule_goes_on(counts in proptest::collection::vec((1_i64..100, 1_usize..5), 2..20), cut in 0_usize..20) {
            let mut time = 0;
            let counts: Vec<_> = counts.iter().map(|(step, n)| { time += step; (time, *n) }).collect();
            let cut = 1 + cut % (counts.len() - 1);
            let whole = run(&mut Schedule::new(None), &counts);
            let before: usize = counts[..cut].iter().map(|(_, n)| n).sum();
            let last = whole[before - 1];
            let mut resumed = Schedule::new(None).resume(Point { clock: seconds(counts[cut - 1].0), us: last });
            let rest = run(&mut resumed, &counts[cut..]);
            prop_assert!(rest[0] >= last);
            let shift = rest[0] - whole[before];
            prop_assert!((0..SECOND_US).contains(&shift));
            prop_assert!(rest.iter().zip(&whole[before..]).all(|(a, b)| a - b == shift));
        }
    }
}
