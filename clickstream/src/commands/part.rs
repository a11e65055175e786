//! The parts as processes of their own, on a Kafka cluster: `produce`, `sessionize`, `consume lake`,
//! `marts`. Each serves its metrics on the next free port, and says at its end what it did.
use std::path::PathBuf;

use anyhow::Result;

use super::process::{OUTAGE, Process, cluster, say, say_json};
use crate::exit::Exit;
use crate::pipeline::{self, Parts, Reports, Topics};
use crate::report::{Outcome, Report};
use crate::settings::{
    ConsumeLakeOptions, ConsumeWarehouseOptions, Durability, Input, Instance, MartsOptions, PartOptions,
    ProduceOptions, SessionizeOptions, index_in_cache,
};
use crate::unfinished::Reach;

pub(crate) fn produce(input: &Input, options: &ProduceOptions) -> Result<Exit> {
    run(&options.part, "produce", None, |_, prefix| {
        let mut settings = options.replay.settings(input, prefix, options.format.get(), &options.cloud)?;
        settings.restart = options.anew.restart;
        settings.gzip_index = settings.gzip_index.or_else(index_in_cache);
        if let Some(shuffle) = settings.disorder.shuffle {
            tracing::warn!(
                "--shuffle {shuffle:?} puts rows out of order by as much: what comes later than the sessionizer's \
                 --allowed-lateness cuts its session; clickstream sessionize --allowed-lateness {shuffle:?} covers it"
            );
        }
        Ok((Parts { producer: Some(settings), ..none(prefix) }, None))
    })
}

pub(crate) fn sessionize(options: &SessionizeOptions) -> Result<Exit> {
    run(&options.part, "sessionize", None, |_, prefix| {
        let mut settings = options.sessions.settings(prefix, options.format.get());
        let instance = options.instance.within(&settings.group())?;
        settings.instance.clone_from(&instance.name);
        Ok((Parts { sessionizer: Some(settings), ..none(prefix) }, Some(instance)))
    })
}

pub(crate) fn consume_lake(options: &ConsumeLakeOptions) -> Result<Exit> {
    run(&options.part, "consume lake", None, |process, prefix| {
        let folder = options.folder.look();
        let (cloud, runtime) = (&options.cloud, process.runtime.handle().clone());
        let mut lake = options.lake.lake(prefix, &folder, cloud, Durability::Process, runtime, &process.registry)?;
        let instance = options.instance.within(&format!("{prefix}{}", consumer::lake::GROUP))?;
        options.lake.alone(&mut lake.settings)?;
        lake.settings.instance.clone_from(&instance.name);
        lake.settings.retry_for = options.lake.retry_for(OUTAGE);
        Ok((Parts { lake: vec![lake], ..none(prefix) }, Some(instance)))
    })
}

pub(crate) fn consume_warehouse(options: &ConsumeWarehouseOptions) -> Result<Exit> {
    options.warehouse.at.required()?;
    run(&options.part, "consume warehouse", None, |process, prefix| {
        let (format, runtime) = (options.format.get(), process.runtime.handle());
        let warehouse = &options.warehouse;
        let mut warehouse = warehouse.warehouse(prefix, format, &options.cloud, runtime, &process.registry)?;
        let instance = options.instance.within(&format!("{prefix}{}", consumer::warehouse::GROUP))?;
        if let Some(warehouse) = &mut warehouse {
            warehouse.settings.instance.clone_from(&instance.name);
            warehouse.settings.retry_for = options.warehouse.retry_for(OUTAGE);
        }
        Ok((Parts { warehouse, ..none(prefix) }, Some(instance)))
    })
}

pub(crate) fn marts(options: &MartsOptions) -> Result<Exit> {
    let path = options.folder.open()?.marts_db();
    let broker = cluster(&options.part.broker)?.to_string();
    run(&options.part, "marts", Some(path.clone()), |_, prefix| {
        let mut settings = marts::Settings::new(path, prefix, &broker);
        // A further marts process is a copy of its own, with a group of its own.
        if let Some(instance) = options.instance.given() {
            settings.group = format!("{}-{instance}", settings.group);
        }
        Ok((Parts { marts: Some(settings), ..none(prefix) }, None))
    })
}

/// Nothing runs yet; the topics are there.
fn none(prefix: &str) -> Parts {
    Parts {
        producer: None,
        sessionizer: None,
        lake: Vec::new(),
        warehouse: None,
        marts: None,
        topics: Topics::Expect,
        prefix: prefix.to_owned(),
        stay: false,
    }
}

/// One part, from its start to its report.
fn run(
    options: &PartOptions,
    name: &'static str,
    marts_db: Option<PathBuf>,
    parts: impl FnOnce(&Process, &str) -> Result<(Parts, Option<Instance>)>,
) -> Result<Exit> {
    let url = cluster(&options.broker)?;
    let process = Process::start(&options.log)?;
    let prefix = options.prefix.get();
    let bound = process.bind(&options.serve)?;
    let (mut parts, instance) = parts(&process, prefix)?;
    let has_end = parts.producer.is_some();
    let reach = Reach { flags: options.broker.flags(&options.prefix).unwrap_or_default(), is_shared: true };
    if let Some(producer) = &mut parts.producer {
        producer.flags.clone_from(&reach.flags);
        process.live.set_plays();
    }
    process.serve(bound, prefix, &reach.flags, marts_db)?;
    let Some(broker) = process.connect(&options.broker, url)? else {
        return Ok(if has_end { Exit::Drained } else { Exit::Done });
    };
    if let Some(instance) = &instance {
        tracing::info!(instance = instance.name, "{name}");
    }
    let reports: Reports = pipeline::run(
        broker,
        parts,
        &process.registry,
        std::sync::Arc::clone(&process.live),
        &process.signals,
        &process.screen,
    )?;
    let report = Report::of(name, instance.map(|instance| instance.name.clone()), &reports, &reach, &process.registry);
    if options.report.json { say_json(&report) } else { say(&report.to_string()) }?;
    Ok(if has_end && report.outcome == Outcome::Drained { Exit::Drained } else { Exit::Done })
}
