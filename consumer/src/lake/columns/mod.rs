//! Records into columns: one file a topic, all in the same shape.
//!
//! Nothing is allocated for a record: values go where the encoders take them from. Ids, counts and
//! row numbers are INT64, as BigQuery has them; money is DECIMAL(12,2) kept in 64 bits; times are
//! TIMESTAMP(MICROS, UTC); empty texts are NULL.
//!
//! What it costs, decoding, encoding and compressing together, in µs of CPU a row and bytes a row
//! (`cargo run --release -p consumer --example lake_speed -- FILE.csv 30 CODEC`, the real sample
//! thirty times over, on a machine busy with other work: read the columns against each other).
//! arrow-rs is its own writer with its defaults over the same columns, without the decoding.
//!
//! | topic | lz4_raw | zstd(1) | snappy | arrow-rs |
//! |---|---|---|---|---|
//! | events | 0.40, 30.9 B | 0.53, 20.7 B | 0.43, 31.2 B | 0.51, 41.7 B |
//! | funnel-steps | 0.39, 36.8 B | 0.54, 23.1 B | 0.45, 36.9 B | 0.52, 47.0 B |
//! | sessions | 0.47, 51.2 B | 0.59, 32.0 B | 0.60, 49.6 B | 0.65, 64.1 B |
mod dead_letters;
mod events;
mod funnel_steps;
mod sessions;

use arrow_schema::{DataType, Field, SchemaRef, TimeUnit};
use records::{DecodeError, Decoder};

use super::encode::{Column, Flags, IntegerDictionary, Integers, Leaf, PlainBytes, TextDictionary};

pub(crate) use dead_letters::DeadLetters;
pub(crate) use events::Events;
pub(crate) use funnel_steps::FunnelSteps;
pub(crate) use sessions::Sessions;

/// Rows gathered before they go through the encoders together: a page of each column.
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

    /// None if the record is not a row (a watermark, an end).
    fn read<'a>(
        decoder: &'a mut Decoder,
        content_type: Option<&[u8]>,
        value: &'a [u8],
    ) -> Result<Option<Self::Row<'a>>, DecodeError>;

    fn push(&mut self, row: &Self::Row<'_>, place: Place);

    /// Gathered, not yet encoded.
    fn rows(&self) -> usize;

    /// Bytes gathered, roughly.
    fn bytes(&self) -> usize;

    /// In the order of the schema.
    fn leaves(&mut self) -> Vec<&mut dyn Leaf>;
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
    Field::new(name, DataType::Decimal64(12, 2), false)
}

fn time_field(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false)
}

/// Row numbers and lengths: a log never holds 2^63 of anything.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
