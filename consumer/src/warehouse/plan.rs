//! What a commit's metadata says, and where a partition goes on after a restart. Pure: no clock, no
//! I/O.
//!
//! A partition appends to one write stream of its table. A plan is a range of offsets and how many
//! rows it makes; it stands in the metadata before its rows are sent, so a restart sends exactly the
//! same rows to the same place in the stream. Where that place is follows from the plans before it:
//! a stream only ever grows by whole plans, in order.
use std::ops::RangeInclusive;

use broker::{Commit, Committed, Incarnation, LogBounds, METADATA_MAX_BYTES, Offset, TopicPartition};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

const VERSION: u32 = 1;

/// Plans that are sent and not yet settled, of a partition.
pub(super) const OUTSTANDING_MAX: usize = 4;

/// Left in the metadata for all but the rows left out.
const RESERVED_BYTES: usize = 1024;

/// Consecutive offsets of which no row is sent; both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Omitted(pub(super) i64, pub(super) i64);

/// What is appended by one request. It begins where the plan before it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The last offset, inclusive.
    pub(super) last: i64,
    /// Rows sent: fewer than offsets, where records are not rows or are left out.
    pub(super) rows: i64,
    /// In order; rows that BigQuery would refuse, or has refused. Their dead letters are committed
    /// with this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) omitted: Vec<Omitted>,
}

/// A partition's write stream, and how many rows it has before the first outstanding plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stream {
    pub(super) name: String,
    pub(super) rows: i64,
}

/// The metadata of a commit. The committed offset is where the first plan begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The metadata's version.
    warehouse: u32,
    incarnation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stream: Option<Stream>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) plans: Vec<Plan>,
    #[serde(default)]
    pub(super) given: Given,
}

/// What of a partition is in its table, and in which: one that is dropped and made again under the same
/// name has none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Given {
    /// When the table was made; 0 if that is not known.
    pub(super) made_ms: i64,
    /// All that were acknowledged.
    pub(super) rows: i64,
}

/// Where a partition goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    pub(super) from: Offset,
    pub(super) stream: Option<Stream>,
    /// To be sent again, as they are, before anything else.
    pub(super) plans: Vec<Plan>,
    pub(super) given: Given,
    /// The position stands in no commit yet.
    pub(super) fresh: bool,
}

impl Plan {
    /// Whether the record at `offset` is left out.
    pub(super) fn omits(&self, offset: i64) -> bool {
        let next = self.omitted.partition_point(|range| range.1 < offset);
        self.omitted.get(next).is_some_and(|range| range.0 <= offset)
    }
}

impl Position {
    pub(super) fn new(incarnation: &Incarnation, stream: Option<Stream>, plans: Vec<Plan>, given: Given) -> Self {
        Self { warehouse: VERSION, incarnation: incarnation.to_string(), stream, plans, given }
    }

    fn encode(&self) -> Result<String> {
        let text =
            serde_json::to_string(self).map_err(|e| Error::Stop(format!("a position cannot be written: {e}")))?;
        if text.len() > METADATA_MAX_BYTES {
            let bytes = text.len();
            return Err(Error::Stop(format!("a position takes {bytes} bytes; a commit holds {METADATA_MAX_BYTES}")));
        }
        Ok(text)
    }

    fn decode(text: &str) -> Result<Self, String> {
        let position: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match position.warehouse {
            VERSION => Ok(position),
            other => Err(format!("it has version {other}, this program reads {VERSION}")),
        }
    }

    /// The commit of this position at `offset`.
    pub(super) fn commit(&self, partition: &TopicPartition, offset: Offset) -> Result<Commit> {
        Ok(Commit { partition: partition.clone(), offset, keep_from: offset, metadata: self.encode()? })
    }
}

/// Offsets as ranges, as many as one plan's share of the metadata holds; and the first offset that
/// has no place there any more: a plan must end before it.
pub(super) fn fit(omitted: &[i64]) -> (Vec<Omitted>, Option<i64>) {
    /// Two offsets of 19 digits, brackets and commas.
    const RANGE_BYTES: usize = 42;
    const RANGES_MAX: usize = (METADATA_MAX_BYTES - RESERVED_BYTES) / OUTSTANDING_MAX / RANGE_BYTES;
    let mut ranges: Vec<Omitted> = Vec::new();
    for offset in omitted {
        let full = ranges.len() == RANGES_MAX;
        match ranges.last_mut() {
            Some(range) if range.1 + 1 == *offset => range.1 = *offset,
            _ if full => return (ranges, Some(*offset)),
            _ => ranges.push(Omitted(*offset, *offset)),
        }
    }
    (ranges, None)
}

