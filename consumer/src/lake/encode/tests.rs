//! What is written is what `parquet`'s own reader reads.
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, RecordBatch};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use proptest::prelude::*;
use records::{DecodeError, Decoder};

use super::*;
use crate::lake::columns::{Columns, Place};
use crate::lake::settings::Codec;

/// A column of each kind.
struct Kinds {
    integer: Column<Integers>,
    maybe_integer: Column<Integers>,
    category: Column<IntegerDictionary>,
    text: Column<TextDictionary>,
    maybe_text: Column<TextDictionary>,
    bytes: Column<PlainBytes>,
    maybe_id: Column<PlainBytes>,
    flag: Column<Flags>,
    code: Column<TextDictionary>,
    item: Column<Integers>,
    item_text: Column<TextDictionary>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    integer: i64,
    maybe_integer: Option<i64>,
    category: Option<i64>,
    text: String,
    /// An empty text is NULL.
    maybe_text: String,
    bytes: Vec<u8>,
    maybe_id: String,
    flag: bool,
    code: u8,
    items: Vec<(i64, String)>,
}

impl Columns for Kinds {
    type Row<'a> = Row;

    fn new() -> Self {
        Self {
            integer: Column::required(),
            maybe_integer: Column::optional(),
            category: Column::optional(),
            text: Column::required(),
            maybe_text: Column::optional(),
            bytes: Column::required(),
            maybe_id: Column::optional(),
            flag: Column::required(),
            code: Column::required(),
            item: Column::item(),
            item_text: Column::optional_item(),
        }
    }

    fn schema() -> SchemaRef {
        let item: Fields =
            vec![Field::new("n", DataType::Int64, false), Field::new("text", DataType::Utf8, true)].into();
        let item = Arc::new(Field::new("element", DataType::Struct(item), false));
        Arc::new(Schema::new(vec![
            Field::new("integer", DataType::Int64, false),
            Field::new("maybe_integer", DataType::Int64, true),
            Field::new("category", DataType::Int64, true),
            Field::new("text", DataType::Utf8, false),
            Field::new("maybe_text", DataType::Utf8, true),
            Field::new("bytes", DataType::Binary, false),
            Field::new("maybe_id", DataType::Utf8, true),
            Field::new("flag", DataType::Boolean, false),
            Field::new("code", DataType::Utf8, false),
            Field::new("items", DataType::List(item), false),
        ]))
    }

    fn read<'a>(_: &'a mut Decoder, _: Option<&[u8]>, _: &'a [u8]) -> Result<Option<Row>, DecodeError> {
        Ok(None)
    }

    fn push(&mut self, row: &Row, _: Place) {
        self.integer.push(&row.integer);
        self.maybe_integer.push_option(row.maybe_integer.as_ref());
        self.category.push_option(row.category.as_ref());
        self.text.push_text(&row.text);
        self.maybe_text.push_text(&row.maybe_text);
        self.bytes.push(&row.bytes);
        self.maybe_id.push_text(&row.maybe_id);
        self.flag.push(&row.flag);
        self.code.push_coded(row.code.into(), || row.code.to_string());
        if row.items.is_empty() {
            self.item.push_no_items();
            self.item_text.push_no_items();
        }
        for (i, (n, text)) in row.items.iter().enumerate() {
            self.item.push_item(i == 0, Some(n));
            self.item_text.push_text_item(i == 0, text);
        }
    }

    fn rows(&self) -> usize {
        self.integer.len()
    }

    fn bytes(&self) -> usize {
        self.integer.bytes() + self.text.bytes() + self.bytes.bytes()
    }

    fn leaves(&mut self) -> Vec<&mut dyn Leaf> {
        vec![
            &mut self.integer,
            &mut self.maybe_integer,
            &mut self.category,
            &mut self.text,
            &mut self.maybe_text,
            &mut self.bytes,
            &mut self.maybe_id,
            &mut self.flag,
            &mut self.code,
            &mut self.item,
            &mut self.item_text,
        ]
    }
}

