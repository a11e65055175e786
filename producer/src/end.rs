//! The end of a source that will not come back: written by somebody else than its producer.
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use broker::{Broker, Cancel, Topic};
use prometheus::Registry;
use records::{Feed, SourceId, topics};

use crate::commit::{Around, Claim, Committer};
use crate::control::{Change, Control, steer};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::progress::{self, Recorded};
use crate::publish::Publisher;
use crate::settings::{Pace, Settings};
use crate::status::Status;
use crate::topic::End;

/// How often it is looked whether shards have written their own ends.
const STEP: Duration = Duration::from_millis(200);
/// How often a feed may be taken back before its end is given up.
const TAKEN_BACK: u32 = 3;

/// What is to end, as people name it: a source with all its passes and shards, or one of its feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    Source(SourceId),
    Feed(Feed),
}

/// Who may be playing what is to end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Playing {
    /// What this process plays, by its first pass and its shard: it hears of the end, and writes its own.
    pub here: Option<(SourceId, u32)>,
    /// How long those that play elsewhere have to write theirs.
    pub elsewhere: Duration,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ended {
    /// What those who play it were told; None where nothing of it was open, and where it was one feed.
    pub told: Option<Control>,
    /// Feeds whose end was written here.
    pub now: Vec<Feed>,
    /// They had ended before, or by themselves.
    pub before: Vec<Feed>,
}

impl Named {
    pub fn source(self) -> SourceId {
        match self {
            Self::Source(source) => source,
            Self::Feed(feed) => feed.source,
        }
    }
}

impl FromStr for Named {
    type Err = <Feed as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('/') { text.parse().map(Self::Feed) } else { text.parse().map(Self::Source) }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(source) => source.fmt(f),
            Self::Feed(feed) => feed.fmt(f),
        }
    }
}

/// Ends what is named, after its last committed row, for good: a source for all who play it now or will,
/// in every pass and shard; a feed alone, and the rest of its source goes on. A producer that still plays
/// a feed whose end is written here is fenced. What nothing is known of is refused.
pub fn end(broker: &dyn Broker, prefix: &str, named: Named, playing: Playing) -> Result<Ended> {
    let cancel = Cancel::new();
    let mut settings = Settings::new(Vec::new(), Pace::FlatOut);
    prefix.clone_into(&mut settings.prefix);
    let read = |end| progress::read(broker, &progress_topic(prefix), end, &cancel);
    let mut recorded = read(End::Readable)?;
    // Of a source that is not split its only feed is all of it.
    let named = match named {
        Named::Feed(feed) if feed.shard == 0 && recorded.sources.get(&feed.source).is_some_and(|s| s.shards == 1) => {
            Named::Source(feed.source)
        }
        named => named,
    };
    let source = recorded.first_pass(named.source());
    if let (Named::Feed(feed), Some(here)) = (named, playing.here)
        && here == (source, feed.shard)
    {
        return Err(Error::Refused(format!(
            "this process plays {feed}: control end {source} ends it, and all other shards of its source"
        )));
    }
    let is_ours = |feed: &Feed| playing.here == Some((source, feed.shard));
    let feeds = |recorded: &Recorded| -> BTreeSet<Feed> {
        let is_meant = |feed: &Feed| match named {
            Named::Source(_) => recorded.first_pass(feed.source) == source,
            Named::Feed(named) => *feed == named,
        };
        recorded.progress.keys().copied().filter(is_meant).collect()
    };
    let is_open = |recorded: &Recorded, feed: &Feed| !recorded.progress.get(feed).is_some_and(|p| p.ended);
    let mut ended = Ended::default();
    let tell = |ended: &mut Ended| -> Result<()> {
        if ended.told.is_none() && matches!(named, Named::Source(_)) {
            ended.told = Some(steer(broker, prefix, source, Change::End)?);
        }
        Ok(())
    };
    // What has just begun to play here may not be recorded yet.
    if playing.here.is_some_and(|(here, _)| here == source) || feeds(&recorded).iter().any(|f| is_open(&recorded, f)) {
        tell(&mut ended)?;
        let mut waited = Duration::ZERO;
        let is_awaited = |recorded: &Recorded| feeds(recorded).iter().any(|f| is_open(recorded, f) && !is_ours(f));
        while ended.told.is_some() && waited < playing.elsewhere && is_awaited(&recorded) {
            cancel.wait(STEP);
            waited += STEP;
            recorded = read(End::Readable)?;
        }
    }
    // What a producer that was killed has left open ends with its feed; then the rest is to be seen.
    let mut done = BTreeSet::new();
    for end in [End::Readable, End::Appended] {
        let recorded = read(end)?;
        for feed in feeds(&recorded).into_iter().filter(|feed| !is_ours(feed) && done.insert(*feed)) {
            let mut written = false;
            if is_open(&recorded, &feed) {
                tell(&mut ended)?;
                written = end_feed_patiently(broker, &settings, feed, &cancel)?;
            }
            if written { &mut ended.now } else { &mut ended.before }.push(feed);
        }
        if done.is_empty() && ended.told.is_none() && end == End::Appended {
            return Err(Error::Refused(unknown(named, &recorded)));
        }
    }
    Ok(ended)
}

fn progress_topic(prefix: &str) -> Topic {
    Topic::from(format!("{prefix}{}", topics::REPLAY_PROGRESS).as_str())
}

fn unknown(named: Named, recorded: &Recorded) -> String {
    let open: BTreeSet<_> = recorded.unfinished(|_| true).iter().map(|feed| feed.source.to_string()).collect();
    let open: Vec<_> = open.into_iter().collect();
    let known =
        if open.is_empty() { "none is unfinished".to_owned() } else { format!("unfinished: {}", open.join(", ")) };
    let kind = if matches!(named, Named::Source(_)) { "source" } else { "feed" };
    format!("no {kind} {named} was begun here; {known}")
}

/// A producer that plays it may take it back, and then writes its end itself or is fenced in its turn.
fn end_feed_patiently(broker: &dyn Broker, settings: &Settings, feed: Feed, cancel: &Cancel) -> Result<bool> {
    let mut taken_back = 0;
    loop {
        match end_feed(broker, settings, feed, cancel) {
            Err(Error::Superseded(_)) if taken_back < TAKEN_BACK => taken_back += 1,
            done => return done,
        }
    }
}

/// False if it had ended before.
fn end_feed(broker: &dyn Broker, settings: &Settings, feed: Feed, cancel: &Cancel) -> Result<bool> {
    let mut recorded = Recorded::default();
    let claim = Claim::feed(broker, settings, feed, &mut recorded, cancel)?;
    let progress = recorded.progress.get(&feed).copied().unwrap_or_default();
    if progress.ended {
        return Ok(false);
    }
    let metrics = Metrics::register(&Registry::new()).map_err(|e| Error::Setting(e.to_string()))?;
    let status = Status::new();
    let around = Around { broker, metrics: &metrics, status: &status, cancel, feed, flat_out: false };
    std::thread::scope(|scope| {
        let committer = Committer::spawn(scope, claim, around, progress)?;
        let mut publisher = Publisher::new(committer, &around, settings, None, progress);
        publisher.end(None)?;
        publisher.finish().map(|()| true)
    })
}
