//! When sessions begin, and how ready to buy they are: the month as hours with weights. Pure.
use records::EventTime;

use super::facts::{Facts, NOVEMBER, to_f64};

const HOURS: usize = 24;
/// Hours since 1970 in which nothing was recorded: 2020-02-27 05:00 to 2020-02-28 09:00.
const OUTAGE: std::ops::Range<i64> = (18_319 * 24 + 5)..(18_320 * 24 + 9);
const HOUR_SECONDS: f64 = 3600.0;
/// The share of an hour's events that belong to sessions of the hour before.
const RUN_ON: f64 = 0.09;
const NAMES: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Of four-digit years; its end has five, which no row can be written with.
const LAST: Month = Month { year: 9999, month: 12 };

/// A calendar month, up to November 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month {
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
}

impl Month {
    /// As the data's files are named: `2019-Oct`; also `2019-10`.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let year = Some(year).filter(|y| y.len() == 4 && digits(y))?.parse().ok().filter(|year| *year >= 1970)?;
        let named = (1..).zip(NAMES).find(|(_, name)| name.eq_ignore_ascii_case(month)).map(|(number, _)| number);
        let numbered = || Some(month).filter(|m| m.len() == 2 && digits(m))?.parse().ok();
        let month = named.or_else(numbered).filter(|month| (1..=12).contains(month))?;
        Some(Self { year, month }).filter(|month| *month != LAST)
    }

    pub(super) fn is(self, year: i32, month: u8) -> bool {
        self == Self { year, month }
    }

    /// Days since 1970 of `YYYY-MM-DD`.
    pub(super) fn day_of(text: &str) -> Option<i64> {
        let month = Self::parse(text.get(..7)?)?;
        let day: i64 = text.get(8..)?.parse().ok()?;
        Some(month.first_day() + day - 1)
    }

    fn next(self) -> Self {
        match self.month {
            12 => Self { year: self.year + 1, month: 1 },
            _ => Self { month: self.month + 1, ..self },
        }
    }

    /// Days since 1970.
    pub fn first_day(self) -> i64 {
        let text = format!("{:04}-{:02}-01 00:00:00 UTC", self.year, self.month);
        EventTime::parse(text.as_bytes()).map_or(0, EventTime::day)
    }

    pub fn days(self) -> std::ops::Range<i64> {
        self.first_day()..self.next().first_day()
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.year, NAMES[usize::from(self.month) - 1])
    }
}

/// A month's hours.
pub(super) struct Calendar {
    /// The share of all session starts that lie before each hour, and 1 at the end.
    before: Vec<f64>,
    /// How the odds of a cart, and of a purchase, differ from the month's in each hour.
    cart: Vec<f64>,
    purchase: Vec<f64>,
}

impl Calendar {
    pub(super) fn of(month: Month, facts: &Facts) -> Self {
        let usual = to_f64(NOVEMBER.rows) / 30.0;
        let starts: f64 = facts.hours.iter().map(|hour| hour.starts).sum();
        // Purchases of events, against the month's.
        let ready = |hour: usize| {
            // Of the hour's events; when fewer sessions begin than before, more are of those begun before.
            let before = facts.hours[(hour + HOURS - 1) % HOURS].starts / facts.hours[hour].starts;
            let events = 1.0 + RUN_ON * (before - 1.0).max(0.0);
            facts.hours[hour].purchases / 100.0 * to_f64(NOVEMBER.rows) / to_f64(NOVEMBER.purchases) * events
        };
        let buying_hours: f64 = (0..HOURS).map(|hour| facts.hours[hour].starts / starts * ready(hour)).sum();
        let (mut before, mut cart, mut purchase) = (vec![0.0], Vec::new(), Vec::new());
        let days: Vec<_> =
            month.days().map(|day| (day, facts.events_by_day.get(&day).map_or(usual, |n| to_f64(*n)))).collect();
        let events: f64 = days.iter().map(|(_, n)| n).sum();
        let bought: u64 = days.iter().filter_map(|(day, _)| facts.purchases_by_day.get(day)).sum();
        let mut sum = 0.0;
        for (day, n) in &days {
            let of_day = match (bought, facts.purchases_by_day.get(day)) {
                (0, _) => 1.0,
                (_, None) => 0.0,
                (_, Some(purchases)) => to_f64(*purchases) / to_f64(bought) / (n / events),
            };
            let open = |hour: usize| !OUTAGE.contains(&(day * 24 + i64::try_from(hour).unwrap_or_default()));
            let of_hour = |hour: usize| if open(hour) { facts.hours[hour].starts } else { 0.0 };
            let of_all: f64 = (0..HOURS).map(of_hour).sum();
            for hour in 0..HOURS {
                sum += n / events * of_hour(hour) / of_all;
                before.push(sum);
                cart.push(ready(hour) / buying_hours);
                purchase.push(ready(hour) / buying_hours * of_day);
            }
        }
        before.iter_mut().for_each(|share| *share /= sum);
        Self { before, cart, purchase }
    }

