//! How far the parts are: for the page, the API and the progress.
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::Run;
use super::topics::READS;
use crate::screen::{LINE_EVERY, Progress, Screen};
use crate::summary::{thousands, whole};

/// How often the broker is asked how far each part is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How far the run is, for the page and the progress.
pub(crate) struct Live {
    producer: producer::Status,
    running: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Clone, Default)]
struct Seen {
    events_per_second: f64,
    /// Records that each part has yet to commit.
    lag: Vec<(&'static str, i64)>,
    caught_up: bool,
}

#[derive(Serialize)]
pub(crate) struct Status {
    text: String,
    phase: String,
    fraction: Option<f64>,
    events: u64,
    events_per_second: f64,
    clock: Option<String>,
    lag: HashMap<&'static str, i64>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self { producer: producer::Status::new(), running: AtomicBool::new(true), seen: Mutex::default() }
    }

    pub(super) fn producer(&self) -> &producer::Status {
        &self.producer
    }

    pub(super) fn stopped(&self) {
        self.running.store(false, Relaxed);
    }

    pub(super) fn caught_up(&self) {
        self.see(|seen| seen.caught_up = true);
    }

    fn see<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn running(&self) -> bool {
        self.running.load(Relaxed)
    }

    fn seen(&self) -> Seen {
        self.see(|seen| seen.clone())
    }

    pub(crate) fn status(&self) -> Status {
        let seen = self.seen();
        Status {
            text: self.text(&seen),
            phase: format!("{:?}", self.producer.phase()).to_lowercase(),
            fraction: self.producer.fraction(),
            events: self.producer.events(),
            events_per_second: seen.events_per_second,
            clock: self.producer.clock().map(|clock| clock.to_string()),
            lag: seen.lag.into_iter().collect(),
        }
    }

    fn text(&self, seen: &Seen) -> String {
        use producer::Phase;
        let lag: Vec<_> =
            seen.lag.iter().map(|(part, lag)| format!("{part} {}", thousands(lag.unsigned_abs()))).collect();
        let clock = self.producer.clock().map_or_else(String::new, |clock| format!("clock {clock}  "));
        match self.producer.phase() {
            Phase::Opening => "opening the input".to_owned(),
            Phase::Skipping => {
                format!(
                    "going back to where it stopped: {} MB read over",
                    thousands(self.producer.bytes_skipped() / 1_000_000)
                )
            }
            Phase::Done if seen.caught_up => format!("the input is done and every output has caught up  {clock}"),
            Phase::Done => format!("the input is done; to catch up with: {}", lag.join(", ")),
            Phase::Replaying => {
                let rate = whole(seen.events_per_second);
                format!("{} events  {rate}/s  {clock}lag: {}", thousands(self.producer.events()), lag.join(", "))
            }
        }
    }
}

/// Looks at how far the parts are, now and then, and shows it.
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

    pub(super) fn at(&mut self, now: Instant, run: &Run, screen: &Screen) -> Result<()> {
        if now < self.next {
            return Ok(());
        }
        self.next = now + LOOK_EVERY;
        let events = run.live.producer.events();
        let seconds = (now - self.last.0).as_secs_f64();
        if seconds > 0.0 {
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = events.saturating_sub(self.last.1) as f64 / seconds;
            self.rate = if self.rate == 0.0 { rate } else { 0.7 * self.rate + 0.3 * rate };
        }
        self.last = (now, events);
        let mut lag = Vec::with_capacity(READS.len());
        for (part, _) in READS {
            lag.push((part, run.lag(part)?));
        }
        let text = run.live.see(|seen| {
            seen.lag = lag;
            seen.events_per_second = self.rate;
            run.live.text(seen)
        });
        if !self.lines || now >= self.next_line {
            self.next_line = now + LINE_EVERY;
            screen.show(&Progress { fraction: run.live.producer.fraction(), text });
        }
        Ok(())
    }
}
