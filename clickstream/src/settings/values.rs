//! The values that flags take, and what is said when one is wrong.
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use consumer::lake::Bucket;
use producer::Share;

/// Event time per real time: `600x`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Speed(pub(crate) f64);

/// Events per second: `5000/s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate(pub(crate) f64);

/// A part of the rows or sessions: `1%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Percent(pub(crate) Share);

/// The pause after which a session is over; `none` for one session a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    After(Duration),
    None,
}

/// Where the lake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LakeAt {
    Folder(PathBuf),
    Bucket(Bucket),
}

/// Where to serve HTTP: an address, a port of loopback, or nowhere (`off`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    At(SocketAddr),
    Off,
}

/// Where a tail begins, in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TailFrom {
    Start,
    End,
    At(i64),
    /// So many offsets before the end.
    Last(i64),
}

impl FromStr for TailFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|n: &i64| *n >= 0);
        match (text, text.strip_prefix('-')) {
            ("start", _) => Some(Self::Start),
            ("end", _) => Some(Self::End),
            (_, Some(last)) => number(last).map(Self::Last),
            _ => number(text).map(Self::At),
        }
        .ok_or_else(|| "it takes start, end, an offset, or -N for the last N".to_owned())
    }
}

impl fmt::Display for TailFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::End => f.write_str("end"),
            Self::At(offset) => write!(f, "{offset}"),
            Self::Last(last) => write!(f, "-{last}"),
        }
    }
}

/// A word of a command line, as a shell takes it.
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Why a folder whose name begins like a URL is none; what follows is that name.
pub(super) const ONE_SLASH: &str =
    "a URL has two slashes, as in gs://bucket/prefix or s3://bucket/prefix; a folder of that name is ./";

pub(super) fn lacks_a_slash(text: &str) -> bool {
    text.split_once(":/")
        .is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn positive(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0 && *n <= 1e9)
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        positive(text.strip_suffix('x').unwrap_or(text))
            .map(Self)
            .ok_or_else(|| "a speed is a number above 0 of times real time, as in 600x".into())
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x", self.0)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        positive(text.strip_suffix("/s").unwrap_or(text))
            .map(Self)
            .ok_or_else(|| "a rate is a number above 0 of events a second, as in 5000/s".into())
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let share = percent.filter(|percent| *percent > 0.0).and_then(|percent| Share::new(percent / 100.0));
        share.map(Self).ok_or_else(|| "it takes a percentage above 0%, up to 100%, as in 1%".into())
    }
}

impl FromStr for Gap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            _ => match humantime::parse_duration(text) {
                Ok(gap) if gap >= Duration::from_secs(1) && gap.subsec_nanos() == 0 => Ok(Self::After(gap)),
                _ => Err("a gap is whole seconds of event time, from 1s on, as in 30m, or none".into()),
            },
        }
    }
}

impl fmt::Display for LakeAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(dir) => dir.display().fmt(f),
            Self::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

impl FromStr for LakeAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("it takes a folder, gs://bucket/prefix or s3://bucket/prefix".into()),
            _ if text.contains("://") => text.parse().map(Self::Bucket),
            _ if lacks_a_slash(text) => Err(format!("{ONE_SLASH}{text}")),
            _ => Ok(Self::Folder(text.into())),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Self::At(SocketAddr::from(([127, 0, 0, 1], port))));
        }
        text.parse()
            .map(Self::At)
            .map_err(|_| "it takes a port (of 127.0.0.1), an address and port as in 127.0.0.1:8650, or off".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_line() {
        for (text, word) in [
            ("a/b-c.d", "a/b-c.d"),
            ("kafka://a:9092,b:9092", "kafka://a:9092,b:9092"),
            ("", "''"),
            ("my data", "'my data'"),
            ("it's", r"'it'\''s'"),
            ("sasl.password=${env:X}", "'sasl.password=${env:X}'"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }

    #[test]
    fn values() {
        assert_eq!("600x".parse(), Ok(Speed(600.0)));
        assert_eq!("0.5".parse(), Ok(Speed(0.5)));
        assert_eq!("5000/s".parse(), Ok(Rate(5000.0)));
        assert_eq!("30m".parse(), Ok(Gap::After(Duration::from_secs(1800))));
        assert_eq!("none".parse(), Ok(Gap::None));
        assert_eq!("off".parse(), Ok(Listen::Off));
        assert_eq!("0".parse(), Ok(Listen::At(SocketAddr::from(([127, 0, 0, 1], 0)))));
        for (text, from) in
            [("start", TailFrom::Start), ("end", TailFrom::End), ("7", TailFrom::At(7)), ("-7", TailFrom::Last(7))]
        {
            assert_eq!(text.parse(), Ok(from));
            assert_eq!(from.to_string(), text);
        }
        for wrong in ["", "--7", "begin", "1.5"] {
            assert!(wrong.parse::<TailFrom>().is_err(), "{wrong}");
        }
        assert_eq!("a/b".parse(), Ok(LakeAt::Folder("a/b".into())));
        assert!(
            matches!("gs://shop/lake".parse(), Ok(LakeAt::Bucket(bucket)) if bucket.to_string() == "gs://shop/lake")
        );
        for wrong in ["", "ftp://shop/lake", "gs://", "s3://UPPER/x", "s3:/shop/lake"] {
            assert!(wrong.parse::<LakeAt>().is_err(), "{wrong}");
        }
        for wrong in ["", "x", "0x", "-1x", "infx", "fast", "1e99"] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
        for wrong in ["0/s", "5000/m", "many"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        assert_eq!("0.1%".parse(), Ok(Percent(Share::new(0.001).unwrap())));
        for wrong in ["", "1", "0%", "101%", "-1%", "some%"] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
        for wrong in ["", "0s", "500ms", "1500ms", "never", "-30m"] {
            assert!(wrong.parse::<Gap>().is_err(), "{wrong}");
        }
        for wrong in ["", "70000", "localhost", "127.0.0.1"] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }
}
