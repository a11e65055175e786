//! `clickstream control`: steers a replay. On Kafka it writes to the topic itself; otherwise it asks the
//! process that runs on the data folder, over HTTP. The end of a source that nobody plays can be
//! written without one.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use broker::embedded::{Embedded, Options};
use broker::{Broker, Cancel};
use producer::{Change, Ended, Standing};
use records::SourceId;
use serde_json::{Value, json};

use super::process::{Process, ask, is_gone, say, say_json};
use crate::exit::{Exit, Wrong};
use crate::folder::Folder;
use crate::http::replay::{Told, begun, tell};
use crate::settings::{Asked, ControlOptions};

/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long shards may take to write their ends, before they are written for them.
const END_WAIT: Duration = Duration::from_secs(5);
const END_STEP: Duration = Duration::from_millis(200);

pub(crate) fn control(options: &ControlOptions) -> Result<Exit> {
    let (asked, source) = options.asked().map_err(Wrong)?;
    let process = Process::start(&options.log)?;
    let prefix = options.prefix.get();
    let answer = match options.broker.kafka_url() {
        Some(url) => {
            let Some(broker) = process.connect(&options.broker, url)? else { return Ok(Exit::Done) };
            by_topic(broker.as_ref(), prefix, asked, source)?
        }
        None => {
            let folder = options.folder.look();
            let asked_there = folder.address().map(|at| process.runtime.block_on(by_http(&at, asked, source)));
            match asked_there {
                Some(Err(error)) if is_gone(&error) => without_process(prefix, &folder, asked, source)?,
                Some(answer) => answer?,
                None => without_process(prefix, &folder, asked, source)?,
            }
        }
    };
    if options.report.json { say_json(&answer) } else { say(&(shown(&answer) + "\n")) }?;
    Ok(Exit::Done)
}

async fn by_http(at: &(String, String), asked: Asked, source: Option<SourceId>) -> Result<Value> {
    let url = &at.0;
    let request = |client: &reqwest::Client| match asked {
        Asked::Status => client.get(format!("{url}/replay")),
        Asked::Change(change) => {
            let (action, value) = match change {
                Change::Pause => ("pause", None),
                Change::Resume => ("resume", None),
                Change::Speed(speed) => ("speed", Some(format!("{speed}x"))),
                Change::Rate(rate) => ("rate", Some(format!("{rate}/s"))),
                Change::End => ("end", None),
            };
            let body = json!({ "value": value, "source": source.map(|source| source.to_string()) });
            client.post(format!("{url}/replay/{action}")).json(&body)
        }
    };
    ask(at, Some(PATIENCE), request).await
}

/// Only an end can be written with nobody running.
fn without_process(prefix: &str, folder: &Folder, asked: Asked, source: Option<SourceId>) -> Result<Value> {
    let nobody = format!("no process runs on {}", folder.path().display());
    let Asked::Change(Change::End) = asked else {
        bail!("{nobody}: there is nothing to steer; --data-dir names another folder, --broker a cluster")
    };
    let Some(source) = source else {
        bail!("{nobody}: say which source is to end, as in control end 174f0a20 (a summary names those that have not)")
    };
    if !folder.broker_db().exists() {
        bail!("{nobody}, and it holds no broker.db: --data-dir names another folder, --broker a cluster");
    }
    let broker: Arc<dyn Broker> = Embedded::open(folder.broker_db(), Options::default())?;
    Ok(serde_json::to_value(tell(broker.as_ref(), prefix, None, source, Change::End)?)?)
}

/// On a cluster, where every shard reads the topic.
fn by_topic(broker: &dyn Broker, prefix: &str, asked: Asked, named: Option<SourceId>) -> Result<Value> {
    let standings = producer::standings(broker, prefix)?;
    let standing = choose(&standings, named)?;
    match asked {
        Asked::Status => Ok(status(standing)),
        Asked::Change(Change::End) => {
            producer::steer(broker, prefix, standing.source, Change::End)?;
            Ok(serde_json::to_value(end(broker, prefix, standing.source)?)?)
        }
        Asked::Change(change) => {
            let control = producer::steer(broker, prefix, standing.source, change)?;
            Ok(serde_json::to_value(Told::of(standing.source, control))?)
        }
    }
}

