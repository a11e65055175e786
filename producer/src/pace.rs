//! The replay's own time: schedule time mapped to the clock, and waiting for it.
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use records::clock;

/// Rows that become due within this are sent together: a wake-up costs more than a row.
const TOGETHER: Duration = Duration::from_micros(500);
/// Rows between two readings of the clock while the replay is behind its schedule.
const ROWS_A_READING: u32 = 64;

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
        let (start, start_wall_us) = (clock::now(), clock::wall_us());
        let now = Now { instant: start, wall_us: start_wall_us };
        Self { start, start_wall_us, now, slept: start, readings_left: ROWS_A_READING }
    }

    /// The zero of the schedule is now.
    pub(crate) fn restart(&mut self) {
        *self = Self::start();
    }

    /// As it was when last read.
    pub(crate) fn now(&self) -> Now {
        self.now
    }

    pub(crate) fn read(&mut self) -> Now {
        let instant = clock::now();
        self.now = Now { instant, wall_us: self.start_wall_us.saturating_add(micros(instant - self.start)) };
        self.readings_left = ROWS_A_READING;
        self.now
    }

    /// Reads the clock every so many calls.
    pub(crate) fn read_at_times(&mut self) -> Now {
        self.readings_left = self.readings_left.saturating_sub(1);
        if self.readings_left == 0 { self.read() } else { self.now }
    }

    /// So many microseconds after the start.
    pub(crate) fn wall_us(&self, due_us: i64) -> i64 {
        self.start_wall_us.saturating_add(due_us)
    }

    pub(crate) fn elapsed_us(&self) -> i64 {
        micros(self.now.instant - self.start)
    }

    /// How long to sleep for a row that is due so many microseconds after the start; None if it is due.
    pub(crate) fn until(&self, due_us: i64) -> Option<Duration> {
        let due = Duration::from_micros(u64::try_from(due_us).unwrap_or(0));
        let left = due.checked_sub(self.now.instant - self.start).filter(|left| !left.is_zero())?;
        Some(left.max((self.slept + TOGETHER).saturating_duration_since(self.now.instant)))
    }

    /// After a sleep.
    pub(crate) fn woke(&mut self) {
        self.read();
        self.slept = self.now.instant;
    }
}

/// What `--rate` never exceeds, also when it catches up: twice the rate, after a tenth of a second at once.
pub(crate) struct Ceiling {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Ceiling {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is at most 1e9; casts saturate")]
    pub(crate) fn new(per_second: f64) -> Self {
        let at_least_one = |n: f64| NonZeroU32::new(n as u32).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(Duration::from_secs_f64((0.5 / per_second).max(1e-9)))
            .unwrap_or(Quota::per_second(at_least_one(per_second * 2.0)))
            .allow_burst(at_least_one(per_second / 10.0));
        Self { limiter: RateLimiter::direct(quota), clock: DefaultClock::default() }
    }

    /// How long to wait before asking again; None if a row may go now.
    pub(crate) fn take(&self) -> Option<Duration> {
        self.limiter.check().err().map(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
