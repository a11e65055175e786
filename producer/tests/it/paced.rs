//! Rows are meant for the times that the schedule says, and watermarks keep their promise.
use std::io::{self, Cursor, Read};
use std::time::Duration;

use producer::{CatchUp, Input, Pace, Settings, Stream};
use proptest::prelude::*;
use records::EventTime;

use crate::world::{HEADER, What, World, assert_finished, csv, memory, row};

#[test]
fn intended_times_are_the_schedule() {
    let world = World::new();
    let mut settings = Settings::new(vec![memory("a.csv", csv(0..40))], Pace::Speed(100.0));
    settings.max_gap = Some(Duration::from_secs(30));
    let report = world.run(&settings).unwrap();
    assert_finished(&report, 40, 0);
    let mut sent: Vec<_> = world
        .sent()
        .into_iter()
        .flatten()
        .filter_map(|sent| match sent.what {
            What::Event(row, ..) => Some((row, sent.intended_us.unwrap(), sent.sent_us.unwrap())),
            _ => None,
        })
        .collect();
    sent.sort_unstable();
    let start = sent[0].1;
    for (row, intended, sent) in sent {
        // Two rows a second at 100x: 5 ms apart.
        assert_eq!(intended - start, i64::try_from(row).unwrap() * 5_000);
        assert!(sent >= intended, "row {row} was sent early");
    }
    assert_eq!((report.sending_error.count, report.visible_error.count), (40, 40));
    assert!(report.visible_error.p50_us >= report.sending_error.p50_us);
}

/// The rows of a second that are due together count one by one.
#[test]
fn histograms_count_rows() {
    let world = World::new();
    let settings = Settings::new(vec![memory("a.csv", csv(0..60))], Pace::Speed(1000.0));
    let report = world.run(&Settings { bursts: true, ..settings }).unwrap();
    let intended = world.intended();
    assert!(intended.iter().all(|(row, us)| us - intended[0].1 == i64::try_from(row / 2).unwrap() * 1000), "by twos");
    let families = world.registry.gather();
    for name in ["sending", "visible"] {
        let name = format!("clickstream_producer_{name}_error_seconds");
        let family = families.iter().find(|family| family.name() == name).unwrap();
        assert_eq!(family.get_metric()[0].get_histogram().get_sample_count(), report.events, "{name}");
    }
}

#[test]
fn silences_are_squeezed_and_rates_are_even() {
    let text = format!("{HEADER}\n{}\n{}\n", row(0), row(2).replace("2019-10-01", "2019-10-03"));
    let world = World::new();
    let mut settings = Settings::new(vec![memory("a.csv", text)], Pace::Speed(100.0));
    settings.max_gap = Some(Duration::from_secs(2));
    let report = world.run(&settings).unwrap();
    // 20 ms; half an hour if the silence counted.
    assert!(report.elapsed < Duration::from_secs(60) && report.elapsed >= Duration::from_millis(20));
    let world = World::new();
    world.run(&Settings::new(vec![memory("a.csv", csv(0..100))], Pace::Rate(2000.0))).unwrap();
    let mut intended: Vec<_> = world.sent().into_iter().flatten().filter_map(|sent| sent.intended_us).collect();
    intended.sort_unstable();
    assert!(intended.windows(2).all(|pair| pair[1] - pair[0] == 500));
}

/// Row n of a ramp from 100/s to 1000/s over a second is due where the area under it is n.
#[test]
fn a_ramp_is_its_area() {
    let world = World::new();
    let ramp = Pace::Rates("100/s..1000/s over 1s".parse().unwrap());
    world.run(&Settings::new(vec![memory("a.csv", csv(0..700))], ramp)).unwrap();
    let intended = world.intended();
    for (row, us) in &intended {
        let seconds = (*us - intended[0].1) as f64 / 1e6;
        let rows =
            if seconds < 1.0 { 100.0 * seconds + 450.0 * seconds * seconds } else { 550.0 + (seconds - 1.0) * 1000.0 };
        assert!((rows - *row as f64).abs() < 0.01, "row {row} is due where row {rows} is");
    }
}

