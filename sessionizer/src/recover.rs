//! Whether a partition may be gone on with from its committed position, and where to read again
//! from. A position that does not belong to the log or to the settings stops the part: going on
//! would lose records, count them twice, or cut the same sessions differently.
use std::collections::HashMap;

use broker::{Assigned, LogBounds, Offset, TopicPartition};
use records::Feed;

use crate::core::{Partition, Typed};
use crate::progress::Played;
use crate::{Error, Gap, Metadata, Rules};

/// How to begin with a partition.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) state: Partition,
    /// Where to read from.
    pub(crate) read_from: Offset,
    /// The committed offset: from here on, outputs are written.
    pub(crate) live_from: Offset,
    /// Nothing was made with the rules that are recorded, or none are: these are to be recorded.
    pub(crate) is_new: bool,
}

/// Whether the position was committed while the topic had another number of partitions, with feeds unfinished:
/// what became of those is to be looked up.
pub(crate) fn has_moved(assigned: &Assigned, partitions: u32) -> bool {
    let metadata = assigned.committed.as_ref().and_then(|committed| Metadata::decode(&committed.metadata).ok());
    metadata.is_some_and(|metadata| metadata.partitions != partitions && !metadata.feeds.is_empty())
}

/// What else has to be known to take up a partition.
pub(crate) struct Around<'a> {
    pub(crate) rules: Rules,
    /// Of the topic.
    pub(crate) partitions: u32,
    /// Whether all of them are this member's: nobody else goes by what is recorded.
    pub(crate) is_alone: bool,
    /// Of feeds, where `has_moved`.
    pub(crate) played: &'a HashMap<Feed, Played>,
}

/// `outputs` are the bounds of this partition's number in the topics that are written.
pub(crate) fn start(assigned: &Assigned, around: &Around<'_>, outputs: &[LogBounds]) -> Result<Start, Error> {
    let Assigned { partition, bounds, .. } = assigned;
    let Around { rules, partitions, is_alone, played } = *around;
    let refuse = |why: String| Err(Error::Refused(format!("{partition}: {why}")));
    let is_written = outputs.iter().any(|log| log.end > log.start || log.start > Offset(0));
    let anew = Start { state: Partition::new(rules), read_from: bounds.start, live_from: bounds.start, is_new: true };
    let Some(committed) = &assigned.committed else {
        if is_written {
            return refuse(
                "there are steps or sessions of it, but no committed position: the group's offsets are lost, and \
                 reading from the start would count them twice; begin anew with --restart (embedded), or delete the \
                 topics under this prefix or take another --topic-prefix (Kafka)"
                    .to_owned(),
            );
        }
        return Ok(anew);
    };
    let metadata = match Metadata::decode(&committed.metadata) {
        Ok(metadata) => metadata,
        Err(error) => {
            return refuse(format!(
                "offset {} was not committed by a sessionizer ({error}); begin anew with --restart (embedded) or \
                 another --topic-prefix (Kafka)",
                committed.offset
            ));
        }
    };
    if metadata.incarnation != assigned.incarnation {
        return refuse(format!(
            "offset {} belongs to another log ({}; this one is {}): the topic was made anew; begin anew with \
             --restart (embedded), or reset the group and delete the topics of its outputs (Kafka)",
            committed.offset, metadata.incarnation, assigned.incarnation
        ));
    }
    if let Some(why) = differ(metadata.rules, rules) {
        if is_alone && committed.offset == bounds.start && metadata.feeds.is_empty() && !is_written {
            return Ok(anew);
        }
        return refuse(why);
    }
    if metadata.partitions != partitions {
        // All events of a feed are spread over one number of partitions: its producer sees to that, and
        // writes it down.
        let is_whole = |feed: &Feed| {
            played.get(feed).is_some_and(|played| {
                played.partitions == partitions || played.ended && played.partitions == metadata.partitions
            })
        };
        let feeds = metadata.feeds.iter().map(|position| position.feed).filter(|feed| !is_whole(feed));
        let feeds: Vec<String> = feeds.map(|feed| feed.to_string()).collect();
        if !feeds.is_empty() {
            return refuse(format!(
                "the topic had {} partitions and now has {partitions}: keys have moved between them while feeds are \
                 unfinished ({}). End them, and start this again: clickstream control end SOURCE; or take another \
                 --topic-prefix",
                metadata.partitions,
                feeds.join(", ")
            ));
        }
    }
    let read_from = metadata.keep_from(committed.offset);
    if read_from < bounds.start || committed.offset > bounds.end {
        return refuse(format!(
            "its position is offset {}, with open sessions from {read_from} on, but the log holds {} to {}: records are \
             missing; begin anew with --restart (embedded) or another --topic-prefix (Kafka)",
            committed.offset, bounds.start, bounds.end
        ));
    }
    let state = Partition::resume(rules, &metadata.feeds);
    Ok(Start { state, read_from, live_from: committed.offset, is_new: false })
}

