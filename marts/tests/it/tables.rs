//! Keys that are NULL, the attributes of products, the views, and what the read API makes of them.
use marts::{Marts, RankBy};
use records::{EventType, Format, Stage};
use rusqlite::Connection;

use crate::oracle::{Closed, Event, Record, Step, broker_of, query};
use crate::recovery::{run, settings};

/// 2019-10-31 12:00:00 UTC
const NOON: i64 = 1_572_523_200;
const DAY: i64 = 86_400;

/// The marts of `records`, each of `commits` in a run of its own.
fn marts_of(commits: &[&[Record]]) -> (tempfile::TempDir, Connection, Marts) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marts.db");
    let mut so_far = Vec::new();
    let mut committed = None;
    for records in commits {
        so_far.extend_from_slice(records);
        let broker = broker_of(&so_far, 1, Format::Protobuf, 3);
        broker.state().committed = committed.unwrap_or_default();
        run(&broker, &settings(&path), &broker.restarted(None)).unwrap();
        committed = Some(broker.committed_offsets());
    }
    (folder, Connection::open(&path).unwrap(), Marts::open_read_only(&path).unwrap())
}

fn event(kind: EventType, seconds: i64, row: u64, product: i64, category: &'static str) -> Record {
    Record::Event(Event { source: 5, seconds, row, copy: 0, kind, product, category, brand: "b", cents: 250 })
}

fn step(stage: Stage, category: &'static str, brand: &'static str, first_touch: i64) -> Record {
    let (after_view, after_cart) = (stage > Stage::View, stage > Stage::Cart);
    let opens = stage == Stage::View;
    Record::Step(Step {
        product: 1,
        stage,
        category,
        brand,
        first_touch,
        after_view,
        after_cart,
        opens,
        start: first_touch,
    })
}

#[test]
fn null_is_one_key() {
    let records = [
        step(Stage::View, "", "", NOON),
        step(Stage::View, "", "x", NOON),
        step(Stage::View, "x", "", NOON),
        step(Stage::View, "", "", NOON + 1),
    ];
    // The second time they meet rows that are there.
    let (_folder, db, _) = marts_of(&[&records, &records]);
    assert_eq!(
        query(&db, "SELECT day, category_code, brand, viewed FROM mart_funnel_daily"),
        ["2019-10-31|NULL|NULL|4", "2019-10-31|NULL|x|2", "2019-10-31|x|NULL|2"]
    );
}

/// The category of the greatest (time, source, row, copy), in whatever order and commit they come.
#[test]
fn a_product_is_what_its_last_event_says() {
    let of = |seconds, source, row, copy, category| {
        let kind = EventType::View;
        Record::Event(Event { source, seconds, row, copy, kind, product: 1, category, brand: category, cents: 0 })
    };
    let (day, night) = (NOON - DAY, NOON);
    for (events, expected) in [
        ([of(day, 9, 9, 9, "old"), of(night, 1, 1, 0, "new")], "new|new"),
        ([of(day, 1, 9, 9, "less"), of(day, 2, 1, 0, "greater source")], "greater source|greater source"),
        ([of(day, 1, 9, 9, "less"), of(day, 1, 10, 0, "greater row")], "greater row|greater row"),
        ([of(day, 1, 9, 0, "less"), of(day, 1, 9, 1, "greater copy")], "greater copy|greater copy"),
        ([of(day, 1, 1, 0, "old"), of(night, 1, 2, 0, "")], "NULL|NULL"),
        // As a signed integer the greater one would be negative.
        ([of(day, 1, 1, 0, "less"), of(day, u32::MAX, 1, 0, "greater source")], "greater source|greater source"),
        ([of(-DAY * 30_000, 1, 1, 0, "other month"), of(night, 1, 1, 1, "x")], "x|x"),
    ] {
        let [a, b] = events;
        let one = |record: &Record| std::slice::from_ref(record).to_vec();
        for commits in [
            vec![vec![a.clone(), b.clone()]],
            vec![vec![b.clone(), a.clone()]],
            vec![one(&a), one(&b)],
            vec![one(&b), one(&a)],
            // A step says nothing of it.
            vec![one(&step(Stage::View, "step", "step", NOON)), one(&b), one(&a)],
            vec![vec![step(Stage::View, "step", "step", NOON), b.clone()], one(&a)],
            vec![one(&a), one(&step(Stage::View, "step", "step", NOON)), one(&b)],
        ] {
            let commits: Vec<_> = commits.iter().map(Vec::as_slice).collect();
            let (_folder, db, _) = marts_of(&commits);
            let sql = "SELECT category_code, brand FROM mart_products WHERE month = '2019-10-01'";
            assert_eq!(query(&db, sql), [expected], "{commits:?}");
        }
    }
}

