//! The part on the embedded broker.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]
mod world;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use broker::{
    Broker, Cancel, Commit, Committed, Membership, Offset, PollLimits, Polled, Reader, Records, Subscription, Topic,
    TopicInfo, TopicPartition, TopicSpec, Writer,
};
use prometheus::Registry;
use records::{EventTime, EventsRecord, Format, Mark};
use sessionizer::{Gap, Metrics, Report, Rules, Settings, run};
use world::{World, feed, sample};

fn settings(rules: Rules) -> Settings {
    Settings { rules, ..Settings::default() }
}

/// Runs until everything there is has been committed.
fn run_to_the_end(world: &World, broker: &dyn Broker, settings: &Settings) -> Result<Report, sessionizer::Error> {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let result = run(broker, settings, &metrics, &cancel);
            cancel.cancel();
            result
        });
        while !world.caught_up(&settings.group()) && !cancel.wait(Duration::from_millis(5)) {}
        cancel.cancel();
        run.join().unwrap()
    })
}

#[test]
fn the_sample_gives_the_known_numbers() {
    for (gap, sessions, steps) in
        [(Gap::After(Duration::from_secs(1800)), 5_067, [12_295, 127, 211]), (Gap::None, 5_066, [12_294, 127, 211])]
    {
        for format in [Format::Protobuf, Format::Json] {
            let world = World::new();
            world.write(&sample(), format);
            let settings = Settings { format, ..settings(Rules { gap, ..Rules::default() }) };
            let report = run_to_the_end(&world, &*world.broker(), &settings).unwrap();
            let out = world.outputs();
            assert_eq!((report.events, report.sessions, report.steps), (17_434, sessions, steps), "{gap}");
            assert_eq!((report.late_events, report.dead_letters, report.finished_feeds), (0, 0, 4));
            assert_eq!(out.steps.len() as u64, steps.iter().sum::<u64>());
            assert_eq!(out.sessions.len() as u64, sessions);
            let count = |what: &str, of: &[String]| of.iter().filter(|line| line.contains(what)).count();
            let carts: Vec<String> = out.steps.iter().filter(|s| s.contains("stage: Cart")).cloned().collect();
            let bought: Vec<String> = out.steps.iter().filter(|s| s.contains("stage: Purchase")).cloned().collect();
            assert_eq!((count("after_view: true", &carts), count("after_cart: true", &bought)), (127, 69));
            assert_eq!(count("opens_session: true", &out.steps) as u64, sessions);
            let left: usize = out.sessions.iter().map(|session| session.matches("LeftInCart {").count()).sum();
            assert_eq!(left, 58);
            let with_cause = out.headers.iter().filter(|h| h.contains("sent-at")).count();
            assert_eq!(with_cause as u64, sessions + steps.iter().sum::<u64>());
        }
    }
}

/// Stopped anywhere, by dropping everything, the process's whole broker included.
#[test]
fn a_restart_in_the_middle_changes_nothing() {
    let whole = {
        let world = World::new();
        world.write(&sample(), Format::Protobuf);
        run_to_the_end(&world, &*world.broker(), &settings(Rules::default())).unwrap();
        world.outputs()
    };
    let mut world = World::new();
    let mut recovered = 0;
    for (n, part) in sample().chunks(2_500).enumerate() {
        world.write(part, Format::Protobuf);
        // Small transactions, so that commits fall everywhere.
        let settings = Settings { transaction_records: 1 + n * 100, ..settings(Rules::default()) };
        recovered += run_to_the_end(&world, &*world.broker(), &settings).unwrap().recovered_records;
        world.reopen();
    }
    assert!(recovered > 1000, "{recovered}");
    let out = world.outputs();
    assert_eq!((out.steps.len(), out.sessions.len()), (12_633, 5_067));
    assert_eq!(out, whole);
}

