//! The open files of one partition: one for each UTC day that its plan has. They stay in memory
//! until the plan is cut.
use broker::Batch;
use object_store::PutPayload;
use parquet::file::metadata::KeyValue;
use records::{CONTENT_TYPE, Decoder, SENT_AT, read_micros_header};

use super::columns::{Columns, Place};
use super::encode::{FileFormat, OpenFile, Scratch};
use super::error::{Error, Result};
use super::plan::{MAX_DAYS, day_of};
use super::settings::Settings;

/// Files whose buffers are kept for the next ones.
const SPARE_FILES: usize = 2;
/// One row in so many gives its age to the freshness histogram.
const SAMPLE_ROWS: u64 = 256;
/// And no more of them than this for a plan.
const SAMPLES: usize = 4096;

/// The open files of a partition. The topics differ in their columns only.
pub(super) trait Files: Send {
    /// Takes records from the front of `batch`, up to and with offset `last`; how many it took.
    /// Fewer than there are means that the plan must be cut before more can be taken.
    fn take(&mut self, batch: &Batch, last: i64) -> Result<Taken>;

    fn rows(&self) -> u64;

    /// Encoded bytes of the largest file.
    fn largest_file_bytes(&self) -> usize;

    fn memory_bytes(&self) -> usize;

    /// Ends all files, the earliest day first. `footer` is what their footers shall say.
    fn finish(&mut self, footer: &[KeyValue]) -> Result<Finished>;
}

#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) records: usize,
    /// The next offset to read, once something was taken.
    pub(super) next: Option<i64>,
    pub(super) unreadable: u64,
    /// Why the last of them could not be read.
    pub(super) why: Option<String>,
}

pub(super) struct Finished {
    pub(super) days: Vec<DayBytes>,
    /// When a sample of the rows was sent, in microseconds.
    pub(super) sent_at_us: Vec<i64>,
}

pub(super) struct DayBytes {
    pub(super) day: i64,
    pub(super) rows: u64,
    pub(super) payload: PutPayload,
}

pub(super) struct OpenFiles<C: Columns> {
    format: FileFormat,
    scratch: Scratch,
    decoder: Decoder,
    days: Vec<DayFile<C>>,
    spare: Vec<OpenFile<C>>,
    /// The day that the last row went to.
    current: usize,
    rows: u64,
    sent_at_us: Vec<i64>,
}

struct DayFile<C> {
    day: i64,
    rows: u64,
    file: OpenFile<C>,
}

impl<C: Columns> OpenFiles<C> {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let failed = |e| Error::stop(format!("Parquet files cannot be written: {e}"));
        Ok(Self {
            format: FileFormat::new::<C>(settings.row_group_rows).map_err(failed)?,
            scratch: Scratch::new(settings.codec).map_err(failed)?,
            decoder: Decoder::new(),
            days: Vec::new(),
            spare: Vec::new(),
            current: 0,
            rows: 0,
            sent_at_us: Vec::new(),
        })
    }

    /// The file of `day`; None if it would be one too many.
    fn day(days: &mut Vec<DayFile<C>>, spare: &mut Vec<OpenFile<C>>, format: &FileFormat, day: i64) -> Option<usize> {
        if let Some(i) = days.iter().position(|file| file.day == day) {
            return Some(i);
        }
        if days.len() == MAX_DAYS {
            return None;
        }
        let file = spare.pop().unwrap_or_else(|| OpenFile::new(format));
        days.push(DayFile { day, rows: 0, file });
        Some(days.len() - 1)
    }
}

fn not_encoded(why: parquet::errors::ParquetError) -> Error {
    Error::stop(format!("rows cannot be encoded as Parquet: {why}"))
}

impl<C: Columns> Files for OpenFiles<C> {
    fn take(&mut self, batch: &Batch, last: i64) -> Result<Taken> {
        let mut taken = Taken::default();
        let partition = i64::from(batch.partition);
        for record in batch.iter() {
            let offset = record.offset.0;
            if offset > last {
                break;
            }
            let (mut content_type, mut sent_at_us) = (None, None);
            for (name, value) in record.headers.iter() {
                match name {
                    CONTENT_TYPE => content_type = Some(value),
                    SENT_AT => sent_at_us = read_micros_header(value),
                    _ => {}
                }
            }
            match C::read(&mut self.decoder, content_type, record.value) {
                Ok(None) => {}
                Ok(Some(row)) => {
                    let day = day_of(record.timestamp_ms);
                    if self.days.get(self.current).is_none_or(|file| file.day != day) {
                        match Self::day(&mut self.days, &mut self.spare, &self.format, day) {
                            Some(i) => self.current = i,
                            None => break,
                        }
                    }
                    let Some(file) = self.days.get_mut(self.current) else { break };
                    file.file
                        .columns
                        .push(&row, Place { partition, offset, timestamp_ms: record.timestamp_ms, sent_at_us });
                    file.rows += 1;
                    if let Some(sent_at_us) = sent_at_us
                        && self.rows.is_multiple_of(SAMPLE_ROWS)
                        && self.sent_at_us.len() < SAMPLES
                    {
                        self.sent_at_us.push(sent_at_us);
                    }
                    self.rows += 1;
                    file.file.encode_full_chunk(&self.format, &mut self.scratch).map_err(not_encoded)?;
                }
                Err(why) => {
                    taken.unreadable += 1;
                    taken.why = Some(format!("{}, offset {offset}: {why}", batch.topic_partition()));
                }
            }
            taken.records += 1;
            taken.next = Some(offset + 1);
        }
        Ok(taken)
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn largest_file_bytes(&self) -> usize {
        self.days.iter().map(|day| day.file.bytes()).max().unwrap_or(0)
    }

    fn memory_bytes(&self) -> usize {
        self.days.iter().map(|day| day.file.memory_bytes()).sum()
    }

    fn finish(&mut self, footer: &[KeyValue]) -> Result<Finished> {
        let mut open = std::mem::take(&mut self.days);
        open.sort_unstable_by_key(|file| file.day);
        self.current = 0;
        self.rows = 0;
        let mut days = Vec::with_capacity(open.len());
        for DayFile { day, rows, mut file } in open {
            let payload = file.finish(footer, &self.format, &mut self.scratch).map_err(not_encoded)?;
            days.push(DayBytes { day, rows, payload });
            if self.spare.len() < SPARE_FILES && file.is_reusable() {
                self.spare.push(file);
            }
        }
        Ok(Finished { days, sent_at_us: std::mem::take(&mut self.sent_at_us) })
    }
}
