//! Quantiles of durations, from a histogram whose buckets are at most 1.6% wide. Pure.

const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;

/// Counts of durations in microseconds.
#[derive(Clone, Debug)]
pub struct Quantiles {
    counts: Vec<u64>,
    count: u64,
    max_us: u64,
}

/// What a summary says of them, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    pub count: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl Default for Quantiles {
    fn default() -> Self {
        // 64 buckets for each power of two of a u64, and the exact ones below 64.
        Self { counts: vec![0; ((64 - SUB_BITS as usize) + 1) << SUB_BITS], count: 0, max_us: 0 }
    }
}

impl Quantiles {
    /// Adds `times` durations of `us`; a negative one counts as 0.
    pub fn record(&mut self, us: i64, times: u64) {
        let us = u64::try_from(us).unwrap_or(0);
        self.counts[bucket(us)] += times;
        self.count += times;
        self.max_us = self.max_us.max(us);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    pub fn spread(&self) -> Spread {
        Spread { count: self.count, p50_us: self.quantile(50), p99_us: self.quantile(99), max_us: self.max_us }
    }

    /// The upper end of the bucket that holds it; never more than the greatest.
    fn quantile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(i).min(self.max_us);
            }
        }
        self.max_us
    }
}

#[allow(clippy::cast_possible_truncation, reason = "fewer than 4,000 buckets")]
fn bucket(us: u64) -> usize {
    if us < SUB {
        return us as usize;
    }
    let shift = 63 - us.leading_zeros() - SUB_BITS;
    ((u64::from(shift) + 1) * SUB + (us >> shift) - SUB) as usize
}

fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = bucket / SUB - 1;
    let lower = u128::from(bucket % SUB + SUB) << shift;
    u64::try_from(lower + (1_u128 << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_a_hundred() {
        let mut q = Quantiles::default();
        assert_eq!(q.spread(), Spread::default());
        for us in 1..=100 {
            q.record(us, 1);
        }
        q.record(-5, 1);
        assert_eq!(q.spread(), Spread { count: 101, p50_us: 50, p99_us: 99, max_us: 100 });
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_value_within_its_width(us in any::<u64>()) {
            let upper = upper(bucket(us));
            prop_assert!(upper >= us);
            prop_assert!(upper - us <= us / SUB);
        }
    }
}
