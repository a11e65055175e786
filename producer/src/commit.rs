//! Transactions, on a thread of their own, so that no row waits for the commit of those before it.
//!
//! The replay fills a batch and hands it over; here it becomes one transaction, opened, filled and
//! committed in one go: none is open across a wait, and a writer never has two. Batches are committed
//! in order, and after one that cannot be, none is: progress never passes a row that is not there.
//! What was lost with a transaction is still at hand, and is sent again.
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Instant;

use broker::{Broker, Cancel, Records, Topic, Writer};
use crossbeam_channel::{Receiver, Sender, bounded};
use fail::fail_point;
use records::{Feed, clock, topics};

use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::pace::Now;
use crate::progress::{Progress, Recorded};
use crate::quantiles::Quantiles;
use crate::retry::Backoff;
use crate::settings::Settings;
use crate::status::Status;
use crate::topic::End;

/// How many batches wait for the transaction at hand; with it, what is on its way at most.
const WAITING: usize = 1;

/// What one transaction holds.
#[derive(Debug)]
pub(crate) struct Batch {
    /// By partition.
    pub(crate) events: Vec<Records>,
    pub(crate) dead_letters: Records,
    pub(crate) progress_records: Records,
    /// How far the feed has come with it: what its record of progress says.
    pub(crate) progress: Progress,
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    /// When it is to be handed over; None while it is empty.
    pub(crate) due: Option<Instant>,
    /// Intended times, and how many rows in a row share each.
    pub(crate) intended: Vec<(i64, u64)>,
    /// One instant on the clocks of `intended`.
    pub(crate) now: Option<Now>,
    /// Whether its rows were sent as fast as they were taken.
    pub(crate) flat_out: bool,
}

/// What has been committed in this run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Committed {
    pub(crate) progress: Progress,
    pub(crate) events: u64,
    pub(crate) dead_letters: u64,
    /// Visible minus intended.
    pub(crate) visible: Quantiles,
}

/// The replay's end of the thread.
pub(crate) struct Committer<'scope> {
    batches: Option<Sender<Batch>>,
    emptied: Receiver<Batch>,
    thread: Option<ScopedJoinHandle<'scope, (Committed, Result<()>)>>,
    /// What the thread said, once it has ended.
    committed: Committed,
    partitions: usize,
}

/// A feed that is this producer's: nobody else writes to it, and this is how far it has come.
pub(crate) struct Claim {
    pub(crate) writer: Box<dyn Writer>,
    pub(crate) partitions: usize,
    pub(crate) topics: Topics,
    transactional_id: String,
}

/// What a replay has around it.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) broker: &'a dyn Broker,
    pub(crate) metrics: &'a Metrics,
    pub(crate) status: &'a Status,
    pub(crate) cancel: &'a Cancel,
    pub(crate) feed: Feed,
    /// Whether it begins so; control may say otherwise.
    pub(crate) flat_out: bool,
}

struct Work<'a> {
    around: Around<'a>,
    writer: Box<dyn Writer>,
    topics: Topics,
    transactional_id: String,
    committed: Committed,
}

#[derive(Clone, Debug)]
pub(crate) struct Topics {
    events: Topic,
    dead_letters: Topic,
    progress: Topic,
}

impl Committed {
    /// Of an earlier pass, and this one.
    pub(crate) fn add(&mut self, other: &Self) {
        self.progress = other.progress;
        self.events += other.events;
        self.dead_letters += other.dead_letters;
        self.visible.add(&other.visible);
    }
}

impl Batch {
    fn new(partitions: usize) -> Self {
        Self {
            events: vec![Records::new(); partitions],
            dead_letters: Records::new(),
            progress_records: Records::new(),
            progress: Progress::default(),
            records: 0,
            bytes: 0,
            due: None,
            intended: Vec::new(),
            now: None,
            flat_out: false,
        }
    }

    fn clear(&mut self) {
        self.events.iter_mut().for_each(Records::clear);
        self.dead_letters.clear();
        self.progress_records.clear();
        self.intended.clear();
        (self.records, self.bytes, self.due, self.now) = (0, 0, None, None);
    }
}

