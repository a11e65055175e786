//! One partition's sessions, pure: records in, funnel steps and closed sessions out.
//!
//! It knows neither clock nor broker: the time is the feed's, and moves with its records. What it
//! has to remember over a restart is [`Partition::positions`]; [`Partition::resume`] and
//! [`Partition::replay`] make the same state again from the log.
mod expiry;
mod feeds;
mod products;
mod rules;
mod session;
#[cfg(test)]
mod tests;

use broker::Offset;
use foldhash::fast::RandomState;
use records::{EventTime, EventsRecord, Feed, FunnelStep, Session};

use feeds::FeedState;
pub use rules::{Gap, Rules};
pub(crate) use rules::{Typed, micros};

/// Where the outputs go. `key` is the session key: the key of the records to be written.
pub trait Sink {
    fn step(&mut self, key: &str, step: &FunnelStep<'_>);

    /// A closed session, or a further part of the list of what it left in the cart.
    fn session(&mut self, key: &str, session: &Session<'_>);

    /// An event began a session although it is older than its feed's clock by more than the
    /// allowed lateness: a session that it belongs to may have been closed before it came.
    /// Where there was none, the outputs are those of a batch.
    fn late(&mut self);

    /// The feed has ended; all of its sessions here are closed.
    fn ended(&mut self, feed: Feed);
}

/// Where to read a feed again from, and its clock just before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedPosition {
    pub feed: Feed,
    pub offset: Offset,
    pub clock: EventTime,
}

/// The state of one partition.
#[derive(Debug)]
pub struct Partition {
    rules: Rules,
    hasher: RandomState,
    /// Unfinished ones: few, for a commit's metadata has to hold them all.
    feeds: Vec<FeedState>,
    /// The one that the last record belonged to.
    current: usize,
    /// Holds the key of an event without a session.
    key: Vec<u8>,
}

impl Partition {
    pub fn new(rules: Rules) -> Self {
        Self { rules, hasher: RandomState::default(), feeds: Vec::new(), current: 0, key: Vec::new() }
    }

    /// The state to [`replay`](Self::replay) into, from what [`positions`](Self::positions) said.
    pub fn resume(rules: Rules, positions: &[FeedPosition]) -> Self {
        let feeds = positions.iter().map(|p| FeedState::new(p.feed, p.clock, p.offset)).collect();
        Self { feeds, ..Self::new(rules) }
    }

    /// Takes in a record that was not committed yet.
    pub fn apply(&mut self, offset: Offset, record: &EventsRecord<'_>, sink: &mut impl Sink) {
        match record {
            EventsRecord::Event(event) => {
                let at = self.feed(event.feed);
                self.feeds[at].event(&self.rules, &self.hasher, &mut self.key, offset, event, sink);
            }
            EventsRecord::Watermark(mark) => {
                let at = self.feed(mark.feed);
                self.feeds[at].advance(&self.rules, mark.clock, sink);
            }
            EventsRecord::End(mark) => {
                if let Some(at) = self.find(mark.feed) {
                    self.feeds.swap_remove(at).end(sink);
                }
                sink.ended(mark.feed);
            }
        }
    }

    /// Takes in, after `resume`, a record before the committed offset: read from the least of the
    /// positions on. Its outputs have been written already.
    pub fn replay(&mut self, offset: Offset, record: &EventsRecord<'_>) {
        let feed = match record {
            EventsRecord::Event(event) => event.feed,
            EventsRecord::Watermark(mark) | EventsRecord::End(mark) => mark.feed,
        };
        // A feed without a position had ended by then.
        if self.find(feed).is_some_and(|at| offset >= self.feeds[at].replay_from) {
            self.apply(offset, record, &mut Silent);
        }
    }

    /// What a commit of `committed` has to remember, a position for each unfinished feed.
    pub fn positions(&mut self, committed: Offset) -> Vec<FeedPosition> {
        self.feeds.iter_mut().map(|feed| feed.position(committed)).collect()
    }

    pub fn open_sessions(&self) -> usize {
        self.feeds.iter().map(FeedState::open_sessions).sum()
    }

    /// The furthest clock of its unfinished feeds.
    pub fn clock(&self) -> Option<EventTime> {
        self.feeds.iter().map(FeedState::clock).max()
    }

    fn find(&mut self, feed: Feed) -> Option<usize> {
        if self.feeds.get(self.current).is_some_and(|at| at.feed == feed) {
            return Some(self.current);
        }
        self.current = self.feeds.iter().position(|at| at.feed == feed)?;
        Some(self.current)
    }

    fn feed(&mut self, feed: Feed) -> usize {
        self.find(feed).unwrap_or_else(|| {
            self.feeds.push(FeedState::new(feed, EventTime(i64::MIN), Offset(0)));
            self.current = self.feeds.len() - 1;
            self.current
        })
    }
}

/// Swallows what was written before.
struct Silent;

impl Sink for Silent {
    fn step(&mut self, _: &str, _: &FunnelStep<'_>) {}
    fn session(&mut self, _: &str, _: &Session<'_>) {}
    fn late(&mut self) {}
    fn ended(&mut self, _: Feed) {}
}
