//! The rows of all files, one after another, as spans of the chunks that the reader sends.
//! A row that lies across chunks is put together; of one that is too long only the head is held.
use std::time::Duration;

use memchr::memchr;
use xxhash_rust::xxh3::xxh3_64;

use super::index::GzipIndex;
use super::list::{Opening, Part, opening};
use super::reader::{Message, Reader, Start};
use crate::error::{Error, Result};
use crate::row::Header;
use crate::status::Status;

/// A longer row is no row.
pub(crate) const MAX_ROW_BYTES: usize = 1 << 20;
/// With its line end.
const HELD_BYTES: usize = MAX_ROW_BYTES + 2;
/// Of text before a mark, and from one mark to the next: so much before a row may have been changed
/// without being seen.
pub(super) const MARK_BYTES: usize = 4 << 10;
const MARK_EVERY_BYTES: u64 = 16 << 10;
const KEPT_BYTES: usize = records::topics::DEAD_LETTER_BYTES;

pub(crate) struct Lines {
    parts: Vec<Part>,
    openings: Vec<Option<Opening>>,
    reader: Reader,
    chunk: Vec<u8>,
    at: usize,
    len: usize,
    /// The beginning of a row whose end has not come yet, and its length so far.
    carry: Vec<u8>,
    carry_len: u64,
    /// Its last two bytes, which are not held of one that is too long.
    carry_tail: [u8; 2],
    /// Whether the text of `carry` has been given out.
    carry_given: bool,
    /// The file has ended, and its last line has been given out.
    file_over: bool,
    place: Place,
    ended: bool,
    status: Status,
    /// Bytes of all chunks before the one at hand.
    before_chunk: u64,
}

/// Where a row stands, and where the next one begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Through all files.
    pub(crate) source_row: u64,
    pub(crate) file: usize,
    /// 0 is the first after the header.
    pub(crate) file_row: u64,
    /// The byte after the row and its line end, in the decompressed text.
    pub(crate) next_byte: u64,
    /// Of the text before that byte; None where there is too little.
    pub(crate) mark: Option<Mark>,
}

/// By what a resume sees that a file is still the one that was read: a byte of its text, and a hash
/// of [`MARK_BYTES`] before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) byte: u64,
    pub(crate) hash: u64,
}

/// A row's text without its line end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// All of it, or the first 64 KiB of one that is longer than 1 MiB.
    pub(crate) text: &'a [u8],
    pub(crate) length: u64,
    pub(crate) place: Place,
    pub(crate) header: &'a Header,
    /// The name of its file.
    pub(crate) file: &'a str,
}

pub(crate) enum Next<'a> {
    Row(Line<'a>),
    /// Nothing has come within the time-out.
    Waiting,
    End,
}

/// Where a line lies, its line end included.
enum Found {
    Chunk { from: usize, to: usize },
    Carry,
    Waiting,
    End,
}

impl Lines {
    /// `from` says where the next row stands; its `next_byte` is that row's first byte.
    pub(crate) fn open(
        parts: Vec<Part>,
        from: Option<Place>,
        index: Option<GzipIndex>,
        status: &Status,
    ) -> Result<Self> {
        let start = from.map_or(Start::default(), |place| Start {
            file: place.file,
            byte: Some(place.next_byte),
            row: place.file_row,
            mark: place.mark,
        });
        let reader = Reader::spawn(parts.clone(), start, index, status.clone())
            .map_err(|e| Error::file(parts.first().map_or("", |part| &part.path), e.to_string()))?;
        let openings: Vec<_> = parts.iter().map(|part| part.header.clone()).collect();
        let mut place = from.unwrap_or_default();
        if from.is_none() {
            place.next_byte = body(openings.first());
        }
        Ok(Self {
            parts,
            openings,
            reader,
            chunk: Vec::new(),
            at: 0,
            len: 0,
            carry: Vec::new(),
            carry_len: 0,
            carry_tail: [0; 2],
            carry_given: false,
            file_over: false,
            place,
            ended: false,
            status: status.clone(),
            before_chunk: 0,
        })
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The next row. Blank lines are none.
    pub(crate) fn next(&mut self, timeout: Duration) -> Result<Next<'_>> {
        let (in_chunk, from, to, length) = loop {
            let (in_chunk, from, to, length) = match self.find(timeout)? {
                Found::Waiting => return Ok(Next::Waiting),
                Found::End => return Ok(Next::End),
                Found::Chunk { from, to } => (true, from, to, (to - from) as u64),
                Found::Carry => (false, 0, self.carry.len(), self.carry_len),
            };
            let line = if in_chunk { &self.chunk[from..to] } else { &self.carry[..] };
            let file = self.place.file;
            if self.openings[file].is_none() {
                self.openings[file] = Some(opening(line).map_err(|why| Error::file(&self.parts[file].path, why))?);
                continue;
            }
            if length > HELD_BYTES as u64 {
                break (in_chunk, from, to, length - (2 - trimmed(&self.carry_tail)) as u64);
            }
            let end = line.len() - trimmed(line);
            if line.len() > end {
                break (in_chunk, from, to - end, length - end as u64);
            }
        };
        let place = self.place;
        self.place.source_row += 1;
        self.place.file_row += 1;
        let Some(Opening { header, .. }) = &self.openings[place.file] else { return Ok(Next::End) };
        let text = if in_chunk { &self.chunk[from..to] } else { &self.carry[from..to] };
        let file = &self.parts[place.file].name;
        Ok(Next::Row(Line { text, length, place, header, file }))
    }

