//! What several readers of this process read of a partition is fetched once, by a client for all of
//! them, and handed to each from a window in memory: fetching costs more than most of what is done
//! with a record. A reader that is alone with its partitions fetches by its own client, and so does one
//! whose position is outside the window: it is behind the others, and would hold them up. What writers of
//! this process have committed is in memory already, and comes into the window from [there](super::supply).
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
use super::ffi::{Bound, Fetcher, bounds};
use super::flow::Flow;
use super::reading::{Reading, Source, fetch, wrong_queue};
use super::supply::{Transaction, WriterId};
use super::window::{ReaderId, Wanted, Windows};
use super::{Settings, hear, number};
use crate::{Batch, Cancel, Error, Offset, PollLimits, Result, Topic, TopicPartition};

/// How often it is looked who joins, and who makes room.
const STEP: Duration = Duration::from_millis(20);
/// How soon after a commit it is asked whether it is readable, and how often.
const SHORT_STEP: Duration = Duration::from_millis(5);
const ASK_WAIT: Duration = Duration::from_secs(2);
/// Without a window for so long, its client goes.
const UNUSED_STEPS: u32 = 100;
/// A reader that is given nothing for so long is waited for no more.
const STALLED_STEPS: u32 = 50;
/// After a fault, which each reader is to meet by itself.
const REFUSED_FOR: Duration = Duration::from_secs(5);
const FETCH: PollLimits = PollLimits { records: 16 << 10, bytes: 4 << 20, timeout: STEP };

#[derive(Default)]
pub(super) struct Share {
    windows: Mutex<Windows>,
    /// Batches were put into windows.
    news: Condvar,
    /// Room was made, somebody joined, or it is over.
    changed: Condvar,
    flow: Mutex<Flow>,
    /// A reader was given something.
    given: Condvar,
}

impl Share {
    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether readers would take from memory what is written there.
    pub(super) fn is_taken(&self, name: &TopicPartition) -> bool {
        self.windows().is_taken(name)
    }

    /// A transaction of this process was committed: so many records in each of these, and what they are.
    pub(super) fn committed(&self, written: Vec<(TopicPartition, u64, Option<Transaction>)>) {
        let mut flow = self.flow();
        written.iter().for_each(|(name, records, _)| flow.appended(name, *records));
        drop(flow);
        let mut windows = self.windows();
        let before = windows.published;
        for (name, _, transaction) in written {
            if let Some(transaction) = transaction {
                windows.supply(&name, transaction);
            }
        }
        if windows.published != before {
            self.news.notify_all();
        }
        drop(windows);
        self.changed.notify_all();
    }

    pub(super) fn new_writer(&self) -> WriterId {
        let mut windows = self.windows();
        windows.writers += 1;
        windows.writers
    }

    /// The reader was given this.
    pub(super) fn gave(&self, id: ReaderId, batch: &Batch) {
        let name = TopicPartition::new(&batch.topic, batch.partition);
        self.flow().read(id, &name, batch.len() as u64);
        self.given.notify_all();
    }

