//! `funnel-steps`: a session reached a stage for a product, the first time.
use std::sync::{Arc, LazyLock};

use arrow_array::builder::{BooleanBuilder, Int64Builder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use parquet::file::properties::WriterPropertiesBuilder;
use records::{DecodeError, Decoder, FunnelStep};

use super::{
    Columns, Place, Texts, delta, flag_field, integer_field, integers, money, money_field, optional_integer_field,
    optional_text_field, plain, source_text, text_field, time_field, times,
};

pub(crate) struct FunnelSteps {
    session_id: Texts,
    user_id: Vec<i64>,
    product_id: Vec<i64>,
    stage: Texts,
    step_time: Vec<i64>,
    category_id: Int64Builder,
    category_code: Texts,
    brand: Texts,
    price: Vec<i64>,
    first_touch_time: Vec<i64>,
    after_view: BooleanBuilder,
    after_cart: BooleanBuilder,
    opens_session: BooleanBuilder,
    session_start: Vec<i64>,
    source: Texts,
    topic_partition: Vec<i64>,
    topic_offset: Vec<i64>,
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        text_field("session_id"),
        integer_field("user_id"),
        integer_field("product_id"),
        text_field("stage"),
        time_field("step_time"),
        optional_integer_field("category_id"),
        optional_text_field("category_code"),
        optional_text_field("brand"),
        money_field("price"),
        time_field("first_touch_time"),
        flag_field("after_view"),
        flag_field("after_cart"),
        flag_field("opens_session"),
        time_field("session_start"),
        text_field("source"),
        integer_field("topic_partition"),
        integer_field("topic_offset"),
    ]))
});

impl Columns for FunnelSteps {
    type Row<'a> = FunnelStep<'a>;

    fn new() -> Self {
        Self {
            session_id: Texts::new(false),
            user_id: Vec::new(),
            product_id: Vec::new(),
            stage: Texts::new(false),
            step_time: Vec::new(),
            category_id: Int64Builder::new(),
            category_code: Texts::new(true),
            brand: Texts::new(true),
            price: Vec::new(),
            first_touch_time: Vec::new(),
            after_view: BooleanBuilder::new(),
            after_cart: BooleanBuilder::new(),
            opens_session: BooleanBuilder::new(),
            session_start: Vec::new(),
            source: Texts::new(false),
            topic_partition: Vec::new(),
            topic_offset: Vec::new(),
        }
    }

    fn schema() -> SchemaRef {
        SCHEMA.clone()
    }

    fn encodings(properties: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
        let times = ["step_time", "first_touch_time", "session_start"];
        let numbers = ["user_id", "product_id", "price", "topic_partition", "topic_offset"];
        plain(delta(delta(properties, &times), &numbers), &["session_id"])
    }

    #[inline]
    fn read<'a>(
        decoder: &'a mut Decoder,
        content_type: Option<&[u8]>,
        value: &'a [u8],
    ) -> Result<Option<FunnelStep<'a>>, DecodeError> {
        decoder.decode(content_type, value).map(Some)
    }

    #[inline]
    fn push(&mut self, row: &FunnelStep<'_>, place: Place) {
        self.session_id.push(row.session_id);
        self.user_id.push(row.user_id);
        self.product_id.push(row.product_id);
        self.stage.push(row.stage.as_str());
        self.step_time.push(row.step_time.0);
        self.category_id.append_option(row.category_id);
        self.category_code.push(row.category_code);
        self.brand.push(row.brand);
        self.price.push(row.price.0);
        self.first_touch_time.push(row.first_touch_time.0);
        self.after_view.append_value(row.after_view);
        self.after_cart.append_value(row.after_cart);
        self.opens_session.append_value(row.opens_session);
        self.session_start.push(row.session_start.0);
        self.source.push(source_text(&row.source.digits()));
        self.topic_partition.push(place.partition);
        self.topic_offset.push(place.offset);
    }

    fn rows(&self) -> usize {
        self.user_id.len()
    }

    fn bytes(&self) -> usize {
        let texts = [&self.session_id, &self.stage, &self.category_code, &self.brand, &self.source];
        self.user_id.capacity() * 8 * 9 + texts.iter().map(|texts| texts.bytes()).sum::<usize>()
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            self.session_id.finish(),
            integers(&mut self.user_id),
            integers(&mut self.product_id),
            self.stage.finish(),
            times(&mut self.step_time),
            Arc::new(self.category_id.finish()),
            self.category_code.finish(),
            self.brand.finish(),
            money(&mut self.price)?,
            times(&mut self.first_touch_time),
            Arc::new(self.after_view.finish()),
            Arc::new(self.after_cart.finish()),
            Arc::new(self.opens_session.finish()),
            times(&mut self.session_start),
            self.source.finish(),
            integers(&mut self.topic_partition),
            integers(&mut self.topic_offset),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }
}
