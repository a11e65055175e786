//! What a replay is told: typed, and checked at the door.
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use records::{Format, topics};

use crate::error::{Error, Result};

/// Something to read rows from.
#[derive(Clone, Debug)]
pub enum Input {
    /// A file, a glob (its files in name order), or `archive.zip!member.csv`.
    Path(String),
    /// A file in memory, as the bundled sample is.
    Memory { name: String, bytes: &'static [u8] },
    /// Read once, as it comes; never resumed.
    Stream(Stream),
}

/// A stream that a replay opens when it starts.
#[derive(Clone)]
pub struct Stream {
    pub(crate) name: String,
    pub(crate) open: Arc<dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync>,
}

/// When rows are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// By event time, so many times as fast.
    Speed(f64),
    /// So many events a second.
    Rate(f64),
    /// As fast as they are taken.
    FlatOut,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// In order; together they are one source.
    pub inputs: Vec<Input>,
    pub pace: Pace,
    /// No silence of the schedule is longer, in event time. Sessions never see it.
    pub max_gap: Option<Duration>,
    /// The rows of one second go out together, not evenly over it.
    pub bursts: bool,
    pub format: Format,
    /// Of the topics and of the transactional id.
    pub prefix: String,
    /// The longest that a sent row waits for its transaction; at most 100 ms.
    pub linger: Duration,
    /// Beyond so many the replay fails; over all runs of the source.
    pub max_dead_letters: Option<u64>,
    /// Takes an input that shares a file name with an earlier source, and differs, as another source.
    pub beside: bool,
    /// The settings that change rows or their times, by name, as typed: part of what the source is.
    pub row_settings: BTreeMap<String, String>,
}

pub const DEFAULT_LINGER: Duration = Duration::from_millis(20);
pub const MAX_LINGER: Duration = Duration::from_millis(100);

impl Settings {
    pub fn new(inputs: Vec<Input>, pace: Pace) -> Self {
        Self {
            inputs,
            pace,
            max_gap: None,
            bursts: false,
            format: Format::default(),
            prefix: topics::DEFAULT_PREFIX.to_owned(),
            linger: DEFAULT_LINGER,
            max_dead_letters: None,
            beside: false,
            row_settings: BTreeMap::new(),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Setting(what));
        if self.inputs.is_empty() {
            return wrong("no input: name a file, a glob or - for standard input".into());
        }
        match self.pace {
            Pace::Speed(speed) if !(speed.is_finite() && speed > 0.0) => {
                return wrong(format!("--speed is {speed}; it must be greater than 0, as in 600x"));
            }
            Pace::Rate(rate) if !(rate.is_finite() && rate > 0.0 && rate <= 1e9) => {
                return wrong(format!("--rate is {rate}; it must be greater than 0, as in 5000/s"));
            }
            _ => {}
        }
        if self.max_gap.is_some_and(|gap| gap.is_zero()) {
            return wrong("--max-gap is 0; it must be longer, as in 30s".into());
        }
        if self.linger > MAX_LINGER {
            return wrong(format!("the linger is {:?}; it must be at most {MAX_LINGER:?}", self.linger));
        }
        Ok(())
    }
}

impl Input {
    /// An input as typed: `-` is standard input.
    pub fn parse(text: &str) -> Self {
        if text == "-" { Self::Stream(Stream::stdin()) } else { Self::Path(text.to_owned()) }
    }
}

impl Stream {
    pub fn new(
        name: impl Into<String>,
        open: impl Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), open: Arc::new(open) }
    }

    pub fn stdin() -> Self {
        Self::new("-", || Ok(Box::new(io::stdin())))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.name).finish()
    }
}
