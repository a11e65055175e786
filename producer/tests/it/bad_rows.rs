//! Rows that cannot be read: dead letters with file, row and reason, and the rest goes on.
use std::io::Write;

use producer::Error;

use crate::world::{HEADER, Letter, World, assert_finished, csv, flat_out, memory, row};

#[test]
fn a_bad_row_is_a_dead_letter() {
    for (bad, reason) in [
        (row(1).replace("2053013559792632471", "2.10381E+18"), "category_id is \"2.10381E+18\": a spreadsheet"),
        (row(1).replace("view", "wish"), "event_type is \"wish\""),
        (row(1).replace("543.01", "-1"), "price is \"-1\": a price is never negative"),
        (row(1).replace("543.01", "1e99"), "price is \"1e99\""),
        (row(1).replace("2019-10-01", "2019-10-32"), "event_time is"),
        (row(1).replace("ikea", "\"ikea"), "a quote is opened"),
        ("x".to_owned(), "it has 1 fields, its file's header has 9"),
        (format!("{},extra", row(1)), "it has 10 fields"),
    ] {
        let world = World::new();
        let text = format!("{HEADER}\n{}\n{bad}\n{}\n", row(0), row(2));
        let report = world.run(&flat_out(vec![memory("first.csv", csv(0..5)), world.file("a.csv", text)])).unwrap();
        assert_finished(&report, 7, 1);
        let letters = world.letters();
        let Letter { reason: got, payload, length, file, source_row, file_row } = &letters[0];
        assert!(got.contains(reason), "{got}");
        assert_eq!((payload.as_slice(), *length), (bad.as_bytes(), bad.len() as u64));
        assert_eq!((file.as_str(), *source_row, *file_row, letters.len()), ("a.csv", 6, 2, 1));
        assert_eq!(report.first_reasons[0].to_string(), format!("a.csv row 2: {got}"));
        assert!(world.events().iter().map(|(row, ..)| *row).eq([0, 1, 2, 3, 4, 5, 7]));
    }
}

#[test]
fn a_last_line_cut_off() {
    let world = World::new();
    let text = csv(0..10);
    let report = world.run(&flat_out(vec![world.file("a.csv", &text[..text.len() - 40])])).unwrap();
    assert_finished(&report, 9, 1);
}

#[test]
fn bytes_that_are_not_utf8() {
    let world = World::new();
    let mut text = csv(0..3).into_bytes();
    let at = text.windows(4).position(|w| w == b"ikea").unwrap();
    text[at] = 0xff;
    assert_finished(&world.run(&flat_out(vec![world.file("a.csv", &text)])).unwrap(), 2, 1);
    assert!(world.letters()[0].reason.contains("not UTF-8"));
}

/// A row of 300 MB is never held; its head is kept, and the next row is read.
#[test]
fn a_row_of_300_megabytes() {
    const LONG: u64 = 300 << 20;
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(format!("{HEADER}\n{}\n", row(0)).as_bytes()).unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..LONG >> 20 {
        encoder.write_all(&block).unwrap();
    }
    encoder.write_all(format!("\r\n{}\n", row(1)).as_bytes()).unwrap();
    let world = World::new();
    let input = world.file("a.csv.zst", encoder.finish().unwrap());
    assert_finished(&world.run(&flat_out(vec![input])).unwrap(), 2, 1);
    let letter = &world.letters()[0];
    assert!(letter.reason.contains("a row is at most 1 MiB"), "{}", letter.reason);
    assert_eq!((letter.payload.len(), letter.length), (64 << 10, LONG));
    assert!(peak_kib() < 200 << 10, "the process has needed {} KiB", peak_kib());
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn so_many_dead_letters_and_no_more() {
    let text = format!("{HEADER}\n{}\nbad\n{}\nworse\n{}\n", row(0), row(1), row(2));
    let settings = |limit| {
        let mut settings = flat_out(vec![memory("a.csv", text.clone())]);
        settings.max_dead_letters = Some(limit);
        settings
    };
    assert_finished(&World::new().run(&settings(2)).unwrap(), 3, 2);
    let world = World::new();
    for _ in 0..2 {
        match world.run(&settings(1)) {
            Err(error @ Error::DeadLetters { limit: 1, .. }) => {
                assert!(error.to_string().contains("a.csv row 4: it has 1 fields"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((world.events().len(), world.letters().len(), world.ends()), (2, 1, vec![0; 4]));
    }
}