    /// Waits while a reader of this process is too far behind and moves. One that was seen not to is kept
    /// in `stalled`.
    pub(super) fn wait_for_readers(&self, stalled: &mut HashMap<ReaderId, u64>, cancel: &Cancel) -> Result<()> {
        let mut still = 0;
        let mut flow = self.flow();
        while let Some(furthest) = flow.furthest_behind(stalled) {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let is_still = |flow: &mut Flow| flow.furthest_behind(stalled) == Some(furthest);
            let waited = self.given.wait_timeout_while(flow, STEP, is_still);
            let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            flow = again;
            still = if timeout.timed_out() { still + 1 } else { 0 };
            if still >= STALLED_STEPS {
                // It reads later, or never: nothing is gained by waiting until it moves again.
                stalled.insert(furthest.reader, furthest.read);
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn new_reader(&self) -> ReaderId {
        let mut windows = self.windows();
        windows.readers += 1;
        windows.readers
    }

    /// Says what the reader reads, and nothing else.
    pub(super) fn register(&self, id: ReaderId, partitions: &[Reading]) {
        let mut windows = self.windows();
        let mut flow = self.flow();
        windows.unregister(id);
        flow.unregister(id);
        for Reading { name, incarnation, .. } in partitions {
            windows.register(id, name, incarnation);
            flow.register(id, name);
        }
    }

    /// The reader reads nothing more of what it had.
    pub(super) fn unregister(&self, id: ReaderId) {
        self.windows().unregister(id);
        self.flow().unregister(id);
        self.changed.notify_all();
        self.given.notify_all();
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
        let was_full = windows.is_full();
        for reading in partitions.iter_mut().filter(|reading| reading.source == Source::Shared) {
            let window = windows.of.get_mut(&reading.name);
            let Some(window) = window.filter(|window| window.is_taken_by(id)) else {
                reading.source = Source::Returning;
                continue;
            };
            if let Some(batch) = window.take(id, limits) {
                reading.position = batch.next_offset().map_or(reading.position, |next| next.0);
                ready.push_back(batch);
            }
        }
        if was_full {
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

    fn fetch_all(&self, settings: &Settings, health: &Arc<Health>) -> std::result::Result<(), String> {
        let mut client: Option<(Fetcher<ReaderContext>, Vec<Reading>)> = None;
        let mut asker: Option<BaseConsumer<ReaderContext>> = None;
        let mut assigned = Vec::new();
        while let Some(Next { wanted, pending, is_supplied }) = self.next(!assigned.is_empty()) {
            let same = |a: &Wanted, b: &Wanted| (&a.name, a.epoch) == (&b.name, b.epoch);
            if wanted.len() != assigned.len() || !wanted.iter().zip(&assigned).all(|(a, b)| same(a, b)) {
                client = None;
                assigned = wanted;
            }
            if !pending.is_empty() {
                let asker = match &mut asker {
                    Some(asker) => asker,
                    None => asker.insert(consumer(settings, health)?),
                };
                self.ask(asker, &pending)?;
            } else if !is_supplied {
                asker = None;
            }
            if assigned.is_empty() {
                continue;
            }
            let (fetcher, readings) = match &mut client {
                Some(client) => client,
                None => client.insert(begin(settings, health, &assigned)?),
            };
            while let Some(event) = fetcher.consumer().poll(Duration::ZERO) {
                match event {
                    // It would be missing from its window.
                    Ok(record) => return Err(wrong_queue(&record)),
                    Err(error) => tracing::debug!(%error, "the client for all readers"),
                }
            }
            let failed = fetch(fetcher, readings, &FETCH, if pending.is_empty() { STEP } else { SHORT_STEP });
            let mut came = false;
            let mut windows = self.windows();
            windows.step();
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

    /// Asks up to where all is decided.
    fn ask(
        &self,
        client: &BaseConsumer<ReaderContext>,
        pending: &HashMap<Topic, Vec<u32>>,
    ) -> std::result::Result<(), String> {
        hear(client);
        for (topic, partitions) in pending {
            let numbers: Vec<i32> = partitions.iter().map(|partition| number(*partition)).collect();
            let [stable] = bounds(client.client(), topic.as_str(), &numbers, [Bound::Stable], ASK_WAIT)
                .map_err(|e| format!("asking what of {topic} is decided: {}", e.text))?;
            let mut windows = self.windows();
            let before = windows.published;
            for (partition, stable) in partitions.iter().zip(stable) {
                // Where there is no answer now, it is asked again, and fetched in the end.
                windows.decided(&TopicPartition::new(topic, *partition), stable.unwrap_or(i64::MIN));
            }
            if windows.published != before {
                self.news.notify_all();
            }
        }
        Ok(())
    }

    /// What is to be fetched, and of what it is to be asked what is decided; once there is room for the one, or
    /// there is something of the other. At once that nothing is to be fetched, if something `is_fetched`. None
    /// at the end.
    fn next(&self, is_fetched: bool) -> Option<Next> {
        let mut windows = self.windows();
        let (mut unused, mut waited) = (0, false);
        loop {
            if windows.is_closed || unused >= UNUSED_STEPS {
                return None;
            }
            let has_room = windows.make_room();
            let (wanted, pending) = (windows.wanted(), windows.pending());
            // What was committed just now is decided a moment later.
            let asks = !pending.is_empty() && (waited || !wanted.is_empty());
            if has_room && (is_fetched || !wanted.is_empty() || asks) {
                return Some(Next { wanted, pending, is_supplied: windows.are_supplied() });
            }
            let step = if has_room && !pending.is_empty() { SHORT_STEP } else { STEP };
            let (again, timeout) = self.changed.wait_timeout(windows, step).unwrap_or_else(PoisonError::into_inner);
            windows = again;
            waited = timeout.timed_out();
            if waited && step == STEP {
                windows.step();
                if !has_room {
                    windows.wait_for_takers();
                }
            }
            unused = if windows.are_taken() { 0 } else { unused + 1 };
        }
    }
}

/// What the thread is to do.
struct Next {
    wanted: Vec<Wanted>,
    pending: HashMap<Topic, Vec<u32>>,
    /// Whether it may be to be asked again soon.
    is_supplied: bool,
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

fn consumer(settings: &Settings, health: &Arc<Health>) -> std::result::Result<BaseConsumer<ReaderContext>, String> {
    let context = ReaderContext::new(Common::new(health, settings, None));
    settings.consumer(None, None).create_with_context(context).map_err(|e| e.to_string())
}

/// A client that reads these. It is made anew for others: librdkafka stops a partition some time after it
/// is told to, and the partition's queue then leads nowhere, also where it was taken up again meanwhile.
fn begin(
    settings: &Settings,
    health: &Arc<Health>,
    wanted: &[Wanted],
) -> std::result::Result<(Fetcher<ReaderContext>, Vec<Reading>), String> {
    let fetcher = Fetcher::new(consumer(settings, health)?).map_err(|e| e.text)?;
    let failed = |why: &dyn std::fmt::Debug| format!("assigning: {why:?}");
    let mut list = TopicPartitionList::with_capacity(wanted.len());
    let mut readings = Vec::with_capacity(wanted.len());
    for Wanted { name, incarnation, from, .. } in wanted {
        let (topic, partition) = (name.topic.as_str(), number(name.partition));
        fetcher.route(topic, partition).map_err(|e| failed(&e))?;
        list.add_partition_offset(topic, partition, Position::Offset(*from)).map_err(|e| failed(&e))?;
        readings.push(Reading::new(name.clone(), incarnation.clone(), Offset(*from)));
    }
    fetcher.consumer().assign(&list).map_err(|e| failed(&e))?;
    Ok((fetcher, readings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Incarnation, Records};

    fn batch(records: u32) -> Batch {
        let mut all = Records::new();
        (0..records).for_each(|_| all.push(0, b"", &[], |_| {}));
        Batch::contiguous("t".into(), 0, Offset(0), Arc::new(all))
    }

    #[test]
    fn a_writer_waits_for_a_reader_that_moves_and_not_for_one_that_does_not() {
        const MANY: u32 = 200_000;
        let share = Share::default();
        let name = TopicPartition::new(&"t".into(), 0);
        let reading = || [Reading::new(name.clone(), Incarnation("i".into()), Offset(0))];
        let (moves, stays) = (share.new_reader(), share.new_reader());
        share.register(moves, &reading());
        share.committed(vec![(name.clone(), u64::from(MANY), None)]);
        let (cancel, cancelled) = (Cancel::new(), Cancel::new());
        cancelled.cancel();
        let mut stalled = HashMap::new();
        let waited = share.wait_for_readers(&mut stalled, &cancelled);
        assert!(matches!(waited, Err(Error::Cancelled)), "it is behind");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| share.wait_for_readers(&mut HashMap::new(), &cancel));
            share.gave(moves, &batch(MANY / 2));
            waiting.join().unwrap().unwrap();
        });
        share.register(stays, &reading());
        share.committed(vec![(name.clone(), u64::from(MANY), None)]);
        share.gave(moves, &batch(MANY));
        share.wait_for_readers(&mut stalled, &cancel).unwrap();
        assert_eq!(stalled.get(&stays), Some(&u64::from(MANY)), "where it stands");
        share.wait_for_readers(&mut stalled, &cancelled).unwrap();
        share.unregister(stays);
        share.wait_for_readers(&mut HashMap::new(), &cancelled).unwrap();
    }
}
