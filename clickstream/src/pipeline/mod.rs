//! The whole wiring: every part on a thread of its own, one broker between them.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | [`Parts`], and the wiring of those that are asked for |
//! | `supervise` | their common life: a signal, a failure, the end |
//! | `topics` | the topics, and who reads them |
//! | `watch` | how far the parts are behind, and when all have caught up |
//! | `live` | the same for the page, the API and the progress |
//!
//! Caught up, of the sources that this run plays, means: the sessionizer has committed past the
//! ends of their feeds; then the ends of the topics are taken; then every sink has flushed what it
//! held and its position is at or past them. What other processes write to the same topics delays
//! nothing of it.

mod live;
mod supervise;
mod topics;
mod watch;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use broker::{Broker, Cancel, Ready, Target};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use prometheus::Registry;
use records::clock;

pub(crate) use self::live::Live;
pub(crate) use self::topics::{Topics, partitions, specs, topic};
use self::watch::Watch;
use crate::patience::Patience;
use crate::screen::Screen;
use crate::unfinished::{Reach, Unfinished};

/// What each part is told; None for one that does not run in this process.
pub(crate) struct Parts {
    pub(crate) producer: Option<producer::Settings>,
    pub(crate) sessionizer: Option<sessionizer::Settings>,
    /// The members of its group.
    pub(crate) lake: Vec<Lake>,
    pub(crate) warehouse: Option<Warehouse>,
    pub(crate) marts: Option<marts::Settings>,
    pub(crate) topics: Topics,
    pub(crate) prefix: String,
    /// Goes on when all has caught up, until a signal.
    pub(crate) stay: bool,
}

#[derive(Clone)]
pub(crate) struct Lake {
    pub(crate) settings: consumer::lake::Settings,
    pub(crate) store: Arc<dyn object_store::ObjectStore>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) metrics: consumer::lake::Metrics,
}

impl Lake {
    /// As so many members of its group, which share the work and the memory.
    pub(crate) fn members(self, of: usize) -> Vec<Self> {
        (0..of).map(|number| Self { settings: self.settings.member(number, of), ..self.clone() }).collect()
    }
}

pub(crate) struct Warehouse {
    pub(crate) settings: consumer::warehouse::Settings,
    pub(crate) backend: consumer::warehouse::BigQuery,
    /// Where the dataset is.
    pub(crate) location: String,
    pub(crate) metrics: consumer::warehouse::Metrics,
}

/// What the parts said at their end.
#[derive(Default)]
pub(crate) struct Reports {
    pub(crate) producer: Option<producer::Report>,
    pub(crate) sessionizer: Option<sessionizer::Report>,
    pub(crate) lake: Option<consumer::lake::Report>,
    pub(crate) warehouse: Option<consumer::warehouse::Report>,
    pub(crate) marts: Option<marts::Report>,
    /// Every source, as it stood when the input was done and the parts had ended.
    pub(crate) standings: Vec<producer::Standing>,
    /// A signal ended the run.
    pub(crate) signalled: bool,
    /// The input was done, and every output had caught up, before anything ended the run.
    pub(crate) caught_up: bool,
    pub(crate) elapsed: Duration,
}

impl Reports {
    /// What has not ended is looked at when all is done: what others play may have ended meanwhile.
    fn look(&mut self, broker: &dyn Broker, prefix: &str) {
        let is_done = self.producer.as_ref().is_some_and(|report| report.outcome != producer::Outcome::Drained);
        if is_done && broker.answers() {
            match producer::standings(broker, prefix) {
                Ok(standings) => self.standings = standings,
                Err(error) => tracing::debug!(%error, "what has not ended is not known now"),
            }
        }
    }

    pub(crate) fn unfinished(&self, reach: &Reach) -> Vec<Unfinished> {
        self.producer.as_ref().map_or_else(Vec::new, |report| reach.unfinished(&self.standings, report.feed))
    }
}

/// A part that came to its end.
enum Ended {
    Producer(Result<producer::Report>),
    Sessionizer(Result<sessionizer::Report>),
    /// The lake or the warehouse.
    Sink(Result<()>),
    Marts(Result<marts::Report>),
    Watch(anyhow::Error),
}

struct Run {
    /// The producer, until every other part has accepted where it stands: nothing is sent before.
    waiting: Option<(producer::Settings, producer::Metrics)>,
    ready: Vec<Ready>,
    broker: Arc<dyn Broker>,
    live: Arc<Live>,
    cancel: Cancel,
    target: Target,
    ended: (Sender<Ended>, Receiver<Ended>),
    threads: Vec<JoinHandle<()>>,
    /// Tells the watch that the input is done; it ends when this goes.
    input_done: Sender<()>,
}

/// The sinks, as threads, groups and people know them.
const LAKE: &str = "lake";
const WAREHOUSE: &str = "warehouse";

/// More than there are parts: none waits to say that it has ended.
const PARTS_AT_MOST: usize = 16;

