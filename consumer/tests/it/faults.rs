//! What does not fit together stops the lake and says what to do.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use consumer::lake::Settings;

use super::doubles::{Fault, FaultyBroker, FaultyStore, Pages, When};
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
    assert_eq!(store.calls.load(Ordering::SeqCst), 2, "it was tried again");
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
    refused(&fixture, &["0-0-1.parquet", "not a whole Parquet file", "put it back"]);
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

/// Listing all that it holds takes longer than anything is tried for, and now and then a page is lost.
#[test]
fn a_lake_of_many_pages_can_be_started() {
    const PAGES: usize = 60;
    let fixture = written(&[EVENT]);
    let requests = Arc::new(AtomicUsize::new(0));
    // Of another partition, so that nothing is wrong with them.
    let paths = (0..2 * PAGES).map(|n| format!("events/dt=2019-10-01/7-{n:03}-{n:03}.parquet").into()).collect();
    let page_takes = Duration::from_millis(25);
    let pages = Pages { paths, page: 2, page_takes, every: 5, requests: Arc::clone(&requests) };
    let store = FaultyStore { pages: Some(pages), ..FaultyStore::going_well(fixture.store()) };
    let retry_for = Duration::from_secs(1);
    let settings = Settings { lists_in_order: true, retry_for, ..fixture.settings() };
    fixture.run_with(fixture.broker.as_ref(), Arc::new(store), &settings).unwrap();
    fixture.assert_exactly_once("many pages");
    // None that was answered is asked for again: of five requests one is.
    let requests = requests.load(Ordering::SeqCst);
    assert_eq!(requests, PAGES + (PAGES - 1) / 4, "requests");
}

/// Its names come in any order: there is no going on after the last, and no end of trying if the
/// first were progress each time.
#[test]
fn a_folder_that_cannot_be_listed_is_given_up() {
    let fixture = written(&[EVENT]);
    let paths = (0..4).map(|n| format!("events/dt=2019-10-01/7-{n}-{n}.parquet").into()).collect();
    let pages = Pages { paths, page: 1, page_takes: Duration::ZERO, every: 3, requests: Arc::default() };
    let store = FaultyStore { pages: Some(pages), ..FaultyStore::going_well(fixture.store()) };
    let settings = Settings { retry_for: Duration::from_millis(200), ..fixture.settings() };
    let error = fixture.run_with(fixture.broker.as_ref(), Arc::new(store), &settings).unwrap_err().to_string();
    // Whichever page was asked for as the time was up: one that is lost, or one that has yet to come.
    let is_either = error.contains("this page is lost") || error.contains("no answer");
    assert!(error.contains("events: ") && is_either, "{error}");
}

#[test]
fn an_upload_takes_longer_than_an_answer_may() {
    let fixture = written(&[EVENT]);
    let store = FaultyStore::new(fixture.store(), 0, Fault::Slow(Duration::from_millis(200)));
    let settings = Settings { retry_for: Duration::from_millis(100), ..fixture.settings() };
    let report = fixture.run_with(fixture.broker.as_ref(), store.clone(), &settings).unwrap();
    assert_eq!((report.topics[0].files, store.calls.load(Ordering::SeqCst)), (1, 1), "sent once");
    fixture.assert_exactly_once("a slow upload");
}
