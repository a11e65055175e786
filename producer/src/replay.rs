//! Rows to their turns: as they come where only their number counts, a second or a stretch at a time
//! where their times or their order do.
use std::time::Duration;

use crate::course::Upcoming;
use crate::error::Result;
use crate::held::{Held, Taken};
use crate::metrics::Metrics;
use crate::pace::{Pacer, Stop, Turn};
use crate::publish::{Publisher, Rejected, Sending};
use crate::rows::{Bad, Good, Next, Rows};
use crate::schedule::{Point, Schedule};
use crate::settings::Settings;

/// How long to wait for input before looking at the clock and at whether to stop.
const INPUT_WAIT: Duration = Duration::from_millis(10);
/// A stream that has been silent for this long is not in the middle of a second. What can be read again
/// is waited for: where its rows belong together must not depend on how fast they came.
const STREAM_IDLE: Duration = Duration::from_millis(100);

pub(crate) struct Replay<'r, 'scope> {
    pub(crate) rows: Rows,
    pub(crate) publisher: &'r mut Publisher<'scope>,
    pub(crate) pacer: Pacer<'r>,
    pub(crate) settings: &'r Settings,
    /// Of the row or stretch that comes first, so many entries were sent by an earlier run.
    pub(crate) sent_before: u64,
    pub(crate) made: Made,
    pub(crate) metrics: &'r Metrics,
}

/// What was made on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Rows sent a second time.
    pub copies: u64,
    /// Rows made unreadable.
    pub damaged: u64,
    /// Rows sent in another's place.
    pub shuffled: u64,
}

impl Made {
    fn copy(&mut self, is: bool, metrics: &Metrics) {
        if is {
            self.copies += 1;
            metrics.copies.inc();
        }
    }

    fn damage(&mut self, is: bool, metrics: &Metrics) {
        if is {
            self.damaged += 1;
            metrics.damaged.inc();
        }
    }

    fn shuffle(&mut self, is: bool, metrics: &Metrics) {
        if is {
            self.shuffled += 1;
            metrics.shuffled.inc();
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.copies += other.copies;
        self.damaged += other.damaged;
        self.shuffled += other.shuffled;
    }
}

/// How many rows are sent together, and why those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gathered {
    /// All of a second, or of a stretch.
    Whole(usize),
    /// What of it could be had, or held.
    Part(usize),
    /// All that is held; nothing follows.
    End,
    Stop(Stop),
}

impl Replay<'_, '_> {
    pub(crate) fn play(&mut self) -> Result<Stop> {
        if self.settings.disorder.shuffle.is_none()
            && let Some(stop) = self.in_order()?
        {
            return Ok(stop);
        }
        self.by_the_second()
    }

    /// Each row as it comes, until rows go by their times (None).
    fn in_order(&mut self) -> Result<Option<Stop>> {
        while !self.pacer.goes_by_time() {
            let Self { rows, publisher, pacer, settings, sent_before, made, metrics } = self;
            let taken = rows.taken();
            let stop = match rows.next(INPUT_WAIT)? {
                Next::End => Some(Stop::End),
                Next::Waiting => pacer.idle(publisher, taken)?,
                Next::Skipped => pacer.skipped(publisher, taken)?,
                Next::Good(good) => {
                    let Good { text, row, passed, own, times } = good;
                    let upcoming = Upcoming { schedule_us: row.time.0, number: passed.taken - 1 };
                    match pacer.turn(publisher, upcoming, row.time)? {
                        Turn::Stop(stop) => Some(stop),
                        Turn::Now { intended_us, now } => {
                            // By its own time: nothing is known here of the rows that follow.
                            let schedule = Point { us: row.time.0, clock: row.time };
                            let sending = Sending { intended_us, now, schedule };
                            for copy in u32::try_from(std::mem::take(sent_before)).unwrap_or(0)..times {
                                let through = (copy + 1 == times).then_some(passed);
                                if own {
                                    made.copy(copy > 0, metrics);
                                    publisher.event(text, &row, passed.place, copy, through, sending)?;
                                } else {
                                    publisher.pass(row.time, through, schedule);
                                }
                            }
                            None
                        }
                    }
                }
                Next::Bad(bad) => {
                    let Bad { text, length, passed, file, reason, own, damaged } = bad;
                    *sent_before = 0;
                    if own {
                        made.damage(damaged, metrics);
                        let rejected = Rejected { text, length, place: passed.place, file, reason: &reason };
                        publisher.reject(rejected, Some(passed), settings.max_dead_letters, pacer.now())?;
                    } else {
                        publisher.pass_bad(Some(passed));
                    }
                    pacer.skipped(publisher, taken)?
                }
            };
            self.publisher.tell_shift(self.rows.shift_us());
            if stop.is_some() {
                return Ok(stop);
            }
        }
        Ok(None)
    }