/// Runs the parts until the input is done and every output has caught up, or a signal comes, or a
/// part fails: then the others drain, and the first failure is returned. A sink whose store cannot be
/// reached has not failed while others have work to do.
pub(crate) fn run(
    broker: Arc<dyn Broker>,
    parts: Parts,
    registry: &Registry,
    live: Arc<Live>,
    signals: &Receiver<i32>,
    screen: &Screen,
) -> Result<Reports> {
    let mut patience = Patience::new(clock::now());
    while let Err(error) = topics::prepare(broker.as_ref(), &parts) {
        let wait = patience.wait(clock::now()).filter(|_| may_pass(&error));
        let Some(wait) = wait else { return Err(error) };
        if !matches!(signals.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
            return Ok(Reports { signalled: true, ..Reports::default() });
        }
    }
    let target = Target::new();
    let groups = topics::groups(&parts);
    let watch = Watch::new(Arc::clone(&broker), &parts.prefix, groups, Arc::clone(&live), target.clone(), registry)?;
    let (input_done, done) = bounded(1);
    let mut run = Run {
        waiting: None,
        ready: Vec::new(),
        broker,
        live,
        cancel: Cancel::new(),
        target,
        ended: bounded(PARTS_AT_MOST),
        threads: Vec::new(),
        input_done,
    };
    let (stay, prefix) = (parts.stay, parts.prefix.clone());
    let of_lake = parts.lake.first().map(|lake| lake.metrics.clone());
    let of_warehouse = parts.warehouse.as_ref().map(|warehouse| warehouse.metrics.clone());
    run.wire(parts, registry)?;
    run.live.waits_for(run.ready.clone());
    let ended = run.ended.0.clone();
    let watching = std::thread::Builder::new().name("watch".to_owned()).spawn(move || watch.run(&done, &ended))?;
    let is_embedded = run.broker.kind() == "embedded";
    let mut done = run.supervise(stay, signals, screen);
    run.live.stopped();
    if let Ok(reports) = &mut done {
        reports.look(run.broker.as_ref(), &prefix);
    }
    drop(run);
    // The embedded log is closed by the last who has it. A cluster may keep the watch waiting, and nobody
    // waits for that.
    if is_embedded {
        let _ = watching.join();
    }
    screen.clear();
    let mut reports = done?;
    // Of all members, and as often as they were begun.
    reports.lake = of_lake.as_ref().map(consumer::lake::Report::of);
    reports.warehouse = of_warehouse.as_ref().map(consumer::warehouse::Report::of);
    Ok(reports)
}

impl Run {
    fn wire(&mut self, parts: Parts, registry: &Registry) -> Result<()> {
        if let Some(settings) = parts.sessionizer {
            let metrics = sessionizer::Metrics::register(registry)?;
            let (broker, cancel) = (Arc::clone(&self.broker), self.cancel.clone());
            self.ready.push(settings.ready.clone());
            self.spawn("sessionizer", move || {
                let run = || Ok(sessionizer::run(broker.as_ref(), &settings, &metrics, &cancel)?);
                Ended::Sessionizer(patiently(&settings.ready, &cancel, run))
            })?;
        }
        // Where there are no others, whoever started it starts it again.
        let others = (parts.producer.is_some()).then(|| Others { live: Arc::clone(&self.live), stay: parts.stay });
        if let Some(settings) = parts.producer {
            self.waiting = Some((settings, producer::Metrics::register(registry)?));
        }
        for Lake { settings, store, runtime, metrics } in parts.lake {
            let (broker, cancel, target) = (Arc::clone(&self.broker), self.cancel.clone(), self.target.clone());
            let others = others.clone();
            self.ready.push(settings.ready.clone());
            self.spawn(LAKE, move || {
                let run = || {
                    let store = Arc::clone(&store);
                    let broker = broker.as_ref();
                    Ok(consumer::lake::run(broker, &settings, store, &runtime, &metrics, &target, &cancel)?)
                };
                Ended::Sink(beside(others.as_ref(), LAKE, &settings.ready, &cancel, run))
            })?;
        }
        if let Some(Warehouse { settings, backend, metrics, .. }) = parts.warehouse {
            let (broker, cancel, target) = (Arc::clone(&self.broker), self.cancel.clone(), self.target.clone());
            let others = others.clone();
            self.ready.push(settings.ready.clone());
            self.spawn(WAREHOUSE, move || {
                let broker = broker.as_ref();
                let run = || {
                    consumer::warehouse::run(broker, &settings, &backend, &metrics, &target, &cancel)?;
                    Ok(())
                };
                Ended::Sink(beside(others.as_ref(), WAREHOUSE, &settings.ready, &cancel, run))
            })?;
        }
        if let Some(settings) = parts.marts {
            let metrics = marts::Metrics::register(registry)?;
            let (broker, cancel, target) = (Arc::clone(&self.broker), self.cancel.clone(), self.target.clone());
            self.ready.push(settings.ready.clone());
            self.spawn("marts", move || {
                let run = || Ok(marts::run(broker.as_ref(), &settings, &metrics, &target, &cancel)?);
                Ended::Marts(patiently(&settings.ready, &cancel, run))
            })?;
        }
        Ok(())
    }

