//! What librdkafka tells its clients: logs, errors, rebalances, records that were not delivered.
use std::collections::VecDeque;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use rdkafka::TopicPartitionList;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

use super::Settings;
use super::errors::{is_certificate_refused, is_of_groups, remedy};
use super::{statistics, token};
use crate::{Topic, TopicPartition};

/// After so many answers an outage is another one.
const SETTLED_ANSWERS: u64 = 100;

/// Whether brokers answer: one for all clients of a process, so that an outage is one line.
#[derive(Debug)]
pub(super) struct Health {
    down: AtomicBool,
    /// The outage was said, and its end is to be.
    is_said: AtomicBool,
    /// Answers since an outage was said last: while a process connects again, some of its clients
    /// still say that all brokers are down.
    answers: AtomicU64,
    /// How often a broker could not be reached, or went.
    troubles: AtomicU64,
    /// Why the last connection was refused, in the words of librdkafka and the broker.
    refusal: Mutex<Option<String>>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            down: AtomicBool::new(false),
            is_said: AtomicBool::new(false),
            // Who connects says itself that nobody answers.
            answers: AtomicU64::new(0),
            troubles: AtomicU64::new(0),
            refusal: Mutex::default(),
        }
    }
}

impl Health {
    pub(super) fn is_up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }

    pub(super) fn troubles(&self) -> u64 {
        self.troubles.load(Ordering::Relaxed)
    }

    /// The first answer: from now on an outage is said.
    pub(super) fn connected(&self) {
        self.answers.store(SETTLED_ANSWERS, Ordering::Relaxed);
        self.answered();
    }

    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::Relaxed) {
            *locked(&self.refusal) = None;
            if self.is_said.swap(false, Ordering::Relaxed) {
                tracing::info!("Kafka answers again");
            }
        }
    }

    pub(super) fn refusal(&self) -> Option<String> {
        locked(&self.refusal).clone()
    }

    /// What the failure of a call says: nobody answers, or somebody is gone. It may be all that says so,
    /// since a broker that hangs keeps its connections.
    pub(super) fn failed(&self, code: RDKafkaErrorCode) {
        match code {
            RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::WaitingForCoordinator
            | RDKafkaErrorCode::AllBrokersDown => self.gone(&code.to_string()),
            RDKafkaErrorCode::BrokerTransportFailure => {
                self.troubles.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn gone(&self, reason: &str) {
        self.troubles.fetch_add(1, Ordering::Relaxed);
        if self.down.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.answers.swap(0, Ordering::Relaxed) >= SETTLED_ANSWERS {
            self.is_said.store(true, Ordering::Relaxed);
            tracing::warn!(reason, "no Kafka broker answers; trying on");
        } else {
            tracing::debug!(reason, "no Kafka broker answers, again");
        }
    }

    fn heard(&self, error: &KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.gone(reason),
            Some(code) if remedy(code).is_some() || is_certificate_refused(reason) => {
                let before = locked(&self.refusal).replace(reason.to_owned());
                // It comes again with every attempt to connect.
                if before.is_none() {
                    tracing::warn!(reason, "Kafka refuses");
                }
            }
            code => {
                if matches!(code, Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut))
                {
                    self.troubles.fetch_add(1, Ordering::Relaxed);
                }
                tracing::debug!(error = %error, reason, "Kafka");
            }
        }
    }
}

/// What matters of it comes as an error of some call, or as an event: what librdkafka logs is for
/// those who look for more.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(?level, facility, message, "librdkafka");
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rebalance {
    Assign(Vec<TopicPartition>),
    Revoke(Vec<TopicPartition>),
}

/// Answers a rebalance on the way out: what is offered is not taken, what is asked back is given.
pub(super) fn decline<C: ConsumerContext>(consumer: &BaseConsumer<C>, is_offer: bool) {
    // An offer is answered by an assignment, though an empty one.
    let answered = if is_offer { consumer.assign(&TopicPartitionList::new()) } else { consumer.unassign() };
    if let Err(error) = answered {
        tracing::debug!(%error, "answering a rebalance on the way out");
    }
}

/// What every client's context does.
pub(super) struct Common {
    pub(super) health: Arc<Health>,
    settings: Settings,
    /// The group, or the transactional id; None outside groups.
    name: Option<String>,
}

impl Common {
    pub(super) fn new(health: &Arc<Health>, settings: &Settings, name: Option<&str>) -> Self {
        Self { health: Arc::clone(health), settings: settings.clone(), name: name.map(str::to_owned) }
    }

    fn heard(&self, error: &KafkaError, reason: &str) {
        if self.name.is_none() && error.rdkafka_error_code().is_some_and(is_of_groups) {
            return;
        }
        self.health.heard(error, reason);
    }

    fn statistics(&self, said: &rdkafka::Statistics) {
        if let Some(tell) = &self.settings.on_statistics {
            tell(&statistics::of(self.name.as_deref().unwrap_or("reader"), said));
        }
    }

