//! How far the parts are: for the page, the API and the progress.
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use broker::Ready;
use producer::Going;
use records::SourceId;
use serde::Serialize;

use crate::screen::{LINE_EVERY, Progress, Screen};
use crate::summary::{thousands, whole};

/// How often the progress is written anew.
const SHOW_EVERY: Duration = Duration::from_millis(200);

pub(crate) struct Live {
    producer: producer::Status,
    /// The producer is one of this process's parts.
    produces: AtomicBool,
    running: AtomicBool,
    caught_up: AtomicBool,
    /// Of the parts, once they are wired.
    ready: OnceLock<Vec<Ready>>,
    seen: Mutex<Seen>,
}

#[derive(Clone, Default)]
struct Seen {
    /// Sent by the producer of this process.
    events_per_second: f64,
    /// Offsets that the first of the groups has committed.
    taken_per_second: f64,
    /// Records that each part has yet to commit.
    lag: Vec<(&'static str, i64)>,
}

#[derive(Serialize)]
pub(crate) struct Status {
    text: String,
    phase: String,
    /// The input is done, and every output has caught up.
    caught_up: bool,
    fraction: Option<f64>,
    events: u64,
    events_per_second: f64,
    clock: Option<String>,
    lag: HashMap<&'static str, i64>,
}

/// What `GET /replay` says.
#[derive(Serialize)]
pub(crate) struct Replay {
    /// 8 hex digits; of a loop, its first pass.
    source: Option<String>,
    pass: u32,
    phase: String,
    /// speed, rate, rates or flat-out.
    going: &'static str,
    paused: bool,
    speed: Option<f64>,
    rate: Option<f64>,
    /// Event time, as far as it is committed.
    clock: Option<String>,
    events: u64,
    fraction: Option<f64>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            producer: producer::Status::new(),
            produces: AtomicBool::new(false),
            running: AtomicBool::new(true),
            caught_up: AtomicBool::new(false),
            ready: OnceLock::new(),
            seen: Mutex::default(),
        }
    }

    /// What control calls the source that is played.
    pub(crate) fn source(&self) -> Option<SourceId> {
        self.producer.source()
    }

    /// How the replay goes.
    pub(crate) fn replay(&self) -> Replay {
        let producer = &self.producer;
        let (mut speed, mut rate) = (None, None);
        let going = match producer.going() {
            Going::FlatOut => "flat-out",
            Going::Plan => "rates",
            Going::Speed(n) => {
                speed = Some(n);
                "speed"
            }
            Going::Rate(n) => {
                rate = Some(n);
                "rate"
            }
        };
        Replay {
            source: producer.source().map(|source| source.to_string()),
            pass: producer.pass(),
            phase: format!("{:?}", producer.phase()).to_lowercase(),
            going,
            paused: producer.is_paused(),
            speed,
            rate,
            clock: producer.clock().map(|clock| clock.to_string()),
            events: producer.events(),
            fraction: producer.fraction(),
        }
    }

    /// For the producer to write to.
    pub(super) fn producer(&self) -> &producer::Status {
        self.produces.store(true, Relaxed);
        &self.producer
    }

    pub(super) fn waits_for(&self, parts: Vec<Ready>) {
        let _ = self.ready.set(parts);
    }

    /// Every part has accepted where it stands.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.get().is_some_and(|parts| parts.iter().all(Ready::is_set))
    }

    pub(super) fn stopped(&self) {
        self.running.store(false, Relaxed);
    }

    pub(super) fn set_caught_up(&self) {
        self.caught_up.store(true, Relaxed);
    }

    pub(super) fn has_caught_up(&self) -> bool {
        self.caught_up.load(Relaxed)
    }

    pub(super) fn saw(&self, lag: Vec<(&'static str, i64)>, taken_per_second: f64) {
        self.see(|seen| (seen.lag, seen.taken_per_second) = (lag, taken_per_second));
    }

    fn see<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn running(&self) -> bool {
        self.running.load(Relaxed)
    }

    pub(crate) fn status(&self) -> Status {
        let seen = self.see(|seen| seen.clone());
        Status {
            text: self.text(&seen),
            phase: format!("{:?}", self.producer.phase()).to_lowercase(),
            caught_up: self.has_caught_up(),
            fraction: self.producer.fraction(),
            events: self.producer.events(),
            events_per_second: seen.events_per_second,
            clock: self.producer.clock().map(|clock| clock.to_string()),
            lag: seen.lag.into_iter().collect(),
        }
    }

    fn text(&self, seen: &Seen) -> String {
        use producer::Phase;
        let each: Vec<_> =
            seen.lag.iter().map(|(part, lag)| format!("{part} {}", thousands(lag.unsigned_abs()))).collect();
        let lag = if each.is_empty() { String::new() } else { format!("lag: {}", each.join(", ")) };
        if !self.produces.load(Relaxed) {
            return if each.is_empty() {
                "starting".to_owned()
            } else {
                format!("{}/s  {lag}", whole(seen.taken_per_second))
            };
        }
        let clock = self.producer.clock().map_or_else(String::new, |clock| format!("clock {clock}  "));
        match self.producer.phase() {
            Phase::Opening => "opening the input".to_owned(),
            Phase::Skipping => {
                format!(
                    "going back to where it stopped: {} MB read over",
                    thousands(self.producer.bytes_skipped() / 1_000_000)
                )
            }
            Phase::Done if self.has_caught_up() => {
                format!("the input is done and every output has caught up  {clock}")
            }
            Phase::Done if each.is_empty() => format!("the input is done  {clock}"),
            Phase::Done => format!("the input is done; to catch up with: {}", each.join(", ")),
            Phase::Replaying => {
                let rate = whole(seen.events_per_second);
                let paused = if self.producer.is_paused() { "paused  " } else { "" };
                format!("{paused}{} events  {rate}/s  {clock}{lag}", thousands(self.producer.events()))
            }
        }
    }
}

/// Shows now and then how far the parts are.
pub(super) struct Look {
    next: Instant,
    next_line: Instant,
    lines: bool,
    last: (Instant, u64),
    /// Events a second, smoothed.
    rate: f64,
}

impl Look {
    pub(super) fn new(now: Instant, lines: bool) -> Self {
        Self { next: now, next_line: now + LINE_EVERY, lines, last: (now, 0), rate: 0.0 }
    }

    pub(super) fn at(&mut self, now: Instant, live: &Live, screen: &Screen) {
        if now < self.next {
            return;
        }
        self.next = now + SHOW_EVERY;
        let events = live.producer.events();
        let seconds = (now - self.last.0).as_secs_f64();
        if seconds > 0.0 {
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = events.saturating_sub(self.last.1) as f64 / seconds;
            self.rate = if self.rate == 0.0 { rate } else { 0.7 * self.rate + 0.3 * rate };
        }
        self.last = (now, events);
        let text = live.see(|seen| {
            seen.events_per_second = self.rate;
            live.text(seen)
        });
        if !self.lines || now >= self.next_line {
            self.next_line = now + LINE_EVERY;
            screen.show(&Progress { fraction: live.producer.fraction(), text });
        }
    }
}
