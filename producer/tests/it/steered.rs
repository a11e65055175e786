//! Steering through the topic, seen in the intended times that headers carry: they are exact, whatever
//! the machine does meanwhile.
use std::time::Duration;

use broker::Broker;
use producer::{
    Change, Control, Ended, Going, Named, Outcome, Pace, Passes, Playing, Settings, Shard, Standing, Steered,
};
use records::{Feed, SourceId, topics};

use crate::resume::run_stopping;
use crate::world::{World, csv, flat_out, memory};

/// A change that is written is read well within this, and obeyed at its instant or at once.
const PATIENCE: Duration = Duration::from_secs(60);
/// How far the clocks of a change and of the replay may lie apart: what a thread may sleep between
/// two readings.
const APART_US: i64 = 2_000_000;

fn settings(rows: usize, pace: Pace) -> Settings {
    Settings { pace, ..flat_out(vec![memory("a.csv", csv(0..rows))]) }
}

fn steer(world: &World, source: SourceId, change: Change) -> Control {
    producer::steer(world.broker.as_ref(), topics::DEFAULT_PREFIX, source, change).unwrap()
}

fn end(world: &World, named: Named, playing: Playing) -> producer::Result<Ended> {
    producer::end(world.broker.as_ref(), topics::DEFAULT_PREFIX, named, playing)
}

fn standings(world: &World) -> Vec<Standing> {
    producer::standings(world.broker.as_ref(), topics::DEFAULT_PREFIX).unwrap()
}

fn standing(world: &World, source: SourceId) -> Standing {
    standings(world).into_iter().find(|standing| standing.is(source)).unwrap()
}

/// Plays until so many transactions are committed; how the first source stands then.
fn killed_after(world: &World, settings: &Settings, commits: i64) -> Standing {
    let stopped = run_stopping(world, settings, commits, true, || broker::Error::Stop("killed".into()));
    assert!(matches!(stopped, Err(producer::Error::Broker(broker::Error::Stop(_)))), "{stopped:?}");
    standings(world).remove(0)
}

fn until(world: &World, what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 5 {
        if done() {
            return;
        }
        world.cancel.wait(Duration::from_millis(5));
    }
    panic!("it never came to be that {what}");
}

/// Runs it beside `steering`, which is given the source.
fn run(world: &World, settings: &Settings, steering: impl FnOnce(SourceId)) -> producer::Report {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| world.run(settings));
        until(world, "a row is sent", || world.status.source().is_some() && world.status.events() > 0);
        steering(world.status.source().unwrap());
        run.join().unwrap().unwrap()
    })
}

#[test]
fn paused_resumed_and_set_to_another_rate_without_a_jump() {
    let world = World::new();
    let (mut paused, mut resumed, mut faster) = (0, 0, 0);
    let report = run(&world, &settings(2000, Pace::Rate(100.0)), |source| {
        paused = steer(&world, source, Change::Pause).effective_at_us;
        until(&world, "it is paused", || world.status.is_paused());
        // The batch that was open is committed; after that nothing comes, where thirty rows would have.
        let mut events = 0;
        until(&world, "nothing is sent in the pause", || {
            events = world.status.events();
            world.cancel.wait(Duration::from_millis(300));
            world.status.events() == events
        });
        resumed = steer(&world, source, Change::Resume).effective_at_us;
        until(&world, "it is resumed", || !world.status.is_paused() && world.status.events() > events + 20);
        faster = steer(&world, source, Change::Rate(2000.0)).effective_at_us;
        until(&world, "it is faster", || world.status.going() == Going::Rate(2000.0));
    });
    assert_eq!((report.outcome, report.events), (Outcome::Finished, 2000));
    let intended = world.intended();
    assert!(intended.iter().map(|(row, _)| *row).eq(0..2000), "nothing is lost or sent twice");
    let steps: Vec<_> = intended.windows(2).map(|pair| (pair[0].1, pair[1].1 - pair[0].1)).collect();
    // One step holds the pause, and one the change of the rate; all others are even, but for rounding.
    let even = |step: i64| (499..=501).contains(&step) || (9_999..=10_001).contains(&step);
    let uneven: Vec<_> = steps.iter().filter(|(_, step)| !even(*step)).collect();
    let [pause, change] = uneven[..] else { panic!("{uneven:?}") };
    assert!((pause.0 - paused).abs() < APART_US, "paused {} us off", pause.0 - paused);
    // The step is as long as the pause, and 10 ms.
    assert!((pause.1 - 10_000 - (resumed - paused)).abs() < APART_US, "{} against {}", pause.1, resumed - paused);
    assert!((500..APART_US).contains(&change.1) && (change.0 - faster).abs() < APART_US, "{change:?}");
}

