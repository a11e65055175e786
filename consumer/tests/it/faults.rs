//! What does not fit together stops the lake and says what to do.
use super::doubles::{Fault, FaultyBroker, FaultyStore, When};
use super::fixture::{Fixture, Item};

const EVENT: (Item, u32) = (Item::Event { day: 0 }, 0);

fn written(items: &[(Item, u32)]) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.write(items);
    fixture
}

fn refused(fixture: &Fixture, says: &[&str]) {
    let error = fixture.run().unwrap_err().to_string();
    for expected in says {
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}

#[test]
fn an_answer_that_was_lost_is_found_again() {
    let fixture = written(&[EVENT]);
    let store = FaultyStore::new(fixture.store(), 0, Fault::AnswerLost);
    let report = fixture.run_with(fixture.broker.as_ref(), store.clone(), &fixture.settings()).unwrap();
    assert_eq!(report.topics[0].rows, 1);
    assert_eq!(store.calls.load(std::sync::atomic::Ordering::SeqCst), 2, "it was tried again");
    fixture.assert_exactly_once("answer lost");
}

#[test]
fn a_file_of_another_plan_is_never_taken_for_ours() {
    // Stored by a lake of another log: a whole file with another incarnation in its footer.
    let other = written(&[EVENT]);
    other.run().unwrap();
    let foreign = std::fs::read(other.lake_dir().join(&other.files()[0])).unwrap();
    let cut_off = foreign[..foreign.len() / 2].to_vec();
    for (bytes, says) in [(foreign, "footer says"), (cut_off, "not a whole Parquet file"), (vec![], "0 bytes")] {
        let fixture = written(&[EVENT]);
        let store = FaultyStore::new(fixture.store(), 0, Fault::Taken(bytes));
        let error = fixture.run_with(fixture.broker.as_ref(), store, &fixture.settings()).unwrap_err().to_string();
        for expected in [says, "events/dt=2019-10-01/0-0-0.parquet", "Delete it"] {
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
        assert_eq!(fixture.committed("events", 0).offset.0, 0, "nothing was committed past it");
        // And with what the message says, it goes on.
        std::fs::remove_file(fixture.lake_dir().join("events/dt=2019-10-01/0-0-0.parquet")).unwrap();
        fixture.run().unwrap();
        fixture.assert_exactly_once(says);
    }
}

#[test]
fn the_last_file_must_be_there_and_whole() {
    let mut fixture = written(&[EVENT, EVENT]);
    fixture.run().unwrap();
    let path = fixture.lake_dir().join(&fixture.files()[0]);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    fixture.write(&[EVENT]);
    refused(&fixture, &["0-0-1.parquet", "not a whole Parquet file"]);
    std::fs::remove_file(&path).unwrap();
    refused(&fixture, &["0-0-1.parquet", "is missing", "Put it back"]);
    std::fs::write(&path, &bytes).unwrap();
    fixture.run().unwrap();
    fixture.assert_exactly_once("put back");
}

#[test]
fn a_new_log_beside_an_old_lake_is_refused() {
    let old = written(&[EVENT]);
    old.run().unwrap();
    let new = written(&[EVENT]);
    std::fs::rename(old.lake_dir(), new.lake_dir()).unwrap();
    refused(&new, &["t.events-0", "0-0-0.parquet", "no position is committed", "Put the old broker.db back"]);
}

#[test]
fn a_file_past_the_position_is_refused() {
    let mut fixture = written(&[EVENT, EVENT, EVENT]);
    fixture.run().unwrap();
    fixture.write(&[EVENT]);
    let file = fixture.lake_dir().join(&fixture.files()[0]);
    std::fs::copy(&file, file.with_file_name("0-3-9.parquet")).unwrap();
    refused(&fixture, &["0-3-9.parquet", "past the committed position 3"]);
}

#[test]
fn what_is_not_the_lakes_is_left_alone() {
    let fixture = written(&[EVENT]);
    let dir = fixture.lake_dir().join("events/dt=2019-10-01");
    std::fs::create_dir_all(&dir).unwrap();
    for name in ["_SUCCESS", "notes.parquet", "0-0-0.parquet#1"] {
        std::fs::write(dir.join(name), "x").unwrap();
    }
    fixture.run().unwrap();
    for name in ["_SUCCESS", "notes.parquet", "0-0-0.parquet#1"] {
        assert_eq!(std::fs::read_to_string(dir.join(name)).unwrap(), "x");
    }
    assert!(dir.join("0-0-0.parquet").is_file());
}

#[test]
fn an_outstanding_plan_is_done_first() {
    let fixture = written(&[EVENT, EVENT]);
    // The first commit is that of the new positions, the second that of the plan.
    let broker = FaultyBroker::new(fixture.broker.clone(), 1, When::After);
    fixture.run_with(&broker, fixture.store(), &fixture.settings()).unwrap_err();
    assert!(fixture.committed("events", 0).metadata.contains("plan"));
    fixture.run().unwrap();
    fixture.assert_exactly_once("after a plan");
}
