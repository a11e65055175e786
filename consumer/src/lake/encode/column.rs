//! A column: values, and the levels that say where there is none.
use parquet::basic::Encoding;
use parquet::file::statistics::Statistics;

use super::values::{TextDictionary, Values};
use super::{bits, rle};

/// A leaf of the schema.
pub(crate) struct Column<V> {
    values: V,
    /// 0 where every row has a value.
    max_definition: u8,
    is_item: bool,
    definitions: Vec<u8>,
    repetitions: Vec<u8>,
    nulls: u64,
}

/// A page as encoded, not yet compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoded {
    /// Absent ones included.
    pub(crate) values: usize,
    pub(crate) encoding: Encoding,
}

/// A column of whatever values.
pub(crate) trait Leaf {
    /// Appends what was gathered as a page's body, and starts anew. None if nothing was.
    fn encode(&mut self, out: &mut Vec<u8>) -> Option<Encoded>;

    /// The plain values, and how many.
    fn dictionary(&self) -> Option<(&[u8], usize)>;

    fn statistics(&self) -> Statistics;

    fn is_packed(&self) -> bool;

    fn has_levels(&self) -> bool;

    fn kept_bytes(&self) -> usize;

    /// Forgets the row group.
    fn reset(&mut self);
}

impl<V: Values + Default> Column<V> {
    fn new(max_definition: u8, is_item: bool) -> Self {
        Self {
            values: V::default(),
            max_definition,
            is_item,
            definitions: Vec::new(),
            repetitions: Vec::new(),
            nulls: 0,
        }
    }

    pub(crate) fn required() -> Self {
        Self::new(0, false)
    }

    pub(crate) fn optional() -> Self {
        Self::new(1, false)
    }

    /// Of the items of a list that is never NULL, nor is an item.
    pub(crate) fn item() -> Self {
        Self::new(1, true)
    }

    pub(crate) fn optional_item() -> Self {
        Self::new(2, true)
    }

    #[inline]
    pub(crate) fn push(&mut self, value: &V::Value) {
        if self.max_definition > 0 {
            self.definitions.push(self.max_definition);
        }
        self.values.push(value);
    }

    #[inline]
    pub(crate) fn push_option(&mut self, value: Option<&V::Value>) {
        match value {
            Some(value) => self.push(value),
            None => self.definitions.push(self.max_definition.saturating_sub(1)),
        }
    }

    /// The next item of this row's list; `first` if it begins the list.
    pub(crate) fn push_item(&mut self, first: bool, value: Option<&V::Value>) {
        self.repetitions.push(u8::from(!first));
        self.push_option(value);
    }

    /// This row's list is empty.
    pub(crate) fn push_no_items(&mut self) {
        self.repetitions.push(0);
        self.definitions.push(0);
    }

    /// Gathered since the last page.
    pub(crate) fn bytes(&self) -> usize {
        self.values.bytes() + self.definitions.len() + self.repetitions.len()
    }

    /// Values since the last page, absent ones included.
    pub(crate) fn len(&self) -> usize {
        if self.max_definition > 0 { self.definitions.len() } else { self.values.len() }
    }
}

impl Column<TextDictionary> {
    /// A text that `code` stands for, where every row has one. All rows of the column are pushed so.
    #[inline]
    pub(crate) fn push_coded<T: AsRef<[u8]>>(&mut self, code: u64, text: impl FnOnce() -> T) {
        self.values.push_coded(code, text);
    }
}

impl<V: Values<Value = [u8]> + Default> Column<V> {
    /// An empty text is NULL where it may be.
    #[inline]
    pub(crate) fn push_text(&mut self, text: &str) {
        let is_null = self.max_definition > 0 && text.is_empty();
        self.push_option((!is_null).then_some(text.as_bytes()));
    }

    pub(crate) fn push_text_item(&mut self, first: bool, text: &str) {
        self.push_item(first, (!text.is_empty()).then_some(text.as_bytes()));
    }
}

impl<V: Values + Default> Leaf for Column<V> {
    fn encode(&mut self, out: &mut Vec<u8>) -> Option<Encoded> {
        let values = self.len();
        if values == 0 {
            return None;
        }
        if self.is_item {
            encode_levels(&mut self.repetitions, 1, out);
        }
        if self.max_definition > 0 {
            self.nulls += (values - self.values.len()) as u64;
            encode_levels(&mut self.definitions, bits::width(u64::from(self.max_definition)), out);
        }
        Some(Encoded { values, encoding: self.values.encode(out) })
    }

    fn dictionary(&self) -> Option<(&[u8], usize)> {
        self.values.dictionary()
    }

    fn statistics(&self) -> Statistics {
        self.values.statistics(self.nulls)
    }

    fn is_packed(&self) -> bool {
        V::PACKED
    }

    fn has_levels(&self) -> bool {
        self.max_definition > 0
    }

    fn kept_bytes(&self) -> usize {
        self.values.kept_bytes()
    }

    fn reset(&mut self) {
        self.values.reset();
        self.definitions.clear();
        self.repetitions.clear();
        self.nulls = 0;
    }
}

/// Four bytes say how long they are.
fn encode_levels(levels: &mut Vec<u8>, width: u32, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    rle::encode(levels, width, out);
    let bytes = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
    levels.clear();
}
