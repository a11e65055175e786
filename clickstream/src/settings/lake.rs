//! Where the lake is, and what its files are like.
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use bytesize::ByteSize;
use clap::Args;
use consumer::lake::{Codec, Metrics, Settings, open_bucket, open_local, open_local_synced};
use prometheus::Registry;
use tokio::runtime::Handle;

use super::cloud::CloudOptions;
use super::embedded::Durability;
use super::values::LakeAt;
use crate::exit::Wrong;
use crate::folder::Folder;
use crate::pipeline::Lake;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct LakeOptions {
    /// A folder, gs://bucket/prefix or s3://bucket/prefix [default: lake/ in the data folder]
    #[arg(long, value_name = "DIR|URL")]
    lake: Option<LakeAt>,

    /// Another server than the cloud's own for the lake's bucket: a store that speaks S3, as in
    /// http://127.0.0.1:9000, or a test's; gs:// then goes without credentials unless they are named
    #[arg(long, value_name = "URL")]
    lake_endpoint: Option<String>,

    /// How long a store that does not answer is tried, 1s to 1h, until that is an outage: then `run`
    /// goes on without the lake and tries on until it can be reached, and `consume lake` ends
    /// [default: 60s, 5m on Kafka]
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| within(text, RETRIES))]
    lake_retry: Option<Duration>,

    #[command(flatten)]
    files: FileOptions,
}

/// None of this is part of what a plan is: a restart may choose otherwise, and what an earlier run
/// stored counts as it is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data")]
struct FileOptions {
    /// A file of the lake is ended when it has so many bytes, 64KiB to 1GiB,
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = |text: &str| size(text, FILE_SIZES))]
    lake_file_size: ByteSize,

    /// or has been open for so long, 100ms to 1h; then its rows are there for readers
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = |text: &str| within(text, AGES))]
    lake_file_age: Duration,

    /// What all files that are open may hold together, up to 64GiB; beyond it the partition that
    /// holds most is stored first. More of it makes larger files where rows come fast or many days
    /// at once [default: 64MiB beside all other parts, 256MiB for `consume lake`, and always twice
    /// --lake-file-size]
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| size(text, MEMORY))]
    lake_memory: Option<ByteSize>,

    /// How pages are compressed: lz4 (the quickest), snappy, zstd (the smallest) or none
    #[arg(long, value_name = "CODEC", default_value = "lz4")]
    lake_codec: Codec,
}

const FILE_SIZES: RangeInclusive<u64> = 64 << 10..=1 << 30;
const MEMORY: RangeInclusive<u64> = 1 << 20..=64 << 30;
const AGES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
pub(super) const RETRIES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// In a process with all other parts, which together hold less than 500 MB; and alone.
const MEMORY_BESIDE_OTHERS: u64 = 64 << 20;
const MEMORY_ALONE: u64 = 256 << 20;
/// No row is smaller, whatever the codec: a file is full before a plan has too many rows.
const ROW_BYTES: usize = 8;

fn size(text: &str, within: RangeInclusive<u64>) -> Result<ByteSize, String> {
    let size = text.parse().ok().filter(|size: &ByteSize| within.contains(&size.as_u64()));
    size.ok_or_else(|| {
        format!("it takes a size from {} to {}, as in 64MiB", ByteSize(*within.start()), ByteSize(*within.end()))
    })
}

pub(super) fn within(text: &str, durations: RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).ok().filter(|duration| durations.contains(duration));
    let said = |duration| humantime::format_duration(duration).to_string();
    duration.ok_or_else(|| {
        format!("it takes a duration from {} to {}, as in 30s", said(*durations.start()), said(*durations.end()))
    })
}

impl FileOptions {
    fn apply(&self, settings: &mut Settings, usual_memory: u64) -> Result<()> {
        let file = self.lake_file_size;
        let memory = self.lake_memory.unwrap_or_else(|| ByteSize(usual_memory.max(file.as_u64() * 2)));
        if file > memory {
            bail!(Wrong(format!(
                "--lake-memory {memory} holds no file of {file} (--lake-file-size): make the one larger or the other smaller"
            )));
        }
        settings.file_bytes = usize::try_from(file.as_u64())?;
        settings.budget_bytes = usize::try_from(memory.as_u64())?;
        settings.max_rows = (settings.file_bytes / ROW_BYTES) as u64;
        settings.max_age = self.lake_file_age;
        settings.codec = self.lake_codec;
        Ok(())
    }
}

impl LakeOptions {
    /// Where it is, if that was said.
    pub(crate) fn given(&self) -> Option<&LakeAt> {
        self.lake.as_ref()
    }

    /// Whether it is another than the data folder's own.
    pub(crate) fn is_elsewhere(&self, folder: &Folder) -> bool {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        match &self.lake {
            None => false,
            Some(LakeAt::Bucket(_)) => true,
            Some(LakeAt::Folder(dir)) => real(dir) != real(&folder.lake()),
        }
    }

