//! The backend on a real Apache Kafka: the conformance suite, and what only Kafka has.
//!
//! CLICKSTREAM_KAFKA names the broker (`scripts/kafka start` prints it). Without it these tests say
//! that they were skipped; under CI they fail.
#![cfg(all(feature = "kafka", feature = "conformance"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod sharing;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use broker::kafka::{Kafka, Settings};
use broker::{
    Assigned, Broker, Cancel, Cleanup, Commit, Error, Offset, PollLimits, Polled, Reader, Records, Subscription, Topic,
    TopicPartition, TopicSpec, Writer,
};

const LIMITS: PollLimits = PollLimits { records: 10_000, bytes: 4 << 20, timeout: Duration::from_millis(50) };
/// With the time of a poll: a minute and a half, on a busy machine.
const POLLS_MAX: u32 = 1_800;

/// Where the broker is; None says to skip.
fn address() -> Option<String> {
    let address = std::env::var("CLICKSTREAM_KAFKA").ok().filter(|address| !address.is_empty());
    if address.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "CLICKSTREAM_KAFKA names no broker; `scripts/kafka start` starts one"
        );
        eprintln!("SKIPPED: CLICKSTREAM_KAFKA names no broker; `scripts/kafka start` starts one");
    }
    address
}

fn settings(address: &str) -> Settings {
    // What is appended is sent at once, so that what is aborted was in the log.
    let properties = [("linger.ms".to_owned(), "0".to_owned())].into();
    // The least that a broker takes by default: what waits for a session to expire is over soon.
    Settings { session_timeout: Duration::from_secs(6), properties, ..Settings::new(address) }
}