/// The one that is named, or the only one that goes on.
fn choose(standings: &[Standing], named: Option<SourceId>) -> Result<&Standing> {
    let open: Vec<_> = standings.iter().filter(|standing| !standing.has_ended()).collect();
    match (named, &open[..]) {
        (Some(named), _) => begun(standings, named).map_err(|why| anyhow!(why)),
        (None, [only]) => Ok(only),
        (None, []) if standings.is_empty() => bail!("no source was begun here: there is nothing to steer"),
        (None, []) => bail!("every source here has ended; --source takes one of {}", names(standings.iter())),
        (None, _) => bail!("several sources are unfinished: --source takes one of {}", names(open.iter().copied())),
    }
}

fn names<'a>(standings: impl Iterator<Item = &'a Standing>) -> String {
    standings.map(|standing| standing.source.to_string()).collect::<Vec<_>>().join(", ")
}

/// Shards that run write their ends themselves; those that do not come back are ended.
fn end(broker: &dyn Broker, prefix: &str, source: SourceId) -> Result<Told> {
    let cancel = Cancel::new();
    let mut waited = Duration::ZERO;
    let mut ended = Ended::default();
    loop {
        let standings = producer::standings(broker, prefix)?;
        let standing = choose(&standings, Some(source))?;
        if standing.has_ended() || waited >= END_WAIT {
            // What an open transaction hides from a look is among its feeds, too.
            for source in standing.feeds.iter().map(|feed| feed.feed.source).collect::<BTreeSet<_>>() {
                ended.now.extend(producer::end(broker, prefix, source)?.now);
            }
            return Ok(Told::ended(source, &ended));
        }
        cancel.wait(END_STEP);
        waited += END_STEP;
    }
}

fn status(standing: &Standing) -> Value {
    let control = standing.control.unwrap_or_default();
    let mut answer = json!(Told::of(standing.source, control));
    if standing.control.is_none() {
        answer["effective_at"] = Value::Null;
    }
    let clock = standing.feeds.iter().filter_map(|feed| feed.clock).max();
    answer["phase"] = if standing.has_ended() { "ended" } else { "unfinished" }.into();
    answer["clock"] = clock.map(|clock| clock.to_string()).into();
    answer["events"] = standing.feeds.iter().map(|feed| feed.events).sum::<u64>().into();
    let feed = |feed: &producer::FeedStanding| {
        json!({ "feed": feed.feed.to_string(), "events": feed.events, "ended": feed.ended,
                "clock": feed.clock.map(|clock| clock.to_string()) })
    };
    answer["feeds"] = standing.feeds.iter().map(feed).collect();
    answer
}

/// One line for people.
fn shown(answer: &Value) -> String {
    let mut said = vec![format!("source {}", answer["source"].as_str().unwrap_or("not known yet"))];
    said.extend(answer["phase"].as_str().map(str::to_owned));
    if answer["paused"].as_bool() == Some(true) {
        said.push("paused".to_owned());
    }
    for (name, unit) in [("speed", "x"), ("rate", "/s")] {
        said.extend(answer[name].as_f64().map(|number| format!("{name} {number}{unit}")));
    }
    said.extend(answer["clock"].as_str().map(|clock| format!("clock {clock}")));
    said.extend(answer["events"].as_u64().map(|events| format!("{} events", crate::summary::thousands(events))));
    if answer["end"].as_bool() == Some(true) {
        let feeds = answer["ended"].as_array().map(|feeds| feeds.iter().filter_map(Value::as_str).collect::<Vec<_>>());
        said.push(match feeds {
            Some(feeds) => format!("the end of {} is written", feeds.join(", ")),
            None if answer["effective_at"].is_null() => "it has ended".to_owned(),
            None => "ends".to_owned(),
        });
    }
    said.extend(answer["effective_at"].as_str().map(|at| format!("from {at} on")));
    said.join("  ")
}
