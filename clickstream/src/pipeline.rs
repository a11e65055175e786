//! The whole wiring: every part on a thread of its own, one broker between them.
//!
//! Caught up, of the sources that this run plays, means: the sessionizer has committed past the
//! ends of their feeds; then the ends of the topics are taken; then every sink has flushed what it
//! held and its position is at or past them.
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use broker::{Broker, Cancel, Cleanup, LogBounds, Offset, Ready, Target, Topic, TopicPartition, TopicSpec};
use crossbeam_channel::{Receiver, Sender, bounded, select, tick};
use prometheus::Registry;
use records::topics;
use serde::Serialize;

use crate::screen::{LINE_EVERY, Progress, Screen};
use crate::summary::{thousands, whole};

/// A drain takes at most this long; then the process leaves. Nothing is lost either way.
pub(crate) const GRACE: Duration = Duration::from_secs(9);

const TICK: Duration = Duration::from_millis(20);
/// How often the broker is asked how far each part is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What each part is told.
pub(crate) struct Parts {
    pub(crate) producer: producer::Settings,
    pub(crate) sessionizer: sessionizer::Settings,
    pub(crate) lake: consumer::lake::Settings,
    pub(crate) store: Arc<dyn object_store::ObjectStore>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) marts: marts::Settings,
    pub(crate) partitions: u32,
    pub(crate) prefix: String,
    /// Goes on when all has caught up, until a signal.
    pub(crate) stay: bool,
}

