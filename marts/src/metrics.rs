//! What the marts publish of themselves.
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::deltas::Input;

#[derive(Clone, Debug)]
pub struct Metrics {
    /// By topic, without its prefix; so are those below.
    pub records: IntCounterVec,
    pub unreadable: IntCounterVec,
    pub freshness: HistogramVec,
    pub commits: IntCounter,
    pub rows: IntCounter,
    pub commit_duration: Histogram,
}

impl Metrics {
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let topic = &["topic"];
        let metrics = Self {
            records: IntCounterVec::new(
                Opts::new("clickstream_marts_records_total", "Records folded and committed."),
                topic,
            )?,
            unreadable: IntCounterVec::new(
                Opts::new(
                    "clickstream_marts_unreadable_records_total",
                    "Records that could not be read, and add nothing.",
                ),
                topic,
            )?,
            freshness: HistogramVec::new(
                HistogramOpts::new(
                    "clickstream_marts_freshness_seconds",
                    "From the sending of an event to its commit in marts.db (a sample of the records).",
                )
                .buckets(records::ages(0.005, 100.0)),
                topic,
            )?,
            commits: IntCounter::new("clickstream_marts_commits_total", "Commits to marts.db.")?,
            rows: IntCounter::new("clickstream_marts_rows_written_total", "Rows inserted or updated in marts.db.")?,
            commit_duration: Histogram::with_opts(
                HistogramOpts::new("clickstream_marts_commit_duration_seconds", "Time of a commit to marts.db.")
                    .buckets(records::ages(0.005, 100.0)),
            )?,
        };
        registry.register(Box::new(metrics.records.clone()))?;
        registry.register(Box::new(metrics.unreadable.clone()))?;
        registry.register(Box::new(metrics.freshness.clone()))?;
        registry.register(Box::new(metrics.commits.clone()))?;
        registry.register(Box::new(metrics.rows.clone()))?;
        registry.register(Box::new(metrics.commit_duration.clone()))?;
        for input in Input::ALL {
            let _ = metrics.records.with_label_values(&[input.topic()]);
            let _ = metrics.unreadable.with_label_values(&[input.topic()]);
            let _ = metrics.freshness.with_label_values(&[input.topic()]);
        }
        Ok(metrics)
    }
}
