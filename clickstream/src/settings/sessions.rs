//! When a session is over.
use std::time::Duration;

use clap::Args;
use records::Format;

use super::values::Gap;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sessions")]
pub(crate) struct SessionOptions {
    /// A session is over after a pause longer than this, as in 30m; none: one session a key,
    /// closed when the input ends (memory and recovery then have no bound)
    #[arg(long, default_value = "30m")]
    gap: Gap,

    /// How long a session stays open for events that come out of order, in event time
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    allowed_lateness: Duration,
}

impl SessionOptions {
    pub(crate) fn settings(&self, prefix: &str, format: Format) -> sessionizer::Settings {
        if matches!(self.gap, Gap::None) {
            tracing::warn!("--gap none: sessions stay open until the input ends; memory and recovery have no bound");
        }
        sessionizer::Settings {
            prefix: prefix.to_owned(),
            rules: sessionizer::Rules {
                gap: match self.gap {
                    Gap::After(gap) => sessionizer::Gap::After(gap),
                    Gap::None => sessionizer::Gap::None,
                },
                allowed_lateness: self.allowed_lateness,
            },
            format,
            ..sessionizer::Settings::default()
        }
    }
}
