//! Sending plans, hearing what came of them, and doing what that asks for.
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use records::clock;

use super::backend::{Answer, Request};
use super::error::{Error, Result};
use super::partition::{Flight, Partition, State};
use super::recover::{Decision, decide, settle};
use super::run::{Answered, Warehouse, from_broker, no_table};

impl Warehouse<'_> {
    /// Sends what is committed, in order.
    pub(super) fn send(&mut self) {
        let now = clock::now();
        if self.hold_until.is_some_and(|until| now < until) {
            return;
        }
        for p in 0..self.partitions.len() {
            let label = self.label(self.partitions[p].table);
            let (backend, partition) = (self.backend, &mut self.partitions[p]);
            if partition.hold_until.is_some_and(|until| now < until) {
                continue;
            }
            partition.end_if_idle(now, self.settings.connection_idle);
            for i in 0..partition.flights.len() {
                if partition.flights[i].state != State::Ready {
                    continue;
                }
                fail::fail_point!("warehouse::before_write");
                let (table, offset, origin) = (partition.table, partition.stream_offset(i), partition.origin());
                let (id, epoch, tell) = (partition.id, partition.epoch, self.tell.clone());
                let stream = partition.stream.as_ref().map(|stream| stream.name.as_str());
                let connection = partition.connection.get_or_insert_with(|| backend.connect(table, stream));
                let flight = &mut partition.flights[i];
                let last = flight.plan.last;
                let done = move |answer| {
                    // Nobody listens any more: it is asked for again.
                    let _ = tell.try_send(Answered { partition: id, epoch, last, answer });
                };
                flight.state = State::Sent(now);
                partition.used_at = Some(now);
                self.metrics.requests.with_label_values(&label).inc();
                self.report.tables[table].requests += 1;
                let bytes = connection.append(Request { offset, rows: flight.batch.clone(), origin }, Box::new(done));
                self.metrics.bytes.with_label_values(&label).inc_by(bytes as u64);
                fail::fail_point!("warehouse::after_write");
            }
        }
    }

    /// Waits a little for an answer.
    pub(super) fn listen(&mut self, timeout: Duration) -> Result<()> {
        match self.answers.recv_timeout(timeout) {
            Ok(answered) => self.answered(answered),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
        }
    }

    /// All answers that are there, and those that did not come.
    pub(super) fn hear(&mut self) -> Result<()> {
        while let Ok(answered) = self.answers.try_recv() {
            self.answered(answered)?;
        }
        let (now, within) = (clock::now(), self.settings.answer_within);
        let late = |flight: &&Flight| match flight.state {
            State::Sent(at) => now.saturating_duration_since(at) > within,
            _ => false,
        };
        let missing: Vec<_> = self
            .partitions
            .iter()
            .filter_map(|partition| {
                let flight = partition.flights.iter().find(late)?;
                let answer = Answer::Unknown(format!("no answer within {within:?}"));
                Some(Answered { partition: partition.id, epoch: partition.epoch, last: flight.plan.last, answer })
            })
            .collect();
        for missing in missing {
            self.answered(missing)?;
        }
        for p in 0..self.partitions.len() {
            self.take_away_done(p);
        }
        Ok(())
    }

    /// Counts what is in the table, from the front, and forgets it.
    fn take_away_done(&mut self, p: usize) {
        let table = self.partitions[p].table;
        for flight in self.partitions[p].pop_done() {
            let rows = u64::try_from(flight.plan.rows).unwrap_or_default();
            self.metrics.rows.with_label_values(&self.label(table)).inc_by(rows);
            self.report.tables[table].rows += rows;
            let now_us = clock::wall_us();
            for sent_at_us in &flight.sent_at_us {
                let age_us = u64::try_from(now_us.saturating_sub(*sent_at_us)).unwrap_or_default();
                self.metrics.freshness_seconds.observe(Duration::from_micros(age_us).as_secs_f64());
            }
        }
    }

    fn answered(&mut self, answered: Answered) -> Result<()> {
        let Answered { partition, epoch, last, answer } = answered;
        let Some(i) = self.partitions.iter().position(|held| held.id == partition && held.epoch == epoch) else {
            return Ok(());
        };
        let held = &mut self.partitions[i];
        let sent = |flight: &Flight| flight.plan.last == last && matches!(flight.state, State::Sent(_));
        let Some(at) = held.flights.iter().position(sent) else { return Ok(()) };
        fail::fail_point!("warehouse::before_response");
        let settled = held.flights.iter().take(at).all(|flight| flight.state == State::Done);
        // None of it was taken this time.
        let refused = matches!(answer, Answer::StreamGone(_) | Answer::RowErrors(_));
        let decision = decide(answer, settled, held.flights[at].asked_before);
        if self.backend.has_streams() && matches!(decision, Decision::Shrink(_) | Decision::Replace(_)) {
            self.confirm(i)?;
        }
        let held = &mut self.partitions[i];
        if refused {
            held.flights[at].state = State::Ready;
        }
        match decision {
            Decision::Done => {
                held.flights[at].state = State::Done;
                held.backoff = None;
                fail::fail_point!("warehouse::after_response");
                Ok(())
            }
            Decision::Again { why, throttled } => self.again(i, &why, throttled),
            Decision::Shrink(rows) => self.shrink(i, last, rows),
            Decision::Replace(why) => {
                tracing::warn!(partition = %held.key, why, "the write stream takes no more rows: another takes its place");
                // Streams are made as fast as rows go into them, and no faster.
                self.hold(i, &why)?;
                self.replace(i)
            }
            Decision::Stop(why) => {
                let held = &self.partitions[i];
                Err(Error::Stop(format!("{}, up to offset {last}, into {}: {why}", held.key, self.table(held.table))))
            }
        }
    }

    fn again(&mut self, i: usize, why: &str, throttled: bool) -> Result<()> {
        let until = self.hold(i, why)?;
        let partition = &mut self.partitions[i];
        tracing::warn!(partition = %partition.key, why, throttled, "rows were not acknowledged: sending them again");
        partition.disconnect();
        self.metrics.retries.inc();
        if throttled {
            // It is the project's quota: all partitions hold back.
            self.metrics.throttles.inc();
            self.hold_until = Some(until);
        }
        Ok(())
    }

    /// Sends nothing of a partition for a while, longer each time until rows are acknowledged. Returns
    /// until when; an error once that was tried for long enough.
    fn hold(&mut self, i: usize, why: &str) -> Result<Instant> {
        let (now, draining) = (clock::now(), self.cancel.is_cancelled());
        let fresh = self.backoff();
        let partition = &mut self.partitions[i];
        let Some(pause) = partition.backoff.get_or_insert(fresh).pause(now, draining) else {
            let partition = &self.partitions[i];
            return Err(Error::Unavailable(format!("{}, into {}: {why}", partition.key, self.table(partition.table))));
        };
        partition.hold_until = Some(now + pause);
        Ok(now + pause)
    }

    /// Leaves these rows (by their place) out of the plan that ends at `last`.
    fn shrink(&mut self, i: usize, last: i64, rows: Vec<(usize, String)>) -> Result<()> {
        let in_order = self.backend.has_streams();
        if in_order {
            self.replace(i)?;
        }
        let partition = &mut self.partitions[i];
        // A stream takes requests in order, so what it has refused comes next. Inserts are done in any.
        let is_next = |flight: &Flight| flight.state != State::Done && (in_order || flight.plan.last == last);
        let next = partition.flights.iter().position(is_next);
        let Some(at) = next.filter(|next| partition.flights[*next].plan.last == last) else {
            let key = &partition.key;
            return Err(Error::Stop(format!(
                "{key}: rows up to offset {last} were refused, and yet not the next ones"
            )));
        };
        if let Some(to) = partition.shrink(at, rows)? {
            // What was sent beyond is forgotten: an answer to it says nothing of what takes its place.
            partition.disconnect();
            self.reader.seek(&partition.key, to).map_err(|e| from_broker("reading again", e))?;
        }
        Ok(())
    }

    /// Ends the stream, settles what is in it, and goes on in a new one.
    fn replace(&mut self, i: usize) -> Result<()> {
        self.partitions[i].disconnect();
        // What is acknowledged leaves with the stream that has it.
        self.take_away_done(i);
        let Some(stream) = self.partitions[i].stream.clone() else { return Ok(()) };
        let rows = self.calling(&stream.name, || self.backend.finalize_stream(&stream.name))?;
        if rows.is_err() {
            // BigQuery forgets a stream that is idle; or its table is gone, and all that was in it.
            let Partition { table, key, committed, given, .. } = &self.partitions[i];
            self.partitions[i].given = self.still_given(*table, key, *committed, *given, self.look(*table)?)?;
        }
        let partition = &self.partitions[i];
        let done = match rows {
            Ok(rows) => settle(stream.rows, &partition.plans(), rows)
                .map_err(|why| Error::Stop(format!("{}: {why}", stream.name)))?,
            // It is gone with the number of its rows.
            Err(_) if !partition.is_in_doubt() => 0,
            Err(why) => self.settle_by_table(i, &why)?,
        };
        let new = self.new_stream(self.partitions[i].table)?;
        let partition = &mut self.partitions[i];
        if let Some(to) = partition.skip(done.saturating_sub(partition.flights.len()))? {
            self.reader.seek(&partition.key, to).map_err(|e| from_broker("reading on", e))?;
        }
        for flight in partition.flights.iter_mut().take(done) {
            flight.state = State::Done;
        }
        if done > 0 {
            partition.backoff = None;
        }
        self.take_away_done(i);
        let partition = &mut self.partitions[i];
        for flight in &mut partition.flights {
            flight.asked_before = false;
            if flight.state == State::Ready {
                flight.state = State::Planned;
            }
        }
        (partition.stream, partition.dirty) = (Some(new), true);
        Ok(())
    }

    /// How many of the plans that may have gone into a stream that is gone did: their rows are in the table,
    /// and nothing can come after them.
    fn settle_by_table(&self, i: usize, why: &str) -> Result<usize> {
        let partition = &self.partitions[i];
        let (key, table, plans) = (&partition.key, self.table(partition.table), partition.plans());
        let (first, last) = (partition.committed.0, plans.last().map_or(0, |plan| plan.last));
        let what = format!("{key}: its write stream is gone ({why}); whether offsets {first} to {last} are in {table}");
        let count = || self.backend.count_rows(partition.table, key.partition, first..=last);
        let rows = self.calling(&what, count)?.map_err(|why| no_table(&table, &why))?;
        settle(0, &plans, rows).map_err(|_| {
            Error::Stop(format!(
                "{key}: its write stream is gone ({why}), and {table} has {rows} rows of the offsets {first} to {last}, \
                 which no whole requests make: somebody else has written or deleted there. Delete them, and start again: \
                 DELETE FROM `{table}` WHERE topic_partition = {} AND topic_offset BETWEEN {first} AND {last}",
                key.partition
            ))
        })
    }
}