/// Transactions that are lost before or after they took effect, and appends that fail.
#[test]
fn lost_transactions_are_done_again() {
    let expected = {
        let world = World::new();
        world.write(&sample(), Format::Protobuf);
        run_to_the_end(&world, &*world.broker(), &settings(Rules::default())).unwrap();
        world.outputs()
    };
    let world = World::new();
    world.write(&sample(), Format::Protobuf);
    let flaky = Flaky { inner: world.broker(), faults: Arc::new(Faults { are_on: true, ..Faults::default() }) };
    let settings = Settings { transaction_records: 200, ..settings(Rules::default()) };
    let report = run_to_the_end(&world, &flaky, &settings).unwrap();
    let failed = flaky.faults.failed.lock().unwrap().clone();
    assert!(failed.len() > 8, "{failed:?}");
    for what in ["after commit", "append", "describe", "writer"] {
        assert!(failed.contains(&what), "{what}: {failed:?}");
    }
    assert_eq!(report.failed_transactions, failed.len() as u64);
    assert!(report.recovered_records > 0);
    assert_eq!(world.outputs(), expected);
}

/// A commit that does not end before more was read: without that it waits in vain.
#[test]
fn what_comes_while_a_transaction_is_committed_is_taken_in() {
    let world = World::new();
    world.write(&sample(), Format::Protobuf);
    let faults = Faults { commit_waits: AtomicBool::new(true), ..Faults::default() };
    let watched = Flaky { inner: world.broker(), faults: Arc::new(faults) };
    let settings = Settings { transaction_records: 200, ..settings(Rules::default()) };
    let report = run_to_the_end(&world, &watched, &settings).unwrap();
    assert!(!watched.faults.commit_waits.load(Ordering::Relaxed), "nothing was read meanwhile");
    assert_eq!((report.events, report.failed_transactions), (17_434, 0));
}

#[test]
fn partitions_move_between_members() {
    let world = World::new();
    let sample = sample();
    let (broker, cancels) = (world.broker(), [Cancel::new(), Cancel::new()]);
    let members = ["a", "b"].map(|instance| Settings { instance: instance.into(), ..settings(Rules::default()) });
    let metrics = [(); 2].map(|()| Metrics::register(&Registry::new()).unwrap());
    std::thread::scope(|scope| {
        let member = |n: usize| {
            let (broker, settings, metrics, cancel) = (&broker, &members[n], &metrics[n], &cancels[n]);
            scope.spawn(move || run(&**broker, settings, metrics, cancel).unwrap())
        };
        let caught_up = || while !world.caught_up(&members[0].group()) && !cancels[0].wait(Duration::from_millis(5)) {};
        let first = member(0);
        world.write(&sample[..6_000], Format::Protobuf);
        caught_up();
        let second = member(1);
        world.write(&sample[6_000..12_000], Format::Protobuf);
        caught_up();
        cancels[1].cancel();
        let second = second.join().unwrap();
        world.write(&sample[12_000..], Format::Protobuf);
        caught_up();
        cancels[0].cancel();
        let first = first.join().unwrap();
        assert_eq!(first.sessions + second.sessions, 5_067);
        assert_eq!(first.events + second.events, 17_434);
    });
    let out = world.outputs();
    assert_eq!((out.steps.len(), out.sessions.len()), (12_633, 5_067));
}

