//! Settings of the backend, and of librdkafka's clients.
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::{Error, Result};

/// The largest record that topics made here take. A row of the input is 1 MiB at the most.
pub(super) const RECORD_MAX_BYTES: usize = 10 << 20;
/// Longer than it takes to fill a transaction flat out.
const LINGER_MAX: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Settings {
    /// Where to ask for the cluster first: `host:port`, several separated by commas.
    pub brokers: String,
    /// librdkafka's own settings, such as `security.protocol`. Those that exactly once rests on
    /// cannot be changed.
    pub properties: BTreeMap<String, String>,
    /// Of topics that are made; the broker's default if there is none.
    pub replication_factor: Option<u16>,
    /// What the broker's logs and quotas know this process by.
    pub client_id: String,
    /// How long a transaction may stay open before the broker aborts it. It holds every reader.
    pub transaction_timeout: Duration,
    /// How long a member that was killed keeps its partitions.
    pub session_timeout: Duration,
    /// For SASL OAUTHBEARER: where a token lies. It is read again before the old one expires.
    pub token_file: Option<PathBuf>,
    /// Told once a second what librdkafka says of each client.
    pub on_statistics: Option<OnStatistics>,
}

pub type OnStatistics = Arc<dyn Fn(&Statistics) + Send + Sync>;

/// Of one client of librdkafka.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// The group, or the transactional id.
    pub client: String,
    /// To be sent, or fetched and not yet read.
    pub queue_records: u64,
    pub queue_bytes: u64,
    pub requests_in_flight: u64,
    /// The 99th percentile of the slowest broker.
    pub round_trip: Duration,
    pub brokers_up: u64,
}

impl Settings {
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            properties: BTreeMap::new(),
            replication_factor: None,
            client_id: "clickstream".to_owned(),
            transaction_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(45),
            token_file: None,
            on_statistics: None,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.brokers.trim().is_empty() {
            return Err(Error::Stop("no Kafka broker is named; one is host:port".to_owned()));
        }
        for name in self.properties.keys() {
            if let Some((_, why)) = FIXED.iter().find(|(fixed, _)| fixed == name) {
                return Err(Error::Stop(format!("the Kafka property {name} cannot be set: {why}")));
            }
        }
        Ok(())
    }

    /// What all clients share; the user's properties come last.
    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", &self.client_id)
            .set("socket.keepalive.enable", "true")
            .set("log.connection.close", "false")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            // A topic that was just made, or a leader that moved, is found soon.
            .set("topic.metadata.refresh.fast.interval.ms", "50");
        config
    }

    fn finish(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        if self.on_statistics.is_some() {
            config.set("statistics.interval.ms", "1000");
        }
        if self.properties.contains_key("debug") {
            config.set_log_level(RDKafkaLogLevel::Debug);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// A consumer that commits to `group`, or never commits where there is none.
    pub(super) fn consumer(&self, group: Option<&str>, instance: Option<&str>) -> ClientConfig {
        let mut config = self.base();
        config
            .set("session.timeout.ms", self.session_timeout.as_millis().to_string())
            // How soon a member learns of a rebalance.
            .set("heartbeat.interval.ms", "500")
            // Its default stops a partition for a second whenever the prefetch queue is full.
            .set("fetch.queue.backoff.ms", "1")
            // What waits for longer is no more in the processor's caches when it is read, and an answer of more
            // is memory that the allocator gives back, and takes and clears again, each time.
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.max.bytes", (4 << 20).to_string());
        let mut config = self.finish(config);
        // The most that a consumer begins to unpack a batch into; one that grows beyond it is copied.
        if let Some(most) = config.get("fetch.max.bytes").filter(|_| config.get("message.max.bytes").is_none()) {
            let most = most.to_owned();
            config.set("message.max.bytes", most);
        }
        config
            .set("group.id", group.unwrap_or("clickstream.nobody"))
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "range")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false");
        if let Some(instance) = instance {
            config.set("group.instance.id", instance);
        }
        config
    }

    /// The consumer that looks where logs end: little, and at once.
    pub(super) fn probe(&self) -> ClientConfig {
        let mut config = self.consumer(None, None);
        config
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "2048");
        config
    }

    /// The consumer that asks what a group has committed, and reads nothing.
    pub(super) fn inquirer(&self, group: &str) -> ClientConfig {
        let mut config = self.consumer(Some(group), None);
        config.set("statistics.interval.ms", "0");
        config
    }

    pub(super) fn producer(&self, transactional_id: &str) -> ClientConfig {
        let timeout_ms = self.transaction_timeout.as_millis().to_string();
        let mut config = self.base();
        config
            .set("compression.type", "lz4")
            // A commit sends what lingers, so nothing waits that long. librdkafka has one request of a
            // partition under way, and while more of it has lingered asks without pause whether that is
            // answered: best that a transaction is one batch of each partition.
            .set("linger.ms", (self.transaction_timeout / 10).min(LINGER_MAX).as_millis().to_string())
            .set("batch.size", (4 << 20).to_string())
            .set("batch.num.messages", "50000")
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "65536");
        let mut config = self.finish(config);
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", &timeout_ms)
            // A record that is not delivered within the transaction is lost with it.
            .set("message.timeout.ms", &timeout_ms)
            .set("message.max.bytes", (RECORD_MAX_BYTES + 1024).to_string())
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Where records stand in the log is said by these alone.
            .set("delivery.report.only.error", "false");
        config
    }
}

