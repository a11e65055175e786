//! All that `run` and the bare command take.
use clap::{ArgMatches, Args};

use super::broker::BrokerOptions;
use super::cloud::CloudOptions;
use super::config::ConfigOptions;
use super::data::{FolderOptions, RestartOptions};
use super::embedded::EmbeddedOptions;
use super::instance::InstanceOptions;
use super::lake::LakeOptions;
use super::output::{LogOptions, ReportOptions, ServeOptions, StayOptions};
use super::replay::ReplayOptions;
use super::sessions::SessionOptions;
use super::topics::{FormatOptions, PartitionOptions, PrefixOptions};
use super::warehouse::WarehouseOptions;
use crate::exit::Wrong;

#[derive(Clone, Debug, Args)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    pub(crate) replay: ReplayOptions,
    #[command(flatten)]
    pub(crate) sessions: SessionOptions,
    #[command(flatten)]
    pub(crate) folder: FolderOptions,
    #[command(flatten)]
    pub(crate) lake: LakeOptions,
    #[command(flatten)]
    pub(crate) cloud: CloudOptions,
    #[command(flatten)]
    pub(crate) warehouse: WarehouseOptions,
    #[command(flatten)]
    pub(crate) restart: RestartOptions,
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    #[command(flatten)]
    pub(crate) instance: InstanceOptions,
    #[command(flatten)]
    pub(crate) format: FormatOptions,
    #[command(flatten)]
    pub(crate) partitions: PartitionOptions,
    #[command(flatten)]
    pub(crate) prefix: PrefixOptions,
    #[command(flatten)]
    pub(crate) embedded: EmbeddedOptions,
    #[command(flatten)]
    pub(crate) serve: ServeOptions,
    #[command(flatten)]
    pub(crate) stay: StayOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) config: ConfigOptions,
}

impl RunOptions {
    /// Returns the flags that were beaten by others.
    pub(crate) fn settle(&mut self, matches: &ArgMatches) -> Result<Vec<&'static str>, Wrong> {
        self.replay.settle(matches)
    }
}
