//! How fast the producer alone is: the bundled sample, repeated, into an embedded broker that nobody reads;
//! beside it, in the same run, the csv crate reading the same file and throwing it away.
//! `cargo run --release -p producer --example flat_out -- 230` (copies of the sample; 230 are 4,009,820 rows)
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "an example")]
use std::error::Error;
use std::io::{Read, Write};

use broker::embedded::{Embedded, Options};
use broker::{Broker, Cancel, Cleanup, Topic, TopicSpec};
use producer::{Input, Metrics, Pace, Settings, Status, run};
use records::{clock, topics};

fn main() -> Result<(), Box<dyn Error>> {
    let copies: usize = std::env::args().nth(1).map_or(Ok(60), |n| n.parse())?;
    let pace = match std::env::args().nth(2) {
        Some(rate) => Pace::Rate(rate.parse()?),
        None => Pace::FlatOut,
    };
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("sample.csv");
    write_copies(&path, copies)?;
    let broker = Embedded::open(folder.path().join("broker.db"), Options::default())?;
    let topic = |name: &str| Topic::from(format!("{}{name}", topics::DEFAULT_PREFIX).as_str());
    let spec = |name, partitions, cleanup| TopicSpec { topic: topic(name), partitions, cleanup };
    broker.create_topics(&[
        spec(topics::EVENTS, topics::DEFAULT_PARTITIONS, Cleanup::Delete),
        spec(topics::DEAD_LETTERS, 1, Cleanup::Bounded { bytes: 64 << 20 }),
        spec(topics::REPLAY_PROGRESS, 1, Cleanup::Compact),
        spec(topics::REPLAY_CONTROL, 1, Cleanup::Compact),
    ])?;
    let settings = Settings::new(vec![Input::Path(path.to_string_lossy().into_owned())], pace);
    let metrics = Metrics::register(&prometheus::Registry::new())?;
    let begun = clock::now();
    let cpu = cpu_seconds();
    let report = run(broker.as_ref(), &settings, &metrics, &Status::new(), &Cancel::new())?;
    let (seconds, cpu) = ((clock::now() - begun).as_secs_f64(), cpu_seconds() - cpu);
    let events = report.events as f64;
    println!(
        "{events} events in {seconds:.2} s: {:.0} events/s, {:.2} us of CPU each",
        events / seconds,
        cpu * 1e6 / events
    );
    let begun = clock::now();
    let mut reader = csv::Reader::from_path(&path)?;
    let (mut row, mut rows) = (csv::ByteRecord::new(), 0.0);
    while reader.read_byte_record(&mut row)? {
        rows += 1.0;
    }
    let floor = (clock::now() - begun).as_secs_f64();
    println!(
        "the csv crate, same file, thrown away: {floor:.2} s: {:.0} rows/s; {:.2} of its time",
        rows / floor,
        seconds / floor
    );
    println!("sending minus intended {:?}", report.sending_error);
    println!("visible minus intended {:?}", report.visible_error);
    Ok(())
}

fn write_copies(path: &std::path::Path, copies: usize) -> Result<(), Box<dyn Error>> {
    let mut sample = Vec::new();
    flate2::read::GzDecoder::new(dataset::sample()).read_to_end(&mut sample)?;
    let body = sample.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    file.write_all(&sample[..body])?;
    for _ in 0..copies {
        file.write_all(&sample[body..])?;
    }
    Ok(file.flush()?)
}

/// User and system time of this process, from /proc.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
    ticks / 100.0
}
