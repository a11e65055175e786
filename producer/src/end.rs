//! The end of a source that will not come back: written by somebody else than its producer.
use std::collections::BTreeSet;

use broker::{Broker, Cancel, Topic};
use prometheus::Registry;
use records::{Feed, SourceId, topics};

use crate::commit::{Around, Claim, Committer};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::progress::{self, Recorded};
use crate::publish::Publisher;
use crate::settings::{Pace, Settings};
use crate::status::Status;
use crate::topic::End;

/// What became of the feeds of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    pub now: Vec<Feed>,
    /// They had ended before.
    pub before: Vec<Feed>,
}

/// Ends every feed of the source that has not ended: after its last committed row, for good. A producer
/// that still plays it is fenced. A source that nothing is known of is refused.
pub fn end(broker: &dyn Broker, prefix: &str, source: SourceId) -> Result<Ended> {
    let cancel = Cancel::new();
    let topic = Topic::from(format!("{prefix}{}", topics::REPLAY_PROGRESS).as_str());
    let mut settings = Settings::new(Vec::new(), Pace::FlatOut);
    prefix.clone_into(&mut settings.prefix);
    let (mut ended, mut done) = (Ended::default(), BTreeSet::new());
    // What a producer that was killed has left open ends with its feed; then the rest is to be seen.
    for end in [End::Readable, End::Appended] {
        let recorded = progress::read(broker, &topic, end, &cancel)?;
        let feeds: BTreeSet<Feed> = recorded.progress.keys().copied().filter(|feed| feed.source == source).collect();
        for feed in feeds.into_iter().filter(|feed| done.insert(*feed)) {
            let has_ended = recorded.progress.get(&feed).is_some_and(|progress| progress.ended);
            let written = !has_ended && end_feed(broker, &settings, feed, &cancel)?;
            if written { &mut ended.now } else { &mut ended.before }.push(feed);
        }
        if done.is_empty() && end == End::Appended {
            return Err(Error::Refused(unknown(source, &recorded)));
        }
    }
    Ok(ended)
}

fn unknown(source: SourceId, recorded: &Recorded) -> String {
    let open: BTreeSet<_> = recorded.unfinished(|_| true).iter().map(|feed| feed.source.to_string()).collect();
    let open: Vec<_> = open.into_iter().collect();
    let known =
        if open.is_empty() { "none is unfinished".to_owned() } else { format!("unfinished: {}", open.join(", ")) };
    format!("no source {source} was begun here; {known}")
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
        publisher.end()?;
        publisher.finish().map(|()| true)
    })
}
