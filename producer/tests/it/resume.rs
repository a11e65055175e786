//! A replay that was stopped anywhere goes on as if it had not been.
use std::io::{self, Cursor, Read};
use std::time::Duration;

use producer::{Error, Input, Outcome, Pace, Settings, Stream};
use proptest::prelude::*;

use crate::forms::{gzip, zip};
use crate::world::{HEADER, Sent, What, World, csv, flat_out, memory, row};

/// The rows of each partition, in their order; watermarks aside, whose number depends on the clock.
fn rows(world: &World) -> Vec<Vec<What>> {
    let rows = |sent: Vec<Sent>| {
        sent.into_iter().map(|sent| sent.what).filter(|what| !matches!(what, What::Watermark(_))).collect()
    };
    world.sent().into_iter().map(rows).collect()
}

/// Two files, the first of them with a bad row.
fn texts() -> [String; 2] {
    let mut first = csv(0..150);
    first.push_str("bad\n\n");
    first.push_str(&row(150));
    [first, csv(151..260)]
}

fn inputs(form: usize) -> Vec<Input> {
    let [first, second] = texts();
    match form {
        0 => vec![memory("a.csv", first), memory("b.csv", second)],
        // Of several members, so that there is where to enter.
        1 => {
            let members: Vec<u8> = first.as_bytes().chunks(4000).flat_map(gzip).collect();
            vec![memory("a.csv.gz", members), memory("b.csv", second)]
        }
        2 => vec![
            memory("a.csv.zst", zstd::encode_all(first.as_bytes(), 1).unwrap()),
            memory("b.csv.gz", gzip(second.as_bytes())),
        ],
        _ => vec![memory("ab.zip", zip(&[("a.csv", &first), ("b.csv", &second)]))],
    }
}

/// A kill at a commit, as the replay sees it.
mod stopping {
    use broker::{
        Broker, Cancel, Commit, Committed, Error, Membership, Reader, Records, Result, Subscription, Topic, TopicInfo,
        TopicPartition, TopicSpec, Writer,
    };
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    /// A broker whose writers do so many commits and then fail, before or after the commit holds.
    pub(crate) struct Stopping<'b> {
        pub(crate) inner: &'b dyn Broker,
        pub(crate) left: Arc<AtomicI64>,
        pub(crate) after: bool,
        pub(crate) error: fn() -> Error,
        /// Where replay-progress was read from.
        pub(crate) progress_read: std::sync::Mutex<Vec<broker::Offset>>,
    }

    struct StoppingWriter {
        inner: Box<dyn Writer>,
        left: Arc<AtomicI64>,
        after: bool,
        error: fn() -> Error,
    }

    impl Broker for Stopping<'_> {
        fn kind(&self) -> &'static str {
            self.inner.kind()
        }
        fn create_topics(&self, topics: &[TopicSpec]) -> Result<()> {
            self.inner.create_topics(topics)
        }
        fn describe(&self, topic: &Topic) -> Result<Option<TopicInfo>> {
            self.inner.describe(topic)
        }
        fn register_group(&self, group: &str, topics: &[Topic]) -> Result<Vec<(TopicPartition, u64)>> {
            self.inner.register_group(group, topics)
        }
        fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>> {
            self.inner.committed(group, partitions)
        }
        fn writer(&self, id: &str) -> Result<Box<dyn Writer>> {
            let inner = self.inner.writer(id)?;
            Ok(Box::new(StoppingWriter { inner, left: Arc::clone(&self.left), after: self.after, error: self.error }))
        }
        fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Reader>> {
            self.inner.subscribe(subscription)
        }
        fn assign(
            &self,
            group: Option<&str>,
            partitions: &[(TopicPartition, broker::Offset)],
        ) -> Result<Box<dyn Reader>> {
            let of_progress = partitions.iter().filter(|(at, _)| at.topic.as_str().ends_with("replay-progress"));
            self.progress_read.lock().unwrap().extend(of_progress.map(|(_, from)| *from));
            self.inner.assign(group, partitions)
        }
    }

    impl Writer for StoppingWriter {
        fn wait_for_room(&mut self, cancel: &Cancel) -> Result<()> {
            self.inner.wait_for_room(cancel)
        }
        fn wait_for_readers(&mut self, cancel: &Cancel) -> Result<()> {
            self.inner.wait_for_readers(cancel)
        }
        fn begin(&mut self) -> Result<()> {
            self.inner.begin()
        }
        fn append(&mut self, topic: &Topic, partition: u32, records: &Records) -> Result<()> {
            self.inner.append(topic, partition, records)
        }
        fn commit_offsets(&mut self, membership: &Membership, commits: &[Commit]) -> Result<()> {
            self.inner.commit_offsets(membership, commits)
        }
        fn commit(&mut self) -> Result<()> {
            let fails = self.left.fetch_sub(1, Relaxed) == 1;
            if fails && !self.after {
                return Err((self.error)());
            }
            self.inner.commit()?;
            if fails { Err((self.error)()) } else { Ok(()) }
        }
        fn abort(&mut self) -> Result<()> {
            self.inner.abort()
        }
    }
}

