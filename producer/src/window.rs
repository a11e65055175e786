//! Which rows of the files are the source's, and which of those this shard's. Pure.
use std::fmt;

use records::{EventTime, SessionKey};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Sampling and sharding draw from the same keys, and must not follow one another.
const SAMPLE_SEED: u64 = 0x5a4d;
const SHARD_SEED: u64 = 0x5348;
/// A row that is out of order by more than this after the end of the window is not looked for: there
/// the input is over.
const UNTIL_SLACK_US: i64 = 3600 * 1_000_000;

/// A part of a whole, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share(f64);

/// A part of the rows. All of them by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// Rows at or after it, in the data's own times.
    pub from: Option<EventTime>,
    /// Rows before it.
    pub until: Option<EventTime>,
    /// So many rows, the first of those that are left.
    pub limit: Option<u64>,
    /// Whole sessions, drawn by their keys.
    pub sample: Option<Share>,
}

/// One of the parts that sessions are shared out to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub number: u32,
    pub of: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Of this source and shard.
    Own,
    /// Of this source, and for another shard to send.
    Other,
    /// Not of this source.
    Not,
    /// Nor is any that follows.
    Over,
}

impl Share {
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    pub fn is_zero(self) -> bool {
        self.0 <= 0.0
    }

    /// Whether something with this hash is of the share.
    #[allow(clippy::cast_precision_loss, reason = "53 bits of a hash decide")]
    pub(crate) fn takes(self, hash: u64) -> bool {
        ((hash >> 11) as f64) < self.0 * (1_u64 << 53) as f64
    }
}

/// As a percentage: `1%`.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As many digits as a person types, without those that a division by 100 leaves.
        write!(f, "{}%", (self.0 * 1e14).round() / 1e12)
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self { number: 0, of: 1 }
    }
}

impl Window {
    /// Whether a row that ends the input by its time came straight out of the window: it may be alone
    /// with its time.
    pub(crate) fn jumps_over(&self, before: Option<EventTime>, time: EventTime) -> bool {
        let ends = |until: EventTime| time.0 >= until.0.saturating_add(UNTIL_SLACK_US);
        self.until.is_some_and(|until| ends(until) && before.is_none_or(|before| before < until))
    }

    /// `time` is the row's own; `taken` is how many rows before it are of the source.
    pub(crate) fn judge(&self, shard: Shard, time: EventTime, key: SessionKey<'_>, taken: u64) -> Verdict {
        if self.until.is_some_and(|until| time.0 >= until.0.saturating_add(UNTIL_SLACK_US))
            || self.limit.is_some_and(|limit| taken >= limit)
        {
            return Verdict::Over;
        }
        if self.from.is_some_and(|from| time < from) || self.until.is_some_and(|until| time >= until) {
            return Verdict::Not;
        }
        if self.sample.is_none() && shard.of <= 1 {
            return Verdict::Own;
        }
        let mut written = Vec::new();
        let key = match key {
            SessionKey::Session(session) => session.as_bytes(),
            user @ SessionKey::User(_) => {
                user.write(&mut written);
                &written
            }
        };
        if self.sample.is_some_and(|sample| !sample.takes(xxh3_64_with_seed(key, SAMPLE_SEED))) {
            return Verdict::Not;
        }
        if xxh3_64_with_seed(key, SHARD_SEED) % u64::from(shard.of.max(1)) == u64::from(shard.number) {
            Verdict::Own
        } else {
            Verdict::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> EventTime {
        EventTime::from_seconds(second)
    }

    #[test]
    fn windows() {
        let all = Window::default();
        let one = Shard::default();
        let none = Window { sample: Share::new(0.0), ..all };
        let whole = Window { sample: Share::new(1.0), ..all };
        for (window, second, taken, expected) in [
            (all, 5, 0, Verdict::Own),
            (Window { from: Some(at(5)), ..all }, 4, 0, Verdict::Not),
            (Window { from: Some(at(5)), ..all }, 5, 0, Verdict::Own),
            (Window { until: Some(at(5)), ..all }, 4, 0, Verdict::Own),
            (Window { until: Some(at(5)), ..all }, 5, 0, Verdict::Not),
            (Window { until: Some(at(5)), ..all }, 5 + 3600, 0, Verdict::Over),
            (Window { limit: Some(3), ..all }, 5, 2, Verdict::Own),
            (Window { limit: Some(3), ..all }, 5, 3, Verdict::Over),
            (Window { limit: Some(0), ..all }, 5, 0, Verdict::Over),
            (none, 5, 0, Verdict::Not),
            (whole, 5, 0, Verdict::Own),
        ] {
            let verdict = window.judge(one, at(second), SessionKey::Session("s"), taken);
            assert_eq!(verdict, expected, "{window:?} {second} {taken}");
        }
        assert_eq!((Share::new(1.1), Share::new(f64::NAN)), (None, None));
    }

    #[test]
    fn a_row_that_ends_the_input_may_be_alone() {
        let window = Window { until: Some(at(100)), ..Window::default() };
        for (before, time, jumps) in [
            (Some(99), 3700, true),
            (None, 3700, true),
            (Some(100), 3700, false),
            (Some(3699), 3700, false),
            (Some(99), 3699, false),
        ] {
            assert_eq!(window.jumps_over(before.map(at), at(time)), jumps, "{before:?} {time}");
        }
        assert!(!Window { limit: Some(1), ..Window::default() }.jumps_over(None, at(9_000)));
    }

    #[test]
    fn a_sample_is_of_its_size_and_shards_are_even() {
        let sample = Window { sample: Share::new(0.1), ..Window::default() };
        let (mut taken, mut by_shard) = (0, [0; 4]);
        for session in 0..100_000 {
            let key = format!("session-{session}");
            let judge = |number| sample.judge(Shard { number, of: 4 }, at(0), SessionKey::Session(&key), 0);
            if let Some(own) = (0..4).find(|number| judge(*number) == Verdict::Own) {
                taken += 1;
                by_shard[own as usize] += 1;
            }
        }
        assert!((9_700..=10_300).contains(&taken), "{taken}");
        assert!(by_shard.iter().all(|n| (2_300..=2_700).contains(n)), "{by_shard:?}");
    }

    proptest! {
        /// Every row of the source is sent by exactly one shard, which all agree on.
        #[test]
        fn one_shard_sends_it(user in any::<u32>(), session in "[a-z]{0,5}", of in 1_u32..9, share in 0.0..1.0_f64) {
            let window = Window { sample: Share::new(share), ..Window::default() };
            let key = SessionKey::of(&session, i64::from(user));
            let verdicts: Vec<_> = (0..of).map(|number| window.judge(Shard { number, of }, at(1), key, 0)).collect();
            let own = verdicts.iter().filter(|v| **v == Verdict::Own).count();
            let other = verdicts.iter().filter(|v| **v == Verdict::Other).count();
            prop_assert!((own, other) == (1, of as usize - 1) || verdicts.iter().all(|v| *v == Verdict::Not));
        }
    }
}