    /// How long the store is tried, if not for as long as usual.
    pub(crate) fn retry_for(&self, usual: Duration) -> Duration {
        self.lake_retry.unwrap_or(usual)
    }

    /// Where its bucket is, if that can be seen.
    pub(crate) fn location(&self, cloud: &CloudOptions, runtime: &Handle) -> Option<String> {
        match self.lake.as_ref()? {
            LakeAt::Bucket(bucket) => {
                consumer::lake::location(bucket, &cloud.bucket(self.lake_endpoint.as_deref()), runtime)
            }
            LakeAt::Folder(_) => None,
        }
    }

    /// What the lake is told. A bucket is looked at here: what is wrong with it is said before
    /// anything is sent.
    pub(crate) fn lake(
        &self,
        prefix: &str,
        folder: &Folder,
        cloud: &CloudOptions,
        durability: Durability,
        runtime: Handle,
        registry: &Registry,
    ) -> Result<Lake> {
        let metrics = Metrics::register(registry)?;
        let at = self.lake.clone().unwrap_or_else(|| LakeAt::Folder(folder.lake()));
        let lists_in_order = matches!(at, LakeAt::Bucket(_));
        let (lake, store) = match at {
            LakeAt::Bucket(bucket) => {
                let access = cloud.bucket(self.lake_endpoint.as_deref());
                (bucket.to_string(), open_bucket(&bucket, &access, &runtime, &metrics)?)
            }
            LakeAt::Folder(dir) => {
                let store = match durability {
                    Durability::Process => open_local(&dir)?,
                    Durability::Power => open_local_synced(&dir)?,
                };
                (dir.display().to_string(), store)
            }
        };
        let mut settings = Settings { prefix: prefix.to_owned(), lake, lists_in_order, ..Settings::default() };
        settings.retry_for = self.retry_for(settings.retry_for);
        self.files.apply(&mut settings, MEMORY_BESIDE_OTHERS)?;
        Ok(Lake { settings, store, runtime, metrics })
    }

    /// In a process without the other parts its files may hold more, if nothing else was said.
    pub(crate) fn alone(&self, settings: &mut Settings) -> Result<()> {
        self.files.apply(settings, MEMORY_ALONE)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        files: FileOptions,
    }

    fn settings(flags: &[&str]) -> Result<Settings> {
        let line = Line::try_parse_from([&["lake"], flags].concat())?;
        let mut settings = Settings::default();
        line.files.apply(&mut settings, MEMORY_BESIDE_OTHERS)?;
        Ok(settings)
    }

    #[test]
    fn files() {
        let told = |flags: &[&str]| {
            let s = settings(flags).unwrap();
            (s.file_bytes >> 10, s.budget_bytes >> 10, s.max_rows >> 10, s.max_age.as_millis(), s.codec)
        };
        let (file, memory, rows) = (32 << 10, 64 << 10, 4 << 10);
        assert_eq!(told(&[]), (file, memory, rows, 60_000, Codec::Lz4Raw), "what the sink itself takes for granted");
        let own = Settings::default();
        assert_eq!((own.file_bytes, own.budget_bytes, own.max_rows), (32 << 20, 64 << 20, 4 << 20));
        for (flags, expected) in [
            (&["--lake-file-size", "64MiB"][..], (64 << 10, 128 << 10, 8 << 10, 60_000, Codec::Lz4Raw)),
            (&["--lake-file-size", "64KiB", "--lake-file-age", "100ms"], (64, memory, 8, 100, Codec::Lz4Raw)),
            (&["--lake-memory", "1GiB", "--lake-codec", "zstd"], (file, 1 << 20, rows, 60_000, Codec::Zstd)),
            (&["--lake-codec", "none"], (file, memory, rows, 60_000, Codec::None)),
            (&["--lake-codec", "snappy"], (file, memory, rows, 60_000, Codec::Snappy)),
        ] {
            assert_eq!(told(flags), expected, "{flags:?}");
        }
    }

    #[test]
    fn what_is_refused_says_what_it_would_take() {
        for (flags, says) in [
            (&["--lake-file-size", "1KiB"][..], "from 64.0 KiB to 1.0 GiB"),
            (&["--lake-file-size", "2GiB"], "from 64.0 KiB to 1.0 GiB"),
            (&["--lake-file-size", "large"], "as in 64MiB"),
            (&["--lake-file-age", "0s"], "from 100ms to 1h"),
            (&["--lake-file-age", "2h"], "from 100ms to 1h"),
            (&["--lake-memory", "1KiB"], "from 1.0 MiB"),
            (&["--lake-memory", "16MiB"], "--lake-file-size"),
            (&["--lake-codec", "gzip"], "lz4, snappy, zstd or none"),
        ] {
            let why = format!("{:#}", settings(flags).unwrap_err());
            assert!(why.contains(says) && why.contains(flags[0]), "{flags:?}: {why}");
        }
    }
}
