//! How to speak to Kafka: librdkafka's own settings, with secrets from files or the environment.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use broker::kafka::{Kafka, Settings, is_secret};
use clap::Args;

use super::broker::KafkaUrl;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kafka")]
pub(crate) struct KafkaOptions {
    /// A setting of librdkafka, as in security.protocol=SASL_SSL; may be repeated. A value may be
    /// ${env:NAME} or ${file:PATH}: a secret has to be, here, since other processes see the line
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = '\n')]
    kafka_property: Vec<Property>,

    /// A file of such settings, a line each; --kafka-property goes before it
    #[arg(long, value_name = "FILE")]
    kafka_properties: Option<PathBuf>,

    /// For SASL OAUTHBEARER: a file with a token, read again before it expires
    #[arg(long, value_name = "FILE")]
    kafka_token_file: Option<PathBuf>,

    /// Copies of each partition of topics that are made [default: the cluster's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    replication_factor: Option<u16>,
}

/// `key=value`; the value may point to where it is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Property {
    key: String,
    value: String,
}

impl KafkaOptions {
    pub(crate) fn settings(&self, url: &KafkaUrl, client_id: &str) -> Result<Settings> {
        let mut properties = BTreeMap::new();
        if let Some(path) = &self.kafka_properties {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("--kafka-properties {}", path.display()))?;
            for property in of_file(path, &text)? {
                properties.insert(property.key.clone(), property.resolve()?);
            }
        }
        for property in &self.kafka_property {
            if is_secret(&property.key) && property.reference().is_none() {
                bail!(
                    "--kafka-property {0}: the value of a secret would be seen by every process of this machine: say \
                     {0}=${{env:NAME}} or {0}=${{file:PATH}}, or write it into a file for --kafka-properties",
                    property.key
                );
            }
            properties.insert(property.key.clone(), property.resolve()?);
        }
        let mut settings = Settings::new(url.brokers());
        settings.properties = properties;
        settings.replication_factor = self.replication_factor;
        settings.client_id = client_id.to_owned();
        settings.token_file.clone_from(&self.kafka_token_file);
        Ok(settings)
    }

    pub(crate) fn connect(&self, settings: Settings) -> broker::Result<Arc<Kafka>> {
        Kafka::connect(settings)
    }
}

impl Property {
    /// `${env:NAME}` or `${file:PATH}`: which of them, and the name or path.
    fn reference(&self) -> Option<(&str, &str)> {
        let inner = self.value.strip_prefix("${")?.strip_suffix('}')?;
        inner.split_once(':').filter(|(kind, _)| ["env", "file"].contains(kind))
    }

    fn resolve(&self) -> Result<String> {
        match self.reference() {
            Some(("env", name)) => std::env::var(name)
                .with_context(|| format!("the Kafka property {}: the environment variable {name}", self.key)),
            Some((_, path)) => std::fs::read_to_string(path)
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .with_context(|| format!("the Kafka property {}: {path}", self.key)),
            None => Ok(self.value.clone()),
        }
    }
}

impl FromStr for Property {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("a property is KEY=VALUE, as in security.protocol=SASL_SSL")?;
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        if key.is_empty() { Err("a property is KEY=VALUE".to_owned()) } else { Ok(Self { key, value }) }
    }
}

/// It may be a secret: only the key is shown.
impl std::fmt::Debug for Property {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=…", self.key)
    }
}

/// Lines of `key=value`; empty ones and those that begin with # or ! are comments.
fn of_file(path: &Path, text: &str) -> Result<Vec<Property>> {
    let is_comment = |line: &str| line.is_empty() || line.starts_with(['#', '!']);
    let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !is_comment(line));
    let parse = |(number, line): (u32, &str)| {
        // What it says may be a secret, and is not repeated.
        line.parse().map_err(|why: String| anyhow::anyhow!("{}, line {number}: {why}", path.display()))
    };
    lines.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(property: &[&str], file: Option<PathBuf>) -> KafkaOptions {
        KafkaOptions {
            kafka_property: property.iter().map(|text| text.parse().unwrap()).collect(),
            kafka_properties: file,
            kafka_token_file: None,
            replication_factor: None,
        }
    }

    #[test]
    fn a_secret_comes_from_a_file_or_the_environment() {
        let folder = std::env::temp_dir().join(format!("clickstream-kafka-settings-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (secret, file) = (folder.join("secret"), folder.join("kafka.properties"));
        std::fs::write(&secret, "hunter2\n").unwrap();
        std::fs::write(&file, "# ours\n\nsasl.username = me\nsasl.password=from file\nssl.ca.location=/ca\n").unwrap();
        let url = "kafka://a".parse().unwrap();
        let of_reference = format!("sasl.password=${{file:{}}}", secret.display());
        let found = options(&[&of_reference, "ssl.ca.location=/own"], Some(file.clone())).settings(&url, "x").unwrap();
        let expected = [("sasl.password", "hunter2"), ("sasl.username", "me"), ("ssl.ca.location", "/own")];
        assert_eq!(found.properties.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
        let plain = options(&["sasl.password=hunter2"], None);
        assert!(!format!("{plain:?}").contains("hunter2"));
        let refused = plain.settings(&url, "x").unwrap_err().to_string();
        assert!(refused.contains("${env:NAME}") && !refused.contains("hunter2"), "{refused}");
        let missing = options(&["sasl.password=${env:CLICKSTREAM_NO_SUCH}"], None).settings(&url, "x").unwrap_err();
        assert!(format!("{missing:#}").contains("CLICKSTREAM_NO_SUCH"), "{missing:#}");
        std::fs::write(&file, "sasl.password hunter2").unwrap();
        let wrong = options(&[], Some(file)).settings(&url, "x").unwrap_err().to_string();
        assert!(wrong.contains("line 1") && !wrong.contains("hunter2"), "{wrong}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
