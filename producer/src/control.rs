//! Steering: what the topic `replay-control` says of a source, and how the replay hears of it.
//!
//! A record holds the whole state, and the instant from which it holds: a little after it is written,
//! so that every shard has read it by then and all obey at once. What was said last holds across
//! restarts, until something else is said.
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker::{Broker, Cancel, Offset, PollLimits, Polled, Records, Topic, TopicPartition};
use records::{CONTENT_TYPE, Decoder, EventTime, Feed, Format, SourceId, clock, encode_owned, proto, topics};

use crate::error::{Error, Result};
use crate::progress;
use crate::retry::Backoff;
use crate::source::Source;
use crate::topic::{self, End};

/// From when a change is written to when it is obeyed.
const LEAD: Duration = Duration::from_millis(150);
/// A clock that differs from ours by more than this does not put off what it says, nor put it back.
const LEAD_AT_MOST: Duration = Duration::from_secs(1);
const POLL: PollLimits = PollLimits { records: 100, bytes: 1 << 20, timeout: Duration::from_millis(20) };
/// How many changes may be waiting for their instant; of more, the last one counts.
const PENDING: usize = 16;
const MILLI: f64 = 1000.0;

/// What can be asked of a replay while it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    Pause,
    Resume,
    /// Times real time.
    Speed(f64),
    /// Events a second.
    Rate(f64),
    /// What was not sent yet never will be: the end is written.
    End,
}

/// What a source was last told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Control {
    /// By the wall clock.
    pub effective_at_us: i64,
    pub paused: bool,
    /// None: as the command that plays it says.
    pub pace: Option<Steered>,
    pub end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Steered {
    Speed(f64),
    Rate(f64),
}

impl Change {
    /// As it will be written, in thousandths; refused where it cannot be obeyed.
    pub fn checked(self) -> Result<Self> {
        let number = |value: f64| {
            let is_one = value.is_finite() && (1.0 / MILLI..=1e9).contains(&value);
            let wrong = || Error::Setting(format!("{value} is neither a speed nor a rate: it must be 0.001 to 1e9"));
            is_one.then(|| (value * MILLI).round() / MILLI).ok_or_else(wrong)
        };
        Ok(match self {
            Self::Speed(speed) => Self::Speed(number(speed)?),
            Self::Rate(rate) => Self::Rate(number(rate)?),
            other => other,
        })
    }
}

