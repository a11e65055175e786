//! The open files of one partition: a Parquet writer for each UTC day that its plan has.
//!
//! Encoded pages stay in memory until the plan is cut. They are gathered in pieces, so that a
//! growing file is never copied.
use std::io;
use std::sync::Arc;

use broker::{Batch, Headers};
use bytes::Bytes;
use object_store::PutPayload;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use records::{CONTENT_TYPE, Decoder, SENT_AT, read_micros_header};

use super::error::{Error, Result};
use super::plan::{MAX_DAYS, day_of};
use super::settings::{Codec, Settings};
use crate::columns::{CHUNK_ROWS, Columns, Place};

const PIECE_BYTES: usize = 1 << 20;
/// Of an open file before its first row: the writer, its buffer, its schema.
const FILE_BYTES: usize = 16 << 10;
/// Of text of a page, about: what is encoded and compressed at once stays in a core's cache.
const PAGE_BYTES: usize = 128 << 10;
/// A chunk of long texts goes to the encoders before it has [`CHUNK_ROWS`].
const CHUNK_BYTES: usize = 4 << 20;
/// How often a chunk's bytes are looked at.
const CHECK_ROWS: usize = 32;
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
    properties: Arc<WriterProperties>,
    decoder: Decoder,
    days: Vec<DayFile<C>>,
    /// The day that the last row went to.
    current: usize,
    rows: u64,
    sent_at_us: Vec<i64>,
}

struct DayFile<C> {
    day: i64,
    rows: u64,
    columns: C,
    writer: ArrowWriter<Pieces>,
}

pub(super) fn properties<C: Columns>(settings: &Settings) -> WriterProperties {
    let compression = match settings.codec {
        Codec::Lz4Raw => Compression::LZ4_RAW,
        Codec::Snappy => Compression::SNAPPY,
        Codec::Zstd => Compression::ZSTD(ZstdLevel::default()),
        Codec::None => Compression::UNCOMPRESSED,
    };
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_max_row_group_row_count(Some(settings.row_group_rows))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_created_by(concat!("clickstream ", env!("CARGO_PKG_VERSION")).to_owned());
    C::encodings(properties).build()
}

impl<C: Columns> OpenFiles<C> {
    pub(super) fn new(properties: Arc<WriterProperties>) -> Self {
        Self { properties, decoder: Decoder::new(), days: Vec::new(), current: 0, rows: 0, sent_at_us: Vec::new() }
    }

    /// The file of `day`; None if it would be one too many.
    fn day(days: &mut Vec<DayFile<C>>, properties: &Arc<WriterProperties>, day: i64) -> Result<Option<usize>> {
        if let Some(i) = days.iter().position(|file| file.day == day) {
            return Ok(Some(i));
        }
        if days.len() == MAX_DAYS {
            return Ok(None);
        }
        let options = ArrowWriterOptions::new()
            .with_properties(WriterProperties::clone(properties))
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Pieces::default(), C::schema(), options)
            .map_err(|e| Error::stop(format!("a Parquet file cannot be begun: {e}")))?;
        days.push(DayFile { day, rows: 0, columns: C::new(), writer });
        Ok(Some(days.len() - 1))
    }
}

