//! `clickstream topics create | describe`.
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Result, bail};
use broker::{Broker, TopicSpec};
use serde_json::json;

use super::process::{Process, cluster, say, say_json};
use crate::exit::Exit;
use crate::pipeline::{self, specs};
use crate::settings::TopicsOptions;

pub(crate) fn create(options: &TopicsOptions) -> Result<Exit> {
    let Some(broker) = open(options)? else { return Ok(Exit::Drained) };
    let specs = wanted(broker.as_ref(), options)?;
    let mut lines = Vec::new();
    for spec in &specs {
        let was_there = broker.describe(&spec.topic)?.is_some();
        lines.push((spec.topic.to_string(), if was_there { "was there" } else { "made" }));
    }
    broker.create_topics(&specs)?;
    let faults = broker.faults_of_topics(&specs)?;
    if options.report.json {
        let topics: Vec<_> = lines.iter().map(|(topic, done)| json!({ "topic": topic, "done": done })).collect();
        say_json(&json!({ "topics": topics, "faults": faults }))?;
    } else {
        let text: String = lines.iter().map(|(topic, done)| format!("{topic}  {done}\n")).collect();
        say(&text)?;
    }
    refuse(&faults)
}

pub(crate) fn describe(options: &TopicsOptions) -> Result<Exit> {
    let Some(broker) = open(options)? else { return Ok(Exit::Drained) };
    let specs = wanted(broker.as_ref(), options)?;
    let (mut described, mut text) = (Vec::new(), String::new());
    for spec in &specs {
        let Some(info) = broker.describe(&spec.topic)? else { continue };
        let partitions: Vec<_> =
            info.partitions.iter().map(|b| json!({ "start": b.start.0, "end": b.end.0 })).collect();
        described.push(json!({ "topic": spec.topic.as_str(), "id": &*info.incarnation.0, "partitions": partitions }));
        writeln!(text, "{}  id {}  {} partitions", spec.topic, info.incarnation, info.partitions.len())?;
        for (number, bounds) in info.partitions.iter().enumerate() {
            writeln!(text, "  {number}: offsets {} to {}", bounds.start, bounds.end)?;
        }
    }
    let faults = broker.faults_of_topics(&specs)?;
    if options.report.json {
        say_json(&json!({ "topics": described, "faults": faults }))?;
    } else {
        say(&text)?;
    }
    refuse(&faults)
}

/// As many partitions as were asked for; else as many as there are.
fn wanted(broker: &dyn Broker, options: &TopicsOptions) -> Result<Vec<TopicSpec>> {
    let prefix = options.prefix.get();
    let partitions = match options.partitions.given() {
        Some(asked) => asked,
        None => pipeline::partitions(broker, prefix)?.unwrap_or(options.partitions.get()),
    };
    Ok(specs(prefix, partitions))
}

/// None where a signal came first.
fn open(options: &TopicsOptions) -> Result<Option<Arc<dyn Broker>>> {
    let url = cluster(&options.broker)?;
    Process::start(&options.log)?.connect(&options.broker, url)
}

fn refuse(faults: &[String]) -> Result<Exit> {
    if faults.is_empty() {
        return Ok(Exit::Done);
    }
    bail!("the topics are not as they must be:\n  {}", faults.join("\n  "))
}
