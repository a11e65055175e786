//! What is to be made, as typed: `generate://2019-Nov?rows=67M&seed=7`.
use std::fmt;
use std::str::FromStr;

use super::calendar::Month;
use super::facts::{Facts, NOVEMBER};
use super::stream::MOST_ROWS;

pub const SCHEME: &str = "generate://";

/// Rows of a month, by a seed. The same makes the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub month: Month,
    pub rows: u64,
    pub seed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("{0:?} is no month; one is 2019-Nov or 2019-11, from 1970-01 to 9999-11")]
    Month(String),
    #[error("{0:?} is no number of rows; it is a number up to {MOST_ROWS}, as in 67501979, 500k or 67M")]
    Rows(String),
    #[error("{0:?} is no seed; it is a whole number from 0")]
    Seed(String),
    #[error("{0:?} is not known; {SCHEME}2019-Nov takes ?rows=67M and &seed=7")]
    Unknown(String),
}

impl Plan {
    /// As many rows as the month really had, or November 2019 where that is not known.
    pub fn of(month: Month) -> Self {
        let facts = Facts::load();
        let known = month.days().filter_map(|day| facts.events_by_day.get(&day)).sum();
        Self { month, rows: if known == 0 { NOVEMBER.rows } else { known }, seed: 1 }
    }

    pub fn parse_rows(text: &str) -> Result<u64, PlanError> {
        let wrong = || PlanError::Rows(text.to_owned());
        let (number, unit) = match text.char_indices().next_back() {
            Some((at, 'k' | 'K')) => (&text[..at], 1_000_u64),
            Some((at, 'm' | 'M')) => (&text[..at], 1_000_000),
            Some((at, 'g' | 'G' | 'b' | 'B')) => (&text[..at], 1_000_000_000),
            _ => (text, 1),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.len() <= 15 && text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) {
            return Err(wrong());
        }
        let value = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u64>() };
        let scale = 10_u128.pow(u32::try_from(part.len()).map_err(|_| wrong())?);
        let all =
            u128::from(value(whole).map_err(|_| wrong())?) * scale + u128::from(value(part).map_err(|_| wrong())?);
        let rows = all * u128::from(unit);
        if rows % scale != 0 {
            return Err(wrong());
        }
        u64::try_from(rows / scale).ok().filter(|rows| *rows <= MOST_ROWS).ok_or_else(wrong)
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let text = text.strip_prefix(SCHEME).unwrap_or(text);
        let (month, settings) = text.split_once('?').unwrap_or((text, ""));
        let mut plan = Self::of(Month::parse(month).ok_or_else(|| PlanError::Month(month.to_owned()))?);
        for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
            match setting.split_once('=') {
                Some(("rows", rows)) => plan.rows = Self::parse_rows(rows)?,
                Some(("seed", seed)) => plan.seed = seed.parse().map_err(|_| PlanError::Seed(seed.to_owned()))?,
                _ => return Err(PlanError::Unknown(setting.to_owned())),
            }
        }
        Ok(plan)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}?rows={}&seed={}", self.month, self.rows, self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans() {
        for (text, shown) in [
            ("generate://2019-Nov?rows=67M&seed=7", "generate://2019-Nov?rows=67000000&seed=7"),
            ("generate://2019-nov", "generate://2019-Nov?rows=67501979&seed=1"),
            ("2019-10?rows=1.5k", "generate://2019-Oct?rows=1500&seed=1"),
            ("2031-05?seed=0", "generate://2031-May?rows=67501979&seed=0"),
            ("2020-Feb?rows=0", "generate://2020-Feb?rows=0&seed=1"),
        ] {
            let plan: Plan = text.parse().unwrap();
            assert_eq!(plan.to_string(), shown);
            assert_eq!(plan.to_string().parse(), Ok(plan));
        }
        for wrong in [
            "",
            "Nov",
            "9999-12",
            "2019-Nov?rows=",
            "2019-Nov?rows=1.23",
            "2019-Nov?rows=-1",
            "2019-Nov?rows=9e9",
            "2019-Nov?rows=99999B",
            "2019-Nov?seed=x",
            "2019-Nov?speed=1",
            "2019-Nov?rows=ß",
        ] {
            assert!(wrong.parse::<Plan>().is_err(), "{wrong}");
        }
    }
}
