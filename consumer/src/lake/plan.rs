//! What a commit's metadata says, how files are named, and where a partition goes on after a
//! restart. Pure: no clock, no I/O.
//!
//! A partition's position is its committed offset. The metadata beside it names the log it belongs
//! to, the files stored last, and, between the two commits of a cut, the plan: the range that is
//! being stored. A plan is done whatever happens; no other can be made before.
use std::fmt::Write as _;

use broker::{Commit, Committed, Incarnation, LogBounds, METADATA_MAX_BYTES, Offset, TopicPartition};
use records::EventTime;
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// The most days that a plan may span: each is an open file, and all are named in the metadata.
pub(super) const MAX_DAYS: usize = 64;

/// The days that an [`EventTime`] can say; a record's timestamp could say more.
const MAX_DAY: i64 = 106_751_990;

const VERSION: u32 = 1;

/// Offsets, both inclusive. The ranges of a partition's plans follow each other without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    pub(super) first: i64,
    pub(super) last: i64,
}

/// The files of a plan that was done: one for each day (days since 1970).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    #[serde(flatten)]
    pub(super) range: Range,
    pub(super) days: Vec<i64>,
}

/// The metadata of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The metadata's version.
    lake: u32,
    pub(super) incarnation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stored: Option<Stored>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plan: Option<Range>,
}

/// A file's name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileName {
    pub(super) partition: u32,
    pub(super) range: Range,
}

/// Where a partition goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    pub(super) from: Offset,
    pub(super) stored: Option<Stored>,
    /// To be done again before anything else.
    pub(super) plan: Option<Range>,
    /// The position stands in no commit yet.
    pub(super) fresh: bool,
}

impl Position {
    pub(super) fn new(incarnation: &Incarnation, stored: Option<Stored>, plan: Option<Range>) -> Self {
        Self { lake: VERSION, incarnation: incarnation.to_string(), stored, plan }
    }

    pub(super) fn encode(&self) -> Result<String> {
        let text =
            serde_json::to_string(self).map_err(|e| Error::stop(format!("a position cannot be written: {e}")))?;
        if text.len() > METADATA_MAX_BYTES {
            let bytes = text.len();
            return Err(Error::stop(format!("a position takes {bytes} bytes; a commit holds {METADATA_MAX_BYTES}")));
        }
        Ok(text)
    }

    fn decode(text: &str) -> Result<Self, String> {
        let position: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match position.lake {
            VERSION => Ok(position),
            other => Err(format!("it has version {other}, this program reads {VERSION}")),
        }
    }

    /// The commit of this position at `offset`.
    pub(super) fn commit(&self, partition: &TopicPartition, offset: Offset) -> Result<Commit> {
        Ok(Commit { partition: partition.clone(), offset, keep_from: offset, metadata: self.encode()? })
    }
}

/// The UTC day of a record's timestamp, in days since 1970.
pub(super) fn day_of(timestamp_ms: i64) -> i64 {
    timestamp_ms.div_euclid(86_400_000).clamp(-MAX_DAY, MAX_DAY)
}

/// `<topic>/dt=YYYY-MM-DD/<partition>-<first>-<last>.parquet`; `topic` without its prefix.
pub(super) fn file_path(topic: &str, day: i64, partition: u32, range: Range) -> String {
    let mut path = format!("{topic}/dt={}", EventTime::from_days(day.clamp(-MAX_DAY, MAX_DAY)).day_text());
    let _ = write!(path, "/{partition}-{}-{}.parquet", range.first, range.last);
    path
}

impl FileName {
    /// None for what the lake did not name.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?.strip_suffix(".parquet")?;
        let mut parts = name.splitn(3, '-');
        let mut part = || parts.next().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let partition = part()?.parse().ok()?;
        let range = Range { first: part()?.parse().ok()?, last: part()?.parse().ok()? };
        Some(Self { partition, range })
    }
}

/// Where a partition goes on, found from what the broker says of it and from the files that the lake
/// has of it. They are shown one by one, and what is kept of them does not grow with their number.
pub(super) struct Resuming<'a> {
    lake: &'a str,
    topic: &'static str,
    partition: &'a TopicPartition,
    from: Offset,
    position: Option<Position>,
    /// The files stored last that were not shown yet.
    missing: Vec<String>,
    /// One that was shown, and one past the position.
    any: Option<String>,
    beyond: Option<String>,
}

