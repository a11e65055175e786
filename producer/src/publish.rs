//! Rows to batches: what each transaction will hold, and how far the feed has come with it.
//!
//! A row is *sent* when it is put into the batch that its transaction takes; it is *visible* when that
//! transaction is committed, which `commit` does, so that the next row can be sent meanwhile.
use std::time::{Duration, Instant};

use broker::{Records, partition_for};
use prometheus::local::LocalHistogram;
use records::{
    CONTENT_TYPE, EventTime, EventsRecord, Feed, Format, INTENDED_AT, Mark, Message, SENT_AT, SessionKey, encode_owned,
    micros_header, proto, topics,
};

use crate::commit::{Around, Batch, Committed, Committer, seconds};
use crate::error::{Error, Result, RowFault};
use crate::input::Place;
use crate::pace::Now;
use crate::progress::Progress;
use crate::quantiles::Quantiles;
use crate::row::Row;
use crate::rows::Passed;
use crate::schedule::Point;
use crate::settings::{MAX_LINGER, Settings};
use crate::source::Source;

/// A batch is handed over when it holds what a transaction should, whatever its age. Of its bytes,
/// so many a record: larger ones end it sooner.
const RECORD_BYTES: usize = 256;
/// How soon a batch is offered again whose turn has not come: meanwhile it grows.
const BUSY_WAIT: Duration = Duration::from_millis(2);
/// The clock goes to every partition at least this often.
const WATERMARK_EVERY: Duration = Duration::from_secs(1);
/// How many reasons of dead letters a report keeps.
pub(crate) const REASONS_KEPT: usize = 5;

/// When a row was to be sent, and when it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) intended_us: i64,
    pub(crate) now: Now,
    /// Where the schedule stands with it.
    pub(crate) schedule: Point,
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

pub(crate) struct Publisher<'scope> {
    committer: Committer<'scope>,
    /// Still to be described; and what is added to its times, once that is known.
    undescribed: Option<Source>,
    shift_us: Option<i64>,
    feed: Feed,
    format: Format,
    /// Under a pace.
    paced_linger: Duration,
    linger: Duration,
    max_records: usize,
    flat_out: bool,
    /// What the batch at hand will say.
    progress: Progress,
    batch: Batch,
    watermark: Watermark,
    key: Vec<u8>,
    /// Of this run.
    pub(crate) reasons: Vec<RowFault>,
    pub(crate) sending: Quantiles,
    sending_error: LocalHistogram,
}

struct Watermark {
    due: bool,
    last: Option<Instant>,
    clock: Option<EventTime>,
}

impl<'scope> Publisher<'scope> {
    pub(crate) fn new(
        committer: Committer<'scope>,
        around: &Around<'_>,
        settings: &Settings,
        undescribed: Option<Source>,
        progress: Progress,
    ) -> Self {
        let mut publisher = Self {
            batch: committer.batch(),
            committer,
            undescribed,
            shift_us: None,
            feed: around.feed,
            format: settings.format,
            paced_linger: settings.linger,
            linger: settings.linger,
            max_records: around.broker.transaction_records(),
            flat_out: false,
            progress,
            watermark: Watermark { due: false, last: None, clock: None },
            key: Vec::new(),
            reasons: Vec::new(),
            sending: Quantiles::default(),
            sending_error: around.metrics.sending_error.local(),
        };
        publisher.go(around.flat_out);
        publisher
    }

    /// By the pace that holds from now on. Flat out nobody waits for a row: it has no time of its own.
    pub(crate) fn go(&mut self, flat_out: bool) {
        self.flat_out = flat_out;
        self.linger = if flat_out { MAX_LINGER } else { self.paced_linger };
    }

