//! librdkafka's errors, by what the caller should do.
use std::fmt;

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::ffi::CallError;
use crate::Error;

/// Outside a transaction. `doing` says what was under way, and on what.
pub(super) fn of_code(doing: impl fmt::Display, code: Code, text: &str) -> Error {
    let text = if text.is_empty() { code.to_string() } else { text.to_owned() };
    if is_fenced(code) || is_taken(code) {
        return Error::Fenced(format!("{doing}: {text}"));
    }
    if is_stale_member(code) {
        return Error::Abort(format!("{doing}: {text}"));
    }
    match remedy(code) {
        Some(remedy) => Error::Stop(format!("{doing}: {text}; {remedy}")),
        None => Error::Retry(format!("{doing}: {text}")),
    }
}

pub(super) fn of_call(doing: impl fmt::Display, error: &CallError) -> Error {
    of_code(doing, error.code, &error.text)
}

pub(super) fn of_kafka(doing: impl fmt::Display, error: &KafkaError) -> Error {
    match error {
        // A setting that librdkafka does not take; the error names it.
        KafkaError::ClientConfig(_, why, name, value) => {
            let value = if super::config::may_be_shown(name) { value } else { "…" };
            Error::Stop(format!("{doing}: {name}={value}: {why}; see librdkafka's CONFIGURATION.md for its settings"))
        }
        KafkaError::ClientCreation(why) => Error::Stop(format!("{doing}: {why}")),
        other => match other.rdkafka_error_code() {
            Some(code) => of_code(doing, code, ""),
            None => Error::Retry(format!("{doing}: {other}")),
        },
    }
}

/// Another writer of that transactional id has taken over, or the coordinator timed this one out.
pub(super) fn is_fenced(code: Code) -> bool {
    matches!(
        code,
        Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced | Code::TransactionCoordinatorFenced
    )
}

/// Another member of that instance has taken this one's place.
pub(super) fn is_taken(code: Code) -> bool {
    matches!(code, Code::FencedInstanceId)
}

/// The group has gone on without this member, which may come back.
pub(super) fn is_stale_member(code: Code) -> bool {
    matches!(code, Code::IllegalGeneration | Code::UnknownMemberId | Code::AssignmentLost)
}

/// What a consumer that is in no group may hear all the same: librdkafka looks for the coordinator of
/// a group whatever a consumer is for, and this user may have no right on a group of that name.
pub(super) fn is_of_groups(code: Code) -> bool {
    matches!(code, Code::GroupAuthorizationFailed)
}

/// Whether a broken connection is the broker's refusal of this client's certificate, or of none: TLS
/// 1.3 says so in an alert after the handshake, and librdkafka has but the text of it.
pub(super) fn is_certificate_refused(reason: &str) -> bool {
    // RFC 8446, 6.2: bad_certificate to certificate_unknown, unknown_ca, access_denied, certificate_required.
    const ALERTS: [u8; 8] = [42, 43, 44, 45, 46, 48, 49, 116];
    let number = reason.split("SSL alert number ").nth(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse()
    });
    matches!(number, Some(Ok(number)) if ALERTS.contains(&number))
}

/// Passes by itself: librdkafka connects again, finds the new leader or coordinator.
pub(super) fn is_passing(code: Code) -> bool {
    !is_fenced(code) && !is_taken(code) && !is_stale_member(code) && remedy(code).is_none()
}

