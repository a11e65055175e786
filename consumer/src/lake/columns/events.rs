//! `events`: the nine columns of the data under their own names, then where the row came from.
use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use records::{DecodeError, Decoder, EventsRecord, ShopEvent};

use super::{
    Column, Columns, IntegerDictionary, Integers, Leaf, Place, PlainBytes, TextDictionary, integer_field, money_field,
    optional_integer_field, optional_text_field, signed, text_field, time_field,
};

pub(crate) struct Events {
    event_time: Column<Integers>,
    event_type: Column<TextDictionary>,
    product_id: Column<Integers>,
    category_id: Column<IntegerDictionary>,
    category_code: Column<TextDictionary>,
    brand: Column<TextDictionary>,
    price: Column<Integers>,
    user_id: Column<Integers>,
    user_session: Column<PlainBytes>,
    source: Column<TextDictionary>,
    source_row: Column<Integers>,
    copy: Column<Integers>,
    topic_partition: Column<Integers>,
    topic_offset: Column<Integers>,
    sent_at: Column<Integers>,
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
            event_time: Column::required(),
            event_type: Column::required(),
            product_id: Column::required(),
            category_id: Column::optional(),
            category_code: Column::optional(),
            brand: Column::optional(),
            price: Column::required(),
            user_id: Column::required(),
            user_session: Column::optional(),
            source: Column::required(),
            source_row: Column::required(),
            copy: Column::required(),
            topic_partition: Column::required(),
            topic_offset: Column::required(),
            sent_at: Column::optional(),
        }
    }

    fn schema() -> SchemaRef {
        SCHEMA.clone()
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
        self.event_time.push(&row.time.0);
        self.event_type.push_coded(row.event_type as u64, || row.event_type.as_str());
        self.product_id.push(&row.product_id);
        self.category_id.push_option(row.category_id.as_ref());
        self.category_code.push_text(row.category_code);
        self.brand.push_text(row.brand);
        self.price.push(&row.price.0);
        self.user_id.push(&row.user_id);
        self.user_session.push_text(row.user_session);
        self.source.push_coded(row.feed.source.0.into(), || row.feed.source.digits());
        self.source_row.push(&signed(row.source_row));
        self.copy.push(&i64::from(row.copy));
        self.topic_partition.push(&place.partition);
        self.topic_offset.push(&place.offset);
        self.sent_at.push_option(place.sent_at_us.as_ref());
    }

    fn rows(&self) -> usize {
        self.event_time.len()
    }

    fn bytes(&self) -> usize {
        let texts = [&self.event_type, &self.category_code, &self.brand, &self.source];
        self.rows() * 8 * 10 + self.user_session.bytes() + texts.iter().map(|texts| texts.bytes()).sum::<usize>()
    }

    fn leaves(&mut self) -> Vec<&mut dyn Leaf> {
        vec![
            &mut self.event_time,
            &mut self.event_type,
            &mut self.product_id,
            &mut self.category_id,
            &mut self.category_code,
            &mut self.brand,
            &mut self.price,
            &mut self.user_id,
            &mut self.user_session,
            &mut self.source,
            &mut self.source_row,
            &mut self.copy,
            &mut self.topic_partition,
            &mut self.topic_offset,
            &mut self.sent_at,
        ]
    }
}
