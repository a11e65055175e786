//! How long what does not answer is tried: again and again, less and less often.
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// At a start.
pub(crate) const TRIED_FOR: Duration = Duration::from_secs(120);

/// Pure: the time is an argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// None: for ever.
    until: Option<Instant>,
    wait: Duration,
    is_new: bool,
}

impl Patience {
    pub(crate) fn new(now: Instant) -> Self {
        Self { until: Some(now + TRIED_FOR), ..Self::endless() }
    }

    pub(crate) fn endless() -> Self {
        Self { until: None, wait: FIRST_WAIT, is_new: true }
    }

    /// What to wait before the next attempt; None if there shall be none.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<Duration> {
        if self.until.is_some_and(|until| now >= until) {
            return None;
        }
        // A half to the whole of it, so that those who failed together do not come back together.
        let share = u32::try_from(RandomState::new().hash_one(now) % 512).unwrap_or_default();
        let wait = self.wait / 2 + self.wait * share / 1024;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Some(wait)
    }

    /// True once: what is wrong is said once, not with each attempt.
    pub(crate) fn is_first(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let begun = records::clock::now();
        let (mut patience, mut now, mut waits) = (Patience::new(begun), begun, Vec::new());
        while let Some(wait) = patience.wait(now) {
            assert!(wait <= LONGEST_WAIT);
            waits.push(wait);
            now += wait.max(Duration::from_millis(1));
        }
        assert!(now - begun >= TRIED_FOR && now - begun < TRIED_FOR + LONGEST_WAIT);
        assert!(waits[0] < FIRST_WAIT && waits.len() < 80, "{waits:?}");
        assert!(patience.is_first() && !patience.is_first());
        let mut endless = Patience::endless();
        assert!((0..100).all(|_| endless.wait(now + 100 * TRIED_FOR).is_some_and(|wait| wait <= LONGEST_WAIT)));
    }
}