impl Control {
    fn with(self, change: Change, effective_at_us: i64) -> Self {
        let next = Self { effective_at_us, ..self };
        match change {
            Change::Pause => Self { paused: true, ..next },
            Change::Resume => Self { paused: false, ..next },
            Change::Speed(speed) => Self { pace: Some(Steered::Speed(speed)), ..next },
            Change::Rate(rate) => Self { pace: Some(Steered::Rate(rate)), ..next },
            Change::End => Self { end: true, ..next },
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be 0.001 to 1e9")]
    fn to_proto(self, source: SourceId) -> proto::ReplayControl {
        let milli = |value: f64| (value * MILLI).round() as u64;
        let (mut speed_milli, mut rate_milli) = (None, None);
        match self.pace {
            Some(Steered::Speed(speed)) => speed_milli = Some(milli(speed)),
            Some(Steered::Rate(rate)) => rate_milli = Some(milli(rate)),
            None => {}
        }
        let (effective_at_us, paused, end) = (self.effective_at_us, Some(self.paused), self.end);
        proto::ReplayControl { source: source.to_string(), effective_at_us, paused, speed_milli, rate_milli, end }
    }

    #[allow(clippy::cast_precision_loss, reason = "thousandths of numbers below 1e9")]
    fn from_view(view: &proto::ReplayControlView<'_>) -> Self {
        let value = |milli: Option<u64>| milli.filter(|milli| *milli > 0).map(|milli| milli as f64 / MILLI);
        let speed = value(view.speed_milli).map(Steered::Speed);
        Self {
            effective_at_us: view.effective_at_us,
            paused: view.paused.unwrap_or(false),
            pace: speed.or_else(|| value(view.rate_milli).map(Steered::Rate)),
            end: view.end,
        }
    }
}

fn topic_of(prefix: &str) -> Topic {
    Topic::from(format!("{prefix}{}", topics::REPLAY_CONTROL).as_str())
}

/// Of a record with this key: None if it is of another source.
fn of_source(
    source: SourceId,
    record: &broker::RecordRef<'_>,
    decoder: &mut Decoder,
) -> Result<Option<Control>, String> {
    if record.key != source.digits() {
        return Ok(None);
    }
    let view = decoder
        .view::<proto::ReplayControlView<'_>>("ReplayControl", record.headers.get(CONTENT_TYPE), record.value)
        .map_err(|e| e.to_string())?;
    Ok(Some(Control::from_view(&view)))
}

/// What the source was told last, if anything, and where what comes later begins.
pub(crate) fn latest(
    broker: &dyn Broker,
    prefix: &str,
    source: SourceId,
    end: End,
    cancel: &Cancel,
) -> Result<(Option<Control>, Offset)> {
    let (mut control, mut decoder) = (None, Decoder::new());
    let read_to = topic::read(broker, &topic_of(prefix), Offset::default(), end, cancel, |record| {
        control = of_source(source, &record, &mut decoder)?.or(control);
        Ok(())
    })?;
    Ok((control, read_to))
}

/// What every source was told last.
fn latest_of_all(broker: &dyn Broker, prefix: &str, cancel: &Cancel) -> Result<BTreeMap<SourceId, Control>> {
    let (mut told, mut decoder) = (BTreeMap::new(), Decoder::new());
    topic::read(broker, &topic_of(prefix), Offset::default(), End::Readable, cancel, |record| {
        let source = std::str::from_utf8(record.key).ok().and_then(|key| key.parse().ok());
        if let Some(source) = source
            && let Some(control) = of_source(source, &record, &mut decoder)?
        {
            told.insert(source, control);
        }
        Ok(())
    })?;
    Ok(told)
}

/// A source as the topics know it, all its passes and shards together.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What control calls it: its first pass.
    pub source: SourceId,
    pub control: Option<Control>,
    /// Into how many it is split; 0 if that is not known.
    pub shards: u32,
    /// Its input can be given again. (Not a stream.)
    pub resumable: bool,
    pub feeds: Vec<FeedStanding>,
}

#[derive(Clone, Copy, Debug)]
pub struct FeedStanding {
    pub feed: Feed,
    /// Of a loop, from 0.
    pub pass: u32,
    pub events: u64,
    pub clock: Option<EventTime>,
    pub ended: bool,
}

impl Standing {
    pub fn has_ended(&self) -> bool {
        self.feeds.iter().all(|feed| feed.ended)
    }