    /// The next line, counted in `place.next_byte`.
    fn find(&mut self, timeout: Duration) -> Result<Found> {
        if self.carry_given {
            self.carry.clear();
            self.carry_len = 0;
            self.carry_given = false;
        }
        if self.file_over {
            self.next_file()?;
        }
        loop {
            if self.at < self.len {
                let from = self.at;
                let end = memchr(b'\n', &self.chunk[from..self.len]);
                self.at = end.map_or(self.len, |n| from + n + 1);
                self.status.set_taken(self.before_chunk + self.at as u64);
                if end.is_some() && self.carry_len == 0 {
                    self.place.next_byte += (self.at - from) as u64;
                    self.mark();
                    return Ok(Found::Chunk { from, to: self.at });
                }
                self.keep(from, self.at);
                if end.is_some() {
                    return Ok(self.give_carry());
                }
            }
            if self.ended {
                return Ok(Found::End);
            }
            match self.reader.next(timeout) {
                None => return Ok(Found::Waiting),
                Some(Message::Text { bytes, len }) => {
                    self.reader.recycle(std::mem::replace(&mut self.chunk, bytes));
                    self.before_chunk += self.len as u64;
                    (self.at, self.len) = (0, len);
                }
                Some(Message::EndOfFile) if self.carry_len > 0 => {
                    // A last line without a line end.
                    self.file_over = true;
                    return Ok(self.give_carry());
                }
                Some(Message::EndOfFile) => self.next_file()?,
                Some(Message::Fault(why)) => {
                    let file = self.parts.get(self.place.file).map_or("", |part| &part.path);
                    return Err(Error::file(file, why));
                }
                Some(Message::End) => self.ended = true,
            }
        }
    }

    fn mark(&mut self) {
        let byte = self.place.next_byte;
        if byte - self.place.mark.map_or(0, |mark| mark.byte) >= MARK_EVERY_BYTES
            && let Some(from) = self.at.checked_sub(MARK_BYTES)
        {
            self.place.mark = Some(Mark { byte, hash: xxh3_64(&self.chunk[from..self.at]) });
        }
    }

    fn give_carry(&mut self) -> Found {
        self.carry_given = true;
        self.place.next_byte += self.carry_len;
        Found::Carry
    }

    /// Adds a piece of the chunk to the row that is put together, and no more than may be held.
    fn keep(&mut self, from: usize, to: usize) {
        self.carry_len += (to - from) as u64;
        for byte in &self.chunk[to.saturating_sub(2).max(from)..to] {
            self.carry_tail = [self.carry_tail[1], *byte];
        }
        if self.carry_len > HELD_BYTES as u64 {
            let room = KEPT_BYTES.saturating_sub(self.carry.len());
            self.carry.extend_from_slice(&self.chunk[from..to.min(from + room)]);
            self.carry.truncate(KEPT_BYTES);
        } else {
            self.carry.extend_from_slice(&self.chunk[from..to]);
        }
    }

    fn next_file(&mut self) -> Result<()> {
        let file = self.place.file;
        if let (Some(part), Some(None)) = (self.parts.get(file), self.openings.get(file)) {
            // Nothing of it has come, not even a header.
            opening(b"").map_err(|why| Error::file(&part.path, why))?;
        }
        self.place.file += 1;
        (self.place.file_row, self.place.mark) = (0, None);
        self.place.next_byte = body(self.openings.get(self.place.file));
        self.file_over = false;
        Ok(())
    }
}

/// The first byte after the header.
fn body(opening: Option<&Option<Opening>>) -> u64 {
    opening.and_then(Option::as_ref).map_or(0, |opening| opening.body)
}

