//! What the warehouse measures: `clickstream_warehouse_…`. Labels are tables and reasons.
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Clone, Debug)]
pub struct Metrics {
    /// By table.
    pub requests: IntCounterVec,
    /// Acknowledged; by table.
    pub rows: IntCounterVec,
    /// As they are sent; by table.
    pub bytes: IntCounterVec,
    /// Left out, as dead letters; by table.
    pub refused: IntCounterVec,
    /// By table.
    pub unreadable: IntCounterVec,
    /// By table.
    pub streams: IntCounterVec,
    pub retries: IntCounter,
    pub throttles: IntCounter,
    /// Rows gathered or sent, in memory.
    pub held_bytes: IntGauge,
    /// From sending a record until BigQuery acknowledged its row; a sample of the rows.
    pub freshness_seconds: Histogram,
}

impl Metrics {
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let by_table = |name: &str, help: &str| {
            let counters = IntCounterVec::new(Opts::new(format!("clickstream_warehouse_{name}"), help), &["table"])?;
            registry.register(Box::new(counters.clone()))?;
            prometheus::Result::Ok(counters)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("clickstream_warehouse_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let held_bytes = IntGauge::new("clickstream_warehouse_held_bytes", "Memory held by rows that are under way")?;
        registry.register(Box::new(held_bytes.clone()))?;
        let freshness_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "clickstream_warehouse_freshness_seconds",
                "From sending a record to its row being acknowledged, a sample of the rows",
            )
            .buckets(records::ages(0.02, 1000.0)),
        )?;
        registry.register(Box::new(freshness_seconds.clone()))?;
        Ok(Self {
            requests: by_table("requests_total", "Requests with rows")?,
            rows: by_table("rows_total", "Rows acknowledged")?,
            bytes: by_table("sent_bytes_total", "Bytes of rows in requests, as they are sent")?,
            refused: by_table("refused_rows_total", "Rows left out, each with a dead letter")?,
            unreadable: by_table("unreadable_records_total", "Records that could not be read and were left out")?,
            streams: by_table("streams_total", "Write streams made")?,
            retries: counter("retries_total", "Requests and calls that were repeated")?,
            throttles: counter("throttles_total", "Answers that asked for less")?,
            held_bytes,
            freshness_seconds,
        })
    }
}
