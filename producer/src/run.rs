//! The whole wiring: files → rows → pace → transactions.
use std::time::Duration;

use broker::{Broker, Cancel};
use records::{EventTime, Feed, SourceId, clock};

use crate::commit::{Around, Claim, Committer};
use crate::error::{Error, Result, RowFault};
use crate::held::{Held, Taken};
use crate::input::{self, Line, Lines, MAX_ROW_BYTES, Next, Place};
use crate::metrics::Metrics;
use crate::pace::{Ceiling, Timer};
use crate::publish::{Publisher, Rejected, Sending};
use crate::quantiles::Spread;
use crate::row::Parser;
use crate::schedule::{Schedule, due_at_rate_us, due_us};
use crate::settings::{Pace, Settings};
use crate::source::Source;
use crate::status::{Phase, Status};

/// How long to wait for input before looking at the clock and at whether to stop.
const INPUT_WAIT: Duration = Duration::from_millis(10);
/// A stream that has been silent for this long is not in the middle of a second.
const STREAM_IDLE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The input is exhausted, and its end is written.
    Finished,
    /// It was, in an earlier run: nothing was published.
    AlreadyDone,
    /// Cancelled before the end; the same input goes on from there.
    Drained,
}

/// What a replay has done. Events and dead letters are those of this run; `…_of_source` those of all runs.
#[derive(Clone, Debug)]
pub struct Report {
    pub source: SourceId,
    pub feed: Feed,
    pub outcome: Outcome,
    pub events: u64,
    pub dead_letters: u64,
    pub events_of_source: u64,
    pub dead_letters_of_source: u64,
    /// Of this run.
    pub first_reasons: Vec<RowFault>,
    pub elapsed: Duration,
    /// Sending minus intended.
    pub sending_error: Spread,
    /// Visible (committed) minus intended.
    pub visible_error: Spread,
    /// Feeds of other sources that were begun earlier and have not ended: their sessions stay open.
    pub unfinished: Vec<Feed>,
}

/// Replays the inputs. Returns when they are exhausted, when `cancel` is set, or at the first error;
/// what was read before is committed in each case.
pub fn run(
    broker: &dyn Broker,
    settings: &Settings,
    metrics: &Metrics,
    status: &Status,
    cancel: &Cancel,
) -> Result<Report> {
    settings.check()?;
    let begun = clock::now();
    status.set_phase(Phase::Opening);
    let parts = input::list(&settings.inputs)?;
    let source = Source::of(&parts, &settings.row_settings);
    status.set_total(parts.iter().map(|part| part.size).sum());
    let claim = Claim::feed(broker, settings, source.feed(), cancel)?;
    if !settings.beside
        && let Some(why) = claim.recorded.sources.iter().find_map(|earlier| source.conflict(earlier))
    {
        return Err(Error::Refused(why));
    }
    let others = claim.recorded.progress.iter().filter(|(feed, progress)| **feed != source.feed() && !progress.ended);
    let mut unfinished: Vec<Feed> = others.map(|(feed, _)| *feed).collect();
    unfinished.sort_unstable();
    let progress = claim.recorded.progress.get(&source.feed()).copied().unwrap_or_default();
    let report = Report {
        source: source.id,
        feed: source.feed(),
        outcome: Outcome::AlreadyDone,
        events: 0,
        dead_letters: 0,
        events_of_source: progress.events,
        dead_letters_of_source: progress.dead_letters,
        first_reasons: Vec::new(),
        elapsed: Duration::ZERO,
        sending_error: Spread::default(),
        visible_error: Spread::default(),
        unfinished,
    };
    if progress.ended {
        status.set_phase(Phase::Done);
        return Ok(Report { elapsed: clock::now() - begun, ..report });
    }
    tracing::info!(source = %source.id, files = parts.len(), row = progress.next.source_row, "the replay begins");
    let from = (progress.next != Place::default()).then_some(progress.next);
    let lines = Lines::open(parts, from, status)?;
    let around =
        Around { broker, metrics, status, cancel, feed: source.feed(), flat_out: settings.pace == Pace::FlatOut };
    std::thread::scope(|scope| {
        let described = claim.recorded.sources.iter().any(|earlier| earlier.id == source.id);
        let committer = Committer::spawn(scope, claim, around, progress)?;
        let mut publisher = Publisher::new(committer, &around, settings, &source, progress, described);
        let outcome = play(lines, &mut publisher, settings, cancel)?;
        if outcome == Outcome::Finished {
            status.set_phase(Phase::Done);
        }
        let committed = publisher.committed();
        Ok(Report {
            outcome,
            events: committed.events,
            dead_letters: committed.dead_letters,
            events_of_source: committed.progress.events,
            dead_letters_of_source: committed.progress.dead_letters,
            first_reasons: publisher.reasons.clone(),
            elapsed: clock::now() - begun,
            sending_error: publisher.sending.spread(),
            visible_error: committed.visible.spread(),
            ..report
        })
    })
}