    /// The rows of a second together, or of a stretch where rows change places.
    fn by_the_second(&mut self) -> Result<Stop> {
        let progress = *self.publisher.progress();
        let mut schedule = Schedule::new(self.settings.max_gap);
        if self.settings.bursts {
            schedule = schedule.in_bursts();
        }
        // A stretch that was broken off is laid out anew, from its beginning.
        let anew = self.settings.disorder.shuffle.is_some() && self.sent_before > 0;
        let mut clock = None;
        if progress.first.is_some() && !anew {
            schedule = schedule.resume(progress.schedule);
            clock = Some(progress.schedule.clock);
        }
        let mut held = Held::default();
        loop {
            held.begin(clock.filter(|_| self.settings.disorder.shuffle.is_none()));
            let (n, whole) = match self.gather(&mut held)? {
                Gathered::Whole(n) => (n, true),
                Gathered::Part(n) => (n, false),
                Gathered::End if held.is_empty() => return Ok(Stop::End),
                Gathered::End => (held.len(), true),
                Gathered::Stop(stop) => return Ok(stop),
            };
            self.publisher.tell_shift(self.rows.shift_us());
            held.lay_out(&mut schedule, &mut clock, &self.settings.disorder, n, whole);
            if let Some(stop) = self.send(&held)? {
                return Ok(stop);
            }
            held.drop_front(n);
        }
    }

    /// Adds rows to `held` until it is known which of them belong together.
    fn gather(&mut self, held: &mut Held) -> Result<Gathered> {
        let Self { rows, publisher, pacer, settings, .. } = self;
        let mut idle = Duration::ZERO;
        loop {
            if let Some(n) = held.whole(&settings.disorder, false) {
                return Ok(Gathered::Whole(n));
            }
            if let Some(n) = held.full() {
                return Ok(Gathered::Part(n));
            }
            let (taken, is_stream) = (rows.taken(), rows.are_of_a_stream());
            let next_row = rows.next(INPUT_WAIT)?;
            idle = if let Next::Waiting = next_row { idle + INPUT_WAIT } else { Duration::ZERO };
            let stop = match next_row {
                Next::End => {
                    return Ok(held.whole(&settings.disorder, true).map_or(Gathered::End, Gathered::Whole));
                }
                Next::Waiting => {
                    let stop = pacer.idle(publisher, taken)?;
                    if stop.is_none() && is_stream && idle >= STREAM_IDLE && !held.is_empty() {
                        let whole = held.whole(&settings.disorder, true);
                        return Ok(whole.map_or(Gathered::Part(held.len()), Gathered::Whole));
                    }
                    stop
                }
                Next::Skipped => pacer.skipped(publisher, taken)?,
                Next::Good(good) => {
                    held.push(&good);
                    None
                }
                Next::Bad(bad) => {
                    held.push_bad(bad);
                    None
                }
            };
            if let Some(stop) = stop {
                return Ok(Gathered::Stop(stop));
            }
        }
    }

    fn send(&mut self, held: &Held) -> Result<Option<Stop>> {
        for taken in held.entries() {
            let Taken { text, length, row, at, own, damaged, copy, number, schedule, moved, passed } = taken;
            if self.sent_before > 0 {
                self.sent_before -= 1;
                continue;
            }
            let Self { rows, publisher, pacer, settings, made, metrics, .. } = self;
            match row {
                Ok(row) => {
                    let upcoming = Upcoming { schedule_us: schedule.us, number };
                    // The clock that is told meanwhile runs neither past a late row nor to one far ahead.
                    let time = row.time.min(schedule.clock);
                    let (intended_us, now) = match pacer.turn(publisher, upcoming, time)? {
                        Turn::Now { intended_us, now } => (intended_us, now),
                        Turn::Stop(stop) => return Ok(Some(stop)),
                    };
                    if own {
                        made.copy(copy > 0, metrics);
                        made.shuffle(moved, metrics);
                        let sending = Sending { intended_us, now, schedule };
                        let text = records::utf8(text).unwrap_or_default();
                        publisher.event(text, row, at.place, copy, passed, sending)?;
                    } else {
                        publisher.pass(row.time, passed, schedule);
                    }
                }
                Err(reason) if own => {
                    made.damage(damaged, metrics);
                    let file = rows.file(at.place.file);
                    let rejected = Rejected { text, length, place: at.place, file, reason };
                    publisher.reject(rejected, passed, settings.max_dead_letters, pacer.now())?;
                }
                Err(_) => publisher.pass_bad(passed),
            }
        }
        Ok(None)
    }
}
