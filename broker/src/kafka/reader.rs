//! A reader: of a group's share, or of partitions that it was given. Records come by a queue of
//! its own, many at a time, or from what others of this process read too ([`share`](super::share));
//! events come by the consumer's.
//!
//! A rebalance is a handshake. librdkafka asks, and waits: partitions that it offers are assigned
//! with the poll after the one that told of them, so that a seek between the two decides where
//! reading begins; partitions that it asks back are given up by `release` and not before.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset as Position, TopicPartitionList};

use super::context::{Common, ReaderContext, Rebalance, decline};
use super::errors::{is_of_groups, is_passing, is_stale_member, is_taken, of_call, of_code, of_kafka};
use super::ffi::{Fetcher, Generation};
use super::reading::{Reading, Source, fetch, wrong_queue};
use super::window::ReaderId;
use super::writer::list_of;
use super::{Core, check_commits, number, pause, within};
use crate::{
    Assigned, Batch, Commit, Error, Membership, Offset, PollLimits, Polled, Reader, Result, Subscription, Topic,
    TopicPartition,
};

/// How often a poll that waits for records looks for events.
const STEP: Duration = Duration::from_millis(20);
/// The same while it has records from others as well as by itself.
const SHORT_STEP: Duration = Duration::from_millis(2);
/// How long going back to its own client may take at a time.
const RETURN_WAIT: Duration = Duration::from_millis(100);
/// Of seeking: librdkafka refuses it in the moments in which a partition is being taken up.
const SEEK_WAIT: Duration = Duration::from_secs(5);
const SEEK_STEPS: u32 = 250;
/// How long leaving may take: the answer to the last rebalance, and the goodbye.
const LEAVE_STEPS: u32 = 300;
const LEAVE_STEP: Duration = Duration::from_millis(10);

pub(super) struct KafkaReader {
    core: Arc<Core>,
    /// None once it has left.
    fetcher: Option<Fetcher<ReaderContext>>,
    group: Option<String>,
    member: Option<Member>,
    phase: Phase,
    /// Among those that share what they fetch.
    id: ReaderId,
    partitions: Vec<Reading>,
    /// Fetched and not yet given out.
    ready: VecDeque<Batch>,
    /// Why it can read no more.
    fenced: Option<String>,
}

struct Member {
    instance: String,
    topics: Vec<Topic>,
    generation: Option<Arc<Generation>>,
    /// [`Health::troubles`](super::context::Health) when it joined.
    troubles: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Nothing,
    /// Told of, and to be assigned with the next poll.
    Planned,
    Reading,
    /// Asked back, and not yet released.
    Revoked,
}

impl KafkaReader {
    pub(super) fn of_member(core: Arc<Core>, subscription: &Subscription) -> Result<Self> {
        let Subscription { group, instance, topics } = subscription;
        let doing = || format!("joining group {group}");
        for topic in topics {
            if core.topic(topic)?.is_none() {
                return Err(Error::Stop(format!(
                    "{}: there is no topic {topic}: make it with `topics create`",
                    doing()
                )));
            }
        }
        let member = Member {
            instance: instance.clone(),
            topics: topics.clone(),
            generation: None,
            troubles: core.health.troubles(),
        };
        let fetcher = Self::join(&core, group, &member)?;
        Ok(Self::new(core, fetcher, Some(group.clone()), Some(member)))
    }

    fn join(core: &Core, group: &str, member: &Member) -> Result<Fetcher<ReaderContext>> {
        let doing = || format!("joining group {group}");
        let consumer: BaseConsumer<ReaderContext> = core
            .settings
            .consumer(Some(group), Some(&member.instance))
            .create_with_context(ReaderContext::new(Common::new(&core.health, &core.settings, Some(group))))
            .map_err(|e| of_kafka(doing(), &e))?;
        let fetcher = Fetcher::new(consumer).map_err(|e| of_call(doing(), &e))?;
        let names: Vec<&str> = member.topics.iter().map(Topic::as_str).collect();
        fetcher.consumer().subscribe(&names).map_err(|e| of_kafka(doing(), &e))?;
        Ok(fetcher)
    }