/// What the parts said at their end.
#[derive(Default)]
pub(crate) struct Reports {
    pub(crate) producer: Option<producer::Report>,
    pub(crate) sessionizer: Option<sessionizer::Report>,
    pub(crate) lake: Option<consumer::lake::Report>,
    pub(crate) marts: Option<marts::Report>,
    /// A signal ended the run.
    pub(crate) signalled: bool,
    pub(crate) elapsed: Duration,
}

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

    pub(crate) fn running(&self) -> bool {
        self.running.load(Relaxed)
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

/// A part that came to its end.
enum Ended {
    Producer(Result<producer::Report>),
    Sessionizer(Result<sessionizer::Report>),
    Lake(Result<consumer::lake::Report>),
    Marts(Result<marts::Report>),
}

struct Run {
    /// The producer, until every other part has accepted where it stands: nothing is sent before.
    waiting: Option<(producer::Settings, producer::Metrics)>,
    ready: [Ready; 3],
    broker: Arc<dyn Broker>,
    prefix: String,
    live: Arc<Live>,
    cancel: Cancel,
    target: Target,
    ended: (Sender<Ended>, Receiver<Ended>),
    threads: Vec<JoinHandle<()>>,
}

/// Runs all parts until the input is done and every output has caught up, or a signal comes, or a
/// part fails: then the others drain, and the first failure is returned.
pub(crate) fn run(
    broker: Arc<dyn Broker>,
    parts: Parts,
    registry: &Registry,
    live: Arc<Live>,
    signals: &Receiver<i32>,
    screen: &Screen,
) -> Result<Reports> {
    create_topics(broker.as_ref(), &parts)?;
    let mut run = Run {
        waiting: None,
        ready: [parts.sessionizer.ready.clone(), parts.lake.ready.clone(), parts.marts.ready.clone()],
        broker,
        prefix: parts.prefix.clone(),
        live,
        cancel: Cancel::new(),
        target: Target::new(),
        ended: bounded(4),
        threads: Vec::new(),
    };
    let stay = parts.stay;
    run.start(parts, registry)?;
    let done = run.supervise(stay, signals, screen);
    run.live.running.store(false, Relaxed);
    screen.clear();
    done
}

fn topic(prefix: &str, name: &str) -> Topic {
    Topic::from(format!("{prefix}{name}").as_str())
}

/// The groups and what they read, registered before the first write.
fn create_topics(broker: &dyn Broker, parts: &Parts) -> Result<()> {
    /// People look at dead letters after the groups have done with them.
    const DEAD_LETTERS_KEPT_BYTES: u64 = 64 << 20;
    let spec = |name: &str, partitions, cleanup| TopicSpec { topic: topic(&parts.prefix, name), partitions, cleanup };
    broker.create_topics(&[
        spec(topics::EVENTS, parts.partitions, Cleanup::Delete),
        spec(topics::FUNNEL_STEPS, parts.partitions, Cleanup::Delete),
        spec(topics::SESSIONS, parts.partitions, Cleanup::Delete),
        spec(topics::DEAD_LETTERS, 1, Cleanup::Bounded { bytes: DEAD_LETTERS_KEPT_BYTES }),
        spec(topics::REPLAY_PROGRESS, 1, Cleanup::Compact),
        spec(topics::REPLAY_CONTROL, 1, Cleanup::Compact),
    ])?;
    for (part, names) in READS {
        let topics: Vec<_> = names.iter().map(|name| topic(&parts.prefix, name)).collect();
        for (partition, missed) in broker.register_group(&format!("{}{part}", parts.prefix), &topics)? {
            tracing::warn!("{part} begins late: {missed} records of {partition} are gone and will be missing from it");
        }
    }
    Ok(())
}

/// Each group and the topics that it reads.
const READS: [(&str, &[&str]); 3] = [
    ("sessionizer", &[topics::EVENTS]),
    ("lake", &consumer::lake::TOPICS),
    ("marts", &[topics::EVENTS, topics::FUNNEL_STEPS, topics::SESSIONS]),
];

impl Run {
    fn start(&mut self, parts: Parts, registry: &Registry) -> Result<()> {
        let Parts { producer, sessionizer, lake, store, runtime, marts, .. } = parts;
        self.waiting = Some((producer, producer::Metrics::register(registry)?));
        let metrics = sessionizer::Metrics::register(registry)?;
        let (broker, cancel) = (Arc::clone(&self.broker), self.cancel.clone());
        self.spawn("sessionizer", move || {
            let report = sessionizer::run(broker.as_ref(), &sessionizer, &metrics, &cancel);
            Ended::Sessionizer(report.map_err(Into::into))
        })?;
        let metrics = consumer::lake::Metrics::register(registry)?;
        let (broker, cancel, target) = (Arc::clone(&self.broker), self.cancel.clone(), self.target.clone());
        self.spawn("lake", move || {
            let report = consumer::lake::run(broker.as_ref(), &lake, store, &runtime, &metrics, &target, &cancel);
            Ended::Lake(report.map_err(Into::into))
        })?;
        let metrics = marts::Metrics::register(registry)?;
        let (broker, cancel, target) = (Arc::clone(&self.broker), self.cancel.clone(), self.target.clone());
        self.spawn("marts", move || {
            let report = marts::run(broker.as_ref(), &marts, &metrics, &target, &cancel);
            Ended::Marts(report.map_err(Into::into))
        })
    }

    /// Starts the producer once every other part is ready; true if it did.
    fn start_producer(&mut self) -> Result<bool> {
        if !self.ready.iter().all(Ready::is_set) {
            return Ok(false);
        }
        let Some((settings, metrics)) = self.waiting.take() else { return Ok(false) };
        let (broker, cancel, status) = (Arc::clone(&self.broker), self.cancel.clone(), self.live.producer.clone());
        self.spawn("producer", move || {
            let report = producer::run(broker.as_ref(), &settings, &metrics, &status, &cancel);
            Ended::Producer(report.map_err(Into::into))
        })?;
        Ok(true)
    }

    fn spawn(&mut self, name: &str, part: impl FnOnce() -> Ended + Send + 'static) -> Result<()> {
        let send = self.ended.0.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = send.send(part());
        });
        self.threads.push(thread.with_context(|| format!("the thread of {name} cannot be started"))?);
        Ok(())
    }

    fn supervise(&mut self, stay: bool, signals: &Receiver<i32>, screen: &Screen) -> Result<Reports> {
        let started = records::clock::now();
        let mut reports = Reports::default();
        let mut failure = None;
        let mut running = self.threads.len();
        let mut look = Look::new(started, screen.writes_lines());
        // Set when the parts are told to drain.
        let mut leave_by: Option<Instant> = None;
        let mut caught_up = false;
        let ticks = tick(TICK);
        while running > 0 {
            select! {
                recv(self.ended.1) -> ended => {
                    running -= 1;
                    if let Err(error) = reports.take(ended?) {
                        self.live.running.store(false, Relaxed);
                        failure.get_or_insert(error);
                    }
                }
                recv(signals) -> _ => {
                    if leave_by.is_none() && !caught_up {
                        screen.say("clickstream: draining; once more to leave at once");
                    }
                    reports.signalled = true;
                }
                recv(ticks) -> _ => {}
            }
            if leave_by.is_none() && self.start_producer()? {
                running += 1;
            }
            let now = records::clock::now();
            look.at(now, self, screen)?;
            let finished = reports.producer.as_ref().is_some_and(|p| p.outcome != producer::Outcome::Drained);
            if finished && !caught_up && failure.is_none() {
                caught_up = self.caught_up()?;
                if caught_up {
                    reports.elapsed = now - started;
                    self.live.seen.lock().unwrap_or_else(PoisonError::into_inner).caught_up = true;
                    if stay {
                        screen.say("clickstream: the input is done and every output has caught up; Ctrl-C ends this");
                    }
                }
            }
            let end = failure.is_some() || reports.signalled || (caught_up && !stay);
            if end && leave_by.is_none() {
                self.cancel.cancel();
                leave_by = Some(now + GRACE);
            }
            if leave_by.is_some_and(|by| now > by) {
                let why = anyhow!("a part did not drain within {GRACE:?}; nothing is lost, the same command goes on");
                return Err(failure.unwrap_or(why));
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if !caught_up {
            reports.elapsed = records::clock::now() - started;
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(reports),
        }
    }

    /// True once every sink is at or past the ends that were taken when the sessionizer was.
    fn caught_up(&self) -> Result<bool> {
        if self.target.get().is_none() {
            if self.lag("sessionizer")? > 0 {
                return Ok(false);
            }
            // The sessionizer writes nothing more for these feeds: the ends are final.
            let mut ends = HashMap::new();
            for name in consumer::lake::TOPICS {
                ends.extend(self.bounds(name)?.into_iter().map(|(partition, bounds)| (partition, bounds.end)));
            }
            self.target.set(ends);
        }
        Ok(self.lag("lake")? == 0 && self.lag("marts")? == 0)
    }

    fn bounds(&self, name: &str) -> Result<Vec<(TopicPartition, LogBounds)>> {
        let topic = topic(&self.prefix, name);
        let info = self.broker.describe(&topic)?.with_context(|| format!("the topic {topic} is gone"))?;
        Ok((0..).zip(info.partitions).map(|(p, bounds)| (TopicPartition::new(&topic, p), bounds)).collect())
    }

    /// Records that the part has not committed yet, up to the target where it is set.
    fn lag(&self, part: &str) -> Result<i64> {
        let names = READS.iter().find(|(name, _)| *name == part).map_or(&[][..], |(_, names)| names);
        let mut lag = 0;
        for name in names {
            let bounds = self.bounds(name)?;
            let partitions: Vec<_> = bounds.iter().map(|(partition, _)| partition.clone()).collect();
            let committed = self.broker.committed(&format!("{}{part}", self.prefix), &partitions)?;
            for ((partition, bounds), committed) in bounds.iter().zip(committed) {
                let end = match self.target.get().and_then(|ends| ends.get(partition)) {
                    Some(end) if part != "sessionizer" => *end,
                    _ => bounds.end,
                };
                let Offset(at) = committed.map_or(bounds.start, |committed| committed.offset);
                lag += (end.0 - at).max(0);
            }
        }
        Ok(lag)
    }
}

impl Reports {
    fn take(&mut self, ended: Ended) -> Result<()> {
        match ended {
            Ended::Producer(report) => self.producer = Some(report?),
            Ended::Sessionizer(report) => self.sessionizer = Some(report?),
            Ended::Lake(report) => self.lake = Some(report?),
            Ended::Marts(report) => self.marts = Some(report?),
        }
        Ok(())
    }
}

/// Looks at how far the parts are, now and then, and shows it.
struct Look {
    next: Instant,
    next_line: Instant,
    lines: bool,
    last: (Instant, u64),
    /// Events a second, smoothed.
    rate: f64,
}

impl Look {
    fn new(now: Instant, lines: bool) -> Self {
        Self { next: now, next_line: now + LINE_EVERY, lines, last: (now, 0), rate: 0.0 }
    }

    fn at(&mut self, now: Instant, run: &Run, screen: &Screen) -> Result<()> {
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
        let text = {
            let mut seen = run.live.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.lag = lag;
            seen.events_per_second = self.rate;
            run.live.text(&seen)
        };
        if !self.lines || now >= self.next_line {
            self.next_line = now + LINE_EVERY;
            screen.show(&Progress { fraction: run.live.producer.fraction(), text });
        }
        Ok(())
    }
}
