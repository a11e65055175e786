//! `clickstream check`: whether a cluster, its topics, the groups and this user's rights are as they
//! must be. It changes nothing but for a transaction that holds nothing.
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use broker::{Broker, Offset, TopicPartition};
use consumer::warehouse::{BigQuery, Checked, Mode};
use records::topics::DEFAULT_PARTITIONS;
use serde::Serialize;

use super::process::{Process, cluster, say, say_json};
use crate::exit::Exit;
use crate::pipeline::{self, specs, topic};
use crate::settings::{CheckOptions, Durability, LakeAt, TopicsOptions};

/// One thing that was looked at.
#[derive(Serialize)]
struct Finding {
    what: String,
    good: bool,
    says: String,
}

pub(crate) fn check(options: &CheckOptions) -> Result<Exit> {
    let sinks = options.lake.given().is_some() || options.warehouse.dataset().is_some();
    let process = Process::start(&options.topics.log)?;
    let mut findings = Vec::new();
    if options.topics.broker.kafka_url().is_some() || !sinks {
        findings.extend(of_cluster(&options.topics, &process)?);
    }
    findings.extend(of_lake(options, &process));
    let (of_warehouse, location) = of_warehouse(options, &process);
    findings.extend(of_warehouse);
    findings.extend(location.and_then(|location| of_places(options, &location, &process)));
    let options = &options.topics;
    if options.report.json {
        say_json(&findings)?;
    } else {
        let mut text = String::new();
        for Finding { what, good, says } in &findings {
            writeln!(text, "{} {what}: {says}", if *good { "ok   " } else { "WRONG" })?;
        }
        say(&text)?;
    }
    let wrong = findings.iter().filter(|finding| !finding.good).count();
    if wrong > 0 {
        bail!("{wrong} of {} are not as they must be", findings.len());
    }
    Ok(Exit::Done)
}

/// Where no broker answers, that is the finding: nobody waits for it.
fn of_cluster(options: &TopicsOptions, process: &Process) -> Result<Vec<Finding>> {
    let url = cluster(&options.broker)?;
    let broker = match options.broker.kafka.connector(url, &process.registry)?() {
        Ok(broker) => broker,
        Err(error) => return Ok(vec![Finding { what: "broker".into(), good: false, says: error.to_string() }]),
    };
    let prefix = options.prefix.get();
    let mut findings = vec![Finding { what: "broker".into(), good: true, says: format!("{url} answers") }];
    findings.extend(of_topics(broker.as_ref(), prefix, options.partitions.given()));
    findings.extend(of_rights(broker.as_ref(), prefix));
    for (group, names) in groups() {
        findings.push(of_group(broker.as_ref(), prefix, group, names));
    }
    findings.push(of_writing(broker.as_ref(), prefix));
    Ok(findings)
}

/// Objects can be listed and created.
fn of_lake(options: &CheckOptions, process: &Process) -> Option<Finding> {
    let at = options.lake.given()?;
    let looked = match at {
        LakeAt::Folder(dir) => of_folder(dir),
        LakeAt::Bucket(_) => {
            let folder = crate::folder::Folder::at(Path::new(""));
            let (durability, runtime) = (Durability::Process, process.runtime.handle().clone());
            let lake = options.lake.lake("", &folder, &options.cloud, durability, runtime, &process.registry);
            lake.map(|_| "files can be listed and created")
        }
    };
    let (good, says) = match looked {
        Ok(says) => (true, says.to_owned()),
        Err(error) => (false, format!("{error:#}")),
    };
    Some(Finding { what: format!("lake {at}"), good, says })
}

/// Whether files can be made in a folder, which is not made by looking.
fn of_folder(dir: &Path) -> Result<&'static str> {
    use rustix::fs::{Access, access};
    let absolute = std::path::absolute(dir)?;
    let there = absolute.ancestors().find(|path| path.exists()).unwrap_or(&absolute);
    let choose = "choose a folder that can be written to";
    if !there.is_dir() {
        bail!("{} is not a folder; {choose}", there.display());
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK).with_context(|| format!("{}: {choose}", there.display()))?;
    Ok(if there == absolute { "files can be listed and created" } else { "it is not there yet, and can be made" })
}

/// The dataset is there, its tables and the view are as they must be, and rows can be sent. And where it
/// is.
fn of_warehouse(options: &CheckOptions, process: &Process) -> (Vec<Finding>, Option<String>) {
    let Some(dataset) = options.warehouse.dataset() else { return (Vec::new(), None) };
    let wrong = |says| Finding { what: format!("warehouse {dataset}"), good: false, says };
    let look = || -> Result<(BigQuery, Checked)> {
        let runtime = process.runtime.handle();
        let bigquery = options.warehouse.open(dataset, Mode::StorageWrite, &options.cloud, runtime)?;
        let checked = bigquery.check(options.warehouse.location())?;
        Ok((bigquery, checked))
    };
    let (bigquery, Checked { location, otherwise }) = match look() {
        Ok(looked) => looked,
        Err(error) => return (vec![wrong(format!("{error:#}"))], None),
    };
    let mut findings: Vec<_> = otherwise.into_iter().map(wrong).collect();
    findings.extend(bigquery.check_view().unwrap_or_else(|error| Some(error.to_string())).map(wrong));
    findings.extend(bigquery.check_streams().err().map(|error| wrong(error.to_string())));
    if findings.is_empty() {
        let says = format!("its tables are as they must be; it is in {location}");
        findings.push(Finding { good: true, ..wrong(says) });
    }
    (findings, Some(location))
}

