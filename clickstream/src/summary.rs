//! What `run` says on stdout when it ends: for people, or with `--json` as one object whose schema
//! is `summary.schema.json`.
use std::fmt::{self, Display};

use prometheus::Registry;
use serde::Serialize;

use crate::unfinished::Unfinished;

/// The version of the JSON form. Fields may be added under the same version.
pub(crate) const SCHEMA: &str = "clickstream.summary/1";

#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) schema: &'static str,
    pub(crate) outcome: Outcome,
    /// 8 hex digits; None if the run ended before it had one.
    pub(crate) source: Option<String>,
    pub(crate) this_run: ThisRun,
    /// Of everything in the marts, this run's and earlier ones'.
    pub(crate) totals: Totals,
    pub(crate) funnel: Funnel,
    pub(crate) schedule: Schedule,
    pub(crate) disorder: Disorder,
    /// Sent to visible in the marts, and to stored in the lake.
    pub(crate) freshness: Freshness,
    pub(crate) lake: Lake,
    /// None without a warehouse.
    pub(crate) warehouse: Option<Warehouse>,
    /// Feeds beside this one that have not ended when the input has: they hold sessions open.
    pub(crate) unfinished: Vec<Unfinished>,
    /// Where things are.
    pub(crate) data_dir: String,
    /// How a replay that was stopped goes on.
    #[serde(skip)]
    pub(crate) goes_on: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The input is done and every output has caught up.
    Done,
    /// It was done before this run, and every output has caught up.
    AlreadyDone,
    /// A signal came before either.
    Drained,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ThisRun {
    pub(crate) events: u64,
    pub(crate) dead_letters: u64,
    /// The first of them.
    pub(crate) first_reasons: Vec<String>,
    pub(crate) late_events: u64,
    pub(crate) seconds: f64,
    pub(crate) events_per_second: f64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Totals {
    pub(crate) events: u64,
    pub(crate) views: u64,
    pub(crate) carts: u64,
    pub(crate) purchases: u64,
    pub(crate) sessions: u64,
    pub(crate) steps: u64,
    /// Decimal, as text, so that no reader rounds it.
    pub(crate) revenue: String,
    pub(crate) abandoned: u64,
    pub(crate) abandoned_value: String,
}

/// Pairs of session and product.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Funnel {
    pub(crate) viewed: u64,
    pub(crate) carted: u64,
    pub(crate) purchased: u64,
    pub(crate) viewed_then_carted: u64,
    pub(crate) carted_then_purchased: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Schedule {
    pub(crate) sending_minus_intended_ms: Option<Quantiles>,
    pub(crate) visible_minus_intended_ms: Option<Quantiles>,
    /// How much of it was given up (`--catch-up slide`), in seconds.
    pub(crate) slid_seconds: f64,
}

/// Made on purpose by this run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Disorder {
    pub(crate) shuffled: u64,
    pub(crate) copies: u64,
    pub(crate) damaged: u64,
}

impl Disorder {
    pub(crate) fn of(made: producer::Made) -> Self {
        Self { shuffled: made.shuffled, copies: made.copies, damaged: made.damaged }
    }
}

