//! Records into Arrow columns: one file a topic, all in the same shape. The lake's files have them,
//! and the warehouse's tables.
//!
//! Integers go into plain vectors that become arrays without a copy; texts into builders. Nothing
//! is allocated for a record. Ids, counts and row numbers are INT64, as BigQuery has them; money is
//! DECIMAL(12,2), a session's revenue DECIMAL(18,2), both kept in 64 bits; times are
//! TIMESTAMP(MICROS, UTC); empty texts are NULL.
//!
//! `cargo run --release -p consumer --example lake_speed -- FILE.csv 30 CODEC` prints
//! what it costs a row, decoding, encoding and compressing together, beside arrow-rs's own writer
//! with its defaults over the same columns.
mod dead_letters;
mod events;
mod funnel_steps;
mod sessions;

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, Decimal64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, DataType, Field, SchemaRef, TimeUnit};
use parquet::basic::Encoding;
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use records::{DecodeError, Decoder};

pub(crate) use dead_letters::DeadLetters;
pub(crate) use events::Events;
pub(crate) use funnel_steps::FunnelSteps;
pub(crate) use sessions::Sessions;

/// Rows gathered before they go through the Parquet encoders together.
pub(crate) const CHUNK_ROWS: usize = 4096;

/// Where a record stands in its log, and what its headers say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) partition: i64,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) sent_at_us: Option<i64>,
}

/// The columns of one topic.
pub(crate) trait Columns: Send + Sized + 'static {
    /// A record as decoded. It borrows.
    type Row<'a>;

    fn new() -> Self;

    fn schema() -> SchemaRef;

    /// What each column is encoded as, where it is not the default (a dictionary).
    fn encodings(properties: WriterPropertiesBuilder) -> WriterPropertiesBuilder;

    /// None if the record is not a row (a watermark, an end).
    fn read<'a>(
        decoder: &'a mut Decoder,
        content_type: Option<&[u8]>,
        value: &'a [u8],
    ) -> Result<Option<Self::Row<'a>>, DecodeError>;

    fn push(&mut self, row: &Self::Row<'_>, place: Place);

    fn rows(&self) -> usize;

    /// Memory held, roughly: what was allocated, used or not.
    fn bytes(&self) -> usize;

    /// Takes the rows out.
    fn finish(&mut self) -> Result<RecordBatch, ArrowError>;
}

/// Of a price: DECIMAL(12,2). Of a sum of prices: a million of the greatest, in 64 bits as well.
pub(crate) const PRICE_DIGITS: u8 = 12;
pub(crate) const SUM_DIGITS: u8 = 18;

/// Texts; an empty one is NULL where `nullable`.
#[derive(Debug)]
struct Texts {
    builder: StringBuilder,
    nullable: bool,
    /// Bytes that were allocated beforehand.
    reserved: usize,
}

impl Texts {
    fn new(nullable: bool) -> Self {
        Self { builder: StringBuilder::with_capacity(0, 0), nullable, reserved: 0 }
    }

    #[inline]
    fn push(&mut self, text: &str) {
        if self.nullable && text.is_empty() {
            self.builder.append_null();
        } else {
            self.builder.append_value(text);
        }
    }

    fn bytes(&self) -> usize {
        // What grew beyond that has up to twice the room that it uses.
        let used = self.builder.values_slice().len() + std::mem::size_of_val(self.builder.offsets_slice());
        if used > self.reserved { 2 * used } else { self.reserved }
    }

    fn finish(&mut self) -> ArrayRef {
        let (rows, bytes) = (self.builder.offsets_slice().len(), self.builder.values_slice().len());
        let bytes = bytes + bytes / 8;
        self.reserved = bytes + rows * size_of::<i32>();
        Arc::new(std::mem::replace(&mut self.builder, StringBuilder::with_capacity(rows, bytes)).finish())
    }
}

/// The first chunk grows with its rows: there may be many files of a few rows each. The next one will
/// be about as long as the one before.
fn take(values: &mut Vec<i64>) -> Vec<i64> {
    let next = Vec::with_capacity(values.len());
    std::mem::replace(values, next)
}

fn integers(values: &mut Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(take(values)))
}

fn times(values: &mut Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(take(values)).with_timezone("UTC"))
}

fn money(values: &mut Vec<i64>) -> Result<ArrayRef, ArrowError> {
    decimals(values, PRICE_DIGITS)
}

fn sums(values: &mut Vec<i64>) -> Result<ArrayRef, ArrowError> {
    decimals(values, SUM_DIGITS)
}

fn decimals(values: &mut Vec<i64>, digits: u8) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(Decimal64Array::from(take(values)).with_precision_and_scale(digits, 2)?))
}

fn text_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn optional_text_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn integer_field(name: &str) -> Field {
    Field::new(name, DataType::Int64, false)
}

fn optional_integer_field(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn flag_field(name: &str) -> Field {
    Field::new(name, DataType::Boolean, false)
}

fn money_field(name: &str) -> Field {
    Field::new(name, DataType::Decimal64(PRICE_DIGITS, 2), false)
}

fn sum_field(name: &str) -> Field {
    Field::new(name, DataType::Decimal64(SUM_DIGITS, 2), false)
}

fn time_field(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false)
}

/// For numbers: as many bits as their differences need, and no hashing. (A dictionary is looked up for
/// every row.)
fn delta(properties: WriterPropertiesBuilder, columns: &[&str]) -> WriterPropertiesBuilder {
    columns.iter().fold(properties, |properties, column| {
        let column = ColumnPath::from(*column);
        properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED)
    })
}

/// For random ids: nothing repeats that a dictionary could hold, and their least and greatest tell nothing.
fn plain(properties: WriterPropertiesBuilder, columns: &[&str]) -> WriterPropertiesBuilder {
    columns.iter().fold(properties, |properties, column| {
        let column = ColumnPath::from(*column);
        properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_statistics_enabled(column.clone(), EnabledStatistics::None)
            .set_column_encoding(column, Encoding::PLAIN)
    })
}

/// Row numbers and lengths: a log never holds 2^63 of anything.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn source_text(digits: &[u8; 8]) -> &str {
    records::utf8(digits).unwrap_or_default()
}
