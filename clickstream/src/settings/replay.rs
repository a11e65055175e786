//! All that the producer is told: a group of flags a file, each applied to its settings.
use clap::{ArgMatches, Args};

use super::input::InputOptions;
use super::pace::PaceOptions;
use super::topics::TopicOptions;

/// What is played.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The bundled sample, with settings made for looking at it.
    Sample,
    Files(Vec<String>),
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

    pub(crate) fn settings(&self, input: &Input, topics: &TopicOptions) -> producer::Settings {
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
        settings.format = topics.format();
        settings.prefix = topics.prefix().to_owned();
        settings
    }
}
