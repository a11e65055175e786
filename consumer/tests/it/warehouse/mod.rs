//! Whatever is refused, lost, late and killed: the tables hold every row once.
mod model;

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{Broker, Cancel, Offset, PollLimits, Polled, Target, TopicPartition};
use consumer::warehouse::{self, Metrics, Report, Settings, TOPICS};
use proptest::prelude::*;
use records::{Decoder, proto};

use super::doubles::{FaultyBroker, When};
use super::fixture::{Counts, Fixture, Item, PREFIX, topic};
use model::{CRASH, Model, Trouble};

fn settings() -> Settings {
    Settings {
        prefix: PREFIX.into(),
        dataset: "p.d".into(),
        linger: Duration::from_millis(2),
        answer_within: Duration::from_millis(50),
        retry_for: Duration::from_secs(10),
        ..Settings::default()
    }
}

fn run_with(
    fixture: &Fixture,
    broker: &dyn Broker,
    model: &Model,
    settings: &Settings,
) -> Result<Report, warehouse::Error> {
    run_counting(fixture, broker, model, settings, &Metrics::register(&prometheus::Registry::new()).unwrap())
}

fn run_counting(
    fixture: &Fixture,
    broker: &dyn Broker,
    model: &Model,
    settings: &Settings,
    metrics: &Metrics,
) -> Result<Report, warehouse::Error> {
    let (target, cancel) = (Target::new(), Cancel::new());
    let ends: std::collections::HashMap<_, _> =
        fixture.ends().into_iter().filter(|(key, _)| !key.topic.as_str().ends_with("dead-letters")).collect();
    target.set(ends.clone());
    let is_done = || {
        let partitions: Vec<_> = ends.keys().cloned().collect();
        let committed = fixture.broker.committed("t.warehouse", &partitions).unwrap();
        partitions.iter().zip(committed).all(|(key, at)| at.is_some_and(|at| at.offset >= ends[key]))
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| warehouse::run(broker, settings, model, metrics, &target, &cancel));
        let deadline = records::clock::now() + Duration::from_secs(30);
        while !running.is_finished() && !is_done() && records::clock::now() < deadline {
            cancel.wait(Duration::from_millis(1));
        }
        cancel.cancel();
        running.join().unwrap()
    })
}

fn run(fixture: &Fixture, model: &Model) -> Result<Report, warehouse::Error> {
    run_with(fixture, fixture.broker.as_ref(), model, &settings())
}

/// What the tables shall hold: all rows but these.
fn expected(fixture: &Fixture, bad: &BTreeSet<(usize, i64, i64)>) -> Counts {
    let is_bad = |(name, p, o): &(String, i64, i64)| {
        TOPICS.iter().position(|topic| topic == name).is_none_or(|table| bad.contains(&(table, *p, *o)))
    };
    fixture.rows.iter().filter(|(key, _)| !is_bad(key)).map(|(key, n)| (key.clone(), *n)).collect()
}

/// The dead letters that the warehouse wrote: table, partition, offset.
fn letters(fixture: &Fixture) -> Vec<(usize, i64, i64)> {
    let key = TopicPartition::new(&topic("dead-letters"), 0);
    let end = fixture.broker.describe(&topic("dead-letters")).unwrap().unwrap().partitions[0].end;
    let mut reader = fixture.broker.assign(None, &[(key, Offset(0))]).unwrap();
    let (mut letters, mut next) = (Vec::new(), Offset(0));
    while next < end {
        let limits = PollLimits { records: 100, bytes: 1 << 20, timeout: Duration::from_millis(100) };
        let Polled::Batch(batch) = reader.poll(&limits).unwrap() else { continue };
        for record in batch.iter() {
            next = Offset(record.offset.0 + 1);
            let mut decoder = Decoder::new();
            let content_type = record.headers.get("content-type");
            let letter: proto::DeadLetterView<'_> = decoder.view("DeadLetter", content_type, record.value).unwrap();
            if let Some(table) = TOPICS.iter().position(|name| letter.topic == format!("{PREFIX}{name}")) {
                assert!(letter.reason.contains("left it out") && !letter.payload.is_empty(), "{}", letter.reason);
                letters.push((table, i64::from(letter.topic_partition), letter.topic_offset));
            }
        }
    }
    letters.sort_unstable();
    letters
}

