//! Which open session falls due first, and which was opened first.
//!
//! Both are lazy: an entry is put right or thrown away when it comes to the front, so that an
//! event of an open session costs nothing here. A session is known by its slot and the offset of
//! its first event, which no other session of the feed shares.
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::collections::binary_heap::{BinaryHeap, PeekMut};

use broker::Offset;
use records::EventTime;

use super::Rules;
use super::session::OpenSession;

/// Open sessions by their greatest time, or an earlier state of it.
#[derive(Debug, Default)]
pub(super) struct Expiry(BinaryHeap<Reverse<(EventTime, Offset, u32)>>);

impl Expiry {
    pub(super) fn push(&mut self, last: EventTime, first_offset: Offset, slot: u32) {
        self.0.push(Reverse((last, first_offset, slot)));
    }

    /// The next session to close at `clock`: by greatest time, then by first offset, whatever
    /// became of it before. So the order does not depend on where reading began.
    pub(super) fn pop(&mut self, rules: &Rules, clock: EventTime, sessions: &[OpenSession]) -> Option<u32> {
        loop {
            let mut top = self.0.peek_mut()?;
            let Reverse((last, first_offset, slot)) = *top;
            if !rules.closes(last, clock) {
                return None;
            }
            match sessions.get(slot as usize) {
                Some(session) if session.first_offset == first_offset => {
                    if session.last == last {
                        PeekMut::pop(top);
                        return Some(slot);
                    }
                    *top = Reverse((session.last, first_offset, slot));
                }
                // Closed before it fell due.
                _ => drop(PeekMut::pop(top)),
            }
        }
    }
}

/// Sessions in the order in which they were opened.
#[derive(Debug, Default)]
pub(super) struct Openings(VecDeque<(Offset, u32)>);

impl Openings {
    pub(super) fn push(&mut self, first_offset: Offset, slot: u32, open: usize, sessions: &[OpenSession]) {
        // One old session must not keep the entries of all the closed ones behind it.
        if self.0.len() > 64 + 2 * open {
            self.0.retain(|(offset, slot)| is_open(*offset, *slot, sessions));
        }
        self.0.push_back((first_offset, slot));
    }

    /// The slot of the oldest open session.
    pub(super) fn oldest(&mut self, sessions: &[OpenSession]) -> Option<u32> {
        while let Some((offset, slot)) = self.0.front() {
            if is_open(*offset, *slot, sessions) {
                return Some(*slot);
            }
            self.0.pop_front();
        }
        None
    }
}

fn is_open(first_offset: Offset, slot: u32, sessions: &[OpenSession]) -> bool {
    sessions.get(slot as usize).is_some_and(|session| session.first_offset == first_offset)
}
