//! A transactional writer. What it is given stays in its own memory until it commits.
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::Core;
use super::codec::{APPEND_MAX_BYTES, Blob, Encoder};
use super::commit::{Append, GroupCommit, WriterKey};
use super::groups::{MemberKey, Position};
use super::log::PartitionId;
use super::trim::Scope;
use crate::{Cancel, Commit, Error, Membership, Records, Result, Topic, Writer};

/// A row that has reached this takes no further append: readers decode whole rows.
const ROW_BYTES: usize = 1 << 20;
/// How often a wait for room looks whether it was cancelled, and in how many such steps it asks
/// the slowest group again and tells people again.
const ROOM_STEP: Duration = Duration::from_millis(20);
const ASK_EVERY_STEPS: u32 = 25;
const WARN_EVERY_STEPS: u32 = 500;
/// How often a wait for readers looks how far they are, and after how many such steps without
/// headway it no longer waits.
const READERS_STEP: Duration = Duration::from_millis(4);
const STALLED_STEPS: u32 = 50;

pub(super) struct EmbeddedWriter {
    core: Arc<Core>,
    key: WriterKey,
    open: bool,
    pending: Vec<Pending>,
    commits: Vec<GroupCommit>,
    encoder: Encoder,
    spare: Vec<Blob>,
    /// Topics and groups of all its transactions so far.
    topics: HashSet<Topic>,
    groups: HashSet<String>,
    /// Groups that made no headway, and how far they were.
    stalled: HashMap<String, i64>,
}

struct Pending {
    partition: PartitionId,
    singly: bool,
    records: Records,
}

/// Of an append within the transaction.
enum Place {
    /// At the end of this one of the pending rows.
    Row(usize),
    New {
        partition: PartitionId,
        singly: bool,
    },
}

impl EmbeddedWriter {
    pub(super) fn new(core: Arc<Core>, key: WriterKey) -> Self {
        Self {
            core,
            key,
            open: false,
            pending: Vec::new(),
            commits: Vec::new(),
            encoder: Encoder::default(),
            spare: Vec::new(),
            topics: HashSet::new(),
            groups: HashSet::new(),
            stalled: HashMap::new(),
        }
    }

    fn forget(&mut self) {
        self.open = false;
        self.pending.clear();
        self.commits.clear();
    }

    /// A fenced writer's transaction is gone, whatever it calls next.
    fn check(&mut self) -> Result<()> {
        let checked = self.core.state().check_writer(&self.key);
        if checked.is_err() {
            self.forget();
        }
        checked
    }

    fn check_open(&mut self) -> Result<()> {
        self.check()?;
        if self.open {
            return Ok(());
        }
        Err(Error::Stop(format!("writer {}: no transaction is open", self.key.id)))
    }

    /// Where an append goes. None where there is nothing to append.
    fn place(&mut self, topic: &Topic, partition: u32, records: &Records) -> Result<Option<Place>> {
        self.check_open()?;
        let (id, singly) = {
            let state = self.core.state();
            let id = state.id(topic, partition)?;
            (id, state.log(id).is_compacted())
        };
        if records.is_empty() {
            return Ok(None);
        }
        if records.bytes() > APPEND_MAX_BYTES {
            return Err(Error::Stop(format!(
                "{topic}-{partition}: an append of {} bytes; {APPEND_MAX_BYTES} is the most",
                records.bytes()
            )));
        }
        if singly && (0..records.len()).any(|i| records.get(i, crate::Offset(0)).key.is_empty()) {
            return Err(Error::Stop(format!("{topic}-{partition}: a record without a key, in a compacted topic")));
        }
        if !self.topics.contains(topic) {
            self.topics.insert(topic.clone());
        }
        // The latest row of the partition, unless it is full.
        let row = self.pending.iter().rposition(|pending| pending.partition == id);
        let row = row.filter(|row| self.pending[*row].records.bytes() < ROW_BYTES);
        Ok(Some(row.map_or(Place::New { partition: id, singly }, Place::Row)))
    }

    fn encode(&mut self) -> Result<Vec<Append>> {
        let mut appends = Vec::with_capacity(self.pending.len());
        for Pending { partition, singly, records } in self.pending.drain(..) {
            let mut blobs = Vec::new();
            if singly {
                let mut single = Records::new();
                for i in 0..records.len() {
                    single.clear();
                    single.push_ref(records.get(i, crate::Offset(0)));
                    let mut blob = Blob::default();
                    self.encoder.encode(&single, &mut blob)?;
                    blobs.push(blob);
                }
            } else {
                let mut blob = self.spare.pop().unwrap_or_default();
                self.encoder.encode(&records, &mut blob)?;
                blobs.push(blob);
            }
            appends.push(Append { partition, records: Arc::new(records), blobs, singly });
        }
        Ok(appends)
    }
}

impl Drop for EmbeddedWriter {
    fn drop(&mut self) {
        // The end is near, and readers have work left meanwhile.
        self.core.checkpointer.begin_round();
    }
}