/// Many small transactions: a millisecond's rows are one.
fn settings(form: usize, pace: Pace) -> Settings {
    let mut settings = Settings::new(inputs(form), pace);
    settings.linger = Duration::from_millis(1);
    settings
}

/// What changes the rows.
fn varied(variant: usize, mut settings: Settings) -> Settings {
    let share = |share| producer::Share::new(share).unwrap();
    let disorder = &mut settings.disorder;
    (disorder.seed, disorder.duplicate) = (7, share(0.3));
    match variant {
        0 => *disorder = producer::Disorder::default(),
        1 => disorder.corrupt = share(0.1),
        2 => disorder.shuffle = Some(Duration::from_secs(30)),
        3 => {
            disorder.shuffle = Some(Duration::from_secs(7));
            settings.window.sample = Some(share(0.5));
            settings.window.from = Some(records::EventTime::parse(b"2019-10-01 00:00:10 UTC").unwrap());
            settings.window.limit = Some(70);
        }
        _ => {
            settings.passes = producer::Passes::Times(3);
            settings.shard = producer::Shard { number: 1, of: 3 };
        }
    }
    settings
}

fn pace(paced: usize) -> Pace {
    match paced {
        0 => Pace::FlatOut,
        1 => Pace::Rate(20_000.0),
        2 => Pace::Rates("5000/s..50000/s over 10ms".parse().unwrap()),
        _ => Pace::Speed(10_000.0),
    }
}

fn stopping(world: &World, commits: i64, after: bool, error: fn() -> broker::Error) -> stopping::Stopping<'_> {
    let left = std::sync::Arc::new(commits.into());
    stopping::Stopping { inner: world.broker.as_ref(), left, after, error, progress_read: Default::default() }
}

pub(crate) fn run_stopping(
    world: &World,
    settings: &Settings,
    commits: i64,
    after: bool,
    error: fn() -> broker::Error,
) -> Result<producer::Report, Error> {
    let stopping = stopping(world, commits, after, error);
    let metrics = producer::Metrics::register(&prometheus::Registry::new()).unwrap();
    producer::run(&stopping, settings, &metrics, &producer::Status::new(), &broker::Cancel::new())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Killed at commits drawn at random, before or after they held, in any pace, with or without
    /// disorder on purpose: the records are those of a replay that was never stopped, in the same order.
    #[test]
    fn stopped_anywhere(
        form in 0_usize..4,
        variant in 0_usize..5,
        stops in proptest::collection::vec((1_i64..12, any::<bool>(), 0_usize..4), 1..4),
    ) {
        let whole = World::new();
        whole.run(&varied(variant, flat_out(inputs(form)))).unwrap();
        let world = World::new();
        let index = || Some(producer::GzipIndex { folder: world.folder.path().join("index"), every_bytes: 2000 });
        for (commits, after, paced) in stops {
            let mut settings = varied(variant, settings(form, pace(paced)));
            settings.gzip_index = index();
            let stopped = run_stopping(&world, &settings, commits, after, || broker::Error::Stop("killed".into()));
            if !matches!(stopped, Err(Error::Broker(broker::Error::Stop(_)))) {
                stopped.unwrap();
            }
        }
        world.run(&Settings { gzip_index: index(), ..varied(variant, settings(form, Pace::Rate(1e6))) }).unwrap();
        prop_assert_eq!(rows(&world), rows(&whole));
        prop_assert_eq!(world.letters(), whole.letters());
    }
}

