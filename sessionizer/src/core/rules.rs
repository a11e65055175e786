//! When a session ends.
use std::fmt;
use std::time::Duration;

use records::EventTime;

/// The pause that ends a session. An event after a pause of exactly this long still belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    After(Duration),
    /// No pause does: one session a key, until the feed ends.
    None,
}

/// What cuts events into sessions. Recorded at first use: every part of the output depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub gap: Gap,
    /// How much longer a session stays open, for events that come out of order.
    pub allowed_lateness: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { gap: Gap::After(Duration::from_secs(30 * 60)), allowed_lateness: Duration::ZERO }
    }
}

impl Rules {
    /// Whether an event at `time` begins a new session after one whose greatest time is `last`.
    pub(super) fn splits(&self, last: EventTime, time: EventTime) -> bool {
        match self.gap {
            Gap::After(gap) => time.0 > last.0.saturating_add(micros(gap)),
            Gap::None => false,
        }
    }

    /// Whether a session whose greatest time is `last` is to be closed at `clock`.
    pub(super) fn closes(&self, last: EventTime, clock: EventTime) -> bool {
        match self.gap {
            Gap::After(gap) => {
                clock.0 > last.0.saturating_add(micros(gap)).saturating_add(micros(self.allowed_lateness))
            }
            Gap::None => false,
        }
    }

    /// Whether a session that an event at `time` belongs to may be closed already.
    pub(super) fn late(&self, time: EventTime, clock: EventTime) -> bool {
        self.gap != Gap::None && time.0.saturating_add(micros(self.allowed_lateness)) < clock.0
    }
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// As it is typed: `30m`, `90s`, `none`.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(gap) => Typed(*gap).fmt(f),
            Self::None => f.write_str("none"),
        }
    }
}

/// A duration as it is typed.
pub(crate) struct Typed(pub(crate) Duration);

impl fmt::Display for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            d if d.subsec_millis() != 0 => write!(f, "{}ms", d.as_millis()),
            d if d.as_secs() % 60 == 0 && !d.is_zero() => write!(f, "{}m", d.as_secs() / 60),
            d => write!(f, "{}s", d.as_secs()),
        }
    }
}
