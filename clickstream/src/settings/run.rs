//! All that `run` and the bare command take.
use clap::{ArgMatches, Args};

use super::config::ConfigOptions;
use super::data::DataOptions;
use super::embedded::EmbeddedOptions;
use super::lake::LakeOptions;
use super::output::{EndOptions, LogOptions, ServeOptions};
use super::replay::ReplayOptions;
use super::sessions::SessionOptions;
use super::topics::TopicOptions;

#[derive(Clone, Debug, Args)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    pub(crate) replay: ReplayOptions,
    #[command(flatten)]
    pub(crate) sessions: SessionOptions,
    #[command(flatten)]
    pub(crate) data: DataOptions,
    #[command(flatten)]
    pub(crate) lake: LakeOptions,
    #[command(flatten)]
    pub(crate) topics: TopicOptions,
    #[command(flatten)]
    pub(crate) embedded: EmbeddedOptions,
    #[command(flatten)]
    pub(crate) serve: ServeOptions,
    #[command(flatten)]
    pub(crate) end: EndOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) config: ConfigOptions,
}

impl RunOptions {
    pub(crate) fn settle(&mut self, matches: &ArgMatches) {
        self.replay.settle(matches);
    }
}
