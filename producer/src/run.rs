//! The whole wiring: files → rows → turns → transactions, one pass of the input after another.
use std::time::{Duration, Instant};

use broker::{Broker, Cancel, Topic};
use records::{EventTime, Feed, SourceId, clock, topics};

use crate::commit::{Around, Claim, Committed, Committer};
use crate::control::{self, Control, Steering};
use crate::error::{Error, Result, RowFault};
use crate::input::{self, Lines, Part, Place};
use crate::metrics::Metrics;
use crate::pace::{Pacer, Stop};
use crate::progress::{self, Progress, Recorded};
use crate::publish::{Publisher, REASONS_KEPT};
use crate::quantiles::{Quantiles, Spread};
use crate::replay::{Made, Replay};
use crate::retry::patiently;
use crate::rows::{Rows, Shift};
use crate::settings::{Pace, Passes, Settings};
use crate::source::Source;
use crate::status::{Phase, Status};
use crate::topic::End;

/// Each pass of a loop is so many whole days later than the one before, that it begins after its end.
const DAY_US: i64 = 86_400 * 1_000_000;
/// How long a shard waits for the first one to say by how much times are moved.
const SHIFT_WAIT: Duration = Duration::from_secs(30);
const SHIFT_STEP: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The input is exhausted, and its end is written.
    Finished,
    /// It was, in an earlier run: nothing was published.
    AlreadyDone,
    /// Cancelled before the end; the same input goes on from there.
    Drained,
}

/// What a replay has done. Events and dead letters are those of this run; `…_of_source` those of all runs.
#[derive(Clone, Debug)]
pub struct Report {
    pub source: SourceId,
    pub feed: Feed,
    pub outcome: Outcome,
    pub events: u64,
    pub dead_letters: u64,
    pub events_of_source: u64,
    pub dead_letters_of_source: u64,
    /// Of this run, on purpose.
    pub made: Made,
    /// Of this run: passes of the input that came to their end.
    pub passes: u32,
    /// Of this run.
    pub first_reasons: Vec<RowFault>,
    pub elapsed: Duration,
    /// How much of the schedule was given up (`CatchUp::Slide`).
    pub slid: Duration,
    /// Sending minus intended.
    pub sending_error: Spread,
    /// Visible (committed) minus intended.
    pub visible_error: Spread,
    /// The input can be given again: it goes on where it was. (Not a stream.)
    pub resumable: bool,
}

/// Replays the inputs. Returns when they are exhausted, when `cancel` is set, or at the first error;
/// what was read before is committed in each case.
pub fn run(
    broker: &dyn Broker,
    settings: &Settings,
    metrics: &Metrics,
    status: &Status,
    cancel: &Cancel,
) -> Result<Report> {
    settings.check()?;
    status.set_phase(Phase::Opening);
    let parts = input::list(&settings.inputs)?;
    let typed = Source::of(&parts, &settings.identity(), settings.shard.of);
    // Its own open transaction, if it was killed in one, ends with the new writer: what that hides is
    // looked at after it.
    let known = || -> Result<_> {
        let recorded = recorded(broker, settings, cancel)?;
        let source = recorded.as_played(&typed, settings.shard.number, settings.restart);
        let latest = || control::latest(broker, &settings.prefix, source.id, End::Appended, cancel);
        let (told, from) = patiently(cancel, latest)?;
        Ok((recorded, source, told, from))
    };
    let (recorded, source, told, from) = match known() {
        Err(error) if is_cancelled(&error) => {
            let pass = Pass::not_begun(typed, &Recorded::default(), settings.shard.number);
            return Ok(report(settings, pass, Done::new(Recorded::default())));
        }
        known => known?,
    };
    status.set_source(source.id, settings.shard, settings.passes != Passes::Times(1));
    if let Some(told) = told {
        tracing::warn!(
            paused = told.paused, pace = ?told.pace, end = told.end,
            "control has said so earlier, and it holds until it says otherwise"
        );
    }
    let (steering, id) = (Steering::default(), source.id);
    std::thread::scope(|scope| {
        let follow = || steering.follow(broker, &settings.prefix, id, from, cancel);
        std::thread::Builder::new()
            .name("producer-control".into())
            .spawn_scoped(scope, follow)
            .map_err(|e| Error::Broker(broker::Error::Stop(format!("no thread to hear of control on: {e}"))))?;
        let session = Session { broker, settings, metrics, status, cancel, steering: &steering, parts, source };
        let _ends = steering.ends();
        session.play(told, recorded)
    })
}

/// Lists the inputs and looks at each, as [`run`] does before its first row: what it would refuse is
/// refused here.
pub fn look(settings: &Settings) -> Result<()> {
    settings.check()?;
    input::look(&settings.inputs)
}

