//! What may be deleted, and whether there is room. Deletion goes by the least keep-from over the
//! groups that are registered for a topic, back-pressure by their least committed offset.
use hashbrown::{HashMap, HashSet};

use super::log::{PartitionId, State};
use crate::Cleanup;

/// Deleting waits until so much of a partition can go: each deletion rewrites a page.
const TRIM_MIN_BYTES: u64 = 512 << 10;
const TRIM_MIN_ROWS: usize = 16;
/// What one commit deletes at the most, beside twice what it wrote: commits stay short.
const TRIM_STEP_BYTES: u64 = 8 << 20;

/// Rows to delete: those of a partition up to a new start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) partition: PartitionId,
    pub(super) rows: usize,
    pub(super) old_start: i64,
    pub(super) start: i64,
}

/// Which topics a writer waits for room in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    /// Groups that the writer itself commits for: it must never wait for them.
    pub(super) own_groups: &'a HashSet<String>,
    /// Topics that it writes to: a writer that reads as well waits for these alone, so that
    /// waiting follows the flow and never goes round.
    pub(super) topics: &'a HashSet<crate::Topic>,
}

/// Who holds the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slowest {
    pub(super) group: String,
    /// The topic in which it is furthest behind.
    pub(super) topic: String,
    pub(super) bytes: u64,
    /// How many of the bytes its readers have read: these it could commit at once.
    pub(super) read_bytes: u64,
}

#[derive(Default)]
struct Behind<'a> {
    bytes: u64,
    read_bytes: u64,
    /// The topic with most of the bytes, and how many.
    topic: (u64, &'a str),
}

impl State {
    /// Below it every registered group has done with the partition. None where nothing may go.
    fn floor(&self, id: PartitionId) -> Option<i64> {
        let log = self.log(id);
        let mut floor = None;
        for group in self.groups.values().filter(|group| group.registered.contains(&log.name.topic)) {
            let done = group.positions.get(&id).map(|position| position.keep_from.min(position.offset))?;
            floor = Some(floor.map_or(done, |floor: i64| floor.min(done)));
        }
        match log.cleanup {
            Cleanup::Delete => floor,
            Cleanup::Compact => None,
            Cleanup::Bounded { .. } => Some(floor.unwrap_or(i64::MAX)),
        }
    }

    fn cut(&self, id: PartitionId, budget_bytes: u64) -> Option<(Cut, u64)> {
        let log = self.log(id);
        let floor = self.floor(id)?;
        let budget_bytes = match log.cleanup {
            Cleanup::Bounded { bytes } => {
                let partitions = self.topics.get(&log.name.topic).map_or(1, |topic| topic.partitions.len().max(1));
                let excess = log.stored_bytes().saturating_sub(bytes / partitions as u64);
                if excess == 0 {
                    return None;
                }
                budget_bytes.min(excess)
            }
            _ => budget_bytes,
        };
        let old_start = log.start();
        let (rows, bytes, start) = log.rows_below(floor, budget_bytes);
        let worth = rows >= TRIM_MIN_ROWS || bytes >= TRIM_MIN_BYTES || (rows > 0 && rows == log.rows.len());
        worth.then_some((Cut { partition: id, rows, old_start, start }, bytes))
    }

    /// What a commit that writes so many bytes should delete along with it.
    pub(super) fn plan_trim(&self, written_bytes: u64) -> Vec<Cut> {
        let mut budget = TRIM_STEP_BYTES + 2 * written_bytes;
        let mut cuts = Vec::new();
        for id in &self.to_trim {
            let Some((cut, bytes)) = self.cut(*id, budget) else { continue };
            cuts.push(cut);
            budget = budget.saturating_sub(bytes);
            if budget == 0 {
                break;
            }
        }
        cuts
    }

    pub(super) fn trimmed(&mut self, cuts: &[Cut]) {
        for cut in cuts {
            self.log_mut(cut.partition).drop_rows(cut.rows);
        }
        let mut rest = std::mem::take(&mut self.to_trim);
        rest.retain(|id| self.cut(*id, TRIM_STEP_BYTES).is_some());
        self.to_trim = rest;
    }

    /// Stored bytes that some registered group has not committed, each counted once; and the group
    /// that most of them wait for.
    pub(super) fn held(&self, scope: Option<Scope<'_>>) -> (u64, Option<Slowest>) {
        let mut total = 0;
        let mut by_group: HashMap<&str, Behind<'_>> = HashMap::new();
        for id in self.ids() {
            let log = self.log(id);
            if log.is_compacted() || scope.is_some_and(|scope| !scope.topics.contains(&log.name.topic)) {
                continue;
            }
            let mut most = 0;
            for (name, group) in &self.groups {
                let own = scope.is_some_and(|scope| scope.own_groups.contains(name));
                if own || !group.registered.contains(&log.name.topic) {
                    continue;
                }
                let committed = group.positions.get(&id).map_or(0, |position| position.offset);
                let bytes = log.bytes_from(committed);
                let unread = log.bytes_from(group.read.get(&id).map_or(committed, |read| committed.max(*read)));
                most = most.max(bytes);
                let behind = by_group.entry(name).or_default();
                behind.bytes += bytes;
                behind.read_bytes += bytes - unread;
                behind.topic = behind.topic.max((bytes, log.name.topic.as_str()));
            }
            total += most;
        }
        let slowest = by_group.into_iter().filter(|(_, behind)| behind.bytes > 0);
        let slowest = slowest.max_by_key(|(name, behind)| (behind.bytes, *name)).map(|(group, behind)| Slowest {
            group: group.to_owned(),
            topic: behind.topic.1.to_owned(),
            bytes: behind.bytes,
            read_bytes: behind.read_bytes,
        });
        (total, slowest)
    }

    /// The group with most of the cache still to read, if that is more than a quarter of it (what is
    /// made from it will share the cache), and how far it has read: the sum of its offsets. Not one
    /// that is still where `stalled` says.
    pub(super) fn furthest_behind(&self, stalled: &HashMap<String, i64>) -> Option<(String, i64)> {
        let behind = self.groups.iter().filter_map(|(name, group)| {
            let (mut bytes, mut sum) = (0, 0_i64);
            for id in self.ids() {
                let log = self.log(id);
                if !log.is_compacted() && group.registered.contains(&log.name.topic) {
                    let committed = group.positions.get(&id).map_or(0, |position| position.offset);
                    let read = group.read.get(&id).map_or(committed, |read| committed.max(*read));
                    bytes += log.cached_bytes_from(read);
                    sum = sum.saturating_add(read);
                }
            }
            (bytes > self.cache_max_bytes / 4 && stalled.get(name) != Some(&sum)).then_some((bytes, name, sum))
        });
        behind.max().map(|(_, name, sum)| (name.clone(), sum))
    }

    /// Asks the slowest group to write out what it holds: once until it commits, or once more if
    /// `again`. Not while most of what it is behind it has yet to read: it would write little for
    /// the asking, and it gets there by reading on.
    pub(super) fn ask_to_flush(&mut self, slowest: &Slowest, again: bool) -> bool {
        let group = self.group_mut(&slowest.group);
        let ask = slowest.read_bytes >= slowest.bytes / 4 && (again || !group.asked_to_flush);
        if ask {
            group.flushes += 1;
            group.asked_to_flush = true;
        }
        ask
    }
}
