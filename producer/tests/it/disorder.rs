//! Disorder on purpose: bounded, by seed, counted.
use std::collections::BTreeSet;
use std::time::Duration;

use producer::{Disorder, Made, Settings, Share};

use crate::world::{World, csv, flat_out, memory};

fn settings(disorder: Disorder) -> Settings {
    Settings { disorder, ..flat_out(vec![memory("a.csv", csv(0..2000))]) }
}

#[test]
fn a_shuffle_is_within_its_stretch_and_of_its_seed() {
    let run = |seed, seconds| {
        let world = World::new();
        let shuffle = Some(Duration::from_secs(seconds));
        let report = world.run(&settings(Disorder { seed, shuffle, ..Disorder::default() })).unwrap();
        assert_eq!(report.events, 2000);
        (world, report)
    };
    let (world, report) = run(7, 30);
    assert!(world.events().iter().map(|(row, ..)| *row).eq(0..2000), "every row, once");
    let order = world.order();
    for partition in &order {
        let mut greatest = 0;
        for (row, _) in partition {
            // Two rows a second: stretches of 30 s are 60 rows.
            greatest = greatest.max(*row);
            assert_eq!(row / 60, greatest / 60, "row {row} comes after row {greatest} of another stretch");
        }
    }
    assert!(order.iter().any(|rows| !rows.is_sorted()) && report.made.shuffled > 1900, "{:?}", report.made);
    assert_eq!(run(7, 30).0.order(), order);
    assert_ne!(run(8, 30).0.order(), order);
    assert_eq!(run(7, 1).1.events, 2000);
}

/// A bad row that comes first has no time, and no row that takes its place goes without one.
#[test]
fn a_shuffle_whose_first_row_is_bad() {
    for seed in 0..8 {
        let text = csv(0..40).replacen('\n', "\nbad\n", 1);
        let disorder = Disorder { seed, shuffle: Some(Duration::from_secs(30)), ..Disorder::default() };
        let mut settings = Settings { disorder, ..flat_out(vec![memory("a.csv", text)]) };
        // All of it in less than a microsecond, and since 1970 in less than two seconds.
        settings.pace = producer::Pace::Speed(1e9);
        let world = World::new();
        world.run(&settings).unwrap();
        let meant: Vec<_> = world.intended().into_iter().map(|(_, us)| us).collect();
        let apart = meant.iter().max().unwrap() - meant.iter().min().unwrap();
        assert!(meant.len() == 40 && apart <= 1, "{apart} us with seed {seed}");
    }
}

#[test]
fn copies_and_damage_are_counted_and_have_an_identity() {
    let world = World::new();
    let share = Share::new(0.1).unwrap();
    let report = world.run(&settings(Disorder { seed: 3, duplicate: share, corrupt: share, shuffle: None })).unwrap();
    let mut sent: Vec<_> = world.order().into_iter().flatten().collect();
    sent.sort_unstable();
    let all = sent.len();
    sent.dedup();
    assert_eq!(sent.len(), all, "row and copy are an identity");
    let copies = sent.iter().filter(|(_, copy)| *copy == 1).count() as u64;
    let letters = world.letters();
    assert_eq!(report.made, Made { copies, damaged: letters.len() as u64, shuffled: 0 });
    assert!((140..260).contains(&copies) && (140..260).contains(&letters.len()), "{:?}", report.made);
    assert_eq!((report.events, report.dead_letters), (2000 + copies - letters.len() as u64, letters.len() as u64));
    let damaged: BTreeSet<_> = letters.iter().map(|letter| letter.source_row).collect();
    assert!(sent.iter().all(|(row, _)| !damaged.contains(row)));
    let reasons: BTreeSet<_> = letters.iter().map(|letter| &letter.reason[..6]).collect();
    assert!(reasons.len() >= 2, "they are damaged in one way: {reasons:?}");
}
