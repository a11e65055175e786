//! A BigQuery in memory: committed streams as the Storage Write API has them, and faults on purpose.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use consumer::warehouse::{Answer, Backend, Connection, Done, Fault, Request, Seen, TOPICS};

/// What happens to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It is lost on the way.
    Lost,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It stays on the way, and is done after so many more calls, whatever has happened since.
    Late(usize),
    /// It is done, and the answer comes after so many more calls: others overtake it.
    AnsweredLate(usize),
    /// Nobody ever answers.
    Silence,
    Throttled,
    /// The stream is ended by the server first.
    Expired,
    /// The stream was idle for too long: nobody knows it any more, nor how many rows it had.
    Forgotten,
    /// The table was dropped and made again: its streams and rows are gone with it.
    Remade,
    Dropped,
    /// The process ends before it is sent, or after it was done.
    CrashBefore,
    CrashAfter,
}

pub(crate) const CRASH: &str = "a crash on purpose";

#[derive(Debug, Default)]
struct Stream {
    table: usize,
    rows: Vec<(i64, i64)>,
    finalized: bool,
    forgotten: bool,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<String, Stream>,
    /// Inserted without a stream.
    inserted: Vec<(usize, (i64, i64))>,
    /// By the number of the call.
    troubles: HashMap<usize, Trouble>,
    calls: usize,
    /// Due at a call.
    late: Vec<(usize, String, i64, RecordBatch)>,
    /// Rows that are refused: table, partition, offset.
    bad: BTreeSet<(usize, i64, i64)>,
    /// Streams are forgotten as soon as they are made.
    short_lived: bool,
    dropped: BTreeSet<usize>,
    /// What is said of a table does not know of rows yet.
    shows_late: bool,
    /// How often each table was made again.
    remade: [i64; TOPICS.len()],
    connections: usize,
    queries: usize,
    sent_bytes: u64,
}

#[derive(Clone, Default)]
pub(crate) struct Model {
    state: Arc<Mutex<State>>,
    /// Due at a call.
    answers: Arc<Mutex<Vec<(usize, Done, Answer)>>>,
    inserts: bool,
}

fn places(rows: &RecordBatch) -> Vec<(i64, i64)> {
    let column = |name| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
    column("topic_partition").into_iter().zip(column("topic_offset")).collect()
}

impl State {
    fn refused(&self, table: usize, rows: &RecordBatch) -> Vec<(usize, String)> {
        let bad = |(i, (p, o)): (usize, (i64, i64))| self.bad.contains(&(table, p, o)).then(|| (i, "bad".to_owned()));
        places(rows).into_iter().enumerate().filter_map(bad).collect()
    }

    fn append(&mut self, stream: &str, offset: i64, rows: &RecordBatch) -> Answer {
        if offset < 0 {
            return Answer::Refused(format!("{offset} is no place in a stream"));
        }
        let known = self.streams.get(stream).filter(|held| !held.forgotten && !self.dropped.contains(&held.table));
        let Some(held) = known else { return Answer::StreamGone("not found".into()) };
        if held.finalized {
            return Answer::StreamGone("finalized".into());
        }
        match offset.cmp(&(held.rows.len() as i64)) {
            std::cmp::Ordering::Less => return Answer::AlreadyExists,
            std::cmp::Ordering::Greater => return Answer::OutOfRange,
            std::cmp::Ordering::Equal => {}
        }
        let refused = self.refused(held.table, rows);
        if !refused.is_empty() {
            return Answer::RowErrors(refused);
        }
        let held = self.streams.get_mut(stream).unwrap();
        held.rows.extend(places(rows));
        Answer::Appended
    }

    fn remake(&mut self, table: usize) {
        self.remade[table] += 1;
        self.inserted.retain(|(of, _)| *of != table);
        for stream in self.streams.values_mut().filter(|stream| stream.table == table) {
            stream.forgotten = true;
            stream.rows.clear();
        }
    }

    fn insert(&mut self, table: usize, rows: &RecordBatch) -> Answer {
        let refused = self.refused(table, rows);
        if !refused.is_empty() {
            return Answer::RowErrors(refused);
        }
        self.inserted.extend(places(rows).into_iter().map(|place| (table, place)));
        Answer::Appended
    }
}

impl Model {
    /// Rows are inserted without a place.
    pub(crate) fn without_streams() -> Self {
        Self { inserts: true, ..Self::default() }
    }

