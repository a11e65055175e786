//! A transactional writer: one librdkafka producer, made for its transactional id.
//!
//! However a commit ends, no transaction stays open: one that cannot go through is aborted here,
//! and the error says what the caller has to do. A producer that librdkafka declared dead, or
//! whose last commit may or may not have happened, takes nothing more; the next writer of that id
//! settles what is left, before `Kafka::writer` returns it.
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use rdkafka::producer::{Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset as Position, TopicPartitionList};

use super::config::RECORD_MAX_BYTES;
use super::context::{Common, WriterContext};
use super::errors::{is_fenced, is_taken, of_call, of_code, of_kafka, remedy};
use super::ffi::{self, CallError, Generation, Sender};
use super::supply::{Transaction, WriterId};
use super::window::ReaderId;
use super::{Core, check_commits, number};
use crate::{Batch, Cancel, Commit, Error, Membership, Offset, Records, Result, Topic, TopicPartition, Writer};

/// Of the earlier writer's fencing and of the abort of its transaction.
const INIT_WAIT: Duration = Duration::from_secs(15);
/// Of a connection, before that. Why there is none, what comes after finds out.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// A commit outlives a broker's restart: it is asked for again and again before its outcome is
/// called unknown.
const COMMIT_STEP: Duration = Duration::from_secs(5);
const COMMIT_STEPS: u32 = 12;
const ABORT_STEPS: u32 = 3;
/// On the way out: the coordinator aborts it too, a little later.
const DROP_WAIT: Duration = Duration::from_secs(2);
/// How long an append waits for librdkafka's queue, and in what steps.
const QUEUE_STEP: Duration = Duration::from_millis(2);
const QUEUE_STEPS: u32 = 10_000;

pub(super) struct KafkaWriter {
    core: Arc<Core>,
    id: String,
    sender: Sender<WriterContext>,
    state: State,
    topics: HashMap<Topic, Known>,
    /// Among the writers of this process.
    writer: WriterId,
    /// Where the open transaction has written, and how many records: handles of topics, and partitions.
    written: HashMap<(usize, u32), u64>,
    /// What it has written where readers of this process take it from memory, in the order of writing.
    kept: Vec<Kept>,
    /// The last mark that was given to a record.
    marks: usize,
    /// Sent when the transaction commits, so that a generation that is over by then is refused.
    commits: Vec<(Arc<Generation>, String, Vec<Commit>)>,
    /// Readers that were far behind and did not move, and where they were.
    stalled: HashMap<ReaderId, u64>,
}

#[derive(Clone, Copy)]
struct Known {
    handle: usize,
    partitions: u32,
}

/// Records of the open transaction. Their first one is sent with the first mark, their last with the second.
struct Kept {
    handle: usize,
    partition: u32,
    records: Records,
    marks: [usize; 2],
}

enum State {
    Ready,
    Open,
    /// Another has taken its place.
    Fenced(String),
    /// It takes nothing more, and nobody has taken its place.
    Lost(String),
}

impl KafkaWriter {
    pub(super) fn open(core: Arc<Core>, id: &str) -> Result<Self> {
        let doing = || format!("making a writer of transactional id {id}");
        let context = WriterContext::new(Common::new(&core.health, &core.settings, Some(id)));
        let producer: ThreadedProducer<WriterContext> =
            core.settings.producer(id).create_with_context(context).map_err(|e| of_kafka(doing(), &e))?;
        let sender = Sender::new(producer);
        // librdkafka looks for the coordinator of transactions once it is connected, or else half a second later.
        if let Err(error) = ffi::connect(sender.producer().client(), CONNECT_WAIT) {
            tracing::debug!(writer = %id, ?error, "not connected yet");
        }
        sender.init_transactions(INIT_WAIT).map_err(|e| {
            core.health.failed(e.code);
            match e.code {
                Code::OperationTimedOut => Error::Retry(format!(
                    "{}: no answer from {} within {} s, neither from a broker nor from the coordinator of its \
                     transactions: see that they run, and have room on their disks",
                    doing(),
                    core.settings.brokers,
                    INIT_WAIT.as_secs()
                )),
                _ => of_call(doing(), &e),
            }
        })?;
        core.health.answered();
        let (writer, state, id) = (core.share.new_writer(), State::Ready, id.to_owned());
        let (topics, written, stalled) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (kept, commits) = (Vec::new(), Vec::new());
        Ok(Self { core, id, sender, state, topics, writer, written, kept, marks: 0, commits, stalled })
    }

    fn check_open(&self) -> Result<()> {
        match &self.state {
            State::Open => Ok(()),
            State::Ready => Err(Error::Stop(format!("writer {}: no transaction is open", self.id))),
            over => Err(self.is_over(over)),
        }
    }

