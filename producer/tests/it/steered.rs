//! Steering through the topic, seen in the intended times that headers carry: they are exact, whatever
//! the machine does meanwhile.
use std::time::Duration;

use broker::Broker;
use producer::{Change, Control, Going, Outcome, Pace, Settings};
use records::{SourceId, topics};

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
    let end = |source| producer::end(world.broker.as_ref(), topics::DEFAULT_PREFIX, source);
    let unknown = end(SourceId(1)).unwrap_err().to_string();
    assert!(unknown.contains(&format!("unfinished: {}", report.source)), "{unknown}");
    let sent = world.events().len();
    assert_eq!(end(report.source).unwrap().now, [report.feed]);
    assert_eq!(
        (end(report.source).unwrap().before, world.ends(), world.events().len()),
        (vec![report.feed], vec![1; 4], sent)
    );
}

#[test]
fn what_is_neither_speed_nor_rate_is_refused() {
    let world = World::new();
    for change in [Change::Speed(0.0), Change::Rate(-1.0), Change::Speed(f64::NAN), Change::Rate(2e9)] {
        let told = producer::steer(world.broker.as_ref(), topics::DEFAULT_PREFIX, SourceId(1), change);
        assert!(told.is_err(), "{change:?}");
    }
    assert!(world.broker.describe(&broker::Topic::from("clickstream.replay-control")).unwrap().is_some());
}