impl<C: Columns> Files for OpenFiles<C> {
    fn take(&mut self, batch: &Batch, last: i64) -> Result<Taken> {
        let mut taken = Taken::default();
        let partition = i64::from(batch.partition);
        let (mut headers, mut content_type, mut sent_at_us) = (Headers::default(), None, None);
        for record in batch.iter() {
            let offset = record.offset.0;
            if offset > last {
                break;
            }
            // Neighbours mostly share them.
            if !record.headers.are_those_of(headers) {
                headers = record.headers;
                content_type = headers.get(CONTENT_TYPE);
                sent_at_us = headers.get(SENT_AT).and_then(read_micros_header);
            }
            match C::read(&mut self.decoder, content_type, record.value) {
                Ok(None) => {}
                Ok(Some(row)) => {
                    let day = day_of(record.timestamp_ms);
                    if self.days.get(self.current).is_none_or(|file| file.day != day) {
                        match Self::day(&mut self.days, &self.properties, day)? {
                            Some(i) => self.current = i,
                            None => break,
                        }
                    }
                    let Some(file) = self.days.get_mut(self.current) else { break };
                    file.columns.push(&row, Place { partition, offset, timestamp_ms: record.timestamp_ms, sent_at_us });
                    file.rows += 1;
                    if let Some(sent_at_us) = sent_at_us
                        && self.rows.is_multiple_of(SAMPLE_ROWS)
                        && self.sent_at_us.len() < SAMPLES
                    {
                        self.sent_at_us.push(sent_at_us);
                    }
                    self.rows += 1;
                    file.encode_full_chunk()?;
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
        self.days.iter().map(|file| file.writer.bytes_written() + file.writer.in_progress_size()).max().unwrap_or(0)
    }

    fn memory_bytes(&self) -> usize {
        let bytes = |file: &DayFile<C>| file.writer.inner().bytes() + file.writer.memory_size() + file.columns.bytes();
        self.days.iter().map(|file| FILE_BYTES + bytes(file)).sum()
    }

    fn finish(&mut self, footer: &[KeyValue]) -> Result<Finished> {
        let mut files = std::mem::take(&mut self.days);
        files.sort_unstable_by_key(|file| file.day);
        self.current = 0;
        self.rows = 0;
        let days = files.into_iter().map(|file| file.finish(footer)).collect::<Result<_>>()?;
        Ok(Finished { days, sent_at_us: std::mem::take(&mut self.sent_at_us) })
    }
}

impl<C: Columns> DayFile<C> {
    #[inline]
    fn encode_full_chunk(&mut self) -> Result<()> {
        let rows = self.columns.rows();
        if rows >= CHUNK_ROWS || (rows.is_multiple_of(CHECK_ROWS) && self.columns.bytes() >= CHUNK_BYTES) {
            self.encode_chunk()?;
        }
        Ok(())
    }

    fn encode_chunk(&mut self) -> Result<()> {
        let failed = |e: &dyn std::fmt::Display| Error::stop(format!("rows cannot be encoded as Parquet: {e}"));
        let rows = self.columns.finish().map_err(|e| failed(&e))?;
        self.writer.write(&rows).map_err(|e| failed(&e))
    }

    fn finish(mut self, footer: &[KeyValue]) -> Result<DayBytes> {
        if self.columns.rows() > 0 {
            self.encode_chunk()?;
        }
        for entry in footer {
            self.writer.append_key_value_metadata(entry.clone());
        }
        let encoded = self.writer.in_progress_size();
        self.writer.inner_mut().make_room(encoded);
        let pieces =
            self.writer.into_inner().map_err(|e| Error::stop(format!("a Parquet file cannot be ended: {e}")))?;
        Ok(DayBytes { day: self.day, rows: self.rows, payload: pieces.into_payload() })
    }
}

/// Bytes in pieces that never move.
#[derive(Debug, Default)]
struct Pieces {
    full: Vec<Bytes>,
    full_bytes: usize,
    open: Vec<u8>,
}

impl Pieces {
    fn bytes(&self) -> usize {
        self.full_bytes + self.open.capacity()
    }

    /// For what is about to come, so that it need not move as it grows.
    fn make_room(&mut self, bytes: usize) {
        self.open.reserve(bytes.min(PIECE_BYTES.saturating_sub(self.open.len())));
    }

    fn seal(&mut self, next_capacity: usize) {
        if !self.open.is_empty() {
            self.full_bytes += self.open.len();
            if self.open.len() < self.open.capacity() / 2 {
                self.open.shrink_to_fit();
            }
            self.full.push(std::mem::replace(&mut self.open, Vec::with_capacity(next_capacity)).into());
        }
    }

    fn into_payload(mut self) -> PutPayload {
        self.seal(0);
        self.full.into_iter().collect()
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open.len() + bytes.len() > PIECE_BYTES {
            // A file that fills one piece fills another.
            self.seal(PIECE_BYTES);
        }
        if bytes.len() > PIECE_BYTES {
            self.full_bytes += bytes.len();
            self.full.push(Bytes::copy_from_slice(bytes));
        } else {
            self.open.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
