//! One feed within one partition: its clock, its open sessions, and the sweep that closes them.
use std::hash::BuildHasher;

use broker::Offset;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use records::{EventTime, Feed, ShopEvent};

use super::expiry::{Expiry, Openings};
use super::session::OpenSession;
use super::{FeedPosition, Gap, Rules, Sink};

#[derive(Debug)]
pub(super) struct FeedState {
    pub(super) feed: Feed,
    /// Records before it are not replayed into this state.
    pub(super) replay_from: Offset,
    clock: EventTime,
    by_key: HashTable<Entry>,
    /// The slots; those that are free are in `free`.
    sessions: Vec<OpenSession>,
    free: Vec<u32>,
    expiry: Expiry,
    openings: Openings,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    slot: u32,
}

impl FeedState {
    pub(super) fn new(feed: Feed, clock: EventTime, replay_from: Offset) -> Self {
        Self {
            feed,
            replay_from,
            clock,
            by_key: HashTable::new(),
            sessions: Vec::new(),
            free: Vec::new(),
            expiry: Expiry::default(),
            openings: Openings::default(),
        }
    }

    pub(super) fn clock(&self) -> EventTime {
        self.clock
    }

    pub(super) fn open_sessions(&self) -> usize {
        self.by_key.len()
    }

    /// Moves the clock on, and closes what it has passed.
    pub(super) fn advance(&mut self, rules: &Rules, clock: EventTime, sink: &mut impl Sink) {
        if clock <= self.clock {
            return;
        }
        self.clock = clock;
        while let Some(slot) = self.expiry.pop(rules, clock, &self.sessions) {
            self.close(slot, sink);
        }
    }

    pub(super) fn event(
        &mut self,
        rules: &Rules,
        hasher: &RandomState,
        scratch: &mut Vec<u8>,
        offset: Offset,
        event: &ShopEvent<'_>,
        sink: &mut impl Sink,
    ) {
        let clock_before = self.clock;
        self.advance(rules, event.time, sink);
        let key = if event.user_session.is_empty() {
            event.session_key().write(scratch);
            std::str::from_utf8(scratch).unwrap_or_default()
        } else {
            event.user_session
        };
        let hash = hasher.hash_one(key);
        let sessions = &self.sessions;
        let same = |entry: &Entry| entry.hash == hash && sessions[entry.slot as usize].key() == key.as_bytes();
        let mut slot = self.by_key.find(hash, same).map(|entry| entry.slot);
        match slot {
            Some(open) if rules.splits(self.sessions[open as usize].last, event.time) => {
                self.close(open, sink);
                slot = None;
            }
            None if rules.late(event.time, self.clock) => sink.late(),
            _ => {}
        }
        let slot = match slot {
            Some(slot) => slot,
            None => match self.open(rules, key, hash, offset, clock_before, event) {
                Some(slot) => slot,
                None => return,
            },
        };
        self.sessions[slot as usize].add(event, sink);
    }

    /// Closes all, in the order in which they were opened.
    pub(super) fn end(mut self, sink: &mut impl Sink) {
        while let Some(slot) = self.openings.oldest(&self.sessions) {
            self.close(slot, sink);
        }
    }

    pub(super) fn position(&mut self, committed: Offset) -> FeedPosition {
        let (offset, clock) = match self.openings.oldest(&self.sessions) {
            Some(slot) => {
                let oldest = &self.sessions[slot as usize];
                (oldest.first_offset, oldest.clock_before)
            }
            None => (committed, self.clock),
        };
        FeedPosition { feed: self.feed, offset, clock }
    }

    /// None beyond 2^32 open sessions, for which there is no memory either.
    fn open(
        &mut self,
        rules: &Rules,
        key: &str,
        hash: u64,
        offset: Offset,
        clock_before: EventTime,
        event: &ShopEvent<'_>,
    ) -> Option<u32> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.sessions.len()).ok()?;
                self.sessions.push(OpenSession::free());
                slot
            }
        };
        self.sessions[slot as usize].open(key, hash, offset, clock_before, event);
        self.by_key.insert_unique(hash, Entry { hash, slot }, |entry| entry.hash);
        if rules.gap != Gap::None {
            self.expiry.push(event.time, offset, slot);
        }
        self.openings.push(offset, slot, self.by_key.len(), &self.sessions);
        Some(slot)
    }

    fn close(&mut self, slot: u32, sink: &mut impl Sink) {
        let session = &mut self.sessions[slot as usize];
        if let Ok(entry) = self.by_key.find_entry(session.hash, |entry| entry.slot == slot) {
            entry.remove();
        }
        session.close(self.feed.source, sink);
        self.free.push(slot);
    }
}
