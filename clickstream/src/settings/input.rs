//! What is played, and what of it may be wrong.
use std::path::PathBuf;

use clap::Args;
use producer::GzipIndex;

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

    /// Where it is noted how .gz inputs can be entered in the middle, so that a resume need not
    /// unpack them from the beginning [default: index/ in the data folder; of `produce`, which has
    /// none, clickstream/ in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    index_dir: Option<PathBuf>,
}

impl InputOptions {
    pub(super) fn apply(&self, settings: &mut producer::Settings) {
        settings.beside = self.beside;
        settings.max_dead_letters = self.max_dead_letters;
        settings.gzip_index = self.index_dir.clone().map(GzipIndex::new);
    }
}

/// Of who has no data folder. None where nobody says where such things go.
pub(crate) fn index_in_cache() -> Option<GzipIndex> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")))?;
    Some(GzipIndex::new(cache.join("clickstream")))
}