/// An input that stalls in the middle of a stretch, and does not when the replay goes on after a kill:
/// a stretch is what its rows make it, however fast they come.
#[test]
fn a_stretch_does_not_depend_on_how_fast_its_rows_come() {
    // More than the reader sends at once, all of them one stretch.
    const ROWS: usize = 12_000;
    const STALL: Duration = Duration::from_millis(300);
    struct Stalls(Cursor<String>, Duration);
    impl Read for Stalls {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.position() >= 1 << 20 {
                broker::Cancel::new().wait(std::mem::take(&mut self.1));
            }
            self.0.read(buffer)
        }
    }
    let settings = |stall, pace| {
        let open = move |row: u64| {
            let rows = csv(usize::try_from(row).unwrap()..ROWS).split_once('\n').unwrap().1.to_owned();
            Ok(Box::new(Stalls(Cursor::new(rows), stall)) as Box<dyn Read + Send>)
        };
        let input = Input::Synthetic(producer::Synthetic::new("made", HEADER, ROWS as u64, open));
        let mut settings = Settings::new(vec![input], pace);
        settings.disorder.shuffle = Some(Duration::from_secs(3 * 3600));
        settings.linger = Duration::from_millis(1);
        settings
    };
    let whole = World::new();
    whole.run(&settings(Duration::ZERO, Pace::FlatOut)).unwrap();
    for commits in [1, 7] {
        let world = World::new();
        let first = settings(STALL, Pace::Rate(100_000.0));
        let killed = run_stopping(&world, &first, commits, true, || broker::Error::Stop("killed".into()));
        // A machine that is slow enough makes one commit of many.
        if !matches!(killed, Err(Error::Broker(broker::Error::Stop(_)))) {
            killed.unwrap();
        }
        world.run(&settings(Duration::ZERO, Pace::FlatOut)).unwrap();
        assert!(rows(&world) == rows(&whole), "killed after {commits} commits it lost its place");
    }
}

/// However many passes a loop has had, the next one does not read of all of them.
#[test]
fn a_pass_reads_what_is_new_of_the_progress() {
    let world = World::new();
    let settings = Settings { passes: producer::Passes::Times(8), ..flat_out(vec![memory("a.csv", csv(0..10))]) };
    let never = stopping(&world, i64::MAX, false, || broker::Error::Cancelled);
    let metrics = producer::Metrics::register(&prometheus::Registry::new()).unwrap();
    let report = producer::run(&never, &settings, &metrics, &producer::Status::new(), &broker::Cancel::new()).unwrap();
    assert_eq!((report.passes, report.events, world.ends()), (8, 80, vec![8; 4]));
    let read = never.progress_read.into_inner().unwrap();
    // Nothing was there at first; then each pass begins where the one before it had read to.
    assert_eq!(read.len(), 7, "{read:?}");
    assert!(read.is_sorted_by(|a, b| a < b), "{read:?}");
}

