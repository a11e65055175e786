//! Dead letters of rows that are left out. The records are read again: it is rare, and nothing else
//! then has to keep their bytes.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use broker::{Broker, Commit, Offset, PollLimits, Polled, Records, Topic, TopicPartition};
use records::{CONTENT_TYPE, Decoder, Format, SourceId, clock, encode_view, proto, topics};

use super::error::{Error, Result};
use super::run::{Warehouse, from_broker};

impl Warehouse<'_> {
    /// One transaction of the dead letters and the commits.
    pub(super) fn commit_with_letters(&mut self, dirty: &[usize], commits: &[Commit]) -> Result<()> {
        let now_ms = clock::wall_us() / 1000;
        let patience = if self.cancel.is_cancelled() { self.settings.grace } else { self.settings.retry_for };
        let until = clock::now() + patience;
        let (mut appends, mut refused) = (Vec::new(), Vec::new());
        for partition in dirty.iter().map(|i| &self.partitions[*i]).filter(|partition| !partition.letters.is_empty()) {
            let (key, letters, table) = (&partition.key, &partition.letters, partition.table);
            appends.push(read(self.broker, key, letters, self.settings.format, now_ms, until)?);
            let rows = letters.len() as u64;
            refused.push((table, rows));
            let (offset, why) = letters.first_key_value().unzip();
            tracing::warn!(partition = %key, rows, offset, why, "rows are left out of the warehouse, as dead letters");
        }
        let topic: Topic = format!("{}{}", self.settings.prefix, topics::DEAD_LETTERS).as_str().into();
        let mut backoff = self.backoff();
        loop {
            let membership = self.reader.membership();
            let membership = membership.ok_or_else(|| Error::Stop("dead letters need a group".into()))?;
            let mut transaction = || -> broker::Result<()> {
                let writer = match &mut self.writer {
                    Some(writer) => writer,
                    none => none.insert(self.broker.writer(&format!("{}-{}", self.group, self.settings.instance))?),
                };
                writer.wait_for_room(self.cancel)?;
                writer.begin()?;
                for records in &appends {
                    writer.append(&topic, 0, records)?;
                }
                writer.commit_offsets(&membership, commits)?;
                writer.commit()
            };
            match transaction() {
                Ok(()) => break,
                Err(retry @ broker::Error::Retry(_)) => {
                    // A new one takes its place, and ends what it has open.
                    self.writer = None;
                    self.wait(&mut backoff, "dead letters", retry)?;
                }
                // The place in the group is gone, or it is not known whether the transaction was
                // committed: what is committed tells.
                Err(lost @ (broker::Error::Abort(_) | broker::Error::Fenced(_))) => {
                    self.writer = None;
                    self.join_again()?;
                    return Err(Error::Lost(format!("dead letters: {lost}")));
                }
                Err(e) => return Err(from_broker("dead letters", e)),
            }
        }
        for (table, rows) in refused {
            self.metrics.refused.with_label_values(&self.label(table)).inc_by(rows);
            self.report.tables[table].refused += rows;
        }
        Ok(())
    }
}

const LIMITS: PollLimits = PollLimits { records: 1024, bytes: 1 << 20, timeout: Duration::from_millis(100) };

/// The dead letters of these records of a partition (by offset, and why), as of `now_ms`; tried
/// until then.
fn read(
    broker: &dyn Broker,
    partition: &TopicPartition,
    omitted: &BTreeMap<i64, String>,
    format: Format,
    now_ms: i64,
    until: Instant,
) -> Result<Records> {
    let mut letters = Records::new();
    let mut wanted = omitted.iter().peekable();
    let Some((first, _)) = wanted.peek() else { return Ok(letters) };
    let failed = |e| from_broker("records of dead letters", e);
    let mut reader = broker.assign(None, &[(partition.clone(), Offset(**first))]).map_err(failed)?;
    while let Some((next, _)) = wanted.peek() {
        let why = match reader.poll(&LIMITS) {
            Ok(Polled::Batch(batch)) => {
                for record in batch.iter() {
                    while let Some((offset, why)) = wanted.next_if(|(offset, _)| **offset <= record.offset.0) {
                        if *offset < record.offset.0 {
                            return Err(Error::Stop(format!(
                                "{partition}: offset {offset} is left out ({why}), but it is gone from the log: it cannot \
                                 become a dead letter"
                            )));
                        }
                        letter(&mut letters, partition, record, why, format, now_ms);
                    }
                }
                continue;
            }
            Ok(_) => "nothing came".to_owned(),
            Err(broker::Error::Retry(why)) => why,
            Err(e) => return Err(failed(e)),
        };
        if clock::now() >= until {
            return Err(Error::Unavailable(format!("{partition}: offset {next} could not be read again: {why}")));
        }
    }
    Ok(letters)
}

fn letter(
    to: &mut Records,
    partition: &TopicPartition,
    record: broker::RecordRef<'_>,
    why: &str,
    format: Format,
    now_ms: i64,
) {
    let source = source(partition, record);
    let reason = format!("the warehouse left it out: {why}");
    let letter = proto::DeadLetterView {
        source: &source,
        reason: &reason,
        payload: record.value.get(..topics::DEAD_LETTER_BYTES).unwrap_or(record.value),
        payload_length: record.value.len() as u64,
        topic: partition.topic.as_str(),
        topic_partition: partition.partition,
        topic_offset: record.offset.0,
        ..Default::default()
    };
    let headers = [(CONTENT_TYPE, format.content_type().as_bytes())];
    to.push(now_ms, source.as_bytes(), &headers, |out| encode_view(&letter, format, out));
}

/// The source that the record names, if it can be read.
fn source(partition: &TopicPartition, record: broker::RecordRef<'_>) -> String {
    let content_type = record.headers.get(CONTENT_TYPE);
    let mut decoder = Decoder::new();
    let topic = partition.topic.as_str();
    let source = if topic.ends_with(topics::FUNNEL_STEPS) {
        decoder.view::<proto::FunnelStepView<'_>>("FunnelStep", content_type, record.value).ok().map(|view| view.source)
    } else if topic.ends_with(topics::SESSIONS) {
        decoder.view::<proto::SessionView<'_>>("Session", content_type, record.value).ok().map(|view| view.source)
    } else {
        decoder.view::<proto::EventView<'_>>("Event", content_type, record.value).ok().map(|view| view.source)
    };
    source.and_then(|source| source.parse::<SourceId>().ok()).map(|source| source.to_string()).unwrap_or_default()
}