fn mixture(n: u32) -> Vec<(Item, u32)> {
    (0..n)
        .map(|i| {
            let day = i64::from(i % 3);
            let item = match i % 8 {
                0..=2 => Item::Event { day },
                3 => Item::Watermark,
                4 => Item::Unreadable,
                5 | 6 => Item::Step { day },
                _ => Item::Session { day },
            };
            (item, i / 8)
        })
        .collect()
}

/// Small plans, so that there are many moments.
fn small() -> Settings {
    let mut settings = settings();
    settings.max_rows = 5;
    settings.poll.records = 7;
    settings
}

#[test]
fn every_row_is_stored_once_and_counted() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    fixture.write(&mixture(800));
    let report = run(&fixture, &model).unwrap();
    assert_eq!(model.rows(), expected(&fixture, &BTreeSet::new()));
    let rows: Vec<u64> = report.tables.iter().map(|table| table.rows).collect();
    assert_eq!((rows, report.tables[0].unreadable), (vec![300, 200, 100], 100), "{report:?}");
    let calls = model.calls();
    assert_eq!(run(&fixture, &model).unwrap().tables.iter().map(|table| table.rows).sum::<u64>(), 0);
    assert_eq!(model.calls(), calls, "nothing is left to do");
    fixture.write(&mixture(80));
    run(&fixture, &model).unwrap();
    assert_eq!(model.rows(), expected(&fixture, &BTreeSet::new()));
    assert_eq!(model.streams(), 6, "one stream for each partition");
}

#[test]
fn rows_that_are_refused_become_dead_letters_and_the_rest_goes_in() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    fixture.write(&mixture(160));
    let rows: Vec<_> = fixture.rows.keys().cloned().collect();
    let place = |(name, p, o): &(String, i64, i64)| (TOPICS.iter().position(|topic| topic == name).unwrap(), *p, *o);
    let bad: BTreeSet<_> = rows.iter().step_by(7).map(place).collect();
    bad.iter().for_each(|(table, p, o)| model.refuse(*table, *p, *o));
    let report = run(&fixture, &model).unwrap();
    assert_eq!(model.rows(), expected(&fixture, &bad));
    assert_eq!(letters(&fixture), bad.iter().copied().collect::<Vec<_>>());
    assert_eq!(report.tables.iter().map(|table| table.refused).sum::<u64>(), bad.len() as u64);
}

#[test]
fn times_that_no_timestamp_can_say_are_left_out_before_they_are_sent() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    let day = |day| (Item::Event { day }, 0);
    fixture.write(&[day(0), day(4_000_000), day(1), day(-2_000_000), day(2)]);
    run(&fixture, &model).unwrap();
    let bad = BTreeSet::from([(0, 0, 1), (0, 0, 3)]);
    assert_eq!(model.rows(), expected(&fixture, &bad));
    assert_eq!(letters(&fixture), bad.into_iter().collect::<Vec<_>>());
    assert_eq!(model.calls(), 1);
}

/// However long rows are: a request stays below what BigQuery takes, and a row that is longer by
/// itself is left out.
#[test]
fn long_rows_go_in_few_at_a_time_and_one_too_long_is_left_out() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    let long = |kib| (Item::Large { kib }, 0);
    let (small, too_long) = ((Item::Event { day: 0 }, 0), long((8 << 10) + 1));
    fixture.write(&[small, long(4000), too_long, long(8000), small]);
    for _ in 0..4 {
        fixture.write(&[long(900); 9]);
    }
    fixture.write(&[long(31); 300]);
    let mut settings = settings();
    settings.linger = Duration::from_secs(1);
    run_with(&fixture, fixture.broker.as_ref(), &model, &settings).unwrap();
    let bad = BTreeSet::from([(0, 0, 2)]);
    assert_eq!(model.rows(), expected(&fixture, &bad));
    assert_eq!(letters(&fixture), bad.into_iter().collect::<Vec<_>>());
}

#[test]
fn more_rows_left_out_than_a_plan_has_place_for() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    let items: Vec<_> = (0..400).map(|i| (Item::Event { day: if i % 2 == 0 { 0 } else { 4_000_000 } }, 0)).collect();
    fixture.write(&items);
    run(&fixture, &model).unwrap();
    let bad: BTreeSet<_> = (0..400).filter(|i| i % 2 == 1).map(|i| (0, 0, i)).collect();
    assert_eq!(model.rows(), expected(&fixture, &bad));
    assert_eq!(letters(&fixture).len(), 200);
}

