//! What several readers of this process read of a partition is fetched once, by a client for all of
//! them, and handed to each from a window in memory: fetching costs more than most of what is done
//! with a record. A reader that is alone with its partitions fetches by its own client, and so does one
//! whose position is outside the window: it is behind the others, and would hold them up.
//!
//! Nothing is decided here of what is read: a reader has its position, and gets each record from it on,
//! once and in order, by whichever way.
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset as Position, TopicPartitionList};

use super::context::{Common, Health, ReaderContext};
use super::ffi::Fetcher;
use super::reader::{Reading, Source, fetch};
use super::{Settings, number};
use crate::{Batch, Incarnation, Offset, PollLimits, TopicPartition};

/// Held at the most, for those that are behind.
const ROOM_BYTES: usize = 32 << 20;
/// Kept of a window though all have had it, for one that comes from behind.
const KEPT_BYTES: usize = 1 << 20;
/// Who has taken nothing of what waits for it for so long, while there is no room, reads by itself.
const PATIENCE_STEPS: u32 = 12;
/// How often it is looked who joins, and who makes room.
const STEP: Duration = Duration::from_millis(20);
/// Without a window for so long, its client goes.
const UNUSED_STEPS: u32 = 100;
/// After a fault, which each reader is to meet by itself.
const REFUSED_FOR: Duration = Duration::from_secs(5);
const FETCH: PollLimits = PollLimits { records: 16 << 10, bytes: 4 << 20, timeout: STEP };

pub(super) type ReaderId = u64;

#[derive(Default)]
pub(super) struct Share {
    windows: Mutex<Windows>,
    /// Batches were put into windows.
    news: Condvar,
    /// Room was made, somebody joined, or it is over.
    changed: Condvar,
}

#[derive(Default)]
struct Windows {
    of: HashMap<TopicPartition, Window>,
    readers: ReaderId,
    /// How often batches were put into windows.
    published: u64,
    /// A fault was met: nobody joins for a while.
    is_refused: bool,
    is_fetching: bool,
    is_closed: bool,
}

struct Window {
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
struct Wanted {
    name: TopicPartition,
    incarnation: Incarnation,
    epoch: u64,
    from: i64,
}

impl Window {
    fn takers(&self) -> impl Iterator<Item = &Taker> {
        self.readers.iter().filter_map(|(_, taker)| taker.as_ref())
    }

    fn taker(&mut self, id: ReaderId) -> Option<&mut Taker> {
        self.readers.iter_mut().find(|(of, _)| *of == id)?.1.as_mut()
    }

    fn start(&self) -> i64 {
        self.chunks.front().map_or(self.end, |chunk| chunk.from)
    }

