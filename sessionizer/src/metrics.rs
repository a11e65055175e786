//! What the part shows. All of it counts committed work alone.
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use records::Stage;

use crate::commit::Made;
use crate::publish::Tally;

#[derive(Clone, Debug)]
pub struct Metrics {
    pub status: Arc<Status>,
    events: IntCounter,
    steps: IntCounterVec,
    sessions: IntCounter,
    late_events: IntCounter,
    dead_letters: IntCounter,
    finished_feeds: IntCounter,
    open_sessions: IntGauge,
    reach_records: IntGauge,
    reach_seconds: IntGauge,
    pub(crate) recovered_records: IntCounter,
    pub(crate) failed_transactions: IntCounter,
    transaction_seconds: Histogram,
}

/// The same for the command to show, without a scrape. Committed by this process.
#[derive(Debug)]
pub struct Status {
    pub events: AtomicU64,
    pub steps: [AtomicU64; 3],
    pub sessions: AtomicU64,
    pub late_events: AtomicU64,
    pub dead_letters: AtomicU64,
    pub open_sessions: AtomicU64,
    /// The furthest event time of any feed, in microseconds since 1970; the least there is at first.
    pub clock_us: AtomicI64,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            events: AtomicU64::default(),
            steps: Default::default(),
            sessions: AtomicU64::default(),
            late_events: AtomicU64::default(),
            dead_letters: AtomicU64::default(),
            open_sessions: AtomicU64::default(),
            clock_us: AtomicI64::new(i64::MIN),
        }
    }
}

impl Metrics {
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("clickstream_sessionizer_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("clickstream_sessionizer_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let steps = Opts::new("clickstream_sessionizer_steps_total", "Funnel steps written, by stage.");
        let steps = IntCounterVec::new(steps, &["stage"])?;
        for stage in Stage::ALL {
            steps.with_label_values(&[stage.as_str()]);
        }
        registry.register(Box::new(steps.clone()))?;
        let seconds = HistogramOpts::new(
            "clickstream_sessionizer_transaction_seconds",
            "Time from the beginning of a transaction to its commit.",
        )
        .buckets(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]);
        let transaction_seconds = Histogram::with_opts(seconds)?;
        registry.register(Box::new(transaction_seconds.clone()))?;
        Ok(Self {
            status: Arc::default(),
            events: counter("events_total", "Shop events taken in.")?,
            steps,
            sessions: counter("sessions_total", "Sessions closed.")?,
            late_events: counter(
                "late_events_total",
                "Events out of order by more than the allowed lateness that began a session of their own.",
            )?,
            dead_letters: counter("dead_letters_total", "Unreadable messages of the topic events.")?,
            finished_feeds: counter("finished_feeds_total", "Ends of feeds, one for each partition.")?,
            open_sessions: gauge("open_sessions", "Sessions open now.")?,
            reach_records: gauge(
                "recovery_reach_records",
                "How many records before its position a restart would read again, in the worst partition.",
            )?,
            reach_seconds: gauge(
                "recovery_reach_seconds",
                "The same in event time: the oldest open session's start to the feed's clock.",
            )?,
            recovered_records: counter("recovered_records_total", "Records read again to rebuild open sessions.")?,
            failed_transactions: counter("failed_transactions_total", "Transactions that were lost and done again.")?,
            transaction_seconds,
        })
    }

    /// What a transaction has made, once it is committed; it took so long.
    pub(crate) fn show(&self, made: &Made, took: Duration) {
        self.transaction_seconds.observe(took.as_secs_f64());
        self.count(&made.tally);
        if let Some(clock) = made.clock {
            self.status.clock_us.fetch_max(clock.0, Ordering::Relaxed);
        }
        self.status.open_sessions.store(made.open_sessions as u64, Ordering::Relaxed);
        self.open_sessions.set(i64::try_from(made.open_sessions).unwrap_or(i64::MAX));
        self.reach_records.set(made.reach.records);
        self.reach_seconds.set(made.reach.seconds);
    }

    fn count(&self, tally: &Tally) {
        let status = &self.status;
        for (counter, atomic, n) in [
            (&self.events, &status.events, tally.events),
            (&self.sessions, &status.sessions, tally.sessions),
            (&self.late_events, &status.late_events, tally.late_events),
            (&self.dead_letters, &status.dead_letters, tally.dead_letters),
        ] {
            counter.inc_by(n);
            atomic.fetch_add(n, Ordering::Relaxed);
        }
        for ((stage, atomic), n) in Stage::ALL.iter().zip(&status.steps).zip(tally.steps) {
            self.steps.with_label_values(&[stage.as_str()]).inc_by(n);
            atomic.fetch_add(n, Ordering::Relaxed);
        }
        self.finished_feeds.inc_by(tally.finished_feeds);
    }
}