#[test]
fn a_crash_at_any_moment_loses_and_doubles_nothing() {
    for trouble in [Trouble::CrashBefore, Trouble::CrashAfter] {
        for at in 0..8 {
            let (mut fixture, model) = (Fixture::new(), Model::default());
            fixture.write(&mixture(160));
            model.trouble(at, trouble);
            let error = run_with(&fixture, fixture.broker.as_ref(), &model, &small()).unwrap_err();
            assert!(error.to_string().contains(CRASH), "{error}");
            run(&fixture, &model).unwrap();
            assert_eq!(model.rows(), expected(&fixture, &BTreeSet::new()), "{trouble:?} {at}");
        }
    }
    for when in [When::Before, When::After] {
        for nth in 0..8 {
            let (mut fixture, model) = (Fixture::new(), Model::default());
            fixture.write(&mixture(160));
            let broker = FaultyBroker::new(fixture.broker.clone(), nth, when);
            run_with(&fixture, &broker, &model, &small()).unwrap_err();
            run(&fixture, &model).unwrap();
            assert_eq!(model.rows(), expected(&fixture, &BTreeSet::new()), "{when:?} commit {nth}");
        }
    }
}

#[test]
fn a_place_in_the_group_that_is_lost_is_taken_up_again() {
    for nth in 0..8 {
        let (mut fixture, model) = (Fixture::new(), Model::default());
        fixture.write(&mixture(160));
        model.trouble(2, Trouble::Expired);
        let broker = FaultyBroker::new(fixture.broker.clone(), nth, When::Lost);
        run_with(&fixture, &broker, &model, &small()).unwrap();
        assert_eq!(model.rows(), expected(&fixture, &BTreeSet::new()), "commit {nth}");
    }
}

#[test]
fn dead_letters_whose_transaction_is_lost_are_there_once() {
    for when in [When::LettersBefore, When::LettersAfter] {
        let (mut fixture, model) = (Fixture::new(), Model::default());
        fixture.write(&mixture(160));
        let bad = BTreeSet::from([(0, 0, 1), (0, 0, 8), (1, 1, 3)]);
        bad.iter().for_each(|(table, p, o)| model.refuse(*table, *p, *o));
        let broker = FaultyBroker::new(fixture.broker.clone(), usize::MAX, when);
        run_with(&fixture, &broker, &model, &small()).unwrap();
        let is_row =
            |(table, p, o): &&(usize, i64, i64)| fixture.rows.contains_key(&(TOPICS[*table].to_owned(), *p, *o));
        let bad: BTreeSet<_> = bad.iter().filter(is_row).copied().collect();
        assert!(!bad.is_empty());
        assert_eq!(model.rows(), expected(&fixture, &bad), "{when:?}");
        assert_eq!(letters(&fixture), bad.into_iter().collect::<Vec<_>>(), "{when:?}");
    }
}

#[test]
fn one_stream_is_replaced_and_the_others_go_on() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    fixture.write(&mixture(160));
    model.trouble(2, Trouble::Expired);
    run_with(&fixture, fixture.broker.as_ref(), &model, &small()).unwrap();
    assert_eq!(model.rows(), expected(&fixture, &BTreeSet::new()));
    assert_eq!(model.streams(), 7);
}

#[test]
fn a_stream_that_somebody_else_wrote_to_stops_it() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    fixture.write(&[(Item::Event { day: 0 }, 0)]);
    run(&fixture, &model).unwrap();
    model.meddle();
    fixture.write(&[(Item::Event { day: 0 }, 0)]);
    model.trouble(0, Trouble::Expired);
    let error = run(&fixture, &model).unwrap_err().to_string();
    assert!(error.contains("somebody else has written to it") && error.contains("streams/0"), "{error}");
}

#[test]
fn rows_without_a_position_stop_it() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    fixture.write(&[(Item::Event { day: 0 }, 0)]);
    run(&fixture, &model).unwrap();
    let mut new = Fixture::new();
    new.write(&[(Item::Event { day: 0 }, 0)]);
    let error = run(&new, &model).unwrap_err().to_string();
    assert!(error.contains("p.d.events already has rows") && error.contains("t.events-"), "{error}");
    // A log that was begun anew on purpose puts its rows beside them, and that holds from then on.
    let begun = Settings { begins_anew: true, ..settings() };
    run_with(&new, new.broker.as_ref(), &model, &begun).unwrap();
    assert_eq!(model.rows().into_values().collect::<Vec<_>>(), [2]);
    new.write(&[(Item::Event { day: 0 }, 0)]);
    run(&new, &model).unwrap();
    assert_eq!(model.rows().into_values().collect::<Vec<_>>(), [2, 1]);
}