const PLACE: Place = Place { partition: 0, offset: 0, timestamp_ms: 0, sent_at_us: None };

struct Writer {
    format: FileFormat,
    scratch: Scratch,
    file: OpenFile<Kinds>,
}

impl Writer {
    fn new(codec: Codec, chunk_rows: usize, row_group_rows: usize) -> Self {
        let mut format = FileFormat::new::<Kinds>(row_group_rows).unwrap();
        format.chunk_rows = chunk_rows;
        let file = OpenFile::new(&format);
        Self { format, scratch: Scratch::new(codec).unwrap(), file }
    }

    fn write(&mut self, rows: &[Row]) -> Bytes {
        for row in rows {
            self.file.columns.push(row, PLACE);
            self.file.encode_full_chunk(&self.format, &mut self.scratch).unwrap();
        }
        let footer = [KeyValue::new("a".to_owned(), "b".to_owned())];
        let payload = self.file.finish(&footer, &self.format, &mut self.scratch).unwrap();
        payload.into_iter().flatten().collect::<Vec<u8>>().into()
    }
}

fn read(file: Bytes) -> (Vec<Row>, Arc<ParquetMetaData>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let metadata = reader.metadata().clone();
    let rows = reader.build().unwrap().flat_map(|batch| rows(&batch.unwrap())).collect();
    (rows, metadata)
}

fn rows(batch: &RecordBatch) -> Vec<Row> {
    let integers = |name: &str| {
        let column = batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
        move |i| (!column.is_null(i)).then(|| column.value(i))
    };
    let texts = |name: &str| {
        let column = batch.column_by_name(name).unwrap().as_string::<i32>().clone();
        move |i| if column.is_null(i) { String::new() } else { column.value(i).to_owned() }
    };
    let (integer, maybe_integer, category) = (integers("integer"), integers("maybe_integer"), integers("category"));
    let (text, maybe_text, maybe_id, code) = (texts("text"), texts("maybe_text"), texts("maybe_id"), texts("code"));
    let bytes = batch.column_by_name("bytes").unwrap().as_binary::<i32>();
    let flag = batch.column_by_name("flag").unwrap().as_boolean();
    let items = batch.column_by_name("items").unwrap().as_list::<i32>();
    let items = |i| {
        let items = items.value(i);
        let (n, text) = (items.as_struct().column(0).as_primitive::<Int64Type>(), items.as_struct().column(1));
        let text = text.as_string::<i32>();
        let text = |i| if text.is_null(i) { String::new() } else { text.value(i).to_owned() };
        (0..n.len()).map(|i| (n.value(i), text(i))).collect()
    };
    (0..batch.num_rows())
        .map(|i| Row {
            integer: integer(i).unwrap(),
            maybe_integer: maybe_integer(i),
            category: category(i),
            text: text(i),
            maybe_text: maybe_text(i),
            bytes: bytes.value(i).to_vec(),
            maybe_id: maybe_id(i),
            flag: flag.value(i),
            code: code(i).parse().unwrap(),
            items: items(i),
        })
        .collect()
}

/// Extremes, and few values of many: runs, nulls, repeated texts.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), 0..3_i64, Just(7), Just(7)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("a".to_owned()), "[a-c]{0,2}", "\\PC{0,80}"]
}

prop_compose! {
    fn row()(
        (integer, maybe_integer, category) in
            (number(), prop::option::of(number()), prop::option::weighted(0.9, number())),
        (text, maybe_text, maybe_id) in (text(), text(), text()),
        bytes in prop::collection::vec(any::<u8>(), 0..9), (flag, code) in any::<(bool, u8)>(),
        items in prop::collection::vec((number(), text()), 0..4),
    ) -> Row {
        Row { integer, maybe_integer, category, text, maybe_text, bytes, maybe_id, flag, code, items }
    }
}

/// Rows, some of them many times over.
fn many() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((row(), prop_oneof![Just(1_usize), 1..40_usize]), 1..40)
        .prop_map(|runs| runs.into_iter().flat_map(|(row, n)| std::iter::repeat_n(row, n)).collect())
}

