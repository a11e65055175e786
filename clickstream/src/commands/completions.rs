//! `clickstream completions SHELL`.
use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{Shell as Kind, generate};

use super::process::say;
use crate::exit::Exit;
use crate::settings::{Cli, Shell};

pub(crate) fn completions(shell: Shell) -> Result<Exit> {
    let kind = match shell {
        Shell::Bash => Kind::Bash,
        Shell::Elvish => Kind::Elvish,
        Shell::Fish => Kind::Fish,
        Shell::Powershell => Kind::PowerShell,
        Shell::Zsh => Kind::Zsh,
    };
    let mut script = Vec::new();
    generate(kind, &mut Cli::command(), "clickstream", &mut script);
    say(&String::from_utf8(script)?)?;
    Ok(Exit::Done)
}
