//! A reader: of a group's share, or of partitions that it was given. What others appended lately
//! it takes from the tail cache; what is older, from the database, by a connection of its own.
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::Core;
use super::codec;
use super::groups::{GroupEvent, MemberKey};
use super::log::{OFFSET_MAX, PartitionId, State};
use super::recover::torn;
use super::schema::{explain, open_to_read};
use super::writer::to_group;
use crate::{
    Assigned, Batch, Commit, Committed, Error, Incarnation, Membership, Offset, PollLimits, Polled, Reader, Records,
    Result, TopicPartition,
};

pub(super) struct EmbeddedReader {
    /// Closed before the last hold on the lock goes.
    database: Option<Connection>,
    core: Arc<Core>,
    group: Option<String>,
    member: Option<Member>,
    partitions: Vec<Reading>,
    /// Read last from the database: its allocations are used again once nobody else holds it.
    last: Option<Batch>,
    /// Whose turn it is.
    turn: usize,
    /// Read by the last poll, and not yet known to the group.
    read: Option<(PartitionId, i64)>,
    flushes_seen: u64,
}

struct Member {
    instance: String,
    key: MemberKey,
    /// Told to give up its partitions and has not done so yet.
    revoked: bool,
}

struct Reading {
    id: PartitionId,
    name: TopicPartition,
    position: i64,
    /// The rest of the row that was read last from the database.
    rest: Option<Batch>,
}

impl EmbeddedReader {
    pub(super) fn of_member(core: Arc<Core>, group: &str, instance: &str, id: u64, flushes_seen: u64) -> Self {
        let key = MemberKey { id, generation: 0 };
        Self {
            database: None,
            core,
            group: Some(group.to_owned()),
            member: Some(Member { instance: instance.to_owned(), key, revoked: false }),
            partitions: Vec::new(),
            last: None,
            turn: 0,
            read: None,
            flushes_seen,
        }
    }

    pub(super) fn of_partitions(
        core: Arc<Core>,
        group: Option<&str>,
        partitions: Vec<(PartitionId, TopicPartition, i64)>,
        flushes_seen: u64,
    ) -> Self {
        let reading = |(id, name, position)| Reading { id, name, position, rest: None };
        Self {
            database: None,
            core,
            group: group.map(str::to_owned),
            member: None,
            partitions: partitions.into_iter().map(reading).collect(),
            last: None,
            turn: 0,
            read: None,
            flushes_seen,
        }
    }

    fn flushes(&self, state: &State) -> u64 {
        self.group.as_ref().and_then(|group| state.groups.get(group)).map_or(0, |group| group.flushes)
    }

    fn may_read(&self) -> bool {
        self.member.as_ref().is_none_or(|member| !member.revoked)
    }

    /// Whether a poll has something to say. A position outside the log counts: it is an error.
    fn has_something(&self, state: &State) -> bool {
        let news =
            |member: &Member| self.group.as_ref().is_none_or(|group| state.has_group_event(group, member.key.id));
        self.member.as_ref().is_some_and(news)
            || self.flushes(state) != self.flushes_seen
            || (self.may_read() && self.partitions.iter().any(|reading| reading.position != state.log(reading.id).end))
    }

    fn group_event(&mut self, state: &mut State) -> Result<Option<Polled>> {
        let (Some(group), Some(member)) = (&self.group, &mut self.member) else { return Ok(None) };
        match state.group_event(group, member.key.id)? {
            None => Ok(None),
            Some(GroupEvent::Revoked(ids)) => {
                member.revoked = true;
                Ok(Some(Polled::Revoked(ids.into_iter().map(|id| state.log(id).name.clone()).collect())))
            }
            Some(GroupEvent::Assigned { generation, partitions }) => {
                (member.key.generation, member.revoked) = (generation, false);
                self.partitions.clear();
                let mut assigned = Vec::with_capacity(partitions.len());
                for id in partitions {
                    let log = state.log(id);
                    let committed = committed(state, group, id);
                    let position = committed.as_ref().map_or(log.start(), |committed| committed.offset.0);
                    self.partitions.push(Reading { id, name: log.name.clone(), position, rest: None });
                    let incarnation: Incarnation = self.core.incarnation.clone();
                    assigned.push(Assigned {
                        partition: log.name.clone(),
                        incarnation,
                        bounds: log.bounds(),
                        committed,
                    });
                }
                Ok(Some(Polled::Assigned(assigned)))
            }
        }
    }