    /// Whether this is the source, or a pass of it.
    pub fn is(&self, source: SourceId) -> bool {
        self.source == source || self.feeds.iter().any(|feed| feed.feed.source == source)
    }
}

/// Every source that was begun.
pub fn standings(broker: &dyn Broker, prefix: &str) -> Result<Vec<Standing>> {
    let cancel = Cancel::new();
    let topic = Topic::from(format!("{prefix}{}", topics::REPLAY_PROGRESS).as_str());
    let recorded = progress::read(broker, &topic, End::Readable, &cancel)?;
    let told = latest_of_all(broker, prefix, &cancel)?;
    let mut standings: BTreeMap<SourceId, Standing> = BTreeMap::new();
    for (feed, progress) in &recorded.progress {
        let (source, described) = (recorded.first_pass(feed.source), recorded.sources.get(&feed.source));
        let standing = standings.entry(source).or_insert_with(|| Standing {
            source,
            control: told.get(&source).copied(),
            shards: described.map_or(0, |described| described.shards),
            resumable: described.is_none_or(Source::resumable),
            feeds: Vec::new(),
        });
        let (pass, clock) = (described.map_or(0, |described| described.pass), progress.first.map(|_| progress.clock));
        let (feed, events, ended) = (*feed, progress.events, progress.ended);
        standing.feeds.push(FeedStanding { feed, pass, events, clock, ended });
    }
    for standing in standings.values_mut() {
        standing.feeds.sort_unstable_by_key(|feed| (feed.pass, feed.feed));
    }
    Ok(standings.into_values().collect())
}

/// Tells the source of a change: every shard of it, be it running or not. Returns what holds then.
pub fn steer(broker: &dyn Broker, prefix: &str, source: SourceId, change: Change) -> Result<Control> {
    let change = change.checked()?;
    // The writer first: two that steer at once do it one after the other.
    let mut writer = broker.writer(&format!("{prefix}control/{source}"))?;
    let (last, _) = latest(broker, prefix, source, End::Appended, &Cancel::new())?;
    let effective_at_us = clock::wall_us() + i64::try_from(LEAD.as_micros()).unwrap_or(0);
    let control = last.unwrap_or_default().with(change, effective_at_us);
    let (mut records, format) = (Records::new(), Format::default());
    let headers = [(CONTENT_TYPE, format.content_type().as_bytes())];
    records.push(effective_at_us.div_euclid(1000), &source.digits(), &headers, |out| {
        encode_owned(&control.to_proto(source), format, out);
    });
    writer.begin()?;
    writer.append(&topic_of(prefix), 0, &records)?;
    writer.commit()?;
    Ok(control)
}

/// A change on its way from the topic to the replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Told {
    /// From when it holds.
    pub(crate) from: Instant,
    /// When it was heard: before that, or too late for it.
    pub(crate) heard: Instant,
    pub(crate) control: Control,
}

#[derive(Default)]
pub(crate) struct Steering {
    pending: Mutex<VecDeque<Told>>,
    /// Whether there is any: looked at before the lock is taken.
    any: AtomicBool,
    failed: Mutex<Option<Error>>,
    over: AtomicBool,
}

impl Steering {
    fn push(&self, told: Told) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() >= PENDING {
            pending.pop_back();
        }
        pending.push_back(told);
        self.any.store(true, Relaxed);
    }

    /// The next change whose instant has come.
    pub(crate) fn take(&self, now: Instant) -> Result<Option<Told>> {
        if !self.any.load(Relaxed) {
            return Ok(None);
        }
        if let Some(error) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let due = pending.front().is_some_and(|told| told.from <= now);
        let taken = if due { pending.pop_front() } else { None };
        self.any.store(!pending.is_empty(), Relaxed);
        Ok(taken)
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        if !self.any.load(Relaxed) {
            return None;
        }
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).front().map(|told| told.from)
    }

    /// The replay is over when this is dropped.
    pub(crate) fn ends(&self) -> Ends<'_> {
        Ends(self)
    }

    /// Reads the topic from `from` on until the replay is over.
    pub(crate) fn follow(&self, broker: &dyn Broker, prefix: &str, source: SourceId, from: Offset, cancel: &Cancel) {
        let mut position = from;
        let mut backoff = Backoff::default();
        while !self.over.load(Relaxed) {
            let mut answered = false;
            if let Err(error) = self.read_on(broker, prefix, source, &mut position, &mut answered) {
                // Only failures in a row count.
                if answered {
                    backoff = Backoff::default();
                }
                if let Err(error) = backoff.wait(error, cancel) {
                    *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    self.any.store(true, Relaxed);
                    return;
                }
            }
        }
    }

    fn read_on(
        &self,
        broker: &dyn Broker,
        prefix: &str,
        source: SourceId,
        position: &mut Offset,
        answered: &mut bool,
    ) -> Result<()> {
        let topic = topic_of(prefix);
        let mut reader = broker.assign(None, &[(TopicPartition::new(&topic, 0), *position)])?;
        let mut decoder = Decoder::new();
        while !self.over.load(Relaxed) {
            let polled = reader.poll(&POLL)?;
            *answered = true;
            let Polled::Batch(batch) = polled else { continue };
            for record in batch.iter() {
                match of_source(source, &record, &mut decoder) {
                    // The only look at the wall clock: how long from now.
                    Ok(Some(control)) => {
                        let heard = clock::now();
                        let from = instant(heard, control.effective_at_us, clock::wall_us());
                        self.push(Told { from, heard, control });
                    }
                    Ok(None) => {}
                    Err(why) => tracing::warn!("{topic}-0 offset {}: {why}; it is not obeyed", record.offset),
                }
            }
            *position = batch.next_offset().unwrap_or(*position);
        }
        Ok(())
    }
}

