//! The log as memory knows it: partitions, their bounds and rows, and the cache of their tails.
//! It knows no database: what was committed is told to it.
use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::groups::Group;
use crate::{Batch, Cleanup, Error, LogBounds, Offset, Records, Result, Topic, TopicPartition};

/// A row's key is partition id × 2^40 + offset.
pub(super) const OFFSET_BITS: u32 = 40;
pub(super) const OFFSET_MAX: i64 = (1 << OFFSET_BITS) - 1;

/// How many allocations wait to be used again, and of what size: smaller ones are cheap to come by.
const SPARE_MAX: usize = 16;
const SPARE_MIN_BYTES: usize = 256 << 10;
const SPARE_MAX_BYTES: usize = 2 << 20;

/// A partition's number within the database, over all topics, from 0 without holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PartitionId(pub(super) u32);

impl PartitionId {
    pub(super) fn row(self, offset: i64) -> i64 {
        i64::from(self.0) << OFFSET_BITS | offset
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
pub(super) struct TopicState {
    pub(super) partitions: Vec<PartitionId>,
    pub(super) cleanup: Cleanup,
}

/// A stored batch: where it begins, and how many bytes were stored before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) base: i64,
    bytes_before: u64,
}

#[derive(Debug)]
pub(super) struct PartitionLog {
    pub(super) name: TopicPartition,
    pub(super) cleanup: Cleanup,
    pub(super) end: i64,
    pub(super) rows: VecDeque<Row>,
    /// Bytes ever appended, of the rows that `rows` began with.
    bytes_end: u64,
    /// The batches of the tail, by their first offset.
    tail: VecDeque<(i64, Arc<Records>)>,
}

impl PartitionLog {
    pub(super) fn new(name: TopicPartition, cleanup: Cleanup, end: i64) -> Self {
        Self { name, cleanup, end, rows: VecDeque::new(), bytes_end: 0, tail: VecDeque::new() }
    }

    pub(super) fn is_compacted(&self) -> bool {
        self.cleanup == Cleanup::Compact
    }

    /// The oldest offset kept. What compaction drops does not move it: its holes are no loss.
    pub(super) fn start(&self) -> i64 {
        if self.is_compacted() { 0 } else { self.rows.front().map_or(self.end, |row| row.base) }
    }

    pub(super) fn bounds(&self) -> LogBounds {
        LogBounds { start: Offset(self.start()), end: Offset(self.end) }
    }

    pub(super) fn push_row(&mut self, base: i64, bytes: u64) {
        self.rows.push_back(Row { base, bytes_before: self.bytes_end });
        self.bytes_end += bytes;
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.rows.front().map_or(0, |row| self.bytes_end - row.bytes_before)
    }

    /// Bytes of the rows that hold `offset` and what follows it.
    pub(super) fn bytes_from(&self, offset: i64) -> u64 {
        if offset >= self.end {
            return 0;
        }
        let after = self.rows.partition_point(|row| row.base <= offset);
        self.rows.get(after.saturating_sub(1)).map_or(0, |row| self.bytes_end - row.bytes_before)
    }

    /// How many of the oldest rows lie below `floor` altogether, their bytes, and where the log
    /// would begin without them; within `bytes` (but at least one row).
    pub(super) fn rows_below(&self, floor: i64, bytes: u64) -> (usize, u64, i64) {
        let (mut rows, mut taken, mut start) = (0, 0, self.start());
        let ends = self.rows.iter().skip(1).map(|row| (row.base, row.bytes_before));
        for (end, bytes_end) in ends.chain([(self.end, self.bytes_end)]).take(self.rows.len()) {
            let so_far = bytes_end - self.rows[0].bytes_before;
            if end > floor || (rows > 0 && so_far > bytes) {
                break;
            }
            (rows, taken, start) = (rows + 1, so_far, end);
        }
        (rows, taken, start)
    }

    pub(super) fn drop_rows(&mut self, rows: usize) {
        self.rows.drain(..rows.min(self.rows.len()));
    }

    /// Of the cached batches, the bytes of those that `offset` is not past.
    pub(super) fn cached_bytes_from(&self, offset: i64) -> usize {
        let rest = self.tail.iter().rev();
        rest.take_while(|(base, records)| base + records.len() as i64 > offset).map(|(_, r)| r.memory()).sum()
    }

