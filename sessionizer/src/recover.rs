//! Whether a partition may be gone on with from its committed position, and where to read again
//! from. A position that does not belong to the log or to the settings stops the part: going on
//! would lose records, count them twice, or cut the same sessions differently.
use std::collections::HashMap;

use broker::{Assigned, LogBounds, Offset};
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
}

/// Whether the position was committed while the topic had another number of partitions, with feeds unfinished:
/// what became of those is to be looked up.
pub(crate) fn has_moved(assigned: &Assigned, partitions: u32) -> bool {
    let metadata = assigned.committed.as_ref().and_then(|committed| Metadata::decode(&committed.metadata).ok());
    metadata.is_some_and(|metadata| metadata.partitions != partitions && !metadata.feeds.is_empty())
}

/// `outputs` are the bounds of this partition's number in the topics that are written; `played` is what is known
/// of feeds, where `has_moved`.
pub(crate) fn start(
    assigned: &Assigned,
    rules: Rules,
    partitions: u32,
    outputs: &[LogBounds],
    played: &HashMap<Feed, Played>,
) -> Result<Start, Error> {
    let Assigned { partition, bounds, .. } = assigned;
    let refuse = |why: String| Err(Error::Refused(format!("{partition}: {why}")));
    let Some(committed) = &assigned.committed else {
        if outputs.iter().any(|log| log.end > log.start || log.start > Offset(0)) {
            return refuse(
                "there are steps or sessions of it, but no committed position: the group's offsets are lost, and \
                 reading from the start would count them twice; begin anew with --restart (embedded), or delete the \
                 topics under this prefix or take another --topic-prefix (Kafka)"
                    .to_owned(),
            );
        }
        return Ok(Start { state: Partition::new(rules), read_from: bounds.start, live_from: bounds.start });
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
    let recorded = metadata.rules;
    if recorded.gap != rules.gap {
        return refuse(format!(
            "it was begun with --gap {}, not {}: sessions would be cut in two ways; give --gap {0}, or begin anew with \
             --restart or under another --topic-prefix",
            recorded.gap, rules.gap
        ));
    }
    if recorded.allowed_lateness != rules.allowed_lateness && rules.gap != Gap::None {
        return refuse(format!(
            "it was begun with --allowed-lateness {}, not {}; give --allowed-lateness {0}, or begin anew with \
             --restart or under another --topic-prefix",
            Typed(recorded.allowed_lateness),
            Typed(rules.allowed_lateness)
        ));
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
    Ok(Start { state: Partition::resume(rules, &metadata.feeds), read_from, live_from: committed.offset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker::{Committed, Incarnation, Topic, TopicPartition};
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

    #[test]
    fn goes_on_where_it_was() {
        let start =
            start(&assigned(Some((50, metadata().encode().unwrap()))), Rules::default(), 4, &[EMPTY], &HashMap::new())
                .unwrap();
        assert_eq!((start.read_from, start.live_from), (Offset(40), Offset(50)));
        let fresh = super::start(&assigned(None), Rules::default(), 4, &[EMPTY, EMPTY], &HashMap::new()).unwrap();
        assert_eq!((fresh.read_from, fresh.live_from), (Offset(30), Offset(30)));
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
            let error = start(&assigned(committed), rules, partitions, &[EMPTY, output], &HashMap::new())
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected) && error.contains("clickstream.events-2"), "{error:?}: {expected}");
            let remedies = ["--restart", "--topic-prefix", "control end"];
            assert!(remedies.iter().any(|remedy| error.contains(remedy)), "{error}");
        }
    }

    #[test]
    fn another_partition_count_is_fine_once_every_feed_has_ended() {
        let done = Metadata { feeds: Vec::new(), ..metadata() }.encode().unwrap();
        assert!(start(&assigned(Some((50, done))), Rules::default(), 5, &[EMPTY], &HashMap::new()).is_ok());
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
            assert_eq!(start(&moved, Rules::default(), 5, &[EMPTY], &played).is_ok(), fine, "{played:?}");
        }
    }
}
