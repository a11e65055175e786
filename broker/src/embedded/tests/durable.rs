//! What survives: reopening, a kill, a full disk; and what is refused when it did not survive.
use std::fs;

use super::*;

fn open(path: &Path) -> Result<Arc<Embedded>> {
    Embedded::open(path, Options::default())
}

/// The files as a killed process leaves them: all that it wrote, whatever it still held.
fn crash_image(path: &Path, to: &Path) -> PathBuf {
    fs::create_dir_all(to).unwrap();
    for name in ["broker.db", "broker.db-wal"] {
        let _ = fs::copy(path.with_file_name(name), to.join(name));
    }
    to.join("broker.db")
}

#[test]
fn a_killed_process_loses_what_it_had_not_committed_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let broker = open(&path).unwrap();
    broker.create_topics(&[spec("in", 2, Cleanup::Delete), spec("progress", 1, Cleanup::Compact)]).unwrap();
    broker.register_group("g", &["in".into()]).unwrap();
    let mut writer = broker.writer("w").unwrap();
    let mut reader = broker.assign(Some("g"), &[(partition("in", 1), Offset(0))]).unwrap();
    for i in 0..40_i64 {
        writer.begin().unwrap();
        writer.append(&"in".into(), 1, &noise(i.unsigned_abs(), 3_000)).unwrap();
        writer.append(&"progress".into(), 0, &records(&[&i.to_string()])).unwrap();
        writer.commit().unwrap();
        if i % 3 == 0 {
            reader.commit(&[commit("in", 1, i, i / 4)]).unwrap();
        }
    }
    writer.begin().unwrap();
    writer.append(&"in".into(), 1, &records(&["in flight"])).unwrap();
    let expected = (all(&broker, "in", 1), all(&broker, "progress", 0));
    assert_eq!((expected.0.len(), expected.1.as_slice()), (40, &[(39, b"39".to_vec())][..]));

    let image = crash_image(&path, &folder.path().join("killed"));
    let wal = fs::read(image.with_file_name("broker.db-wal")).unwrap();
    let killed = open(&image).unwrap();
    assert_eq!(killed.incarnation(), broker.incarnation());
    assert_eq!((all(&killed, "in", 1), all(&killed, "progress", 0)), expected);
    let g = killed.committed("g", &[partition("in", 1), partition("in", 0)]).unwrap();
    assert_eq!(g, [Some(Committed { offset: Offset(39), metadata: "at 39".to_owned() }), None]);
    write(&mut *killed.writer("w").unwrap(), "in", 1, &records(&["it goes on"]));
    drop(killed);
    assert_eq!(all(&open(&image).unwrap(), "in", 1)[40], (40, b"it goes on".to_vec()));

    // A power loss may cut the end of the journal off: whole commits are missing then, never parts.
    for cut in [wal.len() - 1, wal.len() - 70_000, wal.len() / 2, wal.len() / 3, wal.len() / 6] {
        let to = folder.path().join(format!("cut at {cut}"));
        let image = crash_image(&path, &to);
        fs::write(image.with_file_name("broker.db-wal"), &wal[..cut]).unwrap();
        let broker = open(&image).unwrap();
        let read = all(&broker, "in", 1);
        assert_eq!(read, expected.0[..read.len()]);
        let progress: Vec<_> = all(&broker, "progress", 0).into_iter().map(|(offset, _)| offset + 1).collect();
        assert_eq!(progress, [read.len() as i64], "one transaction held both");
        let committed = broker.committed("g", &[partition("in", 1)]).unwrap().remove(0).unwrap();
        assert!(committed.offset.0 <= read.len() as i64);
    }
}

#[test]
fn reopening_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    for (round, durability) in [(0, Durability::Process), (1, Durability::Power), (2, Durability::Process)] {
        let broker = Embedded::open(&path, Options { durability, ..Options::default() }).unwrap();
        broker.create_topics(&[spec("t", 1, Cleanup::Delete)]).unwrap();
        assert_eq!(bounds(&broker, "t", 0), (0, round));
        write(&mut *broker.writer("w").unwrap(), "t", 0, &records(&[&round.to_string()]));
    }
    let values: Vec<_> = all(&open(&path).unwrap(), "t", 0).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, [b"0", b"1", b"2"]);
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let broker = open(&path).unwrap();
    broker.create_topics(&[spec("t", 1, Cleanup::Delete)]).unwrap();
    let mine = std::process::id().to_string();
    refused(open(&path), &[path.to_str().unwrap(), "in use by process", &mine]);
    // A writer keeps it open as well.
    let writer = broker.writer("w").unwrap();
    drop(broker);
    refused(open(&path), &["in use"]);
    drop(writer);
    open(&path).unwrap();
}

