//! The part: poll, fold, commit to `marts.db`, then to the broker.
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use broker::{
    Backoff, Batch, Broker, Cancel, Commit, Incarnation, Polled, Reader, Ready, Target, Topic, TopicPartition,
};
use records::clock;

use crate::deltas::Input;
use crate::error::{Error, Result};
use crate::fold::Pending;
use crate::metrics::Metrics;
use crate::position::{self, Log, Names, Position};
use crate::store::{Lock, Store};

/// The longest a poll waits, so that a cancel is seen.
const POLL: Duration = Duration::from_millis(100);
const POLL_RECORDS: usize = 32_768;
const POLL_BYTES: usize = 8 << 20;

/// Attempts at what may go through later, and the wait between them at most.
const ATTEMPTS: u32 = 20;
const BACK_OFF: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct Settings {
    /// Of `marts.db`.
    pub path: PathBuf,
    /// Its lock, where it was taken before; None: it is taken at the start.
    pub lock: Option<Arc<Lock>>,
    /// Of the topics' names.
    pub prefix: String,
    /// What the offsets are committed to the broker as. A further marts process has its own.
    pub group: String,
    /// The broker as the user knows it, for errors: the path of `broker.db`, or `kafka://…`.
    pub broker_name: String,
    /// The wait from the first record to its commit.
    pub commit_after: Duration,
    /// Set once the positions are accepted.
    pub ready: Ready,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Committed records of the topics; watermarks and what was unreadable are among them.
    pub events: u64,
    pub funnel_steps: u64,
    pub sessions: u64,
    pub unreadable: u64,
    pub commits: u64,
}

impl Settings {
    pub fn new(path: impl Into<PathBuf>, prefix: &str, broker_name: &str) -> Self {
        Self {
            path: path.into(),
            lock: None,
            prefix: prefix.into(),
            group: format!("{prefix}marts"),
            broker_name: broker_name.into(),
            commit_after: Duration::from_millis(100),
            ready: Ready::default(),
        }
    }

    /// The topics that are read, for `Broker::register_group`.
    pub fn topics(&self) -> Vec<Topic> {
        Input::ALL.iter().map(|input| self.topic(*input)).collect()
    }

    fn topic(&self, input: Input) -> Topic {
        Topic::from(format!("{}{}", self.prefix, input.topic()).as_str())
    }
}

/// Keeps `marts.db` current until it is cancelled; then commits what is in hand and returns.
///
/// The topics must be there. Commits within `commit_after` of the first record (longer where
/// commits are dear: at most two seconds), and at once when the target is reached, when the broker
/// asks for it and on cancel.
pub fn run(
    broker: &dyn Broker,
    settings: &Settings,
    metrics: &Metrics,
    target: &Target,
    cancel: &Cancel,
) -> Result<Report> {
    let lock = match &settings.lock {
        Some(taken) => Arc::clone(taken),
        None => Arc::new(Lock::take(&settings.path)?),
    };
    let mut store = Store::open(lock)?;
    let positions = positions(broker, settings, &mut store)?;
    let from: Vec<_> = positions.iter().map(|at| (at.partition.clone(), at.read)).collect();
    let reader = broker.assign(Some(&settings.group), &from)?;
    let logs =
        positions.iter().map(|at| (at.partition.topic.clone(), at.incarnation.clone())).collect::<HashMap<_, _>>();
    let logs = logs.into_iter().collect();
    let (pending, report) = (Pending::new(), Report::default());
    let mut part = Part { broker, store, positions, logs, reader, pending, metrics, report };
    // What a process that was killed between the two commits has left undone.
    part.commit_to_broker(cancel)?;
    settings.ready.set();
    part.work(settings, target, cancel)?;
    Ok(part.report)
}

struct Part<'a> {
    broker: &'a dyn Broker,
    store: Store,
    positions: Vec<Position>,
    /// Those of the positions.
    logs: Vec<(Topic, Incarnation)>,
    reader: Box<dyn Reader>,
    pending: Pending,
    metrics: &'a Metrics,
    report: Report,
}