/// Rows that come late from their stream: the schedule stays, or what is lost is given up.
#[test]
fn catching_up_or_sliding() {
    for catch_up in [CatchUp::Burst, CatchUp::Slide] {
        let world = World::new();
        let (first, second) = (csv(0..20), csv(20..40).split_once('\n').unwrap().1.to_owned());
        let parts = move || {
            let (at_once, late) = (Cursor::new(first.clone()), Cursor::new(second.clone()));
            Ok(Box::new(at_once.chain(Waits(Duration::from_millis(800))).chain(late)) as Box<dyn Read + Send>)
        };
        let mut settings = Settings::new(vec![Input::Stream(Stream::new("-", parts))], Pace::Rate(100.0));
        settings.catch_up = catch_up;
        let report = world.run(&settings).unwrap();
        assert_finished(&report, 40, 0);
        let intended = world.intended();
        let late: i64 = intended.windows(2).map(|pair| pair[1].1 - pair[0].1 - 10_000).sum();
        let slid = i64::try_from(report.slid.as_micros()).unwrap();
        assert!((late - slid).abs() <= 40, "{late} us of the schedule were given up, {slid} us are told");
        // 20 rows take 200 ms, and the rest come after 800 ms.
        assert_eq!(slid >= 500_000, catch_up == CatchUp::Slide, "{slid}");
        assert!(report.sending_error.max_us >= 500_000, "the wait is not told: {:?}", report.sending_error);
    }
}

/// Nothing, after a wait.
struct Waits(Duration);

impl Read for Waits {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        broker::Cancel::new().wait(self.0);
        Ok(0)
    }
}

/// In no partition does a watermark exceed an event that follows it, unless that event is out of order.
#[test]
fn watermarks_never_run_ahead() {
    let world = World::new();
    // A silence long enough, at this speed, for watermarks to run through it.
    let mut text = csv(0..20);
    text.push_str(&csv(2000..2020).split_once('\n').unwrap().1.replace("00:16", "00:20").replace("00:17", "00:21"));
    let report = world.run(&Settings::new(vec![memory("a.csv", text)], Pace::Speed(500.0))).unwrap();
    assert_finished(&report, 40, 0);
    let mut between = 0;
    for partition in world.sent() {
        let mut watermark = EventTime(i64::MIN);
        for sent in partition {
            match sent.what {
                What::Event(_, time, _) => assert!(time >= watermark, "{time} comes after a watermark of {watermark}"),
                What::Watermark(clock) => {
                    assert!(clock >= watermark);
                    watermark = clock;
                    let silence = EventTime::parse(b"2019-10-01 00:01:00 UTC").unwrap()
                        ..EventTime::parse(b"2019-10-01 00:20:00 UTC").unwrap();
                    between += usize::from(silence.contains(&clock));
                }
                What::End(clock) => assert!(clock >= watermark),
            }
        }
    }
    assert!(between >= 4, "the clock stood still through the silence");
}

/// Rows of these seconds, one after another.
fn at_seconds(seconds: &[i64]) -> Input {
    let mut text = format!("{HEADER}\n");
    for (i, second) in seconds.iter().enumerate() {
        let time = EventTime::from_seconds(1_569_888_000 + second).to_string();
        text.push_str(&format!("{time},{}\n", row(i).split_once(',').unwrap().1));
    }
    memory("a.csv", text)
}

/// The second of the schedule that each row was meant for, the first one's being 0.
fn scheduled(world: &World, speed: i64) -> Vec<i64> {
    let intended = world.intended();
    intended.iter().map(|(_, us)| ((us - intended[0].1) * speed).div_euclid(1_000_000)).collect()
}