fn recorded(broker: &dyn Broker, settings: &Settings, cancel: &Cancel) -> Result<Recorded> {
    let topic = format!("{}{}", settings.prefix, topics::REPLAY_PROGRESS);
    let topic = Topic::from(topic.as_str());
    patiently(cancel, || progress::read(broker, &topic, End::Readable, cancel))
}

/// What all passes have in common.
struct Session<'a> {
    broker: &'a dyn Broker,
    settings: &'a Settings,
    metrics: &'a Metrics,
    status: &'a Status,
    cancel: &'a Cancel,
    steering: &'a Steering,
    parts: Vec<Part>,
    /// The first pass.
    source: Source,
}

/// What has been done so far in this run.
struct Done {
    begun: Instant,
    sending: Quantiles,
    committed: Committed,
    made: Made,
    passes: u32,
    reasons: Vec<RowFault>,
    slid: Duration,
    /// What replay-progress held when it was read last.
    recorded: Recorded,
}

/// A pass that was played, or had been.
struct Pass {
    source: Source,
    outcome: Outcome,
    progress: Progress,
    shift_us: i64,
    ended_by_control: bool,
}

impl Done {
    fn new(recorded: Recorded) -> Self {
        Self {
            begun: clock::now(),
            sending: Quantiles::default(),
            committed: Committed::default(),
            made: Made::default(),
            passes: 0,
            reasons: Vec::new(),
            slid: Duration::ZERO,
            recorded,
        }
    }
}

impl Pass {
    /// One that was cancelled before it began; `recorded` is what is known of it.
    fn not_begun(source: Source, recorded: &Recorded, shard: u32) -> Self {
        Self {
            outcome: Outcome::Drained,
            progress: recorded.progress.get(&source.feed(shard)).copied().unwrap_or_default(),
            shift_us: 0,
            ended_by_control: false,
            source,
        }
    }
}

fn report(settings: &Settings, pass: Pass, done: Done) -> Report {
    let outcome = match pass.outcome {
        Outcome::AlreadyDone if done.passes > 0 => Outcome::Finished,
        outcome => outcome,
    };
    Report {
        source: pass.source.id,
        feed: pass.source.feed(settings.shard.number),
        outcome,
        events: done.committed.events,
        dead_letters: done.committed.dead_letters,
        events_of_source: pass.progress.events,
        dead_letters_of_source: pass.progress.dead_letters,
        made: done.made,
        passes: done.passes,
        first_reasons: done.reasons,
        elapsed: clock::now() - done.begun,
        slid: done.slid,
        sending_error: done.sending.spread(),
        visible_error: done.committed.visible.spread(),
        resumable: pass.source.resumable(),
    }
}