    /// Joins anew after it was fenced, if that may have no rival behind it: a member that loses its
    /// coordinator sometimes joins again under a new id, and is then fenced by its own old requests.
    /// Where there is a rival, it has joined since the trouble, and is not to do this in its turn.
    fn join_again(&mut self) -> Result<bool> {
        let (Some(group), Some(member)) = (&self.group, &mut self.member) else { return Ok(false) };
        let troubles = self.core.health.troubles();
        if std::mem::replace(&mut member.troubles, troubles) == troubles {
            return Ok(false);
        }
        tracing::warn!(group, instance = member.instance, "fenced after a broker was gone: joining again");
        if let Some(old) = self.fetcher.take() {
            old.consumer().context().leave();
        }
        member.generation = None;
        self.fetcher = Some(Self::join(&self.core, group, member)?);
        self.ready.clear();
        Ok(true)
    }

    pub(super) fn of_partitions(
        core: Arc<Core>,
        group: Option<&str>,
        partitions: &[(TopicPartition, Offset)],
    ) -> Result<Self> {
        let names: Vec<TopicPartition> = partitions.iter().map(|(partition, _)| partition.clone()).collect();
        let found = core.bounds_of(&names)?;
        for ((partition, offset), (_, bounds)) in partitions.iter().zip(&found) {
            within(partition, *offset, *bounds)?;
        }
        let doing = "making a reader";
        let consumer: BaseConsumer<ReaderContext> = core
            .settings
            .consumer(group, None)
            .create_with_context(ReaderContext::new(Common::new(&core.health, &core.settings, group)))
            .map_err(|e| of_kafka(doing, &e))?;
        let fetcher = Fetcher::new(consumer).map_err(|e| of_call(doing, &e))?;
        let mut reader = Self::new(core, fetcher, group.map(str::to_owned), None);
        reader.partitions = partitions
            .iter()
            .zip(found)
            .map(|((partition, offset), (incarnation, _))| Reading::new(partition.clone(), incarnation, *offset))
            .collect();
        reader.phase = Phase::Planned;
        Ok(reader)
    }

    fn new(core: Arc<Core>, fetcher: Fetcher<ReaderContext>, group: Option<String>, member: Option<Member>) -> Self {
        let (phase, partitions, ready, id) = (Phase::Nothing, Vec::new(), VecDeque::new(), core.share.new_reader());
        Self { core, fetcher: Some(fetcher), group, member, phase, id, partitions, ready, fenced: None }
    }

    fn name(&self) -> String {
        match (&self.group, &self.member) {
            (Some(group), Some(member)) => format!("group {group}, member {}", member.instance),
            (Some(group), None) => format!("group {group}"),
            _ => "a reader outside groups".to_owned(),
        }
    }

    fn fetcher(&self) -> Result<&Fetcher<ReaderContext>> {
        if let Some(why) = &self.fenced {
            return Err(Error::Fenced(format!("{}: {why}", self.name())));
        }
        self.fetcher.as_ref().ok_or_else(|| Error::Fenced(format!("{}: it has left", self.name())))
    }

    /// Answers what librdkafka has to say, or waits for it.
    fn serve(&mut self, timeout: Duration) -> Result<()> {
        let error = match self.fetcher()?.consumer().poll(timeout) {
            None => return Ok(()),
            Some(Ok(record)) => return Err(Error::Stop(wrong_queue(&record))),
            Some(Err(error)) => error,
        };
        let code = error.rdkafka_error_code();
        if code.is_some_and(is_taken) {
            if self.join_again()? {
                return Ok(());
            }
            self.fenced = Some("another of the same instance has taken its place".to_owned());
            return self.fetcher().map(drop);
        }
        let is_outside = self.group.is_none();
        if code.is_some_and(|code| is_passing(code) || is_stale_member(code) || is_outside && is_of_groups(code)) {
            tracing::debug!(reader = %self.name(), %error, "passing");
            return Ok(());
        }
        Err(of_kafka(self.name(), &error))
    }

    /// Tells of a rebalance.
    fn rebalance(&mut self) -> Result<Option<Polled>> {
        let has_joined_again = self.member.as_ref().is_some_and(|member| member.generation.is_none());
        if has_joined_again && matches!(self.phase, Phase::Planned | Phase::Reading) {
            self.core.share.unregister(self.id);
            self.phase = Phase::Revoked;
            return Ok(Some(Polled::Revoked(self.partitions.iter().map(|reading| reading.name.clone()).collect())));
        }
        while let Some(next) = self.fetcher()?.consumer().context().next_rebalance() {
            let polled = match next {
                Rebalance::Assign(partitions) => Some(Polled::Assigned(self.take_over(partitions)?)),
                Rebalance::Revoke(partitions) => {
                    self.core.share.unregister(self.id);
                    self.ready.clear();
                    self.phase = Phase::Revoked;
                    if partitions.is_empty() {
                        self.give_up()?;
                        None
                    } else {
                        Some(Polled::Revoked(partitions))
                    }
                }
            };
            self.fetcher()?.consumer().context().told();
            if polled.is_some() {
                return Ok(polled);
            }
        }
        Ok(None)
    }

