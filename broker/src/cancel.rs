//! How a part is told to drain, and what it should catch up with.
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::{Offset, TopicPartition};

/// Set once, seen by every clone. A part that sees it finishes what is in hand, commits and returns.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<(Mutex<bool>, Condvar)>);

impl Cancel {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn cancel(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    pub fn is_cancelled(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for at most `timeout`; true as soon as it is cancelled.
    pub fn wait(&self, timeout: Duration) -> bool {
        let set = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, _) = self.0.1.wait_timeout_while(set, timeout, |set| !*set).unwrap_or_else(PoisonError::into_inner);
        *set
    }
}

/// Set by a part once it has looked at its positions and at what it wrote earlier, and may go on:
/// nothing is refused after it. A supervisor sends nothing before.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Where the topics end for the run at hand. A sink whose position has reached it on all of its
/// partitions flushes at once, instead of waiting for its files or batches to fill, and goes on.
#[derive(Clone, Debug, Default)]
pub struct Target(Arc<OnceLock<HashMap<TopicPartition, Offset>>>);

impl Target {
    pub fn new() -> Self {
        Self::default()
    }

    /// The first call counts.
    pub fn set(&self, ends: HashMap<TopicPartition, Offset>) {
        let _ = self.0.set(ends);
    }

    pub fn get(&self) -> Option<&HashMap<TopicPartition, Offset>> {
        self.0.get()
    }

    /// Whether the target is set and `position` is at or past it. A partition that it does not
    /// name has nothing to catch up with.
    pub fn reached(&self, partition: &TopicPartition, position: Offset) -> bool {
        self.get().is_some_and(|ends| ends.get(partition).is_none_or(|end| position >= *end))
    }
}
