//! Rows held until it is known how many belong together: those of one second, which are spread over
//! it, or those of a stretch, which change places.
use records::EventTime;

use crate::disorder::Disorder;
use crate::row::Row;
use crate::rows::{Bad, Good, Passed};
use crate::schedule::{Point, Schedule};

/// What may be held; a second or stretch that has more is sent in parts.
const MAX_ROWS: usize = 65_536;
const MAX_BYTES: usize = 16 << 20;
/// By so many rows that follow it is judged whether a row's time is far ahead.
const LOOK_AHEAD: usize = 7;

#[derive(Debug, Default)]
pub(crate) struct Held {
    text: Vec<u8>,
    rows: Vec<HeldRow>,
    /// In the order of sending.
    entries: Vec<Entry>,
    /// How many rows have been judged: whether their time counts.
    judged: usize,
    /// Of those that count: the first one's time, and the greatest one, or what it was before them.
    first: Option<EventTime>,
    clock: Option<EventTime>,
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
    /// Its time is far ahead of those that follow, and moves nothing on.
    ahead: bool,
    schedule: Point,
}

/// A row, or a copy of it, and the place that it takes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    row: usize,
    copy: u32,
    number: u64,
    schedule: Point,
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
    /// Of the row whose place it takes.
    pub(crate) number: u64,
    pub(crate) schedule: Point,
    pub(crate) moved: bool,
    pub(crate) passed: Option<Passed>,
}

impl Held {
    pub(crate) fn push(&mut self, good: &Good<'_>) {
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
        let schedule = Point::default();
        self.rows.push(HeldRow { from, to, length, passed, own, times, damaged, row, ahead: false, schedule });
    }

    /// What is held is judged from its beginning, after rows that came to `clock`. Where stretches are
    /// shuffled that is not told: where they are cut must be seen from their own rows, since a resume
    /// knows no others.
    pub(crate) fn begin(&mut self, clock: Option<EventTime>) {
        (self.judged, self.first, self.clock) = (0, None, clock);
    }

    /// How many rows belong together, once a row shows it that belongs to what follows. `all` says that
    /// nothing more is known to come.
    pub(crate) fn whole(&mut self, disorder: &Disorder, all: bool) -> Option<usize> {
        while let Some(held) = self.rows.get(self.judged) {
            let at = self.judged;
            if let Ok(Row { time, .. }) = held.row
                && self.clock < Some(time)
            {
                let following = &self.rows[at + 1..];
                if following.len() < LOOK_AHEAD && !all {
                    return None;
                }
                let ahead = is_ahead(time, self.clock, following);
                self.rows[at].ahead = ahead;
                if !ahead {
                    let over = match self.first.and_then(|first| disorder.stretch_end(first)) {
                        Some(end) => time >= end,
                        None => disorder.shuffle.is_none() && self.clock.is_some(),
                    };
                    if over && at > 0 {
                        return Some(at);
                    }
                    self.first.get_or_insert(time);
                    self.clock = Some(time);
                }
            }
            self.judged += 1;
        }
        None
    }

    /// How many rows go out though more of the same may follow, where no more can be held.
    pub(crate) fn full(&self) -> Option<usize> {
        let full = self.judged >= MAX_ROWS || self.text.len() >= MAX_BYTES;
        full.then_some(self.judged.clamp(1, MAX_ROWS))
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Gives each of the first `n` rows its place in the schedule, and where rows change places, another
    /// row to each place. `clock` is what the schedule had come to before them; `whole` when no more of
    /// their last second are known to come.
    pub(crate) fn lay_out(
        &mut self,
        schedule: &mut Schedule,
        clock: &mut Option<EventTime>,
        disorder: &Disorder,
        n: usize,
        whole: bool,
    ) {
        let time = |held: &HeldRow| held.row.as_ref().ok().map(|row| row.time);
        // Those that are far ahead at the source's very beginning go with the first that is not.
        let first = self.rows[..n].iter().position(|held| held.row.is_ok()).unwrap_or(n);
        let (begins, mut from) = (clock.is_none(), 0);
        for i in 0..n {
            let held = &self.rows[i];
            let counts = time(held).filter(|_| !held.ahead);
            if counts > *clock {
                self.place(schedule, *clock, from..i, true);
                from = if clock.is_some() { i } else { first };
                *clock = counts;
            }
        }
        if clock.is_none() {
            (from, *clock) = (first, self.rows[..n].iter().filter_map(time).min());
        }
        self.place(schedule, *clock, from..n, whole);
        // Bad rows before the first good one have no time; that one's place, should another row take theirs.
        if begins && let Some(schedule) = self.rows[..n].get(first).map(|held| held.schedule) {
            self.rows[..first].iter_mut().for_each(|held| held.schedule = schedule);
        }
        self.entries.clear();
        for (row, held) in self.rows[..n].iter().enumerate() {
            let (number, schedule) = (held.passed.taken.saturating_sub(1), held.schedule);
            for copy in 0..held.times {
                let passed = (copy + 1 == held.times).then_some(held.passed);
                self.entries.push(Entry { row, copy, number, schedule, moved: false, passed });
            }
        }
        if disorder.shuffle.is_some() {
            self.shuffle(disorder, n);
        }
    }

    fn place(&mut self, schedule: &mut Schedule, clock: Option<EventTime>, rows: std::ops::Range<usize>, whole: bool) {
        // Rows before the first good one have no time: they are sent at once.
        let Some(clock) = clock.filter(|_| !rows.is_empty()) else { return };
        let spread = schedule.place(clock, rows.len(), whole);
        for (i, row) in self.rows[rows].iter_mut().enumerate() {
            row.schedule = Point { us: spread.at(i), clock };
        }
    }

    /// The places stay, the rows in them change: so the load is as it was.
    fn shuffle(&mut self, disorder: &Disorder, n: usize) {
        let Self { rows, entries, .. } = self;
        let mut order: Vec<(usize, u32)> = entries.iter().map(|entry| (entry.row, entry.copy)).collect();
        disorder.shuffle(&mut order, |(row, copy)| (rows[*row].passed.place.source_row, *copy));
        for (entry, (row, copy)) in entries.iter_mut().zip(order) {
            entry.moved = entry.row != row;
            (entry.row, entry.copy, entry.passed) = (row, copy, None);
        }
        if let (Some(last), Some(row)) = (entries.last_mut(), rows[..n].last()) {
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
                number: entry.number,
                schedule: entry.schedule,
                moved: entry.moved,
                passed: entry.passed,
            }
        })
    }

    /// The first `n` rows were sent.
    pub(crate) fn drop_front(&mut self, n: usize) {
        self.entries.clear();
        self.rows.drain(..n);
        let sent = self.rows.first().map_or(self.text.len(), |row| row.from);
        self.text.drain(..sent);
        for row in &mut self.rows {
            (row.from, row.to) = (row.from - sent, row.to - sent);
        }
    }
}

/// Whether a row's time is far ahead: of the rows that follow and are not late themselves, more come
/// before it than after.
fn is_ahead(time: EventTime, clock: Option<EventTime>, following: &[HeldRow]) -> bool {
    let times = following.iter().take(LOOK_AHEAD).filter_map(|held| held.row.as_ref().ok().map(|row| row.time));
    let (mut before, mut after) = (0, 0);
    for other in times.filter(|other| clock <= Some(*other)) {
        *(if other < time { &mut before } else { &mut after }) += 1;
    }
    before > after
}
