//! What `generate` makes, and where to.
use std::path::PathBuf;

use clap::Args;
use dataset::generate::{Month, Plan};

use super::config::ConfigOptions;
use super::output::LogOptions;

#[derive(Clone, Debug, Args)]
pub(crate) struct GenerateOptions {
    /// The month whose hours and days the rows have, as in 2019-Nov; any month may be named
    #[arg(value_name = "MONTH", value_parser = month)]
    month: Month,

    /// How many rows, as in 67501979, 500k or 67M [default: as many as the month had]
    #[arg(long, help_heading = "Rows", value_name = "N", value_parser = Plan::parse_rows)]
    rows: Option<u64>,

    /// The same seed makes the same bytes
    #[arg(long, help_heading = "Rows", value_name = "N", default_value_t = 1)]
    seed: u64,

    /// The file to write: plain, or packed where it ends in .gz or .zst; a pipe or a device is written to
    /// as it is [default: standard output]
    #[arg(long, short, help_heading = "Output", value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Writes no rows, but what they amount to beside what is known of the real month, figure by
    /// figure, with what is allowed and why; fails when one is further than 5% from it, or more than
    /// chance would have it are beyond three standard deviations, or of few beyond what is as rare
    #[arg(long, help_heading = "Output", conflicts_with = "output")]
    pub(crate) report: bool,

    #[command(flatten)]
    pub(crate) log: LogOptions,

    #[command(flatten)]
    pub(crate) config: ConfigOptions,
}

impl GenerateOptions {
    pub(crate) fn plan(&self) -> Plan {
        let plan = Plan::of(self.month);
        Plan { rows: self.rows.unwrap_or(plan.rows), seed: self.seed, ..plan }
    }
}

pub(super) fn month(text: &str) -> Result<Month, String> {
    Month::parse(text).ok_or_else(|| "a month is 2019-Nov or 2019-11, from 1970-01 to 9999-11".to_owned())
}