    fn is_over(&self, state: &State) -> Error {
        match state {
            State::Fenced(why) => Error::Fenced(format!("writer {}: {why}", self.id)),
            State::Lost(why) => Error::Abort(format!("writer {}: {why}; a new writer settles it", self.id)),
            State::Ready | State::Open => Error::Stop(format!("writer {}: it is not over", self.id)),
        }
    }

    fn known(&mut self, topic: &Topic, partition: u32) -> Result<Known> {
        if let Some(known) = self.topics.get(topic)
            && partition < known.partitions
        {
            return Ok(*known);
        }
        let missing = || Error::Stop(format!("there is no {topic}-{partition}: make it with `topics create`"));
        let (_, partitions) = self.core.topic(topic)?.ok_or_else(missing)?;
        let handle = match self.topics.get(topic) {
            Some(known) => known.handle,
            None => self.sender.open(topic).map_err(|e| of_call(format_args!("opening topic {topic}"), &e))?,
        };
        let known = Known { handle, partitions };
        self.topics.insert(topic.clone(), known);
        if partition < partitions { Ok(known) } else { Err(missing()) }
    }

    /// Aborts what is open. Fails with the fatal error, if that is what it comes to.
    fn abort_open(&mut self) -> Result<(), CallError> {
        self.commits.clear();
        self.kept.clear();
        let mut steps = 0;
        loop {
            let Err(error) = self.sender.abort(COMMIT_STEP) else { return Ok(()) };
            steps += 1;
            if !error.is_retriable || steps >= ABORT_STEPS {
                return Err(error);
            }
        }
    }

    /// The open transaction cannot go through: ends it, and says what the caller has to do.
    fn give_up(&mut self, doing: &str, error: &CallError) -> Error {
        // A call that met a transaction which had failed before says no more than that; one that needs
        // another state is told why it had.
        let why =
            if error.code == Code::State { self.sender.begin().err().filter(|why| why.requires_abort) } else { None };
        let error = why.as_ref().unwrap_or(error);
        let client = self.sender.producer().client();
        let undelivered = client.context().take_undelivered();
        let fatal = CallError::fatal(client);
        let fatal = match fatal {
            Some(fatal) => Some(fatal),
            None => match self.abort_open() {
                Ok(()) => None,
                // Sometimes only the abort learns that another has taken over.
                Err(failed) => Some(CallError::fatal(self.sender.producer().client()).unwrap_or(failed)),
            },
        };
        let id = &self.id;
        tracing::debug!(writer = %id, ?error, ?fatal, ?undelivered, "the transaction failed");
        let refused = match undelivered {
            Some((code, place)) if remedy(code).is_some() => {
                Some(of_code(format_args!("writer {id}: a record for {place}"), code, ""))
            }
            _ if error.code == Code::TopicAuthorizationFailed => {
                let topics = self.written_topics();
                Some(of_call(format_args!("writer {id}: {doing} what it wrote to {topics}"), error))
            }
            _ if remedy(error.code).is_some() => Some(of_call(format_args!("writer {id}: {doing}"), error)),
            _ => None,
        };
        match fatal {
            Some(fatal) if is_fenced(fatal.code) => {
                let why = format!(
                    "another writer of that transactional id has taken over, or the transaction was open for longer \
                     than {:?}: {}",
                    self.core.settings.transaction_timeout, fatal.text
                );
                self.state = State::Fenced(why);
                self.is_over(&self.state)
            }
            Some(fatal) => {
                // An abort of what the broker has not begun, having refused it, is fatal as well.
                let of_fatal = || remedy(fatal.code).map(|_| of_call(format_args!("writer {id}: {doing}"), &fatal));
                let refused = refused.or_else(of_fatal);
                self.state = State::Lost(fatal.text);
                refused.unwrap_or_else(|| self.is_over(&self.state))
            }
            None => {
                self.state = State::Ready;
                if is_taken(error.code) {
                    return Error::Fenced(format!("writer {id}: {doing}: {}", error.text));
                }
                if let Some(refused) = refused {
                    return refused;
                }
                Error::Abort(format!("writer {id}: {doing}: {}", error.text))
            }
        }
    }

    /// Those of the open transaction, in words.
    fn written_topics(&self) -> String {
        let is_written = |handle| self.written.keys().any(|(written, _)| *written == handle);
        let topics = self.topics.iter().filter(|(_, known)| is_written(known.handle));
        let mut names: Vec<&str> = topics.map(|(topic, _)| topic.as_str()).collect();
        names.sort_unstable();
        names.join(", ")
    }

