//! The records of the topic `events`.
use crate::codec::{DecodeError, Format, Message, encode_view, enumeration};
use crate::in_order::InOrder;
use crate::proto;
use crate::text::utf8;
use crate::{Cents, EventTime, Feed, SessionKey, SourceId};

/// What a shopper did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    View,
    Cart,
    Purchase,
}

/// A row of the data, and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShopEvent<'a> {
    pub feed: Feed,
    pub time: EventTime,
    /// From 0, through the whole list of files, bad rows included.
    pub source_row: u64,
    /// 0, but for copies made on purpose.
    pub copy: u32,
    pub event_type: EventType,
    pub product_id: i64,
    pub category_id: Option<i64>,
    /// Empty where the data has none; so is `brand`.
    pub category_code: &'a str,
    pub brand: &'a str,
    pub price: Cents,
    pub user_id: i64,
    pub user_session: &'a str,
}

/// A feed's clock, or its end with the clock it ended at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub feed: Feed,
    pub clock: EventTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventsRecord<'a> {
    Event(ShopEvent<'a>),
    Watermark(Mark),
    End(Mark),
}

impl EventType {
    /// `view`, `cart`, `purchase`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Cart => "cart",
            Self::Purchase => "purchase",
        }
    }

    pub(crate) const fn proto(self) -> proto::EventType {
        match self {
            Self::View => proto::EventType::VIEW,
            Self::Cart => proto::EventType::CART,
            Self::Purchase => proto::EventType::PURCHASE,
        }
    }
}

impl<'a> ShopEvent<'a> {
    #[inline]
    pub fn session_key(&self) -> SessionKey<'a> {
        SessionKey::of(self.user_session, self.user_id)
    }
}

impl<'a> Message<'a> for EventsRecord<'a> {
    type View = proto::EventView<'a>;

    const NAME: &'static str = "Event";

    fn encode(&self, format: Format, out: &mut Vec<u8>) {
        let mark = |event_type: proto::EventType, mark: &Mark| (event_type, mark.feed, mark.clock);
        let (event_type, feed, time) = match self {
            Self::Event(event) => (event.event_type.proto(), event.feed, event.time),
            Self::Watermark(at) => mark(proto::EventType::WATERMARK, at),
            Self::End(at) => mark(proto::EventType::END, at),
        };
        let source = feed.source.digits();
        let mut view = proto::EventView {
            event_type: event_type.into(),
            source: utf8(&source).unwrap_or_default(),
            shard: feed.shard,
            event_time_us: time.0,
            ..Default::default()
        };
        if let Self::Event(event) = self {
            view.source_row = event.source_row;
            view.copy = event.copy;
            view.product_id = event.product_id;
            view.category_id = event.category_id;
            view.category_code = event.category_code;
            view.brand = event.brand;
            view.price_cents = event.price.0;
            view.user_id = event.user_id;
            view.user_session = event.user_session;
        }
        encode_view(&view, format, out);
    }

    #[inline]
    fn in_order(fields: &mut InOrder<'a>) -> Self::View {
        proto::EventView {
            event_type: fields.i32(1).into(),
            source: fields.text(2),
            shard: fields.u32(3),
            event_time_us: fields.i64(4),
            source_row: fields.u64(5),
            copy: fields.u32(6),
            product_id: fields.i64(7),
            category_id: fields.number(8).map(u64::cast_signed),
            category_code: fields.text(9),
            brand: fields.text(10),
            price_cents: fields.i64(11),
            user_id: fields.i64(12),
            user_session: fields.text(13),
        }
    }

    #[inline]
    fn from_view(view: proto::EventView<'a>) -> Result<Self, DecodeError> {
        let source: SourceId = view.source.parse().map_err(|e| DecodeError::field("source", e))?;
        let feed = Feed { source, shard: view.shard };
        let time = EventTime(view.event_time_us);
        let mark = Mark { feed, clock: time };
        let event_type = match enumeration("event_type", view.event_type)? {
            proto::EventType::WATERMARK => return Ok(Self::Watermark(mark)),
            proto::EventType::END => return Ok(Self::End(mark)),
            proto::EventType::VIEW => EventType::View,
            proto::EventType::CART => EventType::Cart,
            proto::EventType::PURCHASE => EventType::Purchase,
            proto::EventType::EVENT_TYPE_UNSPECIFIED => {
                return Err(DecodeError::field("event_type", "it must be set"));
            }
        };
        if view.price_cents < 0 || view.price_cents > Cents::MAX_PRICE.0 {
            return Err(DecodeError::field("price_cents", "it must be 0 to 999999999999"));
        }
        Ok(Self::Event(ShopEvent {
            feed,
            time,
            source_row: view.source_row,
            copy: view.copy,
            event_type,
            product_id: view.product_id,
            category_id: view.category_id,
            category_code: view.category_code,
            brand: view.brand,
            price: Cents(view.price_cents),
            user_id: view.user_id,
            user_session: view.user_session,
        }))
    }
}
