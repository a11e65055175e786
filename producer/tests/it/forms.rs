//! The forms that files come in: all hold the same rows.
use std::io::{Cursor, Read, Write};

use flate2::{Compression, write::GzEncoder};
use producer::{Input, Outcome, Stream};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::world::{HEADER, World, assert_finished, csv, flat_out, json, memory, row};

pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zip(members: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in members {
        archive.start_file(*name, SimpleFileOptions::default().large_file(true)).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// The rows' times and texts without their source.
fn rows(world: &World) -> Vec<(u64, String)> {
    world
        .events()
        .into_iter()
        .map(|(row, time, text)| (row, format!("{time} {}", text.split_once(' ').unwrap().1)))
        .collect()
}

#[test]
fn every_form_holds_the_same_rows() {
    let text = csv(0..300);
    let (head, tail) = text.as_bytes().split_at(text.len() / 3);
    let members = [gzip(head), gzip(tail)].concat();
    let frames = [zstd::encode_all(head, 1).unwrap(), zstd::encode_all(tail, 1).unwrap()].concat();
    let whole = text.clone();
    let (one, other) = (csv(0..120), csv(120..300));
    let stream = |bytes: Vec<u8>| {
        Input::Stream(Stream::new("-", move || Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn Read + Send>)))
    };
    let expected = {
        let world = World::new();
        assert_finished(&world.run(&flat_out(vec![world.file("a.csv", &text)])).unwrap(), 300, 0);
        assert_eq!(world.ends(), [1; 4]);
        assert!(world.letters().is_empty());
        rows(&world)
    };
    assert_eq!(expected.len(), 300);
    let check = |what: &str, settings: &dyn Fn(&World) -> Vec<Input>| {
        let world = World::new();
        let report = world.run(&flat_out(settings(&world))).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_finished(&report, 300, 0);
        assert_eq!(rows(&world), expected, "{what}");
        assert_eq!(world.ends(), [1; 4], "{what}");
    };
    check("memory", &|_| vec![memory("a.csv", text.clone())]);
    check("gzip of two members, by its bytes and not its name", &|w| vec![w.file("a.csv", &members)]);
    check("gzip with zeros after it", &|w| vec![w.file("a.csv.gz", [&members[..], &[0; 1000]].concat())]);
    check("zstd of two frames", &|w| vec![w.file("a.csv.zst", &frames)]);
    check("a name that lies", &|w| vec![w.file("a.csv.gz", &whole)]);
    check("zip", &|w| vec![w.file("a.zip", zip(&[("2.csv", &other), ("readme.txt", "no"), ("1.csv", &one)]))]);
    check("zip with chosen members", &|w| {
        let Input::Path(path) = w.file("a.zip", zip(&[("x/2.csv", &other), ("1.csv", &one), ("0.csv", "no")])) else {
            unreachable!()
        };
        vec![Input::Path(format!("{path}!1.csv")), Input::Path(format!("{path}!x/2.csv"))]
    });
    check("a list of forms", &|w| vec![w.file("b.csv.gz", gzip(one.as_bytes())), w.file("a.csv", &other)]);
    check("a glob", &|w| {
        w.file("part-1.csv", &one);
        w.file("part-2.csv", &other);
        vec![Input::Path(format!("{}/part-*.csv", w.folder.path().display()))]
    });
    check("CRLF and a BOM", &|w| vec![w.file("a.csv", format!("\u{feff}{}", text.replace('\n', "\r\n")))]);
    check("blank lines, and no end of the last", &|w| vec![w.file("a.csv", text.replace('\n', "\n\n").trim_end())]);
    check("a stream", &|_| vec![stream(text.clone().into_bytes())]);
    check("a stream of gzip", &|_| vec![stream(members.clone())]);
    check("a stream of zstd with a BOM", &|_| {
        vec![stream(zstd::encode_all(format!("\u{feff}{text}").as_bytes(), 1).unwrap())]
    });
    let world = World::new();
    assert_finished(&world.run(&json(vec![memory("a.csv", text.clone())])).unwrap(), 300, 0);
    assert_eq!(rows(&world), expected, "JSON");
}

#[test]
fn the_real_sample() {
    let world = World::new();
    let settings = flat_out(vec![Input::Memory { name: dataset::SAMPLE_NAME.into(), bytes: dataset::sample() }]);
    let report = world.run(&settings).unwrap();
    assert_finished(&report, 17_434, 0);
    assert_eq!((report.events_of_source, world.status.fraction()), (17_434, Some(1.0)));
    let events = world.events();
    assert!(events.iter().map(|(row, ..)| *row).eq(0..17_434));
    let again = world.run(&settings).unwrap();
    assert_eq!((again.outcome, again.events, again.events_of_source), (Outcome::AlreadyDone, 0, 17_434));
    assert_eq!(world.events(), events);
    assert_eq!(world.ends(), [1; 4]);
    let metric = |name: &str| {
        let families = world.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"));
        family.get_metric()[0].get_counter().get_value()
    };
    assert!((metric("clickstream_producer_events_total") - 17_434.0).abs() < 0.5);
    assert!(metric("clickstream_producer_transactions_total") >= 2.0);
}

#[test]
fn a_header_without_rows_is_an_empty_source() {
    for text in [HEADER.to_owned(), format!("{HEADER}\n"), format!("{HEADER}\r\n")] {
        let world = World::new();
        let settings = flat_out(vec![world.file("a.csv", &text)]);
        assert_finished(&world.run(&settings).unwrap(), 0, 0);
        assert_eq!(world.ends(), [1; 4]);
        assert_eq!(world.run(&settings).unwrap().outcome, Outcome::AlreadyDone);
    }
}

#[test]
fn rows_across_chunks_are_whole() {
    // More than one chunk of a mebibyte, with rows of any length up to one that just fits.
    let mut text = format!("{HEADER}\n");
    let fits = (1 << 20) - row(0).len() + "ikea".len();
    for (i, brand) in [9, fits, 300_000, 5, 700_000, 1, fits, 12].into_iter().enumerate() {
        text.push_str(&row(i).replace("ikea", &"b".repeat(brand)));
        text.push('\n');
    }
    let world = World::new();
    assert_finished(&world.run(&flat_out(vec![world.file("a.csv", &text)])).unwrap(), 8, 0);
}
