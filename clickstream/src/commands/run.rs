//! `clickstream` and `clickstream run`: all parts in one process, on the embedded broker or on Kafka.
use std::sync::Arc;

use anyhow::{Result, bail};
use broker::Broker;
use broker::embedded::{Embedded, Lock};
use crossbeam_channel::{bounded, select};
use prometheus::Registry;
use records::Cents;

use super::process::{OUTAGE, Process, say, say_json};
use crate::exit::{Exit, Wrong};
use crate::folder::Folder;
use crate::http::replay::Token;
use crate::pipeline::{self, Parts, Reports, Topics};
use crate::settings::{Input, Instance, KafkaUrl, RunOptions};
use crate::summary::{self, Outcome, Summary};
use crate::unfinished::Reach;

/// Threads that write the lake, each a member of its group: it is the dearest of the parts.
const LAKE_MEMBERS: usize = 2;

/// Where the log is.
enum Log<'a> {
    Folder(Lock),
    Cluster(&'a KafkaUrl),
}

pub(crate) fn run(input: Input, options: RunOptions) -> Result<Exit> {
    let sample = matches!(input, Input::Sample);
    let process = Process::start(&options.log)?;
    let folder = options.folder.open()?;
    // Before anything is opened: a port that cannot be had leaves nothing behind.
    let bound = process.bind(&options.serve)?;
    // The folder is this process's from here on, to the end.
    let log = match options.broker.kafka_url() {
        None => Log::Folder(Lock::take(folder.broker_db())?),
        Some(url) => Log::Cluster(url),
    };
    let marts = Arc::new(marts::Lock::take(folder.marts_db())?);
    let reach = match options.broker.flags(&options.prefix) {
        Some(flags) => Reach { flags, is_shared: true },
        None => Reach { flags: options.folder.flags(), is_shared: false },
    };
    let (mut parts, _instances) = parts(&input, &options, &folder, &marts, &process)?;
    if let Some(producer) = &mut parts.producer {
        producer.flags.clone_from(&reach.flags);
    }
    if let Log::Folder(log) = &log
        && options.restart.restart
    {
        if !can_begin_anew(&parts, &options, &folder, &process)? {
            return Ok(Exit::Drained);
        }
        folder.empty(log, &marts, options.restart.yes)?;
        parts.warehouse.iter_mut().for_each(|warehouse| warehouse.settings.begins_anew = true);
    }
    let (stay, prefix) = (parts.stay, options.prefix.get());
    process.live.set_plays();
    let serve = || {
        let served = process.serve(bound, prefix, &reach.flags, Some(folder.marts_db()))?;
        let publish = |(address, token): (_, Token)| folder.publish_address(address, &token);
        served.map(publish).transpose()
    };
    let (broker, _address) = match log {
        Log::Folder(log) => {
            let broker: Arc<dyn Broker> = Embedded::open_locked(log, options.embedded.options())?;
            for group in &options.embedded.forget_group {
                forget(broker.as_ref(), group)?;
            }
            process.has(&broker);
            (broker, serve()?)
        }
        Log::Cluster(url) => {
            let address = serve()?;
            let Some(broker) = process.connect(&options.broker, url)? else { return Ok(Exit::Drained) };
            (broker, address)
        }
    };
    let live = Arc::clone(&process.live);
    let reports = pipeline::run(broker, parts, &process.registry, live, &process.signals, &process.screen)?;
    if reports.signalled && !folder.marts_db().exists() {
        // Nothing has begun: there is nothing to sum up.
        return Ok(Exit::Drained);
    }
    let summary = summarize(&reports, &reach, &process.registry, &folder)?;
    if options.report.json { say_json(&summary) } else { say(&summary.to_string()) }?;
    let unfinished_is_fine = sample || stay;
    Ok(if summary.outcome == Outcome::Drained && !unfinished_is_fine { Exit::Drained } else { Exit::Done })
}

fn forget(broker: &dyn Broker, group: &str) -> Result<()> {
    let registered = broker.registered_groups();
    if !registered.iter().any(|name| name == group) {
        bail!("--forget-group {group}: there is no such group in this log; there are {}", registered.join(", "));
    }
    Ok(broker.forget_group(group)?)
}

/// Whatever could stop a new start is found out while all is still there; false where a signal came.
fn can_begin_anew(parts: &Parts, options: &RunOptions, folder: &Folder, process: &Process) -> Result<bool> {
    if let Some(producer) = parts.producer.clone() {
        // On a thread of its own: standard input may be long in coming.
        let (looked, looking) = bounded(1);
        std::thread::Builder::new().name("look".into()).spawn(move || {
            // Nobody listens any more where a signal came first.
            let _ = looked.send(producer::look(&producer));
        })?;
        select! {
            recv(looking) -> found => found??,
            recv(process.signals) -> _ => return Ok(false),
        }
    }
    let Some(lake) = parts.lake.first().filter(|_| options.lake.is_elsewhere(folder)) else { return Ok(true) };
    if let Some(file) = process.runtime.block_on(consumer::lake::first_file(lake.store.as_ref()))? {
        let (lake, folder) = (&lake.settings.lake, folder.path().display());
        bail!(
            "--restart: nothing was deleted. It empties {folder}, and the lake is elsewhere: {lake} still holds {file}. \
             Empty it, or name another with --lake"
        );
    }
    Ok(true)
}

