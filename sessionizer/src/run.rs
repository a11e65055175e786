//! The part: poll → sessionize → publish and commit, in short transactions.
//!
//! Outputs gather in memory; a transaction is opened only to write them, together with the input
//! offsets and what recovery has to know, and committed at once, while the next outputs gather. When
//! one is lost, memory is ahead of the log: the state is made again from the last commit, as after a
//! crash.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use broker::{
    Assigned, Backoff, Batch, Broker, Cancel, Commit, Headers, Offset, PollLimits, Polled, Reader, Subscription, Topic,
    TopicPartition,
};
use records::{CONTENT_TYPE, Decoder, EventsRecord, SENT_AT, clock};

use crate::commit::{self, Committer, Ended, Made, Output, Reach, lost};
use crate::core::{FeedPosition, Partition};
use crate::progress;
use crate::publish::{Appends, Outputs, Tally, dead_letter};
use crate::recover::{Around, Start, agree, has_moved, start};
use crate::settings::Topics;
use crate::{Error, Metadata, Metrics, Settings};

/// Bounds of one poll.
const POLL_RECORDS: usize = 16 << 10;
const POLL_BYTES: usize = 4 << 20;
/// With nothing in hand; also how soon a cancel is seen.
const POLL_IDLE: Duration = Duration::from_millis(100);
/// While a transaction is under way: how soon its end is seen.
const POLL_BUSY: Duration = Duration::from_millis(5);
/// So many failures without a commit in between, and the part gives up.
const ATTEMPTS: u32 = 8;
const BACK_OFF: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// What this run has committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub events: u64,
    /// In the order of [`records::Stage::ALL`]: view, cart, purchase.
    pub steps: [u64; 3],
    pub sessions: u64,
    pub late_events: u64,
    pub dead_letters: u64,
    /// Ends of feeds, one for each partition.
    pub finished_feeds: u64,
    pub transactions: u64,
    pub failed_transactions: u64,
    /// Read again, silently, to rebuild open sessions.
    pub recovered_records: u64,
}

/// Runs until cancelled; then commits what is in hand and leaves the group.
///
/// # Errors
/// [`Error::Refused`] where the position, the log and the settings do not belong together;
/// [`Error::Broker`] when fenced, or when the broker says to stop.
pub fn run(broker: &dyn Broker, settings: &Settings, metrics: &Metrics, cancel: &Cancel) -> Result<Report, Error> {
    let topics = Topics::new(&settings.prefix);
    let partitions = count_partitions(broker, &topics.events)?;
    let writer = broker.writer(&settings.transactional_id()).map_err(Error::broker("beginning to write"))?;
    let (group, instance) = (settings.group(), settings.instance.clone());
    let subscription = Subscription { group, instance, topics: vec![topics.events.clone()] };
    let reader = broker.subscribe(&subscription).map_err(Error::broker("joining the group"))?;
    std::thread::scope(|scope| {
        let mut sessionizer = Sessionizer {
            broker,
            settings,
            metrics,
            cancel,
            topics: &topics,
            partitions,
            reader,
            committer: Committer::spawn(scope, commit::Around { broker, topics: &topics, metrics, cancel }, writer)?,
            assigned: Vec::new(),
            owned: Vec::new(),
            dead_letters: Appends::default(),
            records_in_hand: 0,
            first_in_hand: None,
            transactions: Backoff::new(ATTEMPTS, BACK_OFF, BACK_OFF_MAX),
            polls: Backoff::new(ATTEMPTS, BACK_OFF, BACK_OFF_MAX),
            report: Report::default(),
            decoder: Decoder::new(),
        };
        sessionizer.drive()?;
        Ok(sessionizer.report)
    })
}

fn count_partitions(broker: &dyn Broker, events: &Topic) -> Result<u32, Error> {
    let info = broker.describe(events).map_err(Error::broker("describing the topic events"))?;
    info.and_then(|info| u32::try_from(info.partitions.len()).ok())
        .ok_or_else(|| Error::Refused(format!("there is no topic {events}; make it with: topics create")))
}

