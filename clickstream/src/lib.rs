//! The command: settings, the parts wired together, the summary, HTTP, signals.
//!
//! | file | what it holds |
//! |---|---|
//! | `settings/` | the command line, the environment and the config file, as typed settings |
//! | `commands/` | one file a command |
//! | `pipeline/` | the whole wiring of the parts in one process, and when they have caught up |
//! | `folder` | the data folder, and the address of who runs on it |
//! | `http/` | page, API, metrics, health |
//! | `patience` | how long a broker that does not answer is tried at a start |
//! | `screen` | the log and the progress on stderr |
//! | `statistics` | what librdkafka says of its clients, as metrics |
//! | `summary`, `report` | what stdout says at the end, of a run and of a part |
//! | `unfinished` | what has not ended by then, and the command that ends it |
//! | `signals` | drain at the first, leave at the second |

mod commands;
mod exit;
mod folder;
mod http;
mod patience;
mod pipeline;
mod report;
mod screen;
mod settings;
mod signals;
#[cfg(feature = "kafka")]
mod statistics;
mod summary;
mod unfinished;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use exit::Exit;
use screen::Screen;
use settings::{Cli, Command, LogFormat, LogOptions};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a batch needed, the next one needs within the second: to give it back and take it again costs
/// a tenth of all CPU. What nobody needed for seconds goes back, else memory grows to the sum of all
/// parts' largest moments. Few arenas, so that what one part freed another finds; huge pages where the
/// system has them.
#[allow(unsafe_code, reason = "jemalloc reads its settings from a symbol of this name")]
#[unsafe(export_name = "malloc_conf")]
static ALLOCATOR_SETTINGS: Option<&std::ffi::c_char> = {
    const TEXT: &std::ffi::CStr = c"narenas:2,dirty_decay_ms:5000,thp:always";
    // SAFETY: the pointer is to a string that lives as long as the program.
    Some(unsafe { &*TEXT.as_ptr() })
};

/// All of the program: `main` calls this and returns what it says.
pub fn main() -> ExitCode {
    exit::die_on_panic();
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    match start(std::env::args_os().collect()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            screen::complain(&exit::explain(&error));
            Exit::of(&error).into()
        }
    }
}

fn start(args: Vec<OsString>) -> anyhow::Result<Exit> {
    let command = settings::command_with_sources(Cli::command(), &args);
    let command = command.map_err(|error| exit::Wrong(exit::explain(&error)))?;
    let matches = command.clone().get_matches_from(args);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let (chosen, own) = settings::chosen(&command, &matches);
    // `completions` has no log.
    let as_json = own.try_get_one("log_format").is_ok_and(|format| format == Some(&LogFormat::Json));
    match settle_and_run(cli, chosen, own) {
        Err(error) if as_json => {
            Screen::new(&LogOptions::from_arg_matches(own)?);
            tracing::error!("{}", exit::explain(&error));
            Ok(Exit::of(&error))
        }
        done => done,
    }
}

fn settle_and_run(mut cli: Cli, chosen: &clap::Command, own: &ArgMatches) -> anyhow::Result<Exit> {
    let beaten = match &mut cli.command {
        None => cli.run.settle(own)?,
        Some(Command::Run { inputs, options }) => [inputs.settle(own)?, options.settle(own)?].concat(),
        Some(Command::Produce { inputs, options }) => [inputs.settle(own)?, options.settle(own)?].concat(),
        Some(_) => Vec::new(),
    };
    if own.try_get_one::<bool>("print_config").is_ok_and(|asked| asked == Some(&true)) {
        commands::say(&settings::print_config(chosen, own, &beaten))?;
        return Ok(Exit::Done);
    }
    commands::start(cli)
}
