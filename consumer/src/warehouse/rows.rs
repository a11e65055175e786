//! The rows of one partition on their way: records into columns, columns into what is sent.
//!
//! Columns are the lake's ([`crate::columns`]). What BigQuery is sent is Arrow, in its IPC form;
//! it knows decimals of 128 bits and more, so money is widened here.
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Decimal64Type, Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BooleanArray, ListArray, RecordBatch, StructArray};
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, write_message};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema};
use arrow_select::filter::filter_record_batch;
use broker::Batch;
use bytes::Bytes;
use records::{CONTENT_TYPE, Decoder, SENT_AT, read_micros_header};

use crate::columns::{Columns, Place};

/// BigQuery's TIMESTAMP: 0001-01-01 to the end of 9999, in microseconds.
const TIMES_US: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// A longer record is left out: a request may hold 10 MB.
pub(super) const RECORD_MAX_BYTES: usize = 8 << 20;
/// One row in so many gives its age to the freshness histogram.
const SAMPLE_ROWS: u64 = 256;
/// And no more of them than this for a plan.
const SAMPLES: usize = 256;

/// Rows of one partition that are not planned yet. The topics differ in their columns only.
pub(super) trait Rows: Send {
    /// Takes records from the front of `batch`, up to and with offset `last`, without those that
    /// `omits` names, until there are `bytes` or `rows` of them.
    fn take(&mut self, batch: &Batch, last: i64, omits: &dyn Fn(i64) -> bool, limits: Limits) -> Taken;

    fn rows(&self) -> usize;

    /// Memory held, roughly: what they are when sent, too.
    fn bytes(&self) -> usize;

    /// Takes the rows out.
    fn finish(&mut self) -> Result<Finished, ArrowError>;
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) records: usize,
    /// The next offset to read, once something was taken.
    pub(super) next: Option<i64>,
    pub(super) unreadable: u64,
    /// Why the last of them could not be read.
    pub(super) why: Option<String>,
    /// No more goes in before these are finished.
    pub(super) full: bool,
}

#[derive(Debug)]
pub(super) struct Finished {
    pub(super) batch: RecordBatch,
    /// Rows that cannot be sent, and why: by offset, in order. They are not in the batch.
    pub(super) omitted: Vec<(i64, String)>,
    /// When a sample of the rows was sent, in microseconds.
    pub(super) sent_at_us: Vec<i64>,
}

pub(super) struct OpenRows<C> {
    columns: C,
    decoder: Decoder,
    taken: u64,
    too_long: Vec<(i64, String)>,
    sent_at_us: Vec<i64>,
}

impl<C: Columns> OpenRows<C> {
    pub(super) fn new() -> Self {
        Self { columns: C::new(), decoder: Decoder::new(), taken: 0, too_long: Vec::new(), sent_at_us: Vec::new() }
    }
}

