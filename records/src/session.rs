//! The records of the topic `sessions`.
use crate::codec::{DecodeError, Format, Message, encode_view, enumeration};
use crate::proto;
use crate::wire::{Fields, short, signed, text, text_key, varint, varint_key};
use crate::{Cents, EventTime, EventType, SourceId, Stage};

/// A closed session, or (`part` above 0) more of the products it left in the cart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session<'a> {
    pub source: SourceId,
    pub session_id: &'a str,
    /// Counts and sums stand in part 0 alone.
    pub part: u32,
    pub user_id: i64,
    pub users: u32,
    pub start: EventTime,
    pub end: EventTime,
    pub views: u32,
    pub carts: u32,
    pub purchases: u32,
    pub products_viewed: u32,
    pub products_carted: u32,
    pub products_purchased: u32,
    pub revenue: Cents,
    pub furthest_stage: Stage,
    pub entry_category_code: &'a str,
    pub exit_category_code: &'a str,
    pub last_event_type: EventType,
    pub left_in_cart: Vec<LeftInCart<'a>>,
}

/// A product carted and not purchased anywhere in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftInCart<'a> {
    pub product_id: i64,
    pub category_code: &'a str,
    pub brand: &'a str,
    /// The price at first touch, once.
    pub value: Cents,
}

impl<'a> Message<'a> for Session<'a> {
    type View = proto::SessionView<'a>;

    const NAME: &'static str = "Session";

    fn encode(&self, format: Format, out: &mut Vec<u8>) {
        if format == Format::Protobuf && self.left_in_cart.is_empty() {
            return self.to_protobuf(out);
        }
        let source = self.source.digits();
        let left = self.left_in_cart.iter().map(|left| proto::LeftInCartView {
            product_id: left.product_id,
            category_code: left.category_code,
            brand: left.brand,
            value_cents: left.value.0,
        });
        let view = proto::SessionView {
            source: std::str::from_utf8(&source).unwrap_or_default(),
            session_id: self.session_id,
            part: self.part,
            user_id: self.user_id,
            users: self.users,
            session_start_us: self.start.0,
            session_end_us: self.end.0,
            views: self.views,
            carts: self.carts,
            purchases: self.purchases,
            products_viewed: self.products_viewed,
            products_carted: self.products_carted,
            products_purchased: self.products_purchased,
            revenue_cents: self.revenue.0,
            furthest_stage: self.furthest_stage.proto().into(),
            entry_category_code: self.entry_category_code,
            exit_category_code: self.exit_category_code,
            last_event_type: self.last_event_type.proto().into(),
            left_in_cart: left.collect(),
        };
        encode_view(&view, format, out);
    }

    fn from_view(view: proto::SessionView<'a>) -> Result<Self, DecodeError> {
        let last_event_type = match enumeration("last_event_type", view.last_event_type)? {
            proto::EventType::VIEW => EventType::View,
            proto::EventType::CART => EventType::Cart,
            proto::EventType::PURCHASE => EventType::Purchase,
            _ => return Err(DecodeError::field("last_event_type", "it must be VIEW, CART or PURCHASE")),
        };
        let left = view.left_in_cart.iter().map(|left| LeftInCart {
            product_id: left.product_id,
            category_code: left.category_code,
            brand: left.brand,
            value: Cents(left.value_cents),
        });
        Ok(Self {
            source: view.source.parse().map_err(|e| DecodeError::field("source", e))?,
            session_id: view.session_id,
            part: view.part,
            user_id: view.user_id,
            users: view.users,
            start: EventTime(view.session_start_us),
            end: EventTime(view.session_end_us),
            views: view.views,
            carts: view.carts,
            purchases: view.purchases,
            products_viewed: view.products_viewed,
            products_carted: view.products_carted,
            products_purchased: view.products_purchased,
            revenue: Cents(view.revenue_cents),
            furthest_stage: Stage::from_proto("furthest_stage", view.furthest_stage)?,
            entry_category_code: view.entry_category_code,
            exit_category_code: view.exit_category_code,
            last_event_type,
            left_in_cart: left.collect(),
        })
    }

    fn from_protobuf(mut from: &'a [u8]) -> Option<Self> {
        let mut session = Self {
            source: SourceId(0),
            session_id: "",
            part: 0,
            user_id: 0,
            users: 0,
            start: EventTime(0),
            end: EventTime(0),
            views: 0,
            carts: 0,
            purchases: 0,
            products_viewed: 0,
            products_carted: 0,
            products_purchased: 0,
            revenue: Cents(0),
            furthest_stage: Stage::View,
            entry_category_code: "",
            exit_category_code: "",
            last_event_type: EventType::View,
            left_in_cart: Vec::new(),
        };
        let (mut source, mut furthest_stage, mut last_event_type) = ("", 0, 0);
        while !from.is_empty() {
            match varint(&mut from)? {
                SOURCE => source = text(&mut from)?,
                SESSION_ID => session.session_id = text(&mut from)?,
                PART => session.part = short(&mut from)?,
                USER_ID => session.user_id = signed(&mut from)?,
                USERS => session.users = short(&mut from)?,
                START => session.start = EventTime(signed(&mut from)?),
                END => session.end = EventTime(signed(&mut from)?),
                VIEWS => session.views = short(&mut from)?,
                CARTS => session.carts = short(&mut from)?,
                PURCHASES => session.purchases = short(&mut from)?,
                PRODUCTS_VIEWED => session.products_viewed = short(&mut from)?,
                PRODUCTS_CARTED => session.products_carted = short(&mut from)?,
                PRODUCTS_PURCHASED => session.products_purchased = short(&mut from)?,
                REVENUE => session.revenue = Cents(signed(&mut from)?),
                FURTHEST_STAGE => furthest_stage = varint(&mut from)?,
                ENTRY => session.entry_category_code = text(&mut from)?,
                EXIT => session.exit_category_code = text(&mut from)?,
                LAST_EVENT_TYPE => last_event_type = varint(&mut from)?,
                // What was left in the cart, among others: few sessions leave anything.
                _ => return None,
            }
        }
        session.source = source.parse().ok()?;
        session.furthest_stage = Stage::from_number(furthest_stage)?;
        session.last_event_type = match last_event_type {
            1 => EventType::View,
            2 => EventType::Cart,
            3 => EventType::Purchase,
            _ => return None,
        };
        Some(session)
    }
}

