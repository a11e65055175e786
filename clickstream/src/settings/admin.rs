//! What the commands take that look at a broker.
use clap::Args;

use super::broker::BrokerOptions;
use super::cloud::CloudOptions;
use super::config::ConfigOptions;
use super::data::FolderOptions;
use super::embedded::EmbeddedOptions;
use super::lake::LakeOptions;
use super::output::{LogOptions, ReportOptions};
use super::topics::{PartitionsThere, PrefixOptions};
use super::values::TailFrom;
use super::warehouse::DatasetOptions;

#[derive(Clone, Debug, Args)]
pub(crate) struct TopicsOptions {
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    #[command(flatten)]
    pub(crate) partitions: PartitionsThere,
    #[command(flatten)]
    pub(crate) prefix: PrefixOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) config: ConfigOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CheckOptions {
    #[command(flatten)]
    pub(crate) topics: TopicsOptions,
    #[command(flatten)]
    pub(crate) lake: LakeOptions,
    #[command(flatten)]
    pub(crate) warehouse: DatasetOptions,
    #[command(flatten)]
    pub(crate) cloud: CloudOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TailOptions {
    /// Its name without the prefix, as in events
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: String,

    /// Where to begin: start, end, an offset, or -N for the last N offsets of each partition
    #[arg(long, default_value = "-10", allow_hyphen_values = true, help_heading = "Records")]
    pub(crate) from: TailFrom,

    /// Of this partition only
    #[arg(long, value_name = "N", help_heading = "Records")]
    pub(crate) partition: Option<u32>,

    /// Ends after so many records
    #[arg(long, value_name = "N", help_heading = "Records")]
    pub(crate) limit: Option<usize>,

    /// Waits for more, until Ctrl-C
    #[arg(long, short, help_heading = "Records")]
    pub(crate) follow: bool,

    #[command(flatten)]
    pub(crate) folder: FolderOptions,
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    #[command(flatten)]
    pub(crate) prefix: PrefixOptions,
    #[command(flatten)]
    pub(crate) embedded: EmbeddedOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) config: ConfigOptions,
}
