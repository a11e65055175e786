//! The command line.
use clap::{Parser, Subcommand, ValueEnum};

use super::admin::{CheckOptions, TailOptions, TopicsOptions};
use super::control::ControlOptions;
use super::fetch::FetchOptions;
use super::generate::GenerateOptions;
use super::parts::{ConsumeLakeOptions, ConsumeWarehouseOptions, MartsOptions, ProduceOptions, SessionizeOptions};
use super::replay::InputArgs;
use super::run::RunOptions;
use super::warehouse::{DdlOptions, InitOptions, LakeDdlOptions};

const EXAMPLES: &str = "\
Examples:
  clickstream                                     the bundled real sample at 600x; a live page; until Ctrl-C
  clickstream run 2019-Oct.csv.gz --speed 60x     an hour of October each minute
  clickstream run 2019-*.csv --flat-out           as fast as the machine goes, then a summary
  clickstream run 2019-Oct.csv --rate 5000/s      a steady load
  clickstream run - --flat-out < events.csv       from standard input (cannot be resumed)
  clickstream run 2019-Oct.csv --rebase now       as if it happened today
  clickstream control speed 50x                   from another terminal, while it runs
  clickstream run 'generate://2019-Nov?rows=1M'   made-up rows that look like the real ones

The same command again goes on where it stopped; a finished one says so.
Exit codes: 0 done; 1 failed or refused; 2 wrong usage; 3 stopped by a signal before the
input was done and every output had caught up; 130 at the second signal.
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
        #[command(flatten)]
        inputs: InputArgs,
        #[command(flatten)]
        options: RunOptions,
    },
    /// Plays files into the topic events of a Kafka cluster, and ends with them
    Produce {
        #[command(flatten)]
        inputs: InputArgs,
        #[command(flatten)]
        options: ProduceOptions,
    },
    /// Makes funnel steps and sessions of events on a Kafka cluster, until it is stopped
    Sessionize(SessionizeOptions),
    /// Writes what is on a Kafka cluster elsewhere, until it is stopped
    #[command(subcommand)]
    Consume(Consume),
    /// Keeps marts.db current, and serves its page, until it is stopped
    Marts(MartsOptions),
    /// Makes the tables of a warehouse
    #[command(subcommand)]
    Warehouse(WarehouseCommand),
    /// Tells how a warehouse reads the lake
    #[command(subcommand)]
    Lake(LakeCommand),
    /// Makes the topics, or says how they are
    #[command(subcommand)]
    Topics(Topics),
    /// Steers a replay that runs: pause, resume, speed 50x, rate 2000/s, status, end
    Control(ControlOptions),
    /// Shows the records of a topic
    Tail(TailOptions),
    /// Tells whether a Kafka cluster, its topics, the groups and this user's rights are as they must
    /// be; and the lake (--lake) and the warehouse (--warehouse)
    Check(CheckOptions),
    /// Makes rows that look like the store's: a model fitted to counts of the real months
    Generate(GenerateOptions),
    /// Fetches months of the real data, from the public mirror or from Kaggle
    Fetch(FetchOptions),
    /// Prints a completion script for a shell
    Completions { shell: Shell },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Consume {
    /// Into a data lake, as Parquet
    Lake(ConsumeLakeOptions),
    /// Into tables of BigQuery
    Warehouse(ConsumeWarehouseOptions),
}

#[derive(Debug, Subcommand)]
pub(crate) enum WarehouseCommand {
    /// Makes the dataset, the tables and the view where they are missing, and says what differs
    Init(InitOptions),
    /// Prints what init makes, as SQL
    Ddl(DdlOptions),
}

#[derive(Debug, Subcommand)]
pub(crate) enum LakeCommand {
    /// Prints, as BigQuery's SQL, external tables over the lake and the partitioned, clustered
    /// table made from the events
    Ddl(LakeDdlOptions),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Topics {
    /// Makes those that are missing, with the settings that they need
    Create(TopicsOptions),
    /// Says how they are, and what is wrong with them
    Describe(TopicsOptions),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}
