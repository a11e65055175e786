//! The loop: poll, gather, cut what is due into plans, commit them, send them, hear what came of it.
//!
//! A plan is committed before its rows are sent, and the offsets after BigQuery has acknowledged
//! them; both in one commit of all partitions that have changed. Several plans of a partition are
//! under way at once, in order.
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use broker::{
    Assigned, Batch, Broker, Cancel, Commit, Offset, PollLimits, Polled, Reader, Subscription, Target, Topic,
    TopicPartition, Writer,
};
use records::clock;

use super::backend::{Answer, Backend, Fault, Seen};
use super::error::{Error, Result};
use super::partition::{Due, Partition, State};
use super::plan::{Given, Stream, resume};
use super::rows::{Limits, OpenRows, Rows};
use super::settings::Settings;
use super::{GROUP, Metrics, TOPICS, schema};
use crate::columns::{Events, FunnelSteps, Sessions};
use crate::retry::Backoff;

/// More than are ever under way: whoever answers never waits.
const ANSWERS_MAX: usize = 1 << 16;
/// How long to listen while answers are awaited.
const LISTEN: Duration = Duration::from_millis(5);

/// What a run has stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of [`TOPICS`].
    pub tables: [TableReport; TOPICS.len()],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableReport {
    /// Acknowledged.
    pub rows: u64,
    pub requests: u64,
    /// Left out, with a dead letter each.
    pub refused: u64,
    /// Records that could not be read and were left out.
    pub unreadable: u64,
}

impl Report {
    /// What all have stored that count in these.
    #[must_use]
    pub fn of(metrics: &Metrics) -> Self {
        let tables = schema::tables().map(|table| {
            let of = |counters: &prometheus::IntCounterVec| counters.with_label_values(&[table.name]).get();
            TableReport {
                rows: of(&metrics.rows),
                requests: of(&metrics.requests),
                refused: of(&metrics.refused),
                unreadable: of(&metrics.unreadable),
            }
        });
        Self { tables }
    }
}

pub(super) struct Answered {
    pub(super) partition: u64,
    pub(super) epoch: u64,
    pub(super) last: i64,
    pub(super) answer: Answer,
}

/// Stores the topics until cancelled, then sends what is gathered and leaves the group.
pub fn run(
    broker: &dyn Broker,
    settings: &Settings,
    backend: &dyn Backend,
    metrics: &Metrics,
    target: &Target,
    cancel: &Cancel,
) -> Result<Report> {
    backend.waits(settings.retry_for, cancel);
    let topics: Vec<Topic> = TOPICS.iter().map(|topic| format!("{}{topic}", settings.prefix).as_str().into()).collect();
    let group = format!("{}{GROUP}", settings.prefix);
    // What was deleted before it came is told by who wires the parts.
    broker.register_group(&group, &topics).map_err(|e| from_broker(&group, e))?;
    let subscription = Subscription { group: group.clone(), instance: settings.instance.clone(), topics };
    let reader = broker.subscribe(&subscription).map_err(|e| from_broker(&group, e))?;
    let (tell, answers) = sync_channel(ANSWERS_MAX);
    let mut warehouse = Warehouse {
        broker,
        subscription,
        reader,
        writer: None,
        group,
        backend,
        settings,
        metrics,
        target,
        cancel,
        tables: schema::tables().map(|table| table.name),
        partitions: Vec::new(),
        assigned: 0,
        tell,
        answers,
        flush: false,
        hold_until: None,
        report: Report::default(),
    };
    warehouse.run()?;
    Ok(warehouse.report)
}

