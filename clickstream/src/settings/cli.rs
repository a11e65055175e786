//! The command line.
use clap::{Parser, Subcommand, ValueEnum};

use super::run::RunOptions;

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
