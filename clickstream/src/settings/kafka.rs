//! How to speak to Kafka: librdkafka's own settings, with secrets from files or the environment.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use broker::Broker;
use broker::kafka::{Kafka, Settings, is_secret, may_be_shown};
use clap::Args;
use prometheus::Registry;

use super::broker::KafkaUrl;
use super::values::quoted;
use crate::exit::Wrong;

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

    /// How long a process that was killed keeps its place in its group, unless it is started again
    /// under the same --instance
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = humantime::parse_duration)]
    session_timeout: Duration,

    /// How long a transaction may stay open before the broker ends it: what a process that was
    /// killed in one makes the readers wait
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    transaction_timeout: Duration,

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
    /// Those that say how to speak to the cluster, for another command line. What points to a secret is
    /// no secret.
    pub(super) fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        let mut add = |flag: &str, value: String| flags.extend([flag.to_owned(), quoted(&value)]);
        for Property { key, value } in &self.kafka_property {
            add("--kafka-property", shown(&format!("{key}={value}")));
        }
        for (flag, path) in
            [("--kafka-properties", &self.kafka_properties), ("--kafka-token-file", &self.kafka_token_file)]
        {
            if let Some(path) = path {
                add(flag, path.display().to_string());
            }
        }
        flags
    }

    /// What connects to the cluster, as often as it is called.
    pub(crate) fn connector(
        &self,
        url: &KafkaUrl,
        registry: &Registry,
    ) -> Result<impl Fn() -> broker::Result<Arc<dyn Broker>>> {
        let mut settings = self.settings(url)?;
        settings.on_statistics = Some(crate::statistics::gauges(registry)?);
        Ok(move || Ok(Kafka::connect(settings.clone())? as Arc<dyn Broker>))
    }

    fn settings(&self, url: &KafkaUrl) -> Result<Settings> {
        let mut properties = BTreeMap::new();
        if let Some(path) = &self.kafka_properties {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("--kafka-properties {}", path.display()))?;
            for property in of_file(path, &text)? {
                properties.insert(property.key.clone(), property.resolve()?);
            }
        }
        for property in &self.kafka_property {
            if property.key.is_empty() {
                // What it says may be a secret, and is not repeated.
                bail!(Wrong(format!("one of --kafka-property: {NO_PROPERTY}")));
            }
            if is_secret(&property.key) && property.reference().is_none() {
                bail!(
                    "--kafka-property {0}: a secret does not stand in a setting, which other processes see in a command \
                     line and --print-config in others: say {0}=${{env:NAME}} or {0}=${{file:PATH}}, or write it into a \
                     file for --kafka-properties",
                    property.key
                );
            }
            properties.insert(property.key.clone(), property.resolve()?);
        }
        let mut settings = Settings::new(url.brokers());
        settings.properties = properties;
        settings.replication_factor = self.replication_factor;
        settings.session_timeout = self.session_timeout;
        settings.transaction_timeout = self.transaction_timeout;
        settings.token_file.clone_from(&self.kafka_token_file);
        Ok(settings)
    }
}

/// A property as it may be shown.
pub(super) fn shown(text: &str) -> String {
    match text.parse::<Property>() {
        Ok(property) if may_be_shown(&property.key) || property.reference().is_some() => text.to_owned(),
        Ok(property) if !property.key.is_empty() => format!("{}=…", property.key),
        _ => "…".to_owned(),
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

const NO_PROPERTY: &str = "a property is KEY=VALUE, as in security.protocol=SASL_SSL";

/// Never fails, since an error of a command line shows the text, which may be a secret: what is no property has no
/// key.
impl FromStr for Property {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').unwrap_or_default();
        Ok(Self { key: key.trim().to_owned(), value: value.trim().to_owned() })
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
        match line.parse::<Property>() {
            Ok(property) if !property.key.is_empty() => Ok(property),
            _ => Err(anyhow::anyhow!("{}, line {number}: {NO_PROPERTY}", path.display())),
        }
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
            session_timeout: Duration::from_secs(45),
            transaction_timeout: Duration::from_secs(10),
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
        let found = options(&[&of_reference, "ssl.ca.location=/own"], Some(file.clone())).settings(&url).unwrap();
        let expected = [("sasl.password", "hunter2"), ("sasl.username", "me"), ("ssl.ca.location", "/own")];
        assert_eq!(found.properties.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
        let again =
            options(&["sasl.password=${env:X}", "security.protocol=SASL_SSL"], Some("a b".into())).flags().join(" ");
        assert_eq!(
            again,
            "--kafka-property 'sasl.password=${env:X}' --kafka-property security.protocol=SASL_SSL --kafka-properties 'a b'"
        );
        let plain = options(&["sasl.password=hunter2"], None);
        assert!(!format!("{plain:?}").contains("hunter2"));
        let refused = plain.settings(&url).unwrap_err().to_string();
        assert!(refused.contains("${env:NAME}") && !refused.contains("hunter2"), "{refused}");
        let wrong = options(&["sasl.password hunter2"], None).settings(&url).unwrap_err();
        assert!(wrong.is::<Wrong>() && !wrong.to_string().contains("hunter2"), "{wrong}");
        for (text, expected) in [
            ("sasl.pasword=hunter2", "sasl.pasword=…"),
            ("sasl.password hunter2", "…"),
            ("sasl.password=${env:NAME}", "sasl.password=${env:NAME}"),
            ("linger.ms=5", "linger.ms=5"),
        ] {
            assert_eq!(shown(text), expected);
        }
        let missing = options(&["sasl.password=${env:CLICKSTREAM_NO_SUCH}"], None).settings(&url).unwrap_err();
        assert!(format!("{missing:#}").contains("CLICKSTREAM_NO_SUCH"), "{missing:#}");
        std::fs::write(&file, "sasl.password hunter2").unwrap();
        let wrong = options(&[], Some(file)).settings(&url).unwrap_err().to_string();
        assert!(wrong.contains("line 1") && !wrong.contains("hunter2"), "{wrong}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