    /// Whether the reader takes the partition from here now. The first to do so says where it begins.
    fn join(&mut self, id: ReaderId, position: i64) -> bool {
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
    fn take(&mut self, id: ReaderId, limits: &PollLimits) -> Option<Batch> {
        let position = self.taker(id)?.position;
        let at = self.chunks.partition_point(|chunk| chunk.next <= position);
        let batch = self.chunks.get(at)?.batch.at_or_after(Offset(position));
        let batch = batch.bounded(limits.records.max(1), limits.bytes);
        let next = batch.next_offset()?;
        *self.taker(id)? = Taker { position: next.0, idle_steps: 0 };
        self.forget();
        Some(batch)
    }

    /// Forgets what all have had.
    fn forget(&mut self) {
        let Some(least) = self.takers().map(|taker| taker.position).min() else {
            self.chunks.clear();
            self.bytes = 0;
            return;
        };
        while let Some(chunk) = self.chunks.front()
            && chunk.next <= least
            && self.bytes > KEPT_BYTES
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

    fn eject_one(&mut self, id: ReaderId) {
        if let Some((_, taker)) = self.readers.iter_mut().find(|(of, _)| *of == id) {
            *taker = None;
        }
        self.forget();
    }

    /// There was no room for a step.
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
    fn register(&mut self, id: ReaderId, name: &TopicPartition, incarnation: &Incarnation) {
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

    fn unregister(&mut self, id: ReaderId) {
        self.of.retain(|_, window| {
            window.readers.retain(|(of, _)| *of != id);
            window.forget();
            !window.readers.is_empty()
        });
    }

    fn bytes(&self) -> usize {
        self.of.values().map(|window| window.bytes).sum()
    }

    fn wanted(&self) -> Vec<Wanted> {
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

    fn push(&mut self, name: &TopicPartition, epoch: u64, batch: Batch) {
        if let Some(window) = self.of.get_mut(name).filter(|window| window.epoch == epoch) {
            // Those that took part have gone, and nobody has begun it anew.
            if window.takers().next().is_some() {
                window.push(batch);
            }
        }
    }

    fn eject_all(&mut self) {
        self.of.values_mut().for_each(|window| window.eject(|_| true));
    }
}

impl Share {
    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new_reader(&self) -> ReaderId {
        let mut windows = self.windows();
        windows.readers += 1;
        windows.readers
    }

    /// Says what the reader reads.
    pub(super) fn register(&self, id: ReaderId, partitions: &[Reading]) {
        let mut windows = self.windows();
        for Reading { name, incarnation, .. } in partitions {
            windows.register(id, name, incarnation);
        }
    }

    /// The reader reads nothing more of what it had.
    pub(super) fn unregister(&self, id: ReaderId) {
        self.windows().unregister(id);
        self.changed.notify_all();
    }

    /// The reader takes this one by itself.
    pub(super) fn withdraw(&self, id: ReaderId, name: &TopicPartition) {
        if let Some(window) = self.windows().of.get_mut(name) {
            window.eject_one(id);
        }
        self.changed.notify_all();
    }

    /// Of the partitions that the reader fetches by itself, those that it takes from here from now on.
    pub(super) fn join(
        self: &Arc<Self>,
        id: ReaderId,
        partitions: &[Reading],
        settings: &Settings,
        health: &Arc<Health>,
    ) -> Vec<usize> {
        let mut windows = self.windows();
        if windows.is_closed || windows.is_refused {
            return Vec::new();
        }
        let mut joined = Vec::new();
        for (i, Reading { name, position, .. }) in
            partitions.iter().enumerate().filter(|(_, reading)| reading.source == Source::Own)
        {
            if windows.of.get_mut(name).is_some_and(|window| window.join(id, *position)) {
                joined.push(i);
            }
        }
        if !joined.is_empty() {
            if !windows.is_fetching {
                let (share, settings, health) = (Arc::clone(self), settings.clone(), Arc::clone(health));
                let spawned =
                    std::thread::Builder::new().name("fetch".to_owned()).spawn(move || share.run(&settings, &health));
                if let Err(error) = spawned {
                    tracing::debug!(%error, "nothing is shared");
                    windows.eject_all();
                    return Vec::new();
                }
                windows.is_fetching = true;
            }
            self.changed.notify_all();
        }
        joined
    }

    /// Adds to `ready` what waits for the reader, and marks the partitions that it is to fetch by itself
    /// again. What is returned says what to wait for.
    pub(super) fn take(
        &self,
        id: ReaderId,
        partitions: &mut [Reading],
        limits: &PollLimits,
        ready: &mut VecDeque<Batch>,
    ) -> u64 {
        let mut windows = self.windows();
        let was_full = windows.bytes() >= ROOM_BYTES;
        for reading in partitions.iter_mut().filter(|reading| reading.source == Source::Shared) {
            let window = windows.of.get_mut(&reading.name);
            let Some(window) =
                window.filter(|window| window.readers.iter().any(|(of, taker)| *of == id && taker.is_some()))
            else {
                reading.source = Source::Returning;
                continue;
            };
            if let Some(batch) = window.take(id, limits) {
                reading.position = batch.next_offset().map_or(reading.position, |next| next.0);
                ready.push_back(batch);
            }
        }
        if was_full && windows.bytes() < ROOM_BYTES {
            self.changed.notify_all();
        }
        windows.published
    }

    /// Waits for more than what `seen` says, for at most `timeout`.
    pub(super) fn wait(&self, seen: u64, timeout: Duration) {
        let windows = self.windows();
        let waited = self.news.wait_timeout_while(windows, timeout, |windows| windows.published == seen);
        drop(waited);
    }

    pub(super) fn close(&self) {
        self.windows().is_closed = true;
        self.changed.notify_all();
    }

    /// Fetches for all windows, until there are none or it is closed.
    fn run(&self, settings: &Settings, health: &Arc<Health>) {
        let _ended = Ended(self);
        if let Err(why) = self.fetch_all(settings, health) {
            // Each reader meets it by itself, and says what it means for it.
            tracing::debug!(why, "nothing is shared for a while");
            let mut windows = self.windows();
            windows.is_refused = true;
            windows.eject_all();
            drop(self.changed.wait_timeout_while(windows, REFUSED_FOR, |windows| !windows.is_closed));
        }
    }

    fn fetch_all(&self, settings: &Settings, health: &Arc<Health>) -> Result<(), String> {
        let context = ReaderContext::new(Common::new(health, settings, None));
        let consumer: BaseConsumer<_> =
            settings.consumer(None, None).create_with_context(context).map_err(|e| e.to_string())?;
        let mut fetcher = Fetcher::new(consumer).map_err(|e| e.text)?;
        let (mut assigned, mut readings) = (Vec::new(), Vec::new());
        while let Some(wanted) = self.next() {
            let same = |a: &Wanted, b: &Wanted| (&a.name, a.epoch) == (&b.name, b.epoch);
            if wanted.len() != assigned.len() || !wanted.iter().zip(&assigned).all(|(a, b)| same(a, b)) {
                readings = assign(&mut fetcher, &wanted)?;
                assigned = wanted;
            }
            while let Some(event) = fetcher.consumer().poll(Duration::ZERO) {
                if let Err(error) = event {
                    tracing::debug!(%error, "the client for all readers");
                }
            }
            let failed = fetch(&mut fetcher, &mut readings, &FETCH, STEP);
            let mut came = false;
            let mut windows = self.windows();
            for (reading, Wanted { name, epoch, .. }) in readings.iter_mut().zip(&assigned) {
                if let Some(batch) = reading.take_batch() {
                    windows.push(name, *epoch, batch);
                    came = true;
                }
            }
            if came {
                windows.published += 1;
                self.news.notify_all();
            }
            drop(windows);
            if came {
                health.answered();
            }
            if let Some(error) = failed {
                return Err(error.to_string());
            }
        }
        Ok(())
    }

    /// What is to be fetched, once there is room. None at the end.
    fn next(&self) -> Option<Vec<Wanted>> {
        let mut windows = self.windows();
        let mut unused = 0;
        loop {
            if windows.is_closed || unused >= UNUSED_STEPS {
                return None;
            }
            let is_full = windows.bytes() >= ROOM_BYTES;
            let wanted = windows.wanted();
            if !is_full && !wanted.is_empty() {
                return Some(wanted);
            }
            let (again, waited) = self.changed.wait_timeout(windows, STEP).unwrap_or_else(PoisonError::into_inner);
            windows = again;
            if is_full && waited.timed_out() {
                windows.of.values_mut().for_each(Window::wait_for_takers);
            }
            unused = if is_full { 0 } else { unused + 1 };
        }
    }
}

/// However the fetching ends, nobody waits for it.
struct Ended<'a>(&'a Share);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut windows = self.0.windows();
        (windows.is_fetching, windows.is_refused) = (false, false);
        windows.eject_all();
        windows.published += 1;
        self.0.news.notify_all();
    }
}

/// Has the client read these and nothing else.
fn assign(fetcher: &mut Fetcher<ReaderContext>, wanted: &[Wanted]) -> Result<Vec<Reading>, String> {
    let failed = |why: &dyn std::fmt::Debug| format!("assigning: {why:?}");
    fetcher.consumer().unassign().map_err(|e| failed(&e))?;
    // What was fetched ahead may be of a window that has begun anew.
    while fetcher.fetch(Duration::ZERO, usize::MAX, |_| {}) > 0 {}
    let mut list = TopicPartitionList::with_capacity(wanted.len());
    let mut readings = Vec::with_capacity(wanted.len());
    for Wanted { name, incarnation, from, .. } in wanted {
        let (topic, partition) = (name.topic.as_str(), number(name.partition));
        fetcher.route(topic, partition).map_err(|e| failed(&e))?;
        list.add_partition_offset(topic, partition, Position::Offset(*from)).map_err(|e| failed(&e))?;
        readings.push(Reading::new(name.clone(), incarnation.clone(), Offset(*from)));
    }
    fetcher.consumer().assign(&list).map_err(|e| failed(&e))?;
    Ok(readings)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
                        let limits = PollLimits { records: most, bytes: usize::MAX, timeout: STEP };
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
        let limits = PollLimits { records: 100, bytes: usize::MAX, timeout: STEP };
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

    #[test]
    fn what_all_have_had_is_forgotten() {
        let limits = PollLimits { records: 100, bytes: usize::MAX, timeout: STEP };
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
