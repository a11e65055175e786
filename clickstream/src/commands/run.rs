//! `clickstream` and `clickstream run`: all parts in one process, on the embedded broker.
use std::sync::Arc;

use anyhow::{Context, Result};
use broker::Broker;
use broker::embedded::Embedded;
use prometheus::Registry;
use records::Cents;

use crate::exit::Exit;
use crate::folder::Folder;
use crate::http;
use crate::pipeline::{self, Lake, Live, Parts, Reports};
use crate::screen::Screen;
use crate::settings::{Input, RunOptions};
use crate::signals;
use crate::summary::{self, Outcome, Quantiles, Summary};

/// Threads for HTTP and the object store: the work is done by the parts' own.
const RUNTIME_THREADS: usize = 2;

pub(crate) fn run(input: Input, options: RunOptions) -> Result<Exit> {
    let sample = matches!(input, Input::Sample);
    let screen = Screen::new(&options.log);
    let signals = signals::first_signal()?;
    let folder = options.data.open()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("async")
        .enable_all()
        .build()?;
    // Before anything is opened: a port that cannot be had leaves nothing behind.
    let bound = runtime.block_on(http::bind(options.serve.listen))?;
    let broker = Embedded::open(folder.broker_db(), options.embedded.options())?;
    let parts = parts(&input, &options, &folder, runtime.handle().clone())?;
    let (stay, marts_db) = (parts.stay, folder.marts_db());
    let registry = Registry::new();
    let live = Arc::new(Live::new());
    let _address = match bound {
        None => None,
        Some((listener, address)) => {
            let served = http::Served {
                marts_db: Arc::new(marts_db.clone()),
                registry: registry.clone(),
                live: Arc::clone(&live),
            };
            runtime.spawn(async move {
                if let Err(error) = http::serve(listener, served).await {
                    tracing::error!("HTTP has stopped: {error}");
                }
            });
            screen.say(&format!("clickstream: live page at http://{address}/  metrics at http://{address}/metrics"));
            Some(folder.publish_address(address)?)
        }
    };
    let reports = pipeline::run(broker as Arc<dyn Broker>, parts, &registry, live, &signals, &screen)?;
    let summary = summarize(&reports, &registry, &marts_db, &folder)?;
    print(&summary, options.end.json)?;
    let unfinished_is_fine = sample || stay;
    Ok(if summary.outcome == Outcome::Drained && !unfinished_is_fine { Exit::Drained } else { Exit::Done })
}

fn parts(input: &Input, options: &RunOptions, folder: &Folder, runtime: tokio::runtime::Handle) -> Result<Parts> {
    let topics = &options.topics;
    let (lake, store) = options.lake.settings(topics, folder, options.embedded.durability())?;
    Ok(Parts {
        producer: Some(options.replay.settings(input, topics)),
        sessionizer: Some(options.sessions.settings(topics)),
        lake: Some(Lake { settings: lake, store, runtime }),
        marts: Some(marts::Settings::new(
            folder.marts_db(),
            topics.prefix(),
            &folder.broker_db().display().to_string(),
        )),
        partitions: topics.partitions(),
        prefix: topics.prefix().to_owned(),
        stay: options.end.stay || matches!(input, Input::Sample),
    })
}

fn summarize(reports: &Reports, registry: &Registry, marts_db: &std::path::Path, folder: &Folder) -> Result<Summary> {
    // None where a signal came before it was started.
    let producer = reports.producer.as_ref();
    let outcome = match producer.map(|report| report.outcome) {
        Some(producer::Outcome::Finished) => Outcome::Done,
        Some(producer::Outcome::AlreadyDone) => Outcome::AlreadyDone,
        Some(producer::Outcome::Drained) | None => Outcome::Drained,
    };
    let events = producer.map_or(0, |report| report.events);
    let dead_letters = producer.map_or(0, |report| report.dead_letters);
    let reasons = producer.map_or(&[][..], |report| &report.first_reasons);
    let marts = marts::Marts::open_read_only(marts_db)?;
    let totals = marts.totals()?;
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let per_second = if reports.elapsed.is_zero() { 0.0 } else { events as f64 / reports.elapsed.as_secs_f64() };
    let lake = reports.lake.clone().unwrap_or_default();
    Ok(Summary {
        schema: summary::SCHEMA,
        outcome,
        source: producer.map(|report| report.source.to_string()),
        this_run: summary::ThisRun {
            events,
            dead_letters: dead_letters + reports.sessionizer.as_ref().map_or(0, |report| report.dead_letters),
            first_reasons: reasons.iter().map(ToString::to_string).collect(),
            late_events: reports.sessionizer.as_ref().map_or(0, |report| report.late_events),
            seconds: reports.elapsed.as_secs_f64(),
            events_per_second: per_second,
        },
        totals: summary::Totals {
            events: count(totals.views + totals.carts + totals.purchases),
            views: count(totals.views),
            carts: count(totals.carts),
            purchases: count(totals.purchases),
            sessions: count(totals.sessions),
            steps: count(totals.viewed + totals.carted + totals.purchased),
            revenue: Cents(totals.revenue_cents).to_string(),
            abandoned: count(totals.abandoned),
            abandoned_value: Cents(totals.abandoned_value_cents).to_string(),
        },
        funnel: summary::Funnel {
            viewed: count(totals.viewed),
            carted: count(totals.carted),
            purchased: count(totals.purchased),
            viewed_then_carted: count(totals.viewed_then_carted),
            carted_then_purchased: count(totals.carted_then_purchased),
        },
        schedule: summary::Schedule {
            sending_minus_intended_ms: producer.and_then(|report| quantiles(&report.sending_error)),
            visible_minus_intended_ms: producer.and_then(|report| quantiles(&report.visible_error)),
        },
        freshness: summary::Freshness {
            marts_ms: summary::histogram(registry, "clickstream_marts_freshness_seconds"),
            lake_ms: summary::histogram(registry, "clickstream_lake_freshness_seconds"),
        },
        lake: summary::Lake {
            files: lake.topics.iter().map(|topic| topic.files).sum(),
            rows: lake.topics.iter().map(|topic| topic.rows).sum(),
            bytes: lake.topics.iter().map(|topic| topic.bytes).sum(),
        },
        unfinished: producer.iter().flat_map(|report| &report.unfinished).map(ToString::to_string).collect(),
        data_dir: folder.path().display().to_string(),
    })
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

#[allow(clippy::print_stdout, reason = "the summary is what stdout is for")]
fn print(summary: &Summary, json: bool) -> Result<()> {
    use std::io::Write;
    let text = if json { serde_json::to_string_pretty(summary)? + "\n" } else { summary.to_string() };
    match std::io::stdout().write_all(text.as_bytes()) {
        // `clickstream run … | head`: the reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("the summary cannot be written to stdout"),
    }
}
