//! The command: settings, the parts wired together, the summary, HTTP, signals.
//!
//! | file | what it holds |
//! |---|---|
//! | `settings/` | the command line, the environment and the config file, as typed settings |
//! | `commands/` | one file a command |
//! | `pipeline/` | the whole wiring of the parts in one process, and when they have caught up |
//! | `folder` | the data folder, and the address of who runs on it |
//! | `http/` | page, API, metrics, health |
//! | `screen` | the log and the progress on stderr |
//! | `summary` | what stdout says at the end |
//! | `signals` | drain at the first, leave at the second |

mod commands;
mod exit;
mod folder;
mod http;
mod pipeline;
mod screen;
mod settings;
mod signals;
mod summary;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use exit::Exit;
use settings::{Cli, Command, Input};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// All of the program: `main` calls this and returns what it says.
pub fn main() -> ExitCode {
    exit::die_on_panic();
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    match start(std::env::args_os().collect()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("clickstream: {error:#}");
            Exit::Failed.into()
        }
    }
}

fn start(args: Vec<OsString>) -> anyhow::Result<Exit> {
    let command = match settings::command_with_sources(Cli::command(), &args) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("clickstream: {error:#}");
            return Ok(Exit::Usage);
        }
    };
    let matches = command.clone().get_matches_from(args);
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let (chosen, own) = settings::chosen(&command, &matches);
    if let Some(Command::Run { options, .. }) = &mut cli.command {
        options.settle(own);
    }
    cli.run.settle(own);
    #[allow(clippy::print_stdout, reason = "what --print-config is for")]
    let print = |config: &settings::ConfigOptions| {
        config.print_config.then(|| print!("{}", settings::print_config(chosen, own)))
    };
    match cli.command {
        Some(Command::Completions { shell }) => {
            commands::completions::completions(shell);
            Ok(Exit::Done)
        }
        Some(Command::Run { inputs, input, options }) => match print(&options.config) {
            Some(()) => Ok(Exit::Done),
            None => commands::run::run(Input::Files(inputs.into_iter().chain(input).collect()), options),
        },
        None => match print(&cli.run.config) {
            Some(()) => Ok(Exit::Done),
            None => commands::run::run(Input::Sample, cli.run),
        },
    }
}
