//! What `control` takes.
use clap::{Args, ValueEnum};
use producer::{Change, Named};
use records::SourceId;

use super::broker::BrokerOptions;
use super::config::ConfigOptions;
use super::data::FolderOptions;
use super::output::{LogOptions, ReportOptions};
use super::topics::PrefixOptions;
use super::values::{Rate, Speed};

#[derive(Clone, Debug, Args)]
pub(crate) struct ControlOptions {
    /// What the replay is to do
    #[arg(value_enum)]
    action: Action,

    /// How fast, as in speed 50x and rate 2000/s; which source, as in end 174f0a20, or which one
    /// of its shards, as in end 174f0a20/1
    value: Option<String>,

    /// The source to steer, 8 hex digits [default: the one that is played; on
    /// Kafka, the only one that has not ended]
    #[arg(long, value_name = "SOURCE")]
    source: Option<SourceId>,

    #[command(flatten)]
    pub(crate) folder: FolderOptions,
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    #[command(flatten)]
    pub(crate) prefix: PrefixOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) config: ConfigOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum Action {
    /// Sends nothing until it is resumed
    Pause,
    /// Goes on from where it stands
    Resume,
    /// Goes by event time, so many times as fast: speed 50x
    Speed,
    /// Sends so many events a second: rate 2000/s
    Rate,
    /// Says how it stands
    Status,
    /// Writes the end of a source that will not come back, all its shards and passes: its open
    /// sessions are closed, and what was not sent of it never is
    End,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Asked {
    Status,
    Change(Change),
}

impl ControlOptions {
    /// The action with its value, and the source where one is named.
    pub(crate) fn asked(&self) -> Result<(Asked, Option<Named>), String> {
        let (value, of) = (self.value.as_deref(), self.source.map(Named::Source));
        let (asked, named) = match (self.action, value) {
            (Action::Speed, Some(text)) => (Change::Speed(text.parse::<Speed>()?.0), None),
            (Action::Speed, None) => return Err("control speed takes a speed, as in control speed 50x".into()),
            (Action::Rate, Some(text)) => (Change::Rate(text.parse::<Rate>()?.0), None),
            (Action::Rate, None) => return Err("control rate takes a rate, as in control rate 2000/s".into()),
            (Action::End, text) => {
                let named = text.map(str::parse).transpose();
                (Change::End, named.map_err(|e| format!("control end: {e}"))?)
            }
            (action, Some(_)) => {
                return Err(format!("control {} takes no value", format!("{action:?}").to_lowercase()));
            }
            (Action::Pause, None) => (Change::Pause, None),
            (Action::Resume, None) => (Change::Resume, None),
            (Action::Status, None) => return Ok((Asked::Status, of)),
        };
        let asked = asked.checked().map_err(|e| format!("control: {e}"))?;
        Ok((Asked::Change(asked), named.or(of)))
    }
}
