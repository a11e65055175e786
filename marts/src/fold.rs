//! Batches to sums: what has been folded and not yet committed, and when it is to be committed.
use std::time::{Duration, Instant};

use broker::{Batch, Headers};
use records::{CONTENT_TYPE, Decoder, SENT_AT, read_micros_header};

use crate::deltas::{Deltas, Input};

/// The longest a commit waits, however much each one costs.
const COMMIT_AFTER_MAX: Duration = Duration::from_secs(2);
/// Commits may take this share of the time: one part in so many.
const COMMIT_SHARE: u32 = 24;
/// One record in so many tells how fresh the marts are.
const SAMPLE_EVERY: usize = 64;
/// The most samples kept between two commits.
const SAMPLES_MAX: usize = 16_384;

/// What was folded since the last commit.
#[derive(Debug)]
pub(crate) struct Pending {
    decoder: Decoder,
    deltas: Deltas,
    since: Option<Instant>,
    counts: [Counts; Input::ALL.len()],
    /// When sampled records were sent: wall clock, microseconds since 1970.
    sent_at: Vec<(Input, i64)>,
    /// How long the last commit took.
    commit_took: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) unreadable: u64,
}

impl Pending {
    pub(crate) fn new() -> Self {
        Self {
            decoder: Decoder::new(),
            deltas: Deltas::new(),
            since: None,
            counts: Default::default(),
            sent_at: Vec::new(),
            commit_took: Duration::ZERO,
        }
    }

    pub(crate) fn deltas(&self) -> &Deltas {
        &self.deltas
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    pub(crate) fn fold(&mut self, input: Input, batch: &Batch, now: Instant) {
        self.since.get_or_insert(now);
        let (mut content_type, mut headers) = (None, Headers::default());
        for (i, record) in batch.iter().enumerate() {
            if !record.headers.are_those_of(headers) {
                headers = record.headers;
                content_type = headers.get(CONTENT_TYPE);
            }
            let counts = &mut self.counts[input as usize];
            counts.records += 1;
            if let Err(e) = self.deltas.fold(&mut self.decoder, input, content_type, record.value) {
                counts.unreadable += 1;
                if counts.unreadable == 1 {
                    let (topic, partition, offset) = (&batch.topic, batch.partition, record.offset);
                    tracing::warn!(%topic, partition, %offset, "the record cannot be read and is left out: {e}");
                }
            }
            if i.is_multiple_of(SAMPLE_EVERY) && self.sent_at.len() < SAMPLES_MAX {
                self.sent_at.extend(record.headers.get(SENT_AT).and_then(read_micros_header).map(|us| (input, us)));
            }
        }
    }

    /// How long the commit may still wait. None while there is nothing to commit.
    ///
    /// `commit_after` from the first record, so that marts are fresh; longer where commits are
    /// dear, because then many records that are waiting share each row.
    pub(crate) fn commit_in(&self, now: Instant, commit_after: Duration) -> Option<Duration> {
        if self.deltas.is_full() {
            return Some(Duration::ZERO);
        }
        let wait = commit_after.max((self.commit_took * COMMIT_SHARE).min(COMMIT_AFTER_MAX));
        self.since.map(|since| wait.saturating_sub(now.saturating_duration_since(since)))
    }

    /// What was pending is committed.
    pub(crate) fn committed(&mut self, took: Duration) {
        self.deltas.clear();
        self.since = None;
        self.counts = Default::default();
        self.sent_at.clear();
        self.commit_took = took;
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (Input, Counts)> {
        Input::ALL.into_iter().zip(self.counts)
    }

    pub(crate) fn sent_at(&self) -> &[(Input, i64)] {
        &self.sent_at
    }
}