/// The ranges of offsets that the plans cover, one after the other from `from`.
pub(super) fn ranges(from: Offset, plans: &[Plan]) -> Vec<RangeInclusive<i64>> {
    let mut first = from.0;
    let mut ranges = Vec::with_capacity(plans.len());
    for plan in plans {
        ranges.push(first..=plan.last);
        first = plan.last + 1;
    }
    ranges
}

/// Where `partition` goes on. `others` says whether the group has a position in any other partition
/// of the topic, `filled` whether its table has rows. Whatever does not fit together stops the
/// warehouse: nothing is skipped or sent twice.
pub(super) fn resume(
    table: &str,
    partition: &TopicPartition,
    incarnation: &Incarnation,
    bounds: LogBounds,
    committed: Option<&Committed>,
    others: bool,
    filled: bool,
) -> Result<Resume> {
    let stop = |why: String| Err(Error::Stop(format!("{partition}: {why}")));
    let from = committed.map_or(bounds.start, |committed| committed.offset);
    if from < bounds.start || from > bounds.end {
        return stop(format!(
            "the warehouse's position is {from}, but the log holds offsets {} to {}: records were deleted, or the log \
             was replaced or lost its end. Put the old log back, or start again with empty tables and an empty log",
            bounds.start, bounds.end
        ));
    }
    let Some(committed) = committed.filter(|committed| !committed.metadata.is_empty()) else {
        if filled && !others {
            return stop(format!(
                "the table {table} already has rows, but no position is committed: broker.db was deleted, the group's \
                 offsets expired, or another pipeline writes there. Put the old broker.db back, or name another \
                 dataset, or drop the table and make it again (clickstream warehouse init) to send everything anew; \
                 clickstream run --restart begins anew beside the rows that are there"
            ));
        }
        return Ok(Resume { from, stream: None, plans: Vec::new(), given: Given::default(), fresh: true });
    };
    let read = match Position::decode(&committed.metadata) {
        Ok(read) => read,
        Err(why) => {
            return stop(format!(
                "the metadata of its committed offset {from} is not a warehouse's: {why}. Use the version that wrote \
                 it, or another topic prefix"
            ));
        }
    };
    if read.incarnation != incarnation.0.as_ref() {
        return stop(format!(
            "the warehouse's position {from} belongs to the log {}, but this one is {incarnation}: the topic was \
             deleted and made again. Name another dataset and another topic prefix, or put the old log back",
            read.incarnation
        ));
    }
    if let Some(stream) = read.stream.as_ref().filter(|stream| stream.rows < 0) {
        return stop(format!(
            "the metadata of its committed offset {from} says that the write stream {} has {} rows: it is damaged. Put \
             back a broker.db from before, or start again with empty tables and an empty log",
            stream.name, stream.rows
        ));
    }
    let ordered = ranges(from, &read.plans).iter().all(|range| !range.is_empty());
    let last = read.plans.last().map_or(from.0 - 1, |plan| plan.last);
    if !ordered || last >= bounds.end.0 || read.plans.len() > OUTSTANDING_MAX {
        return stop(format!(
            "offsets {from} to {last} are planned to be sent, but the log ends at {}: the log lost its end. Put the old \
             log back, or start again with empty tables and an empty log",
            bounds.end
        ));
    }
    Ok(Resume { from, stream: read.stream, plans: read.plans, given: read.given, fresh: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tp() -> TopicPartition {
        TopicPartition::new(&"p.events".into(), 2)
    }

    fn id(id: &str) -> Incarnation {
        Incarnation(id.into())
    }

    fn at(offset: i64, log: &str, stream: Option<i64>, plans: &[(i64, i64)]) -> Option<Committed> {
        let plans = plans.iter().map(|(last, rows)| Plan { last: *last, rows: *rows, omitted: vec![] }).collect();
        let stream = stream.map(|rows| Stream { name: "s".into(), rows });
        let metadata = Position::new(&id(log), stream, plans, Given::default()).encode().unwrap();
        Some(Committed { offset: Offset(offset), metadata })
    }

    #[test]
    fn truth_table() {
        let bare = |offset| Some(Committed { offset: Offset(offset), metadata: String::new() });
        let mut later = at(5, "a", None, &[]).unwrap();
        later.metadata = later.metadata.replace("\"warehouse\":1", "\"warehouse\":9");
        let foreign = Some(Committed { offset: Offset(5), metadata: "{\"lake\":1}".into() });
        for (case, committed, log, others, filled, expected) in [
            ("first start", None, (0, 9), false, false, Ok((0, 0))),
            ("first start, old records gone", None, (4, 9), false, false, Ok((4, 0))),
            ("rows without a position", None, (0, 9), false, true, Err("already has rows")),
            ("the rows are of another partition", None, (0, 9), true, true, Ok((0, 0))),
            ("set by hand", bare(6), (0, 9), false, false, Ok((6, 0))),
            ("set by hand, past the log", bare(10), (0, 9), false, false, Err("the log holds offsets 0 to 9")),
            ("nothing but watermarks", at(5, "a", None, &[]), (0, 9), false, false, Ok((5, 0))),
            ("sent", at(5, "a", Some(5), &[]), (5, 9), false, true, Ok((5, 0))),
            ("caught up", at(9, "a", Some(7), &[]), (5, 9), false, true, Ok((9, 0))),
            ("planned", at(5, "a", Some(5), &[(6, 2), (8, 1)]), (0, 9), false, true, Ok((5, 2))),
            ("another log", at(5, "b", Some(5), &[]), (0, 9), false, true, Err("made again")),
            ("before the log", at(5, "a", Some(5), &[]), (6, 9), false, true, Err("the log holds offsets 6 to 9")),
            ("plan past the log", at(5, "a", Some(5), &[(9, 2)]), (0, 9), false, true, Err("lost its end")),
            ("plan backwards", at(5, "a", Some(5), &[(7, 2), (6, 2)]), (0, 9), false, true, Err("planned")),
            ("less than nothing", at(5, "a", Some(-3), &[(6, 3)]), (0, 9), false, true, Err("has -3 rows")),
            ("planned, to be inserted", at(5, "a", None, &[(7, 2)]), (0, 9), false, true, Ok((5, 1))),
            ("not a warehouse's", foreign, (0, 9), false, true, Err("is not a warehouse's")),
            ("a later version's", Some(later), (0, 9), false, true, Err("version 9")),
        ] {
            let bounds = LogBounds { start: Offset(log.0), end: Offset(log.1) };
            let got = resume("d.events", &tp(), &id("a"), bounds, committed.as_ref(), others, filled);
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!((got.from.0, got.plans.len()), expected, "{case}"),
                (Err(got), Err(says)) => {
                    let got = got.to_string();
                    assert!(got.contains(says) && got.contains("p.events-2"), "{case}: {got:?} does not say {says:?}");
                }
                (got, expected) => panic!("{case}: {got:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn omitted() {
        assert_eq!(fit(&[]), (vec![], None));
        assert_eq!(fit(&[3, 4, 5, 9]), (vec![Omitted(3, 5), Omitted(9, 9)], None));
        let plan = Plan { last: 20, rows: 0, omitted: fit(&[3, 4, 5, 9]).0 };
        let left_out: Vec<_> = (0..20).filter(|offset| plan.omits(*offset)).collect();
        assert_eq!(left_out, [3, 4, 5, 9]);
    }

    proptest! {
        /// Whatever rows are left out of whatever plans, they fit.
        #[test]
        fn positions_round_trip_within_the_bound(
            log in "[a-zA-Z0-9_-]{1,64}", name in "[a-z/]{200}", from in 0..i64::MAX / 2,
            gaps in prop::collection::vec(prop::collection::vec(1..1_000_000_i64, 0..200), 0..=OUTSTANDING_MAX),
        ) {
            let mut next = from;
            let mut plans = Vec::new();
            for gaps in gaps {
                let first = next;
                let offsets: Vec<i64> = gaps.iter().map(|gap| { next += gap; next }).collect();
                let (omitted, past) = fit(&offsets);
                let plan = Plan { last: past.unwrap_or(next + 1) - 1, rows: 1, omitted };
                for offset in &offsets {
                    prop_assert_eq!(plan.omits(*offset), *offset <= plan.last && *offset >= first);
                }
                next = plan.last + 1;
                plans.push(plan);
            }
            let given = Given { made_ms: i64::MAX, rows: i64::MAX };
            let position = Position::new(&id(&log), Some(Stream { name, rows: i64::MAX }), plans, given);
            let text = position.encode().unwrap();
            prop_assert_eq!(Position::decode(&text), Ok(position));
        }
    }
}
