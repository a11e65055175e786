//! Which months are fetched, from where and where to.
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use dataset::fetch::{KAGGLE, MIRROR, Origin, Token};
use dataset::generate::Month;

use super::cloud::CloudOptions;
use super::config::ConfigOptions;
use super::generate::month;
use super::output::LogOptions;
use super::values::{ONE_SLASH, lacks_a_slash};

#[derive(Clone, Debug, Args)]
pub(crate) struct FetchOptions {
    /// Months of the real data, as in 2019-Oct; there are those from 2019-Oct to 2020-Apr. A server
    /// that asks to wait (Retry-After) is given up to five minutes
    #[arg(value_name = "MONTH", required = true, value_parser = month)]
    pub(crate) months: Vec<Month>,

    /// Who serves them: the public mirror asks for no login, Kaggle for your token
    /// (~/.kaggle/kaggle.json, or KAGGLE_USERNAME and KAGGLE_KEY)
    #[arg(long, help_heading = "Input", value_enum, default_value_t = From::Mirror)]
    from: From,

    /// Another server than the usual one [default: the mirror's folder, or Kaggle's archive]
    #[arg(long, help_heading = "Input", value_name = "URL")]
    from_url: Option<String>,

    /// A folder, or one in a bucket: gs://bucket/raw/kaggle, s3://bucket/raw/kaggle
    #[arg(long, help_heading = "Output", value_name = "FOLDER", default_value = ".")]
    to: String,

    /// Another server than the cloud's own for a bucket; gs:// then goes without credentials unless
    /// they are named
    #[arg(long, help_heading = "Output", value_name = "URL")]
    to_endpoint: Option<String>,

    #[command(flatten)]
    cloud: CloudOptions,

    #[command(flatten)]
    pub(crate) log: LogOptions,

    #[command(flatten)]
    pub(crate) config: ConfigOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum From {
    Mirror,
    Kaggle,
}

/// Where files go.
pub(crate) enum Destination {
    Folder(PathBuf),
    Bucket(remote::Place),
}

impl FetchOptions {
    pub(crate) fn origin(&self) -> Result<Origin> {
        let url = |usual: &str| self.from_url.clone().unwrap_or_else(|| usual.to_owned());
        Ok(match self.from {
            From::Mirror => Origin::Mirror(url(MIRROR)),
            From::Kaggle => Origin::Kaggle(url(KAGGLE), Token::find(|name| std::env::var(name).ok())?),
        })
    }

    pub(crate) fn destination(&self) -> Result<Destination> {
        Ok(match self.to.split_once("://") {
            Some(("gs" | "s3", _)) => {
                let access = self.cloud.bucket(self.to_endpoint.as_deref());
                Destination::Bucket(remote::open(&self.to, &access).map_err(anyhow::Error::msg)?)
            }
            Some(_) => anyhow::bail!("--to {}: it takes a folder, gs:// or s3://", self.to),
            None if lacks_a_slash(&self.to) => anyhow::bail!("--to {}: {ONE_SLASH}{}", self.to, self.to),
            None => Destination::Folder(PathBuf::from(&self.to)),
        })
    }
}
