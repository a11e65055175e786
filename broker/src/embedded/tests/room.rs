//! Deletion and back-pressure.
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashMap;

use super::*;
use crate::Cancel;

const KIB: usize = 1 << 10;

fn open(max_log_bytes: u64) -> (tempfile::TempDir, Arc<Embedded>) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { max_log_bytes, ..Options::default() };
    let broker = Embedded::open(folder.path().join("broker.db"), options).unwrap();
    (folder, broker)
}

fn fill(writer: &mut dyn Writer, topic: &str, count: u64, bytes: usize) {
    for i in 0..count {
        write(writer, topic, 0, &noise(i, bytes));
    }
}

#[test]
fn deletion_goes_by_the_least_keep_from() {
    let (_folder, broker) = open(1 << 30);
    broker.create_topics(&[spec("t", 1, Cleanup::Delete), spec("kept", 1, Cleanup::Delete)]).unwrap();
    broker.register_group("slow", &["t".into()]).unwrap();
    broker.register_group("fast", &["t".into()]).unwrap();
    let mut writer = broker.writer("w").unwrap();
    fill(&mut *writer, "t", 100, 20 * KIB);
    fill(&mut *writer, "kept", 100, 20 * KIB);
    let at = [(partition("t", 0), Offset(0))];
    let (mut slow, mut fast) = (broker.assign(Some("slow"), &at).unwrap(), broker.assign(Some("fast"), &at).unwrap());
    // Each commit of fast and slow, then where the log begins once another commit went by. What
    // is committed is deleted along with the next commit.
    for (group, offset, keep_from, start) in [
        ("fast", 100, 100, 0),
        ("slow", 90, 40, 40),
        ("slow", 91, 40, 40),
        ("slow", 100, 41, 40),
        ("slow", 100, 80, 80),
        ("fast", 100, 100, 80),
    ] {
        let reader = if group == "fast" { &mut fast } else { &mut slow };
        reader.commit(&[commit("t", 0, offset, keep_from)]).unwrap();
        fast.commit(&[commit("t", 0, 100, 100)]).unwrap();
        let found = bounds(&broker, "t", 0);
        assert_eq!(found, (start, 100), "after {group} committed {offset}, keeping {keep_from}");
        let first = all(&broker, "t", 0)[0].0;
        assert_eq!(first, start);
    }
    assert_eq!(bounds(&broker, "kept", 0), (0, 100), "nobody registered for it");
    // What is gone cannot be read, and that is said.
    let gone = broker.assign(None, &[(partition("t", 0), Offset(79))]);
    refused(gone, &["t-0", "79", "80 to 100"]);
    // One that comes late begins at the oldest kept and hears what it misses, once.
    let late = broker.register_group("late", &["t".into(), "kept".into()]).unwrap();
    assert_eq!(late, [(partition("t", 0), 80)]);
    assert_eq!(broker.register_group("late", &["t".into()]).unwrap(), []);
    slow.commit(&[commit("t", 0, 100, 100)]).unwrap();
    slow.commit(&[commit("t", 0, 100, 100)]).unwrap();
    assert_eq!(bounds(&broker, "t", 0), (80, 100), "kept for the late one");
    // And for it no longer, once it is given up; what it has committed stays.
    broker.assign(Some("late"), &[]).unwrap().commit(&[commit("t", 0, 90, 90)]).unwrap();
    assert!(broker.registered_groups().contains(&"late".to_owned()));
    broker.forget_group("late").unwrap();
    assert!(!broker.registered_groups().contains(&"late".to_owned()));
    for _ in 0..2 {
        slow.commit(&[commit("t", 0, 100, 100)]).unwrap();
    }
    assert_eq!(bounds(&broker, "t", 0), (100, 100));
    assert_eq!(broker.register_group("late", &["t".into()]).unwrap(), [(partition("t", 0), 10)]);
}

#[test]
fn a_log_that_was_emptied_goes_on_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let broker = Embedded::open(&path, Options::default()).unwrap();
    broker.create_topics(&[spec("t", 1, Cleanup::Delete)]).unwrap();
    broker.register_group("g", &["t".into()]).unwrap();
    fill(&mut *broker.writer("w").unwrap(), "t", 10, 100);
    let mut reader = broker.assign(Some("g"), &[(partition("t", 0), Offset(0))]).unwrap();
    reader.commit(&[commit("t", 0, 10, 10)]).unwrap();
    reader.commit(&[commit("t", 0, 10, 10)]).unwrap();
    assert_eq!(bounds(&broker, "t", 0), (10, 10));
    drop((reader, broker));
    let broker = Embedded::open(&path, Options::default()).unwrap();
    assert_eq!(bounds(&broker, "t", 0), (10, 10));
    fill(&mut *broker.writer("w").unwrap(), "t", 1, 100);
    assert_eq!(all(&broker, "t", 0)[0].0, 10);
}

