//! Whatever is written, cut and killed: the files hold every row once.
use consumer::lake::{Codec, Settings};
use proptest::prelude::*;

use super::doubles::{Fault, FaultyBroker, FaultyStore, When};
use super::fixture::{Fixture, Item};

/// A bit of everything, over three days and both partitions.
fn mixture(n: u32) -> Vec<(Item, u32)> {
    (0..n)
        .map(|i| {
            let day = i64::from(i % 3);
            let item = match i % 9 {
                0..=2 => Item::Event { day },
                3 => Item::Watermark,
                4 => Item::Unreadable,
                5 | 6 => Item::Step { day },
                7 => Item::Session { day },
                _ => Item::DeadLetter,
            };
            (item, i / 9)
        })
        .collect()
}

#[test]
fn every_row_is_stored_once_and_counted() {
    let mut fixture = Fixture::new();
    fixture.write(&mixture(900));
    let report = fixture.run().unwrap();
    fixture.assert_exactly_once("one run");
    let rows: u64 = report.topics.iter().map(|topic| topic.rows).sum();
    let files: u64 = report.topics.iter().map(|topic| topic.files).sum();
    assert_eq!((rows, report.topics[0].unreadable), (700, 100), "{report:?}");
    assert_eq!(files, fixture.files().len() as u64, "{report:?}");
    assert_eq!(fixture.run().unwrap().topics.iter().map(|topic| topic.rows).sum::<u64>(), 0, "nothing is left to do");
    fixture.write(&mixture(90));
    fixture.run().unwrap();
    fixture.assert_exactly_once("more");
}

#[test]
fn what_was_done_can_be_scraped() {
    let mut fixture = Fixture::new();
    fixture.write(&mixture(900));
    let registry = prometheus::Registry::new();
    fixture.run_measured(fixture.broker.as_ref(), fixture.store(), &fixture.settings(), &registry).unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse::<f64>().unwrap()
    };
    for (name, expected) in [
        ("rows_total{topic=\"events\"}", 300.0),
        ("rows_total{topic=\"funnel-steps\"}", 200.0),
        ("rows_total{topic=\"sessions\"}", 100.0),
        ("rows_total{topic=\"dead-letters\"}", 100.0),
        ("unreadable_records_total{topic=\"events\"}", 100.0),
        ("cuts_total{reason=\"target\"}", 7.0),
        ("retries_total", 0.0),
        ("open_bytes", 0.0),
        // Of each partition its first row.
        ("freshness_seconds_count", 7.0),
        ("freshness_seconds_bucket{le=\"1000\"}", 7.0),
    ] {
        assert!(
            (value(&format!("clickstream_lake_{name}")) - expected).abs() < 0.5,
            "{name} is not {expected}: {text}"
        );
    }
    for name in
        ["freshness_seconds_sum", "cut_seconds_sum", "cut_seconds_count", "stored_bytes_total{topic=\"events\"}"]
    {
        assert!(value(&format!("clickstream_lake_{name}")) > 0.0, "{name}: {text}");
    }
    assert_eq!(value("clickstream_lake_files_total{topic=\"events\"}"), 6.0, "three days of two partitions");
}

#[test]
fn a_plan_is_one_file_for_each_day_named_by_its_whole_range() {
    let mut fixture = Fixture::new();
    let day = |day| (Item::Event { day }, 0);
    fixture.write(&[(Item::Watermark, 0), day(1), day(0), day(1), (Item::Watermark, 0)]);
    fixture.run().unwrap();
    assert_eq!(
        fixture.files(),
        ["events/dt=2019-10-01/0-0-4.parquet", "events/dt=2019-10-02/0-0-4.parquet"].map(str::to_owned)
    );
    fixture.assert_exactly_once("two days");
}

#[test]
fn a_range_without_rows_only_advances() {
    let mut fixture = Fixture::new();
    fixture.write(&[(Item::Event { day: 0 }, 1)]);
    fixture.run().unwrap();
    let before = fixture.committed("events", 1).metadata;
    fixture.write(&[(Item::Watermark, 1), (Item::Unreadable, 1)]);
    fixture.run().unwrap();
    let after = fixture.committed("events", 1);
    assert_eq!((after.offset.0, fixture.files().len()), (3, 1));
    assert_eq!(after.metadata, before, "the last file stays named");
}

#[test]
fn more_days_than_a_plan_may_have_are_several_plans() {
    let mut fixture = Fixture::new();
    let items: Vec<_> = (0..200).map(|day| (Item::Event { day }, 0)).collect();
    fixture.write(&items);
    fixture.run().unwrap();
    fixture.assert_exactly_once("200 days");
    assert_eq!(fixture.files().len(), 200);
    assert!(fixture.files().contains(&"events/dt=2019-10-01/0-0-63.parquet".to_owned()), "{:?}", fixture.files());
}

