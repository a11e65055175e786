//! What the lake measures: `clickstream_lake_…`. Labels are topics (without prefix) and reasons.
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Clone, Debug)]
pub struct Metrics {
    /// By topic.
    pub rows: IntCounterVec,
    /// By topic.
    pub files: IntCounterVec,
    /// By topic.
    pub stored_bytes: IntCounterVec,
    /// By topic.
    pub unreadable: IntCounterVec,
    /// By reason.
    pub cuts: IntCounterVec,
    pub retries: IntCounter,
    /// To a bucket, by method.
    pub requests: IntCounterVec,
    /// Answers of a bucket that asked for less.
    pub throttles: IntCounter,
    /// Held in memory by all open files.
    pub open_bytes: IntGauge,
    /// From sending a record until its file is stored and committed; a sample of the rows.
    pub freshness_seconds: Histogram,
    pub cut_seconds: Histogram,
}

impl Metrics {
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let by = |label: &str, name: &str, help: &str| {
            let counters = IntCounterVec::new(Opts::new(format!("clickstream_lake_{name}"), help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            prometheus::Result::Ok(counters)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(format!("clickstream_lake_{name}"), help).buckets(buckets.to_vec());
            let histogram = Histogram::with_opts(opts)?;
            registry.register(Box::new(histogram.clone()))?;
            prometheus::Result::Ok(histogram)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("clickstream_lake_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let open_bytes = IntGauge::new("clickstream_lake_open_bytes", "Memory held by open files")?;
        registry.register(Box::new(open_bytes.clone()))?;
        Ok(Self {
            rows: by("topic", "rows_total", "Rows stored")?,
            files: by("topic", "files_total", "Files stored")?,
            stored_bytes: by("topic", "stored_bytes_total", "Bytes stored")?,
            unreadable: by("topic", "unreadable_records_total", "Records that could not be read and were left out")?,
            cuts: by("reason", "cuts_total", "Plans cut, by reason")?,
            retries: counter("retries_total", "Calls to the object store that were repeated")?,
            requests: by("method", "requests_total", "Requests to the bucket, tokens included")?,
            throttles: counter("throttles_total", "Answers 429 and 503 of the bucket: less was asked for")?,
            open_bytes,
            freshness_seconds: histogram(
                "freshness_seconds",
                "From sending a record to its file being stored, a sample of the rows",
                &records::ages(0.02, 1000.0),
            )?,
            cut_seconds: histogram(
                "cut_seconds",
                "Planning, storing and committing together",
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0],
            )?,
        })
    }
}
