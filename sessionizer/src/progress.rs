//! What producers have written down of their feeds: the topic replay-progress, read where a position
//! alone does not say whether a partition may be gone on with.
use std::collections::HashMap;
use std::time::Duration;

use broker::{Broker, Error, PollLimits, Polled, Result, Topic, TopicPartition};
use records::{CONTENT_TYPE, Decoder, Feed, proto};

const POLL: PollLimits = PollLimits { records: 10_000, bytes: 8 << 20, timeout: Duration::from_millis(100) };
/// How many polls in a row may return nothing before the topic counts as unreadable.
const MAX_IDLE_POLLS: u32 = 300;

/// Of one feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Played {
    /// Over how many partitions its events were spread; 0 if it is not known.
    pub(crate) partitions: u32,
    pub(crate) ended: bool,
}

/// Of every feed that can be read now.
pub(crate) fn read(broker: &dyn Broker, topic: &Topic) -> Result<HashMap<Feed, Played>> {
    let mut feeds = HashMap::new();
    let Some(bounds) = broker.describe(topic)?.and_then(|info| info.partitions.first().copied()) else {
        return Ok(feeds);
    };
    let (mut position, mut idle, mut decoder) = (bounds.start, 0, Decoder::new());
    if position >= bounds.end {
        return Ok(feeds);
    }
    let mut reader = broker.assign(None, &[(TopicPartition::new(topic, 0), position)])?;
    while position < bounds.end {
        let Polled::Batch(batch) = reader.poll(&POLL)? else {
            idle += 1;
            if idle > MAX_IDLE_POLLS {
                return Err(Error::Retry(format!("{topic}-0 could not be read past offset {position}: nothing came")));
            }
            continue;
        };
        idle = 0;
        position = batch.next_offset().unwrap_or(position);
        for record in batch.iter() {
            // The others describe sources.
            let Some(feed) = std::str::from_utf8(record.key).ok().and_then(|key| key.parse::<Feed>().ok()) else {
                continue;
            };
            let content_type = record.headers.get(CONTENT_TYPE);
            let view = decoder
                .view::<proto::ReplayProgressView<'_>>("ReplayProgress", content_type, record.value)
                .map_err(|e| Error::Stop(format!("{topic}-0 offset {}: {e}", record.offset)))?;
            feeds.insert(feed, Played { partitions: view.partitions, ended: view.ended });
        }
    }
    Ok(feeds)
}
