//! The rows in order of time. Sessions overlap, so those that are open lie in a heap by the time of
//! their next event: memory is that of the open sessions.
//!
//! The month is cut into slices of equal numbers of rows. A slice's sessions depend on the seed and
//! the slice's number alone, and no ordinary session is longer than `SPAN`: so the state at any row
//! is had by playing the slices before it that may still be open, not all that lies before.
//!
//! What a session has left when the month ends opens the month, as a session of its own: the first
//! hours have their share of sessions that are under way, and the rows are exactly as many as asked.
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::model::Model;
use super::session::{Kind, RETURNING, Session, Start};

/// Rows of a slice.
const SLICE_ROWS: u64 = 16_384;
/// Sessions of a slice are numbered in so many bits, slices in those that a second leaves.
const SESSION_BITS: u32 = 20;
const ORDINAL_BITS: u32 = 42;
/// A month has 2^22 seconds at the most.
pub(super) const MOST_ROWS: u64 = SLICE_ROWS << (ORDINAL_BITS - SESSION_BITS);
/// Makes another id of a session that is played in two parts.
const SECOND_PART: u64 = 0x9E37_79B9_7F4A_7C14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// From the beginning of the month.
    pub(super) second: u32,
    pub(super) kind: Kind,
    /// Of the model's products.
    pub(super) product: u32,
    pub(super) user: u32,
    /// What the id is made of; 0 is none.
    pub(super) session: u64,
    /// No row of this session follows.
    pub(super) last: bool,
}

pub(super) struct Rows {
    model: Arc<Model>,
    seed: u64,
    rows: u64,
    slices: u64,
    /// The slice whose sessions are begun, and those that are not yet.
    slice: u64,
    starts: std::iter::Peekable<std::vec::IntoIter<Start>>,
    open: Vec<Session>,
    free: Vec<u32>,
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    /// What the last sessions of the month leave, which opens it.
    left_over: Vec<Session>,
    given: u64,
}

impl Rows {
    pub(super) fn new(model: Arc<Model>, rows: u64, seed: u64) -> Self {
        let slices = (rows / SLICE_ROWS).max(1);
        let mut new = Self {
            model,
            seed,
            rows,
            slices,
            slice: 0,
            starts: Vec::new().into_iter().peekable(),
            open: Vec::new(),
            free: Vec::new(),
            heap: BinaryHeap::new(),
            left_over: Vec::new(),
            given: 0,
        };
        new.left_over = new.left_over();
        new.enter(0);
        new
    }

    /// Rows that lie before the next one.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Goes to where `row` rows lie before.
    pub(super) fn seek(&mut self, row: u64) {
        let row = row.min(self.rows);
        let slice = u128::from(row) * u128::from(self.slices) / u128::from(self.rows.max(1));
        // The rows that the sessions before a slice have in all are at least those that lie before it.
        let mut slice = u64::try_from(slice).unwrap_or(u64::MAX).min(self.slices - 1);
        while slice > 0 && self.planned(slice) + self.left_over_rows() > row {
            slice -= 1;
        }
        self.enter(slice);
        while self.given < row && self.next().is_some() {}
    }

    fn left_over_rows(&self) -> u64 {
        self.left_over.iter().map(|session| u64::from(session.left)).sum()
    }

    /// Rows of the sessions that begin before a slice.
    fn planned(&self, slice: u64) -> u64 {
        let rows = u128::from(self.rows) * u128::from(slice) / u128::from(self.slices);
        u64::try_from(rows).unwrap_or(u64::MAX)
    }

    /// To the first second of a slice's first session.
    fn enter(&mut self, slice: u64) {
        self.open.clear();
        self.free.clear();
        self.heap.clear();
        self.slice = slice;
        let starts = self.starts_of(slice);
        let second = if slice == 0 { 0 } else { starts.first().map_or(0, |start| start.second) };
        self.starts = starts.into_iter().peekable();
        self.given = self.planned(slice);
        for mut session in self.left_over.clone() {
            self.given += session.forward(second, &self.model);
            self.push(session);
        }
        let month = self.model.calendar.seconds();
        for before in 0..slice {
            for start in self.starts_of(before) {
                if start.over(month) > second {
                    let mut session = Session::begin(&start, &self.model);
                    session.forward(second, &self.model);
                    self.given -= u64::from(session.left);
                    self.push(session);
                }
            }
        }
    }

    fn left_over(&self) -> Vec<Session> {
        let month = self.model.calendar.seconds();
        let mut left_over = Vec::new();
        for slice in (0..self.slices).rev() {
            let starts = self.starts_of(slice);
            for start in &starts {
                if !start.plays_on() && start.over(month) > month {
                    let mut session = Session::begin(start, &self.model);
                    session.forward(month, &self.model);
                    if session.left > 0 {
                        session.second -= month;
                        session.id ^= if session.id == 0 { 0 } else { SECOND_PART };
                        session.end_with(month - 1);
                        left_over.push(session);
                    }
                }
            }
            if starts.first().is_some_and(|start| start.second + super::session::SPAN < month) {
                break;
            }
        }
        left_over
    }