/// Plays all that is left of the input and commits it, with its end; or what was read before a fault or a cancel.
fn play(lines: Lines, publisher: &mut Publisher<'_, '_>, settings: &Settings, cancel: &Cancel) -> Result<Outcome> {
    let mut replay = Replay { lines, parser: Parser::new(), publisher, timer: Timer::start(), settings, cancel };
    let replayed = match settings.pace {
        Pace::FlatOut => replay.flat_out(),
        Pace::Rate(rate) => replay.at_rate(rate),
        Pace::Speed(speed) => replay.at_speed(speed),
    };
    // The reader may be blocked in a full channel: it goes before what follows.
    drop(replay);
    let handed = match &replayed {
        Ok(true) => publisher.end(),
        Ok(false) | Err(Error::File { .. } | Error::DeadLetters { .. }) => publisher.commit(),
        Err(_) => Ok(()),
    };
    let committed = handed.and(publisher.finish());
    match (replayed, committed) {
        (_, Err(error)) | (Err(error), Ok(())) if is_cancelled(&error) => Ok(Outcome::Drained),
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(true), Ok(())) => Ok(Outcome::Finished),
        (Ok(false), Ok(())) => Ok(Outcome::Drained),
    }
}

fn is_cancelled(error: &Error) -> bool {
    matches!(error, Error::Broker(broker::Error::Cancelled))
}

struct Replay<'r, 'p, 's> {
    lines: Lines,
    parser: Parser,
    publisher: &'r mut Publisher<'p, 's>,
    timer: Timer,
    settings: &'r Settings,
    cancel: &'r Cancel,
}

