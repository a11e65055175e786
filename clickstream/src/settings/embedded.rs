//! The embedded broker.
use broker::embedded::{Durability as LogDurability, Options};
use clap::{Args, ValueEnum};

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct EmbeddedOptions {
    /// The producer waits while a reader is this far behind, in MiB of stored log, from 8 to
    /// 1048576
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(8..=1 << 20))]
    max_log_mib: u64,

    /// A group that is not to be waited for any more, such as the warehouse's of an earlier run: the log
    /// keeps nothing for it
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub(crate) forget_group: Vec<String>,

    /// What a commit survives
    #[arg(long, value_enum, default_value_t = Durability::Process)]
    durability: Durability,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Survives a killed process
    Process,
    /// Survives a power loss: every commit is synced
    Power,
}

impl EmbeddedOptions {
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            max_log_bytes: self.max_log_mib << 20,
            durability: match self.durability {
                Durability::Process => LogDurability::Process,
                Durability::Power => LogDurability::Power,
            },
            ..Options::default()
        }
    }
}