    pub(crate) fn trouble(&self, at: usize, trouble: Trouble) {
        let mut state = self.state.lock().unwrap();
        let at = state.calls + at;
        state.troubles.insert(at, trouble);
    }

    pub(crate) fn refuse(&self, table: usize, partition: i64, offset: i64) {
        self.state.lock().unwrap().bad.insert((table, partition, offset));
    }

    pub(crate) fn calls(&self) -> usize {
        self.state.lock().unwrap().calls
    }

    pub(crate) fn streams(&self) -> usize {
        self.state.lock().unwrap().streams.len()
    }

    /// Somebody else writes into every stream.
    pub(crate) fn meddle(&self) {
        self.state.lock().unwrap().streams.values_mut().for_each(|stream| stream.rows.extend([(9, 9); 5]));
    }

    /// All streams were idle for too long.
    pub(crate) fn forget_streams(&self) {
        self.state.lock().unwrap().streams.values_mut().for_each(|stream| stream.forgotten = true);
    }

    pub(crate) fn forget_streams_at_once(&self) {
        self.state.lock().unwrap().short_lived = true;
    }

    pub(crate) fn drop_table(&self, table: usize) {
        self.state.lock().unwrap().dropped.insert(table);
    }

    pub(crate) fn shows_late(&self) {
        self.state.lock().unwrap().shows_late = true;
    }

    /// It is dropped and made again.
    pub(crate) fn remake_table(&self, table: usize) {
        self.state.lock().unwrap().remake(table);
    }

    /// The same, and its rows are put back.
    pub(crate) fn restore_table(&self, table: usize) {
        let mut state = self.state.lock().unwrap();
        state.remade[table] += 1;
        state.streams.values_mut().filter(|stream| stream.table == table).for_each(|stream| stream.forgotten = true);
    }

    /// Somebody deletes a row.
    pub(crate) fn delete(&self, table: usize, partition: i64, offset: i64) {
        let mut state = self.state.lock().unwrap();
        let streams = state.streams.values_mut().filter(|stream| stream.table == table);
        streams.for_each(|stream| stream.rows.retain(|row| *row != (partition, offset)));
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    pub(crate) fn queries(&self) -> usize {
        self.state.lock().unwrap().queries
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.state.lock().unwrap().sent_bytes
    }

    /// How often each row is there: topic, partition, offset.
    pub(crate) fn rows(&self) -> BTreeMap<(String, i64, i64), u32> {
        let state = self.state.lock().unwrap();
        let mut counts = BTreeMap::new();
        let of_streams = state.streams.values().flat_map(|stream| stream.rows.iter().map(|row| (stream.table, *row)));
        for (table, (partition, offset)) in of_streams.chain(state.inserted.iter().copied()) {
            *counts.entry((TOPICS[table].to_owned(), partition, offset)).or_default() += 1;
        }
        counts
    }
}

impl Model {
    fn answer_what_is_due(&self, call: usize) {
        let mut answers = self.answers.lock().unwrap();
        let (due, later) = std::mem::take(&mut *answers).into_iter().partition(|(at, ..)| *at <= call);
        *answers = later;
        let due: Vec<(usize, Done, Answer)> = due;
        due.into_iter().for_each(|(_, done, answer)| done(answer));
    }
}

impl Backend for Model {
    fn has_streams(&self) -> bool {
        !self.inserts
    }

    fn create_stream(&self, table: usize) -> Result<String, Fault> {
        let mut state = self.state.lock().unwrap();
        if state.dropped.contains(&table) {
            return Err(Fault::Gone("not found".into()));
        }
        let forgotten = state.short_lived;
        let name = format!("projects/p/datasets/d/tables/{table}/streams/{}", state.streams.len());
        state.streams.insert(name.clone(), Stream { table, forgotten, ..Stream::default() });
        Ok(name)
    }

    fn finalize_stream(&self, stream: &str) -> Result<i64, Fault> {
        let mut state = self.state.lock().unwrap();
        let State { streams, dropped, .. } = &mut *state;
        let known = streams.get_mut(stream).filter(|stream| !stream.forgotten && !dropped.contains(&stream.table));
        let stream = known.ok_or_else(|| Fault::Gone("not found".into()))?;
        stream.finalized = true;
        Ok(stream.rows.len() as i64)
    }

