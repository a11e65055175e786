//! Which part of the input is played, whose part, and when its times are.
use std::str::FromStr;

use clap::{Args, ValueEnum};
use producer::{Passes, Shard, Window};
use records::EventTime;

use super::values::Percent;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Window")]
pub(crate) struct WindowOptions {
    /// Plays rows from this time on (UTC), as in 2019-10-05 or "2019-10-05 12:30:00"
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,

    /// Plays rows before this time (UTC)
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,

    /// Plays so many rows, the first of those that are left
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Plays a part of the sessions, whole ones, as in 1%
    #[arg(long, value_name = "PERCENT")]
    sample: Option<Percent>,

    /// Plays the input again and again, or so many times, each pass whole days later than the one
    /// before and as a source of its own
    #[arg(long = "loop", value_name = "TIMES", num_args = 0..=1, require_equals = true, default_missing_value = "endless")]
    passes: Option<Times>,

    /// Moves times so that the first row happens now; by how much is fixed when the input is first begun
    #[arg(long, value_enum)]
    rebase: Option<Rebase>,

    /// Plays the sessions of one part of several, as in 0/4: one process for each of 0/4 to 3/4
    #[arg(long, value_name = "I/N")]
    shard: Option<ShardOf>,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum Rebase {
    Now,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment(EventTime);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times(Passes);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShardOf(Shard);

impl WindowOptions {
    pub(super) fn apply(&self, settings: &mut producer::Settings) {
        settings.window = Window {
            from: self.from.map(|moment| moment.0),
            until: self.until.map(|moment| moment.0),
            limit: self.limit,
            sample: self.sample.map(|percent| percent.0),
        };
        settings.shard = self.shard.map_or(Shard::default(), |shard| shard.0);
        settings.passes = self.passes.map_or(Passes::Times(1), |times| times.0);
        settings.rebase = self.rebase == Some(Rebase::Now);
    }
}

/// A day, or a day and a time of it.
impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let text = ["UTC", "Z", "+00:00"].iter().find_map(|zone| text.strip_suffix(zone)).unwrap_or(text).trim();
        let whole = match text.len() {
            10 => format!("{text} 00:00:00 UTC"),
            16 => format!("{text}:00 UTC"),
            _ => format!("{text} UTC"),
        };
        EventTime::parse(whole.as_bytes())
            .map(Self)
            .map_err(|_| "a time is a day or a day and a time, UTC, as in 2019-10-05 or \"2019-10-05 12:30:00\"".into())
    }
}

impl FromStr for Times {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "endless" | "true" => Ok(Self(Passes::Endless)),
            _ => match text.parse() {
                Ok(times) if times > 0 => Ok(Self(Passes::Times(times))),
                _ => Err("it takes how often, as in --loop=3; --loop alone goes on until it is stopped".into()),
            },
        }
    }
}

impl FromStr for ShardOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((number, of)) if number < of => Ok(Self(Shard { number, of })),
            _ => Err("a shard is its number and how many there are, as in 0/4 (the first of four)".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (text, seconds) in [
            ("2019-10-05", 1_570_233_600),
            ("2019-10-05 12:30", 1_570_278_600),
            ("2019-10-05T12:30:01Z", 1_570_278_601),
            ("2019-10-05 12:30:01 UTC", 1_570_278_601),
        ] {
            assert_eq!(text.parse(), Ok(Moment(EventTime::from_seconds(seconds))), "{text}");
        }
        for wrong in ["", "2019", "2019-13-01", "yesterday", "2019-10-05 12", "2019-10-0é"] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
        assert_eq!("0/4".parse(), Ok(ShardOf(Shard { number: 0, of: 4 })));
        for wrong in ["", "4/4", "1", "a/b", "-1/2", "0/0"] {
            assert!(wrong.parse::<ShardOf>().is_err(), "{wrong}");
        }
        assert_eq!("3".parse(), Ok(Times(Passes::Times(3))));
        assert!("0".parse::<Times>().is_err() && "often".parse::<Times>().is_err());
    }
}
