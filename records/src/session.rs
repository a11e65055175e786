//! The records of the topic `sessions`.
use crate::codec::{DecodeError, Format, Message, encode_view, enumeration};
use crate::in_order::InOrder;
use crate::proto;
use crate::text::utf8;
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
        let source = self.source.digits();
        let left = self.left_in_cart.iter().map(|left| proto::LeftInCartView {
            product_id: left.product_id,
            category_code: left.category_code,
            brand: left.brand,
            value_cents: left.value.0,
        });
        let view = proto::SessionView {
            source: utf8(&source).unwrap_or_default(),
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

    /// But for `left_in_cart`, which few sessions have.
    #[inline]
    fn in_order(fields: &mut InOrder<'a>) -> Self::View {
        proto::SessionView {
            source: fields.text(1),
            session_id: fields.text(2),
            part: fields.u32(3),
            user_id: fields.i64(4),
            users: fields.u32(5),
            session_start_us: fields.i64(6),
            session_end_us: fields.i64(7),
            views: fields.u32(8),
            carts: fields.u32(9),
            purchases: fields.u32(10),
            products_viewed: fields.u32(11),
            products_carted: fields.u32(12),
            products_purchased: fields.u32(13),
            revenue_cents: fields.i64(14),
            furthest_stage: fields.i32(15).into(),
            entry_category_code: fields.text(16),
            exit_category_code: fields.text(17),
            last_event_type: fields.i32(18).into(),
            left_in_cart: buffa::RepeatedView::default(),
        }
    }

    #[inline]
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
}
