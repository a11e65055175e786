//! What the commands of single parts take.
use clap::{ArgMatches, Args};

use super::broker::BrokerOptions;
use super::cloud::CloudOptions;
use super::config::ConfigOptions;
use super::data::{AnewOptions, FolderOptions};
use super::instance::InstanceOptions;
use super::lake::LakeOptions;
use super::output::{LogOptions, ReportOptions, ServeOptions};
use super::replay::ReplayOptions;
use super::sessions::SessionOptions;
use super::topics::{FormatOptions, PrefixOptions};
use super::warehouse::WarehouseOptions;
use crate::exit::Wrong;

/// What every one of them takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct PartOptions {
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    #[command(flatten)]
    pub(crate) prefix: PrefixOptions,
    #[command(flatten)]
    pub(crate) serve: ServeOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) config: ConfigOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ProduceOptions {
    #[command(flatten)]
    pub(crate) replay: ReplayOptions,
    #[command(flatten)]
    pub(crate) anew: AnewOptions,
    #[command(flatten)]
    pub(crate) cloud: CloudOptions,
    #[command(flatten)]
    pub(crate) format: FormatOptions,
    #[command(flatten)]
    pub(crate) part: PartOptions,
}

impl ProduceOptions {
    /// Returns the flags that were beaten by others.
    pub(crate) fn settle(&mut self, matches: &ArgMatches) -> Result<Vec<&'static str>, Wrong> {
        self.replay.settle(matches)
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SessionizeOptions {
    #[command(flatten)]
    pub(crate) sessions: SessionOptions,
    #[command(flatten)]
    pub(crate) format: FormatOptions,
    #[command(flatten)]
    pub(crate) instance: InstanceOptions,
    #[command(flatten)]
    pub(crate) part: PartOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ConsumeLakeOptions {
    #[command(flatten)]
    pub(crate) folder: FolderOptions,
    #[command(flatten)]
    pub(crate) lake: LakeOptions,
    #[command(flatten)]
    pub(crate) cloud: CloudOptions,
    #[command(flatten)]
    pub(crate) instance: InstanceOptions,
    #[command(flatten)]
    pub(crate) part: PartOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ConsumeWarehouseOptions {
    #[command(flatten)]
    pub(crate) warehouse: WarehouseOptions,
    #[command(flatten)]
    pub(crate) cloud: CloudOptions,
    #[command(flatten)]
    pub(crate) format: FormatOptions,
    #[command(flatten)]
    pub(crate) instance: InstanceOptions,
    #[command(flatten)]
    pub(crate) part: PartOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct MartsOptions {
    #[command(flatten)]
    pub(crate) folder: FolderOptions,
    #[command(flatten)]
    pub(crate) instance: InstanceOptions,
    #[command(flatten)]
    pub(crate) part: PartOptions,
}