#[test]
fn a_bounded_topic_keeps_what_fits_and_what_is_not_done_with() {
    let (_folder, broker) = open(1 << 30);
    let bytes = 1_000 * KIB as u64;
    broker.create_topics(&[spec("t", 1, Cleanup::Bounded { bytes })]).unwrap();
    let mut writer = broker.writer("w").unwrap();
    fill(&mut *writer, "t", 300, 10 * KIB);
    let (start, end) = bounds(&broker, "t", 0);
    let kept = u64::try_from(end - start).unwrap() * 10;
    assert!(end == 300 && (900..2_000).contains(&kept), "{kept} KiB from {start} on");
    broker.register_group("g", &["t".into()]).unwrap();
    fill(&mut *writer, "t", 300, 10 * KIB);
    assert_eq!(bounds(&broker, "t", 0), (start, 600), "kept for the group, beyond the bound");
    let mut reader = broker.assign(Some("g"), &[(partition("t", 0), Offset(start))]).unwrap();
    reader.commit(&[commit("t", 0, 600, 600)]).unwrap();
    reader.commit(&[commit("t", 0, 600, 600)]).unwrap();
    let (start, _) = bounds(&broker, "t", 0);
    assert!((420..=510).contains(&start), "{start}");
}

#[test]
fn a_full_log_waits_asks_and_goes_on() {
    let (_folder, broker) = open(100 * KIB as u64);
    broker.create_topics(&[spec("t", 1, Cleanup::Delete)]).unwrap();
    broker.register_group("g", &["t".into()]).unwrap();
    let mut writer = broker.writer("w").unwrap();
    let subscription = Subscription { group: "g".into(), instance: "i".into(), topics: vec!["t".into()] };
    let mut reader = broker.subscribe(&subscription).unwrap();
    assert!(matches!(reader.poll(&LIMITS).unwrap(), Polled::Assigned(_)));
    for i in 0..10 {
        writer.wait_for_room(&Cancel::new()).unwrap();
        write(&mut *writer, "t", 0, &noise(i, 10 * KIB));
    }
    assert!(broker.held_bytes() >= 100 * KIB as u64);
    let cancelled = Cancel::new();
    cancelled.cancel();
    assert!(matches!(writer.wait_for_room(&cancelled), Err(Error::Cancelled)));
    for i in 0..10 {
        assert_eq!(next_batch(&mut *reader).first_offset(), Some(Offset(i)), "it reads on, unasked");
    }
    std::thread::scope(|scope| {
        let (cancel, broker) = (Cancel::new(), &broker);
        let waiting = scope.spawn(move || {
            writer.wait_for_room(&cancel).unwrap();
            let held = broker.held_bytes();
            write(&mut *writer, "t", 0, &noise(99, 10));
            held
        });
        let patient = PollLimits { timeout: Duration::from_secs(60), ..LIMITS };
        assert!(matches!(reader.poll(&patient).unwrap(), Polled::Flush));
        // Offsets alone go through while a writer waits, and may make room.
        reader.commit(&[commit("t", 0, 10, 0)]).unwrap();
        assert_eq!(waiting.join().unwrap(), 0, "committed is enough, whatever is kept");
    });
    assert_eq!(next_batch(&mut *reader).len(), 1);
    assert!(matches!(reader.poll(&LIMITS).unwrap(), Polled::Idle), "asked once");
}