/// Small plans, so that there are many moments.
fn small(fixture: &Fixture) -> Settings {
    let mut settings = fixture.settings();
    settings.max_rows = 10;
    settings.poll.records = 7;
    settings
}

#[test]
fn a_crash_at_any_moment_loses_and_doubles_nothing() {
    for when in [When::Before, When::After] {
        for nth in 0..12 {
            let mut fixture = Fixture::new();
            fixture.write(&mixture(180));
            let settings = small(&fixture);
            let broker = FaultyBroker::new(fixture.broker.clone(), nth, when);
            fixture.run_with(&broker, fixture.store(), &settings).unwrap_err();
            fixture.run().unwrap();
            fixture.assert_exactly_once(&format!("{when:?} commit {nth}"));
        }
        for nth in 0..8 {
            let mut fixture = Fixture::new();
            fixture.write(&mixture(180));
            let settings = small(&fixture);
            let store = FaultyStore::new(fixture.store(), nth, Fault::Crash(when));
            fixture.run_with(fixture.broker.as_ref(), store, &settings).unwrap_err();
            fixture.run().unwrap();
            fixture.assert_exactly_once(&format!("{when:?} file {nth}"));
        }
    }
}

/// The codec is not part of the plan: a file that was stored before a crash counts, however the run
/// that finishes the plan would have compressed it.
#[test]
fn a_plan_is_finished_with_another_codec() {
    for (nth, before, after) in
        [(0, Codec::Zstd, Codec::None), (3, Codec::None, Codec::Snappy), (5, Codec::Lz4Raw, Codec::Zstd)]
    {
        let mut fixture = Fixture::new();
        fixture.write(&mixture(180));
        let settings = |codec| Settings { codec, ..small(&fixture) };
        let store = FaultyStore::new(fixture.store(), nth, Fault::Crash(When::After));
        fixture.run_with(fixture.broker.as_ref(), store, &settings(before)).unwrap_err();
        // Those that were under way when it ended may still be getting their names.
        let stored: Vec<_> = fixture.files().into_iter().filter(|path| path.ends_with(".parquet")).collect();
        let of = |files: &[String]| {
            files.iter().map(|path| std::fs::read(fixture.lake_dir().join(path)).unwrap()).collect::<Vec<_>>()
        };
        let bytes = of(&stored);
        fixture.run_with(fixture.broker.as_ref(), fixture.store(), &settings(after)).unwrap();
        fixture.assert_exactly_once(&format!("{before:?}, then {after:?}"));
        assert!(!stored.is_empty() && of(&stored) == bytes, "what was stored stays as it is");
    }
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        4 => (0..4_i64).prop_map(|day| Item::Event { day }),
        2 => Just(Item::Watermark),
        1 => Just(Item::Unreadable),
        2 => (0..4_i64).prop_map(|day| Item::Step { day }),
        1 => (0..4_i64).prop_map(|day| Item::Session { day }),
        1 => Just(Item::DeadLetter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Writes, limits and crashes at random, crash upon crash.
    #[test]
    fn random_histories(
        history in prop::collection::vec(
            (prop::collection::vec((item(), 0..2_u32), 0..60), any::<bool>(), any::<bool>(), 0..8_usize), 1..6),
        (max_rows, records, file_bytes, budget_bytes) in (1..40_u64, 1..40_usize, 1..200_000_usize, 1..2_000_000_usize),
    ) {
        let mut fixture = Fixture::new();
        let mut settings = fixture.settings();
        (settings.max_rows, settings.poll.records) = (max_rows, records);
        (settings.file_bytes, settings.budget_bytes) = (file_bytes, budget_bytes);
        for (items, of_store, before, nth) in history {
            fixture.write(&items);
            let when = if before { When::Before } else { When::After };
            // A fault that is never reached is a run that goes well.
            let ended = if of_store {
                let store = FaultyStore::new(fixture.store(), nth, Fault::Crash(when));
                fixture.run_with(fixture.broker.as_ref(), store, &settings)
            } else {
                fixture.run_with(&FaultyBroker::new(fixture.broker.clone(), nth, when), fixture.store(), &settings)
            };
            if let Err(e) = ended {
                prop_assert!(e.to_string().contains("on purpose"), "{e}");
            }
        }
        fixture.run_with(fixture.broker.as_ref(), fixture.store(), &settings).unwrap();
        prop_assert_eq!(fixture.stored_rows(), fixture.rows.clone());
    }
}