/// What went in with the old table is not sent again: the new one would lack it, and nobody would know.
#[test]
fn a_table_that_was_made_again_stops_it() {
    for (model, trouble) in [
        (Model::default(), None),
        (Model::without_streams(), None),
        (Model::default(), Some((0, Trouble::Remade))),
        (Model::default(), Some((1, Trouble::Remade))),
    ] {
        let mut fixture = Fixture::new();
        fixture.write(&[(Item::Event { day: 0 }, 0); 20]);
        run_with(&fixture, fixture.broker.as_ref(), &model, &small()).unwrap();
        match trouble {
            None => model.remake_table(0),
            Some((at, trouble)) => model.trouble(at, trouble),
        }
        fixture.write(&[(Item::Event { day: 0 }, 0); 20]);
        for _ in 0..2 {
            let error = run_with(&fixture, fixture.broker.as_ref(), &model, &small()).unwrap_err().to_string();
            assert!(
                error.contains("t.events-0: 2") && error.contains("went into p.d.events, which has none"),
                "{error}"
            );
            assert!(error.contains("made again, or emptied") && error.contains("Put it back"), "{error}");
            assert_eq!(model.rows(), Counts::new(), "{trouble:?}");
        }
    }
}

#[test]
fn a_table_that_was_emptied_stops_it() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    fixture.write(&[(Item::Event { day: 0 }, 0); 20]);
    run(&fixture, &model).unwrap();
    model.shows_late();
    fixture.write(&[(Item::Event { day: 0 }, 0)]);
    run(&fixture, &model).unwrap();
    assert_eq!(model.queries(), 1, "its rows do not show yet: it is asked for them");
    (0..21).for_each(|offset| model.delete(0, 0, offset));
    fixture.write(&[(Item::Event { day: 0 }, 0)]);
    let error = run(&fixture, &model).unwrap_err().to_string();
    assert!(error.contains("t.events-0: 21 rows of offsets up to 20 went into p.d.events, which has none"), "{error}");
}

#[test]
fn a_table_that_was_put_back_goes_on() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    for run in 0..3 {
        fixture.write(&mixture(160));
        run_with(&fixture, fixture.broker.as_ref(), &model, &small()).unwrap();
        assert_eq!(model.rows(), expected(&fixture, &BTreeSet::new()));
        // Of the two partitions each is looked at once: from then on it is the table that is known.
        assert_eq!(model.queries(), if run == 0 { 0 } else { 2 });
        if run == 0 {
            model.restore_table(0);
        }
    }
}

/// Nothing of it is missed.
#[test]
fn an_empty_table_that_was_made_again_goes_on() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    for _ in 0..2 {
        fixture.write(&[(Item::Watermark, 0), (Item::Watermark, 1)]);
        run(&fixture, &model).unwrap();
        (0..3).for_each(|table| model.remake_table(table));
    }
    fixture.write(&mixture(80));
    run(&fixture, &model).unwrap();
    assert_eq!((model.rows(), model.queries()), (expected(&fixture, &BTreeSet::new()), 0));
}

#[test]
fn inserts_are_at_least_once() {
    let (mut fixture, model) = (Fixture::new(), Model::without_streams());
    fixture.write(&mixture(160));
    model.refuse(0, 0, 1);
    model.trouble(1, Trouble::AnswerLost);
    model.trouble(4, Trouble::Throttled);
    let ended = run_with(&fixture, fixture.broker.as_ref(), &model, &small());
    ended.unwrap();
    let bad = BTreeSet::from([(0, 0, 1)]);
    let (rows, expected) = (model.rows(), expected(&fixture, &bad));
    assert!(rows.keys().eq(expected.keys()), "every row is there");
    assert!(rows.values().sum::<u32>() > expected.values().sum::<u32>(), "and those of the lost answer twice");
    assert_eq!(letters(&fixture), bad.into_iter().collect::<Vec<_>>());
}