#[test]
fn from_a_rate_to_a_speed_and_back() {
    let world = World::new();
    let report = run(&world, &settings(6000, Pace::Rate(200.0)), |source| {
        // Two rows a second: 400 a second.
        steer(&world, source, Change::Speed(200.0));
        until(&world, "it goes by time", || world.status.going() == Going::Speed(200.0));
        let events = world.status.events();
        until(&world, "it goes on", || world.status.events() > events + 100);
        steer(&world, source, Change::Rate(100_000.0));
    });
    assert_eq!((report.outcome, report.events), (Outcome::Finished, 6000));
    let intended = world.intended();
    assert!(intended.iter().map(|(row, _)| *row).eq(0..6000));
    // Where a thread slept for long there may be a step at each change, and nowhere else.
    let jumps: Vec<_> = intended.windows(2).map(|pair| pair[1].1 - pair[0].1).filter(|step| *step > 10_000).collect();
    assert!(jumps.len() <= 2 && jumps.iter().all(|step| *step < APART_US), "{jumps:?}");
    assert!(intended.is_sorted_by_key(|(_, intended)| *intended), "it went back");
    let even = |step: i64| intended.windows(2).filter(|pair| (pair[1].1 - pair[0].1 - step).abs() <= 1).count();
    assert!(even(2_500) > 90 && even(10) > 100, "{} {}", even(2_500), even(10));
}

/// What was said holds for who comes later, too: a start is paused as the source is.
#[test]
fn what_was_said_holds_across_starts() {
    let world = World::new();
    let slow = settings(2000, Pace::Rate(50.0));
    let report = run(&world, &slow, |source| {
        steer(&world, source, Change::Pause);
        until(&world, "it is paused", || world.status.is_paused());
        world.cancel.cancel();
    });
    assert_eq!(report.outcome, Outcome::Drained);
    let source = report.source;
    let again = World { cancel: broker::Cancel::new(), status: producer::Status::new(), ..world };
    let sent = again.events().len();
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| again.run(&slow));
        until(&again, "it stands paused", || again.status.is_paused());
        steer(&again, source, Change::Rate(50_000.0));
        until(&again, "it was told", || again.status.going() == Going::Rate(50_000.0));
        assert_eq!(again.events().len(), sent, "it is paused");
        steer(&again, source, Change::Resume);
        run.join().unwrap().unwrap()
    });
    assert_eq!((report.outcome, again.events().len()), (Outcome::Finished, 2000));
}

/// Begun flat out while control holds it to a rate, rows do not wait for others as they would flat out.
#[test]
fn rows_linger_by_the_pace_that_holds() {
    let world = World::new();
    let report = run(&world, &settings(600, Pace::Rate(50.0)), |source| {
        steer(&world, source, Change::Rate(200.0));
        until(&world, "it was told", || world.status.going() == Going::Rate(200.0));
        world.cancel.cancel();
    });
    assert_eq!(report.outcome, Outcome::Drained);
    let registry = prometheus::Registry::new();
    let metrics = producer::Metrics::register(&registry).unwrap();
    let (cancel, status) = (broker::Cancel::new(), producer::Status::new());
    let again = World { cancel, status, registry, metrics, ..world };
    let report = again.run(&settings(600, Pace::FlatOut)).unwrap();
    assert_eq!(report.outcome, Outcome::Finished);
    let transactions =
        again.registry.gather().into_iter().find(|of| of.name().ends_with("transactions_total")).unwrap();
    let transactions = transactions.get_metric()[0].get_counter().get_value();
    // 100 ms of them, flat out, are 20 rows.
    let rows = report.events as f64 / transactions;
    assert!(report.events > 100 && rows < 12.0, "{rows} rows a transaction");
}

