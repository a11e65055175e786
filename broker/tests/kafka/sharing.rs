//! What the readers of one process share: what is fetched, and what its writers have committed.
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use broker::kafka::{Kafka, Settings};
use broker::{Batch, Broker, Offset, Polled, Reader, Records, Topic, TopicPartition, Writer};

use super::{LIMITS, address, assigned, poll_until, records, settings, subscribe, topic, unique, write};

/// Where records lie in memory, in their order: readers that share what is fetched have them at the same
/// place, while it is held.
#[derive(Default)]
struct Places(Vec<usize>, Vec<Batch>);

/// Reads up to record `last`, each in its order.
fn read_numbers(reader: &mut dyn Reader, next: &mut u32, last: u32) -> Places {
    let mut places = Places::default();
    while *next <= last {
        poll_until(reader, "a record", |polled| {
            let Polled::Batch(batch) = polled else { return None };
            for record in batch.iter() {
                let number = u32::from_be_bytes(record.value[..4].try_into().unwrap());
                assert_eq!(number, *next, "at {}", record.offset);
                places.0.push(record.value.as_ptr().addr());
                *next += 1;
            }
            places.1.push(batch);
            Some(())
        });
    }
    places
}

struct Trio {
    topic: Topic,
    writer: Box<dyn Writer>,
    written: u32,
    readers: [Box<dyn Reader>; 3],
    nexts: [u32; 3],
}

impl Trio {
    /// The last number written.
    fn write(&mut self, count: u32, bytes: usize) -> u32 {
        let value = |number: u32| [&number.to_be_bytes()[..], &vec![b'x'; bytes][..]].concat();
        // What is aborted nobody sees.
        self.writer.begin().unwrap();
        self.writer.append(&self.topic, 0, &records([value(u32::MAX)])).unwrap();
        self.writer.abort().unwrap();
        self.writer.begin().unwrap();
        let numbers = self.written..self.written + count;
        self.writer.append(&self.topic, 0, &records(numbers.map(value))).unwrap();
        self.writer.commit().unwrap();
        self.written += count;
        self.written - 1
    }

    fn read(&mut self, reader: usize, last: u32) -> Places {
        read_numbers(&mut *self.readers[reader], &mut self.nexts[reader], last)
    }

    fn until_shared(&mut self, when: &str) {
        for _ in 0..200 {
            let last = self.write(5, 10);
            let [a, b, c] = [0, 1, 2].map(|reader| self.read(reader, last));
            if a.0 == b.0 && b.0 == c.0 {
                return;
            }
        }
        panic!("{when}: each fetches for itself");
    }
}

/// Three readers of one process: what they read is fetched once; one that stalls holds nobody up, reads
/// all the same, and comes back to the others; one that seeks, or has its partition again, reads what it
/// is to read.
#[test]
fn what_several_read_is_fetched_once() {
    let Some(address) = address() else { return };
    let broker = Kafka::connect(settings(&address)).unwrap();
    let topic = topic(&*broker, 1);
    let partition = TopicPartition::new(&topic, 0);
    let group = unique("first");
    let of_group = |group: &str| {
        let mut reader = subscribe(&*broker, group, "instance", &topic);
        assigned(&mut *reader);
        reader
    };
    let third = broker.assign(Some(&unique("third")), &[(partition.clone(), Offset(0))]).unwrap();
    let readers = [of_group(&group), of_group(&unique("second")), third];
    let writer = broker.writer(&unique("writer")).unwrap();
    let mut trio = Trio { topic, writer, written: 0, readers, nexts: [0; 3] };
    trio.until_shared("at the beginning");

    // More than is held for one that is behind.
    let last = (0..25).map(|_| trio.write(20, 100_000)).last().unwrap();
    for reader in [0, 2, 1] {
        trio.read(reader, last);
    }
    trio.until_shared("after a stall");

    let behind = trio.nexts[2] - 3;
    let last = trio.write(1, 10);
    let start = broker.describe(&trio.topic).unwrap().unwrap().partitions[0].start;
    trio.readers[2].seek(&partition, start).unwrap();
    trio.nexts[2] = 0;
    trio.read(2, behind);
    trio.readers[2].seek(&partition, start).unwrap();
    trio.nexts[2] = 0;
    for reader in [0, 1, 2] {
        trio.read(reader, last);
    }
    trio.until_shared("after a seek");

    // Asked back, and had again: from the beginning, since nothing was committed.
    let mut other = subscribe(&*broker, &group, "another instance", &trio.topic);
    let mut is_revoked = false;
    while !is_revoked {
        let _ = other.poll(&LIMITS).unwrap();
        if let Polled::Revoked(revoked) = trio.readers[0].poll(&LIMITS).unwrap() {
            is_revoked = !revoked.is_empty();
            trio.readers[0].release().unwrap();
        }
    }
    other.leave().unwrap();
    assigned(&mut *trio.readers[0]);
    trio.nexts[0] = 0;
    let last = trio.write(1, 10);
    for reader in [0, 1, 2] {
        trio.read(reader, last);
    }
    trio.until_shared("after a rebalance");
}