/// Of what does not pass by itself: what would be right.
pub(super) fn remedy(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::TopicAuthorizationFailed => {
            "this user may not do that on the topic: the parts need READ, WRITE, DESCRIBE and DESCRIBE_CONFIGS on the \
             topics, `topics create` needs CREATE"
        }
        Code::GroupAuthorizationFailed => "this user may not read as that group: it needs READ on the group",
        Code::TransactionalIdAuthorizationFailed => {
            "this user may not write in transactions of that id: it needs WRITE and DESCRIBE on the transactional id"
        }
        Code::ClusterAuthorizationFailed => "this user lacks a right on the cluster: IDEMPOTENT_WRITE, or CREATE",
        Code::Authentication | Code::SaslAuthenticationFailed => {
            "user name, password or token are not accepted, or `sasl.mechanism` is none that the broker takes"
        }
        Code::UnsupportedSASLMechanism | Code::IllegalSASLState => {
            "the broker does not take that `sasl.mechanism` on this port"
        }
        Code::SSL => {
            "TLS could not be agreed on: see `ssl.ca.location` and `security.protocol`; where the broker asks for a \
             client's certificate, `ssl.certificate.location` and `ssl.key.location`"
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic => {
            "there is no such topic or partition: make it with `topics create`"
        }
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            "the record is larger than the topic takes: set `max.message.bytes` of the topic as `topics create` does"
        }
        Code::InvalidTimestamp => {
            "the topic does not take the event's time: set `message.timestamp.after.max.ms` of the topic as \
             `topics create` does"
        }
        Code::InvalidRecord => "the topic does not take such records: is it compacted, and the key empty?",
        Code::OffsetOutOfRange | Code::AutoOffsetReset => {
            "the position is outside the log: its records are gone or never were; this log and the outputs do not \
             belong together"
        }
        Code::OffsetMetadataTooLarge => "the broker's `offset.metadata.max.bytes` has to be 4096 at least",
        Code::InvalidTransactionTimeout => {
            "the broker's `transaction.max.timeout.ms` is below the transaction time-out asked for"
        }
        Code::InvalidSessionTimeout => {
            "the session time-out is outside the broker's `group.min.session.timeout.ms` and `group.max…`"
        }
        Code::InconsistentGroupProtocol => "members of the group with other settings are there: stop them first",
        Code::InvalidReplicationFactor => "there are fewer brokers than the replication factor asked for",
        Code::InvalidPartitions | Code::InvalidConfig | Code::PolicyViolation => "the cluster does not allow it",
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::UnsupportedForMessageFormat => {
            "the broker is too old, or lacks that feature"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_of_certificates() {
        let text = |number| {
            format!("ssl://b:1/bootstrap: Receive failed: error:0A: alert: SSL alert number {number} (after 0ms)")
        };
        for (reason, expected) in [
            (text("42"), true),
            (text("116"), true),
            (text("40"), false),
            (text("421"), false),
            (text("x"), false),
            ("Disconnected (after 42ms)".to_owned(), false),
        ] {
            assert_eq!(is_certificate_refused(&reason), expected, "{reason}");
        }
    }

    #[test]
    fn errors_are_told_apart_by_what_to_do() {
        for (code, expected) in [
            (Code::BrokerTransportFailure, "Retry"),
            (Code::AllBrokersDown, "Retry"),
            (Code::OperationTimedOut, "Retry"),
            (Code::NotCoordinator, "Retry"),
            (Code::CoordinatorLoadInProgress, "Retry"),
            (Code::RebalanceInProgress, "Retry"),
            (Code::UnstableOffsetCommit, "Retry"),
            (Code::IllegalGeneration, "Abort"),
            (Code::UnknownMemberId, "Abort"),
            (Code::FencedInstanceId, "Fenced"),
            (Code::Fenced, "Fenced"),
            (Code::ProducerFenced, "Fenced"),
            (Code::TopicAuthorizationFailed, "Stop"),
            (Code::SaslAuthenticationFailed, "Stop"),
            (Code::AutoOffsetReset, "Stop"),
            (Code::InvalidTimestamp, "Stop"),
            (Code::UnknownTopicOrPartition, "Stop"),
        ] {
            let error = of_code("reading t-0", code, "");
            let found = format!("{error:?}");
            assert!(found.starts_with(expected), "{code:?}: {found}");
            assert!(found.contains("reading t-0"), "it says where: {found}");
        }
    }
}
