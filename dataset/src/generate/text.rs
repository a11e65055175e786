//! Rows as the store's files have them: CSV, without quotes.
use std::io::Write;
use std::sync::Arc;

use records::EventTime;
use uuid::Builder;

use super::model::Model;
use super::session::Kind;
use super::stream::Row;

pub const HEADER: &str =
    "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n";

/// Writes rows; the text of a second is made once.
pub(super) struct Writer {
    model: Arc<Model>,
    second: u32,
    time: Vec<u8>,
}

impl Writer {
    pub(super) fn new(model: Arc<Model>) -> Self {
        Self { model, second: u32::MAX, time: Vec::new() }
    }

    pub(super) fn write(&mut self, row: &Row, out: &mut Vec<u8>) {
        if row.second != self.second {
            self.second = row.second;
            self.time.clear();
            let seconds = self.model.month.first_day() * 86_400 + i64::from(row.second);
            let _ = write!(self.time, "{},", EventTime::from_seconds(seconds));
        }
        out.extend_from_slice(&self.time);
        out.extend_from_slice(match row.kind {
            Kind::View => b"view",
            Kind::Cart => b"cart",
            Kind::Purchase => b"purchase",
        });
        out.extend_from_slice(self.model.product_text(row.product));
        out.extend_from_slice(itoa::Buffer::new().format(row.user).as_bytes());
        out.push(b',');
        if row.session != 0 {
            let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
            id(row.session).hyphenated().encode_lower(&mut text);
            out.extend_from_slice(&text);
        }
        out.push(b'\n');
    }
}

/// The id that a session has in the data.
fn id(session: u64) -> uuid::Uuid {
    // As SplitMix64 mixes.
    let mix = |n: u64| {
        let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        n ^ (n >> 31)
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(session).to_be_bytes());
    bytes[8..].copy_from_slice(&mix(!session).to_be_bytes());
    Builder::from_random_bytes(bytes).into_uuid()
}
