//! What a part says on stdout when it ends: for people, or with `--json` as one object. All of it
//! counts what this process has committed.
use std::fmt::{self, Display};

use prometheus::Registry;
use serde::Serialize;

use crate::pipeline::Reports;
use crate::summary::{self, Freshness, Quantiles, Schedule, thousands, whole};
use crate::unfinished::{Reach, Unfinished};

/// The version of the JSON form. Fields may be added under the same version.
const SCHEMA: &str = "clickstream.part/1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The input is done.
    Done,
    /// It was done before this run.
    AlreadyDone,
    /// A signal came.
    Drained,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    part: &'static str,
    pub(crate) outcome: Outcome,
    instance: Option<String>,
    source: Option<String>,
    seconds: f64,
    #[serde(serialize_with = "as_map")]
    counts: Vec<(&'static str, u64)>,
    /// The first reasons of dead letters.
    first_reasons: Vec<String>,
    schedule: Schedule,
    freshness: Freshness,
    /// Feeds beside this one that have not ended when the input has: they hold sessions open.
    unfinished: Vec<Unfinished>,
    /// How what was stopped goes on.
    #[serde(skip)]
    goes_on: String,
}

fn as_map<S: serde::Serializer>(counts: &[(&'static str, u64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(counts.iter().copied())
}

impl Report {
    pub(crate) fn of(
        part: &'static str,
        instance: Option<String>,
        reports: &Reports,
        reach: &Reach,
        registry: &Registry,
    ) -> Self {
        let mut report = Self {
            schema: SCHEMA,
            part,
            outcome: Outcome::Drained,
            instance,
            source: None,
            seconds: reports.elapsed.as_secs_f64(),
            counts: Vec::new(),
            first_reasons: Vec::new(),
            schedule: Schedule::default(),
            freshness: Freshness {
                marts_ms: summary::histogram(registry, "clickstream_marts_freshness_seconds"),
                lake_ms: summary::histogram(registry, "clickstream_lake_freshness_seconds"),
                warehouse_ms: summary::histogram(registry, "clickstream_warehouse_freshness_seconds"),
            },
            unfinished: reports.unfinished(reach),
            goes_on: reach.goes_on(reports.producer.as_ref()),
        };
        if let Some(producer) = &reports.producer {
            report.outcome = match producer.outcome {
                producer::Outcome::Finished => Outcome::Done,
                producer::Outcome::AlreadyDone => Outcome::AlreadyDone,
                producer::Outcome::Drained => Outcome::Drained,
            };
            report.source = Some(producer.source.to_string());
            report.counts.extend([
                ("events", producer.events),
                ("dead_letters", producer.dead_letters),
                ("events_of_source", producer.events_of_source),
                ("dead_letters_of_source", producer.dead_letters_of_source),
                ("copies", producer.made.copies),
                ("damaged", producer.made.damaged),
                ("shuffled", producer.made.shuffled),
            ]);
            report.first_reasons = producer.first_reasons.iter().map(ToString::to_string).collect();
            report.schedule = Schedule::of(producer);
        }
        if let Some(done) = &reports.sessionizer {
            report.counts.extend([
                ("events", done.events),
                ("funnel_steps", done.steps.iter().sum()),
                ("sessions", done.sessions),
                ("late_events", done.late_events),
                ("dead_letters", done.dead_letters),
                ("finished_feeds", done.finished_feeds),
                ("recovered_records", done.recovered_records),
                ("failed_transactions", done.failed_transactions),
            ]);
        }
        if let Some(done) = &reports.lake {
            report.counts.extend([
                ("files", done.topics.iter().map(|topic| topic.files).sum()),
                ("rows", done.topics.iter().map(|topic| topic.rows).sum()),
                ("bytes", done.topics.iter().map(|topic| topic.bytes).sum()),
                ("unreadable", done.topics.iter().map(|topic| topic.unreadable).sum()),
            ]);
        }
        if let Some(done) = &reports.warehouse {
            report.counts.extend([
                ("rows", done.tables.iter().map(|table| table.rows).sum()),
                ("requests", done.tables.iter().map(|table| table.requests).sum()),
                ("refused", done.tables.iter().map(|table| table.refused).sum()),
                ("unreadable", done.tables.iter().map(|table| table.unreadable).sum()),
            ]);
        }
        if let Some(done) = &reports.marts {
            report.counts.extend([
                ("events", done.events),
                ("funnel_steps", done.funnel_steps),
                ("sessions", done.sessions),
                ("unreadable", done.unreadable),
                ("commits", done.commits),
            ]);
        }
        report
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (how, then) = match self.outcome {
            Outcome::Done => ("the input is at its end", ""),
            Outcome::AlreadyDone => ("this source was played to its end before; nothing was published", ""),
            Outcome::Drained => ("stopped", &*self.goes_on),
        };
        writeln!(f, "{}", format!("{}: {how}. {then}", self.part).trim_end())?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn Display| writeln!(f, "  {name:<22}{value}");
        if let Some(instance) = &self.instance {
            line(f, "instance", instance)?;
        }
        if let Some(source) = &self.source {
            line(f, "source", source)?;
        }
        for (name, count) in &self.counts {
            line(f, &name.replace('_', " "), &thousands(*count))?;
        }
        for reason in &self.first_reasons {
            writeln!(f, "    {reason}")?;
        }
        if let Some((_, events)) = self.counts.first() {
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = if self.seconds > 0.0 { *events as f64 / self.seconds } else { 0.0 };
            line(f, "time", &format!("{:.1} s ({}/s)", self.seconds, whole(rate)))?;
        }
        let quantiles: [(&str, Option<Quantiles>); 4] = [
            ("sending − intended", self.schedule.sending_minus_intended_ms),
            ("visible − intended", self.schedule.visible_minus_intended_ms),
            ("sent to marts", self.freshness.marts_ms),
            ("sent to lake", self.freshness.lake_ms),
        ];
        for (name, quantiles) in quantiles {
            if let Some(quantiles) = quantiles {
                line(f, name, &quantiles)?;
            }
        }
        for feed in &self.unfinished {
            writeln!(f, "  {feed}")?;
        }
        Ok(())
    }
}
