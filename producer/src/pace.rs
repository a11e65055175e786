//! The replay's own time: waiting until a row is due, and obeying what comes meanwhile.
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use broker::Cancel;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use records::{EventTime, clock};

use crate::control::{Control, Steered, Steering, Told};
use crate::course::{Course, Kind, Upcoming, When};
use crate::error::Result;
use crate::publish::Publisher;
use crate::rates::Rates;
use crate::settings::{CatchUp, Settings};
use crate::status::Status;

/// Rows that become due within this are sent together: a wake-up costs more than a row.
const TOGETHER: Duration = Duration::from_micros(500);
/// Rows between two readings of the clock while the replay is behind its schedule.
const ROWS_A_READING: u32 = 64;
/// The longest sleep: a change that was told meanwhile is seen after it.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);
/// What is behind by less than this is made up for, also where what is lost stays lost: a thread
/// wakes late by some of it each time.
const SLIDE_AFTER_US: i64 = 100_000;
/// A wall clock that is off by more than this has been set, or the machine has slept.
const STEP_US: i64 = 1_000_000;
const LOOK_AT_WALL_EVERY: Duration = Duration::from_secs(1);

/// One instant on both clocks; the wall clock is read once, so that the times in headers never go back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) wall_us: i64,
}

impl Now {
    /// What the wall clock of this instant says at another one.
    pub(crate) fn wall_us_at(self, instant: Instant) -> i64 {
        let later = micros(instant.saturating_duration_since(self.instant));
        self.wall_us.saturating_add(later).saturating_sub(micros(self.instant.saturating_duration_since(instant)))
    }
}

/// Why a replay stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The input is exhausted.
    End,
    /// Control has said that this is the end of it.
    Ended,
    Cancelled,
}

/// A row's turn.
pub(crate) enum Turn {
    /// It is sent now.
    Now {
        intended_us: i64,
        now: Now,
    },
    Stop(Stop),
}

#[derive(Debug)]
pub(crate) struct Timer {
    start: Instant,
    start_wall_us: i64,
    now: Now,
    slept: Instant,
    readings_left: u32,
}

impl Timer {
    pub(crate) fn start() -> Self {
        Self::at(clock::now(), clock::wall_us())
    }

    fn at(start: Instant, start_wall_us: i64) -> Self {
        let now = Now { instant: start, wall_us: start_wall_us };
        Self { start, start_wall_us, now, slept: start, readings_left: ROWS_A_READING }
    }

    /// As it was when last read.
    pub(crate) fn now(&self) -> Now {
        self.now
    }

    pub(crate) fn read(&mut self) -> Now {
        self.read_at(clock::now())
    }

    fn read_at(&mut self, instant: Instant) -> Now {
        self.now = Now { instant, wall_us: self.start_wall_us.saturating_add(micros(instant - self.start)) };
        self.readings_left = ROWS_A_READING;
        self.now
    }

    /// Reads the clock every so many calls; true if it did.
    fn read_at_times(&mut self) -> bool {
        self.readings_left = self.readings_left.saturating_sub(1);
        let reads = self.readings_left == 0;
        if reads {
            self.read();
        }
        reads
    }

    /// So many microseconds after the start.
    fn wall_us(&self, us: i64) -> i64 {
        self.start_wall_us.saturating_add(us)
    }

    fn elapsed_us(&self) -> i64 {
        micros(self.now.instant - self.start)
    }

    fn us_of(&self, instant: Instant) -> i64 {
        micros(instant.saturating_duration_since(self.start))
    }

    /// How long to sleep for what is due so many microseconds after the start; None if it is due.
    fn until(&self, due_us: i64) -> Option<Duration> {
        let due = Duration::from_micros(u64::try_from(due_us).unwrap_or(0));
        let left = due.checked_sub(self.now.instant - self.start).filter(|left| !left.is_zero())?;
        Some(left.max((self.slept + TOGETHER).saturating_duration_since(self.now.instant)))
    }

    /// After a sleep.
    fn woke(&mut self) {
        self.read();
        self.slept = self.now.instant;
    }

