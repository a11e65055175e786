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
use crate::schedule::Schedule;
use crate::settings::Settings;

/// How long to wait for input before looking at the clock and at whether to stop.
const INPUT_WAIT: Duration = Duration::from_millis(10);
/// A stream that has been silent for this long is not in the middle of a second.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gathered {
    /// All of a second, or of a stretch.
    Whole,
    /// What of it could be had, or held.
    Part,
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
                            let sending = Sending { intended_us, now, schedule_us: row.time.0 };
                            for copy in u32::try_from(std::mem::take(sent_before)).unwrap_or(0)..times {
                                let through = (copy + 1 == times).then_some(passed);
                                if own {
                                    made.copy(copy > 0, metrics);
                                    publisher.event(text, &row, passed.place, copy, through, sending)?;
                                } else {
                                    publisher.pass(row.time, through, sending.schedule_us);
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
            schedule = schedule.resume(progress.clock, progress.schedule_us);
            clock = Some(progress.clock);
        }
        let (mut held, mut next) = (Held::default(), Held::default());
        loop {
            let gathered = self.gather(&mut held, &mut next)?;
            if let Gathered::Stop(stop) = gathered {
                return Ok(stop);
            }
            self.publisher.tell_shift(self.rows.shift_us());
            held.lay_out(&mut schedule, &mut clock, &self.settings.disorder, gathered != Gathered::Part);
            if let Some(stop) = self.send(&held)? {
                return Ok(stop);
            }
            held.clear();
            std::mem::swap(&mut held, &mut next);
            if gathered == Gathered::End && held.is_empty() {
                return Ok(Stop::End);
            }
        }
    }

    /// Adds rows to `held` until they are all that belong together; the row that shows it goes to `next`.
    fn gather(&mut self, held: &mut Held, next: &mut Held) -> Result<Gathered> {
        let Self { rows, publisher, pacer, settings, .. } = self;
        let mut idle = Duration::ZERO;
        loop {
            if held.is_full() {
                return Ok(Gathered::Part);
            }
            let taken = rows.taken();
            let stop = match rows.next(INPUT_WAIT)? {
                Next::End => return Ok(Gathered::End),
                Next::Waiting => {
                    idle += INPUT_WAIT;
                    let stop = pacer.idle(publisher, taken)?;
                    if stop.is_none() && idle >= STREAM_IDLE && !held.is_empty() {
                        return Ok(Gathered::Part);
                    }
                    stop
                }
                Next::Skipped => pacer.skipped(publisher, taken)?,
                Next::Good(good) => {
                    let time = good.row.time;
                    let over = match held.first().and_then(|first| settings.disorder.stretch_end(first)) {
                        Some(end) => time >= end,
                        None => held.time().is_some_and(|second| time > second),
                    };
                    if over {
                        next.push(&good);
                        return Ok(Gathered::Whole);
                    }
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
            let Taken { text, length, row, at, own, damaged, copy, upcoming, moved, passed } = taken;
            if self.sent_before > 0 {
                self.sent_before -= 1;
                continue;
            }
            let Self { rows, publisher, pacer, settings, made, metrics, .. } = self;
            match row {
                Ok(row) => {
                    let (intended_us, now) = match pacer.turn(publisher, upcoming, row.time)? {
                        Turn::Now { intended_us, now } => (intended_us, now),
                        Turn::Stop(stop) => return Ok(Some(stop)),
                    };
                    if own {
                        made.copy(copy > 0, metrics);
                        made.shuffle(moved, metrics);
                        let sending = Sending { intended_us, now, schedule_us: upcoming.schedule_us };
                        let text = std::str::from_utf8(text).unwrap_or_default();
                        publisher.event(text, row, at.place, copy, passed, sending)?;
                    } else {
                        publisher.pass(row.time, passed, upcoming.schedule_us);
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