/// Properties that are not the user's, and why.
const FIXED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is the address that was given"),
    ("metadata.broker.list", "it is the address that was given"),
    ("group.id", "each part has its own"),
    ("group.instance.id", "it is the instance's name"),
    ("group.protocol", "static members need the classic one"),
    ("partition.assignment.strategy", "partitions are handed over by the range assignor"),
    ("isolation.level", "only what was committed may be read"),
    ("auto.offset.reset", "a position outside the log is an error, never a silent jump"),
    ("enable.auto.commit", "positions are committed with what was made of the records"),
    ("enable.auto.offset.store", "positions are committed with what was made of the records"),
    ("enable.partition.eof", "it is used within"),
    ("transactional.id", "it is the feed's or the instance's name"),
    ("transaction.timeout.ms", "it has a setting of its own"),
    ("message.timeout.ms", "it is the transaction's"),
    ("delivery.timeout.ms", "it is the transaction's"),
    ("enable.idempotence", "transactions need it"),
    ("acks", "transactions need all"),
    ("request.required.acks", "transactions need all"),
    ("delivery.report.only.error", "where records stand is learned from the reports of those delivered"),
    ("session.timeout.ms", "it has a setting of its own"),
];

/// Whether a property's value is a secret, by its name.
pub fn is_secret(name: &str) -> bool {
    const SECRETS: &[&str] = &[
        "password",
        "passphrase",
        "secret",
        "token",
        "key.pem",
        "oauthbearer.config",
        "jaas",
        "user.info",
        "credential",
    ];
    // Where a token is asked for is none.
    let is_endpoint = name.ends_with("token.endpoint.url");
    !is_endpoint && SECRETS.iter().any(|part| name.contains(part))
}

/// Whether a property's value may be shown: a name that is not known may be that of a secret, misspelt.
pub fn may_be_shown(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "security.protocol",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.kerberos.service.name",
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.client.id",
        "sasl.oauthbearer.scope",
        "acks",
        "debug",
        "client.id",
        "client.rack",
        "group.protocol",
        "isolation.level",
        "auto.offset.reset",
        "compression.type",
        "compression.codec",
        "compression.level",
        "partitioner",
        "linger.ms",
        "batch.size",
        "log_level",
    ];
    const ENDS: &[&str] = &[".ms", ".bytes", ".kbytes", ".messages", ".location", ".url", ".enable", ".level", ".ttl"];
    const BEGINNINGS: &[&str] =
        &["enable.", "broker.", "socket.", "queue", "fetch.", "topic.", "max.", "message.", "ssl.endpoint."];
    !is_secret(name)
        && (NAMES.contains(&name)
            || ENDS.iter().any(|end| name.ends_with(end))
            || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)))
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: BTreeMap<&str, &str> = self
            .properties
            .iter()
            .map(|(name, value)| (name.as_str(), if may_be_shown(name) { value.as_str() } else { "…" }))
            .collect();
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("properties", &shown)
            .field("replication_factor", &self.replication_factor)
            .field("client_id", &self.client_id)
            .field("transaction_timeout", &self.transaction_timeout)
            .field("session_timeout", &self.session_timeout)
            .field("token_file", &self.token_file)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exactly_once_rests_on_cannot_be_changed() {
        for (name, value) in [("isolation.level", "read_uncommitted"), ("auto.offset.reset", "latest"), ("acks", "1")] {
            let mut settings = Settings::new("localhost:9092");
            settings.properties.insert(name.to_owned(), value.to_owned());
            assert!(settings.check().unwrap_err().to_string().contains(name));
        }
        assert!(Settings::new(" ").check().is_err());
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        for (name, expected) in [
            ("sasl.password", true),
            ("sasl.oauthbearer.client.secret", true),
            ("sasl.oauthbearer.config", true),
            ("sasl.jaas.config", true),
            ("sasl.oauthbearer.assertion.private.key.passphrase", true),
            ("basic.auth.user.info", true),
            ("sasl.oauthbearer.token.endpoint.url", false),
            ("sasl.username", false),
        ] {
            assert_eq!(is_secret(name), expected, "{name}");
            assert_eq!(may_be_shown(name), !expected, "{name}");
        }
        for (name, expected) in
            [("sasl.pasword", false), ("ssl.ca.location", true), ("linger.ms", true), ("debug", true)]
        {
            assert!(!is_secret(name));
            assert_eq!(may_be_shown(name), expected, "{name}");
        }
    }

    #[test]
    fn properties_come_through_and_secrets_are_not_shown() {
        let mut settings = Settings::new("localhost:9092");
        for (name, value) in [("sasl.password", "hunter2"), ("ssl.key.pem", "hunter2"), ("compression.type", "zstd")] {
            settings.properties.insert(name.to_owned(), value.to_owned());
        }
        settings.check().unwrap();
        assert_eq!(settings.producer("id").get("compression.type"), Some("zstd"));
        assert_eq!(settings.consumer(None, None).get("isolation.level"), Some("read_committed"));
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter2") && shown.contains("zstd"), "{shown}");
    }
}
