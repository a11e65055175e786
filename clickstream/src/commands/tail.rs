//! `clickstream tail TOPIC`: records of a topic, on Kafka, of the process that runs on a data
//! folder, or of the folder where none does.
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use broker::embedded::Embedded;
use broker::{Broker, Cancel, Offset, PollLimits, Polled, Reader, RecordRef, Topic, TopicPartition};
use records::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::process::{Process, ask, is_gone, say};
use crate::exit::{Exit, Wrong};
use crate::pipeline;
use crate::settings::{TailFrom, TailOptions};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);
const POLL_RECORDS: usize = 1000;
const POLL_BYTES: usize = 4 << 20;
/// A log that gives nothing for so many polls, and has not been read to its end, is given up.
const IDLE_POLLS: u32 = 100;
/// The most that one answer over HTTP holds.
const ROWS_AT_MOST: usize = 1000;

/// What is asked for; also of the process that has the folder, over HTTP.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Query {
    topic: String,
    from: String,
    partition: Option<u32>,
    limit: Option<usize>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    partition: u32,
    offset: i64,
    timestamp_ms: i64,
    key: String,
    headers: Map<String, Value>,
    /// Null where it cannot be read; then `unreadable` says why.
    value: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

pub(crate) fn tail(options: &TailOptions) -> Result<Exit> {
    if !records::topics::ALL.contains(&options.topic.as_str()) {
        bail!(Wrong(format!(
            "there is no topic {:?}: it is one of {}",
            options.topic,
            records::topics::ALL.join(", ")
        )));
    }
    let process = Process::start(&options.log)?;
    let folder = options.folder.look();
    let query = Query {
        topic: options.topic.clone(),
        from: options.from.to_string(),
        partition: options.partition,
        limit: options.limit,
    };
    let broker: Arc<dyn Broker> = match options.broker.kafka_url() {
        Some(url) => match process.connect(&options.broker, url)? {
            Some(broker) => broker,
            None => return Ok(Exit::Done),
        },
        None => {
            if let Some(at) = folder.address() {
                match process.runtime.block_on(by_http(&at, &query)) {
                    Err(error) if is_gone(&error) => {}
                    _ if options.follow => {
                        bail!(Wrong("--follow works on Kafka, or where no process has the folder".to_owned()))
                    }
                    rows => {
                        rows?.iter().try_for_each(|row| show(row, options.report.json))?;
                        return Ok(Exit::Done);
                    }
                }
            }
            if !folder.broker_db().exists() {
                bail!("{}: there is no broker.db: name the folder with --data-dir", folder.path().display());
            }
            Embedded::open(folder.broker_db(), options.embedded.options())?
        }
    };
    let mut tail = Tail::open(broker.as_ref(), options.prefix.get(), &query)?;
    while !tail.is_done(options.follow) && process.signals.is_empty() {
        for row in tail.next(options.follow)? {
            show(&row, options.report.json)?;
        }
    }
    Ok(Exit::Done)
}

/// The rows, for one who asks over HTTP.
pub(crate) fn rows(broker: &dyn Broker, prefix: &str, query: &Query) -> Result<Vec<Row>> {
    let limit = query.limit.unwrap_or(ROWS_AT_MOST).min(ROWS_AT_MOST);
    let mut tail = Tail::open(broker, prefix, &Query { limit: Some(limit), ..query.clone() })?;
    let mut rows = Vec::new();
    while !tail.is_done(false) {
        rows.extend(tail.next(false)?);
    }
    Ok(rows)
}