/// Killed deep in a file of one member and of many, it unpacks a little of what was sent and no more.
#[test]
fn deep_in_a_gz_it_is_entered_by_its_index() {
    // Rows that share so little that a member has many blocks.
    let text = |rows: usize| {
        let mut text = format!("{HEADER}\n");
        for i in 0..rows {
            let drawn = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let brand = format!("{drawn:x}{:x}", drawn.wrapping_mul(drawn | 1));
            text.push_str(&row(i).replace("ikea", &brand));
            text.push('\n');
        }
        text
    };
    let (before_of, text) = (|sent: usize| text(sent).len() as u64, text(30_000));
    let cuts = text.as_bytes().chunks(50_000).flat_map(gzip).collect();
    // As gzip packs: what is packed fastest may be one block.
    let mut whole = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    io::Write::write_all(&mut whole, text.as_bytes()).unwrap();
    for (name, packed) in [("one.csv.gz", whole.finish().unwrap()), ("many.csv.gz", cuts)] {
        let whole = World::new();
        whole.run(&flat_out(vec![memory(name, packed.clone())])).unwrap();
        for (indexed, damaged) in [(true, false), (false, false), (true, true)] {
            let world = World::new();
            let folder = world.folder.path().join("index");
            let gzip_index = indexed.then(|| producer::GzipIndex { folder: folder.clone(), every_bytes: 200_000 });
            let settings = Settings { gzip_index, ..flat_out(vec![memory(name, packed.clone())]) };
            // A commit has at most 16,384 rows.
            let mut sent = 0;
            while sent < 12_000 {
                let stopped = run_stopping(&world, &settings, 1, true, || broker::Error::Stop("killed".into()));
                assert!(matches!(stopped, Err(Error::Broker(broker::Error::Stop(_)))));
                sent = world.events().len();
            }
            if damaged {
                for file in std::fs::read_dir(&folder).unwrap() {
                    std::fs::write(file.unwrap().path(), b"not one").unwrap();
                }
            }
            assert_eq!(world.run(&settings).unwrap().outcome, Outcome::Finished);
            assert_eq!(rows(&world), rows(&whole), "{name}");
            let (skipped, before) = (world.status.bytes_skipped(), before_of(sent));
            if indexed && !damaged {
                assert!(skipped < 500_000, "{name}: {skipped} of {before}");
            } else {
                assert_eq!(skipped, before, "{name}");
            }
        }
    }
}

/// A transaction that is lost is done again, and one whose commit held though it said otherwise is not.
#[test]
fn lost_transactions_are_done_again() {
    for (after, error) in [
        (false, (|| broker::Error::Abort("lost".into())) as fn() -> broker::Error),
        (true, || broker::Error::Abort("lost".into())),
        (false, || broker::Error::Retry("busy".into())),
        (true, || broker::Error::Retry("busy".into())),
        // By a broker that gave up on a transaction: no other producer has moved the feed on.
        (false, || broker::Error::Fenced("too old".into())),
        (true, || broker::Error::Fenced("too old".into())),
    ] {
        let whole = World::new();
        whole.run(&flat_out(inputs(0))).unwrap();
        let world = World::new();
        for commits in 1..4 {
            let report = run_stopping(&world, &settings(0, Pace::Rate(20_000.0)), commits, after, error).unwrap();
            assert!(matches!(report.outcome, Outcome::Finished | Outcome::AlreadyDone));
        }
        assert_eq!(rows(&world), rows(&whole));
    }
}

#[test]
fn a_drain_is_not_an_end() {
    let world = World::new();
    let mut settings = Settings::new(vec![memory("a.csv", csv(0..50))], Pace::Rate(100.0));
    settings.linger = Duration::from_millis(1);
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| world.run(&settings));
        while world.status.events() < 5 {
            assert!(!world.cancel.wait(Duration::from_millis(2)));
        }
        world.cancel.cancel();
        run.join().unwrap().unwrap()
    });
    assert_eq!((report.outcome, world.ends()), (Outcome::Drained, vec![0; 4]));
    assert!((5..50).contains(&report.events));
    assert_eq!(world.events().len() as u64, report.events, "what was sent is committed");
}