/// Each returns true when the input is exhausted and false when it was cancelled.
impl Replay<'_, '_, '_> {
    fn flat_out(&mut self) -> Result<bool> {
        loop {
            let line = match self.lines.next(INPUT_WAIT)? {
                Next::End => return Ok(true),
                Next::Waiting => {
                    let now = self.timer.read();
                    self.publisher.tick(now, None)?;
                    if self.cancel.is_cancelled() {
                        return Ok(false);
                    }
                    continue;
                }
                Next::Row(line) => line,
            };
            let before = self.timer.now().wall_us;
            let now = self.timer.read_at_times();
            if now.wall_us != before {
                if self.cancel.is_cancelled() {
                    return Ok(false);
                }
                self.publisher.tick(now, None)?;
            }
            match parse(&mut self.parser, &line) {
                Ok((text, row)) => {
                    let sending = Sending { intended_us: now.wall_us, now, schedule_us: row.time.0 };
                    self.publisher.event(text, &row, line.place, sending)?;
                }
                Err(reason) => {
                    let Line { text, length, place, file, .. } = line;
                    let rejected = Rejected { text, length, place, file, reason: &reason };
                    self.publisher.reject(rejected, self.settings.max_dead_letters, now)?;
                }
            }
        }
    }

    fn at_rate(&mut self, rate: f64) -> Result<bool> {
        let ceiling = Ceiling::new(rate);
        let mut sent = 0_u64;
        loop {
            let line = match self.lines.next(INPUT_WAIT)? {
                Next::End => return Ok(true),
                Next::Waiting => {
                    let now = self.timer.read();
                    self.publisher.tick(now, None)?;
                    if self.cancel.is_cancelled() {
                        return Ok(false);
                    }
                    continue;
                }
                Next::Row(line) => line,
            };
            match parse(&mut self.parser, &line) {
                Ok((text, row)) => {
                    if sent == 0 {
                        self.timer.restart();
                    }
                    let due = due_at_rate_us(sent, rate);
                    let mut waiter = Waiter { publisher: self.publisher, timer: &mut self.timer, cancel: self.cancel };
                    if !waiter.until(due, |publisher, _| publisher.progress().clock.min(row.time))? {
                        return Ok(false);
                    }
                    while let Some(wait) = ceiling.take() {
                        if !waiter.pause(wait)? {
                            return Ok(false);
                        }
                    }
                    sent += 1;
                    let (intended_us, now) = (self.timer.wall_us(due), self.timer.now());
                    let sending = Sending { intended_us, now, schedule_us: row.time.0 };
                    self.publisher.event(text, &row, line.place, sending)?;
                }
                Err(reason) => {
                    let now = self.timer.read();
                    let Line { text, length, place, file, .. } = line;
                    let rejected = Rejected { text, length, place, file, reason: &reason };
                    self.publisher.reject(rejected, self.settings.max_dead_letters, now)?;
                }
            }
        }
    }

    fn at_speed(&mut self, speed: f64) -> Result<bool> {
        let mut schedule = Schedule::new(self.settings.max_gap);
        if self.settings.bursts {
            schedule = schedule.in_bursts();
        }
        // The schedule's zero: the first row, or the last one of an earlier run.
        let mut zero_us = None;
        let progress = *self.publisher.progress();
        if progress.first.is_some() {
            schedule = schedule.resume(progress.clock, progress.schedule_us);
            zero_us = Some(progress.schedule_us);
        }
        let (mut held, mut next) = (Held::default(), Held::default());
        let mut clock = progress.first.map(|_| progress.clock);
        loop {
            let gathered = self.gather(&mut held, &mut next)?;
            if gathered == Gathered::Cancelled {
                return Ok(false);
            }
            if held.len() > 0 {
                // Rows before the first good one have no time: they are sent at once.
                clock = clock.max(held.time());
                let spread = clock.map(|clock| schedule.place(clock, held.len(), gathered != Gathered::Part));
                if zero_us.is_none()
                    && let Some(spread) = spread
                {
                    zero_us = Some(spread.at(0));
                    self.timer.restart();
                }
                let due = |i: usize| {
                    let at = spread.map_or(0, |spread| spread.at(i));
                    (at, due_us(at, zero_us.unwrap_or(at), speed))
                };
                if !self.send(&held, due, speed)? {
                    return Ok(false);
                }
            }
            held.clear();
            std::mem::swap(&mut held, &mut next);
            if gathered == Gathered::End && held.len() == 0 {
                return Ok(true);
            }
        }
    }

    /// Adds rows to `held` until its second is over; the row that shows it goes to `next`.
    fn gather(&mut self, held: &mut Held, next: &mut Held) -> Result<Gathered> {
        let mut idle = Duration::ZERO;
        loop {
            if held.is_full() {
                return Ok(Gathered::Part);
            }
            let line = match self.lines.next(INPUT_WAIT)? {
                Next::End => return Ok(Gathered::End),
                Next::Waiting => {
                    let now = self.timer.read();
                    self.publisher.tick(now, None)?;
                    if self.cancel.is_cancelled() {
                        return Ok(Gathered::Cancelled);
                    }
                    idle += INPUT_WAIT;
                    if idle >= STREAM_IDLE && held.len() > 0 {
                        return Ok(Gathered::Part);
                    }
                    continue;
                }
                Next::Row(line) => line,
            };
            match parse(&mut self.parser, &line) {
                Ok((text, row)) => {
                    if held.time().is_some_and(|time| row.time > time) {
                        next.push(&line, text.as_bytes(), Ok(row));
                        return Ok(Gathered::Second);
                    }
                    held.push(&line, text.as_bytes(), Ok(row));
                }
                Err(reason) => held.push(&line, line.text, Err(reason)),
            }
        }
    }

    fn send(&mut self, held: &Held, due: impl Fn(usize) -> (i64, i64), speed: f64) -> Result<bool> {
        for (i, taken) in held.iter().enumerate() {
            let (schedule_us, due_us) = due(i);
            match taken.row {
                Ok(row) => {
                    let mut waiter = Waiter { publisher: self.publisher, timer: &mut self.timer, cancel: self.cancel };
                    let clock = |publisher: &Publisher<'_, '_>, left_us: i64| {
                        clock_while_waiting(publisher, row.time, left_us, speed)
                    };
                    if !waiter.until(due_us, clock)? {
                        return Ok(false);
                    }
                    let sending =
                        Sending { intended_us: self.timer.wall_us(due_us), now: self.timer.now(), schedule_us };
                    let text = std::str::from_utf8(taken.text).unwrap_or_default();
                    self.publisher.event(text, row, taken.place, sending)?;
                }
                Err(reason) => {
                    let file = &self.lines.parts()[taken.place.file].name;
                    let now = self.timer.now();
                    let Taken { text, length, place, .. } = taken;
                    let rejected = Rejected { text, length, place, file, reason };
                    self.publisher.reject(rejected, self.settings.max_dead_letters, now)?;
                }
            }
        }
        Ok(true)
    }
}

