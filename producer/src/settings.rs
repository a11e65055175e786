//! What a replay is told: typed, and checked at the door.
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use records::{Format, topics};

use crate::course::Kind;
use crate::disorder::Disorder;
use crate::error::{Error, Result};
pub use crate::input::{GzipIndex, Synthetic};
use crate::rates::Rates;
use crate::window::{Shard, Window};

/// Something to read rows from.
#[derive(Clone, Debug)]
pub enum Input {
    /// A file, a glob (its files in name order), or `archive.zip!member.csv`.
    Path(String),
    /// A file in memory, as the bundled sample is.
    Memory { name: String, bytes: &'static [u8] },
    /// Made as it is read.
    Synthetic(Synthetic),
    /// In an object store or on a web server.
    Remote(remote::Objects),
    /// Read once, as it comes; never resumed.
    Stream(Stream),
}

/// A stream that a replay opens when it starts.
#[derive(Clone)]
pub struct Stream {
    pub(crate) name: String,
    opener: Arc<dyn Fn() -> io::Result<Bytes> + Send + Sync>,
    /// What was opened to be looked at, with all its bytes before it again.
    looked_at: Arc<Mutex<Option<Bytes>>>,
}

type Bytes = Box<dyn Read + Send>;

/// When rows are sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Pace {
    /// By event time, so many times as fast.
    Speed(f64),
    /// So many events a second.
    Rate(f64),
    /// Events a second that change.
    Rates(Rates),
    /// As fast as they are taken.
    FlatOut,
}

/// What becomes of a schedule that the replay is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// What is overdue goes out at once, until the schedule is met again; under a rate at most twice as fast.
    #[default]
    Burst,
    /// What is lost is lost: the rest of the schedule is moved.
    Slide,
}

/// How often the input is played, each time as a source of its own with later times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passes {
    Times(u32),
    Endless,
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
    pub catch_up: CatchUp,
    /// Under a rate: how many rows may go out at once. None: what is due in 10 ms.
    pub burst: Option<u32>,
    pub window: Window,
    pub shard: Shard,
    pub disorder: Disorder,
    /// Moves times so that the first row happens now, whenever the source is first begun.
    pub rebase: bool,
    pub passes: Passes,
    pub format: Format,
    /// Of the topics and of the transactional id.
    pub prefix: String,
    /// What takes another command to the same broker: for the remedies that refusals name.
    pub flags: String,
    /// The longest that a sent row waits for its transaction; at most 100 ms.
    pub linger: Duration,
    /// Beyond so many the replay fails; over all runs of the source.
    pub max_dead_letters: Option<u64>,
    /// Takes an input that shares a file name with an earlier source, and differs, as another source.
    pub beside: bool,
    /// Plays the input anew, as one more source.
    pub restart: bool,
    /// Where it is noted how gzip files can be entered in the middle. None: they are read over.
    pub gzip_index: Option<GzipIndex>,
    /// What else changes rows or their times, by name, as typed: part of what the source is.
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
            catch_up: CatchUp::default(),
            burst: None,
            window: Window::default(),
            shard: Shard::default(),
            disorder: Disorder::default(),
            rebase: false,
            passes: Passes::Times(1),
            format: Format::default(),
            prefix: topics::DEFAULT_PREFIX.to_owned(),
            flags: String::new(),
            linger: DEFAULT_LINGER,
            max_dead_letters: None,
            beside: false,
            restart: false,
            gzip_index: None,
            row_settings: BTreeMap::new(),
        }
    }

    /// All that changes rows or their times, by the flags' names: what the source is, beside its files.
    pub(crate) fn identity(&self) -> BTreeMap<String, String> {
        let Self { window, disorder, .. } = self;
        let mut all = self.row_settings.clone();
        let mut say = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                all.insert(name.to_owned(), value);
            }
        };
        say("from", window.from.map(|time| time.to_string()));
        say("until", window.until.map(|time| time.to_string()));
        say("limit", window.limit.map(|rows| rows.to_string()));
        say("sample", window.sample.map(|share| share.to_string()));
        say("rebase", self.rebase.then(|| "now".to_owned()));
        say("shuffle", disorder.shuffle.map(|stretch| humantime::format_duration(stretch).to_string()));
        say("duplicate", Some(disorder.duplicate).filter(|share| !share.is_zero()).map(|share| share.to_string()));
        say("corrupt", Some(disorder.corrupt).filter(|share| !share.is_zero()).map(|share| share.to_string()));
        say("seed", disorder.is_some().then(|| disorder.seed.to_string()));
        all
    }

    /// Whether all of it can be obeyed.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Setting(what));
        if self.inputs.is_empty() {
            return wrong("no input: name a file, a glob or - for standard input".into());
        }
        let streams = self.inputs.iter().any(|input| matches!(input, Input::Stream(_)));
        let stdin = |input: &&Input| matches!(input, Input::Stream(stream) if stream.name == "-");
        if self.inputs.iter().filter(stdin).count() > 1 {
            return wrong("- is named more than once: standard input can be read once".into());
        }
        if streams && self.passes != Passes::Times(1) {
            return wrong("--loop: a stream cannot be read again; write it to a file first".into());
        }
        if streams && self.shard.of > 1 {
            return wrong("--shard: a stream is read once, by one process; write it to a file first".into());
        }
        if self.shard.number >= self.shard.of {
            return wrong(format!("--shard is {}/{}; shards count from 0", self.shard.number, self.shard.of));
        }
        if let Window { from: Some(from), until: Some(until), .. } = self.window
            && from >= until
        {
            return wrong(format!("--from {from} is not before --until {until}: no row is of both"));
        }
        if self.disorder.shuffle.is_some_and(|stretch| stretch.is_zero()) {
            return wrong("--shuffle is 0; it must be longer, as in 30s".into());
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

impl Pace {
    /// After so many rows in earlier passes: a plan of rates goes on over all of them.
    #[allow(clippy::cast_precision_loss, reason = "row numbers below 2^53")]
    pub(crate) fn kind(&self, rows_before: u64) -> Kind {
        let first = -(rows_before as f64);
        match self {
            Self::FlatOut => Kind::FlatOut,
            Self::Speed(speed) => Kind::Speed(*speed),
            Self::Rate(rate) => Kind::Rates { plan: Rates::constant(*rate), first },
            Self::Rates(plan) => Kind::Rates { plan: plan.clone(), first },
        }
    }
}

impl Input {
    /// An input as typed: `-` is standard input.
    pub fn parse(text: &str) -> Self {
        if text == "-" { Self::Stream(Stream::stdin()) } else { Self::Path(text.to_owned()) }
    }
}

impl Stream {
    pub fn new(name: impl Into<String>, open: impl Fn() -> io::Result<Bytes> + Send + Sync + 'static) -> Self {
        Self { name: name.into(), opener: Arc::new(open), looked_at: Arc::default() }
    }

    pub(crate) fn open(&self) -> io::Result<Bytes> {
        let looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner).take();
        looked_at.map_or_else(|| (self.opener)(), Ok)
    }

    /// Whoever opens it next reads this.
    pub(crate) fn put_back(&self, bytes: Bytes) {
        *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
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
