//! One assigned partition: what is gathered, what is under way, and what is committed. No I/O: the
//! loop (`run`) commits, sends and reads for it.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use broker::{Batch, Commit, Incarnation, Offset, TopicPartition};

use super::backend::Connection;
use super::error::{Error, Result};
use super::plan::{Given, OUTSTANDING_MAX, Plan, Position, Resume, Stream, fit};
use super::rows::{Limits, Rows, offsets, without};
use crate::retry::Backoff;

pub(super) struct Partition {
    /// Of this assignment: answers name it.
    pub(super) id: u64,
    pub(super) key: TopicPartition,
    /// By its place in the tables.
    pub(super) table: usize,
    incarnation: Incarnation,
    pub(super) stream: Option<Stream>,
    pub(super) given: Given,
    /// Where the first flight begins.
    pub(super) committed: Offset,
    /// Next to be taken from what was read.
    taken_to: Offset,
    /// Next to read.
    pub(super) position: Offset,
    /// Read, and not yet taken.
    pending: VecDeque<Batch>,
    rows: Box<dyn Rows>,
    /// When the first record came that is in no flight yet.
    opened_at: Option<Instant>,
    /// It can take no more before it is cut.
    full: bool,
    /// Plans of an earlier run, whose rows have not come again yet.
    replay: VecDeque<Plan>,
    pub(super) flights: VecDeque<Flight>,
    /// The metadata that is committed is not this any more.
    pub(super) dirty: bool,
    /// Rows left out whose dead letters stand in no commit yet, by offset.
    pub(super) letters: BTreeMap<i64, String>,
    /// Those that do, past what is committed: what is read again is left out again.
    lettered: BTreeSet<i64>,
    pub(super) connection: Option<Box<dyn Connection>>,
    /// When something was last sent.
    pub(super) used_at: Option<Instant>,
    /// Counts connections: answers of an earlier one say nothing.
    pub(super) epoch: u64,
    /// While it fails.
    pub(super) backoff: Option<Backoff>,
    pub(super) hold_until: Option<Instant>,
}

/// A plan under way, with its rows.
pub(super) struct Flight {
    pub(super) plan: Plan,
    pub(super) batch: RecordBatch,
    /// In memory: buffers are larger than what is sent of them.
    pub(super) bytes: usize,
    pub(super) sent_at_us: Vec<i64>,
    pub(super) state: State,
    /// It may have been sent to this stream before.
    pub(super) asked_before: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It stands in no commit yet.
    Planned,
    Ready,
    Sent(Instant),
    /// Its rows are in the table.
    Done,
}

/// What a partition has taken from what was read.
#[derive(Debug, Default)]
pub(super) struct Filled {
    pub(super) unreadable: u64,
    pub(super) why: Option<String>,
}

/// When rows are cut into a plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) limits: Limits,
    pub(super) linger: Duration,
    /// Whatever there is.
    pub(super) all: bool,
}

impl Partition {
    pub(super) fn new(
        id: u64,
        key: TopicPartition,
        table: usize,
        incarnation: Incarnation,
        resume: Resume,
        rows: Box<dyn Rows>,
    ) -> Self {
        Self {
            id,
            key,
            table,
            incarnation,
            stream: resume.stream,
            given: resume.given,
            committed: resume.from,
            taken_to: resume.from,
            position: resume.from,
            pending: VecDeque::new(),
            rows,
            opened_at: None,
            full: false,
            replay: resume.plans.into(),
            flights: VecDeque::new(),
            dirty: resume.fresh,
            letters: BTreeMap::new(),
            lettered: BTreeSet::new(),
            connection: None,
            used_at: None,
            epoch: 0,
            backoff: None,
            hold_until: None,
        }
    }

    /// What names a row of it together with its offset.
    pub(super) fn origin(&self) -> String {
        format!("{}-{}", self.incarnation, self.key)
    }

    pub(super) fn give(&mut self, batch: Batch) -> Result<()> {
        let (Some(first), Some(next)) = (batch.first_offset(), batch.next_offset()) else { return Ok(()) };
        if first < self.position {
            let (key, position) = (&self.key, self.position);
            return Err(Error::Stop(format!("{key}: the broker gave offset {first} again, {position} was next")));
        }
        self.position = next;
        self.pending.push_back(batch);
        Ok(())
    }

    pub(super) fn held_bytes(&self) -> usize {
        let pending: usize = self.pending.iter().map(Batch::bytes).sum();
        let flights: usize = self.flights.iter().map(|flight| flight.bytes).sum();
        self.rows.bytes() + pending + flights
    }

