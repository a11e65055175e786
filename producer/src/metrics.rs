//! What the replay counts, for Prometheus.
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) events: IntCounter,
    pub(crate) dead_letters: IntCounter,
    pub(crate) copies: IntCounter,
    pub(crate) damaged: IntCounter,
    pub(crate) shuffled: IntCounter,
    pub(crate) transactions: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) commit: Histogram,
    pub(crate) sending_error: Histogram,
    pub(crate) visible_error: Histogram,
    pub(crate) clock: IntGauge,
}

impl Metrics {
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(format!("clickstream_producer_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let histogram = |name: &str, help: &str| -> prometheus::Result<Histogram> {
            // 50 us to 26 s.
            let buckets = prometheus::exponential_buckets(50e-6, 2.0, 20)?;
            let options = HistogramOpts::new(format!("clickstream_producer_{name}"), help).buckets(buckets);
            let histogram = Histogram::with_opts(options)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let clock =
            IntGauge::new("clickstream_producer_clock_seconds", "The replay's clock: event time, Unix seconds.")?;
        registry.register(Box::new(clock.clone()))?;
        Ok(Self {
            events: counter("events_total", "Events committed to the broker.")?,
            dead_letters: counter("dead_letters_total", "Rows that could not be read.")?,
            copies: counter("copies_total", "Rows sent a second time on purpose.")?,
            damaged: counter("damaged_rows_total", "Rows made unreadable on purpose.")?,
            shuffled: counter("shuffled_rows_total", "Rows sent in another's place on purpose.")?,
            transactions: counter("transactions_total", "Transactions committed.")?,
            retries: counter("transaction_retries_total", "Transactions that were done again.")?,
            commit: histogram("commit_seconds", "From the beginning of a transaction to its commit.")?,
            sending_error: histogram(
                "sending_error_seconds",
                "Time of sending less the time the schedule meant. Flat out: one sample for each slice of rows.",
            )?,
            visible_error: histogram(
                "visible_error_seconds",
                "Time of the commit less the time the schedule meant. Flat out: one sample for each slice of rows.",
            )?,
            clock,
        })
    }
}