impl<'a> Resuming<'a> {
    /// What the broker says fits together. Whatever does not stops the lake, here and in
    /// [`Resuming::end`]: nothing is skipped or stored twice.
    pub(super) fn begin(
        lake: &'a str,
        topic: &'static str,
        partition: &'a TopicPartition,
        incarnation: &Incarnation,
        bounds: LogBounds,
        committed: Option<&Committed>,
    ) -> Result<Self> {
        let stop = |why: String| Err(Error::Stop(format!("{partition}: {why}")));
        let from = committed.map_or(bounds.start, |committed| committed.offset);
        if from < bounds.start || from > bounds.end {
            return stop(format!(
                "the lake's position is {from}, but the log holds offsets {} to {}: records were deleted, or the log was \
                 replaced or lost its end. Put the old log back, or start again with an empty lake and an empty log \
                 (with the embedded broker: --restart)",
                bounds.start, bounds.end
            ));
        }
        let metadata = committed.map(|committed| committed.metadata.as_str()).filter(|metadata| !metadata.is_empty());
        let position = match metadata.map(Position::decode).transpose() {
            Ok(position) => position,
            Err(why) => {
                return stop(format!(
                    "the metadata of its committed offset {from} is not a lake's: {why}. Use the version that wrote it, or \
                     another topic prefix"
                ));
            }
        };
        if let Some(read) = &position {
            if read.incarnation != incarnation.0.as_ref() {
                return stop(format!(
                    "the lake's position {from} belongs to the log {}, but this one is {incarnation}: the topic was deleted \
                     and made again. Choose an empty folder for the lake and another topic prefix, or put the old log back",
                    read.incarnation
                ));
            }
            if let Some(plan) = read.plan
                && (plan.first != from.0 || plan.last < plan.first || plan.last >= bounds.end.0)
            {
                return stop(format!(
                    "offsets {} to {} are planned to be stored, but the position is {from} and the log ends at {}: the log \
                     lost its end. Put the old log back, or start again with an empty lake and an empty log (with the \
                     embedded broker: --restart)",
                    plan.first, plan.last, bounds.end
                ));
            }
        }
        let stored = position.as_ref().and_then(|read| read.stored.as_ref());
        let path = |(range, day): (Range, i64)| file_path(topic, day, partition.partition, range);
        let missing =
            stored.iter().flat_map(|stored| stored.days.iter().map(|day| path((stored.range, *day)))).collect();
        Ok(Self { lake, topic, partition, from, position, missing, any: None, beyond: None })
    }

    /// The path of a file that the lake has. One may be shown again; those of others are passed over.
    pub(super) fn show(&mut self, path: &str) {
        let Some(name) = FileName::parse(path).filter(|name| name.partition == self.partition.partition) else {
            return;
        };
        self.any.get_or_insert_with(|| path.to_owned());
        self.missing.retain(|missing| missing != path);
        let plan = self.position.as_ref().and_then(|read| read.plan);
        if name.range.last >= self.from.0 && Some(name.range) != plan {
            self.beyond.get_or_insert_with(|| path.to_owned());
        }
    }

