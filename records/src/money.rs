//! Exact money.
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

/// An amount in hundredths. What a price may be fits DECIMAL(12,2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cents(pub i64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("a price is digits with at most two decimals, as in 35.79")]
    NotDecimal,
    #[error("a price is never negative")]
    Negative,
    #[error("a price is at most 9999999999.99 (DECIMAL(12,2))")]
    TooLarge,
}

impl Cents {
    /// The greatest DECIMAL(12,2).
    pub const MAX_PRICE: Cents = Cents(999_999_999_999);

    /// Reads a price: digits, then at most two decimals. `5`, `5.1` and `5.10` are prices; a sign,
    /// an exponent or a third decimal other than 0 is not.
    pub fn parse(text: &[u8]) -> Result<Self, MoneyError> {
        let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
            Some(dot) => (&text[..dot], &text[dot + 1..]),
            None => (text, &[][..]),
        };
        if whole.is_empty() || (fraction.is_empty() && whole.len() != text.len()) {
            return Err(MoneyError::NotDecimal);
        }
        if let Some(digits) = text.strip_prefix(b"-") {
            return Err(match Self::parse(digits) {
                Err(MoneyError::NotDecimal) => MoneyError::NotDecimal,
                _ => MoneyError::Negative,
            });
        }
        let mut cents = 0_i64;
        for digit in whole {
            cents = push_digit(cents, *digit)?;
        }
        for place in 0..2 {
            cents = push_digit(cents, fraction.get(place).copied().unwrap_or(b'0'))?;
        }
        match fraction.get(2..) {
            Some(rest) if rest.iter().any(|b| *b != b'0') => Err(MoneyError::NotDecimal),
            _ => Ok(Self(cents)),
        }
    }
}

fn push_digit(cents: i64, digit: u8) -> Result<i64, MoneyError> {
    if !digit.is_ascii_digit() {
        return Err(MoneyError::NotDecimal);
    }
    let cents = cents * 10 + i64::from(digit - b'0');
    // Checked at every digit, so that no length of input overflows.
    if cents > Cents::MAX_PRICE.0 { Err(MoneyError::TooLarge) } else { Ok(cents) }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let cents = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", cents / 100, cents % 100)
    }
}

impl Add for Cents {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Cents {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl AddAssign for Cents {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sum for Cents {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self(0), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices() {
        use MoneyError::{Negative, NotDecimal, TooLarge};
        for (text, expected) in [
            ("35.79", Ok(3579)),
            ("0.00", Ok(0)),
            ("5", Ok(500)),
            ("5.1", Ok(510)),
            ("5.100", Ok(510)),
            ("9999999999.99", Ok(999_999_999_999)),
            ("10000000000.00", Err(TooLarge)),
            ("99999999999999999999999999999999", Err(TooLarge)),
            ("-1.00", Err(Negative)),
            ("-", Err(NotDecimal)),
            ("", Err(NotDecimal)),
            (".5", Err(NotDecimal)),
            ("5.", Err(NotDecimal)),
            ("5.123", Err(NotDecimal)),
            ("1e3", Err(NotDecimal)),
            ("nan", Err(NotDecimal)),
            ("1,000.00", Err(NotDecimal)),
        ] {
            assert_eq!(Cents::parse(text.as_bytes()), expected.map(Cents), "{text}");
        }
        assert_eq!(Cents(-305).to_string(), "-3.05");
    }
}
