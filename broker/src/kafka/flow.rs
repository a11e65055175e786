//! How far the readers of this process are behind its writers, for a writer that may wait for them: what
//! is read while it is new comes from memory, once for all readers, and what is made of it is fresh.
//!
//! Counted from when a reader takes a partition on; what it was behind then, and what other processes
//! write, holds nobody up. No thread, no clock, no client.
use hashbrown::HashMap;

use super::window::ReaderId;
use crate::TopicPartition;

/// Records, of all its partitions together, that a reader may be behind: some transactions of a
/// flat-out producer, and less than the windows hold.
const BEHIND_MAX: u64 = 128 << 10;

#[derive(Default)]
pub(super) struct Flow {
    of: HashMap<TopicPartition, Log>,
}

#[derive(Default)]
struct Log {
    appended: u64,
    /// Of `appended`, how much each reader has had.
    readers: Vec<(ReaderId, u64)>,
}

/// A reader and how much it has had, of all its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) reader: ReaderId,
    pub(super) read: u64,
}

impl Flow {
    pub(super) fn register(&mut self, id: ReaderId, name: &TopicPartition) {
        let log = self.of.entry(name.clone()).or_default();
        log.readers.push((id, log.appended));
    }

    pub(super) fn unregister(&mut self, id: ReaderId) {
        self.of.retain(|_, log| {
            log.readers.retain(|(of, _)| *of != id);
            !log.readers.is_empty()
        });
    }

    pub(super) fn appended(&mut self, name: &TopicPartition, records: u64) {
        if let Some(log) = self.of.get_mut(name) {
            log.appended += records;
        }
    }

    pub(super) fn read(&mut self, id: ReaderId, name: &TopicPartition, records: u64) {
        let log = self.of.get_mut(name);
        if let Some((_, read)) = log.and_then(|log| log.readers.iter_mut().find(|(of, _)| *of == id)) {
            *read += records;
        }
    }

    /// The reader that is furthest behind, if that is too far; none that has not moved since it was
    /// found where `stalled` says.
    pub(super) fn furthest_behind(&self, stalled: &HashMap<ReaderId, u64>) -> Option<At> {
        let mut all: HashMap<ReaderId, (u64, u64)> = HashMap::new();
        for log in self.of.values() {
            for (reader, read) in &log.readers {
                let (behind, sum) = all.entry(*reader).or_default();
                *behind += log.appended.saturating_sub(*read);
                *sum += read;
            }
        }
        let too_far = |(reader, (behind, read)): (ReaderId, (u64, u64))| {
            (behind > BEHIND_MAX && stalled.get(&reader) != Some(&read)).then_some((behind, At { reader, read }))
        };
        all.into_iter().filter_map(too_far).max().map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(partition: u32) -> TopicPartition {
        TopicPartition { topic: "t".into(), partition }
    }

    #[test]
    fn who_is_furthest_behind_is_waited_for_while_it_moves() {
        let mut flow = Flow::default();
        let mut stalled = HashMap::new();
        flow.appended(&name(0), 10 * BEHIND_MAX);
        for (reader, partition) in [(1, 0), (1, 1), (2, 1)] {
            flow.register(reader, &name(partition));
        }
        assert_eq!(flow.furthest_behind(&stalled), None, "before it was registered nothing counts");
        flow.appended(&name(0), BEHIND_MAX);
        flow.appended(&name(1), 1);
        flow.appended(&name(2), 10 * BEHIND_MAX);
        assert_eq!(flow.furthest_behind(&stalled), Some(At { reader: 1, read: 0 }), "of all its partitions");
        flow.read(1, &name(1), 1);
        assert_eq!(flow.furthest_behind(&stalled), None);
        flow.appended(&name(1), 2 * BEHIND_MAX);
        let furthest = flow.furthest_behind(&stalled).unwrap();
        assert_eq!(furthest, At { reader: 1, read: 1 });
        stalled.insert(furthest.reader, furthest.read);
        assert_eq!(flow.furthest_behind(&stalled), Some(At { reader: 2, read: 0 }), "the other one");
        flow.read(1, &name(1), 1);
        assert_eq!(flow.furthest_behind(&stalled), Some(At { reader: 1, read: 2 }), "it moves again");
        flow.unregister(1);
        flow.read(2, &name(1), 10 * BEHIND_MAX);
        assert_eq!(flow.furthest_behind(&stalled), None, "it had more than was written here");
    }
}