    /// How far the feed has come, with what waits for its transaction.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn shift_us(&self) -> Option<i64> {
        self.shift_us
    }

    /// What is added to the source's times, once that is known.
    pub(crate) fn tell_shift(&mut self, shift_us: Option<i64>) {
        self.shift_us = shift_us;
    }

    /// Adds a good row, or a copy of it; `text` is the one that its parser returned. `passed` says how
    /// far the input is through with it, None where more of the same is to come.
    pub(crate) fn event(
        &mut self,
        text: &str,
        row: &Row,
        place: Place,
        copy: u32,
        passed: Option<Passed>,
        sending: Sending,
    ) -> Result<()> {
        let at = sending.now.instant;
        if self.watermark_due(at) && self.progress.first.is_some() {
            self.add_watermarks(self.progress.clock.min(row.time), at);
        }
        let event = row.event(text, self.feed, place.source_row, copy);
        let batch = &mut self.batch;
        let key = if event.user_session.is_empty() {
            SessionKey::User(event.user_id).write(&mut self.key);
            &self.key[..]
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
        batch.due.get_or_insert(at + self.linger);
        batch.now = Some(sending.now);
        let with_others = match batch.intended.last_mut() {
            Some((intended, rows)) if *intended == sending.intended_us => {
                *rows += 1;
                true
            }
            _ => {
                batch.intended.push((sending.intended_us, 1));
                false
            }
        };
        if !(self.flat_out && with_others) {
            self.sending_error.observe(seconds(sending.now.wall_us - sending.intended_us));
        }
        self.sending.record(sending.now.wall_us - sending.intended_us, 1);
        self.progress.events += 1;
        self.pass(event.time, passed, sending.schedule);
        self.commit_if_full()
    }

    /// Adds a bad row, or fails where that is one too many.
    pub(crate) fn reject(
        &mut self,
        line: Rejected<'_>,
        passed: Option<Passed>,
        limit: Option<u64>,
        now: Now,
    ) -> Result<()> {
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
        self.batch.due.get_or_insert(now.instant + self.linger);
        self.progress.dead_letters += 1;
        self.pass_bad(passed);
        self.commit_if_full()
    }

    /// A row's turn is over, whoever sends it.
    pub(crate) fn pass(&mut self, time: EventTime, passed: Option<Passed>, schedule: Point) {
        self.progress.clock = self.progress.first.map_or(time, |_| self.progress.clock.max(time));
        self.progress.first.get_or_insert(time);
        self.progress.schedule = schedule;
        self.pass_bad(passed);
    }

    /// The same of one without a time.
    pub(crate) fn pass_bad(&mut self, passed: Option<Passed>) {
        self.progress.sent_of_next += 1;
        if let Some(Passed { place, taken }) = passed {
            let next = Place { source_row: place.source_row + 1, file_row: place.file_row + 1, ..place };
            (self.progress.next, self.progress.taken, self.progress.sent_of_next) = (next, taken, 0);
        }
    }

    fn commit_if_full(&mut self) -> Result<()> {
        let Batch { records, bytes, .. } = self.batch;
        if records >= self.max_records || bytes >= self.max_records * RECORD_BYTES { self.commit() } else { Ok(()) }
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
        self.committer.check()?;
        match self.batch.due {
            Some(due) if now.instant >= due && self.committer.is_busy() => {
                self.batch.due = Some(now.instant + BUSY_WAIT);
                Ok(())
            }
            Some(due) if now.instant >= due => self.commit(),
            _ => Ok(()),
        }
    }

    /// How long until the next tick has something to do.
    pub(crate) fn next_tick(&self, now: Now) -> Duration {
        let watermark = self.watermark.last.map(|last| last + WATERMARK_EVERY);
        let left = |at: Option<Instant>| at.map_or(WATERMARK_EVERY, |at| at.saturating_duration_since(now.instant));
        left(self.batch.due).min(left(watermark))
    }

    fn watermark_due(&self, now: Instant) -> bool {
        self.watermark.due || self.watermark.last.is_none_or(|last| now - last >= WATERMARK_EVERY)
    }

    fn add_watermarks(&mut self, clock: EventTime, now: Instant) {
        self.watermark = Watermark { due: false, last: Some(now), clock: Some(clock) };
        self.add_marks(EventsRecord::Watermark(Mark { feed: self.feed, clock }), clock);
        self.batch.due.get_or_insert(now + self.linger);
    }

    fn add_marks(&mut self, mark: EventsRecord<'_>, clock: EventTime) {
        let key = self.feed.to_string();
        let headers = [(CONTENT_TYPE, self.format.content_type().as_bytes())];
        for records in &mut self.batch.events {
            records.push(clock.millis(), key.as_bytes(), &headers, |out| mark.encode(self.format, out));
        }
        self.batch.records += self.batch.events.len();
    }

    /// Hands over what waits, if anything does.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.batch.records == 0 {
            return Ok(());
        }
        let batch = self.close();
        self.committer.hand(batch)
    }

    /// The input is exhausted: what waits, then the end on every partition, with `ended`. The same
    /// transaction begins `next`, the pass that follows: a loop is at no time without a feed that goes on.
    pub(crate) fn end(&mut self, next: Option<&Source>) -> Result<()> {
        // Of a source without rows nothing is moved.
        self.shift_us.get_or_insert(0);
        self.commit()?;
        let clock = self.progress.clock;
        self.add_marks(EventsRecord::End(Mark { feed: self.feed, clock }), clock);
        self.progress.ended = true;
        let mut batch = self.close();
        if let Some(next) = next {
            let feed = next.feed(self.feed.shard);
            let begun = Progress { partitions: self.progress.partitions, ..Progress::default() };
            self.write_description(&mut batch.progress_records, next);
            self.write_feed(&mut batch.progress_records, feed, begun);
        }
        self.committer.hand(batch)
    }

    /// Waits until all that was handed over is committed.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.committer.finish()
    }

    /// What this run has committed, once it is finished.
    pub(crate) fn committed(&self) -> &Committed {
        self.committer.committed()
    }

    /// The batch, with the record that says how far the feed has come; an empty one takes its place.
    fn close(&mut self) -> Batch {
        let empty = self.committer.batch();
        let mut batch = std::mem::replace(&mut self.batch, empty);
        self.write_progress(&mut batch);
        self.sending_error.flush();
        self.watermark.due = self.flat_out;
        batch.flat_out = self.flat_out;
        batch
    }

    fn write_progress(&mut self, batch: &mut Batch) {
        let records = &mut batch.progress_records;
        records.clear();
        if let Some(shift_us) = self.shift_us
            && let Some(source) = self.undescribed.take()
        {
            self.write_description(records, &Source { shift_us, ..source });
        }
        self.write_feed(records, self.feed, self.progress);
        batch.progress = self.progress;
    }

    fn write_description(&self, records: &mut Records, source: &Source) {
        let headers = [(CONTENT_TYPE, self.format.content_type().as_bytes())];
        let description = source.to_proto();
        records.push(self.progress.clock.millis(), description.source.as_bytes(), &headers, |out| {
            encode_owned(&description, self.format, out);
        });
    }

    fn write_feed(&self, records: &mut Records, feed: Feed, progress: Progress) {
        let headers = [(CONTENT_TYPE, self.format.content_type().as_bytes())];
        let progress = progress.to_proto(feed);
        records.push(self.progress.clock.millis(), feed.to_string().as_bytes(), &headers, |out| {
            encode_owned(&progress, self.format, out);
        });
    }
}
