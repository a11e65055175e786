//! Feeds that have not ended when a replay has: whose they are, and what ends them; and what becomes of
//! a replay that was stopped. For people.
use std::fmt::{self, Display};

use producer::{Named, Standing};
use records::Feed;
use serde::{Serialize, Serializer};

/// Where a replay was, for another command.
pub(crate) struct Reach {
    /// The flags that lead there.
    pub(crate) flags: String,
    /// Other processes may play there at the same time.
    pub(crate) is_shared: bool,
}

/// A feed that was begun and has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Unfinished {
    feed: Feed,
    /// As in "of another source".
    whose: String,
    /// Its input can be given again.
    resumable: bool,
    may_be_playing: bool,
    /// The command that ends it.
    remedy: String,
}

impl Reach {
    fn end(&self, named: Named) -> String {
        format!("clickstream control end {named} {}", self.flags)
    }

    /// All that have not ended beside the replay's own.
    pub(crate) fn unfinished(&self, standings: &[Standing], own: Feed) -> Vec<Unfinished> {
        let mut found = Vec::new();
        for standing in standings {
            for feed in standing.feeds.iter().filter(|feed| !feed.ended && feed.feed != own) {
                let whose = if standing.is(own.source) {
                    let shard = (standing.shards > 1).then(|| format!("shard {}/{}", feed.feed.shard, standing.shards));
                    let pass = (feed.pass > 0).then(|| format!("pass {}", feed.pass));
                    let which: Vec<_> = shard.into_iter().chain(pass).collect();
                    if which.is_empty() {
                        "of this source".to_owned()
                    } else {
                        format!("of this source ({})", which.join(", "))
                    }
                } else {
                    "of another source".to_owned()
                };
                let named = if standing.shards > 1 { Named::Feed(feed.feed) } else { Named::Source(standing.source) };
                found.push(Unfinished {
                    feed: feed.feed,
                    whose,
                    resumable: standing.resumable,
                    may_be_playing: self.is_shared,
                    remedy: self.end(named),
                });
            }
        }
        found
    }

    /// How a replay that a signal has stopped goes on; None: it had not begun.
    pub(crate) fn goes_on(&self, stopped: Option<&producer::Report>) -> String {
        match stopped {
            Some(report) if !report.resumable && report.outcome == producer::Outcome::Drained => format!(
                "The input was a stream and cannot be given again: what was sent stays, and its sessions stay open until \
                 its end is written: {}",
                self.end(Named::Source(report.source))
            ),
            Some(report) if !report.resumable => {
                "The input was a stream, and is at its end; the outputs catch up with the next run.".to_owned()
            }
            _ => "The same command goes on from here.".to_owned(),
        }
    }
}

impl Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feed, whose, remedy, .. } = self;
        write!(f, "The feed {feed} {whose} has not ended: its sessions stay open. ")?;
        let given_again = "give its input again, as it was given, or write its end";
        match (self.may_be_playing, self.resumable) {
            (false, true) => write!(f, "To end it, {given_again}: {remedy}"),
            (false, false) => write!(f, "Its input was a stream and cannot be given again; write its end: {remedy}"),
            (true, true) => write!(f, "Unless another process plays it now, {given_again}: {remedy}"),
            (true, false) => {
                write!(f, "Its input was a stream; unless another process plays it now, write its end: {remedy}")
            }
        }
    }
}

/// By its feed.
impl Serialize for Unfinished {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.feed)
    }
}

#[cfg(test)]
mod tests {
    use producer::FeedStanding;
    use records::SourceId;

    use super::*;

    fn feed(source: u32, shard: u32, pass: u32, ended: bool) -> FeedStanding {
        FeedStanding { feed: Feed { source: SourceId(source), shard }, pass, events: 1, clock: None, ended }
    }

    fn standing(shards: u32, resumable: bool, feeds: Vec<FeedStanding>) -> Standing {
        Standing { source: feeds[0].feed.source, control: None, shards, resumable, feeds }
    }

    #[test]
    fn what_has_not_ended_is_named_with_what_ends_it() {
        let own = Feed { source: SourceId(2), shard: 1 };
        let standings = [
            // Two shards that loop: this one is in its second pass, the other one in its first.
            standing(2, true, vec![feed(1, 0, 0, false), feed(1, 1, 0, true), feed(2, 1, 1, false)]),
            standing(1, true, vec![feed(3, 0, 0, true)]),
            standing(1, true, vec![feed(4, 0, 0, true), feed(5, 0, 1, false)]),
            standing(1, false, vec![feed(6, 0, 0, false)]),
        ];
        let says = |is_shared| {
            let reach = Reach { flags: "--data-dir x".to_owned(), is_shared };
            reach.unfinished(&standings, own).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let begins =
            |feed: &str, whose: &str| format!("The feed {feed} {whose} has not ended: its sessions stay open. ");
        let expected = [
            (begins("00000001/0", "of this source (shard 0/2)"), "00000001/0", true),
            (begins("00000005/0", "of another source"), "00000004", true),
            (begins("00000006/0", "of another source"), "00000006", false),
        ];
        for is_shared in [false, true] {
            let said = says(is_shared);
            assert_eq!(said.len(), expected.len(), "{said:?}");
            for (said, (begins, named, resumable)) in said.iter().zip(&expected) {
                assert!(said.starts_with(begins), "{said}");
                assert!(
                    said.ends_with(&format!("write its end: clickstream control end {named} --data-dir x")),
                    "{said}"
                );
                assert_eq!(said.contains("give its input again"), *resumable, "{said}");
                assert_eq!(said.to_lowercase().contains("unless another process plays it"), is_shared, "{said}");
            }
        }
    }
}
