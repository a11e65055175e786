//! Whatever the batches, the commits and the kills: the marts are the sums over the records.
use std::path::Path;
use std::time::Duration;

use broker::{Cancel, Target};
use marts::{Error, Metrics, Report, Settings};
use prometheus::Registry;
use proptest::prelude::*;
use records::{EventType, Format, Stage};

use crate::double::Double;
use crate::oracle::{Closed, Event, PREFIX, Record, Step, broker_of, expected, found};

pub(crate) fn settings(path: &Path) -> Settings {
    Settings { commit_after: Duration::ZERO, ..Settings::new(path, PREFIX, "broker.db") }
}

pub(crate) fn run(broker: &Double, settings: &Settings, cancel: &Cancel) -> Result<Report, Error> {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    marts::run(broker, settings, &metrics, &Target::new(), cancel)
}

/// Few values, around the turn of a month, so that keys meet.
fn seconds() -> impl Strategy<Value = i64> {
    (0..6_i64, 0..3_i64).prop_map(|(hours, seconds)| 1_572_566_400 - 3 * 3600 + hours * 3600 + seconds)
}

fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(""), Just("nan"), Just("électro.x")]
}

fn event_type() -> impl Strategy<Value = EventType> {
    prop_oneof![Just(EventType::View), Just(EventType::Cart), Just(EventType::Purchase)]
}

fn stage() -> impl Strategy<Value = Stage> {
    event_type().prop_map(Stage::from)
}

prop_compose! {
    fn event()(
        source in 0..3_u32, seconds in seconds(), row in 0..4_u64, copy in 0..2_u32, kind in event_type(),
        product in 0..3_i64, category in text(), brand in text(), cents in 0..500_i64,
    ) -> Event {
        Event { source, seconds, row, copy, kind, product, category, brand, cents }
    }
}

prop_compose! {
    fn step()(
        product in 0..3_i64, stage in stage(), category in text(), brand in text(), first_touch in seconds(),
        flags in any::<(bool, bool, bool)>(), start in seconds(),
    ) -> Step {
        let (after_view, after_cart, opens) = flags;
        Step { product, stage, category, brand, first_touch, after_view, after_cart, opens, start }
    }
}

prop_compose! {
    fn closed()(
        id in "[ab]", part in 0..2_u32, user in 0..3_i64, start in seconds(), duration in 0..100_000_i64,
        counts in any::<[u16; 3]>(), cents in 0..900_i64, furthest in stage(),
        left in prop::collection::vec((0..3_i64, text(), text(), 0..100_i64), 0..3),
    ) -> Closed {
        Closed { id, part, user, start, duration, counts: counts.map(u32::from), cents, furthest, left }
    }
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        5 => event().prop_map(Record::Event),
        5 => step().prop_map(Record::Step),
        3 => closed().prop_map(Record::Session),
        1 => seconds().prop_map(Record::Watermark),
        1 => (0..3_usize).prop_map(Record::Garbage),
    ]
}

/// An event's identity is its own: of two with the same, the second gets another row.
fn distinct(records: &mut [Record]) {
    let mut seen = std::collections::HashSet::new();
    for record in records {
        if let Record::Event(e) = record {
            while !seen.insert((e.source, e.row, e.copy)) {
                e.row += 10;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Random records, batches and commits; ended before and after either commit, again and again.
    #[test]
    fn the_marts_are_the_sums(
        mut records in prop::collection::vec(record(), 0..60),
        partitions in 1..4_usize, json in any::<bool>(), seed in any::<u64>(), flush in any::<bool>(),
        slow in any::<bool>(), crashes in prop::collection::vec(0..25_u32, 0..6),
    ) {
        distinct(&mut records);
        let format = if json { Format::Json } else { Format::Protobuf };
        let broker = broker_of(&records, partitions, format, seed);
        broker.state().flush = flush;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marts.db");
        // With a slow cadence it is the flushes and the cancel that commit.
        let commit_after = if slow { Duration::from_secs(3600) } else { Duration::ZERO };
        let settings = Settings { commit_after, ..settings(&path) };
        for crash_in in crashes {
            match run(&broker, &settings, &broker.restarted(Some(crash_in))) {
                Ok(_) => {}
                Err(Error::Broker(broker::Error::Stop(why))) => prop_assert_eq!(why, "killed"),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
        let cancel = broker.restarted(None);
        run(&broker, &settings, &cancel).unwrap();
        prop_assert_eq!(broker.committed_offsets(), broker.ends());
        prop_assert_eq!(found(&path), expected(&records));
    }
}

/// With a cadence of an hour: the target commits, and the cancel after it has nothing to do.
#[test]
fn the_target_commits_at_once() {
    for (with_target, stuck) in [(true, false), (false, true)] {
        let records: Vec<_> = (0..20).map(|i| Record::Watermark(1_572_566_400 + i)).collect();
        let broker = broker_of(&records, 2, Format::Protobuf, 7);
        let folder = tempfile::tempdir().unwrap();
        let settings =
            Settings { commit_after: Duration::from_secs(3600), ..settings(&folder.path().join("marts.db")) };
        let target = Target::new();
        if with_target {
            target.set(broker.ends());
        }
        let cancel = broker.restarted(None);
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let report = marts::run(&broker, &settings, &metrics, &target, &cancel).unwrap();
        assert_eq!(broker.state().stuck, stuck, "target: {with_target}");
        assert_eq!((report.events, report.commits), (20, 1));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "clickstream_marts_records_total{topic=\"events\"} 20",
            "clickstream_marts_unreadable_records_total{topic=\"sessions\"} 0",
            "clickstream_marts_commits_total 1",
            "clickstream_marts_commit_duration_seconds_count 1",
            "clickstream_marts_rows_written_total 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("clickstream_marts_freshness_seconds_count{topic=\"events\"} 0"), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_counted() {
    let records: Vec<_> = (0..3).chain([0]).map(Record::Garbage).collect();
    let broker = broker_of(&records, 1, Format::Protobuf, 7);
    let folder = tempfile::tempdir().unwrap();
    let report = run(&broker, &settings(&folder.path().join("marts.db")), &broker.restarted(None)).unwrap();
    assert_eq!((report.events, report.funnel_steps, report.sessions, report.unreadable), (2, 1, 1, 4));
}
