//! The environment and the config file, as defaults of the command line: so that a value from any
//! of the three is parsed, refused and explained in one way.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// Flags that are about the one call, not settings.
const NOT_SETTINGS: [&str; 4] = ["help", "version", "config", "print_config"];

/// The command line with the environment and the config file (`--config` or `CLICKSTREAM_CONFIG`)
/// under it.
pub(crate) fn command_with_sources(command: Command, args: &[OsString]) -> Result<Command> {
    let command = with_environment(command);
    let path = config_path(args).or_else(|| std::env::var_os("CLICKSTREAM_CONFIG"));
    match path {
        Some(path) => with_config(command, Path::new(&path)),
        None => Ok(command),
    }
}

/// `--config FILE` or `--config=FILE`, found before the line is parsed as a whole.
fn config_path(args: &[OsString]) -> Option<OsString> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().cloned();
        }
        if let Some(path) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    None
}

fn with_environment(command: Command) -> Command {
    each_flag(command, |arg| {
        let Some(long) = arg.get_long() else { return arg };
        let name = format!("CLICKSTREAM_{}", long.replace('-', "_").to_uppercase());
        let arg = if matches!(arg.get_action(), ArgAction::SetTrue) {
            arg.value_parser(FalseyValueParser::new())
        } else {
            arg
        };
        arg.env(name).hide_env(true)
    })
}

fn each_flag(command: Command, change: impl Fn(Arg) -> Arg + Copy) -> Command {
    let skip = |arg: &Arg| ["help", "version"].contains(&arg.get_id().as_str());
    let command = command.mut_args(|arg| if skip(&arg) { arg } else { change(arg) });
    command.mut_subcommands(|sub| sub.mut_args(|arg| if skip(&arg) { arg } else { change(arg) }))
}

fn with_config(command: Command, path: &Path) -> Result<Command> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
    let table: toml::Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
    let (mut common, mut own) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in table {
        match value {
            toml::Value::Table(section) if command.find_subcommand(&key).is_some() => {
                for (flag, value) in section {
                    own.insert((key.clone(), flag.clone()), scalar(path, &flag, value)?);
                }
            }
            value => {
                let value = scalar(path, &key, value)?;
                common.insert(key, value);
            }
        }
    }
    let known = |command: &Command, flag: &str| {
        command
            .get_arguments()
            .any(|arg| arg.get_long() == Some(flag) && !NOT_SETTINGS.contains(&arg.get_id().as_str()))
    };
    for flag in common.keys() {
        if !known(&command, flag) && !command.get_subcommands().any(|sub| known(sub, flag)) {
            bail!(
                "{}: no command has a setting {flag:?}; keys are the flags' names (clickstream run --help)",
                path.display()
            );
        }
    }
    for (section, flag) in own.keys() {
        if !command.find_subcommand(section).is_some_and(|sub| known(sub, flag)) {
            bail!("{}: [{section}] has no setting {flag:?}; keys are the flags' names", path.display());
        }
    }
    let with_defaults = |command: Command, section: Option<&str>| {
        command.mut_args(|arg| {
            let Some(long) = arg.get_long() else { return arg };
            let value = section
                .and_then(|section| own.get(&(section.to_owned(), long.to_owned())))
                .or_else(|| common.get(long));
            match value {
                Some(value) if !NOT_SETTINGS.contains(&arg.get_id().as_str()) => arg.default_value(value.clone()),
                _ => arg,
            }
        })
    };
    let command = with_defaults(command, Some("run"));
    Ok(command.mut_subcommands(|sub| {
        let name = sub.get_name().to_owned();
        with_defaults(sub, Some(&name))
    }))
}

fn scalar(path: &Path, key: &str, value: toml::Value) -> Result<String> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        _ => bail!("{}: {key} must be a string, a number or true or false", path.display()),
    }
}

/// The settings as they came out, with where each is from.
pub(crate) fn print_config(command: &Command, matches: &ArgMatches) -> String {
    let mut out = String::from("# clickstream --print-config\n");
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let Some(long) = arg.get_long() else { continue };
        if NOT_SETTINGS.contains(&id) || !matches.try_contains_id(id).unwrap_or(false) {
            continue;
        }
        let from = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "command line",
            Some(ValueSource::EnvVariable) => "environment",
            _ => "default or config file",
        };
        let raw: Vec<_> = matches.get_raw(id).into_iter().flatten().map(|raw| raw.to_string_lossy()).collect();
        let value = match (arg.get_action(), raw.as_slice()) {
            (ArgAction::SetTrue, _) => matches.get_flag(id).to_string(),
            (_, [one]) => toml::Value::String(one.clone().into_owned()).to_string(),
            _ => continue,
        };
        out += &format!("{long} = {value} # {from}\n");
    }
    out
}
