//! Rows held until it is known how many belong together: those of one second, which are spread over
//! it, or those of a stretch, which change places.
use records::EventTime;

use crate::course::Upcoming;
use crate::disorder::Disorder;
use crate::row::Row;
use crate::rows::{Bad, Good, Passed};
use crate::schedule::Schedule;

/// What may be held; a second or stretch that has more is sent in parts.
const MAX_ROWS: usize = 65_536;
const MAX_BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
pub(crate) struct Held {
    text: Vec<u8>,
    rows: Vec<HeldRow>,
    /// In the order of sending.
    entries: Vec<Entry>,
    /// The event time of the first good row, and the greatest one.
    first: Option<EventTime>,
    time: Option<EventTime>,
}

#[derive(Debug)]
struct HeldRow {
    from: usize,
    to: usize,
    length: u64,
    passed: Passed,
    own: bool,
    times: u32,
    damaged: bool,
    row: Result<Row, String>,
    schedule_us: i64,
}

/// A row, or a copy of it, and the place that it takes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    row: usize,
    copy: u32,
    upcoming: Upcoming,
    moved: bool,
    /// With this entry, all up to here has been sent.
    passed: Option<Passed>,
}

/// One of them, to be sent.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) length: u64,
    pub(crate) row: &'a Result<Row, String>,
    pub(crate) at: Passed,
    pub(crate) own: bool,
    pub(crate) damaged: bool,
    pub(crate) copy: u32,
    pub(crate) upcoming: Upcoming,
    pub(crate) moved: bool,
    pub(crate) passed: Option<Passed>,
}

impl Held {
    pub(crate) fn push(&mut self, good: &Good<'_>) {
        self.first = self.first.or(Some(good.row.time));
        self.time = self.time.max(Some(good.row.time));
        let Good { text, row, passed, own, times } = *good;
        self.add(text.as_bytes(), text.len() as u64, passed, own, times, false, Ok(row));
    }

    pub(crate) fn push_bad(&mut self, bad: Bad<'_>) {
        self.add(bad.text, bad.length, bad.passed, bad.own, 1, bad.damaged, Err(bad.reason));
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a row")]
    fn add(
        &mut self,
        text: &[u8],
        length: u64,
        passed: Passed,
        own: bool,
        times: u32,
        damaged: bool,
        row: Result<Row, String>,
    ) {
        let from = self.text.len();
        self.text.extend_from_slice(text);
        let to = self.text.len();
        self.rows.push(HeldRow { from, to, length, passed, own, times, damaged, row, schedule_us: 0 });
    }

    pub(crate) fn first(&self) -> Option<EventTime> {
        self.first
    }

    pub(crate) fn time(&self) -> Option<EventTime> {
        self.time
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= MAX_ROWS || self.text.len() >= MAX_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Gives every row its place in the schedule, and where rows change places, another row to each
    /// place. `clock` is the greatest event time before them; `whole` when no more of their last second
    /// are known to come.
    pub(crate) fn lay_out(
        &mut self,
        schedule: &mut Schedule,
        clock: &mut Option<EventTime>,
        disorder: &Disorder,
        whole: bool,
    ) {
        let mut from = 0;
        for i in 0..self.rows.len() {
            let time = self.rows[i].row.as_ref().ok().map(|row| row.time);
            if time > *clock {
                self.place(schedule, *clock, from..i, true);
                (from, *clock) = (i, time);
            }
        }
        self.place(schedule, *clock, from..self.rows.len(), whole);
        self.entries.clear();
        for (row, held) in self.rows.iter().enumerate() {
            let upcoming = Upcoming { schedule_us: held.schedule_us, number: held.passed.taken.saturating_sub(1) };
            for copy in 0..held.times {
                let passed = (copy + 1 == held.times).then_some(held.passed);
                self.entries.push(Entry { row, copy, upcoming, moved: false, passed });
            }
        }
        if disorder.shuffle.is_some() {
            self.shuffle(disorder);
        }
    }

    fn place(&mut self, schedule: &mut Schedule, clock: Option<EventTime>, rows: std::ops::Range<usize>, whole: bool) {
        // Rows before the first good one have no time: they are sent at once.
        let Some(clock) = clock.filter(|_| !rows.is_empty()) else { return };
        let spread = schedule.place(clock, rows.len(), whole);
        for (i, row) in self.rows[rows].iter_mut().enumerate() {
            row.schedule_us = spread.at(i);
        }
    }

    /// The places stay, the rows in them change: so the load is as it was.
    fn shuffle(&mut self, disorder: &Disorder) {
        let Self { rows, entries, .. } = self;
        let mut order: Vec<(usize, u32)> = entries.iter().map(|entry| (entry.row, entry.copy)).collect();
        disorder.shuffle(&mut order, |(row, copy)| (rows[*row].passed.place.source_row, *copy));
        for (entry, (row, copy)) in entries.iter_mut().zip(order) {
            entry.moved = entry.row != row;
            (entry.row, entry.copy, entry.passed) = (row, copy, None);
        }
        if let (Some(last), Some(row)) = (entries.last_mut(), rows.last()) {
            last.passed = Some(row.passed);
        }
    }

    /// In the order of sending, after `lay_out`.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Taken<'_>> {
        self.entries.iter().map(|entry| {
            let row = &self.rows[entry.row];
            Taken {
                text: &self.text[row.from..row.to],
                length: row.length,
                row: &row.row,
                at: row.passed,
                own: row.own,
                damaged: row.damaged,
                copy: entry.copy,
                upcoming: entry.upcoming,
                moved: entry.moved,
                passed: entry.passed,
            }
        })
    }

    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
        self.entries.clear();
        (self.first, self.time) = (None, None);
    }
}
