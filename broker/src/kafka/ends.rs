//! Where partitions begin, and where their last readable record is.
//!
//! A log ends in what cannot be read: commit markers, records of aborted transactions. Brokers know
//! the offset up to which all is decided (the last stable offset) but not the last record below it,
//! so it is looked for: a few offsets are read back from there, and further back when nothing
//! readable is among them. What was found is kept, so that the same stretch is never read twice.
//!
//! A commit returns when it is decided, and becomes readable a little later. Whoever has committed
//! and then asks for the end means an end behind that: what this process wrote is waited for.
use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset as Position, TopicPartitionList};

use super::context::ReaderContext;
use super::errors::{is_of_groups, is_passing, of_call, of_code, of_kafka};
use super::ffi::{self, Bound};
use super::{ANSWER_WAIT, hear, number, pause};
use crate::{Cancel, Error, Incarnation, LogBounds, Offset, Result, Topic};

/// A transaction of one record ends in that record and its marker.
const FIRST_LOOK: i64 = 2;
const FURTHER: i64 = 32;
const STEP: Duration = Duration::from_millis(50);
const ASK_AGAIN: Duration = Duration::from_millis(20);
const ASKED_AGAIN: u32 = 100;
const SETTLE_STEP: Duration = Duration::from_millis(5);
const SETTLE_STEP_MAX: Duration = Duration::from_millis(100);
/// A transaction that is open for longer than any of ours is meant to be: who waits for it says so.
const SETTLE_SAID_AFTER: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Ends {
    known: HashMap<(Incarnation, u32), Known>,
}

#[derive(Clone, Copy)]
struct Known {
    /// The last stable offset of then.
    stable: i64,
    /// After the last readable record below it; none if there was none.
    end: Option<i64>,
}

/// A partition whose end is looked for.
struct Search {
    partition: u32,
    start: i64,
    stable: i64,
    /// What is below is known: there the end would be this.
    floor: i64,
    below: Option<i64>,
    from: i64,
    found: Option<i64>,
    read: bool,
}

impl Ends {
    /// `own`: partitions in which all that was appended by now has to be decided first.
    pub(super) fn find(
        &mut self,
        client: &BaseConsumer<ReaderContext>,
        topic: &Topic,
        incarnation: &Incarnation,
        partitions: &[u32],
        own: &[u32],
        patience: Duration,
    ) -> Result<Vec<LogBounds>> {
        if !own.is_empty() {
            settle(client, topic, own, patience, &Cancel::new())?;
        }
        let [starts, stables] = ask(client, topic, partitions, [Bound::Start, Bound::Stable])?;
        let mut searches = Vec::with_capacity(partitions.len());
        for ((&partition, start), stable) in partitions.iter().zip(starts).zip(stables) {
            let known = self.known.get(&(incarnation.clone(), partition)).filter(|known| known.stable <= stable);
            let below = known.and_then(|known| known.end);
            let floor = known.map_or(start, |known| known.stable.max(start)).min(stable);
            let from = (stable - FIRST_LOOK).max(floor);
            let read = floor == stable;
            searches.push(Search { partition, start, stable, floor, below, from, found: None, read });
        }
        while searches.iter().any(|search| !search.read) {
            let looked = look(client, topic, &mut searches);
            if let Err(error) = client.unassign() {
                tracing::debug!(%error, "letting go of a partition");
            }
            looked?;
            for search in &mut searches {
                if search.found.is_none() && search.from > search.floor {
                    let back = (search.stable - search.from).saturating_mul(FURTHER);
                    search.from = search.stable.saturating_sub(back).max(search.floor);
                    search.read = false;
                }
            }
        }
        Ok(searches.into_iter().map(|search| self.keep(incarnation, &search)).collect())
    }

    fn keep(&mut self, incarnation: &Incarnation, search: &Search) -> LogBounds {
        let end = search.found.or(search.below).filter(|end| *end > search.start);
        self.known.insert((incarnation.clone(), search.partition), Known { stable: search.stable, end });
        LogBounds { start: Offset(search.start), end: Offset(end.unwrap_or(search.start)) }
    }
}

/// Where each partition begins.
pub(super) fn starts(client: &BaseConsumer<ReaderContext>, topic: &Topic, partitions: &[u32]) -> Result<Vec<i64>> {
    let [starts] = ask(client, topic, partitions, [Bound::Start])?;
    Ok(starts)
}