    /// The next partition, in turn, that has records to read.
    fn next_partition(&mut self, state: &State) -> Result<Option<usize>> {
        if !self.may_read() {
            return Ok(None);
        }
        for step in 0..self.partitions.len() {
            let i = (self.turn + step) % self.partitions.len();
            let reading = &self.partitions[i];
            let log = state.log(reading.id);
            if reading.position == log.end {
                continue;
            }
            within(&reading.name, reading.position, log.start(), log.end)?;
            self.turn = i + 1;
            return Ok(Some(i));
        }
        Ok(None)
    }

    /// From the database: the stored batch that holds the position, from there on.
    fn read_batch(&mut self, i: usize) -> Result<Batch> {
        let core = &self.core;
        let failed = |e| explain(&core.path, e);
        let database = match &mut self.database {
            Some(database) => database,
            none => none.insert(open_to_read(&core.path).map_err(failed)?),
        };
        let Reading { id, name, position, .. } = &self.partitions[i];
        let used = self.last.take().and_then(Batch::into_records).unwrap_or_default();
        let mut query = database
            .prepare_cached("SELECT id, data FROM batch WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1")
            .map_err(failed)?;
        let found = query
            .query_row([id.row(0), id.row(*position)], |row| {
                let data = row.get_ref(1)?.as_blob()?;
                Ok((row.get::<_, i64>(0)? & OFFSET_MAX, codec::decode(data, used)))
            })
            .optional()
            .map_err(failed)?;
        let Some((base, records)) = found else {
            return Err(torn(&core.path, name, *position, "it is missing"));
        };
        let records = records.map_err(|what| torn(&core.path, name, base, what))?;
        let skip = usize::try_from(position - base).unwrap_or(usize::MAX);
        if skip >= records.len() {
            return Err(torn(&core.path, name, *position, "it is missing"));
        }
        let whole = Batch::contiguous(name.topic.clone(), name.partition, Offset(base), Arc::new(records));
        let batch = whole.slice(skip, usize::MAX);
        self.last = Some(whole);
        Ok(batch)
    }

    /// From the database, of a compacted topic: the latest records from the position on.
    fn read_latest(&mut self, i: usize, end: i64, limits: &PollLimits) -> Result<Batch> {
        let core = &self.core;
        let failed = |e| explain(&core.path, e);
        let database = match &mut self.database {
            Some(database) => database,
            none => none.insert(open_to_read(&core.path).map_err(failed)?),
        };
        let Reading { id, name, position, .. } = &self.partitions[i];
        let mut query = database
            .prepare_cached("SELECT id, data FROM latest WHERE id >= ?1 AND id < ?2 ORDER BY id")
            .map_err(failed)?;
        let mut rows = query.query([id.row(*position), id.row(end)]).map_err(failed)?;
        let (mut offsets, mut records) = (Vec::new(), Records::new());
        while let Some(row) = rows.next().map_err(failed)? {
            let offset = row.get::<_, i64>(0).map_err(failed)? & OFFSET_MAX;
            let data = row.get_ref(1).and_then(|data| Ok(data.as_blob()?)).map_err(failed)?;
            let record = codec::decode(data, Records::new()).map_err(|what| torn(&core.path, name, offset, what))?;
            records.extend(&record);
            offsets.push(Offset(offset));
            if records.len() >= limits.records || records.bytes() >= limits.bytes {
                break;
            }
        }
        Ok(Batch::with_offsets(name.topic.clone(), name.partition, offsets, records))
    }
}

pub(super) fn committed(state: &State, group: &str, id: PartitionId) -> Option<Committed> {
    let position = state.groups.get(group)?.positions.get(&id)?;
    Some(Committed { offset: Offset(position.offset), metadata: position.metadata.clone() })
}

