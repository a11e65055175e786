//! Either form of a record, Protobuf or JSON, to and from its typed form.
//!
//! Protobuf is decoded in place: strings borrow from the record. JSON is turned into Protobuf
//! first, in a buffer that the [`Decoder`] keeps, so that there is one way to read a record; records
//! of the busy topics that look as encoders write them take a quicker one ([`in_order`]).
use buffa::{EnumValue, Enumeration, Message as _, MessageView, ViewEncode};
use std::fmt;
use std::str::FromStr;

use crate::in_order::{self, InOrder};

/// The header that says which form a value has.
pub const CONTENT_TYPE: &str = "content-type";
/// When the schedule meant the record to be sent; [`micros_header`].
pub const INTENDED_AT: &str = "intended-at";
/// When it was sent; [`micros_header`].
pub const SENT_AT: &str = "sent-at";

/// How values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Protobuf,
    Json,
}

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the value is not a {message} of clickstream/v1/records.proto: {why}")]
    Malformed { message: &'static str, why: String },
    #[error("the field {field} is wrong: {why}")]
    Field { field: &'static str, why: String },
    #[error("the header content-type says {0:?}; it must be application/x-protobuf (or absent) or application/json")]
    ContentType(String),
}

/// A typed record.
pub trait Message<'a>: Sized {
    /// What it crosses the wire as.
    type View: MessageView<'a>;

    /// Its name in `records.proto`.
    const NAME: &'static str;

    /// Appends the value to `out`.
    fn encode(&self, format: Format, out: &mut Vec<u8>);

    /// All its fields, as encoders write them; what stands behind them is read the long way.
    fn in_order(fields: &mut InOrder<'a>) -> Self::View;

    fn from_view(view: Self::View) -> Result<Self, DecodeError>;
}

/// Reads values of either form. Keeps a buffer for those that are JSON.
#[derive(Debug, Default)]
pub struct Decoder {
    transcoded: Vec<u8>,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a typed record. `content_type` is the header's value; absent means Protobuf.
    pub fn decode<'a, M>(&'a mut self, content_type: Option<&[u8]>, value: &'a [u8]) -> Result<M, DecodeError>
    where
        M: Message<'a>,
        <M::View as MessageView<'a>>::Owned: serde::de::DeserializeOwned,
    {
        let quickly = match content_type {
            Some(b"application/x-protobuf") | None => in_order::read(value, M::in_order),
            Some(_) => None,
        };
        M::from_view(quickly.map_or_else(|| self.view(M::NAME, content_type, value), Ok)?)
    }

    /// Reads a record that has no type of its own; `name` is for the error.
    pub fn view<'a, V>(
        &'a mut self,
        name: &'static str,
        content_type: Option<&[u8]>,
        value: &'a [u8],
    ) -> Result<V, DecodeError>
    where
        V: MessageView<'a>,
        V::Owned: serde::de::DeserializeOwned,
    {
        let malformed = |why: &dyn fmt::Display| DecodeError::Malformed { message: name, why: why.to_string() };
        let protobuf = match Format::of(content_type)? {
            Format::Protobuf => value,
            Format::Json => {
                let owned: V::Owned = serde_json::from_slice(value).map_err(|e| malformed(&e))?;
                self.transcoded.clear();
                owned.encode(&mut self.transcoded);
                &self.transcoded
            }
        };
        V::decode_view(protobuf).map_err(|e| malformed(&e))
    }
}

/// Appends a generated view to `out`.
pub fn encode_view<'v>(view: &(impl ViewEncode<'v> + serde::Serialize), format: Format, out: &mut Vec<u8>) {
    match format {
        Format::Protobuf => view.encode(out),
        // Writing to memory, and maps with string keys only: serde_json has nothing to refuse.
        Format::Json => serde_json::to_writer(out, view).unwrap_or_default(),
    }
}

/// Appends a generated message that owns what it says to `out`.
pub fn encode_owned(message: &(impl buffa::Message + serde::Serialize), format: Format, out: &mut Vec<u8>) {
    match format {
        Format::Protobuf => message.encode(out),
        Format::Json => serde_json::to_writer(out, message).unwrap_or_default(),
    }
}

/// The value of a header that holds a time: microseconds since 1970, 8 bytes, big-endian.
#[inline]
pub fn micros_header(us: i64) -> [u8; 8] {
    us.to_be_bytes()
}

#[inline]
pub fn read_micros_header(value: &[u8]) -> Option<i64> {
    value.try_into().ok().map(i64::from_be_bytes)
}

/// A record of one of our topics (by its name without the prefix), as its canonical JSON.
pub fn to_json(
    topic: &str,
    key: &[u8],
    content_type: Option<&[u8]>,
    value: &[u8],
) -> Result<serde_json::Value, DecodeError> {
    use crate::{proto, topics};
    match topic {
        topics::EVENTS => owned_json::<proto::Event>("Event", content_type, value),
        topics::FUNNEL_STEPS => owned_json::<proto::FunnelStep>("FunnelStep", content_type, value),
        topics::SESSIONS => owned_json::<proto::Session>("Session", content_type, value),
        topics::DEAD_LETTERS => owned_json::<proto::DeadLetter>("DeadLetter", content_type, value),
        // The key is a feed, `<source>/<shard>`, or a source.
        topics::REPLAY_PROGRESS if key.contains(&b'/') => {
            owned_json::<proto::ReplayProgress>("ReplayProgress", content_type, value)
        }
        topics::REPLAY_PROGRESS => owned_json::<proto::SourceDescription>("SourceDescription", content_type, value),
        topics::REPLAY_CONTROL => owned_json::<proto::ReplayControl>("ReplayControl", content_type, value),
        other => Err(DecodeError::field("topic", format!("{other} is none of {:?}", topics::ALL))),
    }
}

fn owned_json<M>(
    message: &'static str,
    content_type: Option<&[u8]>,
    value: &[u8],
) -> Result<serde_json::Value, DecodeError>
where
    M: buffa::Message + serde::Serialize + serde::de::DeserializeOwned,
{
    let malformed = |why: &dyn fmt::Display| DecodeError::Malformed { message, why: why.to_string() };
    let owned: M = match Format::of(content_type)? {
        Format::Protobuf => M::decode_from_slice(value).map_err(|e| malformed(&e))?,
        Format::Json => serde_json::from_slice(value).map_err(|e| malformed(&e))?,
    };
    serde_json::to_value(&owned).map_err(|e| malformed(&e))
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    #[inline]
    fn of(content_type: Option<&[u8]>) -> Result<Self, DecodeError> {
        match content_type {
            None | Some(b"application/x-protobuf" | b"application/protobuf" | b"") => Ok(Self::Protobuf),
            Some(b"application/json") => Ok(Self::Json),
            Some(other) => Err(DecodeError::ContentType(String::from_utf8_lossy(other).into_owned())),
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "protobuf" => Ok(Self::Protobuf),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not a format: protobuf or json")),
        }
    }
}

impl DecodeError {
    pub(crate) fn field(field: &'static str, why: impl fmt::Display) -> Self {
        Self::Field { field, why: why.to_string() }
    }
}

/// The known value of an enumeration.
#[inline]
pub(crate) fn enumeration<E: Enumeration + fmt::Debug>(
    field: &'static str,
    value: EnumValue<E>,
) -> Result<E, DecodeError> {
    match value {
        EnumValue::Known(known) => Ok(known),
        EnumValue::Unknown(number) => Err(DecodeError::field(field, format!("{number} is not known here"))),
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
#[allow(clippy::expect_used)]
mod tests;