const SOURCE: u64 = text_key(1);
const SESSION_ID: u64 = text_key(2);
const PART: u64 = varint_key(3);
const USER_ID: u64 = varint_key(4);
const USERS: u64 = varint_key(5);
const START: u64 = varint_key(6);
const END: u64 = varint_key(7);
const VIEWS: u64 = varint_key(8);
const CARTS: u64 = varint_key(9);
const PURCHASES: u64 = varint_key(10);
const PRODUCTS_VIEWED: u64 = varint_key(11);
const PRODUCTS_CARTED: u64 = varint_key(12);
const PRODUCTS_PURCHASED: u64 = varint_key(13);
const REVENUE: u64 = varint_key(14);
const FURTHEST_STAGE: u64 = varint_key(15);
const ENTRY: u64 = text_key(16);
const EXIT: u64 = text_key(17);
const LAST_EVENT_TYPE: u64 = varint_key(18);

impl Session<'_> {
    /// All but what was left in the cart.
    fn to_protobuf(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::new();
        fields.put_digits(1, self.source.digits());
        fields.put_text(2, self.session_id, out);
        fields.put(3, u64::from(self.part));
        fields.put_signed(4, self.user_id);
        fields.put(5, u64::from(self.users));
        fields.put_signed(6, self.start.0);
        fields.put_signed(7, self.end.0);
        fields.put(8, u64::from(self.views));
        fields.put(9, u64::from(self.carts));
        fields.put(10, u64::from(self.purchases));
        fields.put(11, u64::from(self.products_viewed));
        fields.put(12, u64::from(self.products_carted));
        fields.put(13, u64::from(self.products_purchased));
        fields.put_signed(14, self.revenue.0);
        fields.put(15, self.furthest_stage.number());
        fields.put_text(16, self.entry_category_code, out);
        fields.put_text(17, self.exit_category_code, out);
        fields.put(18, 1 + self.last_event_type as u64);
        fields.flush(out);
    }
}
