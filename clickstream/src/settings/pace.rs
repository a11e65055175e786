//! How fast the input is played.
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};

use producer::Rates;

use super::values::{Rate, Speed};
use crate::exit::Wrong;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pace")]
pub(crate) struct PaceOptions {
    /// Event time per real time, as in 600x [default: 1x; the bundled sample: 600x]
    #[arg(long)]
    speed: Option<Speed>,

    /// Events a second, evenly, as in 5000/s
    #[arg(long)]
    rate: Option<Rate>,

    /// Events a second that go from one rate to another and stay there, as in
    /// "1000/s..50000/s over 5m"
    #[arg(long, value_name = "RAMP")]
    ramp: Option<Rates>,

    /// A file of rates, one step a line, as in "1000/s for 30s" or "1000/s..5000/s over 1m"; the
    /// last may go on, as in "5000/s"
    #[arg(long, value_name = "FILE", value_parser = steps_of)]
    rate_steps: Option<Rates>,

    /// As fast as it goes
    #[arg(long)]
    flat_out: bool,

    /// What happens to rows that are overdue, after a wait for the disk or a busy machine
    #[arg(long, value_enum, default_value_t = OverDue::Burst)]
    catch_up: OverDue,

    /// Under a rate: how many rows may go out at once [default: what is due in 10 ms]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..))]
    burst: Option<u32>,

    /// Plays silences longer than this as this long: event time, as in 30s; bends the schedule,
    /// never a session [default: none; the bundled sample: 30s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    max_gap: Option<Duration>,

    /// How rows of one second go out (the data has whole seconds only)
    #[arg(long, value_enum, default_value_t = Spread::Even)]
    spread: Spread,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum OverDue {
    /// They go out at once, until the schedule is met again; under a rate at most twice as fast
    Burst,
    /// They stay late, and so does all that follows: never faster than asked for
    Slide,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum Spread {
    /// Rows of one second go out evenly over that second
    Even,
    /// Rows of one second go out together
    Burst,
}

impl PaceOptions {
    /// Keeps one pace: a flag beats the environment, that the config file. Two of one place are wrong.
    /// Returns the flags that were beaten.
    pub(super) fn settle(&mut self, matches: &ArgMatches) -> Result<Vec<&'static str>, Wrong> {
        let rank = |id: &str, set: bool| match matches.value_source(id) {
            Some(ValueSource::CommandLine) => 3,
            Some(ValueSource::EnvVariable) if set => 2,
            _ => u8::from(set),
        };
        let ranks = [
            ("speed", self.speed.is_some()),
            ("rate", self.rate.is_some()),
            ("ramp", self.ramp.is_some()),
            ("rate_steps", self.rate_steps.is_some()),
            ("flat_out", self.flat_out),
        ]
        .map(|(id, set)| (id, rank(id, set)));
        let best = ranks.iter().map(|(_, rank)| *rank).max().unwrap_or(0);
        let best_of: Vec<_> = ranks.iter().filter(|(_, rank)| best > 0 && *rank == best).map(|(id, _)| *id).collect();
        if best_of.len() > 1 {
            let place = match best {
                3 => "",
                2 => ", from the environment",
                _ => ", from the config file",
            };
            let flags: Vec<_> = best_of.iter().map(|id| format!("--{}", id.replace('_', "-"))).collect();
            return Err(Wrong(format!("{}{place}: a replay has one pace; say one of them", flags.join(" and "))));
        }
        let stays = |id: &str| best_of.contains(&id);
        self.speed = self.speed.filter(|_| stays("speed"));
        self.rate = self.rate.filter(|_| stays("rate"));
        self.ramp = self.ramp.take().filter(|_| stays("ramp"));
        self.rate_steps = self.rate_steps.take().filter(|_| stays("rate_steps"));
        self.flat_out &= stays("flat_out");
        Ok(ranks.iter().filter(|(_, rank)| (1..best).contains(rank)).map(|(id, _)| *id).collect())
    }

    /// The sample is played in settings made for looking at it, where nothing else is said.
    pub(super) fn pace(&self, sample: bool) -> producer::Pace {
        let plan = self.ramp.as_ref().or(self.rate_steps.as_ref());
        match (self.flat_out, plan, self.rate, self.speed) {
            (true, ..) => producer::Pace::FlatOut,
            (_, Some(plan), ..) => producer::Pace::Rates(plan.clone()),
            (.., Some(rate), _) => producer::Pace::Rate(rate.0),
            (.., Some(speed)) => producer::Pace::Speed(speed.0),
            _ if sample => producer::Pace::Speed(600.0),
            _ => producer::Pace::Speed(1.0),
        }
    }

    pub(super) fn apply(&self, sample: bool, settings: &mut producer::Settings) {
        settings.max_gap = self.max_gap.or(sample.then_some(Duration::from_secs(30)));
        settings.bursts = self.spread == Spread::Burst;
        settings.catch_up = match self.catch_up {
            OverDue::Burst => producer::CatchUp::Burst,
            OverDue::Slide => producer::CatchUp::Slide,
        };
        settings.burst = self.burst;
    }
}

fn steps_of(path: &str) -> Result<Rates, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    Rates::parse_steps(&text)
}
