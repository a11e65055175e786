//! The records that cross a topic: what they say, how they are written, and the types of money,
//! time and identity in them. No clock but [`clock`], no I/O.
//!
//! | file | what it holds |
//! |---|---|
//! | `proto/clickstream/v1/records.proto` | the one definition: Protobuf and its canonical JSON |
//! | `generated/` | what `make proto` makes of it (borrowing views; not edited by hand) |
//! | `codec` | [`Format`], [`Decoder`], `encode`: either form to and from the types here |
//! | `in_order` | the quick way to read what encoders write |
//! | `event`, `step`, `session` | the three records with a typed form of their own |
//! | `feed` | [`SourceId`], [`Feed`], the session key |
//! | `money`, `time`, `text` | [`Cents`], [`EventTime`], [`utf8`] |
//! | `topics` | names and default settings of the topics |
//! | `clock` | the only place where a clock is read |
//! | `ages` | the buckets of histograms of ages |

mod ages;
pub mod clock;
mod codec;
mod event;
mod feed;
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs, unsafe_code)]
mod generated;
mod in_order;
mod money;
mod session;
mod step;
mod text;
mod time;
pub mod topics;

/// The messages as generated, for the records that need no type of their own.
pub mod proto {
    pub use crate::generated::clickstream::v1::*;
}

pub use ages::ages;
pub use codec::{
    CONTENT_TYPE, DecodeError, Decoder, Format, INTENDED_AT, Message, SENT_AT, encode_owned, encode_view,
    micros_header, read_micros_header, to_json,
};
pub use event::{EventType, EventsRecord, Mark, ShopEvent};
pub use feed::{Feed, SessionKey, SourceId};
pub use in_order::InOrder;
pub use money::{Cents, MoneyError};
pub use session::{LeftInCart, Session};
pub use step::{FunnelStep, Stage};
pub use text::utf8;
pub use time::{EventTime, TimeError};