fn unique(name: &str) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    format!("kafka-{name}-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

fn topic(broker: &dyn Broker, partitions: u32) -> Topic {
    let topic: Topic = unique("topic").as_str().into();
    broker.create_topics(&[TopicSpec { topic: topic.clone(), partitions, cleanup: Cleanup::Delete }]).unwrap();
    topic
}

fn records<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Records {
    let mut records = Records::new();
    for value in values {
        records.push(1_000, b"key", &[], |out| out.extend_from_slice(value.as_ref()));
    }
    records
}

fn write(writer: &mut dyn Writer, topic: &Topic, partition: u32, values: &[&str]) {
    writer.begin().unwrap();
    writer.append(topic, partition, &records(values)).unwrap();
    writer.commit().unwrap();
}

fn subscribe(broker: &dyn Broker, group: &str, instance: &str, topic: &Topic) -> Box<dyn Reader> {
    let (group, instance) = (group.to_owned(), instance.to_owned());
    broker.subscribe(&Subscription { group, instance, topics: vec![topic.clone()] }).unwrap()
}

fn poll_until<T>(reader: &mut dyn Reader, what: &str, mut done: impl FnMut(Polled) -> Option<T>) -> T {
    for _ in 0..POLLS_MAX {
        if let Some(done) = done(reader.poll(&LIMITS).unwrap()) {
            return done;
        }
    }
    panic!("{what} did not come");
}

fn assigned(reader: &mut dyn Reader) -> Vec<Assigned> {
    poll_until(reader, "an assignment", |polled| match polled {
        Polled::Assigned(assigned) if !assigned.is_empty() => Some(assigned),
        _ => None,
    })
}

/// All values of a partition, up to where its log ends now.
fn values(broker: &dyn Broker, topic: &Topic, partition: u32) -> Vec<String> {
    let bounds = broker.describe(topic).unwrap().unwrap().partitions[partition as usize];
    let mut reader = broker.assign(None, &[(TopicPartition::new(topic, partition), bounds.start)]).unwrap();
    let (mut values, mut next) = (Vec::new(), bounds.start);
    while next < bounds.end {
        poll_until(&mut *reader, "the end", |polled| {
            let Polled::Batch(batch) = polled else { return None };
            values.extend(batch.iter().map(|record| String::from_utf8(record.value.to_vec()).unwrap()));
            next = batch.next_offset().unwrap();
            Some(())
        });
    }
    values
}

fn commit_at(partition: &TopicPartition, offset: Offset) -> Commit {
    Commit { partition: partition.clone(), offset, keep_from: offset, metadata: "m".to_owned() }
}

#[test]
fn conformance() {
    let Some(address) = address() else { return };
    broker::conformance::run_all(&|| Kafka::connect(settings(&address)).unwrap());
    let lingering = Settings { properties: Default::default(), ..settings(&address) };
    broker::conformance::run_all(&|| Kafka::connect(lingering.clone()).unwrap());
}

#[test]
fn topics_are_made_as_they_must_be() {
    let Some(address) = address() else { return };
    let broker = Kafka::connect(settings(&address)).unwrap();
    for cleanup in [Cleanup::Delete, Cleanup::Compact] {
        let spec = TopicSpec { topic: unique("topic").as_str().into(), partitions: 3, cleanup };
        assert!(broker.faults_of_topics(std::slice::from_ref(&spec)).unwrap()[0].contains("missing"));
        broker.create_topics(std::slice::from_ref(&spec)).unwrap();
        assert_eq!(broker.faults_of_topics(std::slice::from_ref(&spec)).unwrap(), [] as [String; 0]);
        let other = TopicSpec { partitions: 4, cleanup: Cleanup::Bounded { bytes: 1 }, ..spec };
        let faults = broker.faults_of_topics(&[other]).unwrap();
        assert_eq!(faults.len(), if cleanup == Cleanup::Delete { 1 } else { 2 }, "{faults:?}");
    }
}

#[test]
fn no_broker_is_said_and_wrong_settings_are_refused() {
    // Nothing listens on the discard port.
    let none = Kafka::connect(Settings::new("127.0.0.1:9"));
    assert!(matches!(none, Err(Error::Retry(ref why)) if why.contains("127.0.0.1:9")));
    let mut wrong = Settings::new("127.0.0.1:9");
    wrong.properties.insert("no.such.property".to_owned(), "1".to_owned());
    assert!(matches!(Kafka::connect(wrong), Err(Error::Stop(why)) if why.contains("no.such.property")));
}

#[test]
fn the_end_is_found_behind_what_cannot_be_read() {
    let Some(address) = address() else { return };
    let broker = Kafka::connect(settings(&address)).unwrap();
    let topic = topic(&*broker, 1);
    let end = |broker: &Kafka| broker.describe(&topic).unwrap().unwrap().partitions[0];
    assert_eq!(end(&broker).start, end(&broker).end, "nothing is there");
    let mut writer = broker.writer(&unique("writer")).unwrap();
    let abort = |writer: &mut dyn Writer, times: usize| {
        for _ in 0..times {
            writer.begin().unwrap();
            writer.append(&topic, 0, &records(["aborted"; 10])).unwrap();
            writer.abort().unwrap();
        }
    };
    abort(&mut *writer, 3);
    assert_eq!(end(&broker).start, end(&broker).end, "nothing readable is there");
    write(&mut *writer, &topic, 0, &["1", "2"]);
    let expected = end(&broker);
    abort(&mut *writer, 30);
    assert_eq!(end(&broker), expected, "with what was known");
    assert_eq!(end(&Kafka::connect(settings(&address)).unwrap()), expected, "from nothing");
    // What is open counts no more than what is aborted.
    writer.begin().unwrap();
    writer.append(&topic, 0, &records(["open"])).unwrap();
    assert_eq!(end(&Kafka::connect(settings(&address)).unwrap()), expected);
    writer.commit().unwrap();
    assert!(end(&broker).end > expected.end);
    assert_eq!(values(&*broker, &topic, 0), ["1", "2", "open"]);
}

#[test]
fn leaving_hands_over_at_once() {
    let Some(address) = address() else { return };
    // A session so long that nothing here can wait for its end.
    let long = Settings { session_timeout: Duration::from_secs(300), ..Settings::new(&address) };
    let broker = Kafka::connect(long).unwrap();
    let (topic, group) = (topic(&*broker, 2), unique("group"));
    // One that leaves during a rebalance may have its share for a moment yet.
    let gets_all = |reader: &mut dyn Reader| {
        for _ in 0..POLLS_MAX {
            match reader.poll(&LIMITS).unwrap() {
                Polled::Assigned(assigned) if assigned.len() == 2 => return,
                Polled::Revoked(_) => reader.release().unwrap(),
                _ => {}
            }
        }
        panic!("it did not get all partitions");
    };
    let mut first = subscribe(&*broker, &group, "first", &topic);
    gets_all(&mut *first);
    first.leave().unwrap();
    assert!(matches!(first.poll(&LIMITS), Err(Error::Fenced(_))), "it is no member any more");
    let mut second = subscribe(&*broker, &group, "second", &topic);
    gets_all(&mut *second);
    // Nor does it matter that a rebalance is under way.
    let third = subscribe(&*broker, &group, "third", &topic);
    poll_until(&mut *second, "a revocation", |polled| matches!(polled, Polled::Revoked(_)).then_some(()));
    drop(second);
    let mut third = third;
    gets_all(&mut *third);
    // Nor that it has not begun to read.
    drop(third);
    let mut fourth = subscribe(&*broker, &group, "fourth", &topic);
    gets_all(&mut *fourth);
    drop(fourth);
    let mut fifth = subscribe(&*broker, &group, "fifth", &topic);
    gets_all(&mut *fifth);
    fifth.poll(&LIMITS).unwrap();
    drop(fifth);
    gets_all(&mut *subscribe(&*broker, &group, "sixth", &topic));
}

#[test]
fn a_restarted_instance_goes_on_without_a_rebalance() {
    let Some(address) = address() else { return };
    let long = Settings { session_timeout: Duration::from_secs(300), ..Settings::new(&address) };
    let broker = Kafka::connect(long).unwrap();
    let (topic, group) = (topic(&*broker, 2), unique("group"));
    let mut other = subscribe(&*broker, &group, "other", &topic);
    assert_eq!(assigned(&mut *other).len(), 2);
    let mut killed = subscribe(&*broker, &group, "killed", &topic);
    let mut shares = 0;
    while shares < 2 {
        match other.poll(&LIMITS).unwrap() {
            Polled::Revoked(_) => other.release().unwrap(),
            Polled::Assigned(assigned) if assigned.len() == 1 => shares += 1,
            _ => {}
        }
        shares += u32::from(matches!(killed.poll(&LIMITS).unwrap(), Polled::Assigned(assigned) if assigned.len() == 1));
    }
    // As a killed process: no goodbye.
    std::mem::forget(killed);
    let mut again = subscribe(&*broker, &group, "killed", &topic);
    assert_eq!(assigned(&mut *again).len(), 1);
    for _ in 0..20 {
        assert!(matches!(other.poll(&LIMITS).unwrap(), Polled::Idle), "the other is left alone");
    }
}

#[test]
fn a_rebalance_in_the_middle_of_a_transaction() {
    let Some(address) = address() else { return };
    for finish in [true, false] {
        let broker = Kafka::connect(settings(&address)).unwrap();
        let (input, output, group) = (topic(&*broker, 1), topic(&*broker, 1), unique("group"));
        write(&mut *broker.writer(&unique("producer")).unwrap(), &input, 0, &["1", "2"]);
        let partition = TopicPartition::new(&input, 0);
        let mut first = subscribe(&*broker, &group, "first", &input);
        assigned(&mut *first);
        let end = poll_until(&mut *first, "the input", |polled| match polled {
            Polled::Batch(batch) => batch.next_offset(),
            _ => None,
        });
        let mut writer = broker.writer(&unique("writer")).unwrap();
        writer.begin().unwrap();
        writer.append(&output, 0, &records(["first"])).unwrap();
        // The other comes while the transaction is open.
        let mut second = subscribe(&*broker, &group, "second", &input);
        poll_until(&mut *first, "a revocation", |polled| matches!(polled, Polled::Revoked(_)).then_some(()));
        assert!(matches!(second.poll(&LIMITS).unwrap(), Polled::Idle), "not before it was released");
        let membership = first.membership().unwrap();
        if finish {
            writer.commit_offsets(&membership, &[commit_at(&partition, end)]).unwrap();
            writer.commit().unwrap();
        }
        first.release().unwrap();
        // One of the two gets the partition.
        let (mut owned, mut of_first) = (None, false);
        for _ in 0..POLLS_MAX {
            for (reader, is_first) in [(&mut first, true), (&mut second, false)] {
                if let Polled::Assigned(assigned) = reader.poll(&LIMITS).unwrap()
                    && let Some(assigned) = assigned.into_iter().next()
                {
                    (owned, of_first) = (Some(assigned), is_first);
                }
            }
            if owned.is_some() {
                break;
            }
        }
        let owned = owned.expect("the partition is assigned again");
        if finish {
            assert_eq!(
                owned.committed.map(|committed| committed.offset),
                Some(end),
                "the next owner goes on from there"
            );
            assert_eq!(values(&*broker, &output, 0), ["first"]);
        } else {
            // Too late: the generation in which it was read is over.
            writer.commit_offsets(&membership, &[commit_at(&partition, end)]).unwrap();
            let late = writer.commit();
            assert!(matches!(late, Err(Error::Abort(_))), "{late:?} (again with the first: {of_first})");
            assert_eq!(owned.committed, None);
            assert_eq!(values(&*broker, &output, 0), [] as [&str; 0]);
            // The writer itself is sound.
            write(&mut *writer, &output, 0, &["again"]);
            assert_eq!(values(&*broker, &output, 0), ["again"]);
        }
    }
}

#[test]
fn a_transaction_that_is_open_too_long_is_lost_whole() {
    let Some(address) = address() else { return };
    let hasty = Settings { transaction_timeout: Duration::from_secs(2), ..settings(&address) };
    let broker = Kafka::connect(hasty).unwrap();
    let topic = topic(&*broker, 1);
    let mut writer = broker.writer(&unique("writer")).unwrap();
    writer.begin().unwrap();
    writer.append(&topic, 0, &records(["lost"])).unwrap();
    // It holds this reader until the broker aborts it.
    let mut other = broker.writer(&unique("other")).unwrap();
    write(&mut *other, &topic, 0, &["kept"]);
    let start = Offset(0);
    let mut reader = broker.assign(None, &[(TopicPartition::new(&topic, 0), start)]).unwrap();
    poll_until(&mut *reader, "what comes after it", |polled| matches!(polled, Polled::Batch(_)).then_some(()));
    let lost = writer.commit();
    eprintln!("a transaction that timed out: {lost:?}");
    assert!(matches!(lost, Err(Error::Fenced(_) | Error::Abort(_))), "{lost:?}");
    let _ = writer.abort();
    assert_eq!(values(&*broker, &topic, 0), ["kept"]);
}

#[test]
fn a_transaction_of_more_than_the_queue_holds_does_not_wait_for_it_to_linger() {
    let Some(address) = address() else { return };
    let mut narrow = Settings { transaction_timeout: Duration::from_secs(120), ..settings(&address) };
    // Nothing of it is a full batch, and what lingers would do so for longer than an append waits.
    for (name, value) in [("linger.ms", "60000"), ("queue.buffering.max.messages", "1000")] {
        narrow.properties.insert(name.to_owned(), value.to_owned());
    }
    let broker = Kafka::connect(narrow).unwrap();
    let topic = topic(&*broker, 2);
    let mut writer = broker.writer(&unique("writer")).unwrap();
    writer.begin().unwrap();
    let written: Vec<String> = (0..2_500).map(|i| i.to_string()).collect();
    for partition in [0, 1] {
        writer.append(&topic, partition, &records(&written)).unwrap();
    }
    writer.commit().unwrap();
    for partition in [0, 1] {
        assert_eq!(values(&*broker, &topic, partition), written);
    }
}

/// A cluster of one test's own.
struct Own {
    dir: tempfile::TempDir,
    port: u16,
}

impl Own {
    fn script(&self, command: &str, more: &[&str]) -> Command {
        let mut script = Command::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka"));
        script.arg(command).arg("--port").arg(self.port.to_string()).arg("--dir").arg(self.dir.path()).args(more);
        script
    }

    fn run(&self, command: &str, more: &[&str]) {
        let done = self.script(command, more).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// One node, on a port that is free now.
    fn start() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let own = Self { dir: tempfile::tempdir().unwrap(), port: free };
        own.run("start", &[]);
        own
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.script("kill", &[]).output();
    }
}

/// Writes numbers one a transaction, as a part does, while `disturb` is called again and again; in
/// the end each must be there once, in order.
fn write_through(address: &str, mut disturb: impl FnMut()) {
    const TRANSACTIONS: usize = 600;
    const ROUNDS: u32 = 3;
    let broker = Kafka::connect(settings(address)).unwrap();
    let topic = topic(&*broker, 1);
    let id = unique("writer");
    let stopped = AtomicBool::new(false);
    let errors = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let pause = Cancel::new();
            let mut errors = Vec::new();
            let mut written = 0;
            let mut writer: Option<Box<dyn Writer>> = None;
            // On a fast machine too there is something to write until the last disturbance.
            while written < TRANSACTIONS || !stopped.load(Ordering::Relaxed) {
                // A new writer settles what became of the old one's transaction, and what is in the
                // log says where to go on.
                let mut attempt = || -> broker::Result<()> {
                    let writer = match &mut writer {
                        Some(writer) => writer,
                        none => {
                            let new = none.insert(broker.writer(&id)?);
                            written = values_or_retry(&*broker, &topic)?;
                            new
                        }
                    };
                    writer.begin()?;
                    writer.append(&topic, 0, &records([written.to_string()]))?;
                    writer.commit()
                };
                match attempt() {
                    Ok(()) => written += 1,
                    Err(error) => {
                        assert!(!matches!(error, Error::Stop(_)), "{error}");
                        errors.push(error.to_string());
                        writer = None;
                        pause.wait(Duration::from_millis(50));
                    }
                }
                pause.wait(Duration::from_millis(5));
            }
            (written, errors)
        });
        let pause = Cancel::new();
        for _ in 0..ROUNDS {
            pause.wait(Duration::from_secs(1));
            disturb();
        }
        stopped.store(true, Ordering::Relaxed);
        writing.join().unwrap()
    });
    let (written, errors) = errors;
    eprintln!("{written} transactions; errors met: {errors:#?}");
    let expected: Vec<String> = (0..written).map(|i| i.to_string()).collect();
    assert_eq!(values(&*broker, &topic, 0), expected);
}

