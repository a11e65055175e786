//! The topics, and how records are written to them.
use clap::{Args, ValueEnum};
use records::Format;
use records::topics::DEFAULT_PARTITIONS;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct PrefixOptions {
    /// What the topics' names begin with: letters, digits, dots, dashes and underscores
    #[arg(long, default_value = records::topics::DEFAULT_PREFIX, value_parser = prefix)]
    topic_prefix: String,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct PartitionOptions {
    /// Partitions of each topic of events and their outcomes; fixed at first use
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PARTITIONS, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
}

/// Of topics that may be there with another number.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct PartitionsThere {
    /// Partitions of each topic of events and their outcomes [default: as many as they have, or 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: Option<u32>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct FormatOptions {
    /// How records are written to the topics
    #[arg(long, value_enum, default_value_t = WireFormat::Protobuf)]
    format: WireFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum WireFormat {
    Protobuf,
    Json,
}

/// As Kafka takes names of topics, with room for the longest of ours.
fn prefix(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 200;
    if text.len() > BYTES_MAX {
        return Err(format!("it has {} bytes, and may have {BYTES_MAX}", text.len()));
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
        Some(wrong) => Err(format!(
            "{wrong:?} cannot be in a topic's name, which is letters, digits, dots, dashes and underscores"
        )),
        None => Ok(text.to_owned()),
    }
}

impl PrefixOptions {
    pub(crate) fn get(&self) -> &str {
        &self.topic_prefix
    }
}

impl PartitionOptions {
    pub(crate) fn get(&self) -> u32 {
        self.partitions
    }
}

impl PartitionsThere {
    pub(crate) fn get(&self) -> u32 {
        self.partitions.unwrap_or(DEFAULT_PARTITIONS)
    }

    pub(crate) fn given(&self) -> Option<u32> {
        self.partitions
    }
}

impl FormatOptions {
    pub(crate) fn get(&self) -> Format {
        match self.format {
            WireFormat::Protobuf => Format::Protobuf,
            WireFormat::Json => Format::Json,
        }
    }
}