impl Session<'_> {
    fn play(&self, told: Option<Control>, recorded: Recorded) -> Result<Report> {
        let mut told = told;
        let (mut number, mut before) = self.first_open_pass(&recorded, told.is_some_and(|told| told.end));
        let mut done = Done::new(recorded);
        loop {
            // A pass may be too short for anything to be heard in it.
            while let Some(heard) = self.steering.take(clock::now())? {
                told = Some(heard.control);
            }
            let pass = match self.pass(number, before, &mut told, &mut done) {
                // Before its first row: its feed could not be taken over any more.
                Err(error) if is_cancelled(&error) => {
                    Pass::not_begun(self.source.at_pass(number), &done.recorded, self.settings.shard.number)
                }
                played => played?,
            };
            let last = !self.goes_on_after(number, &pass.progress);
            if pass.outcome == Outcome::Drained || last || pass.ended_by_control {
                if pass.outcome != Outcome::Drained {
                    self.status.set_phase(Phase::Done);
                }
                return Ok(report(self.settings, pass, done));
            }
            tracing::info!(source = %pass.source.id, pass = number, "a pass is at its end; the next one begins");
            before = Some((pass.progress, pass.shift_us));
            number += 1;
        }
    }

    fn recorded(&self) -> Result<Recorded> {
        recorded(self.broker, self.settings, self.cancel)
    }

    /// Whether another pass follows the one of that number, which came so far.
    fn goes_on_after(&self, number: u32, progress: &Progress) -> bool {
        match self.settings.passes {
            Passes::Times(times) => number + 1 < times,
            // A pass without a row moves nothing on.
            Passes::Endless => progress.taken > 0 || progress.dead_letters > 0,
        }
    }

    fn feed_of_pass(&self, number: u32) -> Feed {
        self.source.at_pass(number).feed(self.settings.shard.number)
    }

    /// The first pass that has not ended, or the last one; and how the one before it went. Of a source
    /// that control has ended, the last one is the last that was begun.
    fn first_open_pass(&self, recorded: &Recorded, is_ended: bool) -> (u32, Option<(Progress, i64)>) {
        let (mut number, mut before) = (0, None);
        loop {
            let source = self.source.at_pass(number);
            let last = matches!(self.settings.passes, Passes::Times(times) if number + 1 >= times)
                || (is_ended && !recorded.progress.contains_key(&self.feed_of_pass(number + 1)));
            match recorded.progress.get(&self.feed_of_pass(number)) {
                Some(progress) if progress.ended && !last => {
                    before = Some((*progress, recorded.shift_us(source.id).unwrap_or(0)));
                    number += 1;
                }
                _ => return (number, before),
            }
        }
    }

    /// By how much times are moved: as it was when the source was begun, or as it is now.
    fn shift(&self, source: &Source, recorded: &Recorded, before: Option<(Progress, i64)>) -> Result<Shift> {
        if let Some(shift_us) = recorded.shift_us(source.id) {
            return Ok(Shift::Fixed(shift_us));
        }
        if let Some((before, shift_us)) = before {
            return Ok(Shift::Fixed(shift_us.saturating_add(days_between(&before))));
        }
        if !self.settings.rebase {
            return Ok(Shift::Fixed(0));
        }
        if self.settings.shard.number == 0 {
            return Ok(Shift::FirstTo(EventTime(clock::wall_us())));
        }
        // All shards move by the same: the first one says by how much.
        let mut waited = Duration::ZERO;
        while waited < SHIFT_WAIT {
            if let Some(shift_us) = self.recorded()?.shift_us(source.id) {
                return Ok(Shift::Fixed(shift_us));
            }
            if self.cancel.wait(SHIFT_STEP) {
                return Err(Error::Broker(broker::Error::Cancelled));
            }
            waited += SHIFT_STEP;
        }
        let why = format!(
            "--rebase now: shard 0 of source {} says by how much times are moved, and has not begun after \
             {SHIFT_WAIT:?}; start it",
            source.id
        );
        Err(Error::Refused(why))
    }

    fn pass(
        &self,
        number: u32,
        before: Option<(Progress, i64)>,
        told: &mut Option<Control>,
        done: &mut Done,
    ) -> Result<Pass> {
        let Self { broker, settings, metrics, status, cancel, parts, .. } = self;
        let source = self.source.at_pass(number);
        let feed = source.feed(settings.shard.number);
        status.set_pass(number);
        status.set_phase(Phase::Opening);
        status.begin_files(parts.iter().map(|part| part.size).sum());
        let claim = Claim::feed(*broker, settings, feed, &mut done.recorded, cancel)?;
        let recorded = &done.recorded;
        // All passes have the same rows.
        let rows_before = before.map_or(0, |(last, _)| last.taken.saturating_mul(number.into()));
        // A later pass is of the same files as the one before it; what was begun goes on, whatever was
        // begun beside it.
        let begun = recorded.restarts(&source);
        if !settings.beside
            && done.passes == 0
            && begun.is_none()
            && let Some(why) = recorded.sources.values().find_map(|earlier| source.conflict(earlier))
        {
            let anew =
                if broker.kind() == "embedded" { ", or --restart to empty this one and play it alone" } else { "" };
            return Err(Error::Refused(format!("{why}{anew}")));
        }
        let anew = settings.restart && done.passes == 0;
        if recorded.as_played(&source, settings.shard.number, anew).restart != source.restart {
            let (id, restart) = (source.id, source.restart);
            return Err(Error::Refused(format!(
                "source {id} (restart {restart}) was begun anew by another process meanwhile; the same command goes on \
                 with the new one"
            )));
        }
        let progress = recorded.progress.get(&feed).copied().unwrap_or_default();
        let sent = |number| recorded.progress.get(&self.feed_of_pass(number)).map_or(0, |progress| progress.events);
        status.begin_pass((0..number).map(sent).sum(), &progress);
        let shift = self.shift(&source, recorded, before)?;
        let shift_us = if let Shift::Fixed(us) = shift { us } else { 0 };
        let pass = |outcome, progress, shift_us, ended_by_control| Pass {
            source: source.clone(),
            outcome,
            progress,
            shift_us,
            ended_by_control,
        };
        if progress.ended {
            return Ok(pass(Outcome::AlreadyDone, progress, shift_us, told.is_some_and(|told| told.end)));
        }
        let partitions = u32::try_from(claim.partitions).unwrap_or(u32::MAX);
        if let Some(why) = recorded.refusal(feed, partitions, &settings.flags) {
            return Err(Error::Refused(why));
        }
        // Of a feed that was begun before this was written down it is not known with how many.
        let is_new = progress == Progress::default();
        let to_come = Progress { partitions: if is_new { partitions } else { progress.partitions }, ..progress };
        tracing::info!(
            source = %source.id, pass = number, files = parts.len(), row = progress.next.source_row, "the replay begins"
        );
        let undescribed = recorded.shift_us(source.id).is_none().then(|| source.clone());
        let from = (progress.next != Place::default()).then_some(progress.next);
        let lines = Lines::open(parts.clone(), from, settings.gzip_index.clone(), status)?;
        let rows = Rows::new(lines, settings.window, settings.shard, settings.disorder, shift, progress.taken);
        let flat_out = settings.pace == Pace::FlatOut;
        let around = Around { broker: *broker, metrics, status, cancel, feed, flat_out };
        std::thread::scope(|scope| {
            let committer = Committer::spawn(scope, claim, around, progress)?;
            let mut publisher = Publisher::new(committer, &around, settings, undescribed, to_come);
            let (outcome, by_control) = self.play_pass(number, rows, rows_before, &mut publisher, told, done)?;
            done.sending.add(&publisher.sending);
            done.committed.add(publisher.committed());
            done.reasons.extend(publisher.reasons.iter().cloned());
            done.reasons.truncate(REASONS_KEPT);
            done.passes += u32::from(outcome == Outcome::Finished);
            let shift_us = publisher.shift_us().unwrap_or(shift_us);
            Ok(pass(outcome, publisher.committed().progress, shift_us, by_control))
        })
    }

    /// Plays all that is left of the input and commits it, with its end; or what was read before a
    /// fault or a cancel. Says whether control has ended it.
    fn play_pass(
        &self,
        number: u32,
        rows: Rows,
        rows_before: u64,
        publisher: &mut Publisher<'_>,
        told: &mut Option<Control>,
        done: &mut Done,
    ) -> Result<(Outcome, bool)> {
        let Self { settings, metrics, status, cancel, steering, .. } = self;
        let progress = *publisher.progress();
        let stretch_broken = settings.disorder.shuffle.is_some() && progress.sent_of_next > 0;
        let resume_at_us = progress.first.filter(|_| !stretch_broken).map(|_| progress.schedule.us);
        publisher.tell_shift(rows.shift_us());
        let pacer = Pacer::new(settings, rows_before, *told, steering, cancel, status, resume_at_us);
        let sent_before = progress.sent_of_next;
        let made = Made::default();
        let mut replay = Replay { rows, publisher, pacer, settings, sent_before, made, metrics };
        let played = if told.is_some_and(|told| told.end) { Ok(Stop::Ended) } else { replay.play() };
        done.made.add(replay.made);
        done.slid += replay.pacer.slid;
        *told = replay.pacer.told;
        // The reader may be blocked in a full channel: it goes before what follows.
        drop(replay);
        let handed = match &played {
            Ok(Stop::End) => publisher.end(self.next_pass(number, publisher, &done.recorded).as_ref()),
            Ok(Stop::Ended) => publisher.end(None),
            Ok(Stop::Cancelled) | Err(Error::File { .. } | Error::DeadLetters { .. }) => publisher.commit(),
            Err(_) => Ok(()),
        };
        let committed = handed.and(publisher.finish());
        match (played, committed) {
            (_, Err(error)) | (Err(error), Ok(())) if is_cancelled(&error) => Ok((Outcome::Drained, false)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(Stop::Cancelled), Ok(())) => Ok((Outcome::Drained, false)),
            (Ok(stop), Ok(())) => Ok((Outcome::Finished, stop == Stop::Ended)),
        }
    }

    /// What the end of this pass begins.
    fn next_pass(&self, number: u32, publisher: &Publisher<'_>, recorded: &Recorded) -> Option<Source> {
        let progress = publisher.progress();
        let begun = recorded.progress.contains_key(&self.feed_of_pass(number + 1));
        (self.goes_on_after(number, progress) && !begun).then(|| {
            let shift_us = publisher.shift_us().unwrap_or(0).saturating_add(days_between(progress));
            Source { shift_us, ..self.source.at_pass(number + 1) }
        })
    }
}

/// Whole days, so that hours and weekdays' rhythm stay, and at least as long as the pass was.
fn days_between(before: &Progress) -> i64 {
    let length = before.clock.0.saturating_sub(before.first.unwrap_or(before.clock).0);
    (length.div_euclid(DAY_US) + 1).saturating_mul(DAY_US)
}

fn is_cancelled(error: &Error) -> bool {
    matches!(error, Error::Broker(broker::Error::Cancelled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_whole_days_apart() {
        let at = EventTime::from_seconds;
        for (first, last, days) in [(0, 10_000, 1), (0, 86_399, 1), (0, 86_400, 2), (50_000, 86_400 * 30, 30)] {
            let before = Progress { first: Some(at(first)), clock: at(last), ..Progress::default() };
            assert_eq!(days_between(&before), days * DAY_US, "{first} to {last}");
        }
    }
}
