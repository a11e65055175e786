//! What people and programs see of a process: its pages, its log, its summary.
use clap::{Args, ValueEnum};

use super::values::Listen;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct ServeOptions {
    /// Where to serve the page, the API and the metrics: a port, an address and port, or off
    /// [default: 127.0.0.1:8650, or the next free port]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<Listen>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct StayOptions {
    /// Goes on serving the page after the input is done, until Ctrl-C
    #[arg(long)]
    pub(crate) stay: bool,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct ReportOptions {
    /// What stdout says, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct LogOptions {
    /// No progress, and only warnings and errors in the log
    #[arg(long, short)]
    pub(crate) quiet: bool,

    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    pub(crate) log_level: LogLevel,

    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}
