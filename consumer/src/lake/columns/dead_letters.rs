//! `dead-letters`: what could not be read, where it came from and why.
use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use records::proto::DeadLetterView;
use records::{DecodeError, Decoder};

use super::{
    Column, Columns, Integers, Leaf, Place, PlainBytes, TextDictionary, integer_field, optional_integer_field,
    optional_text_field, signed, text_field, time_field,
};

pub(crate) struct DeadLetters {
    source: Column<TextDictionary>,
    reason: Column<TextDictionary>,
    payload: Column<PlainBytes>,
    payload_length: Column<Integers>,
    /// A letter says either a row of a file or a record of a topic: the other's columns are NULL.
    file: Column<TextDictionary>,
    source_row: Column<Integers>,
    file_row: Column<Integers>,
    topic: Column<TextDictionary>,
    record_partition: Column<Integers>,
    record_offset: Column<Integers>,
    written_at: Column<Integers>,
    topic_partition: Column<Integers>,
    topic_offset: Column<Integers>,
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
            source: Column::optional(),
            reason: Column::required(),
            payload: Column::required(),
            payload_length: Column::required(),
            file: Column::optional(),
            source_row: Column::optional(),
            file_row: Column::optional(),
            topic: Column::optional(),
            record_partition: Column::optional(),
            record_offset: Column::optional(),
            written_at: Column::required(),
            topic_partition: Column::required(),
            topic_offset: Column::required(),
        }
    }

    fn schema() -> SchemaRef {
        SCHEMA.clone()
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
        self.source.push_text(row.source);
        self.reason.push_text(row.reason);
        self.payload.push(row.payload);
        self.payload_length.push(&signed(row.payload_length));
        self.file.push_text(row.file);
        self.source_row.push_option(of_file.then(|| signed(row.source_row)).as_ref());
        self.file_row.push_option(of_file.then(|| signed(row.file_row)).as_ref());
        self.topic.push_text(row.topic);
        self.record_partition.push_option(of_topic.then(|| i64::from(row.topic_partition)).as_ref());
        self.record_offset.push_option(of_topic.then_some(row.topic_offset).as_ref());
        self.written_at.push(&place.timestamp_ms.saturating_mul(1000));
        self.topic_partition.push(&place.partition);
        self.topic_offset.push(&place.offset);
    }

    fn rows(&self) -> usize {
        self.written_at.len()
    }

    fn bytes(&self) -> usize {
        let texts = [&self.source, &self.reason, &self.file, &self.topic];
        self.rows() * 8 * 9 + self.payload.bytes() + texts.iter().map(|texts| texts.bytes()).sum::<usize>()
    }

    fn leaves(&mut self) -> Vec<&mut dyn Leaf> {
        vec![
            &mut self.source,
            &mut self.reason,
            &mut self.payload,
            &mut self.payload_length,
            &mut self.file,
            &mut self.source_row,
            &mut self.file_row,
            &mut self.topic,
            &mut self.record_partition,
            &mut self.record_offset,
            &mut self.written_at,
            &mut self.topic_partition,
            &mut self.topic_offset,
        ]
    }
}
