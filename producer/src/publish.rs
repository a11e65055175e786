//! Rows to transactions: each holds a batch of records and how far the feed has come with them.
//!
//! Records wait in memory, and a transaction is opened, filled and committed in one go: none is open
//! across a wait. What was lost with a transaction is therefore still at hand, and is sent again.
use std::time::{Duration, Instant};

use broker::{Broker, Cancel, Records, Topic, Writer, partition_for};
use fail::fail_point;
use prometheus::local::{LocalHistogram, LocalIntCounter};
use records::{
    CONTENT_TYPE, EventTime, EventsRecord, Feed, Format, INTENDED_AT, Mark, Message, SENT_AT, SessionKey, encode_owned,
    micros_header, proto, topics,
};

use crate::error::{Error, Result, RowFault};
use crate::input::Place;
use crate::metrics::Metrics;
use crate::pace::Now;
use crate::progress::{self, Progress, Recorded};
use crate::quantiles::Quantiles;
use crate::retry::Backoff;
use crate::row::Row;
use crate::settings::{MAX_LINGER, Pace, Settings};
use crate::source::Source;
use crate::status::Status;

/// A transaction is committed when it holds this much, whatever its age.
const MAX_RECORDS: usize = 16 << 10;
const MAX_BYTES: usize = 4 << 20;
/// The clock goes to every partition at least this often.
const WATERMARK_EVERY: Duration = Duration::from_secs(1);
/// How many reasons of dead letters a report keeps.
const REASONS_KEPT: usize = 5;

/// When a row was to be sent, and when it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) intended_us: i64,
    pub(crate) now: Now,
    /// The schedule's time of the row.
    pub(crate) schedule_us: i64,
}

/// A row that cannot be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rejected<'a> {
    /// The row, or the beginning of one that is too long.
    pub(crate) text: &'a [u8],
    pub(crate) length: u64,
    pub(crate) place: Place,
    pub(crate) file: &'a str,
    pub(crate) reason: &'a str,
}

pub(crate) struct Publisher<'a> {
    broker: &'a dyn Broker,
    cancel: &'a Cancel,
    status: &'a Status,
    metrics: &'a Metrics,
    source: &'a Source,
    feed: Feed,
    topics: Topics,
    transactional_id: String,
    writer: Box<dyn Writer>,
    format: Format,
    linger: Duration,
    flat_out: bool,
    described: bool,
    /// What the last transaction said, and what the next one will say.
    committed: Progress,
    progress: Progress,
    batch: Batch,
    watermark: Watermark,
    /// Of this run.
    pub(crate) events: u64,
    pub(crate) dead_letters: u64,
    pub(crate) reasons: Vec<RowFault>,
    pub(crate) sending: Quantiles,
    pub(crate) visible: Quantiles,
    local: Local,
}

struct Topics {
    events: Topic,
    dead_letters: Topic,
    progress: Topic,
}

/// What the next transaction will hold.
struct Batch {
    /// By partition.
    events: Vec<Records>,
    dead_letters: Records,
    progress: Records,
    records: usize,
    bytes: usize,
    opened: Option<Instant>,
    /// Intended times, and how many rows in a row share each.
    intended: Vec<(i64, u64)>,
    key: Vec<u8>,
}

struct Watermark {
    due: bool,
    last: Option<Instant>,
    clock: Option<EventTime>,
}

struct Local {
    sending: LocalHistogram,
    events: LocalIntCounter,
}