fn codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::Lz4Raw), Just(Codec::Snappy), Just(Codec::Zstd), Just(Codec::None)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn rows_come_back(
        files in prop::collection::vec(many(), 1..3), codec in codec(), chunk_rows in 1..300_usize,
        row_group_rows in 1..900_usize,
    ) {
        // The second file takes over the buffers of the first.
        let mut writer = Writer::new(codec, chunk_rows, row_group_rows);
        for rows in files {
            let (back, metadata) = read(writer.write(&rows));
            prop_assert_eq!(metadata.file_metadata().num_rows(), i64::try_from(rows.len()).unwrap());
            prop_assert_eq!(metadata.num_row_groups(), rows.len().div_ceil(row_group_rows));
            prop_assert!(metadata.file_metadata().key_value_metadata().is_some_and(|entries| entries[0].key == "a"));
            check_statistics(&metadata, &rows, row_group_rows);
            prop_assert!(back == rows, "{:?}\ninstead of {:?}", back, rows);
        }
    }
}

fn check_statistics(metadata: &ParquetMetaData, rows: &[Row], row_group_rows: usize) {
    for (group, rows) in metadata.row_groups().iter().zip(rows.chunks(row_group_rows)) {
        let of = |i: usize| group.column(i).statistics().unwrap();
        let bounds = |i: usize| (of(i).min_bytes_opt().map(<[u8]>::to_vec), of(i).max_bytes_opt().map(<[u8]>::to_vec));
        let numbers = |all: Vec<i64>| {
            let bytes = |value: Option<&i64>| value.map(|value| value.to_le_bytes().to_vec());
            (bytes(all.iter().min()), bytes(all.iter().max()))
        };
        assert_eq!(bounds(0), numbers(rows.iter().map(|row| row.integer).collect()));
        assert_eq!(bounds(1), numbers(rows.iter().filter_map(|row| row.maybe_integer).collect()));
        assert_eq!(bounds(2), numbers(rows.iter().filter_map(|row| row.category).collect()));
        let least = rows.iter().map(|row| row.text.as_bytes()).min().filter(|text| text.len() <= 64);
        let greatest = rows.iter().map(|row| row.text.as_bytes()).max().filter(|text| text.len() <= 64);
        let expected = least.zip(greatest).map(|(a, b)| (a.to_vec(), b.to_vec()));
        assert_eq!(bounds(3), expected.map_or((None, None), |(a, b)| (Some(a), Some(b))));
        let nulls = rows.iter().filter(|row| row.maybe_text.is_empty()).count() as u64;
        assert_eq!(of(4).null_count_opt(), Some(nulls));
    }
}

/// More distinct values than a dictionary takes: what follows is plain.
#[test]
fn a_dictionary_that_is_full_goes_on_plain() {
    let row = |i: i64| Row {
        integer: i,
        maybe_integer: None,
        category: Some(i % 70_000),
        text: (i % 70_000).to_string(),
        maybe_text: if i % 2 == 0 { String::new() } else { "x".repeat(usize::try_from(i % 500).unwrap()) },
        bytes: Vec::new(),
        maybe_id: String::new(),
        flag: false,
        code: 0,
        items: Vec::new(),
    };
    let rows: Vec<_> = (0..90_000).map(row).collect();
    let mut writer = Writer::new(Codec::Lz4Raw, 4096, 80_000);
    let (back, metadata) = read(writer.write(&rows));
    assert!(back == rows);
    let plain = |group: usize, column: usize| {
        let mut encodings = metadata.row_group(group).column(column).encodings();
        encodings.any(|encoding| encoding == parquet::basic::Encoding::DELTA_BINARY_PACKED)
    };
    assert!(plain(0, 2) && !plain(1, 2), "the second row group has a dictionary of its own");
    assert!(metadata.row_group(0).column(3).statistics().unwrap().min_bytes_opt().is_none());
    assert!(writer.file.is_reusable() || writer.file.memory_bytes() > 4 << 20);
}
