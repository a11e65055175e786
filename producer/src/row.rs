//! One row of CSV to one shop event, or to the reason why not. Pure.
//!
//! Columns are found by the names in the header, in any order; others are ignored. A line is a row:
//! a quote that is never closed spoils its own line and not the rest of the file.
use csv_core::{ReadRecordResult, ReaderBuilder, Terminator};
use memchr::{memchr, memchr_iter};
use records::{Cents, EventTime, EventType, Feed, SessionKey, ShopEvent};

/// The columns of the data, in its own order.
pub const COLUMNS: [&str; 9] = [
    "event_time",
    "event_type",
    "product_id",
    "category_id",
    "category_code",
    "brand",
    "price",
    "user_id",
    "user_session",
];

/// More columns than this is not this data.
const MAX_COLUMNS: usize = 256;
/// A line ends with LF or CR LF; to csv_core a bare CR would be the end of one too.
const LINE_END: Terminator = Terminator::Any(b'\n');
pub(crate) const CR_ENDS: &str = "its line ends are CR alone; LF or CR LF is read. Write them anew, as in: \
                                  tr '\\r' '\\n' < old.csv > new.csv";
/// How much of a wrong value a reason quotes.
const QUOTED_CHARS: usize = 60;

/// Where the columns stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    columns: usize,
    /// By the order of [`COLUMNS`].
    at: [usize; COLUMNS.len()],
}

/// A part of the row's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    from: u32,
    to: u32,
}

/// A good row; its strings are spans of the text that [`Parser::parse`] returns with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) time: EventTime,
    event_type: EventType,
    product_id: i64,
    category_id: Option<i64>,
    price: Cents,
    user_id: i64,
    category_code: Span,
    brand: Span,
    user_session: Span,
}

/// What is kept from row to row.
pub(crate) struct Parser {
    fields: Vec<Span>,
    csv: csv_core::Reader,
    unquoted: Vec<u8>,
    ends: Vec<usize>,
    /// Rows of one second follow one another: the last time read, and its text.
    last_time: (Vec<u8>, EventTime),
}

impl Header {
    /// Reads the first line of a file, without its line end.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let expected = || COLUMNS.join(",");
        let shown = || shown(line);
        if line.contains(&0) || std::str::from_utf8(line).is_err() {
            return Err(format!("it is not CSV text; a header is expected: {}", expected()));
        }
        if line.contains(&b'\r') {
            return Err(CR_ENDS.to_owned());
        }
        let mut parser = Parser::new();
        let (text, fields) = parser.fields(line)?;
        let names: Vec<String> = fields.iter().map(|span| span.of(text).trim().to_ascii_lowercase()).collect();
        let mut at = [0; COLUMNS.len()];
        let mut missing = Vec::new();
        for (place, column) in at.iter_mut().zip(COLUMNS) {
            let mut found = names.iter().enumerate().filter(|(_, name)| *name == column);
            match (found.next(), found.next()) {
                (Some((i, _)), None) => *place = i,
                (Some(_), Some(_)) => return Err(format!("its header names the column {column} twice: {}", shown())),
                (None, _) => missing.push(column),
            }
        }
        match missing.len() {
            0 => Ok(Self { columns: names.len(), at }),
            n if n == COLUMNS.len() => {
                Err(format!("it has no header: its first line is {}, expected is {}", shown(), expected()))
            }
            _ => Err(format!("its header lacks {}: it is {}, expected is {}", missing.join(", "), shown(), expected())),
        }
    }
}

impl Parser {
    pub(crate) fn new() -> Self {
        Self {
            fields: Vec::new(),
            csv: ReaderBuilder::new().terminator(LINE_END).build(),
            unquoted: Vec::new(),
            ends: Vec::new(),
            last_time: (Vec::new(), EventTime(0)),
        }
    }

    /// Reads a line, without its line end. The text is the line's own, or its fields without their quotes.
    pub(crate) fn parse<'a>(&'a mut self, header: &Header, line: &'a [u8]) -> Result<(&'a str, Row), String> {
        if memchr(b'"', line).is_some() {
            self.unquote(line)?;
            let Self { fields, unquoted, last_time, .. } = self;
            let text = checked(unquoted)?;
            return Ok((text, row(header, fields, text, last_time)?));
        }
        let text = checked(line)?;
        split(line, &mut self.fields);
        Ok((text, row(header, &self.fields, text, &mut self.last_time)?))
    }

    /// Any line's fields.
    fn fields<'a>(&'a mut self, line: &'a [u8]) -> Result<(&'a str, &'a [Span]), String> {
        let text = if memchr(b'"', line).is_some() {
            self.unquote(line)?;
            &self.unquoted[..]
        } else {
            split(line, &mut self.fields);
            line
        };
        if self.fields.len() > MAX_COLUMNS {
            return Err(format!("its first line has {} columns, at most {MAX_COLUMNS} are read", self.fields.len()));
        }
        Ok((std::str::from_utf8(text).unwrap_or_default(), &self.fields))
    }

    /// A line with quotes, by the rules of CSV, into `unquoted` and `fields`.
    fn unquote(&mut self, line: &[u8]) -> Result<(), String> {
        self.csv.reset();
        self.unquoted.resize(line.len() + 1, 0);
        self.ends.resize(memchr_iter(b',', line).count() + 2, 0);
        let (result, _, out, ends) = self.csv.read_record(line, &mut self.unquoted, &mut self.ends);
        let (result, out, ends) = match result {
            ReadRecordResult::InputEmpty => {
                let (result, _, more, more_ends) =
                    self.csv.read_record(b"\n", &mut self.unquoted[out..], &mut self.ends[ends..]);
                (result, out + more, ends + more_ends)
            }
            other => (other, out, ends),
        };
        if !matches!(result, ReadRecordResult::Record) {
            return Err("a quote is opened and not closed on the same line".into());
        }
        self.unquoted.truncate(out);
        self.fields.clear();
        let mut from = 0;
        for end in &self.ends[..ends] {
            self.fields.push(Span::new(from, *end));
            from = *end;
        }
        Ok(())
    }
}