impl<'a> Publisher<'a> {
    /// Takes the feed over from whoever had it, then reads how far it has come.
    pub(crate) fn open(
        broker: &'a dyn Broker,
        settings: &Settings,
        source: &'a Source,
        metrics: &'a Metrics,
        status: &'a Status,
        cancel: &'a Cancel,
    ) -> Result<(Self, Recorded)> {
        let topic = |name: &str| Topic::from(format!("{}{name}", settings.prefix).as_str());
        let topics = Topics {
            events: topic(topics::EVENTS),
            dead_letters: topic(topics::DEAD_LETTERS),
            progress: topic(topics::REPLAY_PROGRESS),
        };
        let feed = source.feed();
        let transactional_id = format!("{}{feed}", settings.prefix);
        let mut backoff = Backoff::default();
        let (writer, recorded) = loop {
            match take_over(broker, &transactional_id, &topics.progress, cancel) {
                Ok(taken) => break taken,
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
        let committed = recorded.progress.get(&feed).copied().unwrap_or_default();
        // Nobody waits for a row that has no time of its own.
        let flat_out = settings.pace == Pace::FlatOut;
        let publisher = Self {
            broker,
            cancel,
            status,
            metrics,
            source,
            feed,
            topics,
            transactional_id,
            writer,
            format: settings.format,
            linger: if flat_out { MAX_LINGER } else { settings.linger },
            flat_out,
            described: recorded.sources.iter().any(|earlier| earlier.id == source.id),
            committed,
            progress: committed,
            batch: Batch {
                events: vec![Records::new(); partitions],
                dead_letters: Records::new(),
                progress: Records::new(),
                records: 0,
                bytes: 0,
                opened: None,
                intended: Vec::new(),
                key: Vec::new(),
            },
            watermark: Watermark { due: false, last: None, clock: None },
            events: 0,
            dead_letters: 0,
            reasons: Vec::new(),
            sending: Quantiles::default(),
            visible: Quantiles::default(),
            local: Local { sending: metrics.sending_error.local(), events: metrics.events.local() },
        };
        Ok((publisher, recorded))
    }

    /// How far the feed has come, with what waits for its transaction.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Adds a good row; `text` is the one that its parser returned.
    pub(crate) fn event(&mut self, text: &str, row: &Row, place: Place, sending: Sending) -> Result<()> {
        let at = sending.now.instant;
        if self.watermark_due(at) && self.progress.first.is_some() {
            self.add_watermarks(self.progress.clock.min(row.time), at);
        }
        let event = row.event(text, self.feed, place.source_row);
        let batch = &mut self.batch;
        let key = if event.user_session.is_empty() {
            SessionKey::User(event.user_id).write(&mut batch.key);
            &batch.key[..]
        } else {
            event.user_session.as_bytes()
        };
        let partitions = u32::try_from(batch.events.len()).unwrap_or(1);
        let partition = partition_for(key, partitions) as usize;
        let (intended, sent) = (micros_header(sending.intended_us), micros_header(sending.now.wall_us));
        let headers =
            [(CONTENT_TYPE, self.format.content_type().as_bytes()), (INTENDED_AT, &intended[..]), (SENT_AT, &sent[..])];
        let format = self.format;
        let records = &mut batch.events[partition];
        let before = records.bytes();
        records.push(event.time.millis(), key, &headers, |out| EventsRecord::Event(event).encode(format, out));
        batch.bytes += records.bytes() - before;
        batch.records += 1;
        batch.opened.get_or_insert(at);
        match batch.intended.last_mut() {
            Some((intended, rows)) if *intended == sending.intended_us => *rows += 1,
            _ => {
                batch.intended.push((sending.intended_us, 1));
                self.local.sending.observe(seconds(sending.now.wall_us - sending.intended_us));
            }
        }
        self.sending.record(sending.now.wall_us - sending.intended_us, 1);
        self.progress.first.get_or_insert(event.time);
        self.progress.clock = if self.progress.events == 0 { event.time } else { self.progress.clock.max(event.time) };
        self.progress.events += 1;
        self.progress.schedule_us = sending.schedule_us;
        self.events += 1;
        self.advance(place);
        self.commit_if_full()
    }

    /// Adds a bad row, or fails where that is one too many.
    pub(crate) fn reject(&mut self, line: Rejected<'_>, limit: Option<u64>, now: Now) -> Result<()> {
        let Rejected { text, length, place, file, reason } = line;
        if self.reasons.len() < REASONS_KEPT {
            self.reasons.push(RowFault { file: file.to_owned(), row: place.file_row + 1, reason: reason.to_owned() });
        }
        if let Some(limit) = limit
            && self.progress.dead_letters >= limit
        {
            return Err(Error::DeadLetters { limit, reasons: self.reasons.clone() });
        }
        let letter = proto::DeadLetter {
            source: self.feed.source.to_string(),
            reason: reason.to_owned(),
            payload: text[..text.len().min(topics::DEAD_LETTER_BYTES)].to_vec(),
            payload_length: length,
            file: file.to_owned(),
            source_row: place.source_row,
            file_row: place.file_row + 1,
            ..Default::default()
        };
        let headers = [(CONTENT_TYPE, self.format.content_type().as_bytes())];
        let format = self.format;
        let letters = &mut self.batch.dead_letters;
        let before = letters.bytes();
        letters.push(now.wall_us.div_euclid(1000), &self.feed.source.digits(), &headers, |out| {
            encode_owned(&letter, format, out);
        });
        self.batch.bytes += letters.bytes() - before;
        self.batch.records += 1;
        self.batch.opened.get_or_insert(now.instant);
        self.progress.dead_letters += 1;
        self.dead_letters += 1;
        self.advance(place);
        self.commit_if_full()
    }

    fn advance(&mut self, place: Place) {
        self.progress.next = Place { source_row: place.source_row + 1, file_row: place.file_row + 1, ..place };
    }

    fn commit_if_full(&mut self) -> Result<()> {
        if self.batch.records >= MAX_RECORDS || self.batch.bytes >= MAX_BYTES { self.commit() } else { Ok(()) }
    }

    /// Commits what has waited long enough, and tells the clock when it is time to. `clock` is where
    /// event time stands while no row is sent, at most the event time of the next row; None where
    /// that row is not known: then what was said last is said again.
    pub(crate) fn tick(&mut self, now: Now, clock: Option<EventTime>) -> Result<()> {
        if self.watermark_due(now.instant)
            && let Some(clock) = clock.or(self.watermark.clock)
        {
            self.add_watermarks(clock, now.instant);
        }
        match self.batch.opened {
            Some(opened) if now.instant - opened >= self.linger => self.commit(),
            _ => Ok(()),
        }
    }

    /// How long until the next tick has something to do.
    pub(crate) fn next_tick(&self, now: Now) -> Duration {
        let left = |from: Option<Instant>, wait: Duration| {
            from.map_or(WATERMARK_EVERY, |from| (from + wait).saturating_duration_since(now.instant))
        };
        left(self.batch.opened, self.linger).min(left(self.watermark.last, WATERMARK_EVERY))
    }

    fn watermark_due(&self, now: Instant) -> bool {
        self.watermark.due || self.watermark.last.is_none_or(|last| now - last >= WATERMARK_EVERY)
    }

    fn add_watermarks(&mut self, clock: EventTime, now: Instant) {
        self.watermark = Watermark { due: false, last: Some(now), clock: Some(clock) };
        self.add_marks(EventsRecord::Watermark(Mark { feed: self.feed, clock }), clock);
        self.batch.opened.get_or_insert(now);
    }

    fn add_marks(&mut self, mark: EventsRecord<'_>, clock: EventTime) {
        let key = self.feed.to_string();
        let headers = [(CONTENT_TYPE, self.format.content_type().as_bytes())];
        for records in &mut self.batch.events {
            records.push(clock.millis(), key.as_bytes(), &headers, |out| mark.encode(self.format, out));
        }
        self.batch.records += self.batch.events.len();
    }

    /// Commits what waits, if anything does.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.batch.records == 0 {
            return Ok(());
        }
        self.transact(true)
    }