    /// Where it goes on, once all files were shown.
    pub(super) fn end(self) -> Result<Resume> {
        let Self { lake, topic, partition, from, position, missing, any, beyond } = self;
        let stop = |why: String| Err(Error::Stop(format!("{partition}: {why}")));
        let Some(position) = position else {
            return match any {
                None => Ok(Resume { from, stored: None, plan: None, fresh: true }),
                Some(file) => stop(format!(
                    "{lake} already holds files of it (such as {file}), but no position is committed for it: broker.db was \
                     deleted, the group's offsets expired, or another pipeline writes there. Put the old broker.db back, \
                     or choose an empty folder for the lake, or move {topic}/ away to store everything again"
                )),
            };
        };
        if let Some(path) = missing.first() {
            return stop(format!(
                "{path}, the file stored last, is missing from {lake}. Put it back, or point the lake to where its \
                 files are, or start again with an empty lake and an empty log (with the embedded broker: --restart)"
            ));
        }
        if let Some(path) = beyond {
            return stop(format!(
                "{lake} holds {path}, past the committed position {from}: the log lost its last commits, or another \
                 pipeline writes there. If the log is right, delete the files of this partition from offset {from} on: \
                 their rows will be stored again"
            ));
        }
        Ok(Resume { from, stored: position.stored, plan: position.plan, fresh: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tp() -> TopicPartition {
        TopicPartition::new(&"p.events".into(), 2)
    }

    fn bounds(start: i64, end: i64) -> LogBounds {
        LogBounds { start: Offset(start), end: Offset(end) }
    }

    fn incarnation(id: &str) -> Incarnation {
        Incarnation(id.into())
    }

    fn position(offset: i64, id: &str, stored: Option<(i64, i64)>, plan: Option<(i64, i64)>) -> Option<Committed> {
        let range = |(first, last)| Range { first, last };
        let stored = stored.map(|stored| Stored { range: range(stored), days: vec![18_170] });
        let position = Position::new(&incarnation(id), stored, plan.map(range));
        Some(Committed { offset: Offset(offset), metadata: position.encode().unwrap() })
    }

    fn file(first: i64, last: i64) -> String {
        file_path("events", 18_170, 2, Range { first, last })
    }

    fn resume(
        incarnation: &Incarnation,
        bounds: LogBounds,
        committed: Option<&Committed>,
        files: &[String],
    ) -> Result<Resume> {
        let partition = tp();
        let mut resuming = Resuming::begin("D/lake", "events", &partition, incarnation, bounds, committed)?;
        // A list that is begun anew shows some again.
        files.iter().chain(files).for_each(|path| resuming.show(path));
        resuming.end()
    }

    #[test]
    fn truth_table() {
        let bare = |offset| Some(Committed { offset: Offset(offset), metadata: String::new() });
        let other = Some(Committed { offset: Offset(5), metadata: "{}".into() });
        let mut unknown = position(5, "a", None, None).unwrap();
        unknown.metadata = unknown.metadata.replace("\"lake\":1", "\"lake\":9");
        for (case, committed, log, files, expected) in [
            ("first start", None, bounds(0, 9), vec![], Ok((0, None))),
            (
                "files of another partition",
                None,
                bounds(0, 9),
                vec![file_path("events", 18_170, 1, Range { first: 0, last: 3 })],
                Ok((0, None)),
            ),
            ("first start, old records gone", None, bounds(4, 9), vec![], Ok((4, None))),
            ("output without a position", None, bounds(0, 9), vec![file(0, 3)], Err("no position is committed")),
            ("set by hand, nothing stored", bare(6), bounds(0, 9), vec![], Ok((6, None))),
            ("set by hand, past the log", bare(10), bounds(0, 9), vec![], Err("the log holds offsets 0 to 9")),
            ("set by hand, files there", bare(6), bounds(0, 9), vec![file(0, 3)], Err("no position is committed")),
            ("empty so far", position(0, "a", None, None), bounds(0, 0), vec![], Ok((0, None))),
            ("nothing but watermarks", position(5, "a", None, None), bounds(0, 9), vec![], Ok((5, None))),
            ("stored", position(5, "a", Some((0, 4)), None), bounds(5, 9), vec![file(0, 4)], Ok((5, None))),
            ("caught up", position(9, "a", Some((0, 8)), None), bounds(5, 9), vec![file(0, 8)], Ok((9, None))),
            ("another log", position(5, "b", None, None), bounds(0, 9), vec![], Err("made again")),
            ("past the log", position(10, "a", None, None), bounds(0, 9), vec![], Err("the log holds offsets 0 to 9")),
            ("before the log", position(5, "a", None, None), bounds(6, 9), vec![], Err("the log holds offsets 6 to 9")),
            ("last file missing", position(5, "a", Some((0, 4)), None), bounds(0, 9), vec![file(0, 2)], Err("missing")),
            ("planned", position(5, "a", None, Some((5, 8))), bounds(0, 9), vec![], Ok((5, Some((5, 8))))),
            (
                "planned, some there",
                position(5, "a", None, Some((5, 8))),
                bounds(0, 9),
                vec![file(5, 8)],
                Ok((5, Some((5, 8)))),
            ),
            ("plan past the log", position(5, "a", None, Some((5, 9))), bounds(0, 9), vec![], Err("lost its end")),
            ("plan elsewhere", position(5, "a", None, Some((4, 8))), bounds(0, 9), vec![], Err("lost its end")),
            (
                "file past the position",
                position(5, "a", None, None),
                bounds(0, 9),
                vec![file(5, 7)],
                Err("past the committed"),
            ),
            (
                "file across the position",
                position(5, "a", None, None),
                bounds(0, 9),
                vec![file(0, 7)],
                Err("past the committed"),
            ),
            (
                "not the plan's",
                position(5, "a", None, Some((5, 8))),
                bounds(0, 9),
                vec![file(5, 7)],
                Err("past the committed"),
            ),
            ("not a lake's", other, bounds(0, 9), vec![], Err("is not a lake's")),
            ("a later version's", Some(unknown), bounds(0, 9), vec![], Err("it has version 9")),
        ] {
            let got = resume(&incarnation("a"), log, committed.as_ref(), &files);
            match (got, expected) {
                (Ok(got), Ok((from, plan))) => {
                    assert_eq!((got.from.0, got.plan.map(|plan| (plan.first, plan.last))), (from, plan), "{case}");
                }
                (Err(got), Err(says)) => {
                    let got = got.to_string();
                    assert!(got.contains(says) && got.contains("p.events-2"), "{case}: {got:?} does not say {says:?}");
                }
                (got, expected) => panic!("{case}: {got:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn names() {
        let path = file(0, 41);
        assert_eq!(path, "events/dt=2019-10-01/2-0-41.parquet");
        assert_eq!(FileName::parse(&path), Some(FileName { partition: 2, range: Range { first: 0, last: 41 } }));
        for foreign in ["events/dt=2019-10-01/2-0.parquet", "a/2-0-41.csv", "a/x-0-41.parquet", "a/2-+0-41.parquet", ""]
        {
            assert_eq!(FileName::parse(foreign), None, "{foreign}");
        }
        assert_eq!((day_of(-1), day_of(0), day_of(86_399_999), day_of(86_400_000)), (-1, 0, 0, 1));
        for extreme in [i64::MIN, i64::MAX] {
            assert!(file_path("t", day_of(extreme), 0, Range { first: 0, last: 0 }).starts_with("t/dt="));
        }
    }

    proptest! {
        #[test]
        fn positions_round_trip_within_the_bound(
            id in "[a-zA-Z0-9_-]{1,64}", stored in any::<Option<(i64, i64)>>(), plan in any::<Option<(i64, i64)>>(),
            days in prop::collection::vec(-MAX_DAY..=MAX_DAY, 0..=MAX_DAYS),
        ) {
            let range = |(first, last)| Range { first, last };
            let stored = stored.map(|stored| Stored { range: range(stored), days });
            let position = Position::new(&incarnation(&id), stored, plan.map(range));
            let text = position.encode().unwrap();
            prop_assert!(text.len() <= METADATA_MAX_BYTES);
            prop_assert_eq!(Position::decode(&text), Ok(position));
        }

        /// Whatever cuts and crashes there were, what follows a done plan starts where it ended.
        #[test]
        fn ranges_tile_the_log(cuts in prop::collection::vec((1_i64..50, any::<bool>()), 1..20)) {
            let (id, mut files, mut committed, mut next) = (incarnation("a"), vec![], None, 0);
            for (length, crashed) in cuts {
                let at = resume(&id, bounds(0, 10_000), committed.as_ref(), &files).unwrap();
                prop_assert_eq!(at.from.0, next);
                let range = Range { first: next, last: next + length - 1 };
                let planned = Position::new(&id, at.stored.clone(), Some(range)).commit(&tp(), at.from).unwrap();
                files.push(file_path("events", 3, 2, range));
                if crashed {
                    let committed = Committed { offset: planned.offset, metadata: planned.metadata };
                    let again = resume(&id, bounds(0, 10_000), Some(&committed), &files).unwrap();
                    prop_assert_eq!(again.plan, Some(range));
                }
                let done = Position::new(&id, Some(Stored { range, days: vec![3] }), None);
                let done = done.commit(&tp(), Offset(range.last + 1)).unwrap();
                next = range.last + 1;
                committed = Some(Committed { offset: done.offset, metadata: done.metadata });
            }
        }
    }
}