fn split(line: &[u8], fields: &mut Vec<Span>) {
    fields.clear();
    let mut from = 0;
    for comma in memchr_iter(b',', line) {
        fields.push(Span::new(from, comma));
        from = comma + 1;
    }
    fields.push(Span::new(from, line.len()));
}

fn row(header: &Header, fields: &[Span], text: &str, last_time: &mut (Vec<u8>, EventTime)) -> Result<Row, String> {
    if fields.len() != header.columns {
        let cr = if text.contains('\r') { "; it holds a CR that is no line end: LF or CR LF is one" } else { "" };
        return Err(format!("it has {} fields, its file's header has {}{cr}", fields.len(), header.columns));
    }
    let [time, event_type, product_id, category_id, category_code, brand, price, user_id, user_session] =
        header.at.map(|i| fields[i]);
    let bytes = text.as_bytes();
    let time_text = time.bytes(bytes);
    if last_time.0 != time_text {
        let parsed = EventTime::parse(time_text).map_err(|e| wrong("event_time", time_text, e))?;
        last_time.0.clear();
        last_time.0.extend_from_slice(time_text);
        last_time.1 = parsed;
    }
    Ok(Row {
        time: last_time.1,
        event_type: kind(event_type.bytes(bytes))?,
        product_id: id("product_id", product_id.bytes(bytes))?,
        category_id: match category_id.bytes(bytes) {
            b"" => None,
            digits => Some(id("category_id", digits)?),
        },
        price: Cents::parse(price.bytes(bytes)).map_err(|e| wrong("price", price.bytes(bytes), e))?,
        user_id: id("user_id", user_id.bytes(bytes))?,
        category_code,
        brand,
        user_session,
    })
}

fn kind(text: &[u8]) -> Result<EventType, String> {
    for kind in [EventType::View, EventType::Cart, EventType::Purchase] {
        if text.eq_ignore_ascii_case(kind.as_str().as_bytes()) {
            return Ok(kind);
        }
    }
    Err(wrong("event_type", text, "it must be view, cart or purchase"))
}

/// A positive integer.
fn id(column: &str, text: &[u8]) -> Result<i64, String> {
    let mut number = 0_u64;
    // 19 digits fit a u64.
    if !text.is_empty() && text.len() <= 19 {
        for digit in text {
            let digit = digit.wrapping_sub(b'0');
            if digit > 9 {
                return Err(not_an_id(column, text));
            }
            number = number * 10 + u64::from(digit);
        }
        if number > 0
            && let Ok(number) = i64::try_from(number)
        {
            return Ok(number);
        }
    }
    Err(not_an_id(column, text))
}

#[cold]
fn not_an_id(column: &str, text: &[u8]) -> String {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    let why = if text.is_empty() {
        "it must be a positive integer"
    } else if number.is_some_and(|n| n.is_finite() && n >= 0.0) && text.iter().any(|b| matches!(b, b'E' | b'e' | b'.'))
    {
        "a spreadsheet has rounded it and its digits are lost; take the original file"
    } else {
        "it must be a positive integer of at most 9223372036854775807"
    };
    wrong(column, text, why)
}

#[cold]
fn wrong(column: &str, value: &[u8], why: impl std::fmt::Display) -> String {
    format!("{column} is {}: {why}", shown(value))
}

#[inline]
fn checked(line: &[u8]) -> Result<&str, String> {
    records::utf8(line).ok_or_else(|| not_utf8(line))
}

#[cold]
fn not_utf8(line: &[u8]) -> String {
    let valid = std::str::from_utf8(line).map_or_else(|e| e.valid_up_to(), str::len);
    format!("it is not UTF-8: byte {valid} of the row is wrong")
}

/// The beginning of a value or line, quoted.
fn shown(value: &[u8]) -> String {
    let head = String::from_utf8_lossy(&value[..value.len().min(QUOTED_CHARS * 4)]);
    let mut shown: String = head.chars().take(QUOTED_CHARS).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

impl Span {
    #[allow(clippy::cast_possible_truncation, reason = "a row is at most 1 MiB")]
    fn new(from: usize, to: usize) -> Self {
        Self { from: from as u32, to: to as u32 }
    }

    fn of(self, text: &str) -> &str {
        text.get(self.from as usize..self.to as usize).unwrap_or_default()
    }

    fn bytes(self, text: &[u8]) -> &[u8] {
        &text[self.from as usize..self.to as usize]
    }
}

impl Row {
    pub(crate) fn key<'a>(&self, text: &'a str) -> SessionKey<'a> {
        SessionKey::of(self.user_session.of(text), self.user_id)
    }

    /// `text` is the one that came with the row.
    pub(crate) fn event<'a>(&self, text: &'a str, feed: Feed, source_row: u64, copy: u32) -> ShopEvent<'a> {
        ShopEvent {
            feed,
            time: self.time,
            source_row,
            copy,
            event_type: self.event_type,
            product_id: self.product_id,
            category_id: self.category_id,
            category_code: self.category_code.of(text),
            brand: self.brand.of(text),
            price: self.price,
            user_id: self.user_id,
            user_session: self.user_session.of(text),
        }
    }
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