/// A stream may end, or be gone, before the plans of an earlier run that are in it have all come again.
#[test]
fn a_stream_that_ended_between_two_runs_is_settled_by_all_its_plans() {
    let ways = [(Trouble::Expired, 0), (Trouble::Forgotten, 1)];
    for (in_stream, (ended, queries)) in (0..4).flat_map(|in_stream| ways.map(|way| (in_stream, way))) {
        let (mut fixture, model) = (Fixture::new(), Model::default());
        fixture.write(&[(Item::Event { day: 0 }, 0); 60]);
        // Nothing is sent twice because an answer is slow.
        let answer_within = Duration::from_secs(10);
        let poll = PollLimits { records: 5, ..small().poll };
        let one_by_one = Settings { max_rows: 5, answer_within, poll, ..small() };
        (0..in_stream).for_each(|call| model.trouble(call, Trouble::AnsweredLate(100)));
        model.trouble(in_stream, Trouble::CrashBefore);
        run_with(&fixture, fixture.broker.as_ref(), &model, &one_by_one).unwrap_err();
        assert_eq!(model.rows().len(), 5 * in_stream);
        model.trouble(0, ended);
        run_with(&fixture, fixture.broker.as_ref(), &model, &one_by_one).unwrap();
        assert_eq!(model.rows(), expected(&fixture, &BTreeSet::new()), "{in_stream} {ended:?}");
        assert_eq!((model.streams(), model.queries()), (2, queries));
    }
}

/// BigQuery forgets a stream after some idle days. Where nothing was under way, nobody has to be asked.
#[test]
fn streams_that_were_idle_for_too_long_are_replaced() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    for run in 1..=3 {
        fixture.write(&mixture(160));
        run_with(&fixture, fixture.broker.as_ref(), &model, &small()).unwrap();
        assert_eq!(model.rows(), expected(&fixture, &BTreeSet::new()));
        assert_eq!((model.streams(), model.queries()), (6 * run, 0));
        model.forget_streams();
    }
}

/// What was under way in a stream that is gone is counted in the table; what does not add up is a person's.
#[test]
fn rows_that_somebody_deleted_from_what_is_in_doubt_stop_it() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    fixture.write(&[(Item::Event { day: 0 }, 0); 60]);
    let one_by_one = Settings { max_rows: 5, poll: PollLimits { records: 5, ..small().poll }, ..small() };
    (0..2).for_each(|call| model.trouble(call, Trouble::AnsweredLate(100)));
    model.trouble(2, Trouble::CrashBefore);
    run_with(&fixture, fixture.broker.as_ref(), &model, &one_by_one).unwrap_err();
    model.forget_streams();
    model.delete(0, 0, 3);
    let error = run_with(&fixture, fixture.broker.as_ref(), &model, &one_by_one).unwrap_err().to_string();
    let mend = "DELETE FROM `p.d.events` WHERE topic_partition = 0 AND topic_offset BETWEEN 0 AND ";
    assert!(error.contains("has 9 rows") && error.contains(mend), "{error}");
    (0..60).for_each(|offset| model.delete(0, 0, offset));
    run_with(&fixture, fixture.broker.as_ref(), &model, &one_by_one).unwrap();
    assert_eq!(model.rows(), expected(&fixture, &BTreeSet::new()));
}

#[test]
fn a_table_that_was_dropped_is_named() {
    for between_runs in [true, false] {
        let (mut fixture, model) = (Fixture::new(), Model::default());
        fixture.write(&mixture(80));
        run(&fixture, &model).unwrap();
        fixture.write(&[(Item::Event { day: 0 }, 0)]);
        if between_runs {
            model.drop_table(0);
        } else {
            model.trouble(0, Trouble::Dropped);
        }
        let error = run(&fixture, &model).unwrap_err().to_string();
        assert!(error.contains("no table p.d.events") && error.contains("clickstream warehouse init"), "{error}");
        assert_eq!(model.queries(), 0);
    }
}

#[test]
fn streams_that_die_at_once_are_made_slowly_and_not_for_ever() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    fixture.write(&[(Item::Event { day: 0 }, 0)]);
    model.forget_streams_at_once();
    let settings = Settings { retry_for: Duration::from_millis(400), ..small() };
    let error = run_with(&fixture, fixture.broker.as_ref(), &model, &settings).unwrap_err();
    assert!(matches!(&error, warehouse::Error::Unavailable(why) if why.contains("not found")), "{error}");
    // Pauses of 50 ms, twice as long each time, and half of that at the least.
    assert!((2..=10).contains(&model.streams()), "{}", model.streams());
}