    /// A slice's sessions in order of their starts.
    #[allow(clippy::cast_precision_loss, reason = "shares of a month")]
    fn starts_of(&self, slice: u64) -> Vec<Start> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed.rotate_left(24) ^ slice.wrapping_mul(SECOND_PART));
        let mut room = self.planned(slice + 1) - self.planned(slice);
        let mut starts = Vec::with_capacity(usize::try_from(room / 4).unwrap_or_default());
        while room > 0 {
            let length = u64::from(self.model.lengths.draw(&mut rng)).min(room);
            room -= length;
            starts.push(Start {
                seed: rng.random(),
                ordinal: (slice << SESSION_BITS) + starts.len() as u64,
                second: 0,
                length: u32::try_from(length).unwrap_or(u32::MAX),
                returns: length > 1 && rng.random_bool(RETURNING),
            });
        }
        let (mut hour, sessions) = (0, starts.len() as f64);
        for (i, start) in starts.iter_mut().enumerate() {
            let share = (slice as f64 + (i as f64 + rng.random::<f64>()) / sessions) / self.slices as f64;
            start.second = self.model.calendar.second(share, &mut hour);
        }
        starts
    }

    fn push(&mut self, session: Session) {
        if session.left == 0 {
            return;
        }
        let key = key(session.second, session.ordinal);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.open[slot as usize] = session;
                slot
            }
            None => {
                self.open.push(session);
                u32::try_from(self.open.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.heap.push(Reverse((key, slot)));
    }

    /// The next session that has not begun.
    fn upcoming(&mut self) -> Option<u64> {
        while self.starts.peek().is_none() && self.slice + 1 < self.slices {
            self.slice += 1;
            self.starts = self.starts_of(self.slice).into_iter().peekable();
        }
        self.starts.peek().map(|start| key(start.second, start.ordinal))
    }
}

/// Order by time, then by session.
fn key(second: u32, ordinal: u64) -> u64 {
    u64::from(second) << ORDINAL_BITS | ordinal
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.given >= self.rows {
            return None;
        }
        while let Some(upcoming) = self.upcoming() {
            if self.heap.peek().is_some_and(|Reverse((open, _))| *open < upcoming) {
                break;
            }
            if let Some(start) = self.starts.next() {
                let session = Session::begin(&start, &self.model);
                self.push(session);
            }
        }
        let mut top = self.heap.peek_mut()?;
        let Reverse((_, slot)) = *top;
        let session = &mut self.open[slot as usize];
        let (second, id) = (session.second, session.id);
        let (kind, product) = session.step(&self.model);
        // The rest of a session that the month's end cuts has opened it.
        let last = session.left == 0 || session.second >= self.model.calendar.seconds();
        let user = session.user;
        if last {
            self.free.push(slot);
            std::collections::binary_heap::PeekMut::pop(top);
        } else {
            *top = Reverse((key(session.second, session.ordinal), slot));
        }
        self.given += 1;
        Some(Row { second, kind, product, user, session: id, last })
    }
}

#[cfg(test)]
mod tests {
    use super::super::calendar::Month;
    use super::super::facts::Facts;
    use super::*;

    fn model(rows: u64) -> Arc<Model> {
        Arc::new(Model::new(Month { year: 2019, month: 11 }, rows, &Facts::load()))
    }

    #[test]
    fn as_many_rows_as_asked_in_order_of_time_the_same_each_time() {
        let model = model(50_000);
        for rows in [0, 1, 2, 17, 1_000, 50_000] {
            let made: Vec<Row> = Rows::new(Arc::clone(&model), rows, 7).collect();
            assert_eq!(made.len() as u64, rows);
            assert!(made.is_sorted_by_key(|row| row.second));
            assert!(made.last().is_none_or(|row| row.second < 30 * 86_400));
            assert!(made.iter().eq(&Rows::new(Arc::clone(&model), rows, 7).collect::<Vec<_>>()));
        }
        let of = |seed| Rows::new(Arc::clone(&model), 1_000, seed).collect::<Vec<_>>();
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn a_session_ends_once() {
        let model = model(100_000);
        let mut ended = std::collections::HashSet::new();
        for row in Rows::new(model, 100_000, 3).filter(|row| row.session != 0) {
            assert!(!ended.contains(&row.session), "{row:?} follows its session's last");
            if row.last {
                ended.insert(row.session);
            }
        }
        assert!(ended.len() > 15_000, "{}", ended.len());
    }

    #[test]
    fn going_to_a_row_is_reading_up_to_it() {
        let rows = 200_000;
        let model = model(rows);
        let all: Vec<Row> = Rows::new(Arc::clone(&model), rows, 7).collect();
        for at in [0, 1, 5_000, 16_383, 16_384, 16_385, 99_999, 150_000, 196_608, rows - 1, rows, rows + 5] {
            let mut made = Rows::new(Arc::clone(&model), rows, 7);
            made.seek(at);
            let rest: Vec<Row> = made.collect();
            let expected = &all[usize::try_from(at.min(rows)).unwrap()..];
            assert_eq!(rest.len(), expected.len(), "from {at}");
            assert!(rest == expected, "from {at}");
        }
    }
}
