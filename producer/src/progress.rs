//! How far a feed has come: what its transactions write to replay-progress, and reading that topic.
use std::collections::{BTreeMap, BTreeSet, HashMap};

use broker::{Broker, Cancel, Offset, Topic};
use records::topics::UNFINISHED_FEEDS_MAX;
use records::{CONTENT_TYPE, Decoder, EventTime, Feed, SourceId, proto};

use crate::error::Result;
use crate::input::{Mark, Place};
use crate::schedule::Point;
use crate::source::Source;
use crate::topic::{self, End};

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
    /// Where the schedule stands with the last row.
    pub(crate) schedule: Point,
    pub(crate) ended: bool,
    /// How many rows of the source, all shards together, come before `next`.
    pub(crate) taken: u64,
    /// Of what begins at `next`, a row with its copies or a stretch that is shuffled, so many were sent.
    pub(crate) sent_of_next: u64,
    /// How many partitions it was begun with; 0 if that is not known.
    pub(crate) partitions: u32,
}

/// What the topic holds.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) progress: HashMap<Feed, Progress>,
    pub(crate) sources: BTreeMap<SourceId, Source>,
    /// The end of what was read.
    read_to: Offset,
}

impl Recorded {
    /// By how much the source's times are moved; None if it has not been described.
    pub(crate) fn shift_us(&self, source: SourceId) -> Option<i64> {
        self.sources.get(&source).map(|described| described.shift_us)
    }

    /// What control calls the source: its first pass.
    pub(crate) fn first_pass(&self, source: SourceId) -> SourceId {
        self.sources.get(&source).map_or(source, |described| described.at_pass(0).id)
    }

    /// How often the input was played anew, by any of its shards; None if it was never begun.
    pub(crate) fn restarts(&self, source: &Source) -> Option<u32> {
        self.sources.values().filter(|begun| source.is_of_same_input(begun)).map(|begun| begun.restart).max()
    }

    /// The source as this shard shall play it: as it was begun last, or `anew`, as one more. A restart
    /// that another shard has begun, and this one has not, is the one that was meant.
    pub(crate) fn as_played(&self, source: &Source, shard: u32, anew: bool) -> Source {
        let Some(restarts) = self.restarts(source) else { return source.clone() };
        let last = source.at_restart(restarts);
        if anew && self.progress.contains_key(&last.feed(shard)) {
            return source.at_restart(restarts.saturating_add(1));
        }
        last
    }

    /// Feeds that were begun and have not ended, in order.
    pub(crate) fn unfinished(&self, of: impl Fn(&Feed) -> bool) -> Vec<Feed> {
        let open = self.progress.iter().filter(|(feed, progress)| !progress.ended && of(feed));
        let mut feeds: Vec<Feed> = open.map(|(feed, _)| *feed).collect();
        feeds.sort_unstable();
        feeds
    }

    /// Why `feed` may not be played, into so many partitions, beside those that were begun and have not ended.
    /// `flags` take another command to the same broker.
    pub(crate) fn refusal(&self, feed: Feed, partitions: u32, flags: &str) -> Option<String> {
        let end = |source: &str| format!("clickstream control end {source} {flags}").trim_end().to_owned();
        let begun_with = |feed: &Feed| self.progress.get(feed).map_or(0, |progress| progress.partitions);
        let moved = self.unfinished(|feed| ![0, partitions].contains(&begun_with(feed)));
        if let Some(first) = moved.first() {
            return Some(format!(
                "the topic of events had {} partitions and now has {partitions}: keys have moved between them while \
                 feeds are unfinished ({}), and their sessions would be cut in two. End them: {}; or take \
                 another --topic-prefix",
                begun_with(first),
                listed(&moved),
                end(&first.source.to_string())
            ));
        }
        let others = self.unfinished(|other| *other != feed);
        if others.len() < UNFINISHED_FEEDS_MAX {
            return None;
        }
        let sources: BTreeSet<String> = others.iter().map(|feed| feed.source.to_string()).collect();
        Some(format!(
            "{} feeds were begun and have not ended; with this one there may be {UNFINISHED_FEEDS_MAX}, as many as the \
             sessionizer can remember. End those that will not come back: {}. They are of the sources {}",
            others.len(),
            end("SOURCE"),
            sources.into_iter().collect::<Vec<_>>().join(", ")
        ))
    }
}

fn listed(feeds: &[Feed]) -> String {
    feeds.iter().map(Feed::to_string).collect::<Vec<_>>().join(", ")
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
            schedule_us: self.schedule.us,
            schedule_clock_us: Some(self.schedule.clock.0),
            ended: self.ended,
            first_us: self.first.map(|first| first.0),
            taken: self.taken,
            sent_of_next: self.sent_of_next,
            checked_byte: self.next.mark.map(|mark| mark.byte),
            checked_hash: self.next.mark.map_or(0, |mark| mark.hash),
            partitions: self.partitions,
        }
    }

    fn from_view(view: &proto::ReplayProgressView<'_>) -> Self {
        Self {
            next: Place {
                source_row: view.next_row,
                file: usize::try_from(view.file).unwrap_or(usize::MAX),
                file_row: view.file_row,
                next_byte: view.file_byte,
                mark: view.checked_byte.map(|byte| Mark { byte, hash: view.checked_hash }),
            },
            events: view.events,
            dead_letters: view.dead_letters,
            first: view.first_us.map(EventTime),
            clock: EventTime(view.clock_us),
            // Earlier versions had one clock for both.
            schedule: Point { us: view.schedule_us, clock: EventTime(view.schedule_clock_us.unwrap_or(view.clock_us)) },
            ended: view.ended,
            taken: view.taken,
            sent_of_next: view.sent_of_next,
            partitions: view.partitions,
        }
    }
}

/// Reads replay-progress from its beginning.
pub(crate) fn read(broker: &dyn Broker, topic: &Topic, end: End, cancel: &Cancel) -> Result<Recorded> {
    let mut recorded = Recorded::default();
    recorded.read_on(broker, topic, end, cancel)?;
    Ok(recorded)
}

impl Recorded {
    /// The same, with what was read before: a pass of a loop need not read those before it once more.
    pub(crate) fn read_on(&mut self, broker: &dyn Broker, topic: &Topic, end: End, cancel: &Cancel) -> Result<()> {
        let mut decoder = Decoder::new();
        let Self { progress, sources, read_to } = self;
        *read_to = topic::read(broker, topic, *read_to, end, cancel, |record| {
            let key = std::str::from_utf8(record.key).unwrap_or_default();
            let content_type = record.headers.get(CONTENT_TYPE);
            if let Ok(feed) = key.parse::<Feed>() {
                let view = decoder
                    .view::<proto::ReplayProgressView<'_>>("ReplayProgress", content_type, record.value)
                    .map_err(|e| e.to_string())?;
                progress.insert(feed, Progress::from_view(&view));
            } else if key.parse::<SourceId>().is_err() {
                // It says nothing of any feed.
                tracing::warn!(%topic, offset = record.offset.0, "a record that no producer of ours has written: left out");
            } else {
                let view = decoder
                    .view::<proto::SourceDescriptionView<'_>>("SourceDescription", content_type, record.value)
                    .map_err(|e| e.to_string())?;
                let source = Source::from_view(&view).ok_or("it names no source")?;
                sources.insert(source.id, source);
            }
            Ok(())
        })?;
        Ok(())
    }
}