/// Passes so short that a cancel comes before the first row of one as often as after it: a drain all the same.
#[test]
fn cancelled_at_any_moment_of_a_loop_it_drains() {
    let world = World::new();
    let settings = Settings { passes: producer::Passes::Endless, ..flat_out(vec![memory("a.csv", csv(0..3))]) };
    let mut drained = 0;
    for moment in 0..60_u64 {
        let cancel = broker::Cancel::new();
        let metrics = producer::Metrics::register(&prometheus::Registry::new()).unwrap();
        let report = std::thread::scope(|scope| {
            let status = producer::Status::new();
            let (broker, settings, cancel) = (world.broker.as_ref(), &settings, &cancel);
            let run = scope.spawn(move || producer::run(broker, settings, &metrics, &status, cancel));
            // Spread over some passes; a moment is not waited for, it is only made different.
            broker::Cancel::new().wait(Duration::from_micros(moment * 7919 % 15_000));
            cancel.cancel();
            run.join().unwrap()
        });
        let report = report.unwrap_or_else(|e| panic!("cancelled at moment {moment}: {e}"));
        assert_eq!(report.outcome, Outcome::Drained);
        drained += report.events;
    }
    assert_eq!(drained, world.events().len() as u64, "what was sent is told, and committed");
}

#[test]
fn another_file_of_the_same_name_is_refused() {
    let world = World::new();
    let settings = flat_out(vec![world.file("a.csv", csv(0..30))]);
    world.run(&settings).unwrap();
    world.file("a.csv", csv(0..31));
    match world.run(&settings) {
        Err(Error::Refused(why)) => assert!(why.contains("a.csv had") && why.contains("--beside"), "{why}"),
        other => panic!("{other:?}"),
    }
    let beside = Settings { beside: true, ..settings };
    assert_eq!(world.run(&beside).unwrap().events, 31);
    assert_eq!(world.events().len(), 61);
    // And another name is another source.
    assert_eq!(world.run(&flat_out(vec![world.file("b.csv", csv(0..5))])).unwrap().events, 5);
}

/// What a file's name, size and beginning do not tell: that it is another one where the replay stopped.
#[test]
fn a_file_that_was_changed_in_the_middle_is_refused() {
    // As they are, in each form: so that what is changed leaves the sizes alone.
    let stored = |text: &str| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
        packed.finish().unwrap()
    };
    let text = csv(0..40_000);
    let (head, tail) = text.split_at(100_000);
    let changed = format!("{head}{}", tail.replace("ikea", "akei"));
    let form = |name: &str, text: &str| match name {
        "a.csv" => memory(name, text),
        _ => memory(name, stored(text)),
    };
    for (name, every_bytes) in [("a.csv", None), ("a.csv.gz", None), ("a.csv.gz", Some(200_000))] {
        let world = World::new();
        let gzip_index =
            every_bytes.map(|every| producer::GzipIndex { folder: world.folder.path().into(), every_bytes: every });
        let settings = |text: &str| Settings { gzip_index: gzip_index.clone(), ..flat_out(vec![form(name, text)]) };
        // A commit has at most 16,384 rows: of the others some are still to come.
        while world.events().len() < 12_000 {
            let stopped = run_stopping(&world, &settings(&text), 1, true, || broker::Error::Stop("killed".into()));
            assert!(matches!(stopped, Err(Error::Broker(broker::Error::Stop(_)))));
        }
        let sent = world.events().len();
        match world.run(&settings(&changed)) {
            Err(Error::File { file, why }) => assert!(file == name && why.contains("--restart"), "{file}: {why}"),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!((world.events().len(), world.ends()), (sent, vec![0; 4]));
        assert_eq!(world.run(&settings(&text)).unwrap().outcome, Outcome::Finished);
        assert!(world.events().iter().map(|(row, ..)| *row).eq(0..40_000), "{name}");
    }
}

/// Played anew, an input is one more source, and what was begun last is what the same command goes on with.
#[test]
fn an_input_played_anew_is_one_more_source() {
    let world = World::new();
    let settings = flat_out(vec![world.file("a.csv", csv(0..30))]);
    let anew = Settings { restart: true, ..settings.clone() };
    // Nothing was begun: there is nothing to begin anew.
    let first = world.run(&anew).unwrap();
    assert_eq!(world.run(&settings).unwrap().source, first.source);
    let stopped = run_stopping(&world, &anew, 1, true, || broker::Error::Stop("killed".into()));
    assert!(matches!(stopped, Err(Error::Broker(broker::Error::Stop(_)))));
    let second = world.run(&settings).unwrap();
    assert_ne!(second.source, first.source);
    assert_eq!((world.events().len(), world.ends()), (60, vec![2; 4]));
    assert_eq!(second.events_of_source, 30);
    let third = world.run(&anew).unwrap();
    assert_eq!((third.outcome, third.events, world.events().len()), (Outcome::Finished, 30, 90));
    let again = world.run(&settings).unwrap();
    assert_eq!((again.outcome, again.source), (Outcome::AlreadyDone, third.source));
}

