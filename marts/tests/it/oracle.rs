//! Records as a test states them, the marts computed from them naively, and the marts as they are.
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use broker::{Records, Topic};
use records::{
    CONTENT_TYPE, Cents, EventTime, EventType, EventsRecord, Feed, Format, FunnelStep, LeftInCart, Mark, Message,
    SENT_AT, Session, ShopEvent, SourceId, Stage, micros_header,
};
use rusqlite::Connection;

use crate::double::Double;

pub(crate) const PREFIX: &str = "test.";

#[derive(Clone, Debug)]
pub(crate) enum Record {
    Event(Event),
    Step(Step),
    Session(Closed),
    Watermark(i64),
    /// Bytes that nothing can read, in the topic of that number.
    Garbage(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) source: u32,
    pub(crate) seconds: i64,
    pub(crate) row: u64,
    pub(crate) copy: u32,
    pub(crate) kind: EventType,
    pub(crate) product: i64,
    pub(crate) category: &'static str,
    pub(crate) brand: &'static str,
    pub(crate) cents: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) product: i64,
    pub(crate) stage: Stage,
    pub(crate) category: &'static str,
    pub(crate) brand: &'static str,
    pub(crate) first_touch: i64,
    pub(crate) after_view: bool,
    pub(crate) after_cart: bool,
    pub(crate) opens: bool,
    pub(crate) start: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub(crate) id: String,
    pub(crate) part: u32,
    pub(crate) user: i64,
    pub(crate) start: i64,
    pub(crate) duration: i64,
    pub(crate) counts: [u32; 3],
    pub(crate) cents: i64,
    pub(crate) furthest: Stage,
    pub(crate) left: Vec<(i64, &'static str, &'static str, i64)>,
}

/// A broker that holds `records`, over `partitions` partitions.
pub(crate) fn broker_of(records: &[Record], partitions: usize, format: Format, seed: u64) -> Double {
    let names = ["events", "funnel-steps", "sessions"];
    let mut logs = names.map(|_| vec![Records::new(); partitions]);
    for (i, record) in records.iter().enumerate() {
        let (topic, value) = encode(record, format);
        let sent = micros_header(records::clock::wall_us());
        let headers: [(&str, &[u8]); 2] = [(CONTENT_TYPE, format.content_type().as_bytes()), (SENT_AT, &sent)];
        logs[topic][i % partitions].push(0, b"", &headers, |out| out.extend_from_slice(&value));
    }
    let topics = names.iter().map(|name| Topic::from(format!("{PREFIX}{name}").as_str()));
    Double::new(topics.zip(logs).collect::<HashMap<_, _>>(), seed)
}

fn encode(record: &Record, format: Format) -> (usize, Vec<u8>) {
    let mut out = Vec::new();
    let time = EventTime::from_seconds;
    let topic = match record {
        Record::Event(e) => {
            let event = ShopEvent {
                feed: Feed { source: SourceId(e.source), shard: 0 },
                time: time(e.seconds),
                source_row: e.row,
                copy: e.copy,
                event_type: e.kind,
                product_id: e.product,
                category_id: None,
                category_code: e.category,
                brand: e.brand,
                price: Cents(e.cents),
                user_id: 1,
                user_session: "s",
            };
            EventsRecord::Event(event).encode(format, &mut out);
            0
        }
        Record::Watermark(seconds) => {
            let mark = Mark { feed: Feed::default(), clock: time(*seconds) };
            EventsRecord::Watermark(mark).encode(format, &mut out);
            0
        }
        Record::Step(s) => {
            let step = FunnelStep {
                source: SourceId(1),
                session_id: "s",
                user_id: 1,
                product_id: s.product,
                stage: s.stage,
                step_time: time(s.first_touch + 86_400),
                category_id: None,
                category_code: s.category,
                brand: s.brand,
                price: Cents(1),
                first_touch_time: time(s.first_touch),
                after_view: s.after_view,
                after_cart: s.after_cart,
                opens_session: s.opens,
                session_start: time(s.start),
            };
            step.encode(format, &mut out);
            1
        }
        Record::Session(s) => {
            let left = |(product_id, category_code, brand, cents): &(i64, &'static str, &'static str, i64)| {
                LeftInCart { product_id: *product_id, category_code, brand, value: Cents(*cents) }
            };
            let session = Session {
                source: SourceId(1),
                session_id: &s.id,
                part: s.part,
                user_id: s.user,
                users: 1,
                start: time(s.start),
                end: time(s.start + s.duration),
                views: s.counts[0],
                carts: s.counts[1],
                purchases: s.counts[2],
                products_viewed: 0,
                products_carted: 0,
                products_purchased: 0,
                revenue: Cents(s.cents),
                furthest_stage: s.furthest,
                entry_category_code: "",
                exit_category_code: "",
                last_event_type: EventType::View,
                left_in_cart: s.left.iter().map(left).collect(),
            };
            session.encode(format, &mut out);
            2
        }
        Record::Garbage(topic) => {
            out.extend_from_slice(b"\xff\xff\xff");
            *topic
        }
    };
    (topic, out)
}

/// Rows of each table as text, in order.
pub(crate) type Tables = BTreeMap<&'static str, Vec<String>>;

fn null(text: &str) -> String {
    if text.is_empty() { "NULL".into() } else { text.into() }
}

fn month(seconds: i64) -> String {
    EventTime::from_seconds(seconds).month_text()
}

fn day(seconds: i64) -> String {
    EventTime::from_seconds(seconds).day_text()
}

fn hour(seconds: i64) -> String {
    EventTime::from_seconds(seconds).hour_text()
}

