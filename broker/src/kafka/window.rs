//! The windows of partitions that several readers of this process read, and who takes from them. No
//! thread, no clock, no client.
use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::{Batch, Incarnation, Offset, PollLimits, TopicPartition};

/// Held at the most, for those that are behind.
const ROOM_BYTES: usize = 32 << 20;
/// Kept of a window though all have had it, for one that comes from behind.
const KEPT_BYTES: usize = 1 << 20;
/// Who has taken nothing of what waits for it for so long, while there is no room, reads by itself.
const PATIENCE_STEPS: u32 = 12;

pub(super) type ReaderId = u64;

#[derive(Default)]
pub(super) struct Windows {
    pub(super) of: HashMap<TopicPartition, Window>,
    pub(super) readers: ReaderId,
    /// How often batches were put into windows.
    pub(super) published: u64,
    /// A fault was met: nobody joins for a while.
    pub(super) is_refused: bool,
    pub(super) is_fetching: bool,
    pub(super) is_closed: bool,
}

pub(super) struct Window {
    incarnation: Incarnation,
    /// Who reads the partition; with a position those that take it from here.
    readers: Vec<(ReaderId, Option<Taker>)>,
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Where the next chunk begins.
    end: i64,
    /// Counts its beginnings: what was fetched for an earlier one is not of this one.
    epoch: u64,
}

struct Taker {
    position: i64,
    /// Without taking anything, while there was no room.
    idle_steps: u32,
}

/// The records from one offset to another.
struct Chunk {
    from: i64,
    next: i64,
    batch: Batch,
}

/// A window to be fetched for: from where, and which of its beginnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: TopicPartition,
    pub(super) incarnation: Incarnation,
    pub(super) epoch: u64,
    pub(super) from: i64,
}

impl Window {
    fn takers(&self) -> impl Iterator<Item = &Taker> {
        self.readers.iter().filter_map(|(_, taker)| taker.as_ref())
    }

    fn taker(&mut self, id: ReaderId) -> Option<&mut Taker> {
        self.readers.iter_mut().find(|(of, _)| *of == id)?.1.as_mut()
    }

    pub(super) fn is_taken_by(&self, id: ReaderId) -> bool {
        self.readers.iter().any(|(of, taker)| *of == id && taker.is_some())
    }

    fn start(&self) -> i64 {
        self.chunks.front().map_or(self.end, |chunk| chunk.from)
    }

    /// Whether the reader takes the partition from here now. The first to do so says where it begins.
    pub(super) fn join(&mut self, id: ReaderId, position: i64) -> bool {
        if self.takers().next().is_none() {
            if self.readers.len() < 2 {
                return false;
            }
            self.chunks.clear();
            (self.bytes, self.end) = (0, position);
            self.epoch += 1;
        }
        let is_inside = (self.start()..=self.end).contains(&position);
        let Some((_, taker)) = self.readers.iter_mut().find(|(of, _)| *of == id).filter(|_| is_inside) else {
            return false;
        };
        *taker = Some(Taker { position, idle_steps: 0 });
        true
    }

    fn push(&mut self, batch: Batch) {
        let Some(next) = batch.next_offset() else { return };
        self.bytes += batch.bytes();
        let from = std::mem::replace(&mut self.end, next.0);
        self.chunks.push_back(Chunk { from, next: next.0, batch });
        self.forget();
    }

    /// What is next for the reader, which takes it from here.
    pub(super) fn take(&mut self, id: ReaderId, limits: &PollLimits) -> Option<Batch> {
        let position = self.taker(id)?.position;
        let at = self.chunks.partition_point(|chunk| chunk.next <= position);
        let batch = self.chunks.get(at)?.batch.at_or_after(Offset(position));
        let batch = batch.bounded(limits.records.max(1), limits.bytes);
        let next = batch.next_offset()?;
        *self.taker(id)? = Taker { position: next.0, idle_steps: 0 };
        self.forget();
        Some(batch)
    }