/// The one that reads inputs, writes outputs and waits for room; and the one that reads both,
/// holds all it can, and commits only when asked.
#[test]
fn waiting_for_room_never_goes_round() {
    const COUNT: u64 = 300;
    let (_folder, broker) = open(200 * KIB as u64);
    broker.create_topics(&[spec("in", 1, Cleanup::Delete), spec("out", 1, Cleanup::Delete)]).unwrap();
    broker.register_group("middle", &["in".into()]).unwrap();
    broker.register_group("lake", &["in".into(), "out".into()]).unwrap();
    let cancel = Cancel::new();
    let patient = PollLimits { timeout: Duration::from_millis(20), ..LIMITS };
    let (flushes, most) = (AtomicU32::new(0), std::sync::atomic::AtomicU64::new(0));
    let join = |group: &str, topics: Vec<Topic>| {
        let subscription = Subscription { group: group.into(), instance: "i".into(), topics };
        broker.subscribe(&subscription).unwrap()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = broker.writer("producer").unwrap();
            for i in 0..COUNT {
                if writer.wait_for_room(&cancel).is_err() {
                    return;
                }
                write(&mut *writer, "in", 0, &noise(i, 5 * KIB));
                most.fetch_max(broker.held_bytes(), Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let mut reader = join("middle", vec!["in".into()]);
            let mut writer = broker.writer("middle").unwrap();
            while !cancel.is_cancelled() {
                let Polled::Batch(batch) = reader.poll(&patient).unwrap() else { continue };
                if writer.wait_for_room(&cancel).is_err() {
                    return;
                }
                writer.begin().unwrap();
                // More goes out than came in.
                for record in batch.iter() {
                    let mut outputs = noise(record.offset.0.unsigned_abs(), 5 * KIB);
                    outputs.push_ref(record);
                    writer.append(&"out".into(), 0, &outputs).unwrap();
                }
                let next = batch.next_offset().unwrap().0;
                writer.commit_offsets(&reader.membership().unwrap(), &[commit("in", 0, next, next)]).unwrap();
                writer.commit().unwrap();
            }
        });
        let mut reader = join("lake", vec!["in".into(), "out".into()]);
        let (mut positions, mut seen, mut idle) = ([0_i64, 0], 0, 0);
        while seen < 3 * COUNT && idle < 500 {
            idle += 1;
            match reader.poll(&patient).unwrap() {
                Polled::Batch(batch) => {
                    let topic = usize::from(batch.topic.as_str() == "out");
                    assert_eq!(batch.first_offset(), Some(Offset(positions[topic])));
                    positions[topic] = batch.next_offset().unwrap().0;
                    (seen, idle) = (seen + batch.len() as u64, 0);
                }
                Polled::Flush => {
                    flushes.fetch_add(1, Ordering::Relaxed);
                    let [input, output] = positions;
                    reader.commit(&[commit("in", 0, input, input), commit("out", 0, output, output)]).unwrap();
                }
                _ => {}
            }
        }
        cancel.cancel();
        assert_eq!(seen, 3 * COUNT, "it stands still at {positions:?}");
    });
    assert!(flushes.into_inner() > 3);
    let most = most.into_inner() / KIB as u64;
    assert!(most < 1_000, "{most} KiB were held, for a bound of 200 KiB a writer");
}

#[test]
fn waiting_for_readers_ends_when_they_have_read_or_stand_still() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { tail_cache_bytes: 100 * KIB, ..Options::default() };
    let broker = Embedded::open(folder.path().join("broker.db"), options).unwrap();
    broker.create_topics(&[spec("t", 1, Cleanup::Delete)]).unwrap();
    broker.register_group("g", &["t".into()]).unwrap();
    let mut writer = broker.writer("w").unwrap();
    let cancel = Cancel::new();
    fill(&mut *writer, "t", 2, 10 * KIB);
    assert_eq!(broker.0.state().furthest_behind(&HashMap::new()), None, "less than a quarter of the cache");
    fill(&mut *writer, "t", 7, 10 * KIB);
    let behind = broker.0.state().furthest_behind(&HashMap::new());
    assert_eq!(behind, Some(("g".to_owned(), 0)));
    // It stands still: given up, and not waited for again until it moves.
    writer.wait_for_readers(&cancel).unwrap();
    let stalled = HashMap::from_iter(behind);
    assert_eq!(broker.0.state().furthest_behind(&stalled), None);
    let mut reader = broker.assign(Some("g"), &[(partition("t", 0), Offset(0))]).unwrap();
    let one = PollLimits { records: 1, ..LIMITS };
    // What a poll returns counts as read with the next poll.
    for read in 0..9 {
        assert!(matches!(reader.poll(&one).unwrap(), Polled::Batch(_)));
        let behind = broker.0.state().furthest_behind(&stalled);
        assert_eq!(behind.is_some(), (1..=6).contains(&read), "{read} of 9 read");
    }
    writer.wait_for_readers(&cancel).unwrap();
    fill(&mut *writer, "t", 9, 10 * KIB);
    cancel.cancel();
    assert!(matches!(writer.wait_for_readers(&cancel), Err(Error::Cancelled)));
}