    /// The transaction was committed, or `may_be`.
    fn note_written(&mut self, may_be: bool) {
        let mut transactions = if may_be { HashMap::new() } else { self.transactions() };
        let topic = |handle| self.topics.iter().find(|(_, known)| known.handle == handle).map(|(topic, _)| topic);
        let written = self.written.iter().filter_map(|(place, records)| {
            let name = TopicPartition::new(topic(place.0)?, place.1);
            Some((name, *records, transactions.remove(place)))
        });
        let written: Vec<_> = written.collect();
        let names: Vec<_> = written.iter().map(|(name, ..)| (name.topic.clone(), name.partition)).collect();
        if !may_be {
            self.core.share.committed(written);
        }
        self.core.note_written(names.into_iter());
    }

    /// What was committed in each place, as one piece of the log; not where it is not known to be one.
    fn transactions(&mut self) -> HashMap<(usize, u32), Transaction> {
        let delivered = self.sender.producer().context().take_delivered();
        let mut found: HashMap<(usize, u32), Transaction> = HashMap::new();
        for Kept { handle, partition, records, marks: [first, last] } in self.kept.drain(..) {
            let Some(topic) = self.topics.iter().find(|(_, known)| known.handle == handle).map(|(topic, _)| topic)
            else {
                continue;
            };
            let place = (handle, partition);
            let at = |mark| delivered.get(mark).copied().filter(|offset| *offset >= 0);
            let (first, last) = (at(&first), at(if records.len() > 1 { &last } else { &first }));
            let (Some(first), Some(last)) = (first, last) else { continue };
            let transaction = found.entry(place).or_insert_with(|| Transaction {
                writer: self.writer,
                first,
                next: first,
                batches: Vec::new(),
            });
            // One that was sent twice may be said to stand nowhere, and others may write in between.
            if first == transaction.next && last - first + 1 == records.len() as i64 {
                transaction.next = last + 1;
                let batch = Batch::contiguous(topic.clone(), partition, Offset(first), Arc::new(records));
                transaction.batches.push(batch);
            }
        }
        found.retain(|place, of| Some(of.next - of.first) == self.written.get(place).map(|n| n.cast_signed()));
        found
    }

    /// Appends, and says whether the records are to be kept for readers of this process, and by what marks.
    fn send(&mut self, topic: &Topic, partition: u32, records: &Records) -> Result<Option<Kept>> {
        self.check_open()?;
        let known = self.known(topic, partition)?;
        // Time 0 comes back as another.
        let mut is_kept = !records.is_empty() && self.core.share.is_taken(&TopicPartition::new(topic, partition));
        for i in 0..records.len() {
            let record = records.get(i, Offset(0));
            let bytes = record.key.len() + record.value.len();
            if bytes > RECORD_MAX_BYTES {
                return Err(Error::Stop(format!(
                    "{topic}-{partition}: a record of {bytes} bytes; {RECORD_MAX_BYTES} is the most"
                )));
            }
            is_kept &= record.timestamp_ms != 0;
        }
        if !records.is_empty() {
            *self.written.entry((known.handle, partition)).or_default() += records.len() as u64;
        }
        let marks = if is_kept { [self.marks + 1, self.marks + 2] } else { [0, 0] };
        self.marks = self.marks.max(marks[1]);
        let (mut next, mut steps) = (0, 0);
        while let Err((at, error)) = self.sender.send(known.handle, number(partition), records, next, marks) {
            if error.code != Code::QueueFull || steps >= QUEUE_STEPS {
                return Err(self.give_up(&format!("appending to {topic}-{partition}"), &error));
            }
            (next, steps) = (at, steps + 1);
            self.sender.flush(QUEUE_STEP);
        }
        Ok(is_kept.then(|| Kept { handle: known.handle, partition, records: Records::new(), marks }))
    }