impl Schedule {
    pub(crate) fn of(report: &producer::Report) -> Self {
        Self {
            sending_minus_intended_ms: quantiles(&report.sending_error),
            visible_minus_intended_ms: quantiles(&report.visible_error),
            slid_seconds: report.slid.as_secs_f64(),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds for people")]
fn quantiles(spread: &producer::Spread) -> Option<Quantiles> {
    let ms = |us: u64| us as f64 / 1000.0;
    (spread.count > 0).then(|| Quantiles {
        p50: ms(spread.p50_us),
        p99: ms(spread.p99_us),
        max: Some(ms(spread.max_us)),
    })
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Freshness {
    pub(crate) marts_ms: Option<Quantiles>,
    pub(crate) lake_ms: Option<Quantiles>,
    pub(crate) warehouse_ms: Option<Quantiles>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// None where only a histogram was kept.
    pub(crate) max: Option<f64>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Lake {
    /// Written by this run.
    pub(crate) files: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Warehouse {
    /// Acknowledged in this run.
    pub(crate) rows: u64,
    pub(crate) requests: u64,
    /// Left out, with a dead letter each.
    pub(crate) refused: u64,
}

impl Warehouse {
    pub(crate) fn of(report: &consumer::warehouse::Report) -> Self {
        let sum = |of: fn(&consumer::warehouse::TableReport) -> u64| report.tables.iter().map(of).sum();
        Self {
            rows: sum(|table| table.rows),
            requests: sum(|table| table.requests),
            refused: sum(|table| table.refused),
        }
    }
}

/// The quantiles of a Prometheus histogram of seconds, all its labels together. Within a bucket the
/// values are taken as evenly spread (as PromQL's histogram_quantile does).
pub(crate) fn histogram(registry: &Registry, name: &str) -> Option<Quantiles> {
    let family = registry.gather().into_iter().find(|family| family.name() == name)?;
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    let mut count = 0;
    for metric in family.get_metric() {
        let histogram = metric.get_histogram();
        count += histogram.get_sample_count();
        for (i, bucket) in histogram.get_bucket().iter().enumerate() {
            match buckets.get_mut(i) {
                Some((_, sum)) => *sum += bucket.cumulative_count(),
                None => buckets.push((bucket.upper_bound(), bucket.cumulative_count())),
            }
        }
    }
    (count > 0).then(|| Quantiles {
        p50: 1000.0 * quantile(&buckets, count, 0.5),
        p99: 1000.0 * quantile(&buckets, count, 0.99),
        max: None,
    })
}

#[allow(clippy::cast_precision_loss, reason = "a quantile for people")]
fn quantile(buckets: &[(f64, u64)], count: u64, q: f64) -> f64 {
    let rank = q * count as f64;
    let (mut from, mut below) = (0.0, 0);
    for (to, cumulative) in buckets {
        if *cumulative as f64 >= rank && *cumulative > below {
            return from + (to - from) * (rank - below as f64) / (cumulative - below) as f64;
        }
        (from, below) = (*to, *cumulative);
    }
    from
}

impl Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {}, p99 {}", millis(self.p50), millis(self.p99))?;
        self.max.map_or(Ok(()), |max| write!(f, ", max {}", millis(max)))
    }
}

fn millis(ms: f64) -> String {
    match ms {
        ms if ms.abs() < 10.0 => format!("{ms:.2} ms"),
        ms if ms.abs() < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// A rate, rounded, as [`thousands`] has it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10^15")]
pub(crate) fn whole(rate: f64) -> String {
    thousands(rate.round().clamp(0.0, 1e15) as u64)
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
fn percent(part: u64, of: u64) -> String {
    if of == 0 { "–".into() } else { format!("{:.2}%", 100.0 * part as f64 / of as f64) }
}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = &self.this_run;
        match self.outcome {
            Outcome::Done => writeln!(f, "Done: the input is at its end and every output has caught up.")?,
            Outcome::AlreadyDone => {
                writeln!(
                    f,
                    "This source was played to its end before; nothing was published. (--restart plays it anew.)"
                )?;
            }
            Outcome::Drained => {
                writeln!(
                    f,
                    "Stopped by a signal before the input was done and every output had caught up. {}",
                    self.goes_on
                )?;
            }
        }
        let line = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn Display| writeln!(f, "  {name:<22}{value}");
        if let Some(source) = &self.source {
            line(f, "source", source)?;
        }
        if self.outcome != Outcome::AlreadyDone {
            let rate = whole(run.events_per_second);
            line(f, "events, this run", &format!("{} in {:.1} s ({rate}/s)", thousands(run.events), run.seconds))?;
            line(f, "dead letters", &thousands(run.dead_letters))?;
            for reason in &run.first_reasons {
                writeln!(f, "    {reason}")?;
            }
            line(f, "late events", &thousands(run.late_events))?;
        }
        let (totals, funnel) = (&self.totals, &self.funnel);
        let by_type = [(totals.views, "views"), (totals.carts, "carts"), (totals.purchases, "purchases")]
            .map(|(count, name)| format!("{} {name}", thousands(count)));
        line(f, "events", &format!("{} ({})", thousands(totals.events), by_type.join(", ")))?;
        line(f, "sessions", &thousands(totals.sessions))?;
        line(f, "funnel steps", &thousands(totals.steps))?;
        writeln!(f, "  funnel, session × product")?;
        line(f, "  viewed", &thousands(funnel.viewed))?;
        line(
            f,
            "  carted",
            &format!("{:<12}{} of viewed", thousands(funnel.carted), percent(funnel.carted, funnel.viewed)),
        )?;
        line(
            f,
            "  purchased",
            &format!("{:<12}{} of viewed", thousands(funnel.purchased), percent(funnel.purchased, funnel.viewed)),
        )?;
        line(f, "  viewed, then carted", &format!(" {}", thousands(funnel.viewed_then_carted)))?;
        line(f, "  carted, then bought", &format!(" {}", thousands(funnel.carted_then_purchased)))?;
        line(f, "revenue", &totals.revenue)?;
        line(f, "left in carts", &format!("{} (value {})", thousands(totals.abandoned), totals.abandoned_value))?;
        for (name, quantiles) in [
            ("sending − intended", self.schedule.sending_minus_intended_ms),
            ("visible − intended", self.schedule.visible_minus_intended_ms),
            ("sent to marts", self.freshness.marts_ms),
            ("sent to lake", self.freshness.lake_ms),
            ("sent to warehouse", self.freshness.warehouse_ms),
        ] {
            if let Some(quantiles) = quantiles {
                line(f, name, &quantiles)?;
            }
        }
        if self.schedule.slid_seconds > 0.0 {
            line(f, "schedule given up", &format!("{:.1} s, to --catch-up slide", self.schedule.slid_seconds))?;
        }
        for (name, count) in [
            ("shuffled on purpose", self.disorder.shuffled),
            ("copies on purpose", self.disorder.copies),
            ("damaged on purpose", self.disorder.damaged),
        ] {
            if count > 0 {
                line(f, name, &thousands(count))?;
            }
        }
        let lake = &self.lake;
        line(f, "lake, this run", &format!("{} files, {} rows", thousands(lake.files), thousands(lake.rows)))?;
        if let Some(warehouse) = &self.warehouse {
            let (rows, requests) = (thousands(warehouse.rows), thousands(warehouse.requests));
            line(f, "warehouse, this run", &format!("{rows} rows, {requests} requests"))?;
            if warehouse.refused > 0 {
                line(f, "  refused", &thousands(warehouse.refused))?;
            }
        }
        for feed in &self.unfinished {
            writeln!(f, "  {feed}")?;
        }
        line(f, "kept in", &self.data_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn thousands_are_grouped() {
        for (n, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (17_434, "17,434"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(n), expected);
        }
    }
}
