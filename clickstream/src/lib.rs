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

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use exit::Exit;
use settings::{Cli, Command};

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
            eprintln!("clickstream: {error:#}");
            if error.is::<exit::Wrong>() { Exit::Usage.into() } else { Exit::Failed.into() }
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
    match &mut cli.command {
        Some(Command::Run { options, .. }) => options.settle(own),
        Some(Command::Produce { options, .. }) => options.settle(own),
        None => cli.run.settle(own),
        // The others have no pace.
        Some(_) => {}
    }
    #[allow(clippy::print_stdout, reason = "what --print-config is for")]
    if own.try_get_one::<bool>("print_config").is_ok_and(|asked| asked == Some(&true)) {
        print!("{}", settings::print_config(chosen, own));
        return Ok(Exit::Done);
    }
    commands::start(cli)
}