    fn take_over(&mut self, partitions: Vec<TopicPartition>) -> Result<Vec<Assigned>> {
        let group = self.group.clone().unwrap_or_default();
        let committed = self.core.committed(&group, &partitions)?;
        let bounds = self.core.bounds_of(&partitions)?;
        let assigned: Vec<Assigned> = partitions
            .into_iter()
            .zip(committed)
            .zip(bounds)
            .map(|((partition, committed), (incarnation, bounds))| Assigned {
                partition,
                incarnation,
                bounds,
                committed,
            })
            .collect();
        self.partitions = assigned
            .iter()
            .map(|Assigned { partition, incarnation, bounds, committed }| {
                let from = committed.as_ref().map_or(bounds.start, |committed| committed.offset);
                Reading::new(partition.clone(), incarnation.clone(), from)
            })
            .collect();
        self.ready.clear();
        let generation = Generation::of(self.fetcher()?).map(Arc::new);
        if let Some(member) = &mut self.member {
            member.generation = generation;
        }
        self.phase = Phase::Planned;
        Ok(assigned)
    }

    /// Begins to read what was planned.
    fn start(&mut self) -> Result<()> {
        let fetcher = self.fetcher()?;
        let mut list = TopicPartitionList::with_capacity(self.partitions.len());
        for Reading { name, position, .. } in &self.partitions {
            let doing = || format!("beginning to read {name}");
            let (topic, partition) = (name.topic.as_str(), number(name.partition));
            fetcher.route(topic, partition).map_err(|e| of_call(doing(), &e))?;
            list.add_partition_offset(topic, partition, Position::Offset(*position))
                .map_err(|e| of_kafka(doing(), &e))?;
        }
        fetcher.consumer().assign(&list).map_err(|e| of_kafka(self.name(), &e))?;
        self.phase = Phase::Reading;
        // Others look once, or at topics of which nobody else reads.
        if self.group.is_some() {
            self.core.share.register(self.id, &self.partitions);
        }
        Ok(())
    }

    /// Takes from others what they fetch anyway, where it stands where they do.
    fn join_others(&mut self) -> Result<()> {
        let joined = self.core.share.join(self.id, &self.partitions, &self.core.settings, &self.core.health);
        if joined.is_empty() {
            return Ok(());
        }
        let list = names(joined.iter().map(|i| &self.partitions[*i]));
        for i in joined {
            self.partitions[i].source = Source::Shared;
        }
        self.fetcher()?.consumer().pause(&list).map_err(|e| of_kafka(self.name(), &e))
    }

    /// Has its own client go on where the reader is, with those partitions that others fetch no more.
    fn return_alone(&mut self) -> Result<()> {
        for i in 0..self.partitions.len() {
            let Reading { ref name, position, source, .. } = self.partitions[i];
            if source != Source::Returning {
                continue;
            }
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition_offset(name.topic.as_str(), number(name.partition), Position::Offset(position))
                .map_err(|e| of_kafka(self.name(), &e))?;
            let consumer = self.fetcher()?.consumer();
            consumer.resume(&list).map_err(|e| of_kafka(self.name(), &e))?;
            // What it fetched before is forgotten with this. Where it fails, why comes as an event.
            let sought = consumer.seek_partitions(list, RETURN_WAIT);
            if sought.is_ok_and(|list| list.elements().iter().all(|element| element.error().is_ok())) {
                self.partitions[i].source = Source::Own;
            }
        }
        Ok(())
    }

    fn give_up(&mut self) -> Result<()> {
        self.core.share.unregister(self.id);
        // So that it finds them as they were, should they come back.
        let paused = names(self.partitions.iter().filter(|reading| reading.source != Source::Own));
        if let Some(fetcher) = self.fetcher.as_ref().filter(|_| paused.count() > 0)
            && let Err(error) = fetcher.consumer().resume(&paused)
        {
            tracing::debug!(reader = %self.name(), %error, "giving up what others fetched");
        }
        self.partitions.clear();
        self.ready.clear();
        self.phase = Phase::Nothing;
        self.fetcher()?.consumer().unassign().map_err(|e| of_kafka(self.name(), &e))?;
        // What was fetched ahead is the next owner's to read: it would only take room here.
        if let Some(fetcher) = &mut self.fetcher {
            while fetcher.fetch(Duration::ZERO, usize::MAX, |_| {}) > 0 {}
        }
        Ok(())
    }