    /// Starts the producer, once every other part is ready.
    fn start_producer(&mut self) -> Result<()> {
        if !self.ready.iter().all(Ready::is_set) {
            return Ok(());
        }
        let Some((settings, metrics)) = self.waiting.take() else { return Ok(()) };
        let (broker, cancel, status) = (Arc::clone(&self.broker), self.cancel.clone(), self.live.producer().clone());
        self.spawn("producer", move || {
            let report = producer::run(broker.as_ref(), &settings, &metrics, &status, &cancel);
            Ended::Producer(report.map_err(Into::into))
        })
    }

    fn spawn(&mut self, name: &str, part: impl FnOnce() -> Ended + Send + 'static) -> Result<()> {
        let send = self.ended.0.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = send.send(part());
        });
        self.threads.push(thread.with_context(|| format!("the thread of {name} cannot be started"))?);
        Ok(())
    }
}

/// Begins a part again that could not begin for a reason that may pass. From then on it helps itself.
fn patiently<R: Default>(ready: &Ready, cancel: &Cancel, run: impl Fn() -> Result<R>) -> Result<R> {
    let mut patience = Patience::new(clock::now());
    loop {
        let error = match run() {
            Err(error) if !ready.is_set() && may_pass(&error) => error,
            done => return done,
        };
        let Some(wait) = patience.wait(clock::now()) else { return Err(error) };
        if patience.is_first() {
            tracing::warn!("{}; trying on", crate::exit::explain(&error));
        }
        if cancel.wait(wait) {
            return Ok(R::default());
        }
    }
}

/// What runs beside a sink.
#[derive(Clone)]
struct Others {
    live: Arc<Live>,
    stay: bool,
}

/// A sink: beside others it is begun again for as long as its store cannot be reached and they have
/// work to do, and once more after that.
fn beside(
    others: Option<&Others>,
    part: &'static str,
    ready: &Ready,
    cancel: &Cancel,
    run: impl Fn() -> Result<()>,
) -> Result<()> {
    let Some(Others { live, stay }) = others else { return patiently(ready, cancel, run) };
    let mut patience = Patience::endless();
    loop {
        let is_last = !stay && live.only_stuck_are_left();
        let error = match patiently(ready, cancel, &run) {
            Err(error) if ready.is_set() && !is_last && !cancel.is_cancelled() && is_unavailable(&error) => error,
            done => return done,
        };
        if live.set_stuck(part) {
            tracing::warn!("{error:#}; it is tried on, and the other parts go on");
            patience = Patience::endless();
        }
        if patience.wait(clock::now()).is_none_or(|wait| cancel.wait(wait)) {
            return Ok(());
        }
    }
}

/// Whether a sink's store, or the broker, did not answer in time.
fn is_unavailable(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(consumer::lake::Error::Unavailable(_)))
        || matches!(error.downcast_ref(), Some(consumer::warehouse::Error::Unavailable(_)))
}

/// Whether a part, or a question to the broker, failed for want of an answer only.
fn may_pass(error: &anyhow::Error) -> bool {
    use broker::Error::{Abort, Retry};
    let of_broker = |error: &broker::Error| matches!(error, Retry(_) | Abort(_));
    error.downcast_ref().is_some_and(of_broker)
        || matches!(error.downcast_ref(), Some(sessionizer::Error::Broker { source, .. }) if of_broker(source))
        || is_unavailable(error)
        || matches!(error.downcast_ref(), Some(marts::Error::Broker(source)) if of_broker(source))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use consumer::lake::Error::{Stop, Unavailable};

    use super::*;

    #[test]
    fn a_sink_is_begun_again_while_others_have_work_to_do() {
        let live = Arc::new(Live::new());
        let (ready, cancel) = (Ready::default(), Cancel::new());
        ready.set();
        let of = |stay| Some(Others { live: Arc::clone(&live), stay });
        // Unavailable so often, and then well or refused.
        for (case, others, outages, refused, only_stuck_are_left, attempts, ends_well) in [
            ("well", of(false), 0, false, false, 1, true),
            ("an outage", of(false), 2, false, false, 3, true),
            ("refused after it", of(false), 1, true, false, 2, false),
            ("with nobody beside it", None, 2, false, false, 1, false),
            ("the others are done", of(false), 2, false, true, 1, false),
            ("and the run stays", of(true), 2, false, true, 3, true),
        ] {
            live.set_stuck(LAKE);
            live.set_behind(if only_stuck_are_left { &[LAKE] } else { &[] });
            let made = Cell::new(0);
            let run = || {
                made.set(made.get() + 1);
                match refused {
                    _ if made.get() <= outages => Err(Unavailable("no answer".to_owned()).into()),
                    true => Err(Stop("no".to_owned()).into()),
                    false => Ok(()),
                }
            };
            let ended = beside(others.as_ref(), LAKE, &ready, &cancel, run);
            assert_eq!((made.get(), ended.is_ok()), (attempts, ends_well), "{case}: {ended:?}");
        }
    }
}
