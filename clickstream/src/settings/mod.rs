//! What the user typed, in the environment, or wrote into `clickstream.toml`, turned once into
//! typed settings. A wrong one is refused here, with the flag's name and what it would take.
//!
//! A flag beats the environment (`CLICKSTREAM_…`), that beats the config file, that the default.

mod cli;
mod config;
mod values;

pub(crate) use cli::{Cli, Command, Durability, LogFormat, LogLevel, RunOptions, Shell, Spread, WireFormat};
pub(crate) use config::{command_with_sources, print_config};
pub(crate) use values::{Gap, Listen};