struct Sessionizer<'a> {
    broker: &'a dyn Broker,
    settings: &'a Settings,
    metrics: &'a Metrics,
    cancel: &'a Cancel,
    topics: &'a Topics,
    /// Of the topic `events`, at the last assignment.
    partitions: u32,
    reader: Box<dyn Reader>,
    committer: Committer,
    assigned: Vec<TopicPartition>,
    /// Those of them that were taken up.
    owned: Vec<Owned>,
    /// Of all partitions: the topic has one.
    dead_letters: Appends,
    records_in_hand: usize,
    /// When the first record that was not handed over came.
    first_in_hand: Option<Instant>,
    /// Without a commit in between.
    transactions: Backoff,
    polls: Backoff,
    report: Report,
    decoder: Decoder,
}

/// A partition of ours.
struct Owned {
    assigned: Assigned,
    state: Partition,
    /// Records before it are read again, silently.
    live_from: Offset,
    /// Next to commit.
    next: Offset,
    /// Whether `next` is ahead of what was handed over.
    touched: bool,
    outputs: Outputs,
    reach: Reach,
}

impl Sessionizer<'_> {
    fn drive(&mut self) -> Result<(), Error> {
        while !self.cancel.is_cancelled() {
            let limits = PollLimits { records: POLL_RECORDS, bytes: POLL_BYTES, timeout: self.patience() };
            let mut full = false;
            let polled = self.reader.poll(&limits);
            if polled.is_ok() {
                self.polls.reset();
            }
            match polled {
                Ok(Polled::Batch(batch)) => {
                    full = batch.len() >= POLL_RECORDS / 2;
                    self.take_in(&batch);
                }
                Ok(Polled::Idle) => {}
                Ok(Polled::Flush) => self.flush()?,
                Ok(Polled::Assigned(partitions)) => {
                    self.flush()?;
                    self.assigned = partitions.iter().map(|assigned| assigned.partition.clone()).collect();
                    match self.begin(partitions) {
                        Err(Error::Broker { source, .. }) if may_pass(&source) => self.failed(source)?,
                        done => done?,
                    }
                    self.settings.ready.set();
                }
                Ok(Polled::Revoked(_)) => self.give_up()?,
                Err(broker::Error::Cancelled) => break,
                Err(source @ broker::Error::Abort(_)) => self.failed(source)?,
                Err(source) => match self.polls.wait().filter(|_| may_pass(&source)) {
                    Some(wait) => {
                        say(&self.polls, &source, "reading again");
                        self.cancel.wait(wait);
                    }
                    None => return Err(Error::Broker { doing: "reading the topic events", source }),
                },
            }
            if let Some(ended) = self.committer.poll() {
                let settled = self.settled(ended)?;
                self.mended(settled)?;
            }
            if self.is_due(full) {
                let handed = self.try_hand()?;
                self.mended(handed)?;
            }
        }
        self.flush()?;
        self.reader.leave().map_err(Error::broker("leaving the group"))
    }

    /// How long a poll may wait.
    fn patience(&self) -> Duration {
        match self.first_in_hand {
            _ if self.committer.is_busy() => POLL_BUSY,
            Some(first) => self.settings.linger.saturating_sub(clock::now().saturating_duration_since(first)),
            None => POLL_IDLE,
        }
    }

    /// Whether to commit now: enough is in hand, or its first record has waited long enough and nothing else
    /// is being committed.
    fn is_due(&self, records_keep_coming: bool) -> bool {
        let Some(first) = self.first_in_hand else { return false };
        let linger = if records_keep_coming { self.settings.linger_max } else { self.settings.linger };
        self.records_in_hand >= self.settings.transaction_records
            || self.output_bytes() >= self.settings.transaction_bytes
            || !self.committer.is_busy() && clock::now().saturating_duration_since(first) >= linger
    }

    fn output_bytes(&self) -> usize {
        self.owned.iter().map(|owned| owned.outputs.bytes()).sum::<usize>() + self.dead_letters.bytes()
    }

    /// Takes partitions over: from their committed positions, or from the log's start.
    fn begin(&mut self, partitions: Vec<Assigned>) -> Result<(), Error> {
        // Some may have been added meanwhile.
        self.partitions = count_partitions(self.broker, &self.topics.events)?;
        let played = if partitions.iter().any(|assigned| has_moved(assigned, self.partitions)) {
            let read = progress::read(self.broker, &self.topics.progress);
            read.map_err(Error::broker("reading what became of unfinished feeds"))?
        } else {
            HashMap::new()
        };
        let around = Around {
            rules: self.settings.rules,
            partitions: self.partitions,
            is_alone: partitions.len() == self.partitions as usize,
            played: &played,
        };
        let mut is_new = Vec::new();
        for assigned in partitions {
            let mut outputs = Vec::new();
            for topic in [&self.topics.steps, &self.topics.sessions] {
                let info = self.broker.describe(topic).map_err(Error::broker("describing the outputs"))?;
                let bounds = info.and_then(|info| info.partitions.get(assigned.partition.partition as usize).copied());
                outputs.push(bounds.ok_or_else(|| {
                    let partition = assigned.partition.partition;
                    Error::Refused(format!("{topic}-{partition} is missing; make it with: topics create"))
                })?);
            }
            let Start { state, read_from, live_from, is_new: recorded_now } = start(&assigned, &around, &outputs)?;
            self.reader.seek(&assigned.partition, read_from).map_err(Error::broker("going back to open sessions"))?;
            if read_from < live_from {
                tracing::info!(partition = %assigned.partition, from = read_from.0, to = live_from.0, "recovering");
            }
            self.owned.retain(|owned| owned.assigned.partition != assigned.partition);
            self.owned.push(Owned {
                assigned,
                state,
                live_from,
                next: live_from,
                touched: false,
                outputs: Outputs::new(self.settings.format),
                reach: Reach { records: live_from.0 - read_from.0, seconds: 0 },
            });
            if recorded_now && let Some(owned) = self.owned.last_mut() {
                is_new.push(owned.commit(self.settings.rules, self.partitions)?);
            }
        }
        self.record_rules(&is_new, around.is_alone)
    }

    /// Writes down what this member goes by, before it makes anything with it, and then looks at what the
    /// others have: of two that begin at once, one at least sees the other's.
    fn record_rules(&mut self, is_new: &[Commit], is_alone: bool) -> Result<(), Error> {
        let doing = "writing down --gap and --allowed-lateness";
        if !is_new.is_empty() {
            self.reader.commit(is_new).map_err(lost).map_err(Error::broker(doing))?;
        }
        if is_alone {
            return Ok(());
        }
        let others = (0..self.partitions).map(|number| TopicPartition::new(&self.topics.events, number));
        let others: Vec<_> = others.filter(|partition| !self.assigned.contains(partition)).collect();
        let committed = self.broker.committed(&self.settings.group(), &others).map_err(Error::broker(doing))?;
        others.iter().zip(committed).try_for_each(|(partition, committed)| match committed {
            Some(committed) => agree(partition, &committed.metadata, self.settings.rules),
            None => Ok(()),
        })
    }

    /// Commits what is in hand if it can; the next owner does it again otherwise.
    fn give_up(&mut self) -> Result<(), Error> {
        if let Err(lost) = self.try_flush()? {
            self.again(lost, Self::renew_writer)?;
        }
        self.assigned.clear();
        self.owned.clear();
        self.forget();
        self.reader.release().map_err(Error::broker("giving up partitions"))
    }

    fn take_in(&mut self, batch: &Batch) {
        let partition = batch.partition;
        let Some(owned) = self.owned.iter_mut().find(|owned| owned.assigned.partition.partition == partition) else {
            return;
        };
        let mut recovered = 0;
        let (mut content_type, mut sent_at, mut headers) = (None, None, Headers::default());
        for record in batch.iter() {
            if !record.headers.are_those_of(headers) {
                headers = record.headers;
                (content_type, sent_at) = (headers.get(CONTENT_TYPE), headers.get(SENT_AT));
            }
            let live = record.offset >= owned.live_from;
            recovered += u64::from(!live);
            match self.decoder.decode::<EventsRecord<'_>>(content_type, record.value) {
                Ok(message) if live => {
                    owned.outputs.tally.events += u64::from(matches!(message, EventsRecord::Event(_)));
                    owned.outputs.caused_by(sent_at);
                    owned.state.apply(record.offset, &message, &mut owned.outputs);
                }
                Ok(message) => owned.state.replay(record.offset, &message),
                Err(error) if live => {
                    owned.outputs.tally.dead_letters += 1;
                    let from = (&batch.topic, partition);
                    let now_ms = clock::wall_us().div_euclid(1000);
                    dead_letter(&mut self.dead_letters, self.settings.format, from, record, &error, now_ms);
                }
                // It was dead-lettered when its turn came.
                Err(_) => {}
            }
        }
        if recovered > 0 {
            fail::fail_point!("sessionizer::recovering");
            self.report.recovered_records += recovered;
            self.metrics.recovered_records.inc_by(recovered);
        }
        if let Some(next) = batch.next_offset()
            && next > owned.live_from
        {
            owned.next = next;
            owned.touched = true;
            self.records_in_hand += batch.len();
            self.first_in_hand.get_or_insert_with(clock::now);
        }
    }

    /// Commits what is in hand. When that fails, goes back to the last commit.
    fn flush(&mut self) -> Result<(), Error> {
        let flushed = self.try_flush()?;
        self.mended(flushed)
    }

    /// After a failure that may pass, goes back to the last commit.
    fn mended(&mut self, done: broker::Result<()>) -> Result<(), Error> {
        done.or_else(|lost| self.failed(lost))
    }

    /// The inner error is one that may pass.
    fn try_flush(&mut self) -> Result<broker::Result<()>, Error> {
        match self.try_hand()? {
            Ok(()) => self.try_settle(),
            lost => Ok(lost),
        }
    }

    /// Waits for the transaction that is under way.
    fn try_settle(&mut self) -> Result<broker::Result<()>, Error> {
        match self.committer.wait()? {
            Some(ended) => self.settled(ended),
            None => Ok(Ok(())),
        }
    }

    fn settled(&mut self, Ended { made, result }: Ended) -> Result<broker::Result<()>, Error> {
        if result.is_ok() {
            self.transactions.reset();
            self.report.transactions += 1;
            self.report.add(&made.tally);
        }
        passing(result)
    }

    /// Hands over what is in hand, once the transaction before is committed; what writes nothing is committed
    /// here.
    fn try_hand(&mut self) -> Result<broker::Result<()>, Error> {
        if let Err(lost) = self.try_settle()? {
            return Ok(Err(lost));
        }
        let commits = self.commits()?;
        if commits.is_empty() {
            return Ok(Ok(()));
        }
        if self.output_bytes() == 0 {
            let began = clock::now();
            fail::fail_point!("sessionizer::before_commit");
            let result = self.reader.commit(&commits);
            fail::fail_point!("sessionizer::after_commit");
            let made = self.made();
            if result.is_ok() {
                self.metrics.show(&made, clock::now().saturating_duration_since(began));
                self.forget();
            }
            return self.settled(Ended { made, result });
        }
        let mut transaction = self.committer.transaction();
        transaction.commits = commits;
        transaction.made = self.made();
        transaction.membership = self.reader.membership();
        transaction.incarnation = self.owned.first().map(|owned| owned.assigned.incarnation.clone());
        transaction.outputs.resize_with(self.owned.len(), Output::default);
        for (owned, output) in self.owned.iter_mut().zip(&mut transaction.outputs) {
            output.partition = owned.assigned.partition.partition;
            std::mem::swap(&mut owned.outputs.steps, &mut output.steps);
            std::mem::swap(&mut owned.outputs.sessions, &mut output.sessions);
        }
        std::mem::swap(&mut self.dead_letters, &mut transaction.dead_letters);
        self.forget();
        self.committer.hand(transaction)?;
        Ok(Ok(()))
    }

    fn commits(&mut self) -> Result<Vec<Commit>, Error> {
        let (rules, partitions) = (self.settings.rules, self.partitions);
        let touched = self.owned.iter_mut().filter(|owned| owned.touched);
        touched.map(|owned| owned.commit(rules, partitions)).collect()
    }

    /// What was made of the records in hand, and where that has led.
    fn made(&self) -> Made {
        let mut made = Made::default();
        for owned in &self.owned {
            made.tally.add(&owned.outputs.tally);
            made.open_sessions += owned.state.open_sessions();
            made.reach.records = made.reach.records.max(owned.reach.records);
            made.reach.seconds = made.reach.seconds.max(owned.reach.seconds);
        }
        made.clock = self.owned.iter().filter_map(|owned| owned.state.clock()).max();
        made
    }

    /// Nothing is in hand any more.
    fn forget(&mut self) {
        for owned in &mut self.owned {
            owned.outputs.clear();
            owned.touched = false;
        }
        self.dead_letters.clear();
        self.records_in_hand = 0;
        self.first_in_hand = None;
    }

    /// After a failure that may pass: goes back to the last commit.
    fn failed(&mut self, source: broker::Error) -> Result<(), Error> {
        self.again(source, Self::go_back)
    }

    /// After a failure that may pass: waits, and does what mends it, as often as allowed. On the way out
    /// nothing is mended: what is in hand is left to the next start.
    fn again(&mut self, mut source: broker::Error, mend: fn(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        // A transaction may be under way still: it holds, or is lost with what is in hand.
        if let Err(also) = self.try_settle()? {
            tracing::debug!(error = %also, "lost as well");
        }
        loop {
            self.report.failed_transactions += 1;
            self.metrics.failed_transactions.inc();
            let Some(wait) = self.transactions.wait() else {
                return Err(Error::Retried { attempts: self.transactions.failures(), source });
            };
            say(&self.transactions, &source, "going back to the last commit");
            if self.cancel.wait(wait) {
                self.forget();
                return Ok(());
            }
            match mend(self) {
                Err(Error::Broker { source: again, .. }) if may_pass(&again) => source = again,
                done => return done,
            }
        }
    }

    /// Settles what became of the old one's transaction.
    fn renew_writer(&mut self) -> Result<(), Error> {
        let writer = self.broker.writer(&self.settings.transactional_id()).map_err(lost);
        self.committer.renew(writer.map_err(Error::broker("beginning to write"))?);
        Ok(())
    }

    /// To what is committed now.
    fn go_back(&mut self) -> Result<(), Error> {
        self.forget();
        self.renew_writer()?;
        let positions = self.broker.committed(&self.settings.group(), &self.assigned);
        let positions = positions.map_err(Error::broker("reading the committed positions"))?;
        let info = self.broker.describe(&self.topics.events).map_err(Error::broker("describing the topic events"))?;
        let mut again = Vec::with_capacity(self.assigned.len());
        for (partition, committed) in self.assigned.iter().cloned().zip(positions) {
            let found = info
                .as_ref()
                .and_then(|info| Some((info.incarnation.clone(), *info.partitions.get(partition.partition as usize)?)));
            let Some((incarnation, bounds)) = found else {
                return Err(Error::Refused(format!("{partition} is gone")));
            };
            again.push(Assigned { partition, incarnation, bounds, committed });
        }
        self.begin(again)
    }
}

