//! The real first hours of October 2019: the figures that the whole project is held to.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;

use marts::Marts;
use records::{Cents, EventTime, EventType, Format, SessionKey, Stage};

use crate::oracle::{Closed, Event, Record, Step, broker_of, expected, found};
use crate::recovery::{run, settings};

const GAP_SECONDS: i64 = 1800;

struct Row {
    event: Event,
    key: String,
    user: i64,
}

/// Leaked: a test's records borrow their texts for good.
fn rows() -> Vec<Row> {
    let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/2019-Oct-head.csv.gz")).unwrap();
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(&file[..]).read_to_string(&mut text).unwrap();
    let text: &'static str = text.leak();
    let row = |(row, line): (u64, &'static str)| {
        let cells: Vec<_> = line.split(',').collect();
        let kind = match cells[1] {
            "view" => EventType::View,
            "cart" => EventType::Cart,
            _ => EventType::Purchase,
        };
        let user = cells[7].parse().unwrap();
        let event = Event {
            source: 1,
            seconds: EventTime::parse(cells[0].as_bytes()).unwrap().seconds(),
            row,
            copy: 0,
            kind,
            product: cells[2].parse().unwrap(),
            category: cells[4],
            brand: cells[5],
            cents: Cents::parse(cells[6].as_bytes()).unwrap().0,
        };
        Row { event, key: SessionKey::of(cells[8], user).to_string(), user }
    };
    (0..).zip(text.lines().skip(1)).map(row).collect()
}

/// The steps and the summary of one session, from all of its events at once.
fn sessionize(events: &[&Row], out: &mut Vec<Record>) {
    let first = events[0];
    let start = first.event.seconds;
    let mut touched = HashMap::<i64, &Event>::new();
    let mut reached = HashSet::new();
    for (i, row) in events.iter().enumerate() {
        let e = &row.event;
        let touch = *touched.entry(e.product).or_insert(e);
        let stage = Stage::from(e.kind);
        let before = |stage| reached.contains(&(e.product, stage));
        let (after_view, after_cart) = (before(Stage::View), before(Stage::Cart));
        if reached.insert((e.product, stage)) {
            out.push(Record::Step(Step {
                product: e.product,
                stage,
                category: touch.category,
                brand: touch.brand,
                first_touch: touch.seconds,
                after_view,
                after_cart,
                opens: i == 0,
                start,
            }));
        }
    }
    let count = |kind| u32::try_from(events.iter().filter(|row| row.event.kind == kind).count()).unwrap();
    let bought = events.iter().filter(|row| row.event.kind == EventType::Purchase);
    let left = reached
        .iter()
        .filter(|(product, stage)| *stage == Stage::Cart && !reached.contains(&(*product, Stage::Purchase)))
        .map(|(product, _)| (*product, touched[product].category, touched[product].brand, touched[product].cents));
    out.push(Record::Session(Closed {
        id: format!("00000001:{}@{start}", first.key),
        part: 0,
        user: first.user,
        start,
        duration: events.iter().map(|row| row.event.seconds).max().unwrap() - start,
        counts: [count(EventType::View), count(EventType::Cart), count(EventType::Purchase)],
        cents: bought.map(|row| row.event.cents).sum(),
        furthest: reached.iter().map(|(_, stage)| *stage).max().unwrap(),
        left: left.collect(),
    }));
}

fn records(gap_seconds: i64) -> Vec<Record> {
    let rows = rows();
    let mut by_key = BTreeMap::<&str, Vec<&Row>>::new();
    for row in &rows {
        by_key.entry(&row.key).or_default().push(row);
    }
    let mut out: Vec<_> = rows.iter().map(|row| Record::Event(row.event.clone())).collect();
    for events in by_key.values() {
        for session in events.chunk_by(|a, b| b.event.seconds - a.event.seconds <= gap_seconds) {
            sessionize(session, &mut out);
        }
    }
    out
}

#[test]
fn the_figures_of_the_sample() {
    for (gap_seconds, sessions, viewed_carted_purchased) in
        [(GAP_SECONDS, 5067, (12_295, 127, 211)), (i64::MAX, 5066, (0, 0, 0))]
    {
        let records = records(gap_seconds);
        let broker = broker_of(&records, 4, Format::Protobuf, 11);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marts.db");
        let settings = marts::Settings { commit_after: std::time::Duration::from_millis(20), ..settings(&path) };
        run(&broker, &settings, &broker.restarted(None)).unwrap();
        assert_eq!(found(&path), expected(&records));
        let totals = Marts::open_read_only(&path).unwrap().totals().unwrap();
        assert_eq!((totals.views, totals.carts, totals.purchases), (17_055, 165, 214));
        assert_eq!(totals.revenue_cents, 5_944_263);
        assert_eq!((totals.sessions_started, totals.sessions), (sessions, sessions));
        let steps = totals.viewed + totals.carted + totals.purchased;
        if gap_seconds == GAP_SECONDS {
            assert_eq!((totals.viewed, totals.carted, totals.purchased), viewed_carted_purchased);
            assert_eq!((totals.viewed_then_carted, totals.carted_then_purchased), (127, 69));
            assert_eq!((steps, totals.abandoned), (12_633, 58));
        } else {
            assert_eq!(steps, 12_632);
        }
    }
}
