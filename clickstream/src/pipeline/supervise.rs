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
        let mut running = self.threads.len();
        let mut look = Look::new(started, screen.writes_lines());
        // Set when the parts are told to drain.
        let mut leave_by: Option<Instant> = None;
        let mut caught_up = false;
        let ticks = tick(TICK);
        while running > 0 {
            select! {
                recv(self.ended.1) -> ended => {
                    running -= 1;
                    if let Err(error) = reports.take(ended?) {
                        self.live.stopped();
                        failure.get_or_insert(error);
                    }
                }
                recv(signals) -> _ => {
                    if leave_by.is_none() && !caught_up {
                        screen.say("clickstream: draining; once more to leave at once");
                    }
                    reports.signalled = true;
                }
                recv(ticks) -> _ => {}
            }
            if leave_by.is_none() && self.start_producer()? {
                running += 1;
            }
            let now = records::clock::now();
            look.at(now, self, screen)?;
            let finished = reports.producer.as_ref().is_some_and(|p| p.outcome != producer::Outcome::Drained);
            if finished && !caught_up && failure.is_none() {
                caught_up = self.caught_up()?;
                if caught_up {
                    reports.elapsed = now - started;
                    self.live.caught_up();
                    if stay {
                        screen.say("clickstream: the input is done and every output has caught up; Ctrl-C ends this");
                    }
                }
            }
            let end = failure.is_some() || reports.signalled || (caught_up && !stay);
            if end && leave_by.is_none() {
                self.cancel.cancel();
                leave_by = Some(now + GRACE);
            }
            if leave_by.is_some_and(|by| now > by) {
                let why = anyhow!("a part did not drain within {GRACE:?}; nothing is lost, the same command goes on");
                return Err(failure.unwrap_or(why));
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if !caught_up {
            reports.elapsed = records::clock::now() - started;
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(reports),
        }
    }
}

impl Reports {
    fn take(&mut self, ended: Ended) -> Result<()> {
        match ended {
            Ended::Producer(report) => self.producer = Some(report?),
            Ended::Sessionizer(report) => self.sessionizer = Some(report?),
            Ended::Lake(report) => self.lake = Some(report?),
            Ended::Marts(report) => self.marts = Some(report?),
        }
        Ok(())
    }
}
