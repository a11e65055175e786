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
    plays: AtomicBool,
    running: AtomicBool,
    caught_up: AtomicBool,
    /// The input is done, and only parts that are stuck have something to do.
    only_stuck_are_left: AtomicBool,
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
    at: Vec<At>,
    /// Parts that are begun again and again because what they write to cannot be reached, and the
    /// position at which each was first seen so: one that has moved on is stuck no more.
    stuck: Vec<(&'static str, Option<i64>)>,
}

/// How far a part is.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) part: &'static str,
    /// The sum over its partitions.
    pub(super) position: i64,
    /// Records that it has yet to commit.
    pub(super) lag: i64,
}

impl Seen {
    fn is_stuck(&self, part: &str) -> bool {
        self.stuck.iter().any(|(stuck, _)| *stuck == part)
    }

    /// The parts that are stuck no more.
    fn saw(&mut self, at: Vec<At>) -> Vec<&'static str> {
        let mut moved_on = Vec::new();
        for At { part, position, lag } in &at {
            self.stuck.retain_mut(|(stuck, since)| {
                let moves = stuck == part && (*lag == 0 || *position > *since.get_or_insert(*position));
                moved_on.extend(moves.then_some(*part));
                !moves
            });
        }
        self.at = at;
        moved_on
    }
}

#[derive(Serialize)]
pub(crate) struct Status {
    text: String,
    /// None where this process plays nothing.
    phase: Option<String>,
    /// The input is done, and every output has caught up.
    caught_up: bool,
    /// Of the pass.
    fraction: Option<f64>,
    /// Of the source, as far as this process's shard has sent it, in all passes and runs.
    events: u64,
    events_this_run: u64,
    events_per_second: f64,
    clock: Option<String>,
    lag: HashMap<&'static str, i64>,
    stuck: Vec<&'static str>,
}

