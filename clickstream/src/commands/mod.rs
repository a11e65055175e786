//! One file a command, and what they share: `process`, `part`.
mod check;
mod completions;
mod control;
mod fetch;
mod generate;
mod part;
mod process;
mod run;
mod tail;
mod topics;
mod warehouse;

pub(crate) use process::say;
pub(crate) use tail::{Query as TailQuery, rows as tail_rows};

use anyhow::Result;

use crate::exit::Exit;
use crate::settings::{Cli, Command, Consume, Input, LakeCommand, Topics, WarehouseCommand};

pub(crate) fn start(cli: Cli) -> Result<Exit> {
    match cli.command {
        None => run::run(Input::Sample, cli.run),
        Some(Command::Run { inputs, options }) => run::run(inputs.into(), options),
        Some(Command::Produce { inputs, options }) => part::produce(&inputs.into(), &options),
        Some(Command::Sessionize(options)) => part::sessionize(&options),
        Some(Command::Consume(Consume::Lake(options))) => part::consume_lake(&options),
        Some(Command::Consume(Consume::Warehouse(options))) => part::consume_warehouse(&options),
        Some(Command::Warehouse(WarehouseCommand::Init(options))) => warehouse::init(&options),
        Some(Command::Warehouse(WarehouseCommand::Ddl(options))) => warehouse::ddl(&options),
        Some(Command::Lake(LakeCommand::Ddl(options))) => warehouse::lake_ddl(&options),
        Some(Command::Marts(options)) => part::marts(&options),
        Some(Command::Topics(Topics::Create(options))) => topics::create(&options),
        Some(Command::Topics(Topics::Describe(options))) => topics::describe(&options),
        Some(Command::Control(options)) => control::control(&options),
        Some(Command::Tail(options)) => tail::tail(&options),
        Some(Command::Check(options)) => check::check(&options),
        Some(Command::Fetch(options)) => fetch::fetch(&options),
        Some(Command::Generate(options)) => generate::generate(&options),
        Some(Command::Completions { shell }) => completions::completions(shell),
    }
}
