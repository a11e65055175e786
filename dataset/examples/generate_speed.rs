//! How fast rows are made: `cargo run --release -p dataset --example generate_speed [ROWS]`, text
//! included, on one thread; and how long it takes to go to a row in the middle.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "prints what it measures")]
use std::io::Read;

use dataset::generate::{Generated, Month, Plan};
use records::clock;

fn main() {
    let rows = std::env::args().nth(1).and_then(|rows| rows.parse().ok()).unwrap_or(10_000_000);
    let begun = clock::now();
    let generated = Generated::new(Plan { month: Month { year: 2019, month: 11 }, rows, seed: 7 });
    println!("the model          {:.2} s", (clock::now() - begun).as_secs_f64());
    let (begun, mut bytes, mut buffer) = (clock::now(), 0_u64, vec![0; 1 << 20]);
    let mut text = generated.text();
    while let Ok(n @ 1..) = text.read(&mut buffer) {
        bytes += n as u64;
    }
    let seconds = (clock::now() - begun).as_secs_f64();
    println!(
        "{rows} rows   {seconds:.2} s, {:.0} rows/s, {:.0} MB/s",
        rows as f64 / seconds,
        bytes as f64 / seconds / 1e6
    );
    let begun = clock::now();
    let _ = generated.text_from(rows / 2).read(&mut buffer);
    println!("to the middle      {:.2} s", (clock::now() - begun).as_secs_f64());
}