/// Two partitions' streams end at once, and then the process.
#[test]
fn a_crash_between_two_streams_that_are_replaced() {
    for when in [When::Before, When::After, When::LettersBefore, When::LettersAfter] {
        for nth in 0..12 {
            let (mut fixture, model) = (Fixture::new(), Model::default());
            fixture.write(&(0..20).map(|i| (Item::Event { day: 0 }, i)).collect::<Vec<_>>());
            // Two requests a partition, and the answers to all four in one breath.
            (0..3).for_each(|call| model.trouble(call, Trouble::AnsweredLate(2 - call)));
            let mut bad = BTreeSet::new();
            for partition in 0..2 {
                let rows = fixture.rows.keys().filter(|(_, p, _)| *p == partition);
                let offset = rows.map(|(.., offset)| *offset).nth(7).unwrap();
                model.refuse(0, partition, offset);
                bad.insert((0, partition, offset));
            }
            let broker = FaultyBroker::new(fixture.broker.clone(), nth, when);
            // It may be done before.
            let _ = run_with(&fixture, &broker, &model, &small());
            run_with(&fixture, fixture.broker.as_ref(), &model, &small()).unwrap();
            assert_eq!(model.rows(), expected(&fixture, &bad), "{when:?} commit {nth}");
            assert_eq!(letters(&fixture), bad.into_iter().collect::<Vec<_>>(), "{when:?} commit {nth}");
        }
    }
}

/// Rows that are refused, and requests that are repeated, among them.
#[test]
fn bytes_are_counted_as_they_are_sent() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    fixture.write(&mixture(160));
    model.refuse(0, 0, 1);
    model.trouble(3, Trouble::Lost);
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    run_counting(&fixture, fixture.broker.as_ref(), &model, &small(), &metrics).unwrap();
    let of_table = |table: &str| metrics.bytes.with_label_values(&[table]).get();
    assert_eq!(["events", "funnel_steps", "sessions"].map(of_table).iter().sum::<u64>(), model.sent_bytes());
}

#[test]
fn an_idle_connection_is_made_anew() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    fixture.write(&[(Item::Event { day: 0 }, 0); 60]);
    let one_by_one = Settings { max_rows: 5, poll: PollLimits { records: 5, ..small().poll }, ..small() };
    let idle = Settings { connection_idle: Duration::ZERO, ..one_by_one.clone() };
    run_with(&fixture, fixture.broker.as_ref(), &model, &one_by_one).unwrap();
    assert_eq!(model.connections(), 1);
    fixture.write(&[(Item::Event { day: 0 }, 0); 60]);
    run_with(&fixture, fixture.broker.as_ref(), &model, &idle).unwrap();
    assert!(model.connections() > 2, "{}", model.connections());
    assert_eq!(model.rows(), expected(&fixture, &BTreeSet::new()));
}

/// Each is a request of its own, so one that was sent later may be refused before the others are done:
/// a few rows of it, or more than a plan has place for.
#[test]
fn inserts_are_refused_in_any_order() {
    let cases: [(usize, Vec<i64>); 4] =
        [(5, vec![0, 5]), (5, vec![5, 11]), (5, vec![3, 17]), (50, (0..200).step_by(2).collect())];
    for (max_rows, refused) in cases {
        for late in 0..4 {
            let (mut fixture, model) = (Fixture::new(), Model::without_streams());
            fixture.write(&[(Item::Event { day: 0 }, 0); 200]);
            let bad: BTreeSet<_> = refused.iter().map(|offset| (0, 0, *offset)).collect();
            bad.iter().for_each(|(table, p, o)| model.refuse(*table, *p, *o));
            model.trouble(late, Trouble::AnsweredLate(2));
            let settings = Settings { max_rows, ..small() };
            let report = run_with(&fixture, fixture.broker.as_ref(), &model, &settings).unwrap();
            let (rows, expected) = (model.rows(), expected(&fixture, &bad));
            assert!(rows.keys().eq(expected.keys()), "{refused:?} {late}: {rows:?}");
            assert_eq!(report.tables[0].refused, bad.len() as u64);
            assert_eq!(letters(&fixture), bad.into_iter().collect::<Vec<_>>(), "{refused:?} {late}");
        }
    }
}