    /// Commits what is in hand on the way out: it does not wait for room.
    pub(crate) fn drain(&mut self) -> Result<()> {
        if self.batch.records == 0 {
            return Ok(());
        }
        self.transact(false)
    }

    /// The input is exhausted: what waits, then the end on every partition, with `ended`.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.commit()?;
        fail_point!("producer::before_end");
        let clock = self.progress.clock;
        self.add_marks(EventsRecord::End(Mark { feed: self.feed, clock }), clock);
        self.progress.ended = true;
        self.transact(true)?;
        fail_point!("producer::after_end");
        Ok(())
    }

    /// One transaction of what waits, done again until it holds or cannot.
    fn transact(&mut self, wait_for_room: bool) -> Result<()> {
        self.write_progress();
        if wait_for_room {
            self.writer.wait_for_room(self.cancel)?;
            if self.flat_out {
                self.writer.wait_for_readers(self.cancel)?;
            }
        }
        let begun = records::clock::now();
        let mut backoff = Backoff::default();
        while let Err(error) = self.attempt() {
            // Whatever has become of it: the writer is taken over anew, and what is committed settles it.
            let mut error = Error::from(error);
            loop {
                backoff.wait(error, self.cancel)?;
                self.metrics.retries.inc();
                let _ = self.writer.abort();
                match take_over(self.broker, &self.transactional_id, &self.topics.progress, self.cancel) {
                    Ok((writer, recorded)) => {
                        self.writer = writer;
                        let committed = recorded.progress.get(&self.feed).copied().unwrap_or_default();
                        if committed == self.progress && committed != self.committed {
                            self.settle(begun);
                            return Ok(());
                        }
                        if committed != self.committed {
                            return Err(Error::Fenced(format!("it has come to row {}", committed.next.source_row)));
                        }
                        break;
                    }
                    Err(again) => error = again,
                }
            }
        }
        fail_point!("producer::after_commit");
        self.settle(begun);
        Ok(())
    }

    fn write_progress(&mut self) {
        let headers = [(CONTENT_TYPE, self.format.content_type().as_bytes())];
        let records = &mut self.batch.progress;
        let timestamp = self.progress.clock.millis();
        records.clear();
        if !self.described {
            let description = self.source.to_proto();
            records.push(timestamp, &self.source.id.digits(), &headers, |out| {
                encode_owned(&description, self.format, out);
            });
        }
        let progress = self.progress.to_proto(self.feed);
        records.push(timestamp, self.feed.to_string().as_bytes(), &headers, |out| {
            encode_owned(&progress, self.format, out);
        });
    }

    fn attempt(&mut self) -> broker::Result<()> {
        fail_point!("producer::before_begin");
        self.writer.begin()?;
        for (partition, records) in (0..).zip(&self.batch.events) {
            if !records.is_empty() {
                self.writer.append(&self.topics.events, partition, records)?;
            }
        }
        if !self.batch.dead_letters.is_empty() {
            self.writer.append(&self.topics.dead_letters, 0, &self.batch.dead_letters)?;
        }
        self.writer.append(&self.topics.progress, 0, &self.batch.progress)?;
        fail_point!("producer::after_append");
        fail_point!("producer::before_commit");
        self.writer.commit()
    }

    /// The transaction holds: counts it and empties the batch.
    fn settle(&mut self, begun: Instant) {
        let now = records::clock::now();
        // The wall clock is read here and not derived: it is compared with what others have read.
        let wall_us = records::clock::wall_us();
        let batch = &mut self.batch;
        let visible = self.metrics.visible_error.local();
        let mut events = 0;
        for (intended, rows) in batch.intended.drain(..) {
            self.visible.record(wall_us - intended, rows);
            visible.observe(seconds(wall_us - intended));
            events += rows;
        }
        visible.flush();
        self.local.sending.flush();
        self.local.events.inc_by(events);
        self.local.events.flush();
        self.metrics.dead_letters.inc_by(self.progress.dead_letters - self.committed.dead_letters);
        self.metrics.transactions.inc();
        self.metrics.commit.observe((now - begun).as_secs_f64());
        self.metrics.clock.set(self.progress.clock.seconds());
        batch.events.iter_mut().for_each(Records::clear);
        batch.dead_letters.clear();
        batch.records = 0;
        batch.bytes = 0;
        batch.opened = None;
        self.described = true;
        self.committed = self.progress;
        self.watermark.due = self.flat_out;
        let clock = self.progress.first.map(|_| self.progress.clock);
        self.status.set_sent(self.progress.next.source_row, self.events, self.dead_letters, clock);
    }
}

/// The writer first: whoever had the feed is fenced before its progress is read.
fn take_over(
    broker: &dyn Broker,
    transactional_id: &str,
    topic: &Topic,
    cancel: &Cancel,
) -> Result<(Box<dyn Writer>, Recorded)> {
    let writer = broker.writer(transactional_id)?;
    Ok((writer, progress::read(broker, topic, cancel)?))
}

#[allow(clippy::cast_precision_loss, reason = "durations")]
fn seconds(us: i64) -> f64 {
    us.max(0) as f64 / 1e6
}