/// A record as a reader has it: its place in the log, its timestamp, key, value and headers.
type Had = (i64, i64, Vec<u8>, Vec<u8>, Vec<(String, Vec<u8>)>);

/// Reads all records up to the last: what they are, and where their values lie in memory, while they are held.
fn read_whole(reader: &mut dyn Reader, is_last: impl Fn(&[Had]) -> bool) -> (Vec<Had>, Places) {
    let (mut had, mut places) = (Vec::new(), Places::default());
    while !is_last(&had) {
        poll_until(reader, "a record", |polled| {
            let Polled::Batch(batch) = polled else { return None };
            for record in batch.iter() {
                let headers = record.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                let (key, value) = (record.key.to_owned(), record.value.to_owned());
                had.push((record.offset.0, record.timestamp_ms, key, value, headers));
                places.0.push(record.value.as_ptr().addr());
            }
            places.1.push(batch);
            Some(())
        });
    }
    (had, places)
}

/// What a writer of this process commits its readers have from memory, just as it is in the log; what others
/// write there they have too, and the last of all, which nothing follows.
#[test]
fn what_is_committed_here_is_not_fetched() {
    const TRANSACTIONS: i64 = 90;
    const RECORDS: i64 = 2_000;
    let Some(address) = address() else { return };
    let [broker, other] =
        [Settings::new(&address), settings(&address)].map(|settings| Kafka::connect(settings).unwrap());
    let topic = topic(&*broker, 1);
    let from = [(TopicPartition::new(&topic, 0), Offset(0))];
    let mut readers = ["a", "b"].map(|name| broker.assign(Some(&unique(name)), &from).unwrap());
    let id = unique("other");
    let (mut own, mut foreign) = (broker.writer(&unique("own")).unwrap(), other.writer(&id).unwrap());
    // Of its transactions, in the middle: one that is committed in this one of ours, and one that is aborted
    // around it.
    let is_disturbed = |number: i64| (TRANSACTIONS / 3..TRANSACTIONS / 3 + 20).contains(&number);
    let disturbing = (0..TRANSACTIONS).filter(|number| is_disturbed(*number) && number % 2 == 0).count();
    let total = usize::try_from(TRANSACTIONS * RECORDS).unwrap() + disturbing;
    let is_last = |had: &[Had]| had.len() >= total;
    let mut written = Vec::new();
    let had = std::thread::scope(|scope| {
        let reading = readers.each_mut().map(|reader| scope.spawn(|| read_whole(&mut **reader, is_last)));
        for number in 0..TRANSACTIONS {
            let mut all = Records::new();
            for i in 0..RECORDS {
                let (header, key) = (number.to_be_bytes(), (i % 7).to_be_bytes());
                let headers: [(&str, &[u8]); 2] = [("content-type", b"x"), ("number", &header)];
                all.push(1 + i, &key, &headers, |out| out.extend_from_slice(&i.to_be_bytes()));
            }
            let value = |i| all.get(i, Offset(0)).value.as_ptr().addr();
            written.extend((0..all.len()).map(value));
            if is_disturbed(number) {
                // An abort may have cost it its writer.
                if foreign.begin().is_err() {
                    foreign = other.writer(&id).unwrap();
                    foreign.begin().unwrap();
                }
                foreign.append(&topic, 0, &records(["of another"])).unwrap();
            }
            own.begin().unwrap();
            own.append_taking(&topic, 0, &mut all).unwrap();
            own.commit().unwrap();
            match number % 2 {
                _ if !is_disturbed(number) => {}
                0 => foreign.commit().unwrap(),
                _ => foreign.abort().unwrap(),
            }
        }
        reading.map(|reading| reading.join().unwrap())
    });
    let (log, _) = read_whole(&mut *other.assign(None, &from).unwrap(), is_last);
    for (had, places) in had {
        assert!(had == log, "it is another log");
        let written: HashSet<_> = written.iter().collect();
        let from_memory = places.0.iter().filter(|place| written.contains(place)).count();
        assert!(from_memory > total / 2, "{from_memory} of {total} were had from memory");
    }
}