impl<C: Columns> Rows for OpenRows<C> {
    fn take(&mut self, batch: &Batch, last: i64, omits: &dyn Fn(i64) -> bool, limits: Limits) -> Taken {
        /// How often the bytes are looked at: after so many rows, or before one of so many bytes.
        const CHECK_ROWS: usize = 32;
        const CHECK_BYTES: usize = 32 << 10;
        let mut taken = Taken::default();
        let partition = i64::from(batch.partition);
        for record in batch.iter() {
            let offset = record.offset.0;
            if offset > last {
                break;
            }
            let (rows, bytes) = (self.columns.rows(), record.value.len());
            let look = rows.is_multiple_of(CHECK_ROWS) || bytes >= CHECK_BYTES;
            if rows >= limits.rows || (rows > 0 && look && self.columns.bytes().saturating_add(bytes) > limits.bytes) {
                taken.full = true;
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
            if omits(offset) {
                // Its dead letter was committed with the plan.
            } else if record.value.len() > RECORD_MAX_BYTES {
                let bytes = record.value.len();
                let why = format!("the record has {bytes} bytes; the warehouse takes {RECORD_MAX_BYTES} at the most");
                self.too_long.push((offset, why));
            } else {
                match C::read(&mut self.decoder, content_type, record.value) {
                    Ok(None) => {}
                    Ok(Some(row)) => {
                        let timestamp_ms = record.timestamp_ms;
                        self.columns.push(&row, Place { partition, offset, timestamp_ms, sent_at_us });
                        self.taken += 1;
                        if let Some(sent_at_us) = sent_at_us
                            && self.taken.is_multiple_of(SAMPLE_ROWS)
                            && self.sent_at_us.len() < SAMPLES
                        {
                            self.sent_at_us.push(sent_at_us);
                        }
                    }
                    Err(why) => {
                        taken.unreadable += 1;
                        taken.why = Some(format!("{}, offset {offset}: {why}", batch.topic_partition()));
                    }
                }
            }
            taken.records += 1;
            taken.next = Some(offset + 1);
        }
        taken
    }

    fn rows(&self) -> usize {
        self.columns.rows()
    }

    fn bytes(&self) -> usize {
        self.columns.bytes()
    }

    fn finish(&mut self) -> Result<Finished, ArrowError> {
        let (batch, mut omitted) = within_range(&self.columns.finish()?)?;
        omitted.append(&mut self.too_long);
        omitted.sort_unstable_by_key(|(offset, _)| *offset);
        Ok(Finished { batch, omitted, sent_at_us: std::mem::take(&mut self.sent_at_us) })
    }
}

/// The offset of each row.
pub(super) fn offsets(batch: &RecordBatch) -> &[i64] {
    batch.column_by_name("topic_offset").map_or(&[], |column| column.as_primitive::<Int64Type>().values())
}

/// The rows but these (by their place), and the offsets of those left out.
pub(super) fn without(batch: &RecordBatch, rows: &[usize]) -> Result<RecordBatch, ArrowError> {
    let keep: BooleanArray = (0..batch.num_rows()).map(|row| Some(!rows.contains(&row))).collect();
    filter_record_batch(batch, &keep)
}

/// Leaves out rows with a time that a TIMESTAMP cannot say.
fn within_range(batch: &RecordBatch) -> Result<(RecordBatch, Vec<(i64, String)>), ArrowError> {
    let mut wrong: Vec<(usize, String)> = Vec::new();
    for (column, field) in batch.columns().iter().zip(batch.schema_ref().fields()) {
        let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() else { continue };
        for (row, time) in times.values().iter().enumerate() {
            if !TIMES_US.contains(time) {
                wrong.push((row, format!("{} is not between the years 1 and 9999", field.name())));
            }
        }
    }
    if wrong.is_empty() {
        return Ok((batch.clone(), Vec::new()));
    }
    wrong.sort();
    wrong.dedup_by_key(|(row, _)| *row);
    let offsets = offsets(batch);
    let omitted = wrong.iter().map(|(row, why)| (offsets[*row], why.clone())).collect();
    let rows: Vec<usize> = wrong.iter().map(|(row, _)| *row).collect();
    Ok((without(batch, &rows)?, omitted))
}

/// The schema of what is sent: as IPC, and to check a table by.
pub(super) fn wire_schema(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(wire_field).collect::<Vec<_>>())
}

fn wire_field(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::List(item) => DataType::List(wire_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        _ => return field.clone(),
    };
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
}

fn wire_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Decimal64(precision, scale) => Arc::new(
            array
                .as_primitive::<Decimal64Type>()
                .unary::<_, Decimal128Type>(i128::from)
                .with_precision_and_scale(*precision, *scale)?,
        ),
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let values = wire_array(list.values())?;
            Arc::new(ListArray::try_new(wire_field(item), list.offsets().clone(), values, list.nulls().cloned())?)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter().map(wire_array).collect::<Result<_, _>>()?;
            let fields = fields.iter().map(wire_field).collect();
            Arc::new(StructArray::try_new(fields, columns, array.nulls().cloned())?)
        }
        _ => array.clone(),
    })
}

/// A schema as an IPC message.
pub(super) fn schema_message(schema: &Schema) -> Result<Bytes, ArrowError> {
    let options = IpcWriteOptions::default();
    let schema = wire_schema(schema);
    let message = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        &schema,
        &mut DictionaryTracker::new(true),
        &options,
    );
    let mut bytes = Vec::new();
    write_message(&mut bytes, message, &options)?;
    Ok(bytes.into())
}

/// Rows as an IPC message.
pub(super) fn rows_message(batch: &RecordBatch) -> Result<Bytes, ArrowError> {
    let options = IpcWriteOptions::default();
    let columns = batch.columns().iter().map(wire_array).collect::<Result<_, _>>()?;
    let batch = RecordBatch::try_new(Arc::new(wire_schema(batch.schema_ref())), columns)?;
    let mut tracker = DictionaryTracker::new(true);
    let (_, message) = IpcDataGenerator::default().encode(&batch, &mut tracker, &options, &mut Default::default())?;
    let mut bytes = Vec::with_capacity(message.ipc_message.len() + message.arrow_data.len() + 64);
    write_message(&mut bytes, message, &options)?;
    Ok(bytes.into())
}