impl Part<'_> {
    fn work(&mut self, settings: &Settings, target: &Target, cancel: &Cancel) -> Result<()> {
        let mut backoff = back_off();
        while !cancel.is_cancelled() {
            let wait = self.pending.commit_in(clock::now(), settings.commit_after);
            let timeout = wait.unwrap_or(POLL).clamp(Duration::from_millis(1), POLL);
            let limits = broker::PollLimits { records: POLL_RECORDS, bytes: POLL_BYTES, timeout };
            let mut at_once = false;
            match self.reader.poll(&limits) {
                Ok(Polled::Batch(batch)) => self.fold(&batch)?,
                Ok(Polled::Flush) => at_once = true,
                // The positions were given with `assign`; the broker's own do not count here.
                Ok(Polled::Idle | Polled::Assigned(_)) => {}
                Ok(Polled::Revoked(_)) => {
                    self.commit(cancel)?;
                    self.reader.release()?;
                    return Err(Error::Stop(format!(
                        "the broker took the partitions of the group {} away: marts take all of them, and a further \
                         marts process needs a file and a group of its own",
                        settings.group
                    )));
                }
                Err(broker::Error::Cancelled) => break,
                Err(e) => {
                    retry_later(e, &mut backoff, cancel)?;
                    continue;
                }
            }
            backoff.reset();
            let due = self.pending.commit_in(clock::now(), settings.commit_after).is_some_and(|wait| wait.is_zero());
            if !self.pending.is_empty() && (due || at_once || self.reached(target)) {
                self.commit(cancel)?;
            }
        }
        if !self.pending.is_empty() {
            self.commit(cancel)?;
        }
        self.reader.leave()?;
        Ok(())
    }

    fn fold(&mut self, batch: &Batch) -> Result<()> {
        let (Some(first), Some(next)) = (batch.first_offset(), batch.next_offset()) else { return Ok(()) };
        let of_batch =
            |at: &&mut Position| at.partition.partition == batch.partition && at.partition.topic == batch.topic;
        let Some(position) = self.positions.iter_mut().find(of_batch) else {
            return Err(Error::Stop(format!("the broker sent {}, which was not asked for", batch.topic_partition())));
        };
        // Kafka's offsets have holes, so a batch may begin later than where the last one ended.
        if first < position.read {
            return Err(Error::Stop(format!(
                "the broker sent {} from offset {first} on, and it has been read up to {}",
                position.partition, position.read
            )));
        }
        position.read = next;
        self.pending.fold(position.input, batch, clock::now());
        Ok(())
    }

    fn reached(&self, target: &Target) -> bool {
        target.get().is_some() && self.positions.iter().all(|at| target.reached(&at.partition, at.read))
    }

    /// Aggregates and offsets in one transaction; then, for lag and deletion, the broker.
    fn commit(&mut self, cancel: &Cancel) -> Result<()> {
        let mut backoff = back_off();
        while let Err(e) = self.broker.check_logs(&self.logs) {
            // On the way out nobody waits: the next start counts it.
            if cancel.is_cancelled() && matches!(e, broker::Error::Retry(_)) {
                tracing::warn!("{e}; what is in hand is left to the next start");
                return Ok(());
            }
            retry_later(e, &mut backoff, cancel)?;
        }
        fail::fail_point!("marts::before_commit");
        let started = clock::now();
        let mut attempt = 1;
        let rows = loop {
            match self.store.commit(self.pending.deltas(), &self.positions, clock::wall_us()) {
                Err(e @ Error::Busy { .. }) if attempt < ATTEMPTS && !cancel.is_cancelled() => {
                    tracing::warn!("{e}; trying again");
                    attempt += 1;
                }
                done => break done?,
            }
        };
        let took = clock::now().saturating_duration_since(started);
        fail::fail_point!("marts::after_commit");
        for position in &mut self.positions {
            position.stored = position.read;
        }
        self.count(rows, took);
        self.pending.committed(took);
        self.commit_to_broker(cancel)?;
        fail::fail_point!("marts::after_broker_commit");
        Ok(())
    }

    fn commit_to_broker(&mut self, cancel: &Cancel) -> Result<()> {
        let behind = self.positions.iter().filter(|at| at.broker != Some(at.stored));
        let commits: Vec<_> = behind
            .map(|at| Commit {
                partition: at.partition.clone(),
                offset: at.stored,
                keep_from: at.stored,
                metadata: String::new(),
            })
            .collect();
        if commits.is_empty() {
            return Ok(());
        }
        let mut backoff = back_off();
        while let Err(e) = self.reader.commit(&commits) {
            // On the way out it does not matter: marts.db knows, and the next start says so.
            if cancel.is_cancelled() && matches!(e, broker::Error::Retry(_) | broker::Error::Cancelled) {
                return Ok(());
            }
            retry_later(e, &mut backoff, cancel)?;
        }
        for position in &mut self.positions {
            position.broker = Some(position.stored);
        }
        Ok(())
    }

    fn count(&mut self, rows: usize, took: Duration) {
        let now_us = clock::wall_us();
        for (input, counts) in self.pending.counts() {
            self.metrics.records.with_label_values(&[input.topic()]).inc_by(counts.records);
            self.metrics.unreadable.with_label_values(&[input.topic()]).inc_by(counts.unreadable);
            let records = match input {
                Input::Events => &mut self.report.events,
                Input::FunnelSteps => &mut self.report.funnel_steps,
                Input::Sessions => &mut self.report.sessions,
            };
            *records += counts.records;
            self.report.unreadable += counts.unreadable;
        }
        let freshness = Input::ALL.map(|input| self.metrics.freshness.with_label_values(&[input.topic()]));
        for (input, sent_us) in self.pending.sent_at() {
            let age_us = u64::try_from(now_us.saturating_sub(*sent_us)).unwrap_or(0);
            freshness[*input as usize].observe(Duration::from_micros(age_us).as_secs_f64());
        }
        self.report.commits += 1;
        self.metrics.commits.inc();
        self.metrics.rows.inc_by(u64::try_from(rows).unwrap_or(0));
        self.metrics.commit_duration.observe(took.as_secs_f64());
    }
}

