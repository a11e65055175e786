//! How long to wait before what has failed is tried again, and how often it is.
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Waits that double up to the longest, for so many attempts in a row. Each is drawn from the upper
/// half, so that those who failed together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    attempts: u32,
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub const fn new(attempts: u32, first: Duration, longest: Duration) -> Self {
        Self { attempts, first, longest, failures: 0 }
    }

    /// After a failure: what to wait before the next attempt; None if there shall be none.
    pub fn wait(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.attempts {
            return None;
        }
        let wait = self.first.saturating_mul(2_u32.saturating_pow(self.failures - 1)).min(self.longest);
        let share = u32::try_from(RandomState::new().hash_one(self.failures) % 512).unwrap_or_default();
        Some(wait / 2 + wait * share / 1024)
    }

    /// In a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// It went through.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_differ_and_end() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(2));
        let waits = || {
            let mut backoff = Backoff::new(9, first, longest);
            let waits: Vec<_> = std::iter::from_fn(|| backoff.wait()).collect();
            assert_eq!(backoff.failures(), 9);
            backoff.reset();
            assert!(backoff.failures() == 0 && backoff.wait().is_some());
            waits
        };
        let found = waits();
        for (wait, most_ms) in found.iter().zip([50, 100, 200, 400, 800, 1600, 2000, 2000]) {
            let most = Duration::from_millis(most_ms);
            assert!((most / 2..=most).contains(wait), "{found:?}");
        }
        assert_eq!(found.len(), 8);
        assert_ne!(found, waits(), "with jitter");
    }
}
