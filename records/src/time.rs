//! Event time: UTC, in microseconds, and the calendar keys of the marts.
use std::fmt;

/// Microseconds since 1970-01-01T00:00:00Z. (The data has whole seconds; a shift may move them.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub i64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is YYYY-MM-DD HH:MM:SS UTC (+00:00 is taken for UTC)")]
pub struct TimeError;

const SECOND: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;

impl EventTime {
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds * SECOND)
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(SECOND)
    }

    /// Milliseconds since 1970, rounded down: the timestamp of a record.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Days since 1970: the UTC day.
    pub const fn day(self) -> i64 {
        self.0.div_euclid(DAY_SECONDS * SECOND)
    }

    /// Hours since 1970: the UTC hour.
    pub const fn hour(self) -> i64 {
        self.0.div_euclid(3600 * SECOND)
    }

    /// `YYYY-MM-DD` of the day.
    pub fn day_text(self) -> String {
        let (year, month, day) = civil_from_days(self.day());
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// `YYYY-MM-DD` of the first day of the month.
    pub fn month_text(self) -> String {
        let (year, month, _) = civil_from_days(self.day());
        format!("{year:04}-{month:02}-01")
    }

    /// The first day of the month, in days since 1970.
    pub fn month(self) -> i64 {
        let (_, _, day) = civil_from_days(self.day());
        self.day() - i64::from(day) + 1
    }

    /// `YYYY-MM-DD HH:00:00`.
    pub fn hour_text(self) -> String {
        format!("{} {:02}:00:00", self.day_text(), self.hour().rem_euclid(24))
    }

    pub const fn from_days(days: i64) -> Self {
        Self(days * DAY_SECONDS * SECOND)
    }

    pub const fn from_hours(hours: i64) -> Self {
        Self(hours * 3600 * SECOND)
    }

    /// Reads `2019-10-01 00:00:00 UTC`; also with `+00:00` or `Z` at its end, or with a T between.
    pub fn parse(text: &[u8]) -> Result<Self, TimeError> {
        let (stamp, zone) = text.split_at_checked(19).ok_or(TimeError)?;
        if !matches!(zone, b" UTC" | b"+00:00" | b" +00:00" | b"Z") {
            return Err(TimeError);
        }
        let punctuation = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
        if punctuation.iter().any(|(at, mark)| stamp[*at] != *mark) || !matches!(stamp[10], b' ' | b'T') {
            return Err(TimeError);
        }
        let number = |from: usize, to: usize| {
            stamp[from..to].iter().try_fold(0_u32, |n, b| {
                if b.is_ascii_digit() { Ok(n * 10 + u32::from(b - b'0')) } else { Err(TimeError) }
            })
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month) || day == 0 || hour > 23 || minute > 59 || second > 59 {
            return Err(TimeError);
        }
        if day > days_in_month(year, month) {
            return Err(TimeError);
        }
        let seconds = i64::from(hour * 3600 + minute * 60 + second);
        Ok(Self::from_seconds(days_from_civil(i64::from(year), month, day) * DAY_SECONDS + seconds))
    }
}

/// `YYYY-MM-DD HH:MM:SS UTC`, as the data has it.
impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.day());
        let second = self.seconds().rem_euclid(DAY_SECONDS);
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02} UTC")
    }
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970 of a date of the proleptic Gregorian calendar (H. Hinnant, days_from_civil).
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let shifted = i64::from((month + 9) % 12);
    let day_of_year = (153 * shifted + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The other way round (civil_from_days): year, month, day.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 31")]
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_what_the_data_has() {
        for (text, expected) in [
            ("2019-10-01 00:00:00 UTC", Some(1_569_888_000)),
            ("2019-10-01 00:00:00+00:00", Some(1_569_888_000)),
            ("2019-10-01T00:00:00Z", Some(1_569_888_000)),
            ("2020-02-29 23:59:59 UTC", Some(1_583_020_799)),
            ("1970-01-01 00:00:00 UTC", Some(0)),
            ("2019-02-29 00:00:00 UTC", None),
            ("2019-10-01 24:00:00 UTC", None),
            ("2019-10-01 00:00:00", None),
            ("2019-10-01 00:00:00 CET", None),
            ("2019-10-01 00:00:00+01:00", None),
            ("01/10/2019 00:00:00 UTC", None),
            ("", None),
            ("2019-1é-01 00:00:00 UTC", None),
        ] {
            let got = EventTime::parse(text.as_bytes()).ok();
            assert_eq!(got, expected.map(EventTime::from_seconds), "{text}");
        }
    }

    #[test]
    fn calendar_keys() {
        let t = EventTime::parse(b"2019-11-17 14:05:09 UTC").unwrap_or_default();
        assert_eq!(
            (t.day_text(), t.month_text(), t.hour_text()),
            ("2019-11-17".into(), "2019-11-01".into(), "2019-11-17 14:00:00".into())
        );
        assert_eq!(EventTime::from_days(t.month()).day_text(), "2019-11-01");
    }

    proptest! {
        #[test]
        fn text_round_trips(seconds in 0_i64..253_402_300_800) {
            let time = EventTime::from_seconds(seconds);
            prop_assert_eq!(EventTime::parse(time.to_string().as_bytes()), Ok(time));
        }
    }
}
