//! Wherever a gzip file is entered, it goes on as if it had been read to there; and an index that is
//! wrong in any byte never gives other text.
use std::io::{BufReader, Cursor};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::super::gzip::Gzip;
use super::*;

/// Text that compresses about as rows do, with some that does not.
fn text(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut text = Vec::with_capacity(length + 64);
    while text.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let drawn = state >> 33;
        if drawn.is_multiple_of(7) {
            text.extend_from_slice(&state.to_be_bytes());
        } else {
            text.extend_from_slice(
                format!("2019-10-01 00:00:{:02} UTC,view,{}\n", drawn % 60, drawn % 9999).as_bytes(),
            );
        }
    }
    text.truncate(length);
    text
}

/// Members, each compressed as hard as it says; 0 is stored.
fn gzip(members: &[(usize, u32)], seed: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut whole, mut file) = (Vec::new(), Vec::new());
    for (n, (length, level)) in (0..).zip(members) {
        let text = text(*length, seed + n);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(*level));
        encoder.write_all(&text).unwrap();
        file.extend(encoder.finish().unwrap());
        whole.extend(text);
    }
    (whole, file)
}

fn read(mut from: impl Read, step: usize) -> io::Result<Vec<u8>> {
    let (mut all, mut piece) = (Vec::new(), vec![0; step]);
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(all),
            n => all.extend_from_slice(&piece[..n]),
        }
    }
}

fn index(folder: &tempfile::TempDir, every_bytes: u64) -> Index {
    GzipIndex { folder: folder.path().join("made"), every_bytes }.of(1, 2)
}

fn read_with(index: &Index, file: &[u8], buffer: usize) -> Vec<u8> {
    read(Gzip::new(BufReader::with_capacity(buffer, file), Some(index.clone().notes())), 1000).unwrap()
}

/// From the last entry before a byte, or from the beginning: the text from that byte on.
fn resume(index: &Index, file: &[u8], from: usize) -> io::Result<(u64, Vec<u8>)> {
    let mut raw = Cursor::new(file);
    let entry = index.before(from as u64, &mut raw)?;
    let at = entry.as_ref().map_or(0, |entry| entry.text);
    let raw = BufReader::with_capacity(3000, raw);
    let text = match &entry {
        Some(entry) => read(Gzip::enter(raw, Some(index.clone().notes()), entry), 777)?,
        None => read(Gzip::new(raw, Some(index.clone().notes())), 777)?,
    };
    Ok((at, text[from - usize::try_from(at).unwrap()..].to_vec()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn entered_anywhere_it_is_the_same_text(
        members in prop::collection::vec((0..400_000_usize, 0..10_u32), 1..5),
        seed in any::<u64>(),
        every in 1..200_000_u64,
        buffer in 600..300_000_usize,
        places in prop::collection::vec(0.0..=1.0_f64, 5),
    ) {
        let (whole, file) = gzip(&members, seed >> 8);
        let folder = tempfile::tempdir().unwrap();
        let index = index(&folder, every);
        prop_assert!(read_with(&index, &file, buffer) == whole);
        let noted = index.load();
        // Read once more, nothing is noted twice.
        prop_assert!(read_with(&index, &file, buffer) == whole);
        prop_assert!(index.load() == noted);
        for place in places {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let from = (whole.len() as f64 * place) as usize;
            let (_, text) = resume(&index, &file, from).unwrap();
            prop_assert!(text == whole[from..], "from {from}");
        }
        for noted in &noted {
            let mut raw = Cursor::new(&file[..]);
            raw.set_position(noted.entry.raw);
            let entered = Gzip::enter(BufReader::new(raw), None::<Taken>, &noted.entry);
            let from = usize::try_from(noted.entry.text).unwrap();
            prop_assert!(read(entered, 5000).unwrap() == whole[from..], "{from}");
        }
    }
}

#[test]
fn entries_are_as_near_as_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    // Members of one block each, as bgzip has them, and one of many.
    let (whole, file) = gzip(&[[(20_000, 6); 40].as_slice(), &[(1_000_000, 6)]].concat(), 7);
    let index = index(&folder, 100_000);
    assert_eq!(read_with(&index, &file, 64 << 10), whole);
    let mut before = 0;
    let entries = index.load();
    assert!(entries.iter().any(|noted| noted.entry.block.is_none()));
    assert!(entries.iter().any(|noted| noted.entry.block.is_some()));
    for noted in entries {
        let apart = noted.entry.text - before;
        assert!((100_000..250_000).contains(&apart), "{before} to {}", noted.entry.text);
        before = noted.entry.text;
    }
    assert!(whole.len() as u64 - before < 250_000);
    let (at, _) = resume(&index, &file, 1_500_000).unwrap();
    assert!(at > 1_250_000, "{at}");
}

#[test]
fn a_wrong_index_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, file) = gzip(&[(300_000, 6)], 1);
    let index = index(&folder, 100_000);
    read_with(&index, &file, 64 << 10);
    let good = std::fs::read(&index.path).unwrap();
    let from = 290_000;
    assert!(resume(&index, &file, from).unwrap().0 > 0);
    let wrong = |bytes: &[u8], what: &str| {
        std::fs::write(&index.path, bytes).unwrap();
        assert!(resume(&index, &file, from).unwrap().1 == whole[from..], "{what}");
        // It is whole again, for the next time.
        assert!(resume(&index, &file, from).unwrap().0 > 0, "{what}: it is not made anew");
    };
    for at in (0..good.len()).step_by(211).chain(0..64) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        wrong(&bytes, &format!("byte {at} is wrong"));
    }
    for length in [0, 1, 13, good.len() / 2, good.len() - 1] {
        wrong(&good[..length], &format!("{length} bytes of it"));
    }
    wrong(b"not an index at all, but a text of some length that somebody has put here", "a text");
    // That of another file, of which only the beginning is the same.
    let (other, other_file) = gzip(&[(250_000, 6), (80_000, 1)], 1);
    std::fs::write(&index.path, &good).unwrap();
    assert!(resume(&index, &other_file, from).unwrap().1 == other[from..]);
}

#[test]
fn a_fault_after_the_place_of_entry_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (_, file) = gzip(&[(300_000, 6)], 1);
    let index = index(&folder, 100_000);
    read_with(&index, &file, 64 << 10);
    let cut = resume(&index, &file[..file.len() - 3], 250_000).unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    let mut checksum = file.clone();
    checksum[file.len() - 6] ^= 1;
    let why = resume(&index, &checksum, 250_000).unwrap_err();
    assert!(why.to_string().contains("checksum"), "{why}");
    // What cannot be written is done without.
    let nowhere = GzipIndex { folder: "/proc/none".into(), every_bytes: 1 }.of(1, 2);
    assert_eq!(read_with(&nowhere, &file, 64 << 10).len(), 300_000);
}
