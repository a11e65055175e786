//! Files that are not what they should be: an error that names the file and what was expected, no
//! end, and the rows before the fault published.
use producer::{Error, Input};

use crate::forms::{gzip, zip};
use crate::world::{HEADER, World, csv, flat_out, memory};

fn check(world: &World, input: Input, file: &str, why: &str) {
    match world.run(&flat_out(vec![input])) {
        Err(Error::File { file: got, why: got_why }) => {
            assert!(got.ends_with(file), "{got}: {got_why}");
            assert!(got_why.contains(why), "{got}: {got_why}, not {why}");
        }
        other => panic!("{file}: {other:?}"),
    }
    assert_eq!(world.ends(), [0; 4], "{file} has an end");
}

#[test]
fn refused_at_once() {
    let world = World::new();
    let folder = world.folder.path().to_str().unwrap().to_owned();
    std::fs::create_dir(world.folder.path().join("dir")).unwrap();
    check(&world, Input::Path(format!("{folder}/none.csv")), "none.csv", "no such file");
    check(&world, Input::Path(format!("{folder}/none*.csv")), "none*.csv", "no file matches");
    check(&world, Input::Path(format!("{folder}/dir")), "dir", "it is a folder");
    for (name, bytes, why) in [
        ("empty.csv", vec![], "it is empty (0 bytes)"),
        ("empty.csv.gz", gzip(b""), "its text is empty (0 bytes)"),
        ("rows.csv", csv(0..3).split_once('\n').unwrap().1.into(), "it has no header"),
        ("column.csv", HEADER.replace("price,", "").into_bytes(), "its header lacks price"),
        ("twice.csv", format!("{HEADER},price").into_bytes(), "names the column price twice"),
        ("picture.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), "it is not CSV text"),
        ("semicolons.csv", HEADER.replace(',', ";").into_bytes(), "it has no header"),
        ("endless.csv", vec![b'x'; 3 << 20], "does not end within 1 MiB"),
        ("a.csv.xz", b"\xfd7zXZ\0\0\x04".to_vec(), "it is xz; plain CSV, .gz, .zst and .zip are read"),
        ("a.parquet", b"PAR1....".to_vec(), "it is Parquet"),
        ("cut.csv.gz", gzip(csv(0..9).as_bytes())[..7].to_vec(), "it is cut off"),
        ("table.xlsx", zip(&[("xl/workbook.xml", "<a/>")]), "the archive holds no .csv file; it holds xl/workbook.xml"),
        ("cut.zip", zip(&[("a.csv", &csv(0..50))])[..300].to_vec(), "the archive cannot be read"),
    ] {
        let input = world.file(name, bytes);
        check(&world, input, name, why);
    }
    let pipe = world.folder.path().join("pipe.csv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.to_str().unwrap(), "/dev/null"] {
        check(&world, Input::Path(path.to_owned()), path, "give - and let it come on standard input");
    }
    let Input::Path(archive) = world.file("a.zip", zip(&[("a.csv", &csv(0..3))])) else { unreachable!() };
    check(&world, Input::Path(format!("{archive}!b.csv")), "a.zip", "holds no file b.csv; it holds a.csv");
    assert!(world.events().is_empty());
}

#[test]
fn a_wrong_file_late_in_the_list_is_refused_before_the_first_row() {
    let world = World::new();
    let good = world.file("a.csv", csv(0..3));
    let wrong = world.file("b.csv", "no header");
    assert!(matches!(world.run(&flat_out(vec![good, wrong])), Err(Error::File { .. })));
    assert!(world.events().is_empty());
}

/// Wherever an archive is cut, it is an error, and what was published are its first rows.
#[test]
fn cut_and_damaged_archives() {
    let text = csv(0..40_000);
    let whole = gzip(text.as_bytes());
    let zst = zstd::encode_all(text.as_bytes(), 1).unwrap();
    for (name, archive) in [("a.csv.gz", &whole), ("a.csv.zst", &zst)] {
        for cut in [archive.len() / 2, archive.len() - 1] {
            let world = World::new();
            let input = world.file(name, &archive[..cut]);
            check(&world, input, name, "it is cut off");
            let events = world.events();
            assert!(events.len() > 10_000 || cut < archive.len() - 1, "{name}: {} of 40,000", events.len());
            assert!(events.iter().map(|(row, ..)| *row).eq(0..events.len() as u64), "{name}: rows are missing");
            assert!(world.letters().is_empty(), "the row at the cut is no row");
        }
    }
    let world = World::new();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0x55);
    let input = world.file("b.csv.gz", damaged);
    check(&world, input, "b.csv.gz", "");
    let ends = format!("ends at byte {}, and what follows is something else", whole.len());
    for rest in [&b"trailing garbage"[..], b"\x1f\x8atrailing garbage", b"\0\0\0and more"] {
        let world = World::new();
        check(&world, memory("garbage.csv.gz", [&whole[..], rest].concat()), "garbage.csv.gz", &ends);
        assert_eq!(world.events().len(), 40_000, "all that is of the file");
    }
    let world = World::new();
    check(&world, memory("cut.csv.gz", [&whole[..], &whole[..5]].concat()), "cut.csv.gz", "it is cut off");
}
