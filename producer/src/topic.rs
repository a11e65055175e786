//! Reading a topic of one partition to its end.
use std::time::Duration;

use broker::{Broker, Cancel, Offset, PollLimits, Polled, RecordRef, Topic, TopicPartition};

use crate::error::{Error, Result};

const POLL: PollLimits = PollLimits { records: 10_000, bytes: 8 << 20, timeout: Duration::from_millis(100) };
/// How many polls in a row may return nothing before the topic counts as unreadable.
const MAX_IDLE_POLLS: u32 = 300;

/// What the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Of what can be read now. A transaction that some producer has open hides what all others have
    /// committed since it began: good for a look, and never to go on from.
    Readable,
    /// Of what was appended by now, committed or aborted by the time it is read.
    Appended,
}

/// Gives `each` every record from `from` on; an error of it names the record. Returns the offset after
/// the last.
pub(crate) fn read(
    broker: &dyn Broker,
    topic: &Topic,
    from: Offset,
    end: End,
    cancel: &Cancel,
    mut each: impl FnMut(RecordRef<'_>) -> Result<(), String>,
) -> Result<Offset> {
    let stop = |why: String| Error::Broker(broker::Error::Stop(why));
    let described = match end {
        End::Readable => broker.describe(topic),
        End::Appended => broker.describe_settled(topic, cancel),
    };
    let Some(info) = described? else {
        return Err(stop(format!("there is no topic {topic}; make the topics first")));
    };
    let Some(bounds) = info.partitions.first() else { return Err(stop(format!("{topic} has no partition"))) };
    let mut position = from.max(bounds.start);
    if position >= bounds.end {
        return Ok(position);
    }
    let mut reader = broker.assign(None, &[(TopicPartition::new(topic, 0), position)])?;
    let mut idle = 0;
    while position < bounds.end {
        match reader.poll(&POLL)? {
            Polled::Batch(batch) => {
                idle = 0;
                position = batch.next_offset().unwrap_or(position);
                for record in batch.iter() {
                    let offset = record.offset;
                    each(record).map_err(|why| stop(format!("{topic}-0 offset {offset}: {why}")))?;
                }
            }
            _ => {
                idle += 1;
                if idle > MAX_IDLE_POLLS {
                    return Err(stop(format!("{topic}-0 could not be read past offset {position}: nothing came")));
                }
            }
        }
        if cancel.is_cancelled() {
            return Err(Error::Broker(broker::Error::Cancelled));
        }
    }
    Ok(position.max(bounds.end))
}
