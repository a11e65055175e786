//! `funnel-steps`: a session reached a stage for a product, the first time.
use std::sync::{Arc, LazyLock};

use arrow_schema::{Schema, SchemaRef};
use records::{DecodeError, Decoder, FunnelStep};

use super::{
    Column, Columns, Flags, IntegerDictionary, Integers, Leaf, Place, PlainBytes, TextDictionary, flag_field,
    integer_field, money_field, optional_integer_field, optional_text_field, text_field, time_field,
};

pub(crate) struct FunnelSteps {
    session_id: Column<PlainBytes>,
    user_id: Column<Integers>,
    product_id: Column<Integers>,
    stage: Column<TextDictionary>,
    step_time: Column<Integers>,
    category_id: Column<IntegerDictionary>,
    category_code: Column<TextDictionary>,
    brand: Column<TextDictionary>,
    price: Column<Integers>,
    first_touch_time: Column<Integers>,
    after_view: Column<Flags>,
    after_cart: Column<Flags>,
    opens_session: Column<Flags>,
    session_start: Column<Integers>,
    source: Column<TextDictionary>,
    topic_partition: Column<Integers>,
    topic_offset: Column<Integers>,
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
            session_id: Column::required(),
            user_id: Column::required(),
            product_id: Column::required(),
            stage: Column::required(),
            step_time: Column::required(),
            category_id: Column::optional(),
            category_code: Column::optional(),
            brand: Column::optional(),
            price: Column::required(),
            first_touch_time: Column::required(),
            after_view: Column::required(),
            after_cart: Column::required(),
            opens_session: Column::required(),
            session_start: Column::required(),
            source: Column::required(),
            topic_partition: Column::required(),
            topic_offset: Column::required(),
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
    ) -> Result<Option<FunnelStep<'a>>, DecodeError> {
        decoder.decode(content_type, value).map(Some)
    }

    #[inline]
    fn push(&mut self, row: &FunnelStep<'_>, place: Place) {
        self.session_id.push_text(row.session_id);
        self.user_id.push(&row.user_id);
        self.product_id.push(&row.product_id);
        self.stage.push_coded(row.stage as u64, || row.stage.as_str());
        self.step_time.push(&row.step_time.0);
        self.category_id.push_option(row.category_id.as_ref());
        self.category_code.push_text(row.category_code);
        self.brand.push_text(row.brand);
        self.price.push(&row.price.0);
        self.first_touch_time.push(&row.first_touch_time.0);
        self.after_view.push(&row.after_view);
        self.after_cart.push(&row.after_cart);
        self.opens_session.push(&row.opens_session);
        self.session_start.push(&row.session_start.0);
        self.source.push_coded(row.source.0.into(), || row.source.digits());
        self.topic_partition.push(&place.partition);
        self.topic_offset.push(&place.offset);
    }

    fn rows(&self) -> usize {
        self.user_id.len()
    }

    fn bytes(&self) -> usize {
        let texts = [&self.stage, &self.category_code, &self.brand, &self.source];
        self.rows() * 8 * 9 + self.session_id.bytes() + texts.iter().map(|texts| texts.bytes()).sum::<usize>()
    }

    fn leaves(&mut self) -> Vec<&mut dyn Leaf> {
        vec![
            &mut self.session_id,
            &mut self.user_id,
            &mut self.product_id,
            &mut self.stage,
            &mut self.step_time,
            &mut self.category_id,
            &mut self.category_code,
            &mut self.brand,
            &mut self.price,
            &mut self.first_touch_time,
            &mut self.after_view,
            &mut self.after_cart,
            &mut self.opens_session,
            &mut self.session_start,
            &mut self.source,
            &mut self.topic_partition,
            &mut self.topic_offset,
        ]
    }
}