/// `run` reads and cuts, `send` sends and hears, `commit` commits.
pub(super) struct Warehouse<'a> {
    pub(super) broker: &'a dyn Broker,
    subscription: Subscription,
    pub(super) reader: Box<dyn Reader>,
    /// Of dead letters; made when the first is written.
    pub(super) writer: Option<Box<dyn Writer>>,
    pub(super) group: String,
    pub(super) backend: &'a dyn Backend,
    pub(super) settings: &'a Settings,
    pub(super) metrics: &'a Metrics,
    target: &'a Target,
    pub(super) cancel: &'a Cancel,
    tables: [&'static str; TOPICS.len()],
    pub(super) partitions: Vec<Partition>,
    /// Counts assignments.
    assigned: u64,
    pub(super) tell: SyncSender<Answered>,
    pub(super) answers: Receiver<Answered>,
    /// What is gathered is to be sent now.
    flush: bool,
    /// Less was asked for: nothing is sent before.
    pub(super) hold_until: Option<Instant>,
    pub(super) report: Report,
}

impl Warehouse<'_> {
    fn run(&mut self) -> Result<()> {
        while !self.cancel.is_cancelled() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(lost @ Error::Lost(_)) => self.forget(&lost),
                Err(Error::Unavailable(_)) if self.cancel.is_cancelled() => break,
                Err(error) => return Err(error),
            }
        }
        match self.drain() {
            Err(lost @ Error::Lost(_)) => self.forget(&lost),
            // It was asked to end, and cannot be held up by what does not answer.
            Err(Error::Unavailable(why)) => tracing::warn!(why, "what was in hand is left to the next start"),
            done => done?,
        }
        self.metrics.held_bytes.set(0);
        self.reader.leave().map_err(|e| from_broker("leaving the group", e))
    }

    /// False once cancelled.
    fn step(&mut self) -> Result<bool> {
        let held: usize = self.partitions.iter().map(Partition::held_bytes).sum();
        self.metrics.held_bytes.set(i64::try_from(held).unwrap_or(i64::MAX));
        if held > self.settings.budget_bytes {
            self.flush = true;
            self.listen(LISTEN)?;
        } else {
            match self.poll()? {
                Some(Polled::Assigned(assigned)) => self.assign(assigned)?,
                Some(Polled::Revoked(revoked)) => self.revoke(&revoked)?,
                Some(Polled::Batch(batch)) => self.take(batch)?,
                Some(Polled::Flush) => {
                    self.flush = true;
                    if self.partitions.iter().any(|partition| partition.backoff.is_some()) {
                        tracing::warn!("the log is full, and the warehouse holds it: BigQuery does not take its rows");
                    }
                }
                Some(Polled::Idle) => {}
                None => return Ok(false),
            }
        }
        self.work()?;
        Ok(true)
    }

    /// What was under way stands in plans, for whoever has the partitions now; the next polls tell
    /// who that is.
    fn forget(&mut self, why: &Error) {
        tracing::warn!(%why, "the partitions were lost: what was under way is left to their next owner");
        self.partitions.clear();
    }

    /// Takes its place in the group anew, and with it what is committed, where only a transaction
    /// was lost and nobody else would say so.
    pub(super) fn join_again(&mut self) -> Result<()> {
        const DOING: &str = "joining the group again";
        self.partitions.clear();
        self.reader.leave().map_err(|e| from_broker(DOING, e))?;
        self.reader = self.asking(DOING, || self.broker.subscribe(&self.subscription))?;
        Ok(())
    }

    /// Whether the partition is still this member's: asked before a stream is ended, which may have
    /// another owner, and rows of its own, by now.
    pub(super) fn confirm(&mut self, i: usize) -> Result<()> {
        self.partitions[i].dirty = true;
        self.commit()
    }

    fn work(&mut self) -> Result<()> {
        self.hear()?;
        self.cut_due()?;
        self.commit()?;
        self.send();
        self.flush = false;
        Ok(())
    }

    /// Sends what is gathered and waits for the answers, for as long as a drain may take. What is
    /// not answered then stands in a plan, or is read again.
    fn drain(&mut self) -> Result<()> {
        let until = clock::now() + self.settings.grace;
        while clock::now() < until && !self.partitions.iter().all(Partition::is_idle) {
            self.flush = true;
            self.work()?;
            self.listen(LISTEN)?;
        }
        self.hear()?;
        self.commit()
    }

    /// None once cancelled.
    fn poll(&mut self) -> Result<Option<Polled>> {
        let awaited = self.partitions.iter().any(|partition| !partition.flights.is_empty() || partition.dirty);
        let timeout = if awaited { LISTEN } else { self.settings.poll.timeout };
        let limits = PollLimits { timeout, ..self.settings.poll };
        let mut backoff = self.backoff();
        loop {
            match self.reader.poll(&limits) {
                Ok(polled) => return Ok(Some(polled)),
                Err(broker::Error::Cancelled) => return Ok(None),
                Err(e) => self.wait(&mut backoff, "poll", e)?,
            }
        }
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(clock::now(), self.settings.retry_for, self.settings.grace)
    }

    pub(super) fn wait(&self, backoff: &mut Backoff, what: &str, error: broker::Error) -> Result<()> {
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

    /// A call to the broker, until it goes through, bounded.
    fn asking<T>(&self, what: &str, call: impl Fn() -> broker::Result<T>) -> Result<T> {
        let mut backoff = self.backoff();
        loop {
            match call() {
                Ok(answer) => return Ok(answer),
                Err(e) => self.wait(&mut backoff, what, e)?,
            }
        }
    }

    /// A call to BigQuery, until it goes through, bounded: once, where it is to drain. The inner error:
    /// there is no such thing.
    pub(super) fn calling<T>(&self, what: &str, call: impl Fn() -> Result<T, Fault>) -> Result<Result<T, String>> {
        let mut backoff = self.backoff();
        loop {
            let why = match call() {
                Ok(answer) => return Ok(Ok(answer)),
                Err(Fault::Gone(why)) => return Ok(Err(why)),
                Err(Fault::Stop(why)) => return Err(Error::Stop(format!("{what}: {why}"))),
                Err(Fault::Retry(why)) => why,
                Err(Fault::Throttled(why)) => {
                    self.metrics.throttles.inc();
                    why
                }
            };
            let pause = backoff.pause(clock::now(), false).filter(|_| !self.cancel.is_cancelled());
            let Some(pause) = pause else {
                return Err(Error::Unavailable(format!("{what}: {why}")));
            };
            tracing::warn!(what, why, "BigQuery did not do it: trying again");
            self.metrics.retries.inc();
            self.cancel.wait(pause);
        }
    }

    /// The full name of a table.
    pub(super) fn table(&self, table: usize) -> String {
        format!("{}.{}", self.settings.dataset, self.tables[table])
    }

    /// Its name in labels.
    pub(super) fn label(&self, table: usize) -> [&'static str; 1] {
        [self.tables[table]]
    }

    fn assign(&mut self, assigned: Vec<Assigned>) -> Result<()> {
        let mut looks: [Option<Seen>; TOPICS.len()] = Default::default();
        for assigned in assigned {
            let key = assigned.partition;
            let topic = key.topic.as_str().strip_prefix(&self.settings.prefix);
            let Some(table) = TOPICS.iter().position(|known| Some(*known) == topic) else {
                return Err(Error::Stop(format!("{key} was assigned, which is no topic of the warehouse")));
            };
            let committed = assigned.committed.as_ref();
            let fresh = committed.is_none_or(|committed| committed.metadata.is_empty());
            let seen = match looks[table] {
                Some(seen) => seen,
                None => self.look(table)?,
            };
            looks[table] = Some(seen);
            let filled = fresh && seen.rows && !self.settings.begins_anew;
            let others = filled && self.others_have_positions(&key)?;
            let name = self.table(table);
            let mut resume = resume(&name, &key, &assigned.incarnation, assigned.bounds, committed, others, filled)?;
            let given = self.still_given(table, &key, resume.from, resume.given, seen)?;
            resume.fresh |= given != resume.given;
            resume.given = given;
            if !resume.plans.is_empty() {
                if resume.stream.is_some() != self.backend.has_streams() {
                    return Err(Error::Stop(format!(
                        "{key}: rows were under way in the other --mode when it ended; run in that one until it has \
                         drained, then change"
                    )));
                }
                tracing::info!(partition = %key, plans = resume.plans.len(), "finishing the plans of an earlier run");
            }
            self.assigned += 1;
            let rows: Box<dyn Rows> = match table {
                0 => Box::new(OpenRows::<Events>::new()),
                1 => Box::new(OpenRows::<FunnelSteps>::new()),
                _ => Box::new(OpenRows::<Sessions>::new()),
            };
            let mut partition = Partition::new(self.assigned, key, table, assigned.incarnation, resume, rows);
            if !self.backend.has_streams() {
                partition.stream = None;
            }
            self.partitions.retain(|held| held.key != partition.key);
            self.partitions.push(partition);
        }
        self.commit()?;
        self.settings.ready.set();
        Ok(())
    }

    pub(super) fn look(&self, table: usize) -> Result<Seen> {
        let name = self.table(table);
        let seen = self.calling(&name, || self.backend.look(table))?;
        seen.map_err(|why| no_table(&name, &why))
    }

    /// What a partition has given to its table, where the table has any of it: it may be another of the same
    /// name, or emptied, and of what is past nobody would send it again.
    pub(super) fn still_given(
        &self,
        table: usize,
        key: &TopicPartition,
        committed: Offset,
        given: Given,
        seen: Seen,
    ) -> Result<Given> {
        let now = Given { made_ms: seen.made_ms, ..given };
        let is_same = given.made_ms == 0 || given.made_ms == seen.made_ms;
        if given.rows == 0 || (is_same && seen.rows) {
            return Ok(now);
        }
        let (name, last) = (self.table(table), committed.0 - 1);
        let count = || self.backend.count_rows(table, key.partition, 0..=last);
        let rows = if is_same {
            // Rows show late in what is said of a table. Who may not ask it goes by that it is the same.
            count().unwrap_or(given.rows)
        } else {
            let what = format!("{key}: {name} is another table than before; whether it has the rows of that");
            self.calling(&what, count)?.map_err(|why| no_table(&name, &why))?
        };
        if rows > 0 {
            return Ok(now);
        }
        Err(Error::Stop(format!(
            "{key}: {} rows of offsets up to {last} went into {name}, which has none of them: it was dropped and made \
             again, or emptied. They are not sent again. {PUT_BACK}",
            given.rows
        )))
    }

    /// Whether the group has a position in another partition of the topic: then the table's rows are
    /// its own.
    fn others_have_positions(&self, key: &TopicPartition) -> Result<bool> {
        let info = self.asking(&self.group, || self.broker.describe(&key.topic))?;
        let count = info.map_or(0, |info| info.partitions.len());
        let partitions: Vec<_> = (0..).take(count).map(|p| TopicPartition::new(&key.topic, p)).collect();
        let committed = self.asking(&self.group, || self.broker.committed(&self.group, &partitions))?;
        Ok(committed.iter().flatten().any(|committed| !committed.metadata.is_empty()))
    }

    /// What is under way stands in plans: the next owner sends it again, to the same place.
    fn revoke(&mut self, revoked: &[TopicPartition]) -> Result<()> {
        match self.hear().and_then(|()| self.commit()) {
            // Asked back too late: they have another owner already.
            Err(lost @ Error::Lost(_)) => self.forget(&lost),
            done => done?,
        }
        self.partitions.retain(|partition| !revoked.contains(&partition.key));
        self.reader.release().map_err(|e| from_broker("releasing partitions", e))
    }

    fn take(&mut self, batch: Batch) -> Result<()> {
        let is_it = |held: &&mut Partition| held.key.partition == batch.partition && held.key.topic == batch.topic;
        match self.partitions.iter_mut().find(is_it) {
            Some(partition) => partition.give(batch),
            None => {
                tracing::warn!(partition = %batch.topic_partition(), "records of a partition that is not assigned: left to its owner");
                Ok(())
            }
        }
    }

    fn cut_due(&mut self) -> Result<()> {
        let limits = Limits { rows: self.settings.max_rows, bytes: self.settings.max_bytes };
        let due = Due { limits, linger: self.settings.linger, all: self.flush || self.target_is_reached() };
        for i in 0..self.partitions.len() {
            loop {
                let now = clock::now();
                let filled = self.partitions[i].fill(limits, now);
                if filled.unreadable > 0 {
                    let table = self.partitions[i].table;
                    self.metrics.unreadable.with_label_values(&self.label(table)).inc_by(filled.unreadable);
                    self.report.tables[table].unreadable += filled.unreadable;
                    let last = filled.why.unwrap_or_default();
                    tracing::warn!(
                        records = filled.unreadable,
                        last,
                        "records cannot be read and are left out of the warehouse"
                    );
                }
                if !self.partitions[i].is_due(due, now) {
                    break;
                }
                if self.backend.has_streams() && self.partitions[i].stream.is_none() {
                    let stream = self.new_stream(self.partitions[i].table)?;
                    self.partitions[i].stream = Some(stream);
                }
                if let Some(to) = self.partitions[i].cut(self.backend.has_streams())? {
                    let key = &self.partitions[i].key;
                    self.reader.seek(key, to).map_err(|e| from_broker("reading again", e))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn new_stream(&self, table: usize) -> Result<Stream> {
        let name = self.table(table);
        let stream = self.calling(&name, || self.backend.create_stream(table))?;
        let stream = stream.map_err(|why| no_table(&name, &why))?;
        self.metrics.streams.with_label_values(&self.label(table)).inc();
        Ok(Stream { name: stream, rows: 0 })
    }

    /// Whether all positions have reached the target: then nothing is waited for.
    fn target_is_reached(&self) -> bool {
        self.target.get().is_some()
            && self.partitions.iter().all(|partition| self.target.reached(&partition.key, partition.position))
    }

    /// Commits what has changed, with the dead letters of the rows that are left out by it.
    #[allow(clippy::if_same_then_else, reason = "a failpoint is nothing without its feature")]
    pub(super) fn commit(&mut self) -> Result<()> {
        let dirty: Vec<usize> = (0..self.partitions.len()).filter(|i| self.partitions[*i].dirty).collect();
        if dirty.is_empty() {
            return Ok(());
        }
        let commits: Vec<Commit> = dirty.iter().map(|i| self.partitions[*i].commit()).collect::<Result<_>>()?;
        let planned = |i: &usize| self.partitions[*i].flights.iter().any(|flight| flight.state == State::Planned);
        let plans = dirty.iter().any(planned);
        if plans {
            fail::fail_point!("warehouse::before_plan");
        } else {
            fail::fail_point!("warehouse::before_commit");
        }
        if dirty.iter().all(|i| self.partitions[*i].letters.is_empty()) {
            let mut backoff = self.backoff();
            while let Err(e) = self.reader.commit(&commits) {
                self.wait(&mut backoff, "commit", e)?;
            }
        } else {
            self.commit_with_letters(&dirty, &commits)?;
        }
        if plans {
            fail::fail_point!("warehouse::after_plan");
        } else {
            fail::fail_point!("warehouse::after_commit");
        }
        for i in dirty {
            self.partitions[i].is_committed();
        }
        Ok(())
    }
}

/// What mends the loss of a table.
const PUT_BACK: &str = "Put it back as it was (BigQuery keeps what a dropped table had for seven days), or start again with \
                        empty tables (clickstream warehouse init) and an empty log (clickstream run --restart)";

pub(super) fn no_table(name: &str, why: &str) -> Error {
    Error::Stop(format!("there is no table {name} ({why}), and rows that went with it are not sent again. {PUT_BACK}"))
}

pub(super) fn from_broker(what: &str, error: broker::Error) -> Error {
    match error {
        broker::Error::Fenced(why) => Error::Fenced(format!("{what}: {why}")),
        broker::Error::Stop(why) => Error::Stop(format!("{what}: {why}")),
        broker::Error::Abort(why) => Error::Lost(format!("{what}: {why}")),
        other => Error::Unavailable(format!("{what}: {other}")),
    }
}
