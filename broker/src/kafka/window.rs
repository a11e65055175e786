//! The windows of partitions that several readers of this process read, and who takes from them. No
//! thread, no clock, no client.
use std::collections::VecDeque;

use hashbrown::HashMap;

use super::supply::{Supply, Transaction, WriterId};
use crate::{Batch, Incarnation, Offset, PollLimits, Topic, TopicPartition};

/// Held at the most, for those that are behind.
const ROOM_BYTES: usize = 32 << 20;
/// The same with what is not fetched, but comes from writers of this process.
const SUPPLIED_ROOM_BYTES: usize = 2 * ROOM_BYTES;
/// Kept of a window though all have had it, for one that comes from behind.
const KEPT_BYTES: usize = 1 << 20;
/// Who has taken nothing of what waits for it for so long, while there is no room, reads by itself.
const PATIENCE_STEPS: u32 = 12;

pub(super) type ReaderId = u64;

#[derive(Default)]
pub(super) struct Windows {
    pub(super) of: HashMap<TopicPartition, Window>,
    pub(super) readers: ReaderId,
    pub(super) writers: WriterId,
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
    supply: Supply,
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

    fn has_takers(&self) -> bool {
        self.takers().next().is_some()
    }

    fn start(&self) -> i64 {
        self.chunks.front().map_or(self.end, |chunk| chunk.from)
    }

