//! The records of the topic `funnel-steps`.
use crate::codec::{DecodeError, Format, Message, encode_view, enumeration};
use crate::proto;
use crate::wire::{Fields, flag, signed, text, text_key, varint, varint_key};
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

    /// In `records.proto`.
    pub(crate) const fn number(self) -> u64 {
        1 + self as u64
    }

    pub(crate) const fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::View),
            2 => Some(Self::Cart),
            3 => Some(Self::Purchase),
            _ => None,
        }
    }

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
        if format == Format::Protobuf {
            return self.to_protobuf(out);
        }
        let source = self.source.digits();
        let view = proto::FunnelStepView {
            source: std::str::from_utf8(&source).unwrap_or_default(),
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

    fn from_protobuf(mut from: &'a [u8]) -> Option<Self> {
        let mut step = Self {
            source: SourceId(0),
            session_id: "",
            user_id: 0,
            product_id: 0,
            stage: Stage::View,
            step_time: EventTime(0),
            category_id: None,
            category_code: "",
            brand: "",
            price: Cents(0),
            first_touch_time: EventTime(0),
            after_view: false,
            after_cart: false,
            opens_session: false,
            session_start: EventTime(0),
        };
        let (mut source, mut stage) = ("", 0);
        while !from.is_empty() {
            match varint(&mut from)? {
                SOURCE => source = text(&mut from)?,
                SESSION_ID => step.session_id = text(&mut from)?,
                USER_ID => step.user_id = signed(&mut from)?,
                PRODUCT_ID => step.product_id = signed(&mut from)?,
                STAGE => stage = varint(&mut from)?,
                STEP_TIME => step.step_time = EventTime(signed(&mut from)?),
                CATEGORY_ID => step.category_id = Some(signed(&mut from)?),
                CATEGORY_CODE => step.category_code = text(&mut from)?,
                BRAND => step.brand = text(&mut from)?,
                PRICE => step.price = Cents(signed(&mut from)?),
                FIRST_TOUCH_TIME => step.first_touch_time = EventTime(signed(&mut from)?),
                AFTER_VIEW => step.after_view = flag(&mut from)?,
                AFTER_CART => step.after_cart = flag(&mut from)?,
                OPENS_SESSION => step.opens_session = flag(&mut from)?,
                SESSION_START => step.session_start = EventTime(signed(&mut from)?),
                _ => return None,
            }
        }
        step.source = source.parse().ok()?;
        step.stage = Stage::from_number(stage)?;
        Some(step)
    }
}

const SOURCE: u64 = text_key(1);
const SESSION_ID: u64 = text_key(2);
const USER_ID: u64 = varint_key(3);
const PRODUCT_ID: u64 = varint_key(4);
const STAGE: u64 = varint_key(5);
const STEP_TIME: u64 = varint_key(6);
const CATEGORY_ID: u64 = varint_key(7);
const CATEGORY_CODE: u64 = text_key(8);
const BRAND: u64 = text_key(9);
const PRICE: u64 = varint_key(10);
const FIRST_TOUCH_TIME: u64 = varint_key(11);
const AFTER_VIEW: u64 = varint_key(12);
const AFTER_CART: u64 = varint_key(13);
const OPENS_SESSION: u64 = varint_key(14);
const SESSION_START: u64 = varint_key(15);

impl FunnelStep<'_> {
    fn to_protobuf(self, out: &mut Vec<u8>) {
        let mut fields = Fields::new();
        fields.put_digits(1, self.source.digits());
        fields.put_text(2, self.session_id, out);
        fields.put_signed(3, self.user_id);
        fields.put_signed(4, self.product_id);
        fields.put(5, self.stage.number());
        fields.put_signed(6, self.step_time.0);
        if let Some(category_id) = self.category_id {
            fields.put_present(7, category_id.cast_unsigned());
        }
        fields.put_text(8, self.category_code, out);
        fields.put_text(9, self.brand, out);
        fields.put_signed(10, self.price.0);
        fields.put_signed(11, self.first_touch_time.0);
        fields.put(12, u64::from(self.after_view));
        fields.put(13, u64::from(self.after_cart));
        fields.put(14, u64::from(self.opens_session));
        fields.put_signed(15, self.session_start.0);
        fields.flush(out);
    }
}