    /// Nothing of it is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.opened_at.is_none() && self.pending.is_empty() && !self.dirty
    }

    /// Takes from what was read, until it must be cut.
    pub(super) fn fill(&mut self, limits: Limits, now: Instant) -> Filled {
        let mut filled = Filled::default();
        while !self.full
            && let Some(batch) = self.pending.front()
        {
            let plan = self.replay.front();
            let all = Limits { rows: usize::MAX, bytes: usize::MAX };
            let taken = match plan {
                Some(plan) => self.rows.take(batch, plan.last, &|offset| plan.omits(offset), all),
                None => self.rows.take(batch, i64::MAX, &|_| false, limits),
            };
            let rest = batch.slice(taken.records, usize::MAX);
            let rest_at = rest.first_offset();
            if let Some(next) = taken.next {
                self.taken_to = Offset(next);
                self.opened_at.get_or_insert(now);
            }
            self.full = taken.full;
            if let Some(plan) = plan
                && (self.taken_to.0 > plan.last || rest_at.is_some_and(|offset| offset.0 > plan.last))
            {
                self.taken_to = Offset(plan.last + 1);
                self.opened_at.get_or_insert(now);
                self.full = true;
            }
            if rest_at.is_none() {
                self.pending.pop_front();
            } else if let Some(front) = self.pending.front_mut() {
                *front = rest;
            }
            filled.unreadable += taken.unreadable;
            filled.why = taken.why.or(filled.why);
        }
        filled
    }

    /// Whether what is gathered is to be cut into a plan, and may be.
    pub(super) fn is_due(&self, due: Due, now: Instant) -> bool {
        let Some(opened_at) = self.opened_at else { return false };
        if !self.replay.is_empty() {
            return self.full;
        }
        let wanted = self.full
            || due.all
            || self.rows.rows() >= due.limits.rows
            || now.saturating_duration_since(opened_at) >= due.linger;
        // A range without rows is only advanced over, when nothing is before it.
        wanted && self.flights.len() < OUTSTANDING_MAX && (self.rows.rows() > 0 || self.flights.is_empty())
    }

    /// Cuts what is gathered into a plan. `planned`: it must be committed before it is sent. Returns
    /// where to read again from, if not all of it has a place in one plan.
    pub(super) fn cut(&mut self, planned: bool) -> Result<Option<Offset>> {
        let finished = self.rows.finish().map_err(|e| Error::Stop(format!("{}: {e}", self.key)))?;
        let last = self.taken_to.0 - 1;
        (self.opened_at, self.full) = (None, false);
        let bytes = finished.batch.get_array_memory_size();
        let mut flight = Flight {
            plan: Plan { last, rows: 0, omitted: Vec::new() },
            batch: finished.batch,
            bytes,
            sent_at_us: finished.sent_at_us,
            state: if planned { State::Planned } else { State::Ready },
            asked_before: false,
        };
        if let Some(plan) = self.replay.pop_front() {
            let found = rows_of(&flight.batch);
            if found != plan.rows || !finished.omitted.is_empty() {
                return Err(Error::Stop(format!(
                    "{}: the plan of an earlier run up to offset {last} has {} rows, but now there are {found}: use the \
                     version that made it",
                    self.key, plan.rows
                )));
            }
            flight.plan = plan;
            flight.asked_before = true;
            flight.state = if found == 0 { State::Done } else { State::Ready };
            self.flights.push_back(flight);
            return Ok(None);
        }
        let again = self.leave_out(&mut flight, &finished.omitted, planned)?;
        if flight.plan.rows == 0 && self.flights.is_empty() {
            self.committed = Offset(flight.plan.last + 1);
            self.dirty = true;
        } else {
            self.dirty |= planned || !finished.omitted.is_empty();
            self.flights.push_back(flight);
        }
        if let Some(to) = again {
            self.rewind(to)?;
        }
        Ok(again)
    }

    /// Notes rows (by offset, in order; they are not in the batch any more) as left out of a flight.
    /// Returns where the flight now ends earlier, if not all of them have a place in its plan.
    fn leave_out(&mut self, flight: &mut Flight, omitted: &[(i64, String)], planned: bool) -> Result<Option<Offset>> {
        let before = flight.plan.omitted.iter().flat_map(|range| range.0..=range.1);
        let mut all: Vec<i64> = before.chain(omitted.iter().map(|(offset, _)| *offset)).collect();
        all.sort_unstable();
        let (ranges, past) = fit(&all);
        flight.plan.omitted = ranges;
        if let Some(past) = past {
            flight.plan.last = past - 1;
            let beyond: Vec<usize> =
                (0..flight.batch.num_rows()).filter(|row| offsets(&flight.batch)[*row] >= past).collect();
            flight.batch = without(&flight.batch, &beyond).map_err(|e| Error::Stop(format!("{}: {e}", self.key)))?;
        }
        flight.plan.rows = rows_of(&flight.batch);
        flight.bytes = flight.batch.get_array_memory_size();
        let last = flight.plan.last;
        let is_new = |(offset, _): &&(i64, String)| *offset <= last && !self.lettered.contains(offset);
        self.letters.extend(omitted.iter().filter(is_new).cloned());
        flight.state = match flight.plan.rows {
            0 => State::Done,
            _ if planned || !omitted.is_empty() => State::Planned,
            _ => State::Ready,
        };
        Ok(past.map(Offset))
    }

    /// Leaves rows (by their place) out of a flight. Returns where to read again from, if what comes
    /// after it is not what follows any more.
    pub(super) fn shrink(&mut self, at: usize, rows: Vec<(usize, String)>) -> Result<Option<Offset>> {
        let Some(mut flight) = self.flights.remove(at) else { return Ok(None) };
        let offsets = offsets(&flight.batch).to_vec();
        let known = |row: usize| offsets.get(row).copied();
        let omitted: Option<Vec<(i64, String)>> =
            rows.iter().map(|(row, why)| Some((known(*row)?, why.clone()))).collect();
        let Some(omitted) = omitted else {
            let rows = flight.plan.rows;
            return Err(Error::Stop(format!("{}: of {rows} rows one was refused that is none of them", self.key)));
        };
        let places: Vec<usize> = rows.into_iter().map(|(row, _)| row).collect();
        flight.batch = without(&flight.batch, &places).map_err(|e| Error::Stop(format!("{}: {e}", self.key)))?;
        let again = self.leave_out(&mut flight, &omitted, true)?;
        if again.is_some() {
            self.flights.truncate(at);
        }
        self.flights.insert(at, flight);
        self.dirty = true;
        if let Some(to) = again {
            self.rewind(to)?;
        }
        Ok(again)
    }

    /// Forgets what was read past `to` and is in no flight.
    fn rewind(&mut self, to: Offset) -> Result<()> {
        self.replay.clear();
        self.letters.split_off(&to.0);
        self.go_on_at(to)
    }

    /// So many plans of an earlier run, the next ones, are in the table as all flights are: they need not
    /// be read. Returns where to read on.
    pub(super) fn skip(&mut self, plans: usize) -> Result<Option<Offset>> {
        let Some(last) = self.flights.back_mut().filter(|_| plans > 0) else { return Ok(None) };
        for plan in self.replay.drain(..plans.min(self.replay.len())) {
            last.plan.last = plan.last;
            last.plan.rows += plan.rows;
        }
        let to = Offset(last.plan.last + 1);
        self.go_on_at(to)?;
        Ok(Some(to))
    }

    fn go_on_at(&mut self, to: Offset) -> Result<()> {
        self.rows.finish().map_err(|e| Error::Stop(format!("{}: {e}", self.key)))?;
        self.pending.clear();
        (self.taken_to, self.position) = (to, to);
        (self.opened_at, self.full) = (None, false);
        Ok(())
    }

    /// Takes away what is in the table, from the front.
    pub(super) fn pop_done(&mut self) -> Vec<Flight> {
        let mut done = Vec::new();
        while self.flights.front().is_some_and(|flight| flight.state == State::Done) {
            let Some(flight) = self.flights.pop_front() else { break };
            if let Some(stream) = &mut self.stream {
                stream.rows += flight.plan.rows;
            }
            self.given.rows += flight.plan.rows;
            self.committed = Offset(flight.plan.last + 1);
            self.dirty = true;
            done.push(flight);
        }
        done
    }

    /// Where the flight's rows go in the stream.
    pub(super) fn stream_offset(&self, flight: usize) -> i64 {
        let before: i64 = self.flights.iter().take(flight).map(|flight| flight.plan.rows).sum();
        self.stream.as_ref().map_or(0, |stream| stream.rows) + before
    }

    /// Sends all again that is not known to be in the table, on a new connection.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.epoch += 1;
        for flight in &mut self.flights {
            if matches!(flight.state, State::Sent(_)) {
                (flight.state, flight.asked_before) = (State::Ready, true);
            }
        }
    }

    /// A connection that was idle for so long is not used again: the server may have closed it, and of what
    /// is sent there nobody would know whether it arrived.
    pub(super) fn end_if_idle(&mut self, now: Instant, idle: Duration) {
        let is_sent = |flight: &Flight| matches!(flight.state, State::Sent(_));
        if self.used_at.is_some_and(|at| now.saturating_duration_since(at) >= idle) && !self.flights.iter().any(is_sent)
        {
            self.disconnect();
        }
    }

    /// Whether any plan may be in the stream unacknowledged, where those that are acknowledged were taken
    /// away: the next one would have gone in first.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.flights.front().map_or(!self.replay.is_empty(), |flight| flight.asked_before)
    }

    /// All that may be in the stream: what is under way, and then what an earlier run had under way and
    /// has not come again yet.
    pub(super) fn plans(&self) -> Vec<Plan> {
        self.flights.iter().map(|flight| &flight.plan).chain(&self.replay).cloned().collect()
    }

    /// The commit of how it stands.
    pub(super) fn commit(&self) -> Result<Commit> {
        Position::new(&self.incarnation, self.stream.clone(), self.plans(), self.given)
            .commit(&self.key, self.committed)
    }

    /// That commit was made.
    pub(super) fn is_committed(&mut self) {
        self.dirty = false;
        self.lettered.extend(std::mem::take(&mut self.letters).into_keys());
        self.lettered = self.lettered.split_off(&self.committed.0);
        for flight in &mut self.flights {
            if flight.state == State::Planned {
                flight.state = State::Ready;
            }
        }
    }
}

fn rows_of(batch: &RecordBatch) -> i64 {
    i64::try_from(batch.num_rows()).unwrap_or(i64::MAX)
}
