//! How fast the input is played.
use std::time::Duration;

use clap::{ArgMatches, Args, ValueEnum};

use super::values::{Rate, Speed};

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pace")]
pub(crate) struct PaceOptions {
    /// Event time per real time, as in 600x [default: 1x; the bundled sample: 600x]
    #[arg(long, conflicts_with_all = ["rate", "flat_out"])]
    speed: Option<Speed>,

    /// Events a second, evenly, as in 5000/s
    #[arg(long, conflicts_with = "flat_out")]
    rate: Option<Rate>,

    /// As fast as it goes
    #[arg(long)]
    flat_out: bool,

    /// Plays silences longer than this as this long: event time, as in 30s; bends the schedule,
    /// never a session [default: none; the bundled sample: 30s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    max_gap: Option<Duration>,

    /// How rows of one second go out (the data has whole seconds only)
    #[arg(long, value_enum, default_value_t = Spread::Even)]
    spread: Spread,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum Spread {
    /// Rows of one second go out evenly over that second
    Even,
    /// Rows of one second go out together
    Burst,
}

impl PaceOptions {
    /// Keeps of `--speed`, `--rate` and `--flat-out` the one that was said last: a flag beats the
    /// environment, that the config file.
    pub(super) fn settle(&mut self, matches: &ArgMatches) {
        use clap::parser::ValueSource;
        let rank = |id: &str, set: bool| match matches.value_source(id) {
            Some(ValueSource::CommandLine) => 3,
            Some(ValueSource::EnvVariable) if set => 2,
            _ => u8::from(set),
        };
        let speed = rank("speed", self.speed.is_some());
        let rate = rank("rate", self.rate.is_some());
        let flat_out = rank("flat_out", self.flat_out);
        let best = speed.max(rate).max(flat_out);
        self.speed = self.speed.filter(|_| speed == best);
        self.rate = self.rate.filter(|_| rate == best && speed < best);
        self.flat_out &= flat_out == best && rate < best && speed < best;
    }

    /// The sample is played in settings made for looking at it, where nothing else is said.
    pub(super) fn pace(&self, sample: bool) -> producer::Pace {
        match (self.flat_out, self.rate, self.speed) {
            (true, ..) => producer::Pace::FlatOut,
            (_, Some(rate), _) => producer::Pace::Rate(rate.0),
            (.., Some(speed)) => producer::Pace::Speed(speed.0),
            _ if sample => producer::Pace::Speed(600.0),
            _ => producer::Pace::Speed(1.0),
        }
    }

    pub(super) fn apply(&self, sample: bool, settings: &mut producer::Settings) {
        settings.max_gap = self.max_gap.or(sample.then_some(Duration::from_secs(30)));
        settings.bursts = self.spread == Spread::Burst;
    }
}
