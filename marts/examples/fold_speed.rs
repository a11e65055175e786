//! Microseconds per event of the marts: read, fold and commit, from memory.
//!
//! `cargo run --release -p marts --example fold_speed -- [events in millions]`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a measurement"
)]
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use broker::{
    Batch, Broker, Cancel, Commit, Committed, Error, Incarnation, LogBounds, Membership, Offset, PollLimits, Polled,
    Reader, Records, Result, Subscription, Target, Topic, TopicInfo, TopicPartition, TopicSpec, Writer,
};
use records::{
    CONTENT_TYPE, Cents, EventTime, EventType, EventsRecord, Feed, Format, FunnelStep, Message, SENT_AT, Session,
    ShopEvent, SourceId, Stage, clock, micros_header,
};

const PARTITIONS: u32 = 4;
const PER_BATCH: usize = 2_000;
const PRODUCTS: u64 = 160_000;

/// The same batches again and again, each time at later offsets.
struct Memory {
    batches: Vec<(Topic, Vec<Arc<Records>>)>,
    rounds: usize,
    cancel: Cancel,
    next: Mutex<(usize, HashMap<TopicPartition, i64>)>,
}

struct MemoryReader(Arc<Memory>);

fn main() {
    let millions: f64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(4.0);
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    // As the data has it: 0.75 steps and 0.2 sessions an event, products by Zipf's law.
    let distinct = 200_usize;
    let mut logs = [Vec::new(), Vec::new(), Vec::new()];
    let sent = micros_header(clock::wall_us());
    let headers: [(&str, &[u8]); 3] =
        [(CONTENT_TYPE, Format::Protobuf.content_type().as_bytes()), ("intended-at", &sent), (SENT_AT, &sent)];
    for i in 0..distinct {
        let (mut events, mut steps, mut sessions) = (Records::new(), Records::new(), Records::new());
        for j in 0..PER_BATCH {
            let at = EventTime::from_seconds(1_569_888_000 + (i * PER_BATCH + j) as i64 / 16);
            let uniform = (next() % 1_000_000) as f64 / 1e6;
            let product = ((PRODUCTS as f64).powf(uniform) as i64) * 7 + 1_000_000;
            let category = format!("electronics.category{}", product % 130);
            let brand = format!("brand{}", product % 2_000);
            let (category, brand) = (if product % 3 == 0 { "" } else { &category }, brand.as_str());
            let event = ShopEvent {
                feed: Feed { source: SourceId(1), shard: 0 },
                time: at,
                source_row: (i * PER_BATCH + j) as u64,
                copy: 0,
                event_type: if j % 50 == 0 { EventType::Purchase } else { EventType::View },
                product_id: product,
                category_id: Some(2_053_013_552_326_770_905),
                category_code: category,
                brand,
                price: Cents(12_345),
                user_id: 541_312_140,
                user_session: "72d76fde-8bb3-4e00-8c23-a032dfed738c",
            };
            events.push(0, event.user_session.as_bytes(), &headers, |out| {
                EventsRecord::Event(event).encode(Format::Protobuf, out);
            });
            let session_id = "0abc12ef:72d76fde-8bb3-4e00-8c23-a032dfed738c@1569888000";
            if j % 4 != 0 {
                let step = FunnelStep {
                    source: SourceId(1),
                    session_id,
                    user_id: 541_312_140,
                    product_id: product,
                    stage: Stage::View,
                    step_time: at,
                    category_id: event.category_id,
                    category_code: category,
                    brand,
                    price: event.price,
                    first_touch_time: at,
                    after_view: false,
                    after_cart: false,
                    opens_session: j % 5 == 0,
                    session_start: at,
                };
                steps.push(0, b"key", &headers, |out| step.encode(Format::Protobuf, out));
            }
            if j % 5 == 0 {
                let session = Session {
                    source: SourceId(1),
                    session_id,
                    part: 0,
                    user_id: 541_312_140,
                    users: 1,
                    start: at,
                    end: at,
                    views: 5,
                    carts: 0,
                    purchases: 0,
                    products_viewed: 4,
                    products_carted: 0,
                    products_purchased: 0,
                    revenue: Cents(0),
                    furthest_stage: Stage::View,
                    entry_category_code: category,
                    exit_category_code: category,
                    last_event_type: EventType::View,
                    left_in_cart: if j % 50 == 0 {
                        vec![records::LeftInCart {
                            product_id: product,
                            category_code: category,
                            brand,
                            value: Cents(5),
                        }]
                    } else {
                        Vec::new()
                    },
                };
                sessions.push(0, b"key", &headers, |out| session.encode(Format::Protobuf, out));
            }
        }
        for (log, records) in logs.iter_mut().zip([events, steps, sessions]) {
            log.push(Arc::new(records));
        }
    }
    let names = ["clickstream.events", "clickstream.funnel-steps", "clickstream.sessions"];
    let rounds = (millions * 1e6) as usize / PER_BATCH;
    let memory = Arc::new(Memory {
        batches: names.map(Topic::from).into_iter().zip(logs).collect(),
        rounds,
        cancel: Cancel::new(),
        next: Mutex::new((0, HashMap::new())),
    });
    let folder = std::env::temp_dir().join(format!("fold_speed.{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let settings = marts::Settings::new(folder.join("marts.db"), "clickstream.", "memory");
    let metrics = marts::Metrics::register(&prometheus::Registry::new()).unwrap();
    let started = clock::now();
    let broker = Shared(memory.clone());
    let report = marts::run(&broker, &settings, &metrics, &Target::new(), &memory.cancel).unwrap();
    let took = clock::now() - started;
    let committing = metrics.commit_duration.get_sample_sum();
    let events = report.events as f64;
    println!(
        "{} events, {} steps, {} sessions, {} commits, {} rows in {took:.2?}: {:.3} us an event, of which {:.3} committing",
        report.events,
        report.funnel_steps,
        report.sessions,
        report.commits,
        metrics.rows.get(),
        took.as_secs_f64() * 1e6 / events,
        committing * 1e6 / events,
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

struct Shared(Arc<Memory>);

impl Broker for Shared {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn create_topics(&self, _: &[TopicSpec]) -> Result<()> {
        Ok(())
    }

    fn describe(&self, _: &Topic) -> Result<Option<TopicInfo>> {
        let bounds = LogBounds { start: Offset(0), end: Offset(i64::MAX) };
        let partitions = vec![bounds; PARTITIONS as usize];
        Ok(Some(TopicInfo { incarnation: Incarnation("memory".into()), partitions }))
    }

    fn register_group(&self, _: &str, _: &[Topic]) -> Result<Vec<(TopicPartition, u64)>> {
        Ok(Vec::new())
    }

    fn committed(&self, _: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>> {
        Ok(vec![None; partitions.len()])
    }

    fn writer(&self, _: &str) -> Result<Box<dyn Writer>> {
        Err(Error::Stop("read only".into()))
    }

    fn subscribe(&self, _: &Subscription) -> Result<Box<dyn Reader>> {
        Err(Error::Stop("assign only".into()))
    }

    fn assign(&self, _: Option<&str>, _: &[(TopicPartition, Offset)]) -> Result<Box<dyn Reader>> {
        Ok(Box::new(MemoryReader(self.0.clone())))
    }
}

impl Reader for MemoryReader {
    fn poll(&mut self, _: &PollLimits) -> Result<Polled> {
        let memory = &self.0;
        let mut state = memory.next.lock().unwrap();
        let (turn, positions) = &mut *state;
        if *turn == memory.rounds * memory.batches.len() {
            memory.cancel.cancel();
            return Ok(Polled::Idle);
        }
        let (topic, batches) = &memory.batches[*turn % memory.batches.len()];
        let round = *turn / memory.batches.len();
        let partition = TopicPartition::new(topic, round as u32 % PARTITIONS);
        *turn += 1;
        let records = batches[round % batches.len()].clone();
        let base = positions.entry(partition.clone()).or_default();
        let batch = Batch::contiguous(partition.topic, partition.partition, Offset(*base), records);
        *base += batch.len() as i64;
        Ok(Polled::Batch(batch))
    }

    fn seek(&mut self, _: &TopicPartition, _: Offset) -> Result<()> {
        Ok(())
    }

    fn commit(&mut self, _: &[Commit]) -> Result<()> {
        Ok(())
    }

    fn release(&mut self) -> Result<()> {
        Ok(())
    }

    fn membership(&self) -> Option<Membership> {
        None
    }

    fn leave(&mut self) -> Result<()> {
        Ok(())
    }
}
