//! Where to read on: the positions that `marts.db` holds, checked against the log.
use broker::{Incarnation, LogBounds, Offset, TopicPartition};

use crate::deltas::Input;
use crate::error::{ANEW, Error, Result};

/// A partition, and how far it has been counted.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    pub(crate) partition: TopicPartition,
    pub(crate) input: Input,
    pub(crate) incarnation: Incarnation,
    /// As `marts.db` has it.
    pub(crate) stored: Offset,
    /// Read and folded, and not yet committed where it differs from `stored`.
    pub(crate) read: Offset,
    /// As the broker has it.
    pub(crate) broker: Option<Offset>,
}

/// What `marts.db` says of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) incarnation: Incarnation,
    pub(crate) next_offset: Offset,
}

/// What the broker says of it.
#[derive(Clone, Debug)]
pub(crate) struct Log<'a> {
    pub(crate) partition: &'a TopicPartition,
    pub(crate) incarnation: &'a Incarnation,
    pub(crate) bounds: LogBounds,
    /// By the group of these marts.
    pub(crate) committed: Option<Offset>,
}

/// The names in an error: `marts.db` and the broker, as the user knows them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    pub(crate) marts: &'a str,
    pub(crate) broker: &'a str,
}

/// The offset to read on from: the one in `marts.db`. A broker whose committed offset is behind it
/// is normal (the process ended between the two commits); everything else that does not fit stops.
pub(crate) fn resume(stored: Option<&Stored>, log: &Log<'_>, names: Names<'_>) -> Result<Offset> {
    let Names { marts, broker } = names;
    let (partition, LogBounds { start, end }) = (log.partition, log.bounds);
    let Some(stored) = stored else {
        return match log.committed {
            Some(committed) if committed > Offset(0) => Err(Error::Stop(format!(
                "{marts} holds nothing of {partition}, and {broker} says that it was counted up to offset \
                 {committed}: {marts} was removed or replaced, or another marts counts under this name. Restore the \
                 {marts} that belongs to {broker}, or {ANEW}"
            ))),
            _ => Ok(start),
        };
    };
    if stored.incarnation != *log.incarnation {
        return Err(Error::Stop(format!(
            "{marts} was made from another log: for {partition} it names {}, and {broker} is {}. Restore the \
             {broker} that belongs to {marts}, or {ANEW}",
            stored.incarnation, log.incarnation
        )));
    }
    let next = stored.next_offset;
    if next < start {
        return Err(Error::Stop(format!(
            "{marts} has counted {partition} up to offset {next}, and {broker} keeps it from offset {start} on only: \
             {} records would be missing. Restore a later {marts}, or {ANEW}",
            start.0.saturating_sub(next.0)
        )));
    }
    if next > end {
        return Err(Error::Stop(format!(
            "{marts} has counted {partition} up to offset {next}, and {broker} ends at offset {end}: {broker} is \
             older than {marts} (a power loss, or an old copy). Restore the two of one moment, or {ANEW}"
        )));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker::Topic;

    #[test]
    fn resumes_or_stops() {
        let partition = TopicPartition::new(&Topic::from("clickstream.events"), 2);
        let stored = |of: &str, next| Some(Stored { incarnation: Incarnation(of.into()), next_offset: Offset(next) });
        // What marts.db holds, the log's start and end, what the group has committed.
        for (stored, start, end, committed, expected) in [
            (None, 0, 9, None, Ok(0)),
            (None, 0, 9, Some(0), Ok(0)),
            (None, 4, 9, None, Ok(4)),
            (None, 0, 9, Some(1), Err("marts.db holds nothing of clickstream.events-2")),
            (stored("a", 5), 0, 9, Some(5), Ok(5)),
            (stored("a", 5), 0, 9, Some(3), Ok(5)),
            (stored("a", 5), 5, 5, None, Ok(5)),
            (stored("b", 5), 0, 9, Some(5), Err("made from another log")),
            (stored("a", 4), 5, 9, Some(4), Err("1 records would be missing")),
            (stored("a", 10), 0, 9, Some(4), Err("ends at offset 9")),
        ] {
            let log = Log {
                partition: &partition,
                incarnation: &Incarnation("a".into()),
                bounds: LogBounds { start: Offset(start), end: Offset(end) },
                committed: committed.map(Offset),
            };
            let got = resume(stored.as_ref(), &log, Names { marts: "d/marts.db", broker: "d/broker.db" });
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, Offset(expected)),
                (Err(Error::Stop(text)), Err(expected)) => {
                    for part in [expected, "d/marts.db", "d/broker.db", "--restart", "--instance"] {
                        assert!(text.contains(part), "{text:?} does not say {part:?}");
                    }
                }
                (got, expected) => panic!("{stored:?} {log:?}: {got:?} instead of {expected:?}"),
            }
        }
    }
}