/// Another's records among those that were appended at once, which are sent in many batches here: the
/// readers of the process have all as it is in the log, and what stands in one piece from memory.
#[test]
fn another_writes_among_what_was_appended_at_once() {
    const TRANSACTIONS: i64 = 80;
    const RECORDS: i64 = 8_000;
    let Some(address) = address() else { return };
    let mut settings = settings(&address);
    let other = Kafka::connect(settings.clone()).unwrap();
    settings.properties.insert("batch.num.messages".to_owned(), "100".to_owned());
    let broker = Kafka::connect(settings).unwrap();
    let topic = topic(&*broker, 2);
    let from = [(TopicPartition::new(&topic, 0), Offset(0))];
    let mut readers = ["a", "b"].map(|name| broker.assign(Some(&unique(name)), &from).unwrap());
    let (mut own, mut foreign) = (broker.writer(&unique("own")).unwrap(), other.writer(&unique("other")).unwrap());
    let is_last = |had: &[Had]| had.last().is_some_and(|last| last.3 == b"the last");
    let mut written = HashSet::new();
    let had = std::thread::scope(|scope| {
        let reading = readers.each_mut().map(|reader| scope.spawn(|| read_whole(&mut **reader, is_last)));
        for number in 0..TRANSACTIONS {
            let mut all = Records::new();
            for i in 0..RECORDS {
                all.push(1 + i, b"own", &[("number", &number.to_be_bytes())], |out| out.extend_from_slice(b"v"));
            }
            written.extend((0..all.len()).map(|i| all.get(i, Offset(0)).value.as_ptr().addr()));
            let is_disturbed = number % 8 == 7;
            if is_disturbed {
                // Until the markers of this one are written, its next one is held up: ours comes first.
                write(&mut *foreign, &topic, 1, &["elsewhere"]);
            }
            own.begin().unwrap();
            own.append_taking(&topic, 0, &mut all).unwrap();
            if is_disturbed {
                write(&mut *foreign, &topic, 0, &["of another"]);
            }
            own.commit().unwrap();
        }
        write(&mut *own, &topic, 0, &["the last"]);
        reading.map(|reading| reading.join().unwrap())
    });
    let (log, _) = read_whole(&mut *other.assign(None, &from).unwrap(), is_last);
    for (had, places) in had {
        assert!(had == log, "it is another log");
        let from_memory = places.0.iter().filter(|place| written.contains(place)).count();
        assert!(from_memory > log.len() / 4, "{from_memory} of {} were had from memory", log.len());
    }
    let is_own = |had: &Had| had.2 == b"own";
    let among = log.windows(3).filter(|of| is_own(&of[0]) && !is_own(&of[1]) && is_own(&of[2]) && of[0].4 == of[2].4);
    assert!(among.count() > 0, "none was written among those of another");
}

/// What is read by several is taken up again whenever another comes for more, or goes: nothing stands still
/// with it. Busy threads make the moments differ.
#[test]
fn more_is_shared_while_it_is_being_read() {
    const PARTITIONS: u32 = 16;
    const ROUNDS: u32 = 40;
    let Some(address) = address() else { return };
    let broker = Kafka::connect(settings(&address)).unwrap();
    let topics = [topic(&*broker, PARTITIONS), topic(&*broker, 1)];
    let of = |topic: &Topic, count| (0..count).map(|n| (TopicPartition::new(topic, n), Offset(0))).collect::<Vec<_>>();
    let (some, more) = (of(&topics[0], PARTITIONS), of(&topics[1], 1));
    let all = [some.clone(), more].concat();
    let mut writer = broker.writer(&unique("writer")).unwrap();
    let mut write = || {
        writer.begin().unwrap();
        all.iter().for_each(|(at, _)| writer.append(&at.topic, at.partition, &records(["v"])).unwrap());
        writer.commit().unwrap();
    };
    let read = |reader: &mut dyn Reader, mut records: usize| {
        while records > 0 {
            records -= poll_until(reader, "a record", |polled| match polled {
                Polled::Batch(batch) => Some(batch.len()),
                _ => None,
            });
        }
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let _over = SetOnDrop(&is_over);
        let begin = |partitions| broker.assign(Some(&unique("group")), partitions).unwrap();
        let mut readers = [begin(&some), begin(&all)];
        for round in 1..=ROUNDS {
            write();
            read(&mut *readers[0], some.len());
            read(&mut *readers[1], all.len());
            read(&mut *begin(&all), all.len() * round as usize);
        }
    });
}

/// Set however it ends.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