    /// Gathers what is there, or waits for the first record for `wait`.
    fn gather(&mut self, limits: &PollLimits, wait: Duration) -> Result<()> {
        self.join_others()?;
        let mut left = wait;
        loop {
            let seen = self.core.share.take(self.id, &mut self.partitions, limits, &mut self.ready);
            self.return_alone()?;
            let is_of = |source| move |reading: &Reading| reading.source == source;
            let shares = self.partitions.iter().any(is_of(Source::Shared));
            // What its own client has to say of faults it says in either case.
            let own_wait = match (self.ready.is_empty(), shares) {
                (false, _) => Duration::ZERO,
                (true, true) if self.partitions.iter().all(is_of(Source::Shared)) => {
                    self.core.share.wait(seen, left);
                    Duration::ZERO
                }
                (true, true) => left.min(SHORT_STEP),
                (true, false) => left,
            };
            self.gather_own(limits, own_wait)?;
            left = left.saturating_sub(if own_wait.is_zero() { left } else { own_wait });
            if !self.ready.is_empty() || left.is_zero() {
                return Ok(());
            }
        }
    }

    /// The same by its own client.
    fn gather_own(&mut self, limits: &PollLimits, wait: Duration) -> Result<()> {
        let Self { fetcher: Some(fetcher), partitions, .. } = self else { return Ok(()) };
        let failed = fetch(fetcher, partitions, limits, wait);
        let mut came = false;
        for reading in &mut self.partitions {
            let Some(mut batch) = reading.take_batch() else { continue };
            came = true;
            while !batch.is_empty() {
                let first = batch.bounded(limits.records.max(1), limits.bytes);
                batch = batch.slice(first.len(), usize::MAX);
                self.ready.push_back(first);
            }
        }
        if came {
            self.core.health.answered();
        }
        failed.map_or(Ok(()), Err)
    }

    fn say_goodbye(fetcher: &Fetcher<ReaderContext>) {
        let consumer = fetcher.consumer();
        // A static member's goodbye is sent for an `unsubscribe` only, once what it had is given
        // up; until then its member id stays.
        consumer.unsubscribe();
        for _ in 0..LEAVE_STEPS {
            let _ = consumer.poll(LEAVE_STEP);
            if Generation::of(fetcher).is_none_or(|generation| !generation.has_member()) {
                return;
            }
        }
        tracing::debug!("leaving took too long: the session has to expire");
    }
}

fn names<'a>(of: impl Iterator<Item = &'a Reading>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for Reading { name, .. } in of {
        list.add_partition(name.topic.as_str(), number(name.partition));
    }
    list
}