#[test]
fn shards_play_the_same_restart() {
    let world = World::new();
    let input = world.file("a.csv", csv(0..60));
    let shard = |number, restart| {
        let shard = producer::Shard { number, of: 2 };
        world.run(&Settings { shard, restart, ..flat_out(vec![input.clone()]) }).unwrap()
    };
    let first = shard(0, false).source;
    assert_eq!(shard(1, false).source, first);
    let second = shard(0, true).source;
    assert_ne!(second, first);
    assert_eq!(shard(1, true).source, second);
    assert_eq!(shard(1, false).outcome, Outcome::AlreadyDone);
    assert_eq!((world.events().len(), world.ends()), (120, vec![4; 4]));
}

/// Standard input can break off, and is another source each time.
#[test]
fn a_stream_that_breaks() {
    struct Breaks(Cursor<Vec<u8>>);
    impl Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("the pipe has broken")),
                n => Ok(n),
            }
        }
    }
    let world = World::new();
    let text = format!("{}{}", csv(0..10), &row(10)[..50]);
    let stream =
        Stream::new("-", move || Ok(Box::new(Breaks(Cursor::new(text.clone().into_bytes()))) as Box<dyn Read + Send>));
    let settings = flat_out(vec![Input::Stream(stream)]);
    for run in 1..3 {
        let error = world.run(&settings).unwrap_err();
        assert_eq!(error.to_string(), "standard input: the pipe has broken");
        assert_eq!((world.events().len(), world.letters().len(), world.ends()), (10 * run, 0, vec![0; 4]));
    }
    let empty = Stream::new("-", || Ok(Box::new(io::empty()) as Box<dyn Read + Send>));
    let error = world.run(&flat_out(vec![Input::Stream(empty)])).unwrap_err();
    assert!(error.to_string().contains("standard input: its text is empty (0 bytes)"), "{error}");
    let header = Stream::new("-", || Ok(Box::new(HEADER.as_bytes()) as Box<dyn Read + Send>));
    assert_eq!(world.run(&flat_out(vec![Input::Stream(header)])).unwrap().outcome, Outcome::Finished);
}

/// A sessionizer that has more feeds to remember than fit would stop in the middle.
#[test]
fn too_many_unfinished_feeds_are_refused_before_anything_is_sent() {
    let world = World::new();
    let settings = Settings { flags: "--data-dir x".into(), ..flat_out(vec![world.file("a.csv", csv(0..30))]) };
    let most = u32::try_from(records::topics::UNFINISHED_FEEDS_MAX).unwrap();
    world.write_feeds((1..=most).map(|source| (source, 0, false)));
    match world.run(&settings) {
        Err(Error::Refused(why)) => {
            assert!(why.contains("control end SOURCE --data-dir x. ") && why.contains("00000001, 00000002"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.events().len(), 0);
    world.write_feeds([(7, 0, true)]);
    assert_eq!(world.run(&settings).unwrap().events, 30);
}

#[test]
fn feeds_begun_with_another_number_of_partitions_have_to_end_first() {
    let world = World::new();
    let settings = flat_out(vec![world.file("a.csv", csv(0..30))]);
    world.write_feeds([(1, 4, false), (2, 0, false), (3, 5, false)]);
    match world.run(&settings) {
        Err(Error::Refused(why)) => {
            assert!(why.contains("had 5 partitions and now has 4"), "{why}");
            assert!(why.contains("control end 00000003") && !why.contains("00000001"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    world.write_feeds([(3, 5, true)]);
    assert_eq!(world.run(&settings).unwrap().events, 30);
}