    fn token(&self) -> Result<OAuthToken, Box<dyn Error>> {
        token::read(self.settings.token_file.as_deref()).inspect_err(|error| {
            tracing::warn!(%error, "no token for OAUTHBEARER");
        })
    }
}

/// Of a consumer. Rebalances wait here until the reader's poll has told of them: nothing is
/// assigned or given up within librdkafka's callback, except on the way out.
pub(super) struct ReaderContext {
    common: Common,
    rebalances: Mutex<VecDeque<Rebalance>>,
    leaving: AtomicBool,
}

impl ReaderContext {
    pub(super) fn new(common: Common) -> Self {
        Self { common, rebalances: Mutex::default(), leaving: AtomicBool::new(false) }
    }

    /// A call of this client failed.
    pub(super) fn failed(&self, code: RDKafkaErrorCode) {
        self.common.health.failed(code);
    }

    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        locked(&self.rebalances).front().cloned()
    }

    /// The one that `next_rebalance` gave has been told of.
    pub(super) fn told(&self) {
        locked(&self.rebalances).pop_front();
    }

    /// From now on what is assigned is given back at once.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }
}

impl ClientContext for ReaderContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn stats(&self, said: rdkafka::Statistics) {
        self.common.statistics(&said);
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.common.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.common.heard(&error, reason);
    }
}

impl ConsumerContext for ReaderContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        if self.leaving.load(Ordering::Acquire) {
            decline(consumer, kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS);
            return;
        }
        let named = partitions
            .elements()
            .iter()
            .filter_map(|element| {
                let partition = u32::try_from(element.partition()).ok()?;
                Some(TopicPartition { topic: Topic::from(element.topic()), partition })
            })
            .collect();
        let rebalance = match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assign(named),
            _ => Rebalance::Revoke(named),
        };
        locked(&self.rebalances).push_back(rebalance);
    }
}

/// Of a producer.
pub(super) struct WriterContext {
    common: Common,
    /// The first record of the open transaction that was not delivered, and why.
    undelivered: Mutex<Option<(RDKafkaErrorCode, String)>>,
    /// Where those records stand that were sent with a mark.
    delivered: Mutex<HashMap<usize, i64>>,
}

impl WriterContext {
    pub(super) fn new(common: Common) -> Self {
        Self { common, undelivered: Mutex::default(), delivered: Mutex::default() }
    }

    /// The offset of each record that was delivered, and sent with a mark other than 0, since this was asked last.
    pub(super) fn take_delivered(&self) -> HashMap<usize, i64> {
        std::mem::take(&mut locked(&self.delivered))
    }

    pub(super) fn take_undelivered(&self) -> Option<(RDKafkaErrorCode, String)> {
        locked(&self.undelivered).take()
    }
}

impl ClientContext for WriterContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn stats(&self, said: rdkafka::Statistics) {
        self.common.statistics(&said);
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.common.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.common.heard(&error, reason);
    }
}

impl ProducerContext for WriterContext {
    /// A mark, or 0.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
        let (error, message) = match result {
            Ok(message) => {
                if mark != 0 {
                    locked(&self.delivered).insert(mark, message.offset());
                }
                return;
            }
            Err(failed) => failed,
        };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        // What goes with the transaction is no cause of its own.
        if matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) {
            return;
        }
        let place = format!("{}-{}", message.topic(), message.partition());
        locked(&self.undelivered).get_or_insert((code, place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_an_answer_tells_of_an_outage() {
        for (code, is_up, troubles) in [
            (RDKafkaErrorCode::OperationTimedOut, false, 1),
            (RDKafkaErrorCode::WaitingForCoordinator, false, 1),
            (RDKafkaErrorCode::AllBrokersDown, false, 1),
            // One of several may have gone.
            (RDKafkaErrorCode::BrokerTransportFailure, true, 1),
            (RDKafkaErrorCode::IllegalGeneration, true, 0),
        ] {
            let health = Health::default();
            health.connected();
            health.failed(code);
            assert_eq!((health.is_up(), health.troubles()), (is_up, troubles), "{code:?}");
            assert_eq!(health.is_said.load(Ordering::Relaxed), !is_up, "{code:?}");
        }
    }

    #[test]
    fn an_outage_is_said_once_while_clients_come_back() {
        let health = Health::default();
        let said = |health: &Health| health.is_said.load(Ordering::Relaxed);
        health.gone("while it connects");
        assert!(!health.is_up() && !said(&health), "the caller says that");
        health.connected();
        health.gone("all of them");
        assert!(!health.is_up() && said(&health), "the first is said");
        health.answered();
        assert!(health.is_up() && !said(&health));
        for _ in 0..3 {
            health.gone("another client that has not come back yet");
            assert!(!health.is_up() && !said(&health));
            health.answered();
        }
        for _ in 0..SETTLED_ANSWERS {
            health.answered();
        }
        health.gone("all of them, again");
        assert!(said(&health), "another outage");
    }
}