impl Writer for EmbeddedWriter {
    fn wait_for_room(&mut self, cancel: &Cancel) -> Result<()> {
        self.check()?;
        // Who has written nothing yet may be the one whose reading makes room.
        if self.topics.is_empty() {
            return Ok(());
        }
        let core = Arc::clone(&self.core);
        let mut state = core.state();
        let mut steps = 0_u32;
        loop {
            let scope = (!self.groups.is_empty()).then_some(Scope { own_groups: &self.groups, topics: &self.topics });
            let (held, slowest) = state.held(scope);
            let Some(slowest) = slowest.filter(|_| held >= core.options.max_log_bytes) else { return Ok(()) };
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if state.ask_to_flush(&slowest, steps % ASK_EVERY_STEPS == ASK_EVERY_STEPS - 1) {
                core.changed.notify_all();
            }
            if steps % WARN_EVERY_STEPS == WARN_EVERY_STEPS - 1 {
                tracing::warn!(
                    writer = %self.key.id, group = %slowest.group, topic = %slowest.topic, bytes = slowest.bytes,
                    bound = core.options.max_log_bytes, "the log is full: waiting for a group to commit"
                );
            }
            steps = steps.wrapping_add(1);
            state = core.wait_for_room(state, ROOM_STEP);
            state.check_writer(&self.key)?;
        }
    }

    fn wait_for_readers(&mut self, cancel: &Cancel) -> Result<()> {
        self.check()?;
        let core = Arc::clone(&self.core);
        let mut state = core.state();
        let (mut seen, mut still) = (None, 0_u32);
        loop {
            let Some(furthest) = state.furthest_behind(&self.stalled) else { return Ok(()) };
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if seen.as_ref() == Some(&furthest) {
                still += 1;
                if still >= STALLED_STEPS {
                    // It reads later, or never: nothing is gained by waiting until it moves again.
                    self.stalled.insert(furthest.0, furthest.1);
                    return Ok(());
                }
            } else {
                (seen, still) = (Some(furthest), 0);
            }
            state = core.wait_for_room(state, READERS_STEP);
            state.check_writer(&self.key)?;
        }
    }

    fn begin(&mut self) -> Result<()> {
        self.check()?;
        if self.open {
            return Err(Error::Stop(format!("writer {}: a transaction is open already", self.key.id)));
        }
        self.open = true;
        Ok(())
    }

    fn append(&mut self, topic: &Topic, partition: u32, records: &Records) -> Result<()> {
        match self.place(topic, partition, records)? {
            Some(Place::Row(row)) => self.pending[row].records.extend(records),
            Some(Place::New { partition, singly }) => {
                let records = Records::copy_of(records, self.core.state().spare_records());
                self.pending.push(Pending { partition, singly, records });
            }
            None => {}
        }
        Ok(())
    }

    fn append_taking(&mut self, topic: &Topic, partition: u32, records: &mut Records) -> Result<()> {
        match self.place(topic, partition, records)? {
            // What is kept should not be mostly room for more.
            Some(Place::New { partition, singly }) if records.is_half_full() => {
                let used = self.core.state().spare_records();
                let records = std::mem::replace(records, used);
                self.pending.push(Pending { partition, singly, records });
            }
            Some(Place::New { partition, singly }) => {
                self.pending.push(Pending { partition, singly, records: records.clone() });
            }
            Some(Place::Row(row)) => self.pending[row].records.extend(records),
            None => {}
        }
        records.clear();
        Ok(())
    }

    fn commit_offsets(&mut self, membership: &Membership, commits: &[Commit]) -> Result<()> {
        self.check_open()?;
        let member = membership.token.downcast_ref::<MemberKey>().copied();
        let member = member.ok_or_else(|| Error::Stop("the membership is not of this broker".to_owned()))?;
        let added = {
            let state = self.core.state();
            to_group(&state, &membership.group, Some(member), commits)?
        };
        self.groups.insert(membership.group.clone());
        self.commits.extend(added);
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.check_open()?;
        let appends = self.encode();
        let commits = std::mem::take(&mut self.commits);
        self.forget();
        let appends = appends?;
        if appends.is_empty() && commits.is_empty() {
            return Ok(());
        }
        let done = self.core.commit(Some(&self.key), &appends, &commits);
        self.spare.extend(appends.into_iter().filter(|append| !append.singly).flat_map(|append| append.blobs));
        done
    }

    fn abort(&mut self) -> Result<()> {
        self.check()?;
        self.forget();
        Ok(())
    }
}

/// Commits of the port, checked.
pub(super) fn to_group(
    state: &super::log::State,
    group: &str,
    member: Option<MemberKey>,
    commits: &[Commit],
) -> Result<Vec<GroupCommit>> {
    commits
        .iter()
        .map(|commit| {
            let commit = GroupCommit {
                group: group.to_owned(),
                member,
                partition: state.id_of(&commit.partition)?,
                position: Position {
                    offset: commit.offset.0,
                    keep_from: commit.keep_from.0,
                    metadata: commit.metadata.clone(),
                },
            };
            state.check_commit(&commit)?;
            Ok(commit)
        })
        .collect()
}