pub(crate) struct Ends<'a>(&'a Steering);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Relaxed);
    }
}

/// From when it holds. What is heard late holds from the stated instant all the same, as it does for
/// those who heard it in time.
fn instant(now: Instant, effective_at_us: i64, wall_us: i64) -> Instant {
    let apart = Duration::from_micros(effective_at_us.abs_diff(wall_us)).min(LEAD_AT_MOST);
    if effective_at_us >= wall_us { now + apart } else { now.checked_sub(apart).unwrap_or(now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_add_up_and_read_back() {
        let mut control = Control::default();
        for (change, expected) in [
            (Change::Speed(50.0), (false, Some(Steered::Speed(50.0)), false)),
            (Change::Pause, (true, Some(Steered::Speed(50.0)), false)),
            (Change::Rate(2000.5), (true, Some(Steered::Rate(2000.5)), false)),
            (Change::Resume, (false, Some(Steered::Rate(2000.5)), false)),
            (Change::End, (false, Some(Steered::Rate(2000.5)), true)),
        ] {
            control = control.with(change, 7);
            assert_eq!((control.paused, control.pace, control.end), expected, "{change:?}");
            let mut bytes = Vec::new();
            encode_owned(&control.to_proto(SourceId(5)), Format::Protobuf, &mut bytes);
            let mut decoder = Decoder::new();
            let content_type = Some(Format::Protobuf.content_type().as_bytes());
            let view = decoder.view::<proto::ReplayControlView<'_>>("ReplayControl", content_type, &bytes).unwrap();
            assert_eq!(Control::from_view(&view), control);
        }
    }

    #[test]
    fn changes_wait_for_their_instant() {
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let steering = Steering::default();
        assert!(steering.take(start).unwrap().is_none() && steering.next().is_none());
        let control = |us| Control { effective_at_us: us, ..Control::default() };
        let told = |ms, us| Told { from: at(ms), heard: start, control: control(us) };
        steering.push(told(10, 1));
        steering.push(told(20, 2));
        assert_eq!(steering.next(), Some(at(10)));
        assert!(steering.take(at(9)).unwrap().is_none());
        assert_eq!(steering.take(at(30)).unwrap(), Some(told(10, 1)));
        assert_eq!(steering.take(at(30)).unwrap(), Some(told(20, 2)));
        assert!(steering.take(at(30)).unwrap().is_none());
        for us in 0..100 {
            steering.push(told(1, us));
        }
        let mut last = None;
        while let Some(Told { control, .. }) = steering.take(at(2)).unwrap() {
            last = Some(control.effective_at_us);
        }
        assert_eq!(last, Some(99));
    }

    #[test]
    fn a_clock_far_off_does_not_put_it_off() {
        let start = clock::now();
        let now = start + Duration::from_secs(10);
        for (effective_ms, wall_ms, at_ms) in
            [(150, 0, 10_150), (0, 150, 9_850), (1_000_000, 0, 11_000), (0, i64::MAX / 1000, 9_000)]
        {
            let at = instant(now, effective_ms * 1000, wall_ms * 1000);
            assert_eq!(at - start, Duration::from_millis(at_ms), "{effective_ms} {wall_ms}");
        }
    }
}