/// What `GET /replay` says.
#[derive(Serialize)]
pub(crate) struct Replay {
    plays: bool,
    /// 8 hex digits; of a loop, its first pass.
    source: Option<String>,
    shard: u32,
    shards: u32,
    loops: bool,
    /// From 0.
    pass: u32,
    phase: String,
    /// speed, rate, rates or flat-out.
    going: &'static str,
    paused: bool,
    speed: Option<f64>,
    rate: Option<f64>,
    /// Event time, as far as it is committed.
    clock: Option<String>,
    /// Of the source, as far as this shard has sent it, in all passes and runs.
    events: u64,
    events_this_run: u64,
    /// Of the pass.
    fraction: Option<f64>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            producer: producer::Status::new(),
            plays: AtomicBool::new(false),
            running: AtomicBool::new(true),
            caught_up: AtomicBool::new(false),
            only_stuck_are_left: AtomicBool::new(false),
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
        let shard = producer.shard();
        Replay {
            plays: self.plays(),
            source: producer.source().map(|source| source.to_string()),
            shard: shard.number,
            shards: shard.of,
            loops: producer.loops(),
            pass: producer.pass(),
            phase: format!("{:?}", producer.phase()).to_lowercase(),
            going,
            paused: producer.is_paused(),
            speed,
            rate,
            clock: producer.clock().map(|clock| clock.to_string()),
            events: producer.events(),
            events_this_run: producer.events_this_run(),
            fraction: producer.fraction(),
        }
    }

    /// What is played here at this moment, by its first pass and its shard.
    pub(crate) fn playing(&self) -> Option<(SourceId, u32)> {
        let source = self.producer.source().filter(|_| self.producer.phase() != producer::Phase::Done)?;
        Some((source, self.producer.shard().number))
    }

    /// For the producer to write to.
    pub(super) fn producer(&self) -> &producer::Status {
        &self.producer
    }

    /// The producer is one of this process's parts.
    pub(crate) fn set_plays(&self) {
        self.plays.store(true, Relaxed);
    }

    pub(crate) fn plays(&self) -> bool {
        self.plays.load(Relaxed)
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

    pub(super) fn saw(&self, at: Vec<At>, taken_per_second: f64) {
        let moved_on = self.see(|seen| {
            seen.taken_per_second = taken_per_second;
            seen.saw(at)
        });
        for part in moved_on {
            tracing::info!("{part}: what it writes to can be reached again");
        }
    }

    /// What the part writes to cannot be reached; true if that is new.
    pub(super) fn set_stuck(&self, part: &'static str) -> bool {
        self.see(|seen| {
            let is_new = !seen.is_stuck(part);
            if is_new {
                seen.stuck.push((part, None));
            }
            is_new
        })
    }

    pub(super) fn stuck(&self) -> Vec<&'static str> {
        self.see(|seen| seen.stuck.iter().map(|(part, _)| *part).collect())
    }

    /// The sinks that are not at the end of what there is for them, now that nothing more comes.
    pub(super) fn set_behind(&self, behind: &[&str]) {
        let only_stuck = !behind.is_empty() && self.see(|seen| behind.iter().all(|part| seen.is_stuck(part)));
        self.only_stuck_are_left.store(only_stuck, Relaxed);
    }

    pub(super) fn only_stuck_are_left(&self) -> bool {
        self.only_stuck_are_left.load(Relaxed)
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
            phase: self.plays().then(|| format!("{:?}", self.producer.phase()).to_lowercase()),
            caught_up: self.has_caught_up(),
            fraction: self.producer.fraction(),
            events: self.producer.events(),
            events_this_run: self.producer.events_this_run(),
            events_per_second: seen.events_per_second,
            clock: self.producer.clock().map(|clock| clock.to_string()),
            lag: seen.at.iter().map(|at| (at.part, at.lag)).collect(),
            stuck: seen.stuck.iter().map(|(part, _)| *part).collect(),
        }
    }

    fn text(&self, seen: &Seen) -> String {
        use producer::Phase;
        let of = |At { part, lag, .. }: &At| {
            let stuck = if seen.is_stuck(part) { " (stuck: what it writes to cannot be reached)" } else { "" };
            format!("{part} {}{stuck}", thousands(lag.unsigned_abs()))
        };
        let each: Vec<_> = seen.at.iter().map(of).collect();
        let lag = if each.is_empty() { String::new() } else { format!("lag: {}", each.join(", ")) };
        if !self.plays() {
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
                // The bar and its percentage are the pass's.
                let pass =
                    if self.producer.loops() { format!("of pass {}  ", self.producer.pass()) } else { String::new() };
                format!("{pass}{paused}{} events  {rate}/s  {clock}{lag}", thousands(self.producer.events()))
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
        let events = live.producer.events_this_run();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_stuck_until_it_moves_on() {
        let live = Live::new();
        let at = |position, lag| vec![At { part: "marts", position: 9, lag: 0 }, At { part: "lake", position, lag }];
        for (case, seen, behind, stuck, only_stuck_are_left) in [
            ("as it was", at(5, 4), &[][..], true, false),
            ("still so", at(5, 9), &["lake", "marts"], true, false),
            ("the others are done", at(5, 9), &["lake"], true, true),
            ("it has moved on", at(6, 8), &["lake"], false, false),
        ] {
            if stuck {
                assert_eq!(live.set_stuck("lake"), case == "as it was", "said once: {case}");
            }
            live.saw(seen, 0.0);
            live.set_behind(behind);
            assert_eq!((!live.stuck().is_empty(), live.only_stuck_are_left()), (stuck, only_stuck_are_left), "{case}");
            assert_eq!(live.status().text.contains("(stuck"), stuck, "{case}");
        }
        assert!(live.set_stuck("lake"), "and is told anew");
        live.saw(at(6, 0), 0.0);
        assert!(live.stuck().is_empty(), "who has all of it is not stuck");
    }
}