    /// A wall clock that has been set is followed in what headers say; the schedule never sees it.
    /// Returns by how much it was off.
    fn follow(&mut self, wall_us: i64) -> Option<i64> {
        let step = wall_us.saturating_sub(self.now.wall_us);
        if step.abs() < STEP_US {
            return None;
        }
        self.start_wall_us = self.start_wall_us.saturating_add(step);
        self.now.wall_us = wall_us;
        Some(step)
    }
}

/// What a rate never exceeds, also when it catches up: twice the rate, after so many rows at once.
struct Ceiling {
    rate: f64,
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Ceiling {
    /// The rows that may go out at once, where nothing else is said: what is due in 10 ms.
    const AT_ONCE: f64 = 0.01;
    /// A rate that has changed by less keeps its ceiling.
    const TOLERANCE: f64 = 0.1;

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is at most 1e9; casts saturate")]
    fn new(rate: f64, burst: Option<u32>) -> Self {
        let at_least_one = |n: f64| NonZeroU32::new(n as u32).unwrap_or(NonZeroU32::MIN);
        let burst = burst.and_then(NonZeroU32::new).unwrap_or(at_least_one(rate * Self::AT_ONCE));
        let quota = Quota::with_period(Duration::from_secs_f64((0.5 / rate.max(1e-6)).max(1e-9)))
            .unwrap_or(Quota::per_second(at_least_one(rate * 2.0)))
            .allow_burst(burst);
        Self { rate, limiter: RateLimiter::direct(quota), clock: DefaultClock::default() }
    }

    fn fits(&self, rate: f64) -> bool {
        (rate - self.rate).abs() <= Self::TOLERANCE * self.rate
    }

    /// How long to wait before asking again; None if a row may go now.
    fn take(&self) -> Option<Duration> {
        self.limiter.check().err().map(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// Gives each row its turn.
pub(crate) struct Pacer<'r> {
    timer: Timer,
    course: Course,
    steering: &'r Steering,
    cancel: &'r Cancel,
    status: &'r Status,
    catch_up: CatchUp,
    burst: Option<u32>,
    ceiling: Option<Ceiling>,
    /// Where a resumed schedule of event times stands at its start.
    resume_at_us: Option<i64>,
    looked_at_wall: Instant,
    /// What control said last.
    pub(crate) told: Option<Control>,
    /// Rows left out since the clock was last read.
    skipped: u32,
    /// How much of the schedule was given up.
    pub(crate) slid: Duration,
}

impl<'r> Pacer<'r> {
    /// `told` is what control said before; `rows_before` were in earlier passes.
    pub(crate) fn new(
        settings: &Settings,
        rows_before: u64,
        told: Option<Control>,
        steering: &'r Steering,
        cancel: &'r Cancel,
        status: &'r Status,
        resume_at_us: Option<i64>,
    ) -> Self {
        let mut course = Course::new(settings.pace.kind(rows_before));
        if let Some(told) = told {
            course.change(
                When::at(0),
                told.pace.map(|pace| kind(pace, Upcoming::default())),
                told.paused,
                Upcoming::default(),
            );
        }
        status.set_pace(course.kind(), course.is_paused());
        let timer = Timer::start();
        Self {
            looked_at_wall: timer.now().instant,
            timer,
            course,
            steering,
            cancel,
            status,
            catch_up: settings.catch_up,
            burst: settings.burst,
            ceiling: None,
            resume_at_us,
            told,
            skipped: 0,
            slid: Duration::ZERO,
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.timer.now()
    }

    /// Whether rows are sent by their event times: then a second must be whole before it is sent.
    pub(crate) fn goes_by_time(&self) -> bool {
        matches!(self.course.kind(), Kind::Speed(_))
    }

    fn is_flat_out(&self) -> bool {
        *self.course.kind() == Kind::FlatOut
    }

    /// Waits for a row's turn, and meanwhile commits, tells the clock and obeys. `time` is its event time.
    pub(crate) fn turn(&mut self, publisher: &mut Publisher<'_>, upcoming: Upcoming, time: EventTime) -> Result<Turn> {
        if !self.course.is_anchored() {
            self.timer = Timer::start();
            publisher.go(self.is_flat_out());
            let at = self.resume_at_us.take();
            self.course.anchor(0, at, upcoming);
        }
        // Behind the schedule, or without one, the clock is read at times only; commits stay in time.
        if let Some(due_us) = self.course.due_us(upcoming)
            && self.is_due(due_us)
            && !self.timer.read_at_times()
            && self.may_go()
        {
            return Ok(self.now_due(due_us));
        }
        loop {
            let now = self.timer.read();
            if let Some(stop) = self.obey(publisher, upcoming)? {
                return Ok(Turn::Stop(stop));
            }
            let clock = publisher.progress().first.map(|_| self.clock(publisher, upcoming, time));
            publisher.tick(now, clock)?;
            let wait = match self.course.due_us(upcoming) {
                None => LONGEST_SLEEP,
                Some(due_us) => match self.timer.until(due_us).or_else(|| self.held_back()) {
                    Some(left) => left,
                    None => return Ok(self.now_due(due_us)),
                },
            };
            if self.sleep(publisher, wait) {
                return Ok(Turn::Stop(Stop::Cancelled));
            }
        }
    }

    fn is_due(&self, due_us: i64) -> bool {
        self.timer.elapsed_us() >= due_us
    }

    /// Whether a row may go without asking how fast they went lately.
    fn may_go(&self) -> bool {
        !matches!(self.course.kind(), Kind::Rates { .. }) || self.ceiling.as_ref().is_some_and(|c| c.take().is_none())
    }

    /// How long a row has to wait because those before it went too fast: when a rate catches up.
    fn held_back(&mut self) -> Option<Duration> {
        let rate = self.course.rate_at(self.timer.elapsed_us())?;
        if !self.ceiling.as_ref().is_some_and(|ceiling| ceiling.fits(rate)) {
            self.ceiling = Some(Ceiling::new(rate, self.burst));
        }
        self.ceiling.as_ref()?.take()
    }

    fn now_due(&mut self, due_us: i64) -> Turn {
        let now = self.timer.now();
        if due_us == i64::MIN {
            return Turn::Now { intended_us: now.wall_us, now };
        }
        let intended_us = self.timer.wall_us(due_us);
        let late_us = self.timer.elapsed_us() - due_us;
        if self.catch_up == CatchUp::Slide && late_us > SLIDE_AFTER_US {
            self.course.slide(late_us);
            self.slid += Duration::from_micros(u64::try_from(late_us).unwrap_or(0));
        }
        Turn::Now { intended_us, now }
    }

    /// Where event time stands while the schedule waits for the next row: it runs towards that row, and
    /// in a squeezed silence it is that much behind it.
    #[allow(clippy::cast_possible_truncation, reason = "a cast of an f64 saturates")]
    fn clock(&self, publisher: &Publisher<'_>, upcoming: Upcoming, time: EventTime) -> EventTime {
        let clock = publisher.progress().clock;
        if !self.goes_by_time() {
            return clock.min(time);
        }
        let position_us = self.course.position_at(self.timer.elapsed_us()).round() as i64;
        let behind_us = upcoming.schedule_us.saturating_sub(position_us).max(0);
        clock.max(EventTime(time.0.saturating_sub(behind_us))).min(time)
    }

    /// While no row is at hand.
    pub(crate) fn idle(&mut self, publisher: &mut Publisher<'_>, taken: u64) -> Result<Option<Stop>> {
        let now = self.timer.read();
        publisher.tick(now, None)?;
        let upcoming = Upcoming { schedule_us: publisher.progress().schedule.us, number: taken };
        if let Some(stop) = self.obey(publisher, upcoming)? {
            return Ok(Some(stop));
        }
        Ok(self.cancel.is_cancelled().then_some(Stop::Cancelled))
    }

    /// A row was left out: looks at the clock every so many of them.
    pub(crate) fn skipped(&mut self, publisher: &mut Publisher<'_>, taken: u64) -> Result<Option<Stop>> {
        self.skipped = (self.skipped + 1) % (64 * ROWS_A_READING);
        if self.skipped == 0 { self.idle(publisher, taken) } else { Ok(None) }
    }

    /// What control says from now on; and the wall clock, should it have been set.
    fn obey(&mut self, publisher: &mut Publisher<'_>, upcoming: Upcoming) -> Result<Option<Stop>> {
        let now = self.timer.now().instant;
        if now.saturating_duration_since(self.looked_at_wall) >= LOOK_AT_WALL_EVERY {
            self.looked_at_wall = now;
            if let Some(step_us) = self.timer.follow(clock::wall_us()) {
                tracing::warn!(step_ms = step_us / 1000, "the wall clock was set; the schedule goes on as it was");
                publisher.commit()?;
            }
        }
        while let Some(Told { from, heard, control }) = self.steering.take(now)? {
            let when = When { from_us: self.timer.us_of(from), heard_us: self.timer.us_of(heard) };
            self.course.change(when, control.pace.map(|pace| kind(pace, upcoming)), control.paused, upcoming);
            self.ceiling = None;
            publisher.go(self.is_flat_out());
            let row = upcoming.number;
            tracing::info!(paused = control.paused, pace = ?control.pace, end = control.end, row, "control is obeyed");
            self.status.set_pace(self.course.kind(), control.paused);
            self.told = Some(control);
            if control.end {
                return Ok(Some(Stop::Ended));
            }
        }
        Ok(if self.cancel.is_cancelled() { Some(Stop::Cancelled) } else { None })
    }

    /// True when cancelled.
    fn sleep(&mut self, publisher: &Publisher<'_>, wait: Duration) -> bool {
        let now = self.timer.now();
        let mut wait = wait.min(publisher.next_tick(now)).min(LONGEST_SLEEP);
        if let Some(next) = self.steering.next() {
            wait = wait.min(next.saturating_duration_since(now.instant));
        }
        let cancelled = self.cancel.wait(wait);
        self.timer.woke();
        cancelled
    }
}

#[allow(clippy::cast_precision_loss, reason = "row numbers below 2^53")]
fn kind(pace: Steered, upcoming: Upcoming) -> Kind {
    match pace {
        Steered::Speed(speed) => Kind::Speed(speed),
        Steered::Rate(rate) => Kind::Rates { plan: Rates::constant(rate), first: upcoming.number as f64 },
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Pace;

    /// A clock that is set moves what headers say, and no row's turn.
    #[test]
    fn a_step_of_the_wall_clock() {
        let start = clock::now();
        let mut timer = Timer::at(start, 1_000_000_000);
        timer.read_at(start + Duration::from_secs(10));
        assert_eq!(timer.follow(1_010_900_000), None, "it drifts, as clocks do");
        for (wall_us, step) in [(4_610_000_000, 3_600_000_000), (1_010_000_000, -3_600_000_000)] {
            assert_eq!(timer.follow(wall_us), Some(step));
            assert_eq!((timer.now().wall_us, timer.elapsed_us()), (wall_us, 10_000_000));
            assert_eq!(timer.until(10_000_500).map(|left| left.as_micros()), Some(500));
            assert_eq!(timer.read_at(start + Duration::from_secs(10)).wall_us, wall_us);
        }
    }

    /// Rows that are meant a second apart: for when each was meant, and when it went, in seconds; and how
    /// much of the schedule was given up. Before row `jumps.0` the clock jumps by so many seconds: the
    /// machine slept, or the process was stopped.
    fn played(pace: Pace, catch_up: CatchUp, jumps: (u64, i64), rows: u64) -> (Vec<(i64, i64)>, Duration) {
        const SECOND: i64 = 1_000_000;
        let settings = Settings { catch_up, ..Settings::new(Vec::new(), pace) };
        let (steering, cancel, status) = (Steering::default(), Cancel::new(), Status::new());
        let mut pacer = Pacer::new(&settings, 0, None, &steering, &cancel, &status, None);
        let start = clock::now();
        pacer.timer = Timer::at(start, 0);
        let row = |number: u64| Upcoming { schedule_us: i64::try_from(number).unwrap() * SECOND, number };
        pacer.course.anchor(0, None, row(0));
        let mut at_us = 0;
        let mut sent = Vec::new();
        for number in 0..rows {
            at_us += if number == jumps.0 { jumps.1 * SECOND } else { 0 };
            let due_us = pacer.course.due_us(row(number)).unwrap();
            at_us = at_us.max(due_us);
            pacer.timer.read_at(start + Duration::from_micros(at_us.unsigned_abs()));
            assert_eq!(pacer.timer.until(due_us), None, "row {number} is due");
            let Turn::Now { intended_us, .. } = pacer.now_due(due_us) else { panic!("row {number} has its turn") };
            sent.push((intended_us / SECOND, at_us / SECOND));
        }
        (sent, pacer.slid)
    }

    /// What was missed goes out at once and the schedule stands, or it is given up and the schedule moves;
    /// either way each row tells for when it was meant.
    #[test]
    fn a_jump_of_the_clock_is_caught_up_with_or_given_up() {
        for pace in [Pace::Speed(1.0), Pace::Rate(1.0)] {
            // Row 9 went at 9; the clock jumps to 3609.
            let (burst, slid) = played(pace.clone(), CatchUp::Burst, (10, 3600), 4000);
            let expected = |row: i64| (row, if row < 10 { row } else { row.max(3609) });
            assert_eq!(burst, (0..4000).map(expected).collect::<Vec<_>>());
            assert_eq!(slid, Duration::ZERO);
            let (slide, slid) = played(pace.clone(), CatchUp::Slide, (10, 3600), 4000);
            let expected = |row: i64| match row {
                0..10 => (row, row),
                10 => (10, 3609),
                _ => (row + 3599, row + 3599),
            };
            assert_eq!(slide, (0..4000).map(expected).collect::<Vec<_>>());
            assert_eq!(slid, Duration::from_secs(3599));
            let (none, slid) = played(pace, CatchUp::Slide, (10, 0), 20);
            assert_eq!((none, slid), ((0..20).map(|row| (row, row)).collect(), Duration::ZERO));
        }
    }

    /// Each pass of a loop has a pacer of its own; a ramp that is longer than a pass goes on in the next.
    #[test]
    fn a_ramp_goes_on_over_the_passes_of_a_loop() {
        let pace = Pace::Rates("10/s..1000/s over 100s".parse().unwrap());
        let settings = Settings::new(Vec::new(), pace);
        let (steering, cancel, status) = (Steering::default(), Cancel::new(), Status::new());
        let dues = |rows_before: u64, rows: u64| -> Vec<i64> {
            let mut pacer = Pacer::new(&settings, rows_before, None, &steering, &cancel, &status, None);
            let row = |number: u64| Upcoming { schedule_us: 0, number };
            pacer.course.anchor(0, None, row(0));
            (0..rows).map(|number| pacer.course.due_us(row(number)).unwrap()).collect()
        };
        let whole = dues(0, 3000);
        for pass in 1..3 {
            let begun = whole[pass * 1000];
            let expected = whole[pass * 1000..(pass + 1) * 1000].iter().map(|due| due - begun);
            for (due, expected) in dues(pass as u64 * 1000, 1000).into_iter().zip(expected) {
                assert!((due - expected).abs() <= 1, "pass {pass}: {due}, not {expected}");
            }
        }
    }

    #[test]
    fn a_ceiling_allows_what_was_asked_for_at_once() {
        for (rate, burst, at_once) in [(10.0, None, 1), (500_000.0, None, 5000), (10.0, Some(7), 7)] {
            let ceiling = Ceiling::new(rate, burst);
            let taken = (0..at_once).filter(|_| ceiling.take().is_none()).count();
            assert_eq!(taken, at_once, "{rate} {burst:?}");
        }
        let slow = Ceiling::new(0.1, Some(3));
        assert_eq!((0..10).filter(|_| slow.take().is_none()).count(), 3);
        assert!(Ceiling::new(100.0, None).fits(105.0) && !Ceiling::new(100.0, None).fits(120.0));
    }
}