/// A row whose time is far ahead, or late, is sent where it stands; those that follow are as without it.
#[test]
fn rows_out_of_order_do_not_stall_the_schedule() {
    for (what, seconds, expected) in [
        ("one ahead", &[0, 1, 3601, 2, 3, 4][..], &[0, 1, 1, 2, 3, 4][..]),
        ("two ahead, one after another", &[0, 3600, 7200, 1, 2, 3, 4, 5], &[0, 0, 0, 1, 2, 3, 4, 5]),
        ("one ahead at the beginning", &[3600, 0, 1, 2], &[0, 0, 1, 2]),
        ("one late", &[0, 1, 2, -3600, 3, 4], &[0, 1, 2, 2, 3, 4]),
        ("one late after a silence", &[0, 600, -60, 601, 602], &[0, 600, 600, 601, 602]),
        ("late into a silence", &[0, 600, 300, 601, 602, 603], &[0, 600, 600, 601, 602, 603]),
        ("a silence at the end", &[0, 1, 600], &[0, 1, 600]),
        ("sorted", &[0, 0, 1, 1, 600, 600, 601], &[0, 0, 1, 1, 600, 600, 601]),
    ] {
        let world = World::new();
        world.run(&Settings::new(vec![at_seconds(seconds)], Pace::Speed(10_000.0))).unwrap();
        assert_eq!(scheduled(&world, 10_000), expected, "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Single rows with a time far ahead move no other row by a second, be the replay stopped or not.
    #[test]
    fn single_rows_ahead_move_nothing(
        steps in proptest::collection::vec(0_i64..3, 30..60).prop_map(|mut steps| {
            steps[0] = 0;
            steps
        }),
        ahead in proptest::collection::vec(any::<prop::sample::Index>(), 0..3),
        stop in 1_u64..25,
    ) {
        let sorted: Vec<i64> = steps.iter().scan(0, |second, step| { *second += step; Some(*second) }).collect();
        let mut seconds = sorted.clone();
        // Ten rows apart, so that each is alone among those that it is judged by.
        let mut places: Vec<usize> = ahead.iter().map(|at| at.index(sorted.len() / 10) * 10).collect();
        places.sort_unstable();
        places.dedup();
        for place in places.iter().rev() {
            seconds.insert(*place + 1, seconds[*place] + 3600);
        }
        let speed = 10_000;
        let settings = Settings::new(vec![at_seconds(&seconds)], Pace::Speed(speed as f64));
        let world = World::new();
        world.run(&settings).unwrap();
        let mut meant = scheduled(&world, speed);
        for (before, place) in places.iter().enumerate() {
            let alone = meant.remove(*place + 1);
            prop_assert_eq!(alone, meant[*place], "row {} is ahead, after {} others", place, before);
        }
        prop_assert_eq!(meant, sorted);
        // The last rows again, after a stop: as far from one another as they were.
        let again = World::new();
        let slow = Settings { pace: Pace::Speed(500.0), linger: Duration::from_millis(1), ..settings.clone() };
        std::thread::scope(|scope| {
            let run = scope.spawn(|| again.run(&slow));
            while again.status.events() < stop && !again.cancel.wait(Duration::from_millis(1)) {}
            again.cancel.cancel();
            run.join().unwrap()
        }).unwrap();
        let sent = again.events().len();
        let again = World { cancel: broker::Cancel::new(), ..again };
        again.run(&settings).unwrap();
        let (whole, resumed) = (world.intended(), again.intended());
        for (i, pair) in resumed[sent..].windows(2).enumerate() {
            let (first, second) = (whole[sent + i].1, whole[sent + i + 1].1);
            prop_assert!((pair[1].1 - pair[0].1 - (second - first)).abs() <= 1_000_000 / speed + 2, "row {}", sent + i);
        }
    }
}

#[test]
fn settings_that_cannot_be_obeyed() {
    let world = World::new();
    for (pace, max_gap, why) in [
        (Pace::Speed(0.0), None, "--speed is 0"),
        (Pace::Speed(f64::NAN), None, "--speed is NaN"),
        (Pace::Rate(-1.0), None, "--rate is -1"),
        (Pace::FlatOut, Some(Duration::ZERO), "--max-gap is 0"),
    ] {
        let mut settings = Settings::new(vec![memory("a.csv", csv(0..1))], pace);
        settings.max_gap = max_gap;
        let error = world.run(&settings).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}