/// Where event time stands while the schedule waits for the next row: it runs towards that row, and
/// in a squeezed silence it is that much behind it.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "event time in microseconds")]
fn clock_while_waiting(publisher: &Publisher<'_, '_>, next: EventTime, left_us: i64, speed: f64) -> EventTime {
    let behind_us = (left_us as f64 * speed).round() as i64;
    let towards = EventTime(next.0.saturating_sub(behind_us.max(0)));
    publisher.progress().clock.max(towards).min(next)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gathered {
    /// All of a second.
    Second,
    /// What of it could be had.
    Part,
    End,
    Cancelled,
}

/// Waits, and meanwhile commits and tells the clock in time.
struct Waiter<'w, 'p, 's> {
    publisher: &'w mut Publisher<'p, 's>,
    timer: &'w mut Timer,
    cancel: &'w Cancel,
}

impl<'p, 's> Waiter<'_, 'p, 's> {
    /// Until `due_us` after the start; false when cancelled. `clock` says where event time stands
    /// with so many microseconds left.
    fn until(&mut self, due_us: i64, clock: impl Fn(&Publisher<'p, 's>, i64) -> EventTime) -> Result<bool> {
        // Behind the schedule the clock is read at times only, but commits stay in time.
        let before = self.timer.now().wall_us;
        if self.timer.elapsed_us() >= due_us && self.timer.read_at_times().wall_us == before {
            return Ok(true);
        }
        loop {
            let now = self.timer.read();
            let left_us = due_us.saturating_sub(self.timer.elapsed_us());
            let event_clock = self.publisher.progress().first.map(|_| clock(self.publisher, left_us));
            self.publisher.tick(now, event_clock)?;
            if self.cancel.is_cancelled() {
                return Ok(false);
            }
            let Some(left) = self.timer.until(due_us) else { return Ok(true) };
            if self.cancel.wait(left.min(self.publisher.next_tick(now))) {
                return Ok(false);
            }
            self.timer.woke();
        }
    }

    /// For so long.
    fn pause(&mut self, wait: Duration) -> Result<bool> {
        let now = self.timer.now();
        if self.cancel.wait(wait.min(self.publisher.next_tick(now))) {
            return Ok(false);
        }
        self.timer.woke();
        let now = self.timer.now();
        self.publisher.tick(now, None)?;
        Ok(true)
    }
}

fn parse<'t>(parser: &'t mut Parser, line: &Line<'t>) -> Result<(&'t str, crate::row::Row), String> {
    if line.length > MAX_ROW_BYTES as u64 {
        return Err(format!("it is {} bytes long; a row is at most 1 MiB", line.length));
    }
    parser.parse(line.header, line.text)
}