fn may_pass(error: &broker::Error) -> bool {
    matches!(error, broker::Error::Retry(_) | broker::Error::Abort(_))
}

/// The inner error is one that may pass.
fn passing(done: broker::Result<()>) -> Result<broker::Result<()>, Error> {
    match done {
        Err(source) if !may_pass(&source) => Err(Error::Broker { doing: "committing steps and sessions", source }),
        done => Ok(done),
    }
}

/// Once for failures in a row.
fn say(backoff: &Backoff, error: &broker::Error, what: &'static str) {
    match backoff.failures() {
        1 => tracing::warn!(%error, "{what}"),
        attempt => tracing::debug!(attempt, %error, "{what}"),
    }
}

impl Owned {
    fn commit(&mut self, rules: crate::Rules, partitions: u32) -> Result<Commit, Error> {
        let feeds = self.state.positions(self.next);
        let partition = self.assigned.partition.clone();
        let clock = self.state.clock();
        let oldest = feeds.iter().filter(|feed| feed.offset < self.next && feed.clock.0 > i64::MIN);
        let seconds = |feed: &FeedPosition| clock.map_or(0, |clock| (clock.seconds() - feed.clock.seconds()).max(0));
        let seconds = oldest.map(seconds).max().unwrap_or(0);
        let metadata = Metadata { incarnation: self.assigned.incarnation.clone(), rules, partitions, feeds };
        let keep_from = metadata.keep_from(self.next);
        self.reach = Reach { records: self.next.0 - keep_from.0, seconds };
        match metadata.encode() {
            Ok(metadata) => Ok(Commit { partition, offset: self.next, keep_from, metadata }),
            Err(source) => Err(Error::Metadata { partition, source }),
        }
    }
}

impl Report {
    fn add(&mut self, tally: &Tally) {
        self.events += tally.events;
        for (sum, n) in self.steps.iter_mut().zip(tally.steps) {
            *sum += n;
        }
        self.sessions += tally.sessions;
        self.late_events += tally.late_events;
        self.dead_letters += tally.dead_letters;
        self.finished_feeds += tally.finished_feeds;
    }
}
