//! How far a replay is, for a progress bar: written by the replay, read by anyone.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use records::{EventTime, SourceId};

use crate::course::Kind;
use crate::progress::Progress;
use crate::window::Shard;

#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    phase: AtomicU8,
    bytes_read: AtomicU64,
    bytes_total: AtomicU64,
    bytes_skipped: AtomicU64,
    /// Of `bytes_read`, those that were jumped over: no text came of them.
    bytes_jumped: AtomicU64,
    /// Bytes of decompressed text that lie before the replay, and those that it has taken; beside
    /// `bytes_skipped`, which never lay there.
    text_read: AtomicU64,
    text_taken: AtomicU64,
    /// Of the passes before the one that is played.
    events_before: AtomicU64,
    events: AtomicU64,
    sent: AtomicU64,
    clock_us: AtomicI64,
    /// The source that control names; [`NO_SOURCE`] before it is known.
    source: AtomicU64,
    shard: AtomicU32,
    shards: AtomicU32,
    loops: AtomicBool,
    pass: AtomicU32,
    paused: AtomicBool,
    /// What the pace is: [`Pace`] as a kind and the bits of its number.
    pace_kind: AtomicU8,
    pace_bits: AtomicU64,
}

/// What a replay goes by, for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Going {
    FlatOut,
    /// Times real time.
    Speed(f64),
    /// Events a second.
    Rate(f64),
    /// Rates by a plan.
    Plan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Files and earlier progress are looked at.
    Opening,
    /// What an earlier run has published is read over.
    Skipping,
    Replaying,
    Done,
}

const UNKNOWN: u64 = u64::MAX;
const NO_CLOCK: i64 = i64::MIN;
const NO_SOURCE: u64 = u64::MAX;

impl Default for Inner {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(0),
            bytes_read: AtomicU64::new(0),
            bytes_total: AtomicU64::new(UNKNOWN),
            bytes_skipped: AtomicU64::new(0),
            bytes_jumped: AtomicU64::new(0),
            text_read: AtomicU64::new(0),
            text_taken: AtomicU64::new(0),
            events_before: AtomicU64::new(0),
            events: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            clock_us: AtomicI64::new(NO_CLOCK),
            source: AtomicU64::new(NO_SOURCE),
            shard: AtomicU32::new(0),
            shards: AtomicU32::new(1),
            loops: AtomicBool::new(false),
            pass: AtomicU32::new(0),
            paused: AtomicBool::new(false),
            pace_kind: AtomicU8::new(0),
            pace_bits: AtomicU64::new(0),
        }
    }
}