#[test]
fn ended_by_control_while_it_runs_and_when_it_does_not() {
    let world = World::new();
    let slow = settings(2000, Pace::Rate(50.0));
    let report = run(&world, &slow, |source| {
        steer(&world, source, Change::End);
    });
    assert_eq!((report.outcome, world.ends()), (Outcome::Finished, vec![1; 4]));
    assert!(report.events < 2000);
    assert_eq!(world.run(&slow).unwrap().outcome, Outcome::AlreadyDone);

    // Killed, and never to come back: somebody else writes its end.
    let world = World::new();
    let report = run(&world, &slow, |_| world.cancel.cancel());
    assert_eq!((report.outcome, world.ends()), (Outcome::Drained, vec![0; 4]));
    let end = |named| end(&world, named, Playing::default());
    let unknown = end(Named::Source(SourceId(1))).unwrap_err().to_string();
    assert!(unknown.contains(&format!("unfinished: {}", report.source)), "{unknown}");
    let sent = world.events().len();
    // Of a source that is not split its only feed is all of it.
    assert_eq!(end(Named::Feed(report.feed)).unwrap().now, [report.feed]);
    assert!(standing(&world, report.source).control.unwrap().end);
    let again = end(Named::Source(report.source)).unwrap();
    assert_eq!((again.told, again.now, again.before), (None, vec![], vec![report.feed]));
    assert_eq!((world.ends(), world.events().len()), (vec![1; 4], sent));
}

/// Nothing is told of a source that has played to its end: it could only hold for what is begun later.
#[test]
fn an_end_of_what_has_ended_is_not_written_down() {
    let world = World::new();
    let report = world.run(&settings(20, Pace::FlatOut)).unwrap();
    assert_eq!(end(&world, Named::Source(report.source), Playing::default()).unwrap().told, None);
    assert_eq!(standing(&world, report.source).control, None);
    let twice = Settings { passes: Passes::Times(2), ..settings(20, Pace::FlatOut) };
    assert_eq!((world.run(&twice).unwrap().events, world.ends()), (20, vec![2; 4]));
}

/// A loop that nobody plays any more ends with all its passes, and the same command plays none of them.
#[test]
fn a_loop_is_ended_as_a_whole() {
    let looped = Settings { passes: Passes::Times(3), ..settings(20, Pace::FlatOut) };
    // Killed after so many commits: before the end of the first pass, with it, in the second one. (A pass is
    // a commit of its rows, and one of its end.)
    for (commits, ended) in [(1, 0), (2, 1), (3, 1), (4, 2)] {
        let world = World::new();
        let source = killed_after(&world, &looped, commits);
        assert!(!source.has_ended(), "after {commits} commits it goes on: {source:?}");
        assert_eq!(source.feeds.iter().filter(|feed| feed.ended).count(), ended, "{commits}: {source:?}");
        // By a pass as by the first one.
        let named = Named::Source(source.feeds.last().unwrap().feed.source);
        assert_eq!(end(&world, named, Playing::default()).unwrap().now.len(), 1, "{commits}");
        let (events, ends) = (world.events().len(), world.ends());
        assert_eq!(ends, vec![ended + 1; 4], "{commits}");
        for passes in [looped.passes, Passes::Endless] {
            let again = world.run(&Settings { passes, ..looped.clone() }).unwrap();
            assert_eq!((again.outcome, again.events), (Outcome::AlreadyDone, 0), "{commits}");
            assert_eq!((world.events().len(), world.ends()), (events, ends.clone()), "{commits}");
        }
    }
}

/// Passes so short that nothing is heard within one.
#[test]
fn a_loop_of_short_passes_is_ended() {
    let world = World::new();
    let looped = Settings { passes: Passes::Endless, ..settings(3, Pace::FlatOut) };
    let report = run(&world, &looped, |source| {
        steer(&world, source, Change::End);
    });
    assert_eq!(report.outcome, Outcome::Finished);
    let source = standing(&world, report.source);
    assert!(source.has_ended() && source.feeds.len() > 1, "{source:?}");
}

