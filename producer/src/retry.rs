//! How long to wait before something is done again, and how often.
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use broker::Cancel;

use crate::error::{Error, Result};

const ATTEMPTS: u32 = 8;
const FIRST_WAIT_MS: u64 = 20;

/// Doubles from 20 ms to 2.5 s, each less up to a half of it; then gives up.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

/// Tries until it succeeds, or fails for good.
pub(crate) fn patiently<T>(cancel: &Cancel, attempt: impl Fn() -> Result<T>) -> Result<T> {
    let mut backoff = Backoff::default();
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => backoff.wait(error, cancel)?,
        }
    }
}

impl Backoff {
    /// Waits if `error` may pass; otherwise, or when it has not passed for too long, returns it.
    pub(crate) fn wait(&mut self, error: Error, cancel: &Cancel) -> Result<()> {
        // A fenced writer may have no rival: its broker gave up on it. How far the feed has come tells.
        let may_pass =
            matches!(error, Error::Fenced(_) | Error::Broker(broker::Error::Retry(_) | broker::Error::Abort(_)));
        if !may_pass {
            return Err(error);
        }
        self.failures += 1;
        if self.failures >= ATTEMPTS {
            return Err(match error {
                Error::Broker(source) => Error::Retried { attempts: self.failures, source },
                fenced => fenced,
            });
        }
        let wait_ms = FIRST_WAIT_MS << self.failures.min(7);
        let jitter = std::hash::RandomState::new().build_hasher().finish() % (wait_ms / 2 + 1);
        match self.failures {
            1 => tracing::warn!(%error, "the broker did not take it; trying again"),
            attempt => tracing::debug!(%error, attempt, "the broker did not take it; trying again"),
        }
        if cancel.wait(Duration::from_millis(wait_ms - jitter)) {
            return Err(Error::Broker(broker::Error::Cancelled));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_attempt_says_that_it_was_the_last() {
        let mut backoff = Backoff { failures: ATTEMPTS - 1 };
        let given_up = backoff.wait(broker::Error::Retry("no answer".into()).into(), &Cancel::new());
        let why = given_up.unwrap_err().to_string();
        assert!(why.contains("after 8 attempts") && why.contains("goes on") && why.ends_with("no answer"), "{why}");
        let stopped = Backoff::default().wait(broker::Error::Stop("no topic".into()).into(), &Cancel::new());
        assert_eq!(stopped.unwrap_err().to_string(), "no topic");
    }
}
