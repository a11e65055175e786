//! The command line.
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::values::{Gap, Listen, Rate, Speed};

const EXAMPLES: &str = "\
Examples:
  clickstream                                     the bundled real sample at 600x; a live page; until Ctrl-C
  clickstream run 2019-Oct.csv.gz --speed 60x     an hour of October each minute
  clickstream run 2019-*.csv --flat-out           as fast as the machine goes, then a summary
  clickstream run 2019-Oct.csv --rate 5000/s      a steady load
  clickstream run - --flat-out < events.csv       from standard input (cannot be resumed)

The same command again goes on where it stopped; a finished one says so.
Exit codes: 0 done; 1 failed or refused; 2 wrong usage; 3 stopped by a signal before the
input was done; 130 at the second signal.
Every flag is also an environment variable (CLICKSTREAM_SPEED=60x) and a key of --config's file.";

/// Replays months of real shop events through a broker, at any speed, exactly once, and keeps a
/// data lake and live marts seconds behind the events.
///
/// Without a command: the bundled sample of real events at 600x, with a live page, until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "clickstream", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) run: RunOptions,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it")]
pub(crate) enum Command {
    /// All parts in one process: replay, sessionize, write the lake, keep the marts
    #[command(after_help = EXAMPLES)]
    Run {
        /// Files, globs or - (standard input), played one after another as one source: CSV, plain
        /// or in .gz, .zst or .zip (archive.zip!member.csv chooses a member)
        #[arg(value_name = "INPUT", required_unless_present = "input")]
        inputs: Vec<String>,

        /// The same as INPUT
        #[arg(long = "input", value_name = "INPUT", help_heading = "Input")]
        input: Vec<String>,

        #[command(flatten)]
        options: RunOptions,
    },
    /// Prints a completion script for a shell
    Completions { shell: Shell },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Rows of one second go out evenly over that second
    Even,
    /// Rows of one second go out together
    Burst,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub(crate) enum WireFormat {
    Protobuf,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Survives a killed process
    Process,
    /// Survives a power loss: every commit is synced
    Power,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunOptions {
    /// Event time per real time, as in 600x [default: 1x; the bundled sample: 600x]
    #[arg(long, help_heading = "Pace", conflicts_with_all = ["rate", "flat_out"])]
    pub(crate) speed: Option<Speed>,

    /// Events a second, evenly, as in 5000/s
    #[arg(long, help_heading = "Pace", conflicts_with = "flat_out")]
    pub(crate) rate: Option<Rate>,

    /// As fast as it goes
    #[arg(long, help_heading = "Pace")]
    pub(crate) flat_out: bool,

    /// Plays silences longer than this as this long: event time, as in 30s; bends the schedule,
    /// never a session [default: none; the bundled sample: 30s]
    #[arg(long, help_heading = "Pace", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) max_gap: Option<Duration>,

    /// How rows of one second go out (the data has whole seconds only)
    #[arg(long, help_heading = "Pace", value_enum, default_value_t = Spread::Even)]
    pub(crate) spread: Spread,

    /// A session is over after a pause longer than this, as in 30m; none: one session a key,
    /// closed when the input ends (memory and recovery then have no bound)
    #[arg(long, help_heading = "Sessions", default_value = "30m")]
    pub(crate) gap: Gap,

    /// How long a session stays open for events that come out of order, in event time
    #[arg(long, help_heading = "Sessions", value_name = "DURATION", default_value = "0s",
          value_parser = humantime::parse_duration)]
    pub(crate) allowed_lateness: Duration,

    /// Where all is kept: broker.db, marts.db, lake/
    #[arg(long, help_heading = "Data", value_name = "DIR", default_value = "clickstream-data")]
    pub(crate) data_dir: PathBuf,

    /// A folder for the lake [default: lake/ in the data folder]
    #[arg(long, help_heading = "Data", value_name = "DIR")]
    pub(crate) lake: Option<String>,

    /// Empties the data folder first, after asking
    #[arg(long, help_heading = "Data")]
    pub(crate) restart: bool,

    /// Answers yes to --restart
    #[arg(long, help_heading = "Data", requires = "restart")]
    pub(crate) yes: bool,

    /// Takes an input that shares a file name with one already here, and differs from it, as
    /// another source all the same
    #[arg(long, help_heading = "Input")]
    pub(crate) beside: bool,

    /// Fails when more rows than this cannot be read [default: no limit]
    #[arg(long, help_heading = "Input", value_name = "N")]
    pub(crate) max_dead_letters: Option<u64>,

    /// How records are written to the topics
    #[arg(long, help_heading = "Broker", value_enum, default_value_t = WireFormat::Protobuf)]
    pub(crate) format: WireFormat,

    /// Partitions of each topic of events and their outcomes; fixed at first use
    #[arg(long, help_heading = "Broker", value_name = "N", default_value_t = records::topics::DEFAULT_PARTITIONS,
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) partitions: u32,

    /// What the topics' names begin with
    #[arg(long, help_heading = "Broker", default_value = records::topics::DEFAULT_PREFIX)]
    pub(crate) topic_prefix: String,

    /// The producer waits while a reader is this far behind, in MiB of stored log
    #[arg(long, help_heading = "Broker", value_name = "MIB", default_value_t = 256,
          value_parser = clap::value_parser!(u64).range(8..=1 << 20))]
    pub(crate) max_log_mib: u64,

    /// What a commit survives
    #[arg(long, help_heading = "Broker", value_enum, default_value_t = Durability::Process)]
    pub(crate) durability: Durability,

    /// Where to serve the page, the API and the metrics: a port, an address and port, or off
    /// [default: 127.0.0.1:8650, or the next free port]
    #[arg(long, help_heading = "Output", value_name = "ADDRESS")]
    pub(crate) listen: Option<Listen>,

    /// Goes on serving the page after the input is done, until Ctrl-C
    #[arg(long, help_heading = "Output")]
    pub(crate) stay: bool,

    /// The summary as one JSON object
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// No progress, and only warnings and errors in the log
    #[arg(long, short, help_heading = "Output")]
    pub(crate) quiet: bool,

    #[arg(long, help_heading = "Output", value_enum, default_value_t = LogLevel::Info)]
    pub(crate) log_level: LogLevel,

    #[arg(long, help_heading = "Output", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// A TOML file of settings: keys are the flags' names, at the top or under [run]
    #[arg(long, help_heading = "Settings", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Prints the settings as they came out, as such a file, and does nothing else
    #[arg(long, help_heading = "Settings")]
    pub(crate) print_config: bool,
}

impl RunOptions {
    /// Keeps of `--speed`, `--rate` and `--flat-out` the one that was said last: a flag beats the
    /// environment, that the config file.
    pub(crate) fn settle_pace(&mut self, matches: &clap::ArgMatches) {
        use clap::parser::ValueSource;
        let rank = |id: &str, set: bool| match matches.value_source(id) {
            Some(ValueSource::CommandLine) => 3,
            Some(ValueSource::EnvVariable) if set => 2,
            _ => u8::from(set),
        };
        let speed = rank("speed", self.speed.is_some());
        let rate = rank("rate", self.rate.is_some());
        let flat_out = rank("flat_out", self.flat_out);
        let best = speed.max(rate).max(flat_out);
        self.speed = self.speed.filter(|_| speed == best);
        self.rate = self.rate.filter(|_| rate == best && speed < best);
        self.flat_out &= flat_out == best && rate < best && speed < best;
    }
}