#[test]
fn unreadable_messages_are_dead_letters_once() {
    let mut world = World::new();
    world.write(&sample()[..100], Format::Protobuf);
    let long = vec![0xff; 70_000];
    world.write_raw(&[
        ("", &long),
        ("application/json", br#"{"source":"000000ab","eventType":"VIEW","priceCents":"-4"}"#),
    ]);
    world.write(&sample()[100..], Format::Protobuf);
    let settings = settings(Rules::default());
    let report = run_to_the_end(&world, &*world.broker(), &settings).unwrap();
    assert_eq!((report.events, report.dead_letters, report.sessions), (17_434, 2, 5_067));
    world.reopen();
    run_to_the_end(&world, &*world.broker(), &settings).unwrap();
    let letters = world.dead_letters();
    let seen: Vec<_> = letters.iter().map(|l| (l.key.as_str(), l.payload.len(), l.payload_length)).collect();
    assert_eq!(seen, [("", 65_536, 70_000), ("000000ab", 58, 58)]);
    assert!(letters[0].reason.contains("is not a Event"), "{}", letters[0].reason);
    assert!(letters[1].reason.contains("price_cents"), "{}", letters[1].reason);
    assert!(letters.iter().all(|l| l.topic == "clickstream.events" && l.at_ms > 1_600_000_000_000));
}

#[test]
fn other_settings_are_refused_with_the_remedy() {
    let world = World::new();
    world.write(&sample()[..2_000], Format::Protobuf);
    run_to_the_end(&world, &*world.broker(), &settings(Rules::default())).unwrap();
    for (rules, expected) in [
        (Rules { gap: Gap::After(Duration::from_secs(600)), ..Rules::default() }, "--gap 30m"),
        (Rules { allowed_lateness: Duration::from_secs(5), ..Rules::default() }, "--allowed-lateness 0s"),
    ] {
        let error =
            run(&*world.broker(), &settings(rules), &Metrics::register(&Registry::new()).unwrap(), &Cancel::new());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = run(
        &*world.broker(),
        &Settings { prefix: "other.".into(), ..Settings::default() },
        &Metrics::register(&Registry::new()).unwrap(),
        &Cancel::new(),
    );
    assert!(error.unwrap_err().to_string().contains("topics create"));
}

/// Watermarks alone close sessions; each moves the position.
#[test]
fn metrics_say_what_was_committed() {
    let world = World::new();
    world.write(&sample()[..3_000], Format::Protobuf);
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let (cancel, settings, broker) = (Cancel::new(), settings(Rules::default()), world.broker());
    std::thread::scope(|scope| {
        let run = scope.spawn(|| run(&*broker, &settings, &metrics, &cancel));
        let caught_up = || while !world.caught_up(&settings.group()) && !cancel.wait(Duration::from_millis(5)) {};
        caught_up();
        let open = metrics.status.open_sessions.load(Ordering::Relaxed);
        assert!(open > 0);
        let clock = EventTime(metrics.status.clock_us.load(Ordering::Relaxed) + 3_600_000_000);
        world.write(&[EventsRecord::Watermark(Mark { feed: feed(), clock })], Format::Protobuf);
        caught_up();
        cancel.cancel();
        assert_eq!(run.join().unwrap().unwrap().events, 3_000);
    });
    let value = |name: &str| {
        let families = registry.gather();
        let family = families.iter().find(|f| f.name() == format!("clickstream_sessionizer_{name}"));
        let family = family.unwrap_or_else(|| panic!("no {name}"));
        family.get_metric().iter().map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum::<f64>()
    };
    let out = world.outputs();
    assert_eq!(value("events_total"), 3_000.0);
    assert_eq!(value("steps_total"), out.steps.len() as f64);
    assert_eq!(value("sessions_total"), out.sessions.len() as f64);
    assert_eq!(value("open_sessions"), 0.0);
    for name in [
        "late_events_total",
        "dead_letters_total",
        "finished_feeds_total",
        "recovered_records_total",
        "failed_transactions_total",
        "recovery_reach_records",
        "recovery_reach_seconds",
        "transaction_seconds",
    ] {
        assert_eq!(value(name), 0.0, "{name}");
    }
}

/// A broker that fails now and then: at an append, at a commit, or after one took effect; when a
/// partition is taken up, and when a writer is made anew.
struct Flaky {
    inner: Arc<dyn Broker>,
    faults: Arc<Faults>,
}

const IN_A_ROW_MAX: u32 = 6;

#[derive(Default)]
struct Faults {
    are_on: bool,
    calls: AtomicU32,
    /// Without a commit in between.
    in_a_row: AtomicU32,
    failed: Mutex<Vec<&'static str>>,
    /// Batches that were read.
    read: Mutex<u64>,
    more: Condvar,
    /// A commit is to wait until a second one is read.
    commit_waits: AtomicBool,
}

impl Faults {
    /// Every so manieth call of all fails, where it is of this kind: fewer in a row than the part endures.
    fn fails(&self, every: u32, what: &'static str) -> bool {
        if !self.are_on {
            return false;
        }
        let is_due = self.calls.fetch_add(1, Ordering::Relaxed) % every == every - 1;
        let fails = is_due && self.in_a_row.load(Ordering::Relaxed) < IN_A_ROW_MAX;
        if fails {
            self.in_a_row.fetch_add(1, Ordering::Relaxed);
            self.failed.lock().unwrap().push(what);
        }
        fails
    }
}

/// Counts what it reads.
struct CountingReader {
    inner: Box<dyn Reader>,
    faults: Arc<Faults>,
}

impl Reader for CountingReader {
    fn poll(&mut self, limits: &PollLimits) -> broker::Result<Polled> {
        let polled = self.inner.poll(limits)?;
        if matches!(polled, Polled::Batch(_)) {
            *self.faults.read.lock().unwrap() += 1;
            self.faults.more.notify_all();
        }
        Ok(polled)
    }
    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> broker::Result<()> {
        self.inner.seek(partition, offset)
    }
    fn commit(&mut self, commits: &[Commit]) -> broker::Result<()> {
        self.inner.commit(commits)
    }
    fn release(&mut self) -> broker::Result<()> {
        self.inner.release()
    }
    fn membership(&self) -> Option<Membership> {
        self.inner.membership()
    }
    fn leave(&mut self) -> broker::Result<()> {
        self.inner.leave()
    }
}

struct FlakyWriter {
    inner: Box<dyn Writer>,
    faults: Arc<Faults>,
}

impl Writer for FlakyWriter {
    fn wait_for_room(&mut self, cancel: &Cancel) -> broker::Result<()> {
        self.inner.wait_for_room(cancel)
    }
    fn wait_for_readers(&mut self, cancel: &Cancel) -> broker::Result<()> {
        self.inner.wait_for_readers(cancel)
    }
    fn begin(&mut self) -> broker::Result<()> {
        self.inner.begin()
    }
    fn append(&mut self, topic: &Topic, partition: u32, records: &Records) -> broker::Result<()> {
        if self.faults.fails(31, "append") {
            return Err(broker::Error::Retry("append".into()));
        }
        self.inner.append(topic, partition, records)
    }
    fn commit_offsets(&mut self, membership: &Membership, commits: &[Commit]) -> broker::Result<()> {
        self.inner.commit_offsets(membership, commits)
    }
    fn commit(&mut self) -> broker::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(20);
        if self.faults.commit_waits.load(Ordering::Relaxed) {
            let read = self.faults.read.lock().unwrap();
            // The first makes a transaction.
            let waited = self.faults.more.wait_timeout_while(read, PATIENCE, |read| *read < 2).unwrap();
            self.faults.commit_waits.store(waited.1.timed_out(), Ordering::Relaxed);
        }
        if self.faults.fails(7, "before commit") {
            return Err(broker::Error::Abort("before commit".into()));
        }
        self.inner.commit()?;
        if self.faults.fails(5, "after commit") {
            return Err(broker::Error::Abort("after commit".into()));
        }
        self.faults.in_a_row.store(0, Ordering::Relaxed);
        Ok(())
    }
    fn abort(&mut self) -> broker::Result<()> {
        self.inner.abort()
    }
}

impl Broker for Flaky {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn create_topics(&self, topics: &[TopicSpec]) -> broker::Result<()> {
        self.inner.create_topics(topics)
    }
    fn describe(&self, topic: &Topic) -> broker::Result<Option<TopicInfo>> {
        if topic.as_str().ends_with("sessions") && self.faults.fails(23, "describe") {
            return Err(broker::Error::Retry("describe".into()));
        }
        self.inner.describe(topic)
    }
    fn register_group(&self, group: &str, topics: &[Topic]) -> broker::Result<Vec<(TopicPartition, u64)>> {
        self.inner.register_group(group, topics)
    }
    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> broker::Result<Vec<Option<Committed>>> {
        self.inner.committed(group, partitions)
    }
    fn writer(&self, transactional_id: &str) -> broker::Result<Box<dyn Writer>> {
        if self.faults.calls.load(Ordering::Relaxed) > 0 && self.faults.fails(3, "writer") {
            return Err(broker::Error::Retry("writer".into()));
        }
        let inner = self.inner.writer(transactional_id)?;
        Ok(Box::new(FlakyWriter { inner, faults: Arc::clone(&self.faults) }))
    }
    fn subscribe(&self, subscription: &Subscription) -> broker::Result<Box<dyn Reader>> {
        let inner = self.inner.subscribe(subscription)?;
        Ok(Box::new(CountingReader { inner, faults: Arc::clone(&self.faults) }))
    }
    fn assign(&self, group: Option<&str>, partitions: &[(TopicPartition, Offset)]) -> broker::Result<Box<dyn Reader>> {
        self.inner.assign(group, partitions)
    }
}
