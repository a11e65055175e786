//! All that the producer is told: a group of flags a file, each applied to its settings.
use clap::{ArgMatches, Args};
use records::Format;

use super::input::InputOptions;
use super::pace::PaceOptions;

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
    /// .gz, .zst or .zip (archive.zip!member.csv chooses a member)
    #[arg(value_name = "INPUT", required_unless_present = "input")]
    inputs: Vec<String>,

    /// The same as INPUT
    #[arg(long = "input", value_name = "INPUT", help_heading = "Input")]
    input: Vec<String>,
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
}

impl ReplayOptions {
    pub(super) fn settle(&mut self, matches: &ArgMatches) {
        self.pace.settle(matches);
    }

    pub(crate) fn settings(&self, input: &Input, prefix: &str, format: Format) -> producer::Settings {
        let (sample, inputs) = match input {
            Input::Sample => {
                let bytes = dataset::sample();
                (true, vec![producer::Input::Memory { name: dataset::SAMPLE_NAME.into(), bytes }])
            }
            Input::Files(files) => (false, files.iter().map(|file| producer::Input::parse(file)).collect()),
        };
        let mut settings = producer::Settings::new(inputs, self.pace.pace(sample));
        self.pace.apply(sample, &mut settings);
        self.input.apply(&mut settings);
        settings.format = format;
        settings.prefix = prefix.to_owned();
        settings
    }
}
