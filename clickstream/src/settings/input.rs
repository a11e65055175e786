//! What is played, and what of it may be wrong.
use clap::Args;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Input")]
pub(crate) struct InputOptions {
    /// Takes an input that shares a file name with one already here, and differs from it, as
    /// another source all the same
    #[arg(long)]
    beside: bool,

    /// Fails when more rows than this cannot be read [default: no limit]
    #[arg(long, value_name = "N")]
    max_dead_letters: Option<u64>,

    /// Another server than the cloud's own for inputs in gs:// and s3://; gs:// then goes without
    /// credentials unless they are named
    #[arg(long, value_name = "URL")]
    pub(super) input_endpoint: Option<String>,
}

impl InputOptions {
    pub(super) fn apply(&self, settings: &mut producer::Settings) {
        settings.beside = self.beside;
        settings.max_dead_letters = self.max_dead_letters;
    }
}
