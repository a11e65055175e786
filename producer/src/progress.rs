//! How far a feed has come: what its transactions write to replay-progress, and reading that topic.
use std::collections::HashMap;
use std::time::Duration;

use broker::{Broker, Cancel, PollLimits, Polled, Topic, TopicPartition};
use records::{CONTENT_TYPE, Decoder, EventTime, Feed, proto};

use crate::error::{Error, Result};
use crate::input::Place;
use crate::source::Source;

const POLL: PollLimits = PollLimits { records: 10_000, bytes: 8 << 20, timeout: Duration::from_millis(100) };
/// How many polls in a row may return nothing before the topic counts as unreadable.
const MAX_IDLE_POLLS: u32 = 300;

/// Of one feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The next row: its number, its file, its row there, its first byte in the decompressed text.
    pub(crate) next: Place,
    pub(crate) events: u64,
    pub(crate) dead_letters: u64,
    /// None before the first event.
    pub(crate) first: Option<EventTime>,
    /// The greatest event time sent.
    pub(crate) clock: EventTime,
    /// The schedule's time of the last row.
    pub(crate) schedule_us: i64,
    pub(crate) ended: bool,
}

/// What the topic holds.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) progress: HashMap<Feed, Progress>,
    pub(crate) sources: Vec<Source>,
}

impl Progress {
    pub(crate) fn to_proto(self, feed: Feed) -> proto::ReplayProgress {
        proto::ReplayProgress {
            source: feed.source.to_string(),
            shard: feed.shard,
            next_row: self.next.source_row,
            file: u32::try_from(self.next.file).unwrap_or(u32::MAX),
            file_row: self.next.file_row,
            file_byte: self.next.next_byte,
            events: self.events,
            dead_letters: self.dead_letters,
            clock_us: self.clock.0,
            schedule_us: self.schedule_us,
            ended: self.ended,
            first_us: self.first.map(|first| first.0),
        }
    }

    fn from_view(view: &proto::ReplayProgressView<'_>) -> Self {
        Self {
            next: Place {
                source_row: view.next_row,
                file: usize::try_from(view.file).unwrap_or(usize::MAX),
                file_row: view.file_row,
                next_byte: view.file_byte,
            },
            events: view.events,
            dead_letters: view.dead_letters,
            first: view.first_us.map(EventTime),
            clock: EventTime(view.clock_us),
            schedule_us: view.schedule_us,
            ended: view.ended,
        }
    }
}

/// Reads replay-progress to its end as it is now.
pub(crate) fn read(broker: &dyn Broker, topic: &Topic, cancel: &Cancel) -> Result<Recorded> {
    let stop = |why: String| Error::Broker(broker::Error::Stop(why));
    let Some(info) = broker.describe(topic)? else {
        return Err(stop(format!("there is no topic {topic}; make the topics first")));
    };
    let Some(bounds) = info.partitions.first() else { return Err(stop(format!("{topic} has no partition"))) };
    let mut recorded = Recorded::default();
    if bounds.start >= bounds.end {
        return Ok(recorded);
    }
    let mut reader = broker.assign(None, &[(TopicPartition::new(topic, 0), bounds.start)])?;
    let mut decoder = Decoder::new();
    let mut idle = 0;
    let mut position = bounds.start;
    while position < bounds.end {
        match reader.poll(&POLL)? {
            Polled::Batch(batch) => {
                idle = 0;
                position = batch.next_offset().unwrap_or(position);
                for record in batch.iter() {
                    let wrong =
                        |why: &dyn std::fmt::Display| stop(format!("{topic}-0 offset {}: {why}", record.offset));
                    let key = std::str::from_utf8(record.key).map_err(|e| wrong(&e))?;
                    let content_type = record.headers.get(CONTENT_TYPE);
                    if let Ok(feed) = key.parse::<Feed>() {
                        let view = decoder
                            .view::<proto::ReplayProgressView<'_>>("ReplayProgress", content_type, record.value)
                            .map_err(|e| wrong(&e))?;
                        recorded.progress.insert(feed, Progress::from_view(&view));
                    } else {
                        let view = decoder
                            .view::<proto::SourceDescriptionView<'_>>("SourceDescription", content_type, record.value)
                            .map_err(|e| wrong(&e))?;
                        let source = Source::from_view(&view).ok_or_else(|| wrong(&"it names no source"))?;
                        recorded.sources.retain(|earlier| earlier.id != source.id);
                        recorded.sources.push(source);
                    }
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
    Ok(recorded)
}