/// A row that is left out before it is sent and rows before it that are refused, in one transaction.
#[test]
fn dead_letters_have_the_records_that_they_name() {
    let (mut fixture, model) = (Fixture::new(), Model::default());
    let far = [7, 13, 19];
    let items: Vec<_> =
        (0..20).map(|i| (Item::Event { day: if far.contains(&i) { 4_000_000 } else { 0 } }, 0)).collect();
    fixture.write(&items);
    let refused = [1, 6, 12];
    refused.iter().for_each(|offset| model.refuse(0, 0, *offset));
    run_with(&fixture, fixture.broker.as_ref(), &model, &small()).unwrap();
    let bad: BTreeSet<_> = far.into_iter().chain(refused).map(|offset| (0, 0, offset)).collect();
    assert_eq!(model.rows(), expected(&fixture, &bad));
    assert_eq!(letters(&fixture), bad.into_iter().collect::<Vec<_>>());
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        4 => (0..4_i64).prop_map(|day| Item::Event { day }),
        1 => Just(Item::Event { day: 4_000_000 }),
        2 => Just(Item::Watermark),
        1 => Just(Item::Unreadable),
        2 => (0..4_i64).prop_map(|day| Item::Step { day }),
        1 => (0..4_i64).prop_map(|day| Item::Session { day }),
    ]
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        Just(Trouble::Lost),
        Just(Trouble::AnswerLost),
        (0..6_usize).prop_map(Trouble::Late),
        (0..6_usize).prop_map(Trouble::AnsweredLate),
        Just(Trouble::Silence),
        Just(Trouble::Throttled),
        Just(Trouble::Expired),
        Just(Trouble::Forgotten),
        Just(Trouble::CrashBefore),
        Just(Trouble::CrashAfter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Writes, limits, troubles, refused rows and crashes at random, one upon the other.
    #[test]
    fn random_histories(
        history in prop::collection::vec((
            prop::collection::vec((item(), 0..2_u32), 0..40),
            prop::collection::vec((0..12_usize, trouble()), 0..4),
            prop::option::of((prop_oneof![Just(When::Before), Just(When::After), Just(When::Lost)], 0..6_usize)),
        ), 1..5),
        refused in prop::collection::btree_set((0..3_usize, 0..2_i64, 0..60_i64), 0..60),
        (max_rows, records) in (1..50_usize, 1..60_usize),
        has_streams in any::<bool>(),
    ) {
        let (mut fixture, model) =
            (Fixture::new(), if has_streams { Model::default() } else { Model::without_streams() });
        let mut settings = settings();
        (settings.max_rows, settings.poll.records) = (max_rows, records);
        refused.iter().for_each(|(table, p, o)| model.refuse(*table, *p, *o));
        for (items, troubles, crash) in history {
            fixture.write(&items);
            troubles.into_iter().for_each(|(at, trouble)| model.trouble(at, trouble));
            let ended = match crash {
                Some((when, nth)) => {
                    run_with(&fixture, &FaultyBroker::new(fixture.broker.clone(), nth, when), &model, &settings)
                }
                None => run_with(&fixture, fixture.broker.as_ref(), &model, &settings),
            };
            if let Err(e) = ended {
                prop_assert!(e.to_string().contains("on purpose"), "{e}");
            }
        }
        for _ in 0..20 {
            match run_with(&fixture, fixture.broker.as_ref(), &model, &settings) {
                Ok(_) => break,
                Err(e) => prop_assert!(e.to_string().contains("on purpose"), "{e}"),
            }
        }
        let is_row = |(table, p, o): &&(usize, i64, i64)| {
            fixture.rows.contains_key(&(TOPICS[*table].to_owned(), *p, *o))
        };
        let mut bad: BTreeSet<_> = refused.iter().filter(is_row).copied().collect();
        bad.extend(fixture.far_away().iter().map(|(p, o)| (0, *p, *o)));
        let (rows, expected) = (model.rows(), expected(&fixture, &bad));
        if has_streams {
            prop_assert_eq!(rows, expected);
        } else {
            prop_assert!(rows.keys().eq(expected.keys()), "{rows:?} instead of {expected:?}");
        }
        prop_assert_eq!(letters(&fixture), bad.into_iter().collect::<Vec<_>>());
    }
}