#[test]
fn nothing_is_lost_or_repeated_when_the_broker_is_killed() {
    if address().is_none() {
        return;
    }
    let own = Own::start();
    write_through(&format!("127.0.0.1:{}", own.port), || {
        own.run("kill", &[]);
        own.run("start", &[]);
    });
}

/// How many values the log holds.
fn values_or_retry(broker: &dyn Broker, topic: &Topic) -> broker::Result<usize> {
    let info = broker.describe(topic)?.ok_or_else(|| Error::Retry("the topic is not to be seen".to_owned()))?;
    let bounds = info.partitions[0];
    if bounds.start == bounds.end {
        return Ok(0);
    }
    let mut reader = broker.assign(None, &[(TopicPartition::new(topic, 0), bounds.start)])?;
    let (mut count, mut idle) = (0, 0);
    loop {
        match reader.poll(&LIMITS)? {
            Polled::Batch(batch) => {
                count += batch.len();
                if batch.next_offset() >= Some(bounds.end) {
                    return Ok(count);
                }
            }
            _ => idle += 1,
        }
        if idle > POLLS_MAX {
            return Err(Error::Retry("the log cannot be read".to_owned()));
        }
    }
}

/// Kafka's own tool, for what the port has no word for.
fn tool(arguments: &[&str]) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka");
    let done = Command::new(script).arg("tool").args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_topic_made_again_is_another_and_old_positions_are_refused() {
    let Some(address) = address() else { return };
    let broker = Kafka::connect(settings(&address)).unwrap();
    let topic = topic(&*broker, 1);
    let partition = TopicPartition::new(&topic, 0);
    write(&mut *broker.writer(&unique("writer")).unwrap(), &topic, 0, &["1", "2", "3"]);
    let before = broker.describe(&topic).unwrap().unwrap();
    let group = unique("group");
    let mut reader = broker.assign(Some(&group), &[(partition.clone(), Offset(0))]).unwrap();
    reader.commit(&[commit_at(&partition, Offset(3))]).unwrap();
    drop(reader);
    tool(&["TopicCommand", "--bootstrap-server", &address, "--delete", "--topic", topic.as_str()]);
    let spec = TopicSpec { topic: topic.clone(), partitions: 1, cleanup: Cleanup::Delete };
    // Gone first, and then to be made.
    for _ in 0..200 {
        if broker.describe(&topic).unwrap().is_none() {
            break;
        }
        Cancel::new().wait(Duration::from_millis(50));
    }
    broker.create_topics(&[spec]).unwrap();
    let after = broker.describe(&topic).unwrap().unwrap();
    assert_ne!(before.incarnation, after.incarnation);
    assert_eq!(after.partitions[0].start, after.partitions[0].end, "what was known of the old one is of no use");
    let Err(Error::Stop(why)) = broker.assign(None, &[(partition.clone(), Offset(3))]) else { panic!("refused") };
    assert!(why.contains("outside the log"), "{why}");
    // Kafka forgets a group's offsets with the topic; a member is told both ids to compare.
    let mut member = subscribe(&*broker, &group, "member", &topic);
    assert_eq!(assigned(&mut *member)[0].incarnation, after.incarnation);
}

#[test]
fn a_position_behind_the_log_stops_the_reader() {
    let Some(address) = address() else { return };
    let broker = Kafka::connect(settings(&address)).unwrap();
    let (topic, group) = (topic(&*broker, 1), unique("group"));
    let partition = TopicPartition::new(&topic, 0);
    write(&mut *broker.writer(&unique("writer")).unwrap(), &topic, 0, &["1"]);
    let mut reader = broker.assign(Some(&group), &[(partition.clone(), Offset(0))]).unwrap();
    reader.commit(&[commit_at(&partition, Offset(1_000))]).unwrap();
    drop(reader);
    let mut member = subscribe(&*broker, &group, "member", &topic);
    let at = assigned(&mut *member).remove(0);
    assert!(at.committed.unwrap().offset > at.bounds.end);
    let stopped = (0..POLLS_MAX).find_map(|_| member.poll(&LIMITS).err());
    let Some(Error::Stop(why)) = stopped else { panic!("it has to stop: {stopped:?}") };
    assert!(why.contains(&partition.to_string()) && why.contains("1000"), "{why}");
}