    /// Seconds in the month.
    pub(super) fn seconds(&self) -> u32 {
        u32::try_from(self.cart.len() * 3600).unwrap_or(u32::MAX)
    }

    /// The odds of a cart and of a purchase in the hour of a second, as multiples of the month's.
    pub(super) fn odds(&self, second: u32) -> (f64, f64) {
        let hour = (second / 3600) as usize;
        (self.cart[hour], self.purchase[hour])
    }

    /// The second at which `share` of all sessions have begun. `hour` is where the last answer lay:
    /// shares that grow are found in constant time.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a second of a month")]
    #[allow(clippy::cast_precision_loss, reason = "an hour of a month")]
    pub(super) fn second(&self, share: f64, hour: &mut usize) -> u32 {
        let last = self.cart.len() - 1;
        while *hour < last && self.before[*hour + 1] <= share {
            *hour += 1;
        }
        let (from, to) = (self.before[*hour], self.before[*hour + 1]);
        let within = if to > from { ((share - from) / (to - from)).clamp(0.0, 1.0) } else { 0.0 };
        let second = (*hour as f64 + within) * HOUR_SECONDS;
        (second as u32).min(self.seconds() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months() {
        for (text, shown, first, days) in [
            ("2019-Oct", "2019-Oct", 18_170, 31),
            ("2019-11", "2019-Nov", 18_201, 30),
            ("2020-feb", "2020-Feb", 18_293, 29),
            ("1970-01", "1970-Jan", 0, 31),
            ("2100-Mar", "2100-Mar", 47_541, 31),
            ("9999-Nov", "9999-Nov", 2_932_836, 30),
        ] {
            let month = Month::parse(text).unwrap();
            assert_eq!((month.to_string().as_str(), month.first_day(), month.days().count()), (shown, first, days));
        }
        for wrong in
            ["", "2019", "2019-13", "2019-00", "19-Oct", "2019-October", "2019-1", "+019-10", "1969-12", "9999-12"]
        {
            assert_eq!(Month::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn nothing_begins_in_the_outage() {
        let calendar = Calendar::of(Month::parse("2020-Feb").unwrap(), &Facts::load());
        let mut hour = 0;
        let begun = (0..200_000).map(|i| calendar.second(f64::from(i) / 2e5, &mut hour) / 3600);
        let begun: std::collections::BTreeSet<u32> = begun.collect();
        let missing: Vec<u32> = (0..29 * 24).filter(|hour| !begun.contains(hour)).collect();
        assert_eq!(missing, (26 * 24 + 5..27 * 24 + 9).collect::<Vec<_>>());
    }

    #[test]
    fn sessions_begin_as_they_did_in_november() {
        let facts = Facts::load();
        let calendar = Calendar::of(Month::parse("2019-Nov").unwrap(), &facts);
        let mut hour = 0;
        let seconds: Vec<u32> = (0..100_000).map(|i| calendar.second(f64::from(i) / 1e5, &mut hour)).collect();
        assert!(seconds.is_sorted() && seconds[0] == 0);
        let share = |of: &dyn Fn(u32) -> bool| to_f64(seconds.iter().filter(|s| of(**s)).count() as u64) / 1e5;
        let (sixteenth, trough) = (share(&|s| s / 86_400 == 15), share(&|s| s / 3600 % 24 == 23));
        assert!((sixteenth - 6_502_957.0 / 67_501_979.0).abs() < 1e-4, "{sixteenth}");
        assert!((trough - 0.0041).abs() < 1e-4, "{trough}");
        assert_eq!(calendar.odds(14 * 86_400 + 40_000).1, 0.0, "nothing was bought on the 15th");
        assert!(calendar.odds(16 * 86_400 + 9 * 3600).1 > 2.5);
    }
}