async fn by_http(at: &(String, String), query: &Query) -> Result<Vec<Row>> {
    let mut url = reqwest::Url::parse(&at.0)?.join("/api/tail")?;
    for (name, value) in [
        ("topic", Some(query.topic.clone())),
        ("from", Some(query.from.clone())),
        ("partition", query.partition.map(|n| n.to_string())),
        ("limit", query.limit.map(|n| n.to_string())),
    ] {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    Ok(serde_json::from_value(ask(at, None, |client| client.get(url)).await?)?)
}

fn show(row: &Row, json: bool) -> Result<()> {
    if json {
        return say(&(serde_json::to_string(row)? + "\n"));
    }
    let Row { partition, offset, key, value, unreadable, .. } = row;
    match unreadable {
        Some(why) => say(&format!("{partition} {offset} {key} unreadable: {why}\n")),
        None => say(&format!("{partition} {offset} {key} {value}\n")),
    }
}

struct Tail {
    /// Without the prefix.
    topic: String,
    reader: Option<Box<dyn Reader>>,
    /// What is still to be read of each partition: up to the end as it was at the start.
    left: Vec<(TopicPartition, Offset)>,
    limit: usize,
    idle: u32,
}

impl Tail {
    fn open(broker: &dyn Broker, prefix: &str, query: &Query) -> Result<Self> {
        let topic: Topic = pipeline::topic(prefix, &query.topic);
        let from: TailFrom = query.from.parse().map_err(|why: String| Wrong(format!("--from: {why}")))?;
        let info = broker.describe(&topic)?.with_context(|| format!("there is no topic {topic}"))?;
        let count = info.partitions.len();
        if let Some(number) = query.partition.filter(|number| *number as usize >= count) {
            bail!("{topic} has {count} partitions, from 0: there is no {number}");
        }
        let (mut begin, mut left) = (Vec::new(), Vec::new());
        for (number, bounds) in (0..).zip(info.partitions) {
            if query.partition.is_some_and(|wanted| wanted != number) {
                continue;
            }
            let at = match from {
                TailFrom::Start => bounds.start.0,
                TailFrom::End => bounds.end.0,
                TailFrom::At(offset) => offset,
                TailFrom::Last(last) => bounds.end.0.saturating_sub(last),
            };
            let at = Offset(at.clamp(bounds.start.0, bounds.end.0));
            let partition = TopicPartition::new(&topic, number);
            begin.push((partition.clone(), at));
            if at < bounds.end {
                left.push((partition, bounds.end));
            }
        }
        let reader = Some(broker.assign(None, &begin)?);
        Ok(Self { topic: query.topic.clone(), reader, left, limit: query.limit.unwrap_or(usize::MAX), idle: 0 })
    }

    fn is_done(&self, follow: bool) -> bool {
        self.limit == 0 || (!follow && self.left.is_empty())
    }

    fn next(&mut self, follow: bool) -> Result<Vec<Row>> {
        let Some(reader) = &mut self.reader else { return Ok(Vec::new()) };
        let limits = PollLimits { records: POLL_RECORDS, bytes: POLL_BYTES, timeout: POLL };
        let batch = match reader.poll(&limits) {
            Ok(Polled::Batch(batch)) => batch,
            Ok(_) => {
                self.idle += 1;
                if self.idle >= IDLE_POLLS && !follow {
                    let left: Vec<String> = self.left.iter().map(|(name, end)| format!("{name} to {end}")).collect();
                    bail!("nothing more came of {}", left.join(", "));
                }
                return Ok(Vec::new());
            }
            Err(broker::Error::Retry(why)) if self.idle < IDLE_POLLS => {
                self.idle += 1;
                tracing::debug!(why, "reading again");
                Cancel::new().wait(POLL);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        self.idle = 0;
        let name = batch.topic_partition();
        let rows: Vec<Row> = batch.iter().take(self.limit).map(|record| self.row(name.partition, record)).collect();
        self.limit -= rows.len();
        let next = batch.next_offset();
        self.left.retain(|(partition, end)| *partition != name || next.is_some_and(|next| next < *end));
        Ok(rows)
    }

    fn row(&self, partition: u32, record: RecordRef<'_>) -> Row {
        let header = |(name, value): (&str, &[u8])| {
            let shown = match records::read_micros_header(value).filter(|_| name != CONTENT_TYPE) {
                Some(us) => Value::from(us),
                None => Value::from(String::from_utf8_lossy(value).into_owned()),
            };
            (name.to_owned(), shown)
        };
        let read = records::to_json(&self.topic, record.key, record.headers.get(CONTENT_TYPE), record.value);
        let (value, unreadable) = match read {
            Ok(value) => (value, None),
            Err(error) => (Value::Null, Some(error.to_string())),
        };
        Row {
            partition,
            offset: record.offset.0,
            timestamp_ms: record.timestamp_ms,
            key: String::from_utf8_lossy(record.key).into_owned(),
            headers: record.headers.iter().map(header).collect(),
            value,
            unreadable,
        }
    }
}