#[test]
fn what_is_not_a_log_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let sound = folder.path().join("sound/broker.db");
    fs::create_dir(sound.parent().unwrap()).unwrap();
    let broker = open(&sound).unwrap();
    broker.create_topics(&[spec("events", 2, Cleanup::Delete)]).unwrap();
    let mut writer = broker.writer("w").unwrap();
    for i in 0..20 {
        write(&mut *writer, "events", 1, &noise(i, 30_000));
    }
    drop((broker, writer));
    let whole = fs::read(&sound).unwrap();
    let row = 1_i64 << 40;
    let sql = |statement: &'static str| {
        move |path: &Path| {
            let database = Connection::open(path).unwrap();
            database.execute_batch(statement).unwrap();
        }
    };
    type Damage<'a> = Box<dyn Fn(&Path) + 'a>;
    let cases: Vec<(&str, Damage<'_>, Vec<&str>)> = vec![
        ("empty", Box::new(|path| fs::write(path, "").unwrap()), vec!["empty"]),
        (
            "a folder",
            Box::new(|path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }),
            vec!["not a file"],
        ),
        ("text", Box::new(|path| fs::write(path, "no database\n".repeat(9_000)).unwrap()), vec!["not an SQLite"]),
        ("cut", Box::new(|path| fs::write(path, &whole[..whole.len() / 2]).unwrap()), vec!["damaged or cut short"]),
        ("cut in its first page", Box::new(|path| fs::write(path, &whole[..500]).unwrap()), vec![]),
        ("another's", Box::new(sql("PRAGMA application_id = 7")), vec!["another program's"]),
        ("a later version's", Box::new(sql("PRAGMA user_version = 99")), vec!["schema version is 99", "is 1"]),
        (
            "a row gone",
            Box::new(move |path| {
                Connection::open(path).unwrap().execute("DELETE FROM batch WHERE id = ?1", [row + 7]).unwrap();
            }),
            vec!["events-1", "offset 7", "missing"],
        ),
        (
            "the last row gone",
            Box::new(move |path| {
                Connection::open(path).unwrap().execute("DELETE FROM batch WHERE id = ?1", [row + 19]).unwrap();
            }),
            vec!["events-1", "offset 19", "should reach offset 20"],
        ),
        (
            "a torn row",
            Box::new(move |path| {
                let torn = "UPDATE batch SET data = CAST(substr(data, 1, 9000) || zeroblob(length(data) - 9000) AS BLOB) WHERE id = ?1";
                Connection::open(path).unwrap().execute(torn, [row + 3]).unwrap();
            }),
            vec!["events-1", "offset 3", "checksum"],
        ),
    ];
    for (name, damage, named) in cases {
        let path = folder.path().join(name).join("broker.db");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::copy(&sound, &path).unwrap();
        damage(&path);
        let named: Vec<&str> = named.into_iter().chain([path.to_str().unwrap(), "play the source again"]).collect();
        let named = if name == "a later version's" { &named[..named.len() - 1] } else { &named };
        refused(open(&path), named);
    }
    assert_eq!(all(&open(&sound).unwrap(), "events", 1).len(), 20);
}

#[test]
fn a_bit_that_flips_while_it_is_open_is_noticed_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let broker = Embedded::open(&path, Options { tail_cache_bytes: 0, ..Options::default() }).unwrap();
    broker.create_topics(&[spec("t", 1, Cleanup::Delete)]).unwrap();
    let mut writer = broker.writer("w").unwrap();
    write(&mut *writer, "t", 0, &noise(1, 1_000));
    write(&mut *writer, "t", 0, &noise(2, 1_000));
    let flip =
        "UPDATE batch SET data = CAST(substr(data, 1, 500) || zeroblob(length(data) - 500) AS BLOB) WHERE id = 1";
    assert_eq!(broker.0.database().execute(flip, []).unwrap(), 1);
    let mut reader = broker.assign(None, &[(partition("t", 0), Offset(0))]).unwrap();
    assert_eq!(next_batch(&mut *reader).len(), 1);
    refused(reader.poll(&LIMITS), &["t-0", "offset 1", "checksum", path.to_str().unwrap()]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent/broker.db");
    refused(open(&absent), &[absent.to_str().unwrap(), "the folder must be there and be writable"]);
    // Nobody may write here, root included.
    let proc = Path::new("/proc/self/broker.db");
    if Path::new("/proc/self").exists() {
        refused(open(proc), &["/proc/self/broker.db", "writable"]);
    }
}

#[test]
fn a_full_disk_loses_the_transaction_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let broker = open(&path).unwrap();
    broker.create_topics(&[spec("t", 1, Cleanup::Delete)]).unwrap();
    broker.register_group("g", &["t".into()]).unwrap();
    let mut writer = broker.writer("w").unwrap();
    write(&mut *writer, "t", 0, &records(&["before"]));
    let limit = |pages: u32| {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        broker.0.database().query_row(&pragma, [], |row| row.get::<_, u32>(0)).unwrap()
    };
    limit(1);
    writer.begin().unwrap();
    writer.append(&"t".into(), 0, &noise(1, 5_000_000)).unwrap();
    refused(writer.commit(), &[path.to_str().unwrap(), "disk is full"]);
    writer.abort().unwrap();
    assert_eq!(bounds(&broker, "t", 0), (0, 1));
    // Offsets need no room.
    let mut reader = broker.assign(Some("g"), &[(partition("t", 0), Offset(0))]).unwrap();
    reader.commit(&[commit("t", 0, 1, 1)]).unwrap();
    limit(1_000_000);
    write(&mut *writer, "t", 0, &records(&["after"]));
    drop((writer, reader, broker));
    let values: Vec<_> = all(&open(&path).unwrap(), "t", 0).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values.last().unwrap(), b"after");
}

#[test]
fn what_is_committed_moves_into_the_database_while_it_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let broker = Embedded::open(&path, Options { checkpoint_bytes: 1 << 20, ..Options::default() }).unwrap();
    broker.create_topics(&[spec("t", 1, Cleanup::Delete)]).unwrap();
    let mut writer = broker.writer("w").unwrap();
    for seed in 0..50 {
        write(&mut *writer, "t", 0, &noise(seed, 200 << 10));
    }
    // Beside the commits, so it may take a moment; without a checkpoint it never comes.
    let moved = || std::fs::metadata(&path).unwrap().len() > 8 << 20;
    assert!((0..3000).any(|_| moved() || crate::Cancel::new().wait(Duration::from_millis(20))));
    drop((writer, broker));
    assert!(!folder.path().join("broker.db-wal").exists(), "closing moves the rest");
}
