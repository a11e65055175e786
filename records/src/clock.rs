//! The only place where a clock is read. Everything else takes a time as an argument.
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970 by the wall clock: for what people and other machines read.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    }
}

/// The monotonic clock: for what is waited for and measured.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Instant {
    Instant::now()
}
