//! Disorder on purpose, for testing what reads.
use std::time::Duration;

use clap::Args;
use producer::{Disorder, Share};

use super::values::Percent;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Disorder, for testing what reads")]
pub(crate) struct DisorderOptions {
    /// Lets rows change places within stretches of so much event time, as in 30s; --allowed-lateness
    /// must cover it, or sessions are cut where batch would not cut them
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    shuffle: Option<Duration>,

    /// Sends a part of the rows twice, as in 0.1%; a copy has an identity of its own, and is counted
    #[arg(long, value_name = "PERCENT")]
    duplicate: Option<Percent>,

    /// Makes a part of the rows unreadable, as in 0.1%: they go to dead-letters
    #[arg(long, value_name = "PERCENT")]
    corrupt: Option<Percent>,

    /// What all three are drawn from: the same seed, the same rows
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl DisorderOptions {
    pub(super) fn apply(&self, settings: &mut producer::Settings) {
        let share = |percent: Option<Percent>| percent.map_or(Share::default(), |percent| percent.0);
        settings.disorder = Disorder {
            seed: self.seed,
            shuffle: self.shuffle,
            duplicate: share(self.duplicate),
            corrupt: share(self.corrupt),
        };
    }
}
