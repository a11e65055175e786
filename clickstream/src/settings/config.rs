//! The environment and the config file, as defaults of the command line: so that a value from any
//! of the three is parsed, refused and explained in one way.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct ConfigOptions {
    /// A TOML file of settings: keys are the flags' names, at the top or under [run]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Prints the settings as they came out, as such a file, and does nothing else
    #[arg(long)]
    pub(crate) print_config: bool,
}

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

/// Changes every flag of the command and of those below it.
fn each_flag(command: Command, change: impl Fn(Arg) -> Arg + Copy) -> Command {
    let skip = |arg: &Arg| ["help", "version"].contains(&arg.get_id().as_str());
    let command = command.mut_args(|arg| if skip(&arg) { arg } else { change(arg) });
    command.mut_subcommands(|sub| each_flag(sub, change))
}

fn with_config(command: Command, path: &Path) -> Result<Command> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
    let table: toml::Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
    let mut values = BTreeMap::new();
    read(&command, path, &mut Vec::new(), table, &mut values)?;
    Ok(with_defaults(command, &[], &values))
}

/// By the section, as in `consume.lake` (none: empty), and the flag.
type Values = BTreeMap<(Vec<String>, String), String>;

/// Takes the keys of one section and of those within it: sections are named like commands.
fn read(
    command: &Command,
    path: &Path,
    section: &mut Vec<String>,
    table: toml::Table,
    values: &mut Values,
) -> Result<()> {
    for (key, value) in table {
        match (value, command.find_subcommand(&key)) {
            (toml::Value::Table(table), Some(sub)) => {
                section.push(key);
                read(sub, path, section, table, values)?;
                section.pop();
            }
            (value, _) => {
                let value = match value {
                    // Of a flag that may be repeated.
                    toml::Value::Array(values) if is_list(command, &key) => {
                        let values: Result<Vec<_>> =
                            values.into_iter().map(|value| scalar(path, &key, value)).collect();
                        values?.join(LIST_DELIMITER)
                    }
                    value => scalar(path, &key, value)?,
                };
                if !knows(command, &key) {
                    let path = path.display();
                    if section.is_empty() {
                        bail!(
                            "{path}: no command has a setting {key:?}; keys are the flags' names (clickstream run --help)"
                        );
                    }
                    bail!("{path}: [{}] has no setting {key:?}; keys are the flags' names", section.join("."));
                }
                values.insert((section.clone(), key), value);
            }
        }
    }
    Ok(())
}

/// Between the values of a flag that may be repeated, in the environment.
const LIST_DELIMITER: &str = "\n";

fn is_list(command: &Command, flag: &str) -> bool {
    let is_it = |arg: &Arg| arg.get_long() == Some(flag) && arg.get_value_delimiter() == Some('\n');
    command.get_arguments().any(is_it) || command.get_subcommands().any(|sub| is_list(sub, flag))
}

/// Whether the command, or one below it, has that setting.
fn knows(command: &Command, flag: &str) -> bool {
    let is_it = |arg: &Arg| arg.get_long() == Some(flag) && !NOT_SETTINGS.contains(&arg.get_id().as_str());
    command.get_arguments().any(is_it) || command.get_subcommands().any(|sub| knows(sub, flag))
}

fn with_defaults(command: Command, section: &[String], values: &Values) -> Command {
    // The bare command is a run.
    let own = if section.is_empty() { vec!["run".to_owned()] } else { section.to_vec() };
    let command = command.mut_args(|arg| {
        let Some(long) = arg.get_long().filter(|_| !NOT_SETTINGS.contains(&arg.get_id().as_str())) else { return arg };
        // The innermost section that names it counts.
        let found = (0..=own.len()).rev().find_map(|depth| values.get(&(own[..depth].to_vec(), long.to_owned())));
        match found {
            Some(value) => arg.default_value(value.clone()),
            None => arg,
        }
    });
    command.mut_subcommands(|sub| {
        let mut section = section.to_vec();
        section.push(sub.get_name().to_owned());
        with_defaults(sub, &section, values)
    })
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

/// The command that was chosen, at the end of its subcommands, and what it was given.
pub(crate) fn chosen<'a>(command: &'a Command, matches: &'a ArgMatches) -> (&'a Command, &'a ArgMatches) {
    let (mut command, mut matches) = (command, matches);
    while let Some((name, own)) = matches.subcommand()
        && let Some(sub) = command.find_subcommand(name)
    {
        (command, matches) = (sub, own);
    }
    (command, matches)
}

/// The settings as they came out, with where each is from; `beaten` are those that do not count.
pub(crate) fn print_config(command: &Command, matches: &ArgMatches, beaten: &[&str]) -> String {
    let mut out = String::from("# clickstream --print-config\n");
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let Some(long) = arg.get_long() else { continue };
        // INPUT is --input by another name.
        let ids = if id == "input" { vec!["inputs", id] } else { vec![id] };
        let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
        let counts = |id: &&str| (is_flag || !beaten.contains(id)) && matches.try_contains_id(id).unwrap_or(false);
        let ids: Vec<_> = ids.into_iter().filter(counts).collect();
        let Some(first) = ids.first().filter(|id| !NOT_SETTINGS.contains(id)) else { continue };
        let from = match matches.value_source(first) {
            Some(ValueSource::CommandLine) => "command line",
            Some(ValueSource::EnvVariable) => "environment",
            _ => "default or config file",
        };
        let raw: Vec<_> =
            ids.iter().filter_map(|id| matches.get_raw(id)).flatten().map(|raw| raw.to_string_lossy()).collect();
        let value = match (arg.get_action(), raw.as_slice()) {
            (ArgAction::SetTrue, _) => (matches.get_flag(id) && !beaten.contains(&id)).to_string(),
            (_, []) => continue,
            _ if arg.get_value_delimiter().is_some() => {
                // Of a property the value may be a secret.
                let shown = |one: &str| if id == "kafka_property" { super::kafka::shown(one) } else { one.to_owned() };
                toml::Value::Array(raw.iter().map(|one| toml::Value::String(shown(one))).collect()).to_string()
            }
            (_, [one]) => toml::Value::String(one.clone().into_owned()).to_string(),
            _ => continue,
        };
        out += &format!("{long} = {value} # {from}\n");
    }
    out
}
