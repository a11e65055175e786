//! What splitting rows into fields costs: csv-async, csv-core, and a search for commas per line, over the
//! bundled sample fifty times in memory. `cargo run --release -p producer --example parse`
//!
//! The replay takes the last: it is the fastest, and a stray quote spoils its own line only, where a
//! CSV reader takes the rest of the file for one field.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::cast_precision_loss, reason = "an example")]
use std::hint::black_box;
use std::io::Read;

use memchr::memchr_iter;
use records::clock;

const COPIES: usize = 50;

fn main() {
    let mut sample = Vec::new();
    flate2::read::GzDecoder::new(dataset::sample()).read_to_end(&mut sample).expect("the sample is whole");
    let header_end = sample.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
    let text = [&sample[..header_end], &sample[header_end..].repeat(COPIES)].concat();
    for round in 1..=3 {
        println!("round {round}");
        let splitter = measure("lines and commas", &text, splitter);
        for (name, fields) in [("csv-core", csv_core as fn(&[u8]) -> usize), ("csv-async", csv_async)] {
            println!("  {name} takes {:.2} times as long", measure(name, &text, fields) / splitter);
        }
    }
}

fn measure(name: &str, text: &[u8], fields: fn(&[u8]) -> usize) -> f64 {
    let begun = clock::now();
    let found = fields(black_box(text));
    let seconds = (clock::now() - begun).as_secs_f64();
    assert_eq!(found, 9 * (17_434 * COPIES + 1), "{name}");
    println!("  {name}: {:.0} ns a row", seconds * 1e9 / (found / 9) as f64);
    seconds
}

fn splitter(text: &[u8]) -> usize {
    let mut fields = 0;
    let mut from = 0;
    for end in memchr_iter(b'\n', text) {
        let line = &text[from..end];
        let mut start = 0;
        for comma in memchr_iter(b',', line) {
            black_box(&line[start..comma]);
            fields += 1;
            start = comma + 1;
        }
        black_box(&line[start..]);
        fields += 1;
        from = end + 1;
    }
    fields
}

fn csv_core(mut text: &[u8]) -> usize {
    let mut reader = csv_core::Reader::new();
    let (mut output, mut ends) = (vec![0; 64 << 10], vec![0; 64]);
    let mut fields = 0;
    loop {
        let (result, read, _, found) = reader.read_record(text, &mut output, &mut ends);
        text = &text[read..];
        fields += found;
        black_box(&output);
        if matches!(result, csv_core::ReadRecordResult::End) {
            return fields;
        }
    }
}

fn csv_async(text: &[u8]) -> usize {
    futures::executor::block_on(async {
        let mut reader =
            csv_async::AsyncReaderBuilder::new().has_headers(false).buffer_capacity(1 << 20).create_reader(text);
        let mut record = csv_async::ByteRecord::new();
        let mut fields = 0;
        while reader.read_byte_record(&mut record).await.expect("the sample is CSV") {
            fields += black_box(&record).len();
        }
        fields
    })
}