/// Bounds of each partition. A topic that was just made, or whose leader has just changed, is asked
/// about again.
fn ask<const N: usize>(
    client: &BaseConsumer<ReaderContext>,
    topic: &Topic,
    partitions: &[u32],
    bounds: [Bound; N],
) -> Result<[Vec<i64>; N]> {
    let numbers: Vec<i32> = partitions.iter().map(|partition| number(*partition)).collect();
    let doing = || format!("asking where topic {topic} begins and ends");
    let mut asked = 0;
    loop {
        asked += 1;
        let failed = |code| client.context().failed(code);
        let code = match ffi::bounds(client.client(), topic.as_str(), &numbers, bounds, ANSWER_WAIT) {
            Ok(found) => match found.iter().flatten().find_map(|found| found.err()) {
                None => return Ok(found.map(|found| found.into_iter().flatten().collect())),
                Some(code) => code,
            },
            Err(error) if !is_moving(error.code) => {
                failed(error.code);
                return Err(of_call(doing(), &error));
            }
            Err(error) => error.code,
        };
        if !is_moving(code) || asked > ASKED_AGAIN {
            failed(code);
            return Err(of_code(doing(), code, ""));
        }
        pause(ASK_AGAIN);
    }
}

fn is_moving(code: Code) -> bool {
    matches!(
        code,
        Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::ReplicaNotAvailable
            | Code::UnknownPartition
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
    )
}

/// Waits until all that was appended by now is decided.
pub(super) fn settle(
    client: &BaseConsumer<ReaderContext>,
    topic: &Topic,
    partitions: &[u32],
    patience: Duration,
    cancel: &Cancel,
) -> Result<()> {
    let [high] = ask(client, topic, partitions, [Bound::High])?;
    let (mut waited, mut step, mut is_said) = (Duration::ZERO, SETTLE_STEP, false);
    loop {
        let [stable] = ask(client, topic, partitions, [Bound::Stable])?;
        if stable.iter().zip(&high).all(|(stable, high)| stable >= high) {
            return Ok(());
        }
        if waited >= patience {
            return Err(Error::Retry(format!(
                "topic {topic}: a transaction of another writer stays open, and what was committed after it began \
                 cannot be read. A process that was stopped in one lets it go with its --transaction-timeout. If none \
                 is writing, the cluster has lost its end, as Kafka 4.3.0 and 4.3.1 do when a broker is killed or \
                 stalls: kafka-transactions.sh find-hanging shows it, and abort ends it without its records"
            )));
        }
        if waited >= SETTLE_SAID_AFTER && !std::mem::replace(&mut is_said, true) {
            tracing::warn!(%topic, ?patience, "a transaction of another writer is open; waiting for its end");
        }
        if cancel.wait(step) {
            return Err(Error::Cancelled);
        }
        waited += step;
        step = (step * 2).min(SETTLE_STEP_MAX);
    }
}

/// Reads those that are not read yet from where they are to be read from to their end.
fn look(client: &BaseConsumer<ReaderContext>, topic: &Topic, searches: &mut [Search]) -> Result<()> {
    let doing = || format!("looking for the end of topic {topic}");
    let mut list = TopicPartitionList::with_capacity(searches.len());
    for search in searches.iter().filter(|search| !search.read) {
        list.add_partition_offset(topic.as_str(), number(search.partition), Position::Offset(search.from))
            .map_err(|e| of_kafka(doing(), &e))?;
    }
    // Errors of an outage that is over may have gathered.
    hear(client);
    client.assign(&list).map_err(|e| of_kafka(doing(), &e))?;
    let mut waited = Duration::ZERO;
    while searches.iter().any(|search| !search.read) {
        if waited >= ANSWER_WAIT {
            client.context().failed(Code::OperationTimedOut);
            return Err(Error::Retry(format!("{}: it cannot be read now", doing())));
        }
        let open = |searches: &mut [Search], partition: i32, change: &mut dyn FnMut(&mut Search)| {
            let found = searches.iter_mut().find(|search| number(search.partition) == partition && !search.read);
            found.map(change).is_some()
        };
        match client.poll(STEP) {
            None => waited += STEP,
            Some(Ok(record)) if record.topic() == topic.as_str() => {
                let offset = record.offset();
                open(searches, record.partition(), &mut |search| {
                    if (search.from..search.stable).contains(&offset) {
                        search.found = Some(offset + 1);
                    }
                    search.read = offset + 1 >= search.stable;
                });
            }
            // Of an earlier look.
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open(searches, partition, &mut |search| search.read = true);
            }
            Some(Err(error)) => {
                if !error.rdkafka_error_code().is_some_and(|code| is_passing(code) || is_of_groups(code)) {
                    return Err(of_kafka(doing(), &error));
                }
            }
        }
    }
    Ok(())
}
