//! Parts of the rows, and their times: each is a source that says what it is.
use std::collections::{BTreeMap, BTreeSet};

use producer::{Error, Outcome, Passes, Settings, Shard, Share, Window};
use records::{EventTime, clock};

use crate::world::{World, assert_finished, csv, flat_out, memory};

fn settings(window: Window) -> Settings {
    Settings { window, ..flat_out(vec![memory("a.csv", csv(0..400))]) }
}

fn rows(world: &World) -> Vec<u64> {
    world.events().iter().map(|(row, ..)| *row).collect()
}

fn time(text: &str) -> Option<EventTime> {
    Some(EventTime::parse(text.as_bytes()).unwrap())
}

/// Two rows a second, from midnight on.
#[test]
fn rows_of_a_window() {
    let (from, until) = (time("2019-10-01 00:00:50 UTC"), time("2019-10-01 00:01:00 UTC"));
    let all = Window::default();
    for (window, expected) in [
        (Window { from, ..all }, 100..400),
        (Window { until, ..all }, 0..120),
        (Window { from, until, ..all }, 100..120),
        (Window { limit: Some(7), ..all }, 0..7),
        (Window { from, limit: Some(7), ..all }, 100..107),
        (Window { from: time("2019-10-02 00:00:00 UTC"), ..all }, 0..0),
    ] {
        let world = World::new();
        let report = world.run(&settings(window)).unwrap();
        assert_eq!((report.outcome, world.ends()), (Outcome::Finished, vec![1; 4]));
        assert!(rows(&world).iter().copied().eq(expected.clone()), "{window:?}: {:?}", rows(&world));
        assert_eq!(world.run(&settings(window)).unwrap().outcome, Outcome::AlreadyDone);
    }
}

/// The key of each event: it ends its text.
fn sessions(world: &World) -> BTreeMap<String, BTreeSet<u64>> {
    let mut sessions = BTreeMap::<_, BTreeSet<_>>::new();
    for (row, _, text) in world.events() {
        sessions.entry(text.rsplit(' ').next().unwrap().to_owned()).or_default().insert(row);
    }
    sessions
}

#[test]
fn a_sample_is_of_whole_sessions_and_shards_share_it_out() {
    let whole = World::new();
    whole.run(&settings(Window::default())).unwrap();
    let whole = sessions(&whole);
    let window = Window { sample: Share::new(0.5), ..Window::default() };
    let sampled = World::new();
    let report = sampled.run(&settings(window)).unwrap();
    let sample = sessions(&sampled);
    assert!((1..whole.len()).contains(&sample.len()), "{} of {}", sample.len(), whole.len());
    assert!(sample.iter().all(|(key, rows)| whole[key] == *rows), "a session is there in part");
    // One topic, three shards: their rows together are the sample's, and each session is of one shard.
    let world = World::new();
    let mut sent = 0;
    for number in 0..3 {
        let report = world.run(&Settings { shard: Shard { number, of: 3 }, ..settings(window) }).unwrap();
        assert_eq!((report.outcome, report.feed.shard), (Outcome::Finished, number));
        sent += report.events;
    }
    assert_eq!((sent, sessions(&world)), (report.events, sample.clone()));
    let mut shards = BTreeMap::<_, BTreeSet<_>>::new();
    for (_, _, text) in world.events() {
        let (feed, key) = (text.split(' ').next().unwrap().to_owned(), text.rsplit(' ').next().unwrap().to_owned());
        shards.entry(key).or_default().insert(feed);
    }
    assert!(shards.values().all(|feeds| feeds.len() == 1));
    // The number of shards is part of what the source is.
    let other = world.run(&Settings { shard: Shard { number: 0, of: 2 }, ..settings(window) });
    assert!(matches!(&other, Err(Error::Refused(why)) if why.contains("the shards were 3")), "{other:?}");
}

#[test]
fn other_windows_are_refused_with_what_differs() {
    let world = World::new();
    let seven = Window { limit: Some(7), ..Window::default() };
    world.run(&settings(seven)).unwrap();
    for (other, why) in [
        (Window::default(), "--limit was \"7\", and is not given now"),
        (Window { limit: Some(8), ..seven }, "--limit was \"7\", and is \"8\" now"),
        (Window { sample: Share::new(0.01), ..seven }, "--sample was not given, and is \"1%\" now"),
    ] {
        match world.run(&settings(other)) {
            Err(Error::Refused(got)) => assert!(got.contains(why), "{got}"),
            other => panic!("{other:?}"),
        }
    }
    let rebased = Settings { rebase: true, ..settings(seven) };
    assert!(matches!(world.run(&rebased), Err(Error::Refused(why)) if why.contains("--rebase was not given")));
}

/// The first row happens now, the others as long after it as they did; a second start moves by the same.
#[test]
fn rebased_to_now() {
    let world = World::new();
    let mut first = settings(Window { limit: Some(100), ..Window::default() });
    first.rebase = true;
    // It breaks off after some rows, as a kill would, by a bound on dead letters.
    let text = csv(0..100).replace("00:00:30 UTC", "nonsense");
    first.inputs = vec![memory("a.csv", text)];
    first.max_dead_letters = Some(0);
    let before = clock::wall_us();
    assert!(world.run(&first).is_err());
    let after = clock::wall_us();
    first.max_dead_letters = None;
    assert_finished(&world.run(&first).unwrap(), 38, 2);
    let events = world.events();
    let start = events[0].1.0;
    assert!((before - 1_000_000..=after).contains(&start) && start % 1_000_000 == 0, "{start}");
    for (row, time, _) in events {
        assert_eq!(time.0 - start, i64::try_from(row).unwrap() / 2 * 1_000_000);
    }
}

#[test]
fn passes_are_sources_of_their_own_days_apart() {
    let world = World::new();
    let looped = |times| Settings { passes: Passes::Times(times), ..settings(Window::default()) };
    let report = world.run(&looped(2)).unwrap();
    assert_eq!((report.outcome, report.events, report.passes), (Outcome::Finished, 800, 2));
    // More passes go on after those that were played.
    assert_eq!(world.run(&looped(2)).unwrap().outcome, Outcome::AlreadyDone);
    let report = world.run(&looped(3)).unwrap();
    assert_eq!((report.outcome, report.events, report.passes), (Outcome::Finished, 400, 1));
    assert_eq!(world.ends(), [3; 4]);
    let mut passes = BTreeMap::<_, Vec<_>>::new();
    for (row, time, text) in world.events() {
        passes.entry(text.split(' ').next().unwrap().to_owned()).or_default().push((row, time));
    }
    assert_eq!(passes.len(), 3);
    let mut starts: Vec<_> = passes.values().map(|rows| rows[0].1.seconds()).collect();
    starts.sort_unstable();
    assert_eq!(starts, [0, 86_400, 2 * 86_400].map(|s| 1_569_888_000 + s));
    assert!(passes.values().all(|rows| rows.len() == 400));
}

#[test]
fn an_endless_loop_over_nothing_ends() {
    let world = World::new();
    let settings = Settings { passes: Passes::Endless, ..settings(Window { limit: Some(0), ..Window::default() }) };
    assert_eq!(world.run(&settings).unwrap().events, 0);
}
