//! Transactions, on a thread of their own: while one is committed, what comes after it is sessionized.
//!
//! One is under way at the most, and it has its writer to itself. What has become of it is known before the
//! next one is handed over, and before partitions change hands; until then what was made since is in hand
//! and no more, and goes with it if it is lost.
use std::thread::Scope;

use broker::{Broker, Cancel, Commit, Incarnation, Membership, Writer};
use crossbeam_channel::{Receiver, Sender, bounded};
use records::{EventTime, clock};

use crate::publish::{Appends, Tally};
use crate::settings::Topics;
use crate::{Error, Metrics};

/// What a transaction writes, and the positions that go with it.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) outputs: Vec<Output>,
    /// Of all partitions: the topic has one.
    pub(crate) dead_letters: Appends,
    pub(crate) commits: Vec<Commit>,
    pub(crate) membership: Option<Membership>,
    /// Of the topic `events`.
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) made: Made,
}

/// Steps and sessions of a partition.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) partition: u32,
    pub(crate) steps: Appends,
    pub(crate) sessions: Appends,
}

/// What is shown once it is committed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Made {
    pub(crate) tally: Tally,
    pub(crate) open_sessions: usize,
    pub(crate) clock: Option<EventTime>,
    pub(crate) reach: Reach,
}

/// How far back the recovery of a partition reads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reach {
    pub(crate) records: i64,
    pub(crate) seconds: i64,
}

/// What has become of a transaction.
pub(crate) struct Ended {
    pub(crate) made: Made,
    pub(crate) result: broker::Result<()>,
}

/// The part's end of the thread.
pub(crate) struct Committer {
    to_commit: Sender<(Box<dyn Writer>, Transaction)>,
    done: Receiver<Done>,
    /// None while a transaction is under way.
    writer: Option<Box<dyn Writer>>,
    emptied: Transaction,
}

/// What the thread gives back.
struct Done {
    writer: Box<dyn Writer>,
    transaction: Transaction,
    result: broker::Result<()>,
}

/// What the thread has around it.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) broker: &'a dyn Broker,
    pub(crate) topics: &'a Topics,
    pub(crate) metrics: &'a Metrics,
    pub(crate) cancel: &'a Cancel,
}

impl Transaction {
    fn clear(&mut self) {
        for output in &mut self.outputs {
            output.steps.clear();
            output.sessions.clear();
        }
        self.dead_letters.clear();
        self.commits.clear();
    }
}

impl Committer {
    pub(crate) fn spawn<'scope, 'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        around: Around<'env>,
        writer: Box<dyn Writer>,
    ) -> Result<Self, Error> {
        let (to_commit, transactions) = bounded::<(Box<dyn Writer>, Transaction)>(1);
        let (committed, done) = bounded(1);
        std::thread::Builder::new()
            .name("session-commit".to_owned())
            .spawn_scoped(scope, move || {
                for (mut writer, mut transaction) in transactions {
                    let began = clock::now();
                    let result = around.commit(&mut *writer, &mut transaction).map_err(lost);
                    if result.is_ok() {
                        around.metrics.show(&transaction.made, clock::now().saturating_duration_since(began));
                    }
                    if committed.send(Done { writer, transaction, result }).is_err() {
                        break;
                    }
                }
            })
            .map_err(|e| stopped(&format!("no thread to commit on: {e}")))?;
        Ok(Self { to_commit, done, writer: Some(writer), emptied: Transaction::default() })
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.writer.is_none()
    }

    /// Takes another writer. Nothing may be under way.
    pub(crate) fn renew(&mut self, writer: Box<dyn Writer>) {
        self.writer = Some(writer);
    }

    /// One to be filled and handed over.
    pub(crate) fn transaction(&mut self) -> Transaction {
        std::mem::take(&mut self.emptied)
    }

    /// Begins to commit it. Nothing may be under way.
    pub(crate) fn hand(&mut self, transaction: Transaction) -> Result<(), Error> {
        let writer = self.writer.take().ok_or_else(|| stopped("a transaction is under way already"))?;
        self.to_commit.send((writer, transaction)).map_err(|_| stopped("the thread that commits has ended"))
    }

    /// What has become of the transaction that was under way, if it has ended.
    pub(crate) fn poll(&mut self) -> Option<Ended> {
        let ended = self.done.try_recv().ok()?;
        Some(self.take_back(ended))
    }

    /// The same, once it has; None if there is none.
    pub(crate) fn wait(&mut self) -> Result<Option<Ended>, Error> {
        if !self.is_busy() {
            return Ok(None);
        }
        let ended = self.done.recv().map_err(|_| stopped("the thread that commits has ended"))?;
        Ok(Some(self.take_back(ended)))
    }

    fn take_back(&mut self, Done { writer, mut transaction, result }: Done) -> Ended {
        let made = transaction.made;
        transaction.clear();
        (self.writer, self.emptied) = (Some(writer), transaction);
        Ended { made, result }
    }
}

impl Around<'_> {
    fn commit(&self, writer: &mut dyn Writer, transaction: &mut Transaction) -> broker::Result<()> {
        // A drain does not wait: what is in hand is little, and the last.
        match writer.wait_for_room(self.cancel) {
            Ok(()) | Err(broker::Error::Cancelled) => {}
            Err(error) => return Err(error),
        }
        fail::fail_point!("sessionizer::before_begin");
        writer.begin()?;
        // Should the transaction be lost, they are made again from the log.
        for Output { partition, steps, sessions } in &mut transaction.outputs {
            for records in steps.iter_mut() {
                writer.append_taking(&self.topics.steps, *partition, records)?;
            }
            for records in sessions.iter_mut() {
                writer.append_taking(&self.topics.sessions, *partition, records)?;
            }
        }
        for records in transaction.dead_letters.iter_mut() {
            writer.append_taking(&self.topics.dead_letters, 0, records)?;
        }
        fail::fail_point!("sessionizer::after_append");
        let log = transaction.incarnation.clone().map(|incarnation| (self.topics.events.clone(), incarnation));
        self.broker.check_logs(log.as_slice())?;
        let membership = transaction.membership.as_ref();
        let membership = membership.ok_or_else(|| broker::Error::Abort("no longer in the group".to_owned()))?;
        writer.commit_offsets(membership, &transaction.commits)?;
        fail::fail_point!("sessionizer::before_commit");
        writer.commit()?;
        fail::fail_point!("sessionizer::after_commit");
        Ok(())
    }
}

/// A writer loses its place to a rival, and to a broker that gave up on it. The two look alike to
/// it; the reader knows: a rival of this instance takes its place in the group as well.
pub(crate) fn lost(error: broker::Error) -> broker::Error {
    match error {
        broker::Error::Fenced(why) => broker::Error::Abort(why),
        other => other,
    }
}

fn stopped(why: &str) -> Error {
    Error::Broker { doing: "committing steps and sessions", source: broker::Error::Stop(why.to_owned()) }
}
