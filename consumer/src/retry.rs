//! How long something that may go through later is tried. Pure: the time is an argument.
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    deadline: Instant,
    grace: Duration,
    draining: bool,
    pause: Duration,
    failures: u32,
}

impl Backoff {
    /// Until `retry_for` after `now`, and once a drain is asked for not beyond `grace` from then.
    pub(crate) fn new(now: Instant, retry_for: Duration, grace: Duration) -> Self {
        Self { deadline: now + retry_for, grace, draining: false, pause: FIRST_PAUSE, failures: 0 }
    }

    /// What to wait before the next attempt; None if there shall be none.
    pub(crate) fn pause(&mut self, now: Instant, draining: bool) -> Option<Duration> {
        self.failures += 1;
        if draining && !self.draining {
            self.draining = true;
            self.deadline = self.deadline.min(now + self.grace);
        }
        let left = self.deadline.checked_duration_since(now).filter(|left| !left.is_zero())?;
        // A half to the whole of it, so that those who failed together do not come back together.
        let jitter = u32::try_from(RandomState::new().hash_one(now) % 512).unwrap_or_default();
        let pause = self.pause / 2 + self.pause * jitter / 1024;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(pause.min(left))
    }

    /// Whether what failed last was the first: it is said once, not with each attempt.
    pub(crate) fn is_first(&self) -> bool {
        self.failures == 1
    }

    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut now = records::clock::now();
        let start = now;
        let (long, grace) = (Duration::from_secs(60), Duration::from_secs(5));
        let mut backoff = Backoff::new(now, long, grace);
        let mut pauses = Vec::new();
        while let Some(pause) = backoff.pause(now, false) {
            pauses.push(pause);
            now += pause;
        }
        assert_eq!(now - start, long);
        assert!(pauses[0] >= FIRST_PAUSE / 2 && pauses.iter().all(|pause| *pause <= LONGEST_PAUSE), "{pauses:?}");
        assert!(pauses.len() < 40, "{pauses:?}");

        let mut backoff = Backoff::new(start, long, grace);
        assert!(backoff.pause(start, true).is_some());
        assert!(backoff.pause(start + grace / 2, true).is_some());
        assert_eq!(backoff.pause(start + grace, true), None, "a drain does not begin anew with each attempt");
    }
}
