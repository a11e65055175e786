//! What librdkafka says of its clients, as metrics.
use std::sync::Arc;

use broker::kafka::{OnStatistics, Statistics};
use prometheus::{GaugeVec, Opts, Registry};

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
        let of = |gauge: &GaugeVec, value: f64| gauge.with_label_values(&[&said.client]).set(value);
        of(&records, said.queue_records as f64);
        of(&bytes, said.queue_bytes as f64);
        of(&in_flight, said.requests_in_flight as f64);
        of(&round_trip, said.round_trip.as_secs_f64());
        of(&up, said.brokers_up as f64);
    }))
}
