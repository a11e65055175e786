//! All that the producer is told: a group of flags a file, each applied to its settings.
use std::sync::OnceLock;

use anyhow::{Context, Result};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use dataset::generate::{Generated, HEADER, Plan, SCHEME};
use records::Format;
use remote::Access;

use super::cloud::CloudOptions;
use super::disorder::DisorderOptions;
use super::input::InputOptions;
use super::pace::PaceOptions;
use super::window::WindowOptions;
use crate::exit::Wrong;

/// What is played.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The bundled sample, with settings made for looking at it.
    Sample,
    Files(Vec<String>),
}

/// Files as they are named on the command line.
#[derive(Clone, Debug, Args)]
pub(crate) struct InputArgs {
    /// Files, globs or - (standard input), played one after another as one source: CSV, plain or in
    /// .gz, .zst or .zip (archive.zip!member.csv chooses a member); also
    /// gs://, s3:// and https:// URLs; or
    /// generate://2019-Nov?rows=67M&seed=7, rows that are made as they are read
    #[arg(value_name = "INPUT")]
    inputs: Vec<String>,

    /// The same as INPUT; may be repeated
    #[arg(long = "input", value_name = "INPUT", help_heading = "Input", value_delimiter = '\n')]
    input: Vec<String>,
}

impl InputArgs {
    /// What stands on the command line beats the environment and the config file. Returns the flags
    /// that were beaten.
    pub(crate) fn settle(&mut self, matches: &ArgMatches) -> Result<Vec<&'static str>, Wrong> {
        if self.inputs.is_empty() && self.input.is_empty() {
            let what = "a file, a glob, a URL, or - for standard input, as in clickstream run 2019-Oct.csv.gz";
            return Err(Wrong(format!("INPUT is missing: {what}")));
        }
        let beaten = !self.inputs.is_empty() && matches.value_source("input") != Some(ValueSource::CommandLine);
        if beaten {
            self.input.clear();
        }
        Ok(if beaten { vec!["input"] } else { Vec::new() })
    }
}

impl From<InputArgs> for Input {
    fn from(InputArgs { inputs, input }: InputArgs) -> Self {
        Self::Files(inputs.into_iter().chain(input).collect())
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReplayOptions {
    #[command(flatten)]
    pace: PaceOptions,

    #[command(flatten)]
    input: InputOptions,

    #[command(flatten)]
    window: WindowOptions,

    #[command(flatten)]
    disorder: DisorderOptions,
}

impl ReplayOptions {
    pub(super) fn settle(&mut self, matches: &ArgMatches) -> Result<Vec<&'static str>, Wrong> {
        self.pace.settle(matches)
    }

    pub(crate) fn settings(
        &self,
        input: &Input,
        prefix: &str,
        format: Format,
        cloud: &CloudOptions,
    ) -> Result<producer::Settings> {
        let access = cloud.bucket(self.input.input_endpoint.as_deref());
        let (sample, inputs) = match input {
            Input::Sample => {
                let bytes = dataset::sample();
                (true, vec![producer::Input::Memory { name: dataset::SAMPLE_NAME.into(), bytes }])
            }
            Input::Files(files) => (false, files.iter().map(|file| parse(file, &access)).collect::<Result<_>>()?),
        };
        let mut settings = producer::Settings::new(inputs, self.pace.pace(sample));
        self.pace.apply(sample, &mut settings);
        self.input.apply(&mut settings);
        self.window.apply(&mut settings);
        self.disorder.apply(&mut settings);
        settings.format = format;
        settings.prefix = prefix.to_owned();
        settings.check().map_err(|e| Wrong(e.to_string()))?;
        Ok(settings)
    }
}

fn remote_or_local(input: &str, access: &Access) -> Result<producer::Input> {
    let local = input.strip_prefix("file://").unwrap_or(input);
    if !remote::is_url(local) {
        return Ok(producer::Input::parse(local));
    }
    let place = remote::open(local, access).map_err(anyhow::Error::msg)?;
    Ok(producer::Input::Remote(remote::Objects::new(place, remote::runtime()?)))
}

fn parse(input: &str, access: &Access) -> Result<producer::Input> {
    if !input.starts_with(SCHEME) {
        return remote_or_local(input, access);
    }
    let plan: Plan = input.parse().with_context(|| input.to_owned())?;
    // Fitted when it is first asked for, and kept for the reader.
    let generated = OnceLock::new();
    let open = move |row| -> std::io::Result<Box<dyn std::io::Read + Send>> {
        Ok(Box::new(generated.get_or_init(|| Generated::new(plan)).text_from(row)))
    };
    Ok(producer::Input::Synthetic(producer::Synthetic::new(plan.to_string(), HEADER, plan.rows, open)))
}