fn back_off() -> Backoff {
    Backoff::new(ATTEMPTS, BACK_OFF, BACK_OFF_MAX)
}

/// Waits, if `e` may go through later and this is not the last attempt.
fn retry_later(e: broker::Error, backoff: &mut Backoff, cancel: &Cancel) -> Result<()> {
    let Some(wait) = backoff.wait().filter(|_| matches!(e, broker::Error::Retry(_))) else { return Err(e.into()) };
    match backoff.failures() {
        1 => tracing::warn!("{e}; trying on"),
        attempt => tracing::debug!(attempt, "{e}"),
    }
    cancel.wait(wait);
    Ok(())
}

/// The positions to read on from, of every partition of the three topics.
fn positions(broker: &dyn Broker, settings: &Settings, store: &mut Store) -> Result<Vec<Position>> {
    let mut stored = store.positions()?;
    let marts = settings.path.display().to_string();
    let names = Names { marts: &marts, broker: &settings.broker_name };
    let mut positions = Vec::new();
    let mut added = Vec::new();
    for input in Input::ALL {
        let topic = settings.topic(input);
        let info = broker.describe(&topic)?.ok_or_else(|| {
            Error::Stop(format!("{} has no topic {topic}: make it with `clickstream topics create`", names.broker))
        })?;
        let partitions: Vec<_> =
            (0_u32..).zip(&info.partitions).map(|(number, _)| TopicPartition::new(&topic, number)).collect();
        let committed = broker.committed(&settings.group, &partitions)?;
        for ((partition, bounds), committed) in partitions.iter().zip(&info.partitions).zip(committed) {
            let committed = committed.map(|committed| committed.offset);
            let known = stored.remove(partition);
            let log = Log { partition, incarnation: &info.incarnation, bounds: *bounds, committed };
            let at = position::resume(known.as_ref(), &log, names)?;
            if known.is_none() && at.0 > 0 {
                tracing::warn!(%partition, "{marts} begins at offset {at}: what was before is no longer kept");
            }
            let position = Position {
                partition: partition.clone(),
                input,
                incarnation: info.incarnation.clone(),
                stored: at,
                read: at,
                broker: committed,
            };
            if known.is_none() {
                added.push(positions.len());
            }
            positions.push(position);
        }
    }
    if let Some(other) = stored.keys().next() {
        return Err(Error::Stop(format!(
            "{marts} also holds {other}, which this run does not read (its topics begin with {:?}); name another \
             folder with --data-dir, or the prefix that belongs to it",
            settings.prefix
        )));
    }
    // A start that adds nothing waits for nobody who has the database.
    if !added.is_empty() {
        store.add_positions(added.iter().filter_map(|i| positions.get(*i)))?;
    }
    Ok(positions)
}
