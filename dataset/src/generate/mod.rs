//! Rows that look like the store's: a model fitted to what is known of the real months.
//!
//! | file | what it holds |
//! |---|---|
//! | `facts` | what is known of the real months (`data/facts`) |
//! | `sample`, `fit`, `catalogue` | products: of which category and brand, at what price, how often viewed, carted, bought |
//! | `sold` | what October and November sold of each, and in how many sessions |
//! | `calendar` | when sessions begin, and how ready to buy |
//! | `behaviour` | how long sessions are, how long their pauses, what becomes of them |
//! | `model` | a month's model: all of these |
//! | `session` | one session, event after event |
//! | `plan` | what is to be made, as typed |
//! | `stream` | all sessions, in order of time |
//! | `text` | rows as CSV |
//! | `tally`, `report`, `shape` | what rows amount to, beside the real months |
//! | `judge` | how far each figure may be from the real one |
mod behaviour;
mod calendar;
mod catalogue;
mod facts;
mod fit;
mod judge;
mod model;
mod plan;
mod report;
mod sample;
mod session;
mod shape;
mod sold;
mod stream;
mod tally;
mod text;

use std::io::{self, Read};
use std::sync::Arc;

pub use calendar::Month;
use facts::{Facts, NOVEMBER, OCTOBER};
pub use judge::{Figure, Report, Rule};
use model::Model;
pub use plan::{Plan, PlanError, SCHEME};
use report::Made;
use stream::Rows;
use tally::Tally;
pub use text::HEADER;

/// A month's rows, to be read from any row on.
#[derive(Clone)]
pub struct Generated {
    plan: Plan,
    model: Arc<Model>,
}

impl Generated {
    /// Fits the model, which takes a fraction of a second.
    pub fn new(plan: Plan) -> Self {
        let plan = Plan { rows: plan.rows.min(stream::MOST_ROWS), ..plan };
        Self { plan, model: Arc::new(Model::new(plan.month, plan.rows, &Facts::load())) }
    }

    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// The CSV text, from the header on.
    pub fn text(&self) -> Text {
        Text::begin(self, 0, HEADER.as_bytes().to_vec())
    }

    /// Makes all rows, and compares them with what is known of the real ones. Of October and
    /// November some figures are known of the two together only: there the other month's rows are
    /// made too, as many in proportion. Every thousandth row `keep_on` is told how many there are, of
    /// how many; when it says no, the result is None.
    pub fn report(&self, keep_on: &mut dyn FnMut(u64, u64) -> bool) -> Option<Report> {
        let other = self.other_month();
        let all = self.plan.rows + other.as_ref().map_or(0, |other| other.plan.rows);
        let tally = self.tally(&mut |rows| keep_on(rows, all))?;
        let other = match other {
            Some(other) => Some((other.tally(&mut |rows| keep_on(self.plan.rows + rows, all))?, other)),
            None => None,
        };
        let other = other.as_ref().map(|(tally, other)| Made { model: &other.model, tally });
        Some(report::report(Made { model: &self.model, tally: &tally }, other, &Facts::load()))
    }

    /// Of October and November the one that this is not.
    fn other_month(&self) -> Option<Self> {
        let (of, month) = match (self.plan.month.is(2019, 10), self.plan.month.is(2019, 11)) {
            (true, _) => (NOVEMBER, Month { year: 2019, month: 11 }),
            (_, true) => (OCTOBER, Month { year: 2019, month: 10 }),
            _ => return None,
        };
        let rows = u128::from(self.plan.rows) * u128::from(of.rows) / u128::from(self.model.totals.rows);
        Some(Self::new(Plan { month, rows: u64::try_from(rows).unwrap_or(u64::MAX), ..self.plan }))
    }

    fn tally(&self, keep_on: &mut dyn FnMut(u64) -> bool) -> Option<Tally> {
        let mut stopped = false;
        let rows = Rows::new(Arc::clone(&self.model), self.plan.rows, self.plan.seed);
        let rows = (0..).zip(rows).map_while(|(n, row)| {
            stopped |= n % 1000 == 0 && !keep_on(n);
            (!stopped).then_some(row)
        });
        let tally = Tally::of(&self.model, rows);
        (!stopped).then_some(tally)
    }

    /// The CSV text after the header, from a row on (0 is the first).
    pub fn text_from(&self, row: u64) -> Text {
        Text::begin(self, row, Vec::new())
    }
}

/// CSV text, made as it is read.
pub struct Text {
    rows: Rows,
    writer: text::Writer,
    made: Vec<u8>,
    taken: usize,
}

/// How much text is made at once.
const CHUNK_BYTES: usize = 64 << 10;

impl Text {
    fn begin(of: &Generated, row: u64, made: Vec<u8>) -> Self {
        let mut rows = Rows::new(Arc::clone(&of.model), of.plan.rows, of.plan.seed);
        if row > 0 {
            rows.seek(row);
        }
        Self { rows, writer: text::Writer::new(Arc::clone(&of.model)), made, taken: 0 }
    }
}

impl Text {
    /// Rows that have been made, those before the one it began with included.
    pub fn rows_made(&self) -> u64 {
        self.rows.given()
    }
}

impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.made.len() {
            self.made.clear();
            self.taken = 0;
            while self.made.len() < CHUNK_BYTES
                && let Some(row) = self.rows.next()
            {
                self.writer.write(&row, &mut self.made);
            }
        }
        let n = (self.made.len() - self.taken).min(buffer.len());
        buffer[..n].copy_from_slice(&self.made[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}
