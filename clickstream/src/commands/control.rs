//! `clickstream control`: steers a replay. On Kafka it writes to the topic itself; otherwise it asks the
//! process that runs on the data folder, over HTTP. The end of a source that nobody plays can be
//! written without one.
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use broker::Broker;
use broker::embedded::{Embedded, Options};
use producer::{Change, Named, Standing};
use serde_json::{Value, json};

use super::process::{Process, ask, is_gone, say, say_json};
use crate::exit::{Exit, Wrong};
use crate::folder::Folder;
use crate::http::replay::{begun, stands, tell};
use crate::settings::{Asked, ControlOptions};

/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn control(options: &ControlOptions) -> Result<Exit> {
    let (asked, named) = options.asked().map_err(Wrong)?;
    let process = Process::start(&options.log)?;
    let prefix = options.prefix.get();
    let answer = match options.broker.kafka_url() {
        Some(url) => {
            let Some(broker) = process.connect(&options.broker, url)? else { return Ok(Exit::Done) };
            by_topic(broker.as_ref(), prefix, asked, named)?
        }
        None => {
            let folder = options.folder.look();
            let asked_there = folder.address().map(|at| process.runtime.block_on(by_http(&at, asked, named)));
            match asked_there {
                Some(Err(error)) if is_gone(&error) => without_process(prefix, &folder, asked, named)?,
                Some(answer) => answer?,
                None => without_process(prefix, &folder, asked, named)?,
            }
        }
    };
    if options.report.json { say_json(&answer) } else { say(&(shown(&answer) + "\n")) }?;
    Ok(Exit::Done)
}

async fn by_http(at: &(String, String), asked: Asked, named: Option<Named>) -> Result<Value> {
    let url = &at.0;
    let request = |client: &reqwest::Client| match asked {
        Asked::Status => match named {
            Some(named) => client.get(format!("{url}/replay?source={}", named.source())),
            None => client.get(format!("{url}/replay")),
        },
        Asked::Change(change) => {
            let (action, value) = match change {
                Change::Pause => ("pause", None),
                Change::Resume => ("resume", None),
                Change::Speed(speed) => ("speed", Some(format!("{speed}x"))),
                Change::Rate(rate) => ("rate", Some(format!("{rate}/s"))),
                Change::End => ("end", None),
            };
            let body = json!({ "value": value, "source": named.map(|named| named.to_string()) });
            client.post(format!("{url}/replay/{action}")).json(&body)
        }
    };
    ask(at, Some(PATIENCE), request).await
}

/// Only an end can be written with nobody running.
fn without_process(prefix: &str, folder: &Folder, asked: Asked, named: Option<Named>) -> Result<Value> {
    let nobody = format!("no process runs on {}", folder.path().display());
    let Asked::Change(Change::End) = asked else {
        bail!("{nobody}: there is nothing to steer; --data-dir names another folder, --broker a cluster")
    };
    let Some(named) = named else {
        bail!("{nobody}: say which source is to end, as in control end 174f0a20 (a summary names those that have not)")
    };
    if !folder.broker_db().exists() {
        bail!("{nobody}, and it holds no broker.db: --data-dir names another folder, --broker a cluster");
    }
    let broker: Arc<dyn Broker> = Embedded::open(folder.broker_db(), Options::default())?;
    Ok(serde_json::to_value(tell(broker.as_ref(), prefix, None, named, Change::End)?)?)
}

/// On a cluster, where every shard reads the topic.
fn by_topic(broker: &dyn Broker, prefix: &str, asked: Asked, named: Option<Named>) -> Result<Value> {
    let standings = producer::standings(broker, prefix)?;
    let standing = choose(&standings, named)?;
    match asked {
        Asked::Status => Ok(stands(standing)),
        Asked::Change(change) => {
            let named = named.unwrap_or(Named::Source(standing.source));
            Ok(serde_json::to_value(tell(broker, prefix, None, named, change)?)?)
        }
    }
}

/// The one that is named, or the only one that goes on.
fn choose(standings: &[Standing], named: Option<Named>) -> Result<&Standing> {
    let open: Vec<_> = standings.iter().filter(|standing| !standing.has_ended()).collect();
    match (named, &open[..]) {
        (Some(named), _) => begun(standings, named.source()).map_err(|why| anyhow!(why)),
        (None, [only]) => Ok(only),
        (None, []) if standings.is_empty() => bail!("no source was begun here: there is nothing to steer"),
        (None, []) => bail!("every source here has ended; --source takes one of {}", names(standings.iter())),
        (None, _) => bail!("several sources are unfinished: --source takes one of {}", names(open.iter().copied())),
    }
}

fn names<'a>(standings: impl Iterator<Item = &'a Standing>) -> String {
    standings.map(|standing| standing.source.to_string()).collect::<Vec<_>>().join(", ")
}

/// One line for people.
fn shown(answer: &Value) -> String {
    if let Some(says) = answer["says"].as_str() {
        return says.to_owned();
    }
    let mut said = vec![format!("source {}", answer["source"].as_str().unwrap_or("not known yet"))];
    // Of one process: the events are this shard's.
    if let (Some(shard), Some(shards @ 2..)) = (answer["shard"].as_u64(), answer["shards"].as_u64()) {
        said.push(format!("shard {shard}/{shards}"));
    }
    said.extend(answer["phase"].as_str().map(str::to_owned));
    if answer["paused"].as_bool() == Some(true) {
        said.push("paused".to_owned());
    }
    for (name, unit) in [("speed", "x"), ("rate", "/s")] {
        said.extend(answer[name].as_f64().map(|number| format!("{name} {number}{unit}")));
    }
    said.extend(answer["clock"].as_str().map(|clock| format!("clock {clock}")));
    said.extend(answer["events"].as_u64().map(|events| format!("{} events", crate::summary::thousands(events))));
    if let (Some(pass), Some(fraction)) = (answer["pass"].as_u64(), answer["fraction"].as_f64()) {
        let of = if answer["loops"] == true { format!(" of pass {pass}") } else { String::new() };
        said.push(format!("{:.0}%{of}", 100.0 * fraction));
    }
    if answer["end"].as_bool() == Some(true) {
        let feeds: Vec<_> = answer["ended"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        said.push(match &feeds[..] {
            [] if answer["effective_at"].is_null() => "it has ended".to_owned(),
            [] => "ends".to_owned(),
            feeds => format!("the end of {} is written", feeds.join(", ")),
        });
    }
    said.extend(answer["effective_at"].as_str().map(|at| format!("from {at} on")));
    said.join("  ")
}