fn rows<K: std::fmt::Display, const N: usize>(sums: BTreeMap<K, [i64; N]>) -> Vec<String> {
    let text = |(key, sums): (K, [i64; N])| format!("{key}|{}", sums.map(|n| n.to_string()).join("|"));
    let mut rows: Vec<_> = sums.into_iter().map(text).collect();
    rows.sort();
    rows
}

/// What the tables must hold.
pub(crate) fn expected(records: &[Record]) -> Tables {
    let mut funnel = BTreeMap::<String, [i64; 5]>::new();
    let mut traffic = BTreeMap::<String, [i64; 5]>::new();
    let mut products = BTreeMap::<(String, i64), [i64; 7]>::new();
    let mut sessions = BTreeMap::<String, [i64; 4]>::new();
    let mut abandoned = Vec::new();
    let mut by_product = BTreeMap::<String, [i64; 2]>::new();
    for record in records {
        match record {
            Record::Event(e) => {
                let revenue = if e.kind == EventType::Purchase { e.cents } else { 0 };
                let kind = e.kind as usize;
                let of_hour = traffic.entry(hour(e.seconds)).or_default();
                of_hour[kind] += 1;
                of_hour[3] += revenue;
                let of_product = products.entry((month(e.seconds), e.product)).or_default();
                of_product[kind] += 1;
                of_product[3] += revenue;
            }
            Record::Step(s) => {
                let key = format!("{}|{}|{}", day(s.first_touch), null(s.category), null(s.brand));
                let of_day = funnel.entry(key).or_default();
                of_day[s.stage as usize] += 1;
                of_day[3] += i64::from(s.stage == Stage::Cart && s.after_view);
                of_day[4] += i64::from(s.stage == Stage::Purchase && s.after_cart);
                products.entry((month(s.first_touch), s.product)).or_default()[4 + s.stage as usize] += 1;
                if s.opens {
                    traffic.entry(hour(s.start)).or_default()[4] += 1;
                }
            }
            Record::Session(s) => {
                if s.part == 0 {
                    let of_day = sessions.entry(format!("{}|{}", day(s.start), s.furthest.as_str())).or_default();
                    of_day[0] += 1;
                    of_day[1] += s.counts.iter().map(|n| i64::from(*n)).sum::<i64>();
                    of_day[2] += s.duration;
                    of_day[3] += s.cents;
                }
                for (product, category, brand, cents) in &s.left {
                    let (category, brand, day) = (null(category), null(brand), day(s.start));
                    abandoned.push(format!("{}|{}|{product}|{category}|{brand}|{day}|{cents}", s.id, s.user));
                    let of_day = by_product.entry(format!("{day}|{product}")).or_default();
                    of_day[0] += 1;
                    of_day[1] += cents;
                }
            }
            Record::Watermark(_) | Record::Garbage(_) => {}
        }
    }
    abandoned.sort();
    let mut with_attributes = Vec::new();
    for ((of_month, product), sums) in products {
        let last = records
            .iter()
            .filter_map(|record| match record {
                Record::Event(e) if e.product == product && month(e.seconds) == of_month => Some(e),
                _ => None,
            })
            .max_by_key(|e| (e.seconds, e.source, e.row, e.copy));
        let (category, brand) = last.map_or(("", ""), |e| (e.category, e.brand));
        let sums = sums.map(|n| n.to_string()).join("|");
        with_attributes.push(format!("{of_month}|{product}|{}|{}|{sums}", null(category), null(brand)));
    }
    with_attributes.sort();
    BTreeMap::from([
        ("mart_funnel_daily", rows(funnel)),
        ("mart_traffic_hourly", rows(traffic)),
        ("mart_products", with_attributes),
        ("mart_sessions_daily", rows(sessions)),
        ("abandoned_carts", abandoned),
        ("mart_abandoned_carts", rows(by_product)),
    ])
}

/// What the tables hold.
pub(crate) fn found(path: &Path) -> Tables {
    let db = Connection::open(path).unwrap();
    let columns = [
        (
            "mart_funnel_daily",
            "day, category_code, brand, viewed, carted, purchased, viewed_then_carted, carted_then_purchased",
        ),
        ("mart_traffic_hourly", "hour, views, carts, purchases, revenue_cents, sessions_started"),
        (
            "mart_products",
            "month, product_id, category_code, brand, views, carts, purchases, revenue_cents, viewed, carted, purchased",
        ),
        ("mart_sessions_daily", "day, furthest_stage, sessions, events, duration_seconds, revenue_cents"),
        ("abandoned_carts", "session_id, user_id, product_id, category_code, brand, day, value_cents"),
        ("mart_abandoned_carts", "day, product_id, sessions, value_cents"),
    ];
    columns.into_iter().map(|(table, columns)| (table, query(&db, &format!("SELECT {columns} FROM {table}")))).collect()
}

/// Rows as text, sorted.
pub(crate) fn query(db: &Connection, sql: &str) -> Vec<String> {
    let mut statement = db.prepare(sql).unwrap();
    let columns = statement.column_count();
    let text = |value| match value {
        rusqlite::types::Value::Null => "NULL".to_string(),
        rusqlite::types::Value::Integer(n) => n.to_string(),
        rusqlite::types::Value::Real(n) => n.to_string(),
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Blob(_) => "blob".to_string(),
    };
    let rows = statement.query_map([], |row| {
        let cells: Vec<_> = (0..columns).map(|i| text(row.get(i).unwrap())).collect();
        Ok(cells.join("|"))
    });
    let mut rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
    rows.sort();
    rows
}