/// Refuses what another member of the group has recorded of a partition of its own, if it goes by other rules.
pub(crate) fn agree(partition: &TopicPartition, metadata: &str, rules: Rules) -> Result<(), Error> {
    let recorded = Metadata::decode(metadata).ok();
    let why = recorded.and_then(|recorded| differ(recorded.rules, rules));
    why.map_or(Ok(()), |why| Err(Error::Refused(format!("{partition}, which another of this group reads: {why}"))))
}

/// Why what was made with `recorded` cannot be gone on with.
fn differ(recorded: Rules, rules: Rules) -> Option<String> {
    const REMEDY: &str = "begin anew with --restart (embedded) or under another --topic-prefix (Kafka)";
    if recorded.gap != rules.gap {
        return Some(format!(
            "it was begun with --gap {}, not {}: sessions would be cut in two ways; give --gap {0}, or {REMEDY}",
            recorded.gap, rules.gap
        ));
    }
    (recorded.allowed_lateness != rules.allowed_lateness && rules.gap != Gap::None).then(|| {
        format!(
            "it was begun with --allowed-lateness {}, not {}; give --allowed-lateness {0}, or {REMEDY}",
            Typed(recorded.allowed_lateness),
            Typed(rules.allowed_lateness)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker::{Committed, Incarnation, Topic};
    use records::{EventTime, SourceId};
    use std::time::Duration;

    const EMPTY: LogBounds = LogBounds { start: Offset(0), end: Offset(0) };

    fn metadata() -> Metadata {
        let feed = Feed { source: SourceId(0xab), shard: 0 };
        let feeds = vec![crate::core::FeedPosition { feed, offset: Offset(40), clock: EventTime(0) }];
        Metadata { incarnation: Incarnation("one".into()), rules: Rules::default(), partitions: 4, feeds }
    }

    fn assigned(committed: Option<(i64, String)>) -> Assigned {
        Assigned {
            partition: TopicPartition::new(&Topic::from("clickstream.events"), 2),
            incarnation: Incarnation("one".into()),
            bounds: LogBounds { start: Offset(30), end: Offset(70) },
            committed: committed.map(|(offset, metadata)| Committed { offset: Offset(offset), metadata }),
        }
    }

    fn around(rules: Rules, partitions: u32, played: &HashMap<Feed, Played>) -> Around<'_> {
        Around { rules, partitions, is_alone: false, played }
    }

    #[test]
    fn goes_on_where_it_was() {
        let played = HashMap::new();
        let around = around(Rules::default(), 4, &played);
        let found = start(&assigned(Some((50, metadata().encode().unwrap()))), &around, &[EMPTY]).unwrap();
        assert_eq!((found.read_from, found.live_from, found.is_new), (Offset(40), Offset(50), false));
        let fresh = start(&assigned(None), &around, &[EMPTY, EMPTY]).unwrap();
        assert_eq!((fresh.read_from, fresh.live_from, fresh.is_new), (Offset(30), Offset(30), true));
    }

    /// What a member has recorded that was refused because of another: nothing was made with it.
    #[test]
    fn rules_that_made_nothing_give_way_to_those_of_who_is_alone() {
        let gap = Rules { gap: Gap::None, ..Rules::default() };
        let recorded = |feeds| Metadata { feeds, ..metadata() }.encode().unwrap();
        let written = LogBounds { start: Offset(0), end: Offset(9) };
        let played = HashMap::new();
        for (offset, feeds, is_alone, output, gives_way) in [
            (30, Vec::new(), true, EMPTY, true),
            (30, Vec::new(), false, EMPTY, false),
            (31, Vec::new(), true, EMPTY, false),
            (30, metadata().feeds, true, EMPTY, false),
            (30, Vec::new(), true, written, false),
        ] {
            let assigned = assigned(Some((offset, recorded(feeds))));
            let found = start(&assigned, &Around { is_alone, ..around(gap, 4, &played) }, &[output]);
            assert_eq!(found.is_ok_and(|start| start.is_new), gives_way, "{offset} {is_alone} {output:?}");
        }
        let of_another = agree(&assigned(None).partition, &recorded(Vec::new()), gap).unwrap_err().to_string();
        assert!(of_another.contains("another of this group") && of_another.contains("--gap 30m"), "{of_another}");
        assert!(agree(&assigned(None).partition, &recorded(Vec::new()), Rules::default()).is_ok());
    }

    /// Each says what is wrong and names a remedy.
    #[test]
    fn refuses_what_does_not_belong() {
        let gap = Rules { gap: Gap::None, ..Rules::default() };
        let lateness = Rules { allowed_lateness: Duration::from_secs(90), ..Rules::default() };
        let written = LogBounds { start: Offset(0), end: Offset(9) };
        let deleted = LogBounds { start: Offset(9), end: Offset(9) };
        let other = Metadata { incarnation: Incarnation("two".into()), ..metadata() };
        let old = Metadata {
            feeds: metadata().feeds.iter().map(|f| crate::core::FeedPosition { offset: Offset(29), ..*f }).collect(),
            ..metadata()
        };
        let text = |m: &Metadata| m.encode().unwrap();
        let ours = text(&metadata());
        for (committed, rules, partitions, output, expected) in [
            (None, Rules::default(), 4, written, "no committed position"),
            (None, Rules::default(), 4, deleted, "no committed position"),
            (Some((50, String::new())), Rules::default(), 4, EMPTY, "not committed by a sessionizer"),
            (Some((50, text(&other))), Rules::default(), 4, EMPTY, "belongs to another log (two; this one is one)"),
            (Some((50, ours.clone())), gap, 4, EMPTY, "begun with --gap 30m, not none"),
            (Some((50, ours.clone())), lateness, 4, EMPTY, "begun with --allowed-lateness 0s, not 90s"),
            (Some((50, ours.clone())), Rules::default(), 5, EMPTY, "had 4 partitions and now has 5"),
            (Some((71, ours.clone())), Rules::default(), 4, EMPTY, "the log holds 30 to 70"),
            (Some((50, text(&old))), Rules::default(), 4, EMPTY, "open sessions from 29 on"),
        ] {
            let played = HashMap::new();
            let around = around(rules, partitions, &played);
            let error = start(&assigned(committed), &around, &[EMPTY, output]).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("clickstream.events-2"), "{error:?}: {expected}");
            let remedies = ["--restart", "--topic-prefix", "control end"];
            assert!(remedies.iter().any(|remedy| error.contains(remedy)), "{error}");
        }
    }

    #[test]
    fn another_partition_count_is_fine_once_every_feed_has_ended() {
        let done = Metadata { feeds: Vec::new(), ..metadata() }.encode().unwrap();
        let played = HashMap::new();
        assert!(start(&assigned(Some((50, done))), &around(Rules::default(), 5, &played), &[EMPTY]).is_ok());
    }

    /// What its producer has written down of the unfinished feed, when the topic has five partitions instead of four.
    #[test]
    fn another_partition_count_is_fine_for_a_feed_that_had_one_only() {
        let feed = metadata().feeds[0].feed;
        let moved = assigned(Some((50, metadata().encode().unwrap())));
        assert!(has_moved(&moved, 5) && !has_moved(&moved, 4) && !has_moved(&assigned(None), 5));
        for (played, fine) in [
            (None, false),
            (Some(Played { partitions: 0, ended: true }), false),
            (Some(Played { partitions: 4, ended: false }), false),
            (Some(Played { partitions: 3, ended: true }), false),
            (Some(Played { partitions: 4, ended: true }), true),
            (Some(Played { partitions: 5, ended: false }), true),
        ] {
            let played: HashMap<_, _> = played.map(|played| (feed, played)).into_iter().collect();
            let around = around(Rules::default(), 5, &played);
            assert_eq!(start(&moved, &around, &[EMPTY]).is_ok(), fine, "{played:?}");
        }
    }
}