    fn cached(&self, offset: i64) -> Option<Batch> {
        let after = self.tail.partition_point(|(base, _)| *base <= offset);
        let (base, records) = self.tail.get(after.checked_sub(1)?)?;
        let skip = usize::try_from(offset - base).ok()?;
        (skip < records.len()).then(|| {
            let name = &self.name;
            Batch::contiguous(name.topic.clone(), name.partition, Offset(*base), Arc::clone(records))
                .slice(skip, usize::MAX)
        })
    }
}

/// All that is shared and changes, under one lock that is held briefly and never across I/O.
#[derive(Default)]
pub(super) struct State {
    pub(super) topics: HashMap<Topic, TopicState>,
    pub(super) partitions: Vec<PartitionLog>,
    pub(super) groups: HashMap<String, Group>,
    /// The latest epoch of each transactional id.
    pub(super) writers: HashMap<String, u64>,
    /// Partitions in which something may be deleted.
    pub(super) to_trim: VecDeque<PartitionId>,
    pub(super) members_made: u64,
    cache_order: VecDeque<PartitionId>,
    /// Out of the cache and held by nobody: their allocations are used again.
    spare: Vec<Records>,
    cache_bytes: usize,
    pub(super) cache_max_bytes: usize,
}

impl State {
    pub(super) fn id(&self, topic: &Topic, partition: u32) -> Result<PartitionId> {
        let Some(found) = self.topics.get(topic) else {
            return Err(Error::Stop(format!("there is no topic {topic}: it must be created first")));
        };
        found.partitions.get(partition as usize).copied().ok_or_else(|| {
            Error::Stop(format!("{topic}-{partition}: the topic has {} partitions, from 0", found.partitions.len()))
        })
    }

    pub(super) fn id_of(&self, partition: &TopicPartition) -> Result<PartitionId> {
        self.id(&partition.topic, partition.partition)
    }

    pub(super) fn log(&self, id: PartitionId) -> &PartitionLog {
        &self.partitions[id.index()]
    }

    pub(super) fn log_mut(&mut self, id: PartitionId) -> &mut PartitionLog {
        &mut self.partitions[id.index()]
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)).map(PartitionId)
    }

    pub(super) fn add_topic(&mut self, name: &Topic, cleanup: Cleanup) {
        self.topics.entry(name.clone()).or_insert_with(|| TopicState { partitions: Vec::new(), cleanup });
    }

    /// The next partition of a topic that was added.
    pub(super) fn add_partition(&mut self, topic: &Topic, end: i64) -> PartitionId {
        let id = PartitionId(u32::try_from(self.partitions.len()).unwrap_or(u32::MAX));
        if let Some(state) = self.topics.get_mut(topic) {
            let number = u32::try_from(state.partitions.len()).unwrap_or(u32::MAX);
            state.partitions.push(id);
            self.partitions.push(PartitionLog::new(TopicPartition::new(topic, number), state.cleanup, end));
        }
        id
    }

    /// Committed records that stand at `base`: they can be read from now on.
    pub(super) fn appended(&mut self, id: PartitionId, base: i64, records: &Arc<Records>, stored_bytes: u64) {
        let (cache_max_bytes, bytes) = (self.cache_max_bytes, records.memory());
        let log = self.log_mut(id);
        log.end = base + records.len() as i64;
        if log.is_compacted() {
            return;
        }
        log.push_row(base, stored_bytes);
        if bytes > cache_max_bytes {
            return;
        }
        log.tail.push_back((base, Arc::clone(records)));
        self.cache_order.push_back(id);
        self.cache_bytes += bytes;
        while self.cache_bytes > cache_max_bytes
            && let Some(oldest) = self.cache_order.pop_front()
        {
            if let Some((_, records)) = self.log_mut(oldest).tail.pop_front() {
                self.cache_bytes -= records.memory();
                if let Some(records) = Arc::into_inner(records)
                    && self.spare.len() < SPARE_MAX
                    && (SPARE_MIN_BYTES..=SPARE_MAX_BYTES).contains(&records.memory())
                {
                    self.spare.push(records);
                }
            }
        }
    }

    /// Records to write over, or new ones.
    pub(super) fn spare_records(&mut self) -> Records {
        self.spare.pop().unwrap_or_default()
    }

    pub(super) fn cached(&self, id: PartitionId, offset: i64) -> Option<Batch> {
        self.log(id).cached(offset)
    }

    pub(super) fn trim_later(&mut self, id: PartitionId) {
        if !self.to_trim.contains(&id) {
            self.to_trim.push_back(id);
        }
    }
}
