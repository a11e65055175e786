//! The loop: poll, take, cut what is due. A cut commits the plans, stores the files, commits the
//! positions; several partitions are cut together.
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{
    Assigned, Batch, Broker, Cancel, Commit, Offset, Polled, Reader, Subscription, Target, Topic, TopicPartition,
};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore;
use records::clock;

use super::budget::{Limits, Reason, due};
use super::error::{Error, Result};
use super::partition::{Ended, Full, Partition, lake_topic};
use super::plan::{Position, Range, Resuming, Stored};
use super::settings::Settings;
use super::store::Store;
use super::{GROUP, Metrics, TOPICS};
use crate::retry::Backoff;

/// How many records may be taken, and for how long, before it is looked again whether a file is due:
/// asking each column of each open file what it holds costs as much as some hundred rows.
const LOOK_EVERY_RECORDS: u64 = 16 << 10;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a run has stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of [`TOPICS`].
    pub topics: [TopicReport; TOPICS.len()],
}

impl Report {
    /// What all have stored that count in these.
    #[must_use]
    pub fn of(metrics: &Metrics) -> Self {
        let topics = TOPICS.map(|topic| TopicReport {
            rows: metrics.rows.with_label_values(&[topic]).get(),
            files: metrics.files.with_label_values(&[topic]).get(),
            bytes: metrics.stored_bytes.with_label_values(&[topic]).get(),
            unreadable: metrics.unreadable.with_label_values(&[topic]).get(),
        });
        Self { topics }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicReport {
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    /// Records that could not be read and were left out.
    pub unreadable: u64,
}

/// Stores the topics until cancelled, then ends what is open and leaves the group. What it has stored
/// is in `metrics` ([`Report::of`]).
///
/// `runtime` must be multi-threaded, with time enabled; this function is called from outside it.
#[allow(clippy::too_many_arguments, reason = "the wiring of one part")]
pub fn run(
    broker: &dyn Broker,
    settings: &Settings,
    store: Arc<dyn ObjectStore>,
    runtime: &tokio::runtime::Handle,
    metrics: &Metrics,
    target: &Target,
    cancel: &Cancel,
) -> Result<()> {
    let topics: Vec<Topic> = TOPICS.iter().map(|topic| format!("{}{topic}", settings.prefix).as_str().into()).collect();
    let group = format!("{}{GROUP}", settings.prefix);
    // What was deleted before it came is told by who wires the parts.
    broker.register_group(&group, &topics).map_err(|e| from_broker(&group, e))?;
    let subscription = Subscription { group: group.clone(), instance: settings.instance.clone(), topics };
    let reader = broker.subscribe(&subscription).map_err(|e| from_broker(&group, e))?;
    let store = Store { store, settings, metrics, cancel };
    let mut lake = Lake {
        reader,
        store,
        runtime,
        settings,
        metrics,
        target,
        cancel,
        partitions: Vec::new(),
        taken: 0,
        looked_at: clock::now(),
        open_bytes: 0,
    };
    lake.run()
}

struct Lake<'a> {
    reader: Box<dyn Reader>,
    store: Store<'a>,
    runtime: &'a tokio::runtime::Handle,
    settings: &'a Settings,
    metrics: &'a Metrics,
    target: &'a Target,
    cancel: &'a Cancel,
    partitions: Vec<Partition>,
    /// Records since it was looked whether a file is due, and when that was.
    taken: u64,
    looked_at: Instant,
    /// What the gauge has of this member.
    open_bytes: i64,
}

impl Lake<'_> {
    fn run(&mut self) -> Result<()> {
        while !self.cancel.is_cancelled() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(lost @ Error::Lost(_)) => self.forget(&lost),
                Err(error) => return Err(error),
            }
        }
        match self.cut_all(Reason::Drain) {
            Err(lost @ Error::Lost(_)) => self.forget(&lost),
            done => done?,
        }
        self.show_open(0);
        self.reader.leave().map_err(|e| from_broker("leaving the group", e))
    }

    /// False once cancelled.
    fn step(&mut self) -> Result<bool> {
        match self.poll()? {
            Some(Polled::Assigned(assigned)) => {
                if !self.assign(assigned)? {
                    return Ok(false);
                }
            }
            Some(Polled::Revoked(revoked)) => self.revoke(&revoked)?,
            Some(Polled::Batch(batch)) => {
                self.taken += batch.len() as u64;
                self.take(batch)?;
            }
            Some(Polled::Flush) => self.cut_all(Reason::Flush)?,
            Some(Polled::Idle) => {}
            None => return Ok(false),
        }
        let now = clock::now();
        if self.taken >= LOOK_EVERY_RECORDS.min(self.settings.max_rows)
            || now.saturating_duration_since(self.looked_at) >= LOOK_EVERY
        {
            (self.taken, self.looked_at) = (0, now);
            self.cut_due(now)?;
        }
        if self.target_is_reached() {
            self.cut_all(Reason::Target)?;
        }
        Ok(true)
    }

    /// What was open is stored by whoever has the partitions now; the next polls tell who that is.
    fn forget(&mut self, why: &Error) {
        tracing::warn!(%why, "the partitions were lost: what was open is left to their next owner");
        self.partitions.clear();
    }

    /// None once cancelled.
    fn poll(&mut self) -> Result<Option<Polled>> {
        let mut backoff = self.backoff();
        loop {
            match self.reader.poll(&self.settings.poll) {
                Ok(polled) => return Ok(Some(polled)),
                Err(broker::Error::Cancelled) => return Ok(None),
                Err(e) => self.wait(&mut backoff, "poll", e)?,
            }
        }
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let mut backoff = self.backoff();
        while let Err(e) = self.reader.commit(commits) {
            self.wait(&mut backoff, "commit", e)?;
        }
        Ok(())
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(clock::now(), self.settings.retry_for, self.settings.grace)
    }

    fn wait(&self, backoff: &mut Backoff, what: &str, error: broker::Error) -> Result<()> {
        let broker::Error::Retry(why) = error else { return Err(from_broker(what, error)) };
        let Some(pause) = backoff.pause(clock::now(), self.cancel.is_cancelled()) else {
            return Err(Error::Unavailable(format!("{what}: {why}")));
        };
        if backoff.is_first() {
            tracing::warn!(what, why, "the broker did not do it: trying again");
        }
        // Nothing sets this one: a drain may go on trying for its grace.
        Cancel::new().wait(pause);
        Ok(())
    }

    /// False once cancelled.
    fn assign(&mut self, assigned: Vec<Assigned>) -> Result<bool> {
        let mut resuming = Vec::with_capacity(assigned.len());
        for Assigned { partition, incarnation, bounds, committed } in &assigned {
            let Some(topic) = lake_topic(&self.settings.prefix, &partition.topic) else {
                return Err(Error::stop(format!("{partition} was assigned, which is no topic of the lake")));
            };
            let (lake, committed) = (&self.settings.lake, committed.as_ref());
            resuming.push((topic, Resuming::begin(lake, topic, partition, incarnation, *bounds, committed)?));
        }
        for topic in TOPICS {
            let mut of_topic: Vec<_> = resuming.iter_mut().filter(|(of, _)| *of == topic).collect();
            if of_topic.is_empty() {
                continue;
            }
            let show = |path: &str| of_topic.iter_mut().for_each(|(_, resuming)| resuming.show(path));
            if !self.runtime.block_on(self.store.list(topic, show))? {
                return Ok(false);
            }
        }
        let resumed = resuming.into_iter().map(|(topic, resuming)| Ok((topic, resuming.end()?)));
        let resumed = resumed.collect::<Result<Vec<_>>>()?;
        let mut fresh = Vec::new();
        for (Assigned { partition: key, incarnation, .. }, (topic, resume)) in assigned.into_iter().zip(resumed) {
            if let Some(plan) = resume.plan {
                tracing::info!(partition = %key, first = plan.first, last = plan.last, "finishing the plan of an earlier run");
            }
            let is_fresh = resume.fresh;
            let partition = Partition::new(key, topic, incarnation, resume, self.settings);
            if is_fresh {
                fresh.push(partition.position_with(None).commit(&partition.key, partition.committed)?);
            }
            if let Some(Stored { range, days }) = &partition.stored {
                let footer = partition.footer(*range);
                for day in days {
                    self.runtime.block_on(self.store.check(&partition.file_path(*day, *range), &footer))?;
                }
            }
            self.partitions.retain(|held| held.key != partition.key);
            self.partitions.push(partition);
        }
        self.commit(&fresh)?;
        self.settings.ready.set();
        Ok(true)
    }

    fn revoke(&mut self, revoked: &[TopicPartition]) -> Result<()> {
        let which = self.which(|partition| revoked.contains(&partition.key) && partition.can_be_cut());
        match self.cut(&which, Reason::Revoke) {
            // Asked back too late: they have another owner already.
            Err(lost @ Error::Lost(_)) => self.forget(&lost),
            done => done?,
        }
        self.partitions.retain(|partition| !revoked.contains(&partition.key));
        self.reader.release().map_err(|e| from_broker("releasing partitions", e))
    }

    fn take(&mut self, batch: Batch) -> Result<()> {
        let is_it =
            |partition: &Partition| partition.key.partition == batch.partition && partition.key.topic == batch.topic;
        let Some(i) = self.partitions.iter().position(is_it) else {
            tracing::warn!(partition = %batch.topic_partition(), "records of a partition that is not assigned: left to its owner");
            return Ok(());
        };
        let mut rest = batch;
        while !rest.is_empty() {
            let Some(partition) = self.partitions.get_mut(i) else { break };
            let took = partition.take(&rest, clock::now())?;
            if took.unreadable > 0 {
                self.metrics.unreadable.with_label_values(&[partition.topic]).inc_by(took.unreadable);
                let last = took.why.unwrap_or_default();
                tracing::warn!(records = took.unreadable, last, "records cannot be read and are left out of the lake");
            }
            rest = rest.slice(took.records, usize::MAX);
            match took.full {
                Some(Full::Replay) => self.cut(&[i], Reason::Replay)?,
                Some(Full::Days) => self.cut(&[i], Reason::Days)?,
                None => {}
            }
        }
        Ok(())
    }

    fn cut_due(&mut self, now: Instant) -> Result<()> {
        let held: Vec<_> = self.partitions.iter().map(Partition::held).collect();
        let open_bytes: usize = held.iter().map(|held| held.memory_bytes).sum();
        self.show_open(open_bytes);
        let limits = Limits {
            file_bytes: self.settings.file_bytes,
            max_rows: self.settings.max_rows,
            max_age: self.settings.max_age,
            budget_bytes: self.settings.budget_bytes,
        };
        let due = due(&held, &limits, now);
        if let Some((_, reason)) = due.first() {
            let which: Vec<usize> = due.iter().map(|(i, _)| *i).collect();
            self.cut(&which, *reason)?;
        }
        Ok(())
    }

    fn show_open(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.open_bytes.add(bytes - std::mem::replace(&mut self.open_bytes, bytes));
    }

    /// Whether all positions have reached the target and some commit has not.
    fn target_is_reached(&self) -> bool {
        let Some(ends) = self.target.get() else { return false };
        let behind = |partition: &Partition| ends.get(&partition.key).is_some_and(|end| partition.committed < *end);
        self.partitions.iter().any(behind)
            && self.partitions.iter().all(|partition| self.target.reached(&partition.key, partition.position))
    }

    fn which(&self, wanted: impl Fn(&Partition) -> bool) -> Vec<usize> {
        self.partitions.iter().enumerate().filter(|(_, partition)| wanted(partition)).map(|(i, _)| i).collect()
    }

    fn cut_all(&mut self, reason: Reason) -> Result<()> {
        let which = self.which(Partition::can_be_cut);
        self.cut(&which, reason)
    }

    /// Stores what these partitions have open, and commits it.
    fn cut(&mut self, which: &[usize], reason: Reason) -> Result<()> {
        if which.is_empty() {
            return Ok(());
        }
        let started = clock::now();
        self.plan(which)?;
        let ended = self.store(which)?;

        let mut commits = Vec::with_capacity(ended.len());
        for (i, range, ended) in &ended {
            let partition = &self.partitions[*i];
            let stored = match ended.days.is_empty() {
                true => partition.stored.clone(),
                false => Some(Stored { range: *range, days: ended.days.clone() }),
            };
            let position = Position::new(&partition.incarnation, stored, None);
            commits.push(position.commit(&partition.key, Offset(range.last + 1))?);
        }
        fail::fail_point!("lake::before_commit");
        self.commit(&commits)?;
        fail::fail_point!("lake::after_commit");

        self.metrics.cuts.with_label_values(&[reason.as_str()]).inc_by(ended.len() as u64);
        for (i, range, ended) in ended {
            self.partitions[i].done(range, ended.days.clone());
            self.count(i, &ended);
            tracing::debug!(
                partition = %self.partitions[i].key, first = range.first, last = range.last, reason = reason.as_str(),
                rows = ended.rows, files = ended.days.len(), bytes = ended.bytes, "stored"
            );
        }
        self.metrics.cut_seconds.observe(seconds(clock::now() - started));
        Ok(())
    }

    /// Commits what is about to be stored, before anything is. A range without rows needs no plan,
    /// and one that is done again has one.
    fn plan(&mut self, which: &[usize]) -> Result<()> {
        let mut plans = Vec::with_capacity(which.len());
        for i in which {
            let partition = &self.partitions[*i];
            if partition.replay.is_none() && partition.files.rows() > 0 {
                let position = partition.position_with(Some(partition.range()));
                plans.push(position.commit(&partition.key, partition.committed)?);
            }
        }
        fail::fail_point!("lake::before_plan");
        self.commit(&plans)?;
        fail::fail_point!("lake::after_plan");
        Ok(())
    }

    fn store(&mut self, which: &[usize]) -> Result<Vec<(usize, Range, Ended)>> {
        let (mut ended, mut files) = (Vec::with_capacity(which.len()), Vec::new());
        for i in which {
            let partition = &mut self.partitions[*i];
            let range = partition.range();
            let mut of_partition = partition.finish(range)?;
            files.append(&mut of_partition.files);
            ended.push((*i, range, of_partition));
        }
        fail::fail_point!("lake::before_put");
        let store = &self.store;
        let puts = futures::stream::iter(files.into_iter().map(|file| store.create(file)));
        self.runtime.block_on(puts.buffer_unordered(self.settings.concurrent_puts.max(1)).try_collect::<()>())?;
        fail::fail_point!("lake::after_put");
        Ok(ended)
    }

    fn count(&mut self, i: usize, ended: &Ended) {
        let topic = self.partitions[i].topic;
        let (files, metrics) = (ended.days.len() as u64, self.metrics);
        metrics.rows.with_label_values(&[topic]).inc_by(ended.rows);
        metrics.files.with_label_values(&[topic]).inc_by(files);
        metrics.stored_bytes.with_label_values(&[topic]).inc_by(ended.bytes);
        let now_us = clock::wall_us();
        for sent_at_us in &ended.sent_at_us {
            let age_us = u64::try_from(now_us.saturating_sub(*sent_at_us)).unwrap_or_default();
            metrics.freshness_seconds.observe(seconds(Duration::from_micros(age_us)));
        }
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn from_broker(what: &str, error: broker::Error) -> Error {
    match error {
        broker::Error::Fenced(why) => Error::Fenced(format!("{what}: {why}")),
        broker::Error::Abort(why) => Error::Lost(format!("{what}: {why}")),
        broker::Error::Stop(why) => Error::Stop(format!("{what}: {why}")),
        other => Error::Unavailable(format!("{what}: {other}")),
    }
}