impl Status {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Relaxed) {
            0 => Phase::Opening,
            1 => Phase::Skipping,
            2 => Phase::Replaying,
            _ => Phase::Done,
        }
    }

    /// Of the files as they lie on the disk, those before a resume included.
    pub fn bytes_read(&self) -> u64 {
        self.0.bytes_read.load(Relaxed)
    }

    /// None where it cannot be known beforehand.
    pub fn bytes_total(&self) -> Option<u64> {
        Some(self.0.bytes_total.load(Relaxed)).filter(|total| *total != UNKNOWN)
    }

    /// Of rows, after decompression: what has been read over since the start of a resume.
    pub fn bytes_skipped(&self) -> u64 {
        self.0.bytes_skipped.load(Relaxed)
    }

    /// Of the pass, from 0 to 1, by bytes of the files. What was read counts by the share of its text that the replay
    /// is through with.
    #[allow(clippy::cast_precision_loss, reason = "a share for a progress bar")]
    pub fn fraction(&self) -> Option<f64> {
        if self.phase() == Phase::Done {
            return Some(1.0);
        }
        let total = self.bytes_total()?;
        let (ahead, taken, skipped) =
            (self.0.text_read.load(Relaxed), self.0.text_taken.load(Relaxed), self.bytes_skipped());
        let jumped = self.0.bytes_jumped.load(Relaxed).min(self.bytes_read());
        let share = if ahead + skipped == 0 { 0.0 } else { (taken + skipped) as f64 / (ahead + skipped) as f64 };
        let done = jumped as f64 + (self.bytes_read() - jumped) as f64 * share;
        (total > 0).then(|| (done / total as f64).min(1.0))
    }

    /// Of the source, as far as this shard has sent it: earlier passes and earlier runs included.
    pub fn events(&self) -> u64 {
        self.0.events_before.load(Relaxed) + self.0.events.load(Relaxed)
    }

    /// Sent in this run.
    pub fn events_this_run(&self) -> u64 {
        self.0.sent.load(Relaxed)
    }

    /// The greatest event time sent.
    pub fn clock(&self) -> Option<EventTime> {
        Some(self.0.clock_us.load(Relaxed)).filter(|us| *us != NO_CLOCK).map(EventTime)
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        let phase = match phase {
            Phase::Opening => 0,
            Phase::Skipping => 1,
            Phase::Replaying => 2,
            Phase::Done => 3,
        };
        self.0.phase.store(phase, Relaxed);
    }

    /// What control calls the source that is played: of a loop, its first pass.
    pub fn source(&self) -> Option<SourceId> {
        u32::try_from(self.0.source.load(Relaxed)).ok().map(SourceId)
    }

    /// Which of the source's shards this is, and of how many.
    pub fn shard(&self) -> Shard {
        Shard { number: self.0.shard.load(Relaxed), of: self.0.shards.load(Relaxed) }
    }

    /// Whether it is played more than once.
    pub fn loops(&self) -> bool {
        self.0.loops.load(Relaxed)
    }

    /// Which pass of a loop, from 0.
    pub fn pass(&self) -> u32 {
        self.0.pass.load(Relaxed)
    }

    pub fn is_paused(&self) -> bool {
        self.0.paused.load(Relaxed)
    }

    pub fn going(&self) -> Going {
        let number = f64::from_bits(self.0.pace_bits.load(Relaxed));
        match self.0.pace_kind.load(Relaxed) {
            1 => Going::Speed(number),
            2 => Going::Rate(number),
            3 => Going::Plan,
            _ => Going::FlatOut,
        }
    }

    pub(crate) fn set_source(&self, source: SourceId, shard: Shard, loops: bool) {
        self.0.loops.store(loops, Relaxed);
        self.0.shard.store(shard.number, Relaxed);
        self.0.shards.store(shard.of, Relaxed);
        self.0.source.store(source.0.into(), Relaxed);
    }

    pub(crate) fn set_pass(&self, pass: u32) {
        self.0.pass.store(pass, Relaxed);
    }

    /// How far the pass has come, and what was sent before it.
    pub(crate) fn begin_pass(&self, events_before: u64, progress: &Progress) {
        self.0.events_before.store(events_before, Relaxed);
        self.set_progress(progress);
    }

    pub(crate) fn set_pace(&self, kind: &Kind, paused: bool) {
        let (kind, number) = match kind {
            Kind::FlatOut => (0, 0.0),
            Kind::Speed(speed) => (1, *speed),
            Kind::Rates { plan, .. } => plan.held().map_or((3, 0.0), |rate| (2, rate)),
        };
        self.0.pace_bits.store(number.to_bits(), Relaxed);
        self.0.pace_kind.store(kind, Relaxed);
        self.0.paused.store(paused, Relaxed);
    }

    /// The files are read from their beginning, be it once more.
    pub(crate) fn begin_files(&self, total: Option<u64>) {
        self.0.bytes_total.store(total.unwrap_or(UNKNOWN), Relaxed);
        let Inner { bytes_read, bytes_jumped, bytes_skipped, text_read, text_taken, .. } = &*self.0;
        for counter in [bytes_read, bytes_jumped, bytes_skipped, text_read, text_taken] {
            counter.store(0, Relaxed);
        }
    }

    pub(crate) fn add_read(&self, bytes: u64) {
        self.0.bytes_read.fetch_add(bytes, Relaxed);
    }

    /// The files are entered so many bytes further on.
    pub(crate) fn jump(&self, bytes: u64) {
        self.0.bytes_jumped.fetch_add(bytes, Relaxed);
        self.add_read(bytes);
    }

    /// `bytes` of text are on their way to the replay.
    pub(crate) fn add_text(&self, bytes: u64) {
        self.0.text_read.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn set_taken(&self, bytes: u64) {
        self.0.text_taken.store(bytes, Relaxed);
    }

    pub(crate) fn add_skipped(&self, bytes: u64) {
        self.0.bytes_skipped.fetch_add(bytes, Relaxed);
    }

    /// A transaction with so many events has brought the pass so far.
    pub(crate) fn add_sent(&self, events: u64, progress: &Progress) {
        self.0.sent.fetch_add(events, Relaxed);
        self.set_progress(progress);
    }

    fn set_progress(&self, progress: &Progress) {
        self.0.events.store(progress.events, Relaxed);
        self.0.clock_us.store(progress.first.map_or(NO_CLOCK, |_| progress.clock.0), Relaxed);
    }
}