impl Claim {
    /// Takes the feed over from whoever had it, then reads on in `recorded`: how far it has come.
    pub(crate) fn feed(
        broker: &dyn Broker,
        settings: &Settings,
        feed: Feed,
        recorded: &mut Recorded,
        cancel: &Cancel,
    ) -> Result<Self> {
        let topic = |name: &str| Topic::from(format!("{}{name}", settings.prefix).as_str());
        let topics = Topics {
            events: topic(topics::EVENTS),
            dead_letters: topic(topics::DEAD_LETTERS),
            progress: topic(topics::REPLAY_PROGRESS),
        };
        let transactional_id = format!("{}{feed}", settings.prefix);
        let mut backoff = Backoff::default();
        let writer = loop {
            match take_over(broker, &transactional_id, &topics.progress, recorded, cancel) {
                Ok(writer) => break writer,
                Err(error) => backoff.wait(error, cancel)?,
            }
        };
        let partitions = match broker.describe(&topics.events)? {
            Some(info) => info.partitions.len(),
            None => {
                let why = format!("there is no topic {}; make the topics first", topics.events);
                return Err(Error::Broker(broker::Error::Stop(why)));
            }
        };
        Ok(Self { writer, partitions, topics, transactional_id })
    }
}

impl<'scope> Committer<'scope> {
    /// `progress` is how far the feed had come before.
    pub(crate) fn spawn<'env>(
        scope: &'scope Scope<'scope, 'env>,
        claim: Claim,
        around: Around<'env>,
        progress: Progress,
    ) -> Result<Self> {
        let (batches, to_commit) = bounded(WAITING);
        let (empty, emptied) = bounded(WAITING + 1);
        let Claim { writer, partitions, topics, transactional_id, .. } = claim;
        let committed = Committed { progress, ..Committed::default() };
        let work = Work { around, writer, topics, transactional_id, committed };
        let thread = std::thread::Builder::new()
            .name("producer-commit".into())
            .spawn_scoped(scope, move || work.run(&to_commit, &empty))
            .map_err(|e| Error::Broker(broker::Error::Stop(format!("no thread to commit on: {e}"))))?;
        let committed = Committed { progress, ..Committed::default() };
        Ok(Self { batches: Some(batches), emptied, thread: Some(thread), committed, partitions })
    }

    /// An empty batch.
    pub(crate) fn batch(&self) -> Batch {
        self.emptied.try_recv().unwrap_or_else(|_| Batch::new(self.partitions))
    }

    /// Whether a batch waits already: the next one would have to wait for its turn.
    pub(crate) fn is_busy(&self) -> bool {
        self.batches.as_ref().is_some_and(Sender::is_full)
    }

    /// Takes the batch when its turn has come. (A transaction ends, be it with an error, and so does this wait.)
    pub(crate) fn hand(&mut self, batch: Batch) -> Result<()> {
        match &self.batches {
            Some(batches) if batches.send(batch).is_ok() => Ok(()),
            _ => Err(self.failure()),
        }
    }

    /// Whether it goes on; its error if it does not.
    pub(crate) fn check(&mut self) -> Result<()> {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) { Ok(()) } else { Err(self.failure()) }
    }

    /// Waits until all that was handed over is committed. An error that was returned before is not returned again.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.batches = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // What a panic says is on stderr by now.
        let (committed, ended) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.committed = committed;
        ended
    }

    fn failure(&mut self) -> Error {
        let silent = || Error::Broker(broker::Error::Stop("the thread that commits has ended".into()));
        self.finish().err().unwrap_or_else(silent)
    }

    /// What has been committed, after `finish`.
    pub(crate) fn committed(&self) -> &Committed {
        &self.committed
    }
}

