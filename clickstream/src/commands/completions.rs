//! `clickstream completions SHELL`.
use clap::CommandFactory;
use clap_complete::{Shell as Kind, generate};

use crate::settings::{Cli, Shell};

pub(crate) fn completions(shell: Shell) {
    let kind = match shell {
        Shell::Bash => Kind::Bash,
        Shell::Elvish => Kind::Elvish,
        Shell::Fish => Kind::Fish,
        Shell::Powershell => Kind::PowerShell,
        Shell::Zsh => Kind::Zsh,
    };
    generate(kind, &mut Cli::command(), "clickstream", &mut std::io::stdout());
}