    fn send_offsets(&mut self) -> Result<(), CallError> {
        for (generation, _, commits) in std::mem::take(&mut self.commits) {
            let list = list_of(&commits).map_err(|text| CallError {
                code: Code::InvalidArgument,
                text,
                is_retriable: false,
                requires_abort: true,
            })?;
            let mut steps = 0;
            while let Err(error) = self.sender.send_offsets(&list, &generation, COMMIT_STEP) {
                steps += 1;
                if !error.is_retriable || error.requires_abort || steps >= COMMIT_STEPS {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Offsets with their metadata, as librdkafka takes them.
pub(super) fn list_of(commits: &[Commit]) -> Result<TopicPartitionList, String> {
    let mut list = TopicPartitionList::with_capacity(commits.len());
    for Commit { partition, offset, metadata, .. } in commits {
        let mut element = list.add_partition(partition.topic.as_str(), number(partition.partition));
        element.set_offset(Position::Offset(offset.0)).map_err(|e| format!("{partition}: offset {offset}: {e}"))?;
        if !metadata.is_empty() {
            element.set_metadata(metadata);
        }
    }
    Ok(list)
}

impl Writer for KafkaWriter {
    /// A cluster keeps all: there is always room. librdkafka's own queue is waited for in `append`.
    fn wait_for_room(&mut self, _cancel: &Cancel) -> Result<()> {
        match &self.state {
            State::Ready | State::Open => Ok(()),
            over => Err(self.is_over(over)),
        }
    }

    fn wait_for_readers(&mut self, cancel: &Cancel) -> Result<()> {
        self.core.share.wait_for_readers(&mut self.stalled, cancel)
    }

    fn begin(&mut self) -> Result<()> {
        match &self.state {
            State::Ready => {}
            State::Open => return Err(Error::Stop(format!("writer {}: a transaction is open already", self.id))),
            over => return Err(self.is_over(over)),
        }
        let _ = self.sender.producer().context().take_undelivered();
        let _ = self.sender.producer().context().take_delivered();
        self.written.clear();
        self.kept.clear();
        match self.sender.begin() {
            Ok(()) => {
                self.state = State::Open;
                Ok(())
            }
            Err(error) => Err(self.give_up("beginning a transaction", &error)),
        }
    }

    fn append(&mut self, topic: &Topic, partition: u32, records: &Records) -> Result<()> {
        if let Some(kept) = self.send(topic, partition, records)? {
            self.kept.push(Kept { records: records.clone(), ..kept });
        }
        Ok(())
    }

    fn append_taking(&mut self, topic: &Topic, partition: u32, records: &mut Records) -> Result<()> {
        match self.send(topic, partition, records)? {
            Some(kept) => self.kept.push(Kept { records: std::mem::take(records), ..kept }),
            None => records.clear(),
        }
        Ok(())
    }

    fn commit_offsets(&mut self, membership: &Membership, commits: &[Commit]) -> Result<()> {
        self.check_open()?;
        check_commits(&membership.group, commits)?;
        let generation = Arc::clone(&membership.token).downcast::<Generation>();
        let generation = generation.map_err(|_| Error::Stop("the membership is not of this broker".to_owned()))?;
        self.commits.push((generation, membership.group.clone(), commits.to_vec()));
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.check_open()?;
        fail::fail_point!("kafka::before_send_offsets");
        if let Err(error) = self.send_offsets() {
            return Err(self.give_up("committing offsets", &error));
        }
        fail::fail_point!("kafka::before_commit");
        let mut steps = 0;
        loop {
            let Err(error) = self.sender.commit(COMMIT_STEP) else {
                fail::fail_point!("kafka::after_commit");
                self.state = State::Ready;
                self.note_written(false);
                self.core.health.answered();
                return Ok(());
            };
            self.core.health.failed(error.code);
            steps += 1;
            if error.requires_abort || !error.is_retriable {
                return Err(self.give_up("committing", &error));
            }
            if steps >= COMMIT_STEPS {
                self.note_written(true);
                let waited = COMMIT_STEP * COMMIT_STEPS;
                self.state = State::Lost(format!(
                    "whether its transaction was committed is not known after {waited:?}: {}",
                    error.text
                ));
                return Err(self.is_over(&self.state));
            }
        }
    }

    fn abort(&mut self) -> Result<()> {
        match &self.state {
            State::Open => {}
            State::Ready | State::Lost(_) => return Ok(()),
            fenced @ State::Fenced(_) => return Err(self.is_over(fenced)),
        }
        match self.abort_open() {
            Ok(()) => {
                self.state = State::Ready;
                Ok(())
            }
            Err(error) => {
                let fatal = CallError::fatal(self.sender.producer().client());
                let error = fatal.unwrap_or(error);
                self.state = if is_fenced(error.code) { State::Fenced(error.text) } else { State::Lost(error.text) };
                match &self.state {
                    // The next writer of the id aborts it: nothing of it will be seen. An abort right behind a
                    // commit may come to this: while the markers of that are being written the coordinator begins
                    // nothing (CONCURRENT_TRANSACTIONS), librdkafka asks it to end that nothing all the same, and
                    // takes the answer (INVALID_TXN_STATE) for fatal.
                    State::Lost(_) => Ok(()),
                    fenced => Err(self.is_over(fenced)),
                }
            }
        }
    }
}

impl Drop for KafkaWriter {
    fn drop(&mut self) {
        if matches!(self.state, State::Open)
            && let Err(error) = self.sender.abort(DROP_WAIT)
        {
            tracing::debug!(writer = %self.id, ?error, "dropped with a transaction open");
        }
    }
}