pub(super) fn within(name: &TopicPartition, offset: i64, start: i64, end: i64) -> Result<()> {
    if (start..=end).contains(&offset) {
        return Ok(());
    }
    Err(Error::Stop(format!(
        "{name}: offset {offset} is outside the log, which holds {start} to {end}; its records are gone or never \
         were: this log and the outputs do not belong together"
    )))
}

impl Reader for EmbeddedReader {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled> {
        let core = Arc::clone(&self.core);
        if let Some((id, position)) = self.read.take()
            && let Some(group) = &self.group
        {
            core.state().group_mut(group).read.insert(id, position);
        }
        let mut state = core.wait_for_change(limits.timeout, |state| !self.has_something(state));
        if let Some(polled) = self.group_event(&mut state)? {
            return Ok(polled);
        }
        let flushes = self.flushes(&state);
        if flushes != self.flushes_seen {
            self.flushes_seen = flushes;
            return Ok(Polled::Flush);
        }
        let Some(i) = self.next_partition(&state)? else { return Ok(Polled::Idle) };
        let log = state.log(self.partitions[i].id);
        let (end, is_compacted) = (log.end, log.is_compacted());
        let batch = if is_compacted {
            drop(state);
            let batch = self.read_latest(i, end, limits)?;
            if batch.is_empty() {
                // All of them were replaced meanwhile by later ones.
                self.partitions[i].position = end;
                return Ok(Polled::Idle);
            }
            batch
        } else {
            let reading = &self.partitions[i];
            let rest = reading.rest.as_ref().filter(|rest| rest.first_offset() == Some(Offset(reading.position)));
            let cached = rest.cloned().or_else(|| state.cached(reading.id, reading.position));
            drop(state);
            let whole = match cached {
                Some(batch) => batch,
                None => self.read_batch(i)?,
            };
            let batch = whole.bounded(limits.records, limits.bytes);
            self.partitions[i].rest = (batch.len() < whole.len()).then(|| whole.slice(batch.len(), usize::MAX));
            batch
        };
        if let Some(next) = batch.next_offset() {
            self.partitions[i].position = next.0;
            self.read = Some((self.partitions[i].id, next.0));
        }
        Ok(Polled::Batch(batch))
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        let Some(reading) = self.partitions.iter_mut().find(|reading| reading.name == *partition) else {
            return Err(Error::Stop(format!("{partition} is not assigned to this reader: it cannot be sought in")));
        };
        let bounds = self.core.state().log(reading.id).bounds();
        within(partition, offset.0, bounds.start.0, bounds.end.0)?;
        (reading.position, reading.rest) = (offset.0, None);
        Ok(())
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        let Some(group) = &self.group else {
            return Err(Error::Stop("this reader belongs to no group: it has nothing to commit to".to_owned()));
        };
        if commits.is_empty() {
            return Ok(());
        }
        let commits = {
            let state = self.core.state();
            to_group(&state, group, self.member.as_ref().map(|member| member.key), commits)?
        };
        self.core.commit(None, &[], &commits)
    }

    fn release(&mut self) -> Result<()> {
        let (Some(group), Some(member)) = (&self.group, &mut self.member) else {
            return Err(Error::Stop("this reader is not a member of a group: it has nothing to release".to_owned()));
        };
        if !member.revoked {
            return Err(Error::Stop(format!("group {group}: nothing was revoked from {}", member.instance)));
        }
        self.partitions.clear();
        member.revoked = false;
        self.core.state().release(group, member.key.id)?;
        self.core.changed.notify_all();
        Ok(())
    }

    fn membership(&self) -> Option<Membership> {
        let (group, member) = (self.group.as_ref()?, self.member.as_ref()?);
        Some(Membership {
            group: group.clone(),
            instance: member.instance.clone(),
            generation: member.key.generation,
            token: Arc::new(member.key),
        })
    }

    fn leave(&mut self) -> Result<()> {
        self.partitions.clear();
        if let (Some(group), Some(member)) = (&self.group, &self.member) {
            self.core.leave(group, member.key.id);
        }
        Ok(())
    }
}

impl Drop for EmbeddedReader {
    fn drop(&mut self) {
        // It cannot fail, and nobody is left to tell.
        let _ = self.leave();
    }
}
