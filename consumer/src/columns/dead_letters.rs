//! `dead-letters`: what could not be read, where it came from and why.
use std::sync::{Arc, LazyLock};

use arrow_array::builder::{BinaryBuilder, Int64Builder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use parquet::file::properties::WriterPropertiesBuilder;
use records::proto::DeadLetterView;
use records::{DecodeError, Decoder};

use super::{
    Columns, Place, Texts, delta, integer_field, integers, optional_integer_field, optional_text_field, signed,
    text_field, time_field, times,
};

pub(crate) struct DeadLetters {
    source: Texts,
    reason: Texts,
    payload: BinaryBuilder,
    payload_length: Vec<i64>,
    /// A letter says either a row of a file or a record of a topic: the other's columns are NULL.
    file: Texts,
    source_row: Int64Builder,
    file_row: Int64Builder,
    topic: Texts,
    record_partition: Int64Builder,
    record_offset: Int64Builder,
    written_at: Vec<i64>,
    topic_partition: Vec<i64>,
    topic_offset: Vec<i64>,
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        optional_text_field("source"),
        text_field("reason"),
        Field::new("payload", DataType::Binary, false),
        integer_field("payload_length"),
        optional_text_field("file"),
        optional_integer_field("source_row"),
        optional_integer_field("file_row"),
        optional_text_field("topic"),
        optional_integer_field("record_partition"),
        optional_integer_field("record_offset"),
        time_field("written_at"),
        integer_field("topic_partition"),
        integer_field("topic_offset"),
    ]))
});

impl Columns for DeadLetters {
    type Row<'a> = DeadLetterView<'a>;

    fn new() -> Self {
        Self {
            source: Texts::new(true),
            reason: Texts::new(false),
            payload: BinaryBuilder::new(),
            payload_length: Vec::new(),
            file: Texts::new(true),
            source_row: Int64Builder::new(),
            file_row: Int64Builder::new(),
            topic: Texts::new(true),
            record_partition: Int64Builder::new(),
            record_offset: Int64Builder::new(),
            written_at: Vec::new(),
            topic_partition: Vec::new(),
            topic_offset: Vec::new(),
        }
    }

    fn schema() -> SchemaRef {
        SCHEMA.clone()
    }

    fn encodings(properties: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
        delta(properties, &["written_at", "topic_offset"])
    }

    fn read<'a>(
        decoder: &'a mut Decoder,
        content_type: Option<&[u8]>,
        value: &'a [u8],
    ) -> Result<Option<DeadLetterView<'a>>, DecodeError> {
        decoder.view("DeadLetter", content_type, value).map(Some)
    }

    fn push(&mut self, row: &DeadLetterView<'_>, place: Place) {
        let (of_file, of_topic) = (!row.file.is_empty(), !row.topic.is_empty());
        self.source.push(row.source);
        self.reason.push(row.reason);
        self.payload.append_value(row.payload);
        self.payload_length.push(signed(row.payload_length));
        self.file.push(row.file);
        self.source_row.append_option(of_file.then(|| signed(row.source_row)));
        self.file_row.append_option(of_file.then(|| signed(row.file_row)));
        self.topic.push(row.topic);
        self.record_partition.append_option(of_topic.then(|| i64::from(row.topic_partition)));
        self.record_offset.append_option(of_topic.then_some(row.topic_offset));
        self.written_at.push(place.timestamp_ms.saturating_mul(1000));
        self.topic_partition.push(place.partition);
        self.topic_offset.push(place.offset);
    }

    fn rows(&self) -> usize {
        self.written_at.len()
    }

    fn bytes(&self) -> usize {
        let texts = [&self.source, &self.reason, &self.file, &self.topic];
        let payloads = self.payload.values_slice().len();
        self.topic_offset.capacity() * 8 * 9 + payloads + texts.iter().map(|texts| texts.bytes()).sum::<usize>()
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            self.source.finish(),
            self.reason.finish(),
            Arc::new(self.payload.finish()),
            integers(&mut self.payload_length),
            self.file.finish(),
            Arc::new(self.source_row.finish()),
            Arc::new(self.file_row.finish()),
            self.topic.finish(),
            Arc::new(self.record_partition.finish()),
            Arc::new(self.record_offset.finish()),
            times(&mut self.written_at),
            integers(&mut self.topic_partition),
            integers(&mut self.topic_offset),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }
}
