//! The common life of the parts: until the input is done and every output has caught up, or a
//! signal comes, or one of them fails; then all drain.
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use crossbeam_channel::{Receiver, select, tick};

use super::live::Look;
use super::{Ended, Reports, Run};
use crate::screen::Screen;

/// A drain takes at most this long; then the process leaves. Nothing is lost either way.
const GRACE: Duration = Duration::from_secs(9);
const TICK: Duration = Duration::from_millis(20);

impl Run {
    pub(super) fn supervise(&mut self, stay: bool, signals: &Receiver<i32>, screen: &Screen) -> Result<Reports> {
        let started = records::clock::now();
        let mut reports = Reports::default();
        let mut failure = None;
        let mut running = self.threads.len() + usize::from(self.waiting.is_some());
        let mut look = Look::new(started, screen.writes_lines());
        // Set when the parts are told to drain.
        let mut leave_by: Option<Instant> = None;
        let mut told = false;
        let ticks = tick(TICK);
        while running > 0 {
            select! {
                recv(self.ended.1) -> ended => {
                    let ended = ended?;
                    running -= usize::from(!matches!(ended, Ended::Watch(_)));
                    if let Err(error) = reports.take(ended) {
                        self.live.stopped();
                        failure.get_or_insert(error);
                    }
                }
                recv(signals) -> _ => {
                    if leave_by.is_none() && !reports.caught_up {
                        screen.say("clickstream: draining; once more to leave at once");
                    }
                    reports.signalled = true;
                }
                recv(ticks) -> _ => {}
            }
            if leave_by.is_none() {
                self.start_producer()?;
            }
            let now = records::clock::now();
            look.at(now, &self.live, screen);
            let finished = reports.producer.as_ref().is_some_and(|p| p.outcome != producer::Outcome::Drained);
            if finished && !reports.caught_up && failure.is_none() && leave_by.is_none() {
                if !std::mem::replace(&mut told, true) {
                    let _ = self.input_done.try_send(());
                    let outcome = reports.producer.as_ref().map(|report| report.outcome);
                    // Without `stay` the summary says so in a moment.
                    if stay && outcome == Some(producer::Outcome::AlreadyDone) {
                        screen.say("clickstream: this source was played to its end before; --restart plays it anew");
                    }
                }
                reports.caught_up = self.live.has_caught_up();
                if reports.caught_up {
                    reports.elapsed = now - started;
                    if stay {
                        screen.say("clickstream: the input is done and every output has caught up; Ctrl-C ends this");
                    }
                }
            }
            let end = failure.is_some() || reports.signalled || (reports.caught_up && !stay);
            if end && leave_by.is_none() {
                // A producer that was not started has nothing to drain.
                running -= usize::from(self.waiting.take().is_some());
                self.cancel.cancel();
                leave_by = Some(now + GRACE);
            }
            if leave_by.is_some_and(|by| now > by) {
                if failure.is_none() && !self.broker.answers() {
                    // It was asked to end, and cannot be held up by what does not answer.
                    screen.say("clickstream: no broker answers; what was in hand is left to the next start, and nothing is lost");
                    reports.elapsed = now - started;
                    return Ok(reports);
                }
                let why = anyhow!("a part did not drain within {GRACE:?}; nothing is lost, the same command goes on");
                return Err(failure.unwrap_or(why));
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if !reports.caught_up {
            reports.elapsed = records::clock::now() - started;
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(reports),
        }
    }
}

fn is_cancelled(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(producer::Error::Broker(broker::Error::Cancelled)))
}

impl Reports {
    fn take(&mut self, ended: Ended) -> Result<()> {
        match ended {
            // A signal came before it had begun to play.
            Ended::Producer(Err(error)) if is_cancelled(&error) => {}
            Ended::Producer(report) => self.producer = Some(report?),
            Ended::Sessionizer(report) => self.sessionizer = Some(report?),
            Ended::Sink(done) => done?,
            Ended::Marts(report) => self.marts = Some(report?),
            Ended::Watch(error) => return Err(error),
        }
        Ok(())
    }
}