/// Whether BigQuery can read the lake from where the dataset is.
fn of_places(options: &CheckOptions, of_dataset: &str, process: &Process) -> Option<Finding> {
    let (at, dataset) = (options.lake.given()?, options.warehouse.dataset()?);
    let of_bucket = options.lake.location(&options.cloud, process.runtime.handle())?;
    let apart = consumer::warehouse::apart(&dataset.to_string(), of_dataset, &at.to_string(), &of_bucket);
    let good = apart.is_none();
    let says = apart.unwrap_or_else(|| format!("{at} is in {of_bucket}, {dataset} in {of_dataset}"));
    Some(Finding { what: "places".to_owned(), good, says })
}

const SESSIONIZER: &str = "sessionizer";

/// Each group and the topics that it reads.
fn groups() -> [(&'static str, &'static [&'static str]); 4] {
    use records::topics::{EVENTS, FUNNEL_STEPS, SESSIONS};
    [
        (SESSIONIZER, &[EVENTS]),
        (consumer::lake::GROUP, &consumer::lake::TOPICS),
        (consumer::warehouse::GROUP, &consumer::warehouse::TOPICS),
        ("marts", &[EVENTS, FUNNEL_STEPS, SESSIONS]),
    ]
}

fn of_topics(broker: &dyn Broker, prefix: &str, asked: Option<u32>) -> Vec<Finding> {
    let one = |good, says| vec![Finding { what: "topics".to_owned(), good, says }];
    // Those that are there have as many partitions as they have, where none were asked for.
    let partitions = match (asked, pipeline::partitions(broker, prefix)) {
        (Some(asked), Ok(_)) => asked,
        (None, Ok(found)) => found.unwrap_or(DEFAULT_PARTITIONS),
        (_, Err(error)) => return one(false, format!("{error:#}")),
    };
    match broker.faults_of_topics(&specs(prefix, partitions)) {
        Ok(faults) if faults.is_empty() => one(true, format!("they are as they must be, of {partitions} partitions")),
        Ok(faults) => faults.into_iter().map(|says| Finding { what: "topics".to_owned(), good: false, says }).collect(),
        Err(error) => one(false, error.to_string()),
    }
}

/// Which part of the pipeline needs which of them, the README says.
fn of_rights(broker: &dyn Broker, prefix: &str) -> Vec<Finding> {
    let one = |good, says| Finding { what: "rights".to_owned(), good, says };
    let topics: Vec<_> = records::topics::ALL.iter().map(|name| topic(prefix, name)).collect();
    match broker.missing_rights(&topics) {
        Ok(missing) if missing.is_empty() => vec![one(true, "this user may read and write the topics".to_owned())],
        Ok(missing) => missing.into_iter().map(|says| one(false, says)).collect(),
        Err(error) => vec![one(false, error.to_string())],
    }
}

/// Its positions can be read, and lie within the logs.
fn of_group(broker: &dyn Broker, prefix: &str, group: &str, names: &[&str]) -> Finding {
    let name = format!("{prefix}{group}");
    let what = format!("group {name}");
    let look = || -> broker::Result<(bool, String)> {
        let (mut lag, mut outside) = (0, Vec::new());
        let mut is_new = true;
        for topic in names.iter().map(|name| topic(prefix, name)) {
            let Some(info) = broker.describe(&topic)? else { continue };
            let partitions: Vec<_> =
                (0_u32..).zip(&info.partitions).map(|(number, _)| TopicPartition::new(&topic, number)).collect();
            let committed = broker.committed(&name, &partitions)?;
            for ((partition, bounds), committed) in partitions.iter().zip(info.partitions).zip(committed) {
                let at = committed.as_ref().map_or(bounds.start, |committed| committed.offset);
                is_new &= committed.is_none();
                lag += (bounds.end.0 - at.0).max(0);
                if !(bounds.start..=bounds.end).contains(&at) {
                    outside.push(format!("{partition} at {at}, which holds {} to {}", bounds.start, bounds.end));
                }
            }
        }
        if is_new && group == SESSIONIZER && is_written(broker, prefix)? {
            let why = "it has committed nothing, and there are steps or sessions: the group's offsets are lost, and \
                       sessionize will refuse to count them twice; delete the topics under this prefix, or take another \
                       --topic-prefix";
            return Ok((false, why.to_owned()));
        }
        Ok(match (outside.is_empty(), is_new) {
            (false, _) => (false, format!("its position is outside the log: {}", outside.join("; "))),
            (true, true) if group == consumer::lake::GROUP => {
                (true, format!("it has committed nothing yet, and needs an empty lake; {lag} offsets to read"))
            }
            (true, true) => (true, format!("it has committed nothing yet; {lag} offsets to read")),
            (true, false) => (true, format!("{lag} offsets behind")),
        })
    };
    match look() {
        Ok((good, says)) => Finding { what, good, says },
        Err(error) => Finding { what, good: false, says: error.to_string() },
    }
}

/// Whether the sessionizer has ever written.
fn is_written(broker: &dyn Broker, prefix: &str) -> broker::Result<bool> {
    for name in [records::topics::FUNNEL_STEPS, records::topics::SESSIONS] {
        let info = broker.describe(&topic(prefix, name))?;
        let mut logs = info.iter().flat_map(|info| &info.partitions);
        if logs.any(|log| log.end > log.start || log.start > Offset(0)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Transactions can be begun.
fn of_writing(broker: &dyn Broker, prefix: &str) -> Finding {
    let id = format!("{prefix}check");
    let (good, says) = match broker.writer(&id) {
        Ok(_) => (true, format!("transactions can be begun (as {id})")),
        Err(error) => (false, error.to_string()),
    };
    Finding { what: "writing".to_owned(), good, says }
}