/// The parts, and the locks on their names.
fn parts(
    input: &Input,
    options: &RunOptions,
    folder: &Folder,
    marts_lock: &Arc<marts::Lock>,
    process: &Process,
) -> Result<(Parts, Vec<Instance>)> {
    let (prefix, format) = (options.prefix.get(), options.format.get());
    let mut sessionizer = options.sessions.settings(prefix, format);
    let (runtime, durability) = (process.runtime.handle().clone(), options.embedded.durability());
    let mut lake = options.lake.lake(prefix, folder, &options.cloud, durability, runtime, &process.registry)?;
    let runtime = process.runtime.handle();
    let mut warehouse = options.warehouse.warehouse(prefix, format, &options.cloud, runtime, &process.registry)?;
    if let Some(warehouse) = &warehouse
        && let Some(of_bucket) = options.lake.location(&options.cloud, runtime)
    {
        let (dataset, lake) = (&warehouse.settings.dataset, &lake.settings.lake);
        if let Some(apart) = consumer::warehouse::apart(dataset, &warehouse.location, lake, &of_bucket) {
            tracing::warn!("{apart}");
        }
    }
    if options.broker.kafka_url().is_some() && !options.embedded.forget_group.is_empty() {
        bail!(Wrong("--forget-group is of the embedded broker: Kafka's log waits for no group".into()));
    }
    let mut broker_name = folder.broker_db().display().to_string();
    let mut instances = Vec::new();
    if let Some(url) = options.broker.kafka_url() {
        let of_sessionizer = options.instance.within(&sessionizer.group())?;
        let of_lake = options.instance.within(&format!("{prefix}{}", consumer::lake::GROUP))?;
        sessionizer.instance.clone_from(&of_sessionizer.name);
        lake.settings.instance.clone_from(&of_lake.name);
        lake.settings.retry_for = options.lake.retry_for(OUTAGE);
        instances.extend([of_sessionizer, of_lake]);
        if let Some(warehouse) = &mut warehouse {
            let of_warehouse = options.instance.within(&format!("{prefix}{}", consumer::warehouse::GROUP))?;
            warehouse.settings.instance.clone_from(&of_warehouse.name);
            warehouse.settings.retry_for = options.warehouse.retry_for(OUTAGE);
            instances.push(of_warehouse);
        }
        broker_name = url.to_string();
    }
    let mut marts = marts::Settings::new(folder.marts_db(), prefix, &broker_name);
    marts.lock = Some(Arc::clone(marts_lock));
    if let Some(instance) = options.instance.given().filter(|_| options.broker.kafka_url().is_some()) {
        marts.group = format!("{}-{instance}", marts.group);
    }
    let mut producer = options.replay.settings(input, prefix, format, &options.cloud)?;
    producer.gzip_index.get_or_insert_with(|| producer::GzipIndex::new(folder.index()));
    // What is on a cluster stays: the input is played as one more source.
    producer.restart = options.broker.kafka_url().is_some() && options.restart.restart;
    warn_of_disorder(&producer, &sessionizer);
    // On Kafka there are as many processes as the load needs.
    let members = if options.broker.kafka_url().is_some() { 1 } else { LAKE_MEMBERS };
    let parts = Parts {
        producer: Some(producer),
        sessionizer: Some(sessionizer),
        lake: lake.members(members),
        warehouse,
        marts: Some(marts),
        topics: Topics::Make { partitions: options.partitions.get() },
        prefix: prefix.to_owned(),
        stay: options.stay.stay || matches!(input, Input::Sample),
    };
    Ok((parts, instances))
}

fn warn_of_disorder(producer: &producer::Settings, sessionizer: &sessionizer::Settings) {
    let lateness = sessionizer.rules.allowed_lateness;
    if let Some(shuffle) = producer.disorder.shuffle.filter(|shuffle| *shuffle > lateness) {
        tracing::warn!(
            "--shuffle {shuffle:?} puts rows out of order by as much, and --allowed-lateness is {lateness:?}: what comes \
             later than that cuts its session; --allowed-lateness {shuffle:?} covers it"
        );
    }
}

fn summarize(reports: &Reports, reach: &Reach, registry: &Registry, folder: &Folder) -> Result<Summary> {
    // None where a signal came before it was started.
    let producer = reports.producer.as_ref();
    let outcome = match producer.map(|report| report.outcome).filter(|_| reports.caught_up) {
        Some(producer::Outcome::Finished) => Outcome::Done,
        Some(producer::Outcome::AlreadyDone) => Outcome::AlreadyDone,
        Some(producer::Outcome::Drained) | None => Outcome::Drained,
    };
    let events = producer.map_or(0, |report| report.events);
    let dead_letters = producer.map_or(0, |report| report.dead_letters);
    let reasons = producer.map_or(&[][..], |report| &report.first_reasons);
    let marts = marts::Marts::open_read_only(folder.marts_db())?;
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
        schedule: producer.map(summary::Schedule::of).unwrap_or_default(),
        disorder: producer.map(|report| summary::Disorder::of(report.made)).unwrap_or_default(),
        freshness: summary::Freshness {
            marts_ms: summary::histogram(registry, "clickstream_marts_freshness_seconds"),
            lake_ms: summary::histogram(registry, "clickstream_lake_freshness_seconds"),
            warehouse_ms: summary::histogram(registry, "clickstream_warehouse_freshness_seconds"),
        },
        lake: summary::Lake {
            files: lake.topics.iter().map(|topic| topic.files).sum(),
            rows: lake.topics.iter().map(|topic| topic.rows).sum(),
            bytes: lake.topics.iter().map(|topic| topic.bytes).sum(),
        },
        warehouse: reports.warehouse.as_ref().map(summary::Warehouse::of),
        unfinished: reports.unfinished(reach),
        data_dir: folder.path().display().to_string(),
        goes_on: reach.goes_on(producer),
    })
}