impl Work<'_> {
    fn run(mut self, batches: &Receiver<Batch>, empty: &Sender<Batch>) -> (Committed, Result<()>) {
        for mut batch in batches {
            if let Err(error) = self.transact(&batch) {
                return (self.committed, Err(error));
            }
            self.settle(&batch);
            batch.clear();
            let _ = empty.try_send(batch);
        }
        (self.committed, Ok(()))
    }

    /// One transaction, done again until it holds or cannot.
    fn transact(&mut self, batch: &Batch) -> Result<()> {
        let room = self.wait_for_room(batch.flat_out);
        let begun = clock::now();
        let mut backoff = Backoff::default();
        let mut tried = room.and_then(|()| Ok(self.attempt(batch)?));
        // Whatever has become of it: the writer is taken over anew, and what is committed settles it.
        while let Err(mut error) = tried {
            loop {
                let Around { broker, metrics, cancel, .. } = self.around;
                backoff.wait(error, cancel)?;
                metrics.retries.inc();
                let _ = self.writer.abort();
                let mut recorded = Recorded::default();
                match take_over(broker, &self.transactional_id, &self.topics.progress, &mut recorded, cancel) {
                    Ok(writer) => {
                        self.writer = writer;
                        let before = self.committed.progress;
                        let found = recorded.progress.get(&self.around.feed).copied().unwrap_or_default();
                        if found == batch.progress && found != before {
                            return Ok(());
                        }
                        if found != before {
                            return Err(Error::Superseded(match found.next {
                                next if !found.ended => {
                                    format!("another producer has brought it to row {}", next.source_row)
                                }
                                next if next != before.next => "another producer has played it to its end".to_owned(),
                                _ => "its end was written meanwhile, as clickstream control end does".to_owned(),
                            }));
                        }
                        break;
                    }
                    Err(again) => error = again,
                }
            }
            tried = self.attempt(batch).map_err(Error::from);
        }
        fail_point!("producer::after_commit");
        self.around.metrics.commit.observe((clock::now() - begun).as_secs_f64());
        Ok(())
    }

    /// On the way out nobody waits: what is in hand goes in whatever the room.
    fn wait_for_room(&mut self, flat_out: bool) -> Result<()> {
        let cancel = self.around.cancel;
        let mut waited = self.writer.wait_for_room(cancel);
        if waited.is_ok() && flat_out {
            waited = self.writer.wait_for_readers(cancel);
        }
        match waited {
            Err(broker::Error::Cancelled) => Ok(()),
            other => Ok(other?),
        }
    }

    fn attempt(&mut self, batch: &Batch) -> broker::Result<()> {
        if batch.progress.ended {
            fail_point!("producer::before_end");
        }
        fail_point!("producer::before_begin");
        self.writer.begin()?;
        for (partition, records) in (0..).zip(&batch.events) {
            if !records.is_empty() {
                self.writer.append(&self.topics.events, partition, records)?;
            }
        }
        if !batch.dead_letters.is_empty() {
            self.writer.append(&self.topics.dead_letters, 0, &batch.dead_letters)?;
        }
        self.writer.append(&self.topics.progress, 0, &batch.progress_records)?;
        fail_point!("producer::after_append");
        fail_point!("producer::before_commit");
        self.writer.commit()
    }

    /// The transaction holds: counts it.
    fn settle(&mut self, batch: &Batch) {
        if batch.progress.ended {
            fail_point!("producer::after_end");
        }
        let Around { metrics, status, .. } = self.around;
        let committed = &mut self.committed;
        let visible = metrics.visible_error.local();
        if let Some(handed) = batch.now {
            let wall_us = handed.wall_us_at(clock::now());
            for (intended, rows) in &batch.intended {
                committed.visible.record(wall_us - intended, *rows);
                for _ in 0..if batch.flat_out { 1 } else { *rows } {
                    visible.observe(seconds(wall_us - intended));
                }
            }
        }
        visible.flush();
        let events = batch.progress.events - committed.progress.events;
        let dead_letters = batch.progress.dead_letters - committed.progress.dead_letters;
        committed.events += events;
        committed.dead_letters += dead_letters;
        committed.progress = batch.progress;
        metrics.events.inc_by(events);
        metrics.dead_letters.inc_by(dead_letters);
        metrics.transactions.inc();
        metrics.clock.set(batch.progress.clock.seconds());
        status.add_sent(events, &batch.progress);
    }
}

/// The writer first: whoever had the feed is fenced before its progress is read. Then all that was
/// appended: another feed's open transaction must not hide how far this one has come.
fn take_over(
    broker: &dyn Broker,
    transactional_id: &str,
    topic: &Topic,
    recorded: &mut Recorded,
    cancel: &Cancel,
) -> Result<Box<dyn Writer>> {
    let writer = broker.writer(transactional_id)?;
    recorded.read_on(broker, topic, End::Appended, cancel)?;
    Ok(writer)
}

#[allow(clippy::cast_precision_loss, reason = "durations")]
pub(crate) fn seconds(us: i64) -> f64 {
    us.max(0) as f64 / 1e6
}
