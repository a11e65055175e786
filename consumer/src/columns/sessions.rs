//! `sessions`: a closed session, with the products left in its cart as a list.
use std::sync::{Arc, LazyLock};

use arrow_array::{ArrayRef, ListArray, RecordBatch, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use parquet::file::properties::WriterPropertiesBuilder;
use records::{DecodeError, Decoder, Session};

use super::{
    Columns, Place, Texts, delta, integer_field, integers, money, money_field, optional_text_field, plain, source_text,
    sum_field, sums, text_field, time_field, times,
};

pub(crate) struct Sessions {
    session_id: Texts,
    part: Vec<i64>,
    user_id: Vec<i64>,
    users: Vec<i64>,
    session_start: Vec<i64>,
    session_end: Vec<i64>,
    views: Vec<i64>,
    carts: Vec<i64>,
    purchases: Vec<i64>,
    products_viewed: Vec<i64>,
    products_carted: Vec<i64>,
    products_purchased: Vec<i64>,
    revenue: Vec<i64>,
    furthest_stage: Texts,
    entry_category_code: Texts,
    exit_category_code: Texts,
    last_event_type: Texts,
    left: Left,
    source: Texts,
    topic_partition: Vec<i64>,
    topic_offset: Vec<i64>,
}

/// The products of all rows one after another, and how many each row has.
struct Left {
    lengths: Vec<usize>,
    product_id: Vec<i64>,
    category_code: Texts,
    brand: Texts,
    value: Vec<i64>,
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
        sum_field("revenue"),
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
            session_id: Texts::new(false),
            part: Vec::new(),
            user_id: Vec::new(),
            users: Vec::new(),
            session_start: Vec::new(),
            session_end: Vec::new(),
            views: Vec::new(),
            carts: Vec::new(),
            purchases: Vec::new(),
            products_viewed: Vec::new(),
            products_carted: Vec::new(),
            products_purchased: Vec::new(),
            revenue: Vec::new(),
            furthest_stage: Texts::new(false),
            entry_category_code: Texts::new(true),
            exit_category_code: Texts::new(true),
            last_event_type: Texts::new(false),
            left: Left {
                lengths: Vec::new(),
                product_id: Vec::new(),
                category_code: Texts::new(true),
                brand: Texts::new(true),
                value: Vec::new(),
            },
            source: Texts::new(false),
            topic_partition: Vec::new(),
            topic_offset: Vec::new(),
        }
    }

    fn schema() -> SchemaRef {
        SCHEMA.clone()
    }

    fn encodings(properties: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
        let times = ["session_start", "session_end"];
        let ids = ["part", "user_id", "users", "topic_partition", "topic_offset"];
        let counts =
            ["views", "carts", "purchases", "products_viewed", "products_carted", "products_purchased", "revenue"];
        plain(delta(delta(delta(properties, &times), &ids), &counts), &["session_id"])
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
        self.session_id.push(row.session_id);
        self.part.push(i64::from(row.part));
        self.user_id.push(row.user_id);
        self.users.push(i64::from(row.users));
        self.session_start.push(row.start.0);
        self.session_end.push(row.end.0);
        self.views.push(i64::from(row.views));
        self.carts.push(i64::from(row.carts));
        self.purchases.push(i64::from(row.purchases));
        self.products_viewed.push(i64::from(row.products_viewed));
        self.products_carted.push(i64::from(row.products_carted));
        self.products_purchased.push(i64::from(row.products_purchased));
        self.revenue.push(row.revenue.0);
        self.furthest_stage.push(row.furthest_stage.as_str());
        self.entry_category_code.push(row.entry_category_code);
        self.exit_category_code.push(row.exit_category_code);
        self.last_event_type.push(row.last_event_type.as_str());
        self.left.lengths.push(row.left_in_cart.len());
        for left in &row.left_in_cart {
            self.left.product_id.push(left.product_id);
            self.left.category_code.push(left.category_code);
            self.left.brand.push(left.brand);
            self.left.value.push(left.value.0);
        }
        self.source.push(source_text(&row.source.digits()));
        self.topic_partition.push(place.partition);
        self.topic_offset.push(place.offset);
    }

    fn rows(&self) -> usize {
        self.user_id.len()
    }

    fn bytes(&self) -> usize {
        let texts = [
            &self.session_id,
            &self.furthest_stage,
            &self.entry_category_code,
            &self.exit_category_code,
            &self.last_event_type,
            &self.left.category_code,
            &self.left.brand,
            &self.source,
        ];
        let integers = self.user_id.capacity() * 16 + self.left.product_id.capacity() * 2;
        integers * 8 + texts.iter().map(|texts| texts.bytes()).sum::<usize>()
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            self.session_id.finish(),
            integers(&mut self.part),
            integers(&mut self.user_id),
            integers(&mut self.users),
            times(&mut self.session_start),
            times(&mut self.session_end),
            integers(&mut self.views),
            integers(&mut self.carts),
            integers(&mut self.purchases),
            integers(&mut self.products_viewed),
            integers(&mut self.products_carted),
            integers(&mut self.products_purchased),
            sums(&mut self.revenue)?,
            self.furthest_stage.finish(),
            self.entry_category_code.finish(),
            self.exit_category_code.finish(),
            self.last_event_type.finish(),
            self.left.finish()?,
            self.source.finish(),
            integers(&mut self.topic_partition),
            integers(&mut self.topic_offset),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }
}

impl Left {
    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let columns = vec![
            integers(&mut self.product_id),
            self.category_code.finish(),
            self.brand.finish(),
            money(&mut self.value)?,
        ];
        let items = StructArray::try_new(LEFT_FIELDS.clone(), columns, None)?;
        let offsets = OffsetBuffer::from_lengths(self.lengths.drain(..));
        Ok(Arc::new(ListArray::try_new(LEFT_ITEM.clone(), offsets, Arc::new(items), None)?))
    }
}