    /// Whether the reader takes the partition from here now. The first to do so says where it begins.
    pub(super) fn join(&mut self, id: ReaderId, position: i64) -> bool {
        if !self.has_takers() {
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

    /// What stands from the window's end on; of what was fetched, some may have come otherwise meanwhile.
    fn push(&mut self, batch: &Batch) {
        let batch = batch.at_or_after(Offset(self.end));
        let Some(next) = batch.next_offset() else { return };
        self.bytes += batch.bytes();
        let from = std::mem::replace(&mut self.end, next.0);
        self.chunks.push_back(Chunk { from, next: next.0, batch });
        self.forget();
    }

    /// Goes on with what writers of this process have written. Whether there was something.
    fn go_on(&mut self) -> bool {
        let before = self.end;
        while let Some(transaction) = self.supply.next(self.end) {
            transaction.batches.iter().for_each(|batch| self.push(batch));
        }
        self.end > before
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
            self.supply = Supply::default();
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
            supply: Supply::default(),
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

    fn bytes(&self) -> usize {
        self.of.values().map(|window| window.bytes).sum()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes() >= ROOM_BYTES
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

    /// Whether anybody takes anything from here.
    pub(super) fn are_taken(&self) -> bool {
        self.of.values().any(Window::has_takers)
    }

    /// Whether anything comes from writers of this process and is not fetched.
    pub(super) fn are_supplied(&self) -> bool {
        self.of.values().any(|window| window.supply.is_enough())
    }

    /// Whether anybody takes this one from here.
    pub(super) fn is_taken(&self, name: &TopicPartition) -> bool {
        self.of.get(name).is_some_and(Window::has_takers)
    }

    /// A writer of this process has committed this.
    pub(super) fn supply(&mut self, name: &TopicPartition, transaction: Transaction) {
        let has_room = self.bytes() < SUPPLIED_ROOM_BYTES;
        let Some(window) = self.of.get_mut(name).filter(|window| window.has_takers()) else { return };
        let is_large = transaction.is_large();
        window.supply.add(transaction);
        if has_room && window.go_on() {
            self.published += 1;
        }
        window.supply.count(is_large);
    }

    /// Of which partitions it is to be asked up to where all is decided.
    pub(super) fn pending(&self) -> HashMap<Topic, Vec<u32>> {
        let mut pending: HashMap<Topic, Vec<u32>> = HashMap::new();
        for (name, _) in self.of.iter().filter(|(_, window)| window.supply.is_pending()) {
            pending.entry(name.topic.clone()).or_default().push(name.partition);
        }
        pending
    }

    /// A broker says that all before `stable` is decided.
    pub(super) fn decided(&mut self, name: &TopicPartition, stable: i64) {
        let has_room = self.bytes() < SUPPLIED_ROOM_BYTES;
        let Some(window) = self.of.get_mut(name).filter(|window| window.has_takers()) else { return };
        window.supply.decided(stable);
        if has_room && window.go_on() {
            self.published += 1;
        }
    }

    /// Some time has passed.
    pub(super) fn step(&mut self) {
        self.of.values_mut().for_each(|window| window.supply.step());
    }

    /// What is to be fetched: what is taken from here, and does not come otherwise.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let fetched = self.of.iter().filter(|(_, window)| window.has_takers() && !window.supply.is_enough());
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
            // Those that took part may have gone, and nobody has begun it anew.
            if window.has_takers() {
                window.push(&batch);
                window.go_on();
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
    /// The last is of another process.
    const WRITERS: usize = 3;

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
        Time,
        /// So many records in a transaction.
        Write(usize, i64),
        /// Its end is decided: whether it is a commit, and whether its writer knows where its records stand.
        End(usize, bool, bool),
        /// Its marker is written. It is before the next record of that writer, at the latest.
        Mark(usize),
        /// It is asked up to where all is decided.
        Ask,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let reader = 0..READERS;
        // One writes for the most part.
        let writer = || prop_oneof![3 => Just(0_usize), 1 => 1..WRITERS];
        let count = prop_oneof![Just(1), 1_i64..9];
        let step = prop_oneof![
            6 => reader.clone().prop_map(Step::Join),
            9 => (reader.clone(), 1_usize..9).prop_map(|(reader, n)| Step::Read(reader, n)),
            12 => (1_usize..9).prop_map(Step::Fetch),
            12 => Just(Step::Come),
            1 => Just(Step::NoRoom),
            1 => reader.clone().prop_map(Step::Withdraw),
            1 => reader.prop_map(Step::Rejoin),
            1 => Just(Step::Fault),
            1 => Just(Step::Time),
            12 => (writer(), count).prop_map(|(writer, n)| Step::Write(writer, n)),
            12 => (writer(), prop::bool::weighted(0.9), prop::bool::weighted(0.9)).prop_map(|(w, c, k)| Step::End(w, c, k)),
            9 => writer().prop_map(Step::Mark),
            6 => Just(Step::Ask),
        ];
        proptest::collection::vec(step, 0..400)
    }

    fn name() -> TopicPartition {
        TopicPartition { topic: "t".into(), partition: 0 }
    }

    fn batch(offsets: &[i64]) -> Batch {
        let mut records = Records::new();
        offsets.iter().for_each(|offset| records.push(0, b"", &[], |out| out.extend_from_slice(&offset.to_le_bytes())));
        Batch::with_offsets("t".into(), 0, offsets.iter().copied().map(Offset).collect(), records)
    }

    /// A partition as a broker has it.
    #[derive(Default)]
    struct Log {
        end: i64,
        /// Of each writer's transaction that is open, or not marked yet, its records; once it is decided,
        /// whether they are committed.
        open: [(Vec<i64>, Option<bool>); WRITERS],
        committed: Vec<i64>,
    }

    impl Log {
        fn mark(&mut self, writer: usize) {
            if self.open[writer].1.is_none() {
                return;
            }
            let (records, is_committed) = std::mem::take(&mut self.open[writer]);
            self.end += 1;
            self.committed.extend(records.into_iter().filter(|_| is_committed == Some(true)));
            self.committed.sort_unstable();
        }

        fn write(&mut self, writer: usize, count: i64) {
            self.mark(writer);
            self.open[writer].0.extend(self.end..self.end + count);
            self.end += count;
        }

        /// Up to where all is decided.
        fn stable(&self) -> i64 {
            let open = self.open.iter().filter_map(|(records, _)| records.first().copied()).min();
            open.unwrap_or(self.end)
        }

        /// From `from` on.
        fn readable(&self, from: i64) -> impl Iterator<Item = i64> {
            let stable = self.stable();
            self.committed.iter().copied().filter(move |at| (from..stable).contains(at))
        }
    }

    /// One reader: where it is, what it has read, whether it takes from the window.
    type Reading = (i64, Vec<i64>, bool);

    fn read(windows: &mut Windows, log: &Log, id: usize, (position, read, shares): &mut Reading, most: usize) {
        let window = windows.of.get_mut(&name()).unwrap();
        *shares &= window.taker(id as u64).is_some();
        let limits = PollLimits { records: most, bytes: usize::MAX, timeout: Duration::ZERO };
        let took = match shares {
            true => window.take(id as u64, &limits),
            false => {
                let own: Vec<i64> = log.readable(*position).take(most).collect();
                (!own.is_empty()).then(|| batch(&own))
            }
        };
        if let Some(batch) = took {
            let offsets: Vec<i64> = batch.iter().map(|record| record.offset.0).collect();
            let says = |value: &[u8]| i64::from_le_bytes(value.try_into().unwrap());
            assert!(batch.iter().all(|record| says(record.value) == record.offset.0), "another record's place");
            assert!(offsets.len() <= most);
            assert!(log.readable(*position).take(offsets.len()).eq(offsets.iter().copied()), "{offsets:?} is not next");
            *position = batch.next_offset().unwrap().0;
            read.extend(offsets);
        }
    }

    fn ask(windows: &mut Windows, log: &Log) {
        if !windows.pending().is_empty() {
            windows.decided(&name(), log.stable());
        }
    }

    /// What the client has fetched: of which beginning, and its records.
    fn fetch(windows: &Windows, log: &Log, client: &mut Option<(u64, i64)>, most: usize) -> Option<(u64, Batch)> {
        let Some(wanted) = windows.wanted().pop() else {
            *client = None;
            return None;
        };
        // It goes on where it was, or is made anew for where the window begins: its end.
        let (_, from) = client.filter(|(epoch, _)| *epoch == wanted.epoch).unwrap_or((wanted.epoch, wanted.from));
        let found: Vec<i64> = log.readable(from).take(most).collect();
        *client = Some((wanted.epoch, found.last().map_or(from, |last| last + 1)));
        (!found.is_empty()).then(|| (wanted.epoch, batch(&found)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        /// However readers come, go, fall behind and are left to themselves, and whoever writes, each reads
        /// what is readable, no sooner, in order, without a hole and nothing twice; and all of it in the end.
        #[test]
        fn each_reads_all_of_it_once(steps in steps()) {
            let incarnation = Incarnation("i".into());
            let (mut windows, mut log) = (Windows::default(), Log::default());
            let ids = || 0_u64..READERS as u64;
            ids().for_each(|id| windows.register(id, &name(), &incarnation));
            let mut readers: Vec<Reading> = vec![(0, Vec::new(), false); READERS];
            let (mut client, mut under_way) = (None, None);
            for step in steps {
                match step {
                    Step::Join(reader) => {
                        let (position, _, shares) = &mut readers[reader];
                        if !*shares {
                            *shares = windows.of.get_mut(&name()).unwrap().join(reader as u64, *position);
                        }
                    }
                    Step::Read(id, most) => read(&mut windows, &log, id, &mut readers[id], most),
                    Step::Fetch(most) if under_way.is_none() => under_way = fetch(&windows, &log, &mut client, most),
                    Step::Fetch(_) => {}
                    Step::Come => {
                        if let Some((epoch, batch)) = under_way.take() {
                            windows.push(&name(), epoch, batch);
                        }
                    }
                    Step::NoRoom => (0..PATIENCE_STEPS).for_each(|_| windows.wait_for_takers()),
                    Step::Withdraw(reader) => windows.of.get_mut(&name()).unwrap().eject_one(reader as u64),
                    Step::Rejoin(reader) => {
                        windows.unregister(reader as u64);
                        windows.register(reader as u64, &name(), &incarnation);
                    }
                    Step::Fault => windows.eject_all(),
                    Step::Time => (0..50).for_each(|_| windows.step()),
                    Step::Write(writer, count) => log.write(writer, count),
                    Step::Mark(writer) => log.mark(writer),
                    Step::Ask => ask(&mut windows, &log),
                    Step::End(writer, is_committed, is_known) => {
                        let (records, end) = &mut log.open[writer];
                        let (Some(first), None) = (records.first().copied(), *end) else { continue };
                        *end = Some(is_committed);
                        let next = first + records.len() as i64;
                        let is_whole = records.last() == Some(&(next - 1));
                        if is_committed && is_known && is_whole && writer + 1 < WRITERS {
                            let batches = vec![batch(records)];
                            windows.supply(&name(), Transaction { writer: writer as u64, first, next, batches });
                        }
                    }
                }
            }
            for (position, read, _) in &readers {
                prop_assert!(read.iter().copied().eq(log.readable(0).filter(|at| at < position)), "{read:?} up to {position}");
            }
            for writer in 0..WRITERS {
                log.open[writer].1.get_or_insert(false);
                log.mark(writer);
            }
            for _ in 0..2 * log.committed.len() + 100 {
                windows.step();
                ask(&mut windows, &log);
                if let Some((epoch, batch)) = under_way.take() {
                    windows.push(&name(), epoch, batch);
                }
                under_way = fetch(&windows, &log, &mut client, 4);
                for (id, reader) in readers.iter_mut().enumerate() {
                    read(&mut windows, &log, id, reader, usize::MAX);
                }
            }
            for (_, read, _) in &readers {
                prop_assert!(read.iter().copied().eq(log.readable(0)), "{read:?}");
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
        window.push(&batch(&[5, 6, 9]));
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
            window.push(&Batch::contiguous("t".into(), partition, Offset(0), Arc::new(records)));
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
            window.push(&Batch::contiguous("t".into(), 0, Offset(at), Arc::new(records)));
        }
        while window.take(1, &limits).is_some() {}
        assert_eq!((window.bytes, window.start(), window.end), (4_000_000, 0, 40));
        while window.take(2, &limits).is_some() {}
        assert!(window.bytes <= KEPT_BYTES && window.start() > 0, "{} from {}", window.bytes, window.start());
        assert!(!window.join(3, 0));
    }
}