#[test]
fn shards_end_one_by_one_or_together() {
    let shard = |number| Settings { shard: Shard { number, of: 2 }, ..settings(200, Pace::FlatOut) };
    let killed = || {
        let world = World::new();
        for number in 0..2 {
            killed_after(&world, &shard(number), 1);
        }
        let source = standings(&world)[0].source;
        (world, source)
    };
    let feed = |source, number| Feed { source, shard: number };

    let (world, source) = killed();
    let ended = end(&world, Named::Feed(feed(source, 1)), Playing::default()).unwrap();
    assert_eq!((ended.told, ended.now), (None, vec![feed(source, 1)]));
    assert_eq!(world.run(&shard(1)).unwrap().outcome, Outcome::AlreadyDone);
    assert_eq!(world.run(&shard(0)).unwrap().outcome, Outcome::Finished);
    assert!(end(&world, Named::Feed(feed(source, 2)), Playing::default()).is_err());

    let (world, source) = killed();
    assert_eq!(end(&world, Named::Source(source), Playing::default()).unwrap().now, [feed(source, 0), feed(source, 1)]);
    for number in 0..2 {
        assert_eq!(world.run(&shard(number)).unwrap().outcome, Outcome::AlreadyDone);
    }

    // Who plays a feed whose end another writes is told that, and not that another plays it.
    let (world, slow) = (World::new(), Settings { pace: Pace::Rate(50.0), ..shard(0) });
    std::thread::scope(|scope| {
        let run = scope.spawn(|| world.run(&slow));
        until(&world, "a row is sent", || world.status.events() > 0);
        let feed = feed(world.status.source().unwrap(), 0);
        assert_eq!(end(&world, Named::Feed(feed), Playing::default()).unwrap().now, [feed]);
        let why = run.join().unwrap().unwrap_err().to_string();
        assert!(why.contains("its end was written meanwhile") && !why.contains("another producer"), "{why}");
    });

    // And who plays one that another has played to its end, between two rows of his.
    let (world, slow) = (World::new(), Settings { pace: Pace::Rate(0.5), ..shard(0) });
    std::thread::scope(|scope| {
        let run = scope.spawn(|| world.run(&slow));
        until(&world, "a row is committed", || world.order().iter().any(|rows| !rows.is_empty()));
        assert_eq!(world.run(&shard(0)).unwrap().outcome, Outcome::Finished);
        let why = run.join().unwrap().unwrap_err().to_string();
        assert!(why.contains("another producer has played it to its end"), "{why}");
    });

    // The one that is played here writes its own end.
    let (world, source) = killed();
    let here = Playing { here: Some((source, 1)), ..Playing::default() };
    let refused = end(&world, Named::Feed(feed(source, 1)), here).unwrap_err().to_string();
    assert!(refused.contains("this process plays"), "{refused}");
    let ended = end(&world, Named::Source(source), here).unwrap();
    assert!(ended.told.unwrap().end);
    assert_eq!((ended.now, world.ends()), (vec![feed(source, 0)], vec![1; 4]));
    assert_eq!(world.run(&shard(1)).unwrap().outcome, Outcome::Finished);
    assert_eq!(world.ends(), vec![2; 4]);
}

#[test]
fn what_is_neither_speed_nor_rate_is_refused() {
    let world = World::new();
    for change in [Change::Speed(0.0), Change::Rate(-1.0), Change::Speed(f64::NAN), Change::Rate(2e9)] {
        let told = producer::steer(world.broker.as_ref(), topics::DEFAULT_PREFIX, SourceId(1), change);
        assert!(told.is_err(), "{change:?}");
    }
    // What is answered is what will be read.
    for (speed, held) in [(0.0015, 0.002), (0.001, 0.001), (33.3333, 33.333)] {
        assert_eq!(steer(&world, SourceId(1), Change::Speed(speed)).pace, Some(Steered::Speed(held)));
    }
    assert!(world.broker.describe(&broker::Topic::from("clickstream.replay-control")).unwrap().is_some());
}
