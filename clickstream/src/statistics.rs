//! What librdkafka says of its clients, as metrics.
use std::sync::Arc;

use broker::kafka::{OnStatistics, Statistics};
use prometheus::{GaugeVec, Opts, Registry};
use records::Feed;

/// Registers the gauges; what it returns sets them.
pub(crate) fn gauges(registry: &Registry) -> prometheus::Result<OnStatistics> {
    let gauge = |name: &str, help: &str| {
        let gauge = GaugeVec::new(Opts::new(format!("clickstream_kafka_{name}"), help), &["client"])?;
        registry.register(Box::new(gauge.clone()))?;
        prometheus::Result::Ok(gauge)
    };
    let records = gauge("queue_records", "Records in a client's queue: to be sent, or fetched and not yet read")?;
    let bytes = gauge("queue_bytes", "The same in bytes")?;
    let in_flight = gauge("requests_in_flight", "Requests that wait for their answer")?;
    let round_trip = gauge("round_trip_seconds", "The 99th percentile of the slowest broker's round trips")?;
    let up = gauge("brokers_up", "Brokers that a client is connected to")?;
    #[allow(clippy::cast_precision_loss, reason = "gauges")]
    Ok(Arc::new(move |said: &Statistics| {
        let client = label(&said.client);
        let of = |gauge: &GaugeVec, value: f64| gauge.with_label_values(&[client]).set(value);
        of(&records, said.queue_records as f64);
        of(&bytes, said.queue_bytes as f64);
        of(&in_flight, said.requests_in_flight as f64);
        of(&round_trip, said.round_trip.as_secs_f64());
        of(&up, said.brokers_up as f64);
    }))
}

/// A producer's transactions go by its feed, and each pass of a loop is another: they share a name, so that there are
/// not ever more.
fn label(client: &str) -> &str {
    const SOURCE_DIGITS: usize = 8;
    let source = client.rfind('/').and_then(|slash| slash.checked_sub(SOURCE_DIGITS));
    let is_feed = source.and_then(|at| client.get(at..)).is_some_and(|feed| feed.parse::<Feed>().is_ok());
    if is_feed { "producer" } else { client }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_of_a_loop_share_a_name() {
        for (client, expected) in [
            ("clickstream.174f0a20/0", "producer"),
            ("x174f0a20/12", "producer"),
            ("clickstream.control/174f0a20", "clickstream.control/174f0a20"),
            ("clickstream.lake", "clickstream.lake"),
            ("a/0", "a/0"),
        ] {
            assert_eq!(label(client), expected);
        }
    }
}
