//! `events`: the nine columns of the data under their own names, then where the row came from.
use std::sync::{Arc, LazyLock};

use arrow_array::builder::{Int64Builder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::file::properties::WriterPropertiesBuilder;
use records::{DecodeError, Decoder, EventsRecord, ShopEvent};

use super::{
    Columns, Place, Texts, delta, integer_field, integers, money, money_field, optional_integer_field,
    optional_text_field, plain, signed, source_text, text_field, time_field, times,
};

pub(crate) struct Events {
    event_time: Vec<i64>,
    event_type: Texts,
    product_id: Vec<i64>,
    category_id: Int64Builder,
    category_code: Texts,
    brand: Texts,
    price: Vec<i64>,
    user_id: Vec<i64>,
    user_session: Texts,
    source: Texts,
    source_row: Vec<i64>,
    copy: Vec<i64>,
    topic_partition: Vec<i64>,
    topic_offset: Vec<i64>,
    sent_at: TimestampMicrosecondBuilder,
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        time_field("event_time"),
        text_field("event_type"),
        integer_field("product_id"),
        optional_integer_field("category_id"),
        optional_text_field("category_code"),
        optional_text_field("brand"),
        money_field("price"),
        integer_field("user_id"),
        optional_text_field("user_session"),
        text_field("source"),
        integer_field("source_row"),
        integer_field("copy"),
        integer_field("topic_partition"),
        integer_field("topic_offset"),
        Field::new("sent_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]))
});

impl Columns for Events {
    type Row<'a> = ShopEvent<'a>;

    fn new() -> Self {
        Self {
            event_time: Vec::new(),
            event_type: Texts::new(false),
            product_id: Vec::new(),
            category_id: Int64Builder::new(),
            category_code: Texts::new(true),
            brand: Texts::new(true),
            price: Vec::new(),
            user_id: Vec::new(),
            user_session: Texts::new(true),
            source: Texts::new(false),
            source_row: Vec::new(),
            copy: Vec::new(),
            topic_partition: Vec::new(),
            topic_offset: Vec::new(),
            sent_at: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
        }
    }

    fn schema() -> SchemaRef {
        SCHEMA.clone()
    }

    fn encodings(properties: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
        let times = ["event_time", "sent_at"];
        let numbers = ["product_id", "price", "user_id", "source_row", "copy", "topic_partition", "topic_offset"];
        plain(delta(delta(properties, &times), &numbers), &["user_session"])
    }

    #[inline]
    fn read<'a>(
        decoder: &'a mut Decoder,
        content_type: Option<&[u8]>,
        value: &'a [u8],
    ) -> Result<Option<ShopEvent<'a>>, DecodeError> {
        match decoder.decode::<EventsRecord<'a>>(content_type, value)? {
            EventsRecord::Event(event) => Ok(Some(event)),
            EventsRecord::Watermark(_) | EventsRecord::End(_) => Ok(None),
        }
    }

    #[inline]
    fn push(&mut self, row: &ShopEvent<'_>, place: Place) {
        self.event_time.push(row.time.0);
        self.event_type.push(row.event_type.as_str());
        self.product_id.push(row.product_id);
        self.category_id.append_option(row.category_id);
        self.category_code.push(row.category_code);
        self.brand.push(row.brand);
        self.price.push(row.price.0);
        self.user_id.push(row.user_id);
        self.user_session.push(row.user_session);
        self.source.push(source_text(&row.feed.source.digits()));
        self.source_row.push(signed(row.source_row));
        self.copy.push(i64::from(row.copy));
        self.topic_partition.push(place.partition);
        self.topic_offset.push(place.offset);
        self.sent_at.append_option(place.sent_at_us);
    }

    fn rows(&self) -> usize {
        self.event_time.len()
    }

    fn bytes(&self) -> usize {
        let texts = [&self.event_type, &self.category_code, &self.brand, &self.user_session, &self.source];
        self.event_time.capacity() * 8 * 10 + texts.iter().map(|texts| texts.bytes()).sum::<usize>()
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            times(&mut self.event_time),
            self.event_type.finish(),
            integers(&mut self.product_id),
            Arc::new(self.category_id.finish()),
            self.category_code.finish(),
            self.brand.finish(),
            money(&mut self.price)?,
            integers(&mut self.user_id),
            self.user_session.finish(),
            self.source.finish(),
            integers(&mut self.source_row),
            integers(&mut self.copy),
            integers(&mut self.topic_partition),
            integers(&mut self.topic_offset),
            Arc::new(self.sent_at.finish()),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }
}