    /// Forgets what all have had, but for a little.
    fn forget(&mut self) {
        self.forget_but(KEPT_BYTES);
    }

    fn forget_but(&mut self, kept_bytes: usize) {
        let Some(least) = self.takers().map(|taker| taker.position).min() else {
            self.chunks.clear();
            self.bytes = 0;
            return;
        };
        while let Some(chunk) = self.chunks.front()
            && chunk.next <= least
            && self.bytes > kept_bytes
        {
            self.bytes -= chunk.batch.bytes();
            self.chunks.pop_front();
        }
    }

    /// Has those read by themselves.
    fn eject(&mut self, which: impl Fn(&Taker) -> bool) {
        for (_, taker) in &mut self.readers {
            if taker.as_ref().is_some_and(&which) {
                *taker = None;
            }
        }
        self.forget();
    }

    pub(super) fn eject_one(&mut self, id: ReaderId) {
        if let Some((_, taker)) = self.readers.iter_mut().find(|(of, _)| *of == id) {
            *taker = None;
        }
        self.forget();
    }

    fn wait_for_takers(&mut self) {
        let end = self.end;
        let has_more = |taker: &Taker| taker.position < end;
        for (_, taker) in &mut self.readers {
            if let Some(taker) = taker.as_mut().filter(|taker| has_more(taker)) {
                taker.idle_steps += 1;
            }
        }
        self.eject(|taker| has_more(taker) && taker.idle_steps >= PATIENCE_STEPS);
    }
}

impl Windows {
    pub(super) fn register(&mut self, id: ReaderId, name: &TopicPartition, incarnation: &Incarnation) {
        let window = self.of.entry(name.clone()).or_insert_with(|| Window {
            incarnation: incarnation.clone(),
            readers: Vec::new(),
            chunks: VecDeque::new(),
            bytes: 0,
            end: 0,
            epoch: 0,
        });
        // Of a log that was made again nothing is shared while readers of the one before are there.
        if window.incarnation == *incarnation {
            window.readers.push((id, None));
        }
    }

    pub(super) fn unregister(&mut self, id: ReaderId) {
        self.of.retain(|_, window| {
            window.readers.retain(|(of, _)| *of != id);
            window.forget();
            !window.readers.is_empty()
        });
    }

    pub(super) fn is_full(&self) -> bool {
        self.of.values().map(|window| window.bytes).sum::<usize>() >= ROOM_BYTES
    }

    /// Makes room of what is only kept. Whether there is room then: if not, somebody has yet to take
    /// what takes it.
    pub(super) fn make_room(&mut self) -> bool {
        if self.is_full() {
            self.of.values_mut().for_each(|window| window.forget_but(0));
        }
        !self.is_full()
    }

