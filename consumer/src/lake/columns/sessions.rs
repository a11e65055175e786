//! `sessions`: a closed session, with the products left in its cart as a list.
use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use records::{DecodeError, Decoder, LeftInCart, Session};

use super::{
    Column, Columns, Integers, Leaf, Place, PlainBytes, TextDictionary, integer_field, money_field,
    optional_text_field, text_field, time_field,
};

pub(crate) struct Sessions {
    session_id: Column<PlainBytes>,
    part: Column<Integers>,
    user_id: Column<Integers>,
    users: Column<Integers>,
    session_start: Column<Integers>,
    session_end: Column<Integers>,
    views: Column<Integers>,
    carts: Column<Integers>,
    purchases: Column<Integers>,
    products_viewed: Column<Integers>,
    products_carted: Column<Integers>,
    products_purchased: Column<Integers>,
    revenue: Column<Integers>,
    furthest_stage: Column<TextDictionary>,
    entry_category_code: Column<TextDictionary>,
    exit_category_code: Column<TextDictionary>,
    last_event_type: Column<TextDictionary>,
    left: Left,
    source: Column<TextDictionary>,
    topic_partition: Column<Integers>,
    topic_offset: Column<Integers>,
}

struct Left {
    product_id: Column<Integers>,
    category_code: Column<TextDictionary>,
    brand: Column<TextDictionary>,
    value: Column<Integers>,
}

static LEFT_FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    vec![
        integer_field("product_id"),
        optional_text_field("category_code"),
        optional_text_field("brand"),
        money_field("value"),
    ]
    .into()
});

static LEFT_ITEM: LazyLock<FieldRef> =
    LazyLock::new(|| Arc::new(Field::new("element", DataType::Struct(LEFT_FIELDS.clone()), false)));

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        text_field("session_id"),
        integer_field("part"),
        integer_field("user_id"),
        integer_field("users"),
        time_field("session_start"),
        time_field("session_end"),
        integer_field("views"),
        integer_field("carts"),
        integer_field("purchases"),
        integer_field("products_viewed"),
        integer_field("products_carted"),
        integer_field("products_purchased"),
        money_field("revenue"),
        text_field("furthest_stage"),
        optional_text_field("entry_category_code"),
        optional_text_field("exit_category_code"),
        text_field("last_event_type"),
        Field::new("left_in_cart", DataType::List(LEFT_ITEM.clone()), false),
        text_field("source"),
        integer_field("topic_partition"),
        integer_field("topic_offset"),
    ]))
});

impl Columns for Sessions {
    type Row<'a> = Session<'a>;

    fn new() -> Self {
        Self {
            session_id: Column::required(),
            part: Column::required(),
            user_id: Column::required(),
            users: Column::required(),
            session_start: Column::required(),
            session_end: Column::required(),
            views: Column::required(),
            carts: Column::required(),
            purchases: Column::required(),
            products_viewed: Column::required(),
            products_carted: Column::required(),
            products_purchased: Column::required(),
            revenue: Column::required(),
            furthest_stage: Column::required(),
            entry_category_code: Column::optional(),
            exit_category_code: Column::optional(),
            last_event_type: Column::required(),
            left: Left::new(),
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
    ) -> Result<Option<Session<'a>>, DecodeError> {
        decoder.decode(content_type, value).map(Some)
    }

    #[inline]
    fn push(&mut self, row: &Session<'_>, place: Place) {
        self.session_id.push_text(row.session_id);
        self.part.push(&i64::from(row.part));
        self.user_id.push(&row.user_id);
        self.users.push(&i64::from(row.users));
        self.session_start.push(&row.start.0);
        self.session_end.push(&row.end.0);
        self.views.push(&i64::from(row.views));
        self.carts.push(&i64::from(row.carts));
        self.purchases.push(&i64::from(row.purchases));
        self.products_viewed.push(&i64::from(row.products_viewed));
        self.products_carted.push(&i64::from(row.products_carted));
        self.products_purchased.push(&i64::from(row.products_purchased));
        self.revenue.push(&row.revenue.0);
        self.furthest_stage.push_coded(row.furthest_stage as u64, || row.furthest_stage.as_str());
        self.entry_category_code.push_text(row.entry_category_code);
        self.exit_category_code.push_text(row.exit_category_code);
        self.last_event_type.push_coded(row.last_event_type as u64, || row.last_event_type.as_str());
        self.left.push(&row.left_in_cart);
        self.source.push_coded(row.source.0.into(), || row.source.digits());
        self.topic_partition.push(&place.partition);
        self.topic_offset.push(&place.offset);
    }

    fn rows(&self) -> usize {
        self.user_id.len()
    }

    fn bytes(&self) -> usize {
        let texts = [
            &self.furthest_stage,
            &self.entry_category_code,
            &self.exit_category_code,
            &self.last_event_type,
            &self.left.category_code,
            &self.left.brand,
            &self.source,
        ];
        let integers = self.rows() * 15 + self.left.product_id.len() * 2;
        integers * 8 + self.session_id.bytes() + texts.iter().map(|texts| texts.bytes()).sum::<usize>()
    }

    fn leaves(&mut self) -> Vec<&mut dyn Leaf> {
        vec![
            &mut self.session_id,
            &mut self.part,
            &mut self.user_id,
            &mut self.users,
            &mut self.session_start,
            &mut self.session_end,
            &mut self.views,
            &mut self.carts,
            &mut self.purchases,
            &mut self.products_viewed,
            &mut self.products_carted,
            &mut self.products_purchased,
            &mut self.revenue,
            &mut self.furthest_stage,
            &mut self.entry_category_code,
            &mut self.exit_category_code,
            &mut self.last_event_type,
            &mut self.left.product_id,
            &mut self.left.category_code,
            &mut self.left.brand,
            &mut self.left.value,
            &mut self.source,
            &mut self.topic_partition,
            &mut self.topic_offset,
        ]
    }
}

impl Left {
    fn new() -> Self {
        Self {
            product_id: Column::item(),
            category_code: Column::optional_item(),
            brand: Column::optional_item(),
            value: Column::item(),
        }
    }

    fn push(&mut self, all: &[LeftInCart<'_>]) {
        if all.is_empty() {
            self.product_id.push_no_items();
            self.category_code.push_no_items();
            self.brand.push_no_items();
            self.value.push_no_items();
        }
        for (i, left) in all.iter().enumerate() {
            let first = i == 0;
            self.product_id.push_item(first, Some(&left.product_id));
            self.category_code.push_text_item(first, left.category_code);
            self.brand.push_text_item(first, left.brand);
            self.value.push_item(first, Some(&left.value.0));
        }
    }
}