    fn count_rows(&self, table: usize, partition: u32, offsets: RangeInclusive<i64>) -> Result<i64, Fault> {
        let mut state = self.state.lock().unwrap();
        state.queries += 1;
        if state.dropped.contains(&table) {
            return Err(Fault::Gone("not found".into()));
        }
        let in_streams = state.streams.values().filter(|stream| stream.table == table).flat_map(|stream| &stream.rows);
        let inserted = state.inserted.iter().filter(|(of, _)| *of == table).map(|(_, row)| row);
        let rows = in_streams.chain(inserted);
        Ok(rows.filter(|(p, offset)| *p == i64::from(partition) && offsets.contains(offset)).count() as i64)
    }

    fn look(&self, table: usize) -> Result<Seen, Fault> {
        let state = self.state.lock().unwrap();
        if state.dropped.contains(&table) {
            return Err(Fault::Gone("not found".into()));
        }
        let in_streams = state.streams.values().any(|stream| stream.table == table && !stream.rows.is_empty());
        let rows = (in_streams || state.inserted.iter().any(|(of, _)| *of == table)) && !state.shows_late;
        Ok(Seen { rows, made_ms: 1 + state.remade[table] })
    }

    fn connect(&self, table: usize, stream: Option<&str>) -> Box<dyn Connection> {
        self.state.lock().unwrap().connections += 1;
        Box::new(ModelConnection { model: self.clone(), table, stream: stream.map(str::to_owned) })
    }
}

struct ModelConnection {
    model: Model,
    table: usize,
    stream: Option<String>,
}

/// What BigQuery takes.
const REQUEST_MAX_BYTES: usize = 10_000_000;

impl Connection for ModelConnection {
    fn append(&mut self, request: Request, done: Done) -> usize {
        let mut state = self.model.state.lock().unwrap();
        let call = state.calls;
        state.calls += 1;
        let (due, later) = std::mem::take(&mut state.late).into_iter().partition(|(at, ..)| *at <= call);
        state.late = later;
        for (_, stream, offset, rows) in due {
            // Whatever comes of it, nobody hears.
            let _: Answer = state.append(&stream, offset, &rows);
        }
        let Request { offset, rows, .. } = request;
        let bytes: usize = rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap()).sum();
        state.sent_bytes += bytes as u64;
        assert!(bytes < REQUEST_MAX_BYTES, "a request of {bytes} bytes and {} rows", rows.num_rows());
        let stream = self.stream.clone();
        let table = self.table;
        let do_it = |state: &mut State| match &stream {
            Some(stream) => state.append(stream, offset, &rows),
            None => state.insert(table, &rows),
        };
        let trouble = state.troubles.remove(&call);
        let answer = match trouble {
            None => Some(do_it(&mut state)),
            Some(Trouble::Lost) => Some(Answer::Unknown("lost".into())),
            Some(Trouble::AnswerLost) => {
                do_it(&mut state);
                Some(Answer::Unknown("answer lost".into()))
            }
            Some(Trouble::Late(calls)) => {
                if let Some(stream) = &stream {
                    state.late.push((call + 1 + calls, stream.clone(), offset, rows.clone()));
                }
                Some(Answer::Unknown("late".into()))
            }
            Some(Trouble::AnsweredLate(calls)) => {
                let answer = do_it(&mut state);
                let late = (call + 1 + calls, done, answer);
                self.model.answers.lock().unwrap().push(late);
                return bytes;
            }
            Some(Trouble::Silence) => None,
            Some(Trouble::Throttled) => Some(Answer::Throttled("slowly".into())),
            Some(Trouble::Expired) => {
                if let Some(held) = stream.as_ref().and_then(|stream| state.streams.get_mut(stream)) {
                    held.finalized = true;
                }
                Some(do_it(&mut state))
            }
            Some(Trouble::Forgotten) => {
                if let Some(held) = stream.as_ref().and_then(|stream| state.streams.get_mut(stream)) {
                    held.forgotten = true;
                }
                Some(do_it(&mut state))
            }
            Some(Trouble::Remade) => {
                state.remake(table);
                Some(do_it(&mut state))
            }
            Some(Trouble::Dropped) => {
                state.dropped.insert(table);
                Some(do_it(&mut state))
            }
            Some(Trouble::CrashBefore) => Some(Answer::Refused(CRASH.into())),
            Some(Trouble::CrashAfter) => {
                do_it(&mut state);
                Some(Answer::Refused(CRASH.into()))
            }
        };
        drop(state);
        if let Some(answer) = answer {
            done(answer);
        }
        self.model.answer_what_is_due(call);
        bytes
    }
}