#[test]
fn rates_of_nothing_are_null() {
    let records = [
        step(Stage::View, "a", "", NOON),
        step(Stage::View, "a", "", NOON - DAY),
        step(Stage::View, "a", "", NOON - DAY),
        step(Stage::View, "a", "", NOON),
        step(Stage::Cart, "a", "", NOON),
        step(Stage::Purchase, "a", "", NOON),
        step(Stage::Purchase, "p", "", NOON),
        step(Stage::View, "a", "", NOON + DAY),
    ];
    let (_folder, db, marts) = marts_of(&[&records]);
    assert_eq!(
        query(
            &db,
            "SELECT month, category_code, brand, viewed, carted, purchased, viewed_then_carted, carted_then_purchased,
                    cart_rate, cart_to_purchase_rate, purchase_rate FROM mart_funnel"
        ),
        [
            "2019-10-01|a|NULL|4|1|1|1|1|0.25|1|0.25",
            "2019-10-01|p|NULL|0|0|1|0|1|NULL|NULL|NULL",
            "2019-11-01|a|NULL|1|0|0|0|0|0|NULL|0",
        ]
    );
    let funnel = marts.funnel_by_category(1).unwrap();
    assert_eq!((funnel.len(), funnel[0].name.as_deref(), funnel[0].viewed), (1, Some("a"), 5));
    assert_eq!((funnel[0].cart_rate, funnel[0].cart_to_purchase_rate), (Some(0.2), Some(1.0)));
    let brands = marts.funnel_by_brand(9).unwrap();
    assert_eq!((brands.len(), brands[0].name.as_deref(), brands[0].purchased), (1, None, 2));
}

#[test]
fn the_read_api_sums() {
    let left = |id: &str, part, left| {
        Record::Session(Closed {
            id: id.into(),
            part,
            user: 4,
            start: NOON,
            duration: 90,
            counts: [2, 1, 1],
            cents: 250,
            furthest: Stage::Purchase,
            left,
        })
    };
    let records = [
        event(EventType::View, NOON, 0, 1, "a"),
        event(EventType::Cart, NOON + 3600, 1, 1, "a"),
        event(EventType::Purchase, NOON + DAY, 2, 1, "z"),
        event(EventType::Purchase, NOON, 3, 2, ""),
        event(EventType::Purchase, NOON, 4, 2, ""),
        step(Stage::View, "a", "b", NOON),
        left("s", 0, vec![(1, "a", "b", 250), (2, "", "", 30)]),
        left("s", 1, vec![(3, "a", "b", 40)]),
        left("t", 0, vec![(2, "", "", 30)]),
    ];
    let (_folder, _db, marts) = marts_of(&[&records]);
    let totals = marts.totals().unwrap();
    assert_eq!((totals.views, totals.carts, totals.purchases, totals.revenue_cents), (1, 1, 3, 750));
    assert_eq!((totals.sessions_started, totals.sessions, totals.viewed), (1, 2, 1));
    assert_eq!((totals.abandoned, totals.abandoned_value_cents), (4, 350));
    assert_eq!(totals.first_hour.as_deref(), Some("2019-10-31 12:00:00"));
    assert_eq!(totals.last_hour.as_deref(), Some("2019-11-01 12:00:00"));
    let hours: Vec<_> = marts.traffic_by_hour(2).unwrap().into_iter().map(|row| row.hour).collect();
    assert_eq!(hours, ["2019-10-31 13:00:00", "2019-11-01 12:00:00"]);
    let by_revenue = marts.top_products(RankBy::Revenue, 5).unwrap();
    assert_eq!(
        by_revenue.iter().map(|row| (row.product_id, row.revenue_cents)).collect::<Vec<_>>(),
        [(2, 500), (1, 250)]
    );
    let by_views = marts.top_products(RankBy::Views, 1).unwrap();
    assert_eq!((by_views[0].product_id, by_views[0].category_code.as_deref(), by_views[0].viewed), (1, Some("z"), 1));
    assert_eq!(marts.top_products(RankBy::Purchases, 1).unwrap()[0].product_id, 2);
    let stages = marts.sessions_by_stage().unwrap();
    assert_eq!(stages.len(), 1);
    assert_eq!(
        (stages[0].furthest_stage.as_str(), stages[0].sessions, stages[0].events, stages[0].duration_seconds),
        ("purchase", 2, 8, 180)
    );
    let abandoned = marts.top_abandoned(1).unwrap();
    assert_eq!((abandoned[0].product_id, abandoned[0].sessions, abandoned[0].value_cents), (2, 2, 60));
    let freshness = marts.freshness().unwrap();
    assert!(freshness.committed_at_us.is_some());
    let offsets: Vec<_> = freshness.positions.iter().map(|row| (row.topic.as_str(), row.next_offset)).collect();
    assert_eq!(offsets, [("test.events", 5), ("test.funnel-steps", 1), ("test.sessions", 3)]);
}

#[test]
fn nothing_sums_to_nothing() {
    let (_folder, _db, marts) = marts_of(&[&[]]);
    assert_eq!(marts.totals().unwrap(), marts::Totals::default());
    assert!(marts.top_products(RankBy::Revenue, 3).unwrap().is_empty());
    assert_eq!(marts.freshness().unwrap().positions.len(), 3);
}