impl Reader for KafkaReader {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled> {
        let mut waited = Duration::ZERO;
        loop {
            self.serve(Duration::ZERO)?;
            if let Some(polled) = self.rebalance()? {
                return Ok(polled);
            }
            if self.phase == Phase::Planned {
                self.start()?;
            }
            if self.phase == Phase::Reading {
                if self.ready.is_empty() {
                    self.gather(limits, Duration::ZERO)?;
                }
                if let Some(batch) = self.ready.pop_front() {
                    if self.group.is_some() {
                        self.core.share.gave(self.id, &batch);
                    }
                    return Ok(Polled::Batch(batch));
                }
            }
            let step = limits.timeout.saturating_sub(waited).min(STEP);
            if step.is_zero() {
                return Ok(Polled::Idle);
            }
            waited += step;
            if self.phase == Phase::Reading && !self.partitions.is_empty() {
                self.gather(limits, step)?;
            } else {
                self.serve(step)?;
            }
        }
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        let at = self.partitions.iter().position(|reading| reading.name == *partition);
        let Some(at) = at.filter(|_| matches!(self.phase, Phase::Planned | Phase::Reading)) else {
            return Err(Error::Stop(format!("{partition} is not assigned to this reader: it cannot be sought in")));
        };
        within(partition, offset, self.core.bounds_of_one(partition)?)?;
        self.core.share.withdraw(self.id, partition);
        if self.partitions[at].source != Source::Own {
            let list = names(std::iter::once(&self.partitions[at]));
            self.fetcher()?.consumer().resume(&list).map_err(|e| of_kafka(self.name(), &e))?;
            self.partitions[at].source = Source::Own;
        }
        if self.phase == Phase::Reading {
            let doing = || format!("seeking {partition} to {offset}");
            let mut steps = 0;
            loop {
                let mut list = TopicPartitionList::with_capacity(1);
                list.add_partition_offset(
                    partition.topic.as_str(),
                    number(partition.partition),
                    Position::Offset(offset.0),
                )
                .map_err(|e| of_kafka(doing(), &e))?;
                let sought = self.fetcher()?.consumer().seek_partitions(list, SEEK_WAIT);
                let error = match sought.map(|list| list.elements().iter().find_map(|element| element.error().err())) {
                    Ok(None) => break,
                    Ok(Some(error)) | Err(error) => error,
                };
                // One that has lost its place learns of it here, or is about to be told.
                self.serve(Duration::ZERO)?;
                if self.fetcher()?.consumer().context().next_rebalance().is_some() {
                    break;
                }
                steps += 1;
                if steps >= SEEK_STEPS {
                    return Err(of_kafka(doing(), &error));
                }
                pause(STEP);
            }
        }
        let (topic, number) = (&partition.topic, partition.partition);
        self.ready.retain(|batch| batch.topic != *topic || batch.partition != number);
        let reading = &mut self.partitions[at];
        reading.offsets.clear();
        reading.records.clear();
        reading.position = offset.0;
        Ok(())
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        let Some(group) = &self.group else {
            return Err(Error::Stop("this reader belongs to no group: it has nothing to commit to".to_owned()));
        };
        check_commits(group, commits)?;
        let fetcher = self.fetcher()?;
        if commits.is_empty() {
            return Ok(());
        }
        if let Some(member) = &self.member {
            // What is in hand is of an assignment that is over.
            if member.generation.is_none() {
                return Err(Error::Abort(format!("{}: committing: it joins the group anew", self.name())));
            }
            let logs: HashMap<_, _> = self.partitions.iter().map(|of| (&of.name.topic, &of.incarnation)).collect();
            self.core.check_logs(logs.into_iter())?;
        }
        let list = list_of(commits).map_err(Error::Stop)?;
        fail::fail_point!("kafka::before_offset_commit");
        if let Err(error) = fetcher.consumer().commit(&list, CommitMode::Sync) {
            let doing = format!("{}: committing", self.name());
            error.rdkafka_error_code().into_iter().for_each(|code| self.core.health.failed(code));
            // Once it is fenced, librdkafka has but one answer to everything.
            return Err(match fetcher.consumer().client().fatal_error() {
                Some((code, text)) if is_taken(code) && self.join_again()? => Error::Abort(format!("{doing}: {text}")),
                Some((code, text)) => of_code(doing, code, &text),
                None => of_kafka(doing, &error),
            });
        }
        fail::fail_point!("kafka::after_offset_commit");
        self.core.health.answered();
        Ok(())
    }

    fn release(&mut self) -> Result<()> {
        if self.phase != Phase::Revoked {
            return Err(Error::Stop(format!("{}: nothing was revoked", self.name())));
        }
        self.give_up()
    }

    fn membership(&self) -> Option<Membership> {
        let (group, member) = (self.group.as_ref()?, self.member.as_ref()?);
        let generation = member.generation.clone()?;
        Some(Membership {
            group: group.clone(),
            instance: member.instance.clone(),
            generation: u64::try_from(generation.number()).unwrap_or(0),
            token: generation,
        })
    }

    fn leave(&mut self) -> Result<()> {
        self.core.share.unregister(self.id);
        self.partitions.clear();
        self.ready.clear();
        let phase = std::mem::replace(&mut self.phase, Phase::Nothing);
        let Some(fetcher) = self.fetcher.take() else { return Ok(()) };
        let context = fetcher.consumer().context();
        // From here on librdkafka's rebalances answer themselves; one may wait for its answer now.
        context.leave();
        if self.member.is_some() {
            match (context.next_rebalance(), phase) {
                (Some(Rebalance::Assign(_)), _) | (None, Phase::Planned) => decline(fetcher.consumer(), true),
                (Some(Rebalance::Revoke(_)), _) | (None, Phase::Revoked) => decline(fetcher.consumer(), false),
                (None, Phase::Nothing | Phase::Reading) => {}
            }
            if self.fenced.is_none() {
                Self::say_goodbye(&fetcher);
            }
        }
        Ok(())
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        // It cannot fail, and nobody is left to tell.
        let _ = self.leave();
    }
}
