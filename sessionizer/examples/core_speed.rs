//! The core alone, on the real sample over and over with shifted times and fresh session ids:
//! microseconds an event, outputs encoded. `cargo run --release -p sessionizer --example core_speed`
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement")]
use std::io::Read;

use broker::{Offset, Records};
use records::{
    Cents, Decoder, EventTime, EventType, EventsRecord, Feed, Format, FunnelStep, Mark, Message, Session, ShopEvent,
    SourceId, clock,
};
use sessionizer::Rules;
use sessionizer::core::{Partition, Sink};

#[derive(Default)]
struct Encoded {
    steps: Records,
    sessions: Records,
    counts: [u64; 2],
    bytes: usize,
}

impl Encoded {
    fn push<'a>(to: &mut Records, key: &str, at: EventTime, message: &impl Message<'a>) {
        let headers = [("content-type", &b"application/x-protobuf"[..]), ("sent-at", &[0; 8])];
        to.push(at.millis(), key.as_bytes(), &headers, |out| message.encode(Format::Protobuf, out));
    }
}

impl Sink for Encoded {
    fn step(&mut self, key: &str, step: &FunnelStep<'_>) {
        self.counts[0] += 1;
        Self::push(&mut self.steps, key, step.step_time, step);
    }
    fn session(&mut self, key: &str, session: &Session<'_>) {
        self.counts[1] += 1;
        Self::push(&mut self.sessions, key, session.start, session);
    }
    fn late(&mut self) {}
    fn ended(&mut self, _: Feed) {}
}

fn main() {
    let repeats: usize = std::env::args().nth(1).map_or(100, |n| n.parse().unwrap());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/2019-Oct-head.csv.gz");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();

    let feed = Feed { source: SourceId(1), shard: 0 };
    let mut partition = Partition::new(Rules::default());
    let (mut out, mut decoder, mut values, mut offset) = (Encoded::default(), Decoder::new(), Records::new(), 0);
    let (mut decoding, mut whole, mut events) = (0.0, 0.0, 0_u64);
    for pass in 0..repeats {
        // A pass is 10,200 s long.
        let shift = i64::try_from(pass).unwrap() * 10_200;
        values.clear();
        for (n, row) in rows.iter().enumerate() {
            let session = format!("{:08x}{}", pass, &row[8][8..]);
            let event = EventsRecord::Event(ShopEvent {
                feed,
                time: EventTime::from_seconds(EventTime::parse(row[0].as_bytes()).unwrap().seconds() + shift),
                source_row: n as u64,
                copy: 0,
                event_type: match row[1] {
                    "view" => EventType::View,
                    "cart" => EventType::Cart,
                    _ => EventType::Purchase,
                },
                product_id: row[2].parse().unwrap(),
                category_id: row[3].parse().ok(),
                category_code: row[4],
                brand: row[5],
                price: Cents::parse(row[6].as_bytes()).unwrap(),
                user_id: row[7].parse().unwrap(),
                user_session: &session,
            });
            values.push(0, b"", &[], |bytes| event.encode(Format::Protobuf, bytes));
        }
        let began = clock::now();
        for n in 0..values.len() {
            let record = decoder.decode::<EventsRecord>(None, values.get(n, Offset(0)).value).unwrap();
            std::hint::black_box(record);
        }
        let between = clock::now();
        for n in 0..values.len() {
            let record = decoder.decode::<EventsRecord>(None, values.get(n, Offset(0)).value).unwrap();
            partition.apply(Offset(offset), &record, &mut out);
            offset += 1;
        }
        whole += (clock::now() - between).as_secs_f64();
        decoding += (between - began).as_secs_f64();
        events += values.len() as u64;
        out.bytes += out.steps.bytes() + out.sessions.bytes();
        out.steps.clear();
        out.sessions.clear();
    }
    let open = partition.open_sessions();
    partition.apply(Offset(offset), &EventsRecord::End(Mark { feed, clock: EventTime(0) }), &mut out);
    let us = |seconds: f64| seconds * 1e6 / events as f64;
    println!(
        "{events} events, {} steps, {} sessions, {} MB out, {open} open",
        out.counts[0],
        out.counts[1],
        out.bytes >> 20
    );
    println!("decode {:.3} us/event; decode, sessionize and encode {:.3} us/event", us(decoding), us(whole));
}
