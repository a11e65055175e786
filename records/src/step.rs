//! The records of the topic `funnel-steps`.
use crate::codec::{DecodeError, Format, Message, encode_view, enumeration};
use crate::in_order::InOrder;
use crate::proto;
use crate::text::utf8;
use crate::{Cents, EventTime, EventType, SourceId};

/// A stage of the funnel, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    View,
    Cart,
    Purchase,
}

/// A session reached a stage for a product, the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunnelStep<'a> {
    pub source: SourceId,
    pub session_id: &'a str,
    pub user_id: i64,
    pub product_id: i64,
    pub stage: Stage,
    pub step_time: EventTime,
    /// These four: as the first event of this product in this session had them.
    pub category_id: Option<i64>,
    pub category_code: &'a str,
    pub brand: &'a str,
    pub price: Cents,
    pub first_touch_time: EventTime,
    pub after_view: bool,
    pub after_cart: bool,
    pub opens_session: bool,
    pub session_start: EventTime,
}

impl Stage {
    pub const ALL: [Self; 3] = [Self::View, Self::Cart, Self::Purchase];

    /// `view`, `cart`, `purchase`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Cart => "cart",
            Self::Purchase => "purchase",
        }
    }

    pub(crate) const fn proto(self) -> proto::Stage {
        match self {
            Self::View => proto::Stage::STAGE_VIEW,
            Self::Cart => proto::Stage::STAGE_CART,
            Self::Purchase => proto::Stage::STAGE_PURCHASE,
        }
    }

    #[inline]
    pub(crate) fn from_proto(field: &'static str, stage: buffa::EnumValue<proto::Stage>) -> Result<Self, DecodeError> {
        match enumeration(field, stage)? {
            proto::Stage::STAGE_VIEW => Ok(Self::View),
            proto::Stage::STAGE_CART => Ok(Self::Cart),
            proto::Stage::STAGE_PURCHASE => Ok(Self::Purchase),
            proto::Stage::STAGE_UNSPECIFIED => Err(DecodeError::field(field, "it must be set")),
        }
    }
}

impl From<EventType> for Stage {
    fn from(event_type: EventType) -> Self {
        match event_type {
            EventType::View => Self::View,
            EventType::Cart => Self::Cart,
            EventType::Purchase => Self::Purchase,
        }
    }
}

impl<'a> Message<'a> for FunnelStep<'a> {
    type View = proto::FunnelStepView<'a>;

    const NAME: &'static str = "FunnelStep";

    fn encode(&self, format: Format, out: &mut Vec<u8>) {
        let source = self.source.digits();
        let view = proto::FunnelStepView {
            source: utf8(&source).unwrap_or_default(),
            session_id: self.session_id,
            user_id: self.user_id,
            product_id: self.product_id,
            stage: self.stage.proto().into(),
            step_time_us: self.step_time.0,
            category_id: self.category_id,
            category_code: self.category_code,
            brand: self.brand,
            price_cents: self.price.0,
            first_touch_time_us: self.first_touch_time.0,
            after_view: self.after_view,
            after_cart: self.after_cart,
            opens_session: self.opens_session,
            session_start_us: self.session_start.0,
        };
        encode_view(&view, format, out);
    }

    #[inline]
    fn in_order(fields: &mut InOrder<'a>) -> Self::View {
        proto::FunnelStepView {
            source: fields.text(1),
            session_id: fields.text(2),
            user_id: fields.i64(3),
            product_id: fields.i64(4),
            stage: fields.i32(5).into(),
            step_time_us: fields.i64(6),
            category_id: fields.number(7).map(u64::cast_signed),
            category_code: fields.text(8),
            brand: fields.text(9),
            price_cents: fields.i64(10),
            first_touch_time_us: fields.i64(11),
            after_view: fields.bool(12),
            after_cart: fields.bool(13),
            opens_session: fields.bool(14),
            session_start_us: fields.i64(15),
        }
    }

    #[inline]
    fn from_view(view: proto::FunnelStepView<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            source: view.source.parse().map_err(|e| DecodeError::field("source", e))?,
            session_id: view.session_id,
            user_id: view.user_id,
            product_id: view.product_id,
            stage: Stage::from_proto("stage", view.stage)?,
            step_time: EventTime(view.step_time_us),
            category_id: view.category_id,
            category_code: view.category_code,
            brand: view.brand,
            price: Cents(view.price_cents),
            first_touch_time: EventTime(view.first_touch_time_us),
            after_view: view.after_view,
            after_cart: view.after_cart,
            opens_session: view.opens_session,
            session_start: EventTime(view.session_start_us),
        })
    }
}
