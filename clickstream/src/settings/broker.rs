//! Which broker: the embedded one, or Apache Kafka.
use std::fmt;
use std::str::FromStr;

use clap::Args;
use records::topics::DEFAULT_PREFIX;

use super::kafka::KafkaOptions;
use super::topics::PrefixOptions;
use super::values::quoted;

const DEFAULT_PORT: u16 = 9092;
const SCHEME: &str = "kafka://";

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct BrokerOptions {
    /// Apache Kafka as the broker: kafka://host:9092, or several, as in kafka://host1:9092,host2:9092
    /// [default: the embedded one, in the data folder]
    #[arg(long, value_name = "URL")]
    broker: Option<KafkaUrl>,

    #[command(flatten)]
    pub(crate) kafka: KafkaOptions,
}

/// Where to ask for the cluster first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KafkaUrl {
    /// `host:port`, separated by commas.
    brokers: String,
}

impl BrokerOptions {
    pub(crate) fn kafka_url(&self) -> Option<&KafkaUrl> {
        self.broker.as_ref()
    }

    /// The flags that take another command to the same topics; None for the embedded broker.
    pub(crate) fn flags(&self, prefix: &PrefixOptions) -> Option<String> {
        let mut flags = vec!["--broker".to_owned(), quoted(&self.broker.as_ref()?.to_string())];
        if prefix.get() != DEFAULT_PREFIX {
            flags.extend(["--topic-prefix".to_owned(), quoted(prefix.get())]);
        }
        flags.extend(self.kafka.flags());
        Some(flags.join(" "))
    }
}

impl KafkaUrl {
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "who connects is not there"))]
    pub(crate) fn brokers(&self) -> &str {
        &self.brokers
    }
}

impl FromStr for KafkaUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a broker is kafka://host:9092, or several as in kafka://host1:9092,host2:9092".to_owned();
        let list = text.strip_prefix(SCHEME).ok_or_else(wrong)?.trim_end_matches('/');
        let address = |part: &str| {
            let (host, port) = match part.rsplit_once(':') {
                // An IPv6 address without a port ends in its bracket.
                Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
                _ => (part, DEFAULT_PORT),
            };
            let is_host = |c: char| !c.is_whitespace() && !"/@?#".contains(c);
            (port > 0 && !host.is_empty() && host.chars().all(is_host)).then(|| format!("{host}:{port}"))
        };
        let brokers: Option<Vec<String>> = list.split(',').map(address).collect();
        Ok(Self { brokers: brokers.ok_or_else(wrong)?.join(",") })
    }
}

impl fmt::Display for KafkaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.brokers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, brokers) in [
            ("kafka://localhost:9092", "localhost:9092"),
            ("kafka://a,b:9093", "a:9092,b:9093"),
            ("kafka://[::1]:9092", "[::1]:9092"),
            ("kafka://[::1]", "[::1]:9092"),
            ("kafka://a.b.example:1/", "a.b.example:1"),
        ] {
            assert_eq!(text.parse::<KafkaUrl>().as_ref().map(KafkaUrl::brokers), Ok(brokers), "{text}");
        }
        for wrong in
            ["", "kafka://", "localhost:9092", "http://a", "kafka://a:0", "kafka://a:x", "kafka://a,,b", "kafka://u@a"]
        {
            assert!(wrong.parse::<KafkaUrl>().is_err(), "{wrong}");
        }
    }
}