/// The length of a line without its line end.
fn trimmed(line: &[u8]) -> usize {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line).len()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Cursor, Seek, SeekFrom, Write};

    use super::super::{list, look};
    use super::*;
    use crate::settings::{Input, Stream};

    const ROW: &str = "2019-10-01 00:00:01 UTC,view,17200506,2053013559792632471,furniture.sofa,ikea,543.10,1,566511c2";
    /// Of these the reader cannot be at the end before the first is taken.
    const MANY: usize = 100_000;

    fn text(rows: usize) -> String {
        format!("{}\n", crate::row::COLUMNS.join(",")) + &format!("{ROW}\n").repeat(rows)
    }

    fn open(parts: Vec<Part>) -> Lines {
        Lines::open(parts, None, None, &Status::new()).unwrap()
    }

    /// How many rows come, and why no more do.
    fn rest(lines: &mut Lines) -> (usize, Option<String>) {
        let mut rows = 0;
        loop {
            match lines.next(Duration::from_secs(10)) {
                Ok(Next::Row(_)) => rows += 1,
                Ok(Next::End) => return (rows, None),
                Ok(Next::Waiting) => panic!("nothing comes"),
                Err(error) => return (rows, Some(error.to_string())),
            }
        }
    }

    /// What is written to while it is read has no end.
    #[test]
    fn a_file_that_is_cut_or_grows_is_told() {
        type Change = fn(&mut File);
        let cut: Change = |file| file.set_len(text(MANY).len() as u64 - 50).unwrap();
        let grow: Change = |file| file.write_all(ROW.as_bytes()).unwrap();
        for (change, rows, why) in [
            (cut, MANY - 1, Some("a.csv: it was cut while")),
            (grow, MANY, Some("a.csv: it grew")),
            (|_| (), MANY, None),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.csv");
            std::fs::write(&path, text(MANY)).unwrap();
            let mut lines = open(list(&[Input::Path(path.to_str().unwrap().into())]).unwrap());
            assert!(matches!(lines.next(Duration::from_secs(10)).unwrap(), Next::Row(_)));
            let mut file = File::options().write(true).open(&path).unwrap();
            file.seek(SeekFrom::End(0)).unwrap();
            change(&mut file);
            let (came, told) = rest(&mut lines);
            assert_eq!(came + 1, rows, "{told:?}");
            assert_eq!(told.is_some(), why.is_some(), "{told:?}");
            assert!(told.unwrap_or_default().contains(why.unwrap_or_default()));
        }
    }

    /// It is opened long after it was listed.
    #[test]
    fn a_later_file_is_looked_at_again() {
        for (now, why) in [
            (text(5), None),
            (text(4), Some("it was changed after the replay had begun: it had 572 bytes, and has 476 now")),
            (text(5).replace("view", "cart"), Some("had 572 bytes, and begins differently now")),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let inputs = ["a.csv", "b.csv"].map(|name| {
                let path = folder.path().join(name);
                std::fs::write(&path, text(5)).unwrap();
                Input::Path(path.to_str().unwrap().into())
            });
            let parts = list(&inputs).unwrap();
            std::fs::write(folder.path().join("b.csv"), now).unwrap();
            let (rows, told) = rest(&mut open(parts));
            assert_eq!((rows, told.is_some()), (if why.is_some() { 5 } else { 10 }, why.is_some()), "{told:?}");
            let told = told.unwrap_or_default();
            assert!(told.contains(why.unwrap_or_default()) && (told.is_empty() || told.contains("b.csv: ")), "{told}");
        }
    }

    /// What was read of a stream to look at it is read again.
    #[test]
    fn a_stream_is_looked_at_and_whole() {
        let zst = zstd::encode_all(text(5).as_bytes(), 1).unwrap();
        for (bytes, expected) in [
            (text(5).into_bytes(), Ok(5)),
            (zst, Ok(5)),
            (Vec::new(), Err("standard input: its text is empty")),
            (ROW.into(), Err("standard input: it has no header")),
            (text(1).replace('\n', "\r").into(), Err("standard input: its line ends are CR alone")),
        ] {
            let taken = std::sync::Mutex::new(Some(bytes));
            let once = move || Ok(Box::new(Cursor::new(taken.lock().unwrap().take().unwrap())) as Box<_>);
            let inputs = [Input::Stream(Stream::new("-", once))];
            match (look(&inputs), expected) {
                (Ok(()), Ok(rows)) => assert_eq!(rest(&mut open(list(&inputs).unwrap())), (rows, None)),
                (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{error}"),
                (looked, expected) => panic!("{looked:?}, not {expected:?}"),
            }
        }
    }

    /// However far the reader and its decoder are ahead, the progress says how far the rows are.
    #[test]
    fn progress_goes_with_the_rows() {
        let input = Input::Memory { name: dataset::SAMPLE_NAME.into(), bytes: dataset::sample() };
        let parts = list(&[input]).unwrap();
        for percent in [10, 50, 90] {
            let status = Status::new();
            status.begin_files(parts.iter().map(|part| part.size).sum());
            let mut lines = Lines::open(parts.clone(), None, None, &status).unwrap();
            for _ in 0..17_434 * percent / 100 {
                assert!(matches!(lines.next(Duration::from_secs(10)).unwrap(), Next::Row(_)));
            }
            let told = status.fraction().unwrap() * 100.0;
            assert!((told - f64::from(percent)).abs() < 5.0, "{told}% at {percent}%");
        }
    }
}
