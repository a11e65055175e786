//! One assigned partition: what is open of it and what is committed.
use std::sync::Arc;
use std::time::Instant;

use broker::{Batch, Incarnation, Offset, Topic, TopicPartition};
use parquet::file::metadata::KeyValue;
use records::topics;

use super::budget::Held;
use super::error::{Error, Result};
use super::plan::{Position, Range, Resume, Stored, file_path};
use super::settings::Settings;
use super::store::{NewFile, footer};
use super::writer::{Files, OpenFiles, properties};
use crate::columns::{DeadLetters, Events, FunnelSteps, Sessions};

pub(super) struct Partition {
    pub(super) key: TopicPartition,
    /// Without the prefix.
    pub(super) topic: &'static str,
    pub(super) incarnation: Incarnation,
    pub(super) committed: Offset,
    pub(super) stored: Option<Stored>,
    /// Next to read.
    pub(super) position: Offset,
    /// When the first record came that is not committed yet.
    pub(super) opened_at: Option<Instant>,
    /// The plan of an earlier run, until it is done.
    pub(super) replay: Option<Range>,
    pub(super) files: Box<dyn Files>,
}

/// What a partition has taken from a batch.
#[derive(Debug, Default)]
pub(super) struct Took {
    pub(super) records: usize,
    pub(super) unreadable: u64,
    pub(super) why: Option<String>,
    /// It can take no more before it is cut.
    pub(super) full: Option<Full>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The range of the plan that is done again.
    Replay,
    Days,
}

impl Partition {
    pub(super) fn new(
        key: TopicPartition,
        topic: &'static str,
        incarnation: Incarnation,
        resume: Resume,
        settings: &Settings,
    ) -> Self {
        Self {
            files: open_files(topic, settings),
            key,
            topic,
            incarnation,
            committed: resume.from,
            stored: resume.stored,
            position: resume.from,
            opened_at: None,
            replay: resume.plan,
        }
    }

    /// Takes what it can from the front of `batch`.
    pub(super) fn take(&mut self, batch: &Batch, now: Instant) -> Result<Took> {
        let Some(first) = batch.first_offset() else { return Ok(Took::default()) };
        if first < self.position {
            let (key, position) = (&self.key, self.position);
            return Err(Error::stop(format!("{key}: the broker gave offset {first} again, {position} was next")));
        }
        let last = self.replay.map_or(i64::MAX, |plan| plan.last);
        let taken = self.files.take(batch, last)?;
        if let Some(next) = taken.next {
            self.position = Offset(next);
            self.opened_at.get_or_insert(now);
        }
        let rest = taken.records < batch.len();
        let full = match self.replay {
            // The first record past the plan also says that all of it has come.
            Some(plan)
                if self.position.0 > plan.last
                    || batch.slice(taken.records, 1).first_offset() > Some(Offset(plan.last)) =>
            {
                self.position = Offset(plan.last + 1);
                self.opened_at.get_or_insert(now);
                Some(Full::Replay)
            }
            Some(_) if rest => {
                let key = &self.key;
                return Err(Error::stop(format!(
                    "{key}: the plan of an earlier run has more days than a plan may have"
                )));
            }
            None if rest => Some(Full::Days),
            _ => None,
        };
        Ok(Took { records: taken.records, unreadable: taken.unreadable, why: taken.why, full })
    }

    /// Whether there is anything to commit, and it may be cut anywhere.
    pub(super) fn can_be_cut(&self) -> bool {
        self.opened_at.is_some() && self.replay.is_none()
    }

    pub(super) fn held(&self) -> Held {
        Held {
            rows: self.files.rows(),
            file_bytes: self.files.largest_file_bytes(),
            memory_bytes: self.files.memory_bytes(),
            opened_at: self.opened_at,
            replaying: self.replay.is_some(),
        }
    }

    /// What is open, as a range. It has at least one offset.
    pub(super) fn range(&self) -> Range {
        Range { first: self.committed.0, last: self.position.0 - 1 }
    }

    pub(super) fn position_with(&self, plan: Option<Range>) -> Position {
        Position::new(&self.incarnation, self.stored.clone(), plan)
    }

    pub(super) fn file_path(&self, day: i64, range: Range) -> String {
        file_path(self.topic, day, self.key.partition, range)
    }

    pub(super) fn footer(&self, range: Range) -> Vec<KeyValue> {
        footer(&self.incarnation, self.key.topic.as_str(), self.key.partition, range)
    }

    /// Ends the open files of `range`, and what to store.
    pub(super) fn finish(&mut self, range: Range) -> Result<Ended> {
        let footer = Arc::new(self.footer(range));
        let finished = self.files.finish(&footer)?;
        let mut ended = Ended { sent_at_us: finished.sent_at_us, ..Ended::default() };
        for file in finished.days {
            ended.rows += file.rows;
            ended.bytes += file.payload.content_length() as u64;
            ended.days.push(file.day);
            let path = self.file_path(file.day, range);
            ended.files.push(NewFile { path, payload: file.payload, footer: footer.clone() });
        }
        Ok(ended)
    }

    /// All up to `range.last` is committed.
    pub(super) fn done(&mut self, range: Range, days: Vec<i64>) {
        if !days.is_empty() {
            self.stored = Some(Stored { range, days });
        }
        self.committed = Offset(range.last + 1);
        self.opened_at = None;
        self.replay = None;
    }
}

/// The files of a plan, ended and not yet stored.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) files: Vec<NewFile>,
    pub(super) days: Vec<i64>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) sent_at_us: Vec<i64>,
}

/// The topic's name without its prefix, if it is one of the lake's.
pub(super) fn lake_topic(prefix: &str, topic: &Topic) -> Option<&'static str> {
    let name = topic.as_str().strip_prefix(prefix)?;
    super::TOPICS.into_iter().find(|known| *known == name)
}

fn open_files(topic: &str, settings: &Settings) -> Box<dyn Files> {
    match topic {
        topics::EVENTS => Box::new(OpenFiles::<Events>::new(Arc::new(properties::<Events>(settings)))),
        topics::FUNNEL_STEPS => Box::new(OpenFiles::<FunnelSteps>::new(Arc::new(properties::<FunnelSteps>(settings)))),
        topics::SESSIONS => Box::new(OpenFiles::<Sessions>::new(Arc::new(properties::<Sessions>(settings)))),
        _ => Box::new(OpenFiles::<DeadLetters>::new(Arc::new(properties::<DeadLetters>(settings)))),
    }
}
