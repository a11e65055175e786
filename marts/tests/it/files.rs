//! What is refused: a second writer, another schema, a log that does not belong to the marts.
use std::path::Path;

use broker::Offset;
use marts::{Error, Marts};
use records::Format;
use rusqlite::Connection;

use crate::double::Double;
use crate::oracle::{Record, broker_of};
use crate::recovery::{run, settings};

fn broker() -> Double {
    broker_of(&(0..9).map(Record::Watermark).collect::<Vec<_>>(), 1, Format::Protobuf, 1)
}

/// A run stops and says all of `parts`.
#[track_caller]
fn stops(broker: &Double, path: &Path, parts: &[&str]) {
    match run(broker, &settings(path), &broker.restarted(None)) {
        Err(Error::Stop(text)) => {
            for part in parts {
                assert!(text.contains(part), "{text:?} does not say {part:?}");
            }
        }
        other => panic!("{other:?} does not stop"),
    }
}

#[test]
fn one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marts.db");
    let held = std::fs::File::create(folder.path().join("marts.db.lock")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    stops(&broker(), &path, &["marts.db.lock: another process writes to", "a file of its own"]);
    drop(held);
    let broker = broker();
    run(&broker, &settings(&path), &broker.restarted(None)).unwrap();
}

#[test]
fn a_database_of_something_else() {
    for (sql, parts) in [
        ("PRAGMA user_version = 2", &["schema version 2", "version 1", "--restart"][..]),
        ("PRAGMA application_id = 7", &["another program", "--data-dir"]),
        ("PRAGMA application_id = 0", &["another program", "--data-dir"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marts.db");
        let broker = broker();
        run(&broker, &settings(&path), &broker.restarted(None)).unwrap();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = std::fs::read(&path).unwrap();
        stops(&broker, &path, parts);
        assert_eq!(std::fs::read(&path).unwrap(), before, "it was left as it was");
        assert!(matches!(Marts::open_read_only(&path), Err(Error::Stop(_))));
    }
}

#[test]
fn not_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marts.db");
    std::fs::write(&path, "day,views\n".repeat(1000)).unwrap();
    stops(&broker(), &path, &["marts.db", "not an SQLite database", "--restart"]);
    stops(&broker(), &folder.path().join("nowhere/marts.db"), &["nowhere/marts.db.lock", "the folder must be there"]);
    assert!(matches!(Marts::open_read_only(folder.path().join("none.db")), Err(Error::Stop(_))));
}

#[test]
fn a_log_that_does_not_belong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marts.db");
    let filled = broker();
    run(&filled, &settings(&path), &filled.restarted(None)).unwrap();
    let copy = folder.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();

    // broker.db was made anew.
    let other = broker();
    other.state().incarnation = "two";
    stops(&other, &path, &["another log", "names one", "is two", "broker.db", "--restart"]);
    // It is an old copy.
    let old = broker_of(&[Record::Watermark(1)], 1, Format::Protobuf, 1);
    stops(&old, &path, &["up to offset 9", "ends at offset 1", "--restart"]);
    // It no longer keeps what the marts want next.
    filled.state().start = Offset(10);
    stops(&filled, &path, &["would be missing"]);
    filled.state().start = Offset(0);
    // marts.db was removed.
    std::fs::remove_file(&path).unwrap();
    stops(&filled, &path, &["holds nothing of test.events-0", "broker.db", "counted up to offset 9", "--restart"]);
    // A broker that is behind marts.db is normal, and is told.
    filled.state().committed.clear();
    run(&filled, &settings(&copy), &filled.restarted(None)).unwrap();
    assert_eq!(filled.committed_offsets(), filled.ends());
    // Topics of another prefix are another pipeline.
    let db = Connection::open(&copy).unwrap();
    db.execute("UPDATE positions SET topic = 'other' || topic", []).unwrap();
    filled.state().committed.clear();
    stops(&filled, &copy, &["also holds other", "--data-dir"]);
}

/// Somebody moves a position by hand while the part runs: it stops, and adds nothing.
#[test]
fn a_position_that_moved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marts.db");
    let broker = broker();
    run(&broker, &settings(&path), &broker.restarted(Some(1))).unwrap_err();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "
         CREATE TRIGGER keep BEFORE UPDATE ON positions BEGIN SELECT raise(IGNORE); END;",
    )
    .unwrap();
    stops(&broker, &path, &["is no longer at offset", "something else has written", "--restart"]);
}

#[test]
fn topics_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let broker = broker();
    broker.state().logs.clear();
    stops(&broker, &folder.path().join("marts.db"), &["no topic test.events", "topics create"]);
}
