//! The rows of the source, one after another: read, parsed, judged by the window, moved in time, and
//! damaged where that is asked for.
use std::time::Duration;

use records::EventTime;

use crate::disorder::Disorder;
use crate::error::Result;
use crate::input::{self, Line, Lines, MAX_ROW_BYTES, Place};
use crate::row::{Parser, Row};
use crate::window::{Shard, Verdict, Window};

const SECOND_US: i64 = 1_000_000;

pub(crate) struct Rows {
    lines: Lines,
    parser: Parser,
    /// Of rows that are to be damaged.
    checker: Parser,
    damaged: Vec<u8>,
    window: Window,
    shard: Shard,
    disorder: Disorder,
    shift: Shift,
    /// How many rows of the source came before.
    taken: u64,
    /// The data's own time of the last row that could be read.
    last: Option<EventTime>,
    over: bool,
}

/// What is added to event times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shift {
    Fixed(i64),
    /// So that the first row falls on this time, by whole seconds.
    FirstTo(EventTime),
}

/// How far the input is through with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Of the row.
    pub(crate) place: Place,
    /// How many rows of the source, it included.
    pub(crate) taken: u64,
}

/// A row of the source that can be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Good<'a> {
    pub(crate) text: &'a str,
    pub(crate) row: Row,
    pub(crate) passed: Passed,
    /// Whether this shard sends it.
    pub(crate) own: bool,
    /// How many times it is sent.
    pub(crate) times: u32,
}

/// One that cannot.
#[derive(Clone, Debug)]
pub(crate) struct Bad<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) length: u64,
    pub(crate) passed: Passed,
    pub(crate) file: &'a str,
    pub(crate) reason: String,
    pub(crate) own: bool,
    /// On purpose.
    pub(crate) damaged: bool,
}

pub(crate) enum Next<'a> {
    Good(Good<'a>),
    Bad(Bad<'a>),
    /// A row of the files that is not of the source.
    Skipped,
    /// Nothing has come within the time-out.
    Waiting,
    End,
}

impl Shift {
    fn of(self, first: EventTime) -> i64 {
        match self {
            Self::Fixed(us) => us,
            Self::FirstTo(start) => start.0.saturating_sub(first.0).div_euclid(SECOND_US) * SECOND_US,
        }
    }
}

impl Rows {
    pub(crate) fn new(
        lines: Lines,
        window: Window,
        shard: Shard,
        disorder: Disorder,
        shift: Shift,
        taken: u64,
    ) -> Self {
        let (parser, checker) = (Parser::new(), Parser::new());
        let (damaged, last, over) = (Vec::new(), None, false);
        Self { lines, parser, checker, damaged, window, shard, disorder, shift, taken, last, over }
    }

    /// The name of a file, by its place in the list.
    pub(crate) fn file(&self, file: usize) -> &str {
        &self.lines.parts()[file].name
    }

    /// Whether they come as they are made, and only once.
    pub(crate) fn are_of_a_stream(&self) -> bool {
        self.lines.parts().iter().any(|part| part.size.is_none())
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// None before the first row decides.
    pub(crate) fn shift_us(&self) -> Option<i64> {
        if let Shift::Fixed(us) = self.shift { Some(us) } else { None }
    }

    pub(crate) fn next(&mut self, timeout: Duration) -> Result<Next<'_>> {
        if self.over {
            return Ok(Next::End);
        }
        let line = match self.lines.next(timeout)? {
            input::Next::End => return Ok(Next::End),
            input::Next::Waiting => return Ok(Next::Waiting),
            input::Next::Row(line) => line,
        };
        let Line { text, length, place, file, .. } = line;
        let Self { parser, checker, damaged, window, shard, disorder, shift, taken, last, over, .. } = self;
        let unread = |reason, taken| {
            // It has no session: the first shard tells of it.
            let own = shard.number == 0;
            Next::Bad(Bad { text, length, passed: Passed { place, taken }, file, reason, own, damaged: false })
        };
        let mut judge = |row: &Row, text: &str, taken| {
            let verdict = window.judge(*shard, row.time, row.key(text), taken);
            if verdict == Verdict::Over && window.jumps_over(*last, row.time) {
                let (number, time) = (place.file_row + 1, row.time);
                tracing::warn!(
                    "{file} row {number} is of {time}, an hour or more past --until, and the row before it was not: \
                     the input is taken to be over there; rows of the window that follow are not sent"
                );
            }
            *last = Some(row.time);
            verdict
        };
        if disorder.damages(place.source_row) {
            let verdict = match parse(checker, &line) {
                Ok((parsed, row)) => judge(&row, parsed, *taken),
                Err(reason) => return Ok(unread(reason, *taken)),
            };
            if let Verdict::Own | Verdict::Other = verdict {
                damaged.clear();
                damaged.extend_from_slice(text);
                disorder.damage(place.source_row, damaged);
                // Whatever a reader would take it for, it is told of and counted.
                let reason = checker.parse(line.header, damaged).err().unwrap_or_else(|| "damaged on purpose".into());
                *taken += 1;
                let (length, own) = (damaged.len() as u64, verdict == Verdict::Own);
                let passed = Passed { place, taken: *taken };
                return Ok(Next::Bad(Bad { text: damaged, length, passed, file, reason, own, damaged: true }));
            }
            *over = verdict == Verdict::Over;
            return Ok(if *over { Next::End } else { Next::Skipped });
        }
        let (parsed, mut row) = match parse(parser, &line) {
            Ok(parsed) => parsed,
            Err(reason) => return Ok(unread(reason, *taken)),
        };
        let own = match judge(&row, parsed, *taken) {
            Verdict::Own => true,
            Verdict::Other => false,
            Verdict::Not => return Ok(Next::Skipped),
            Verdict::Over => {
                *over = true;
                return Ok(Next::End);
            }
        };
        *taken += 1;
        let shift_us = shift.of(row.time);
        *shift = Shift::Fixed(shift_us);
        row.time = EventTime(row.time.0.saturating_add(shift_us));
        let (passed, times) = (Passed { place, taken: *taken }, disorder.times(place.source_row));
        Ok(Next::Good(Good { text: parsed, row, passed, own, times }))
    }
}

fn parse<'t>(parser: &'t mut Parser, line: &Line<'t>) -> Result<(&'t str, Row), String> {
    if line.length > MAX_ROW_BYTES as u64 {
        return Err(format!("it is {} bytes long; a row is at most 1 MiB", line.length));
    }
    parser.parse(line.header, line.text)
}
