//! The rows of one second, held until it is known how many there are.
use crate::input::{Line, Place};
use crate::row::Row;
use records::EventTime;

/// What may be held; a second that has more is sent in parts.
const MAX_ROWS: usize = 65_536;
const MAX_BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
pub(crate) struct Held {
    text: Vec<u8>,
    rows: Vec<HeldRow>,
    /// The second: the greatest event time so far.
    time: Option<EventTime>,
}

#[derive(Debug)]
struct HeldRow {
    from: usize,
    to: usize,
    length: u64,
    place: Place,
    row: Result<Row, String>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) length: u64,
    pub(crate) place: Place,
    pub(crate) row: &'a Result<Row, String>,
}

impl Held {
    /// `text` is the row's own, or the line's where it is bad.
    pub(crate) fn push(&mut self, line: &Line<'_>, text: &[u8], row: Result<Row, String>) {
        if let Ok(row) = &row {
            self.time = self.time.max(Some(row.time));
        }
        let from = self.text.len();
        self.text.extend_from_slice(text);
        self.rows.push(HeldRow { from, to: self.text.len(), length: line.length, place: line.place, row });
    }

    pub(crate) fn time(&self) -> Option<EventTime> {
        self.time
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= MAX_ROWS || self.text.len() >= MAX_BYTES
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Taken<'_>> {
        self.rows.iter().map(|row| Taken {
            text: &self.text[row.from..row.to],
            length: row.length,
            place: row.place,
            row: &row.row,
        })
    }

    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
        self.time = None;
    }
}