    /// There was no room for a step.
    pub(super) fn wait_for_takers(&mut self) {
        self.of.values_mut().for_each(Window::wait_for_takers);
    }

    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let fetched = self.of.iter().filter(|(_, window)| window.takers().next().is_some());
        let mut wanted: Vec<_> = fetched
            .map(|(name, Window { incarnation, epoch, end, .. })| Wanted {
                name: name.clone(),
                incarnation: incarnation.clone(),
                epoch: *epoch,
                from: *end,
            })
            .collect();
        wanted.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        wanted
    }

    pub(super) fn push(&mut self, name: &TopicPartition, epoch: u64, batch: Batch) {
        if let Some(window) = self.of.get_mut(name).filter(|window| window.epoch == epoch) {
            // Those that took part have gone, and nobody has begun it anew.
            if window.takers().next().is_some() {
                window.push(batch);
            }
        }
    }

    pub(super) fn eject_all(&mut self) {
        self.of.values_mut().for_each(|window| window.eject(|_| true));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::Records;

    const READERS: usize = 3;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Join(usize),
        /// So many records, by whichever way.
        Read(usize, usize),
        /// What is wanted now is being fetched, so many records of it.
        Fetch(usize),
        /// It has come.
        Come,
        NoRoom,
        Withdraw(usize),
        Rejoin(usize),
        Fault,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let reader = 0..READERS;
        let step = prop_oneof![
            3 => reader.clone().prop_map(Step::Join),
            6 => (reader.clone(), 1_usize..9).prop_map(|(reader, n)| Step::Read(reader, n)),
            4 => (1_usize..9).prop_map(Step::Fetch),
            4 => Just(Step::Come),
            1 => Just(Step::NoRoom),
            1 => reader.clone().prop_map(Step::Withdraw),
            1 => reader.prop_map(Step::Rejoin),
            1 => Just(Step::Fault),
        ];
        proptest::collection::vec(step, 0..200)
    }

    fn name() -> TopicPartition {
        TopicPartition { topic: "t".into(), partition: 0 }
    }

    fn batch(offsets: &[i64]) -> Batch {
        let mut records = Records::new();
        offsets.iter().for_each(|offset| records.push(0, b"", &[], |out| out.extend_from_slice(&offset.to_le_bytes())));
        Batch::with_offsets("t".into(), 0, offsets.iter().copied().map(Offset).collect(), records)
    }

    proptest! {
        /// However readers come, go, fall behind and are left to themselves, each has read the log in
        /// order, without a hole and nothing twice.
        #[test]
        fn each_reads_all_of_it_once(gaps in proptest::collection::vec(1_i64..4, 1..80), steps in steps()) {
            let log: Vec<i64> = gaps.iter().scan(-1, |at, gap| { *at += gap; Some(*at) }).collect();
            let incarnation = Incarnation("i".into());
            let mut windows = Windows::default();
            let ids = || 0_u64..READERS as u64;
            ids().for_each(|id| windows.register(id, &name(), &incarnation));
            // Where each is; what it has read; whether it takes from the window.
            let mut readers = vec![(0_i64, Vec::new(), false); READERS];
            let mut under_way: Option<(Wanted, Batch)> = None;
            for step in steps {
                let window = windows.of.get_mut(&name()).unwrap();
                match step {
                    Step::Join(reader) => {
                        let (position, _, shares) = &mut readers[reader];
                        if !*shares {
                            *shares = window.join(reader as u64, *position);
                        }
                    }
                    Step::Read(reader, most) => {
                        let (position, read, shares) = &mut readers[reader];
                        *shares &= window.taker(reader as u64).is_some();
                        let limits = PollLimits { records: most, bytes: usize::MAX, timeout: Duration::ZERO };
                        let took = match shares {
                            true => window.take(reader as u64, &limits),
                            false => {
                                let own: Vec<i64> = log.iter().copied().filter(|at| at >= position).take(most).collect();
                                (!own.is_empty()).then(|| batch(&own))
                            }
                        };
                        if let Some(batch) = took {
                            prop_assert!(batch.len() <= most);
                            *position = batch.next_offset().unwrap().0;
                            read.extend(batch.iter().map(|record| record.offset.0));
                        }
                    }
                    Step::Fetch(most) => {
                        // The client goes on where it was, or is sent to where the window begins: its end.
                        if let (None, Some(wanted)) = (&under_way, windows.wanted().pop()) {
                            let found: Vec<i64> = log.iter().copied().filter(|at| *at >= wanted.from).take(most).collect();
                            under_way = (!found.is_empty()).then(|| (wanted, batch(&found)));
                        }
                    }
                    Step::Come => {
                        if let Some((wanted, batch)) = under_way.take() {
                            windows.push(&wanted.name, wanted.epoch, batch);
                        }
                    }
                    Step::NoRoom => (0..PATIENCE_STEPS).for_each(|_| window.wait_for_takers()),
                    Step::Withdraw(reader) => window.eject_one(reader as u64),
                    Step::Rejoin(reader) => {
                        windows.unregister(reader as u64);
                        windows.register(reader as u64, &name(), &incarnation);
                    }
                    Step::Fault => windows.eject_all(),
                }
            }
            for (position, read, _) in readers {
                prop_assert!(read.iter().eq(log.iter().filter(|at| **at < position)), "{read:?} up to {position}");
            }
        }
    }

    #[test]
    fn who_is_alone_shares_nothing_and_who_takes_nothing_is_left_to_itself() {
        let (incarnation, other) = (Incarnation("i".into()), Incarnation("another".into()));
        let limits = PollLimits { records: 100, bytes: usize::MAX, timeout: Duration::ZERO };
        let mut windows = Windows::default();
        windows.register(1, &name(), &incarnation);
        windows.register(2, &name(), &other);
        let window = windows.of.get_mut(&name()).unwrap();
        assert!(!window.join(1, 5) && !window.join(2, 5), "the other reads another log");
        windows.register(3, &name(), &incarnation);
        let window = windows.of.get_mut(&name()).unwrap();
        assert!(window.join(3, 5) && window.join(1, 5) && !window.join(2, 5));
        window.push(batch(&[5, 6, 9]));
        assert_eq!(window.take(1, &limits).map(|batch| batch.len()), Some(3));
        // It waits for more, and is not in the way.
        (0..PATIENCE_STEPS).for_each(|_| window.wait_for_takers());
        assert!(window.taker(1).is_some() && window.taker(3).is_none());
        // From where it is, it comes back once it is where the others are.
        assert!(window.join(3, 6), "what was kept");
        assert!(window.take(3, &limits).unwrap().iter().map(|record| record.offset.0).eq([6, 9]));
        assert!(!window.join(2, 11));
        windows.unregister(1);
        windows.unregister(3);
        assert!(windows.wanted().is_empty() && !windows.of.contains_key(&name()));
    }

    /// However many partitions: what is kept of each is not in the way of what is to come.
    #[test]
    fn what_is_only_kept_takes_no_room() {
        let limits = PollLimits { records: 100, bytes: usize::MAX, timeout: Duration::ZERO };
        let mut windows = Windows::default();
        for partition in 0..40 {
            let name = TopicPartition { partition, ..name() };
            for id in [1, 2] {
                windows.register(id, &name, &Incarnation("i".into()));
            }
            let window = windows.of.get_mut(&name).unwrap();
            assert!(window.join(1, 0) && window.join(2, 0));
            let mut records = Records::new();
            records.push(0, b"", &[], |out| out.resize(1_000_000, 0));
            window.push(Batch::contiguous("t".into(), partition, Offset(0), Arc::new(records)));
            assert!(window.take(1, &limits).is_some());
        }
        assert!(windows.is_full() && !windows.make_room(), "one has yet to take it");
        windows.of.values_mut().for_each(|window| drop(window.take(2, &limits)));
        assert!(windows.is_full() && windows.make_room() && !windows.is_full());
    }

    #[test]
    fn what_all_have_had_is_forgotten() {
        let limits = PollLimits { records: 100, bytes: usize::MAX, timeout: Duration::ZERO };
        let mut windows = Windows::default();
        for id in [1, 2] {
            windows.register(id, &name(), &Incarnation("i".into()));
        }
        let window = windows.of.get_mut(&name()).unwrap();
        assert!(window.join(1, 0) && window.join(2, 0));
        for at in 0..40 {
            let mut records = Records::new();
            records.push(0, b"", &[], |out| out.resize(100_000, 0));
            window.push(Batch::contiguous("t".into(), 0, Offset(at), Arc::new(records)));
        }
        while window.take(1, &limits).is_some() {}
        assert_eq!((window.bytes, window.start(), window.end), (4_000_000, 0, 40));
        while window.take(2, &limits).is_some() {}
        assert!(window.bytes <= KEPT_BYTES && window.start() > 0, "{} from {}", window.bytes, window.start());
        assert!(!window.join(3, 0));
    }
}
