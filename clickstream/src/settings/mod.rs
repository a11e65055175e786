//! Settings: the command line, the environment, the config file and the defaults, made typed once,
//! here. A wrong one is refused here, with the flag's name and what it would take.
//!
//! A flag beats the environment (`CLICKSTREAM_…`), that beats the config file, that the default.
//!
//! Flags come in groups, a file each: a clap `Args` struct, and what it becomes for the part that
//! is told it. A command flattens the groups that it needs.

mod admin;
mod broker;
mod cli;
mod cloud;
mod config;
mod control;
mod data;
mod disorder;
mod embedded;
mod fetch;
mod generate;
mod input;
mod instance;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(not(feature = "kafka"))]
#[path = "no_kafka.rs"]
mod kafka;
mod lake;
mod output;
mod pace;
mod parts;
mod replay;
mod run;
mod sessions;
mod topics;
mod values;
mod warehouse;
mod window;

pub(crate) use admin::{CheckOptions, TailOptions, TopicsOptions};
pub(crate) use broker::{BrokerOptions, KafkaUrl};
pub(crate) use cli::{Cli, Command, Consume, LakeCommand, Shell, Topics, WarehouseCommand};
pub(crate) use config::{chosen, command_with_sources, print_config};
pub(crate) use control::{Asked, ControlOptions};
pub(crate) use embedded::Durability;
pub(crate) use fetch::{Destination, FetchOptions};
pub(crate) use generate::GenerateOptions;
pub(crate) use input::index_in_cache;
pub(crate) use instance::Instance;
pub(crate) use output::{LogFormat, LogLevel, LogOptions, ServeOptions};
pub(crate) use parts::{
    ConsumeLakeOptions, ConsumeWarehouseOptions, MartsOptions, PartOptions, ProduceOptions, SessionizeOptions,
};
pub(crate) use replay::Input;
pub(crate) use run::RunOptions;
pub(crate) use values::{LakeAt, Listen, Rate, Speed, TailFrom};
pub(crate) use warehouse::{DdlOptions, InitOptions, LakeDdlOptions};
