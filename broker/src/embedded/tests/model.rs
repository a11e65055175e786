//! Any order of transactions, aborts, commits, reads and reopenings does what a simple model does.
use proptest::prelude::*;

use super::*;

const PARTITIONS: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    Append { partition: u32, count: usize, bytes: usize },
    Commit,
    Abort,
    Offsets { partition: u32, share: u8, keep: u8 },
    Poll { records: usize },
    Reopen,
    Replace,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = 0..PARTITIONS;
    let step = prop_oneof![
        4 => (partition.clone(), 0..6_usize, prop_oneof![0..200_usize, 20_000..60_000_usize])
            .prop_map(|(partition, count, bytes)| Step::Append { partition, count, bytes }),
        4 => Just(Step::Commit),
        1 => Just(Step::Abort),
        3 => (partition, any::<u8>(), any::<u8>())
            .prop_map(|(partition, share, keep)| Step::Offsets { partition, share, keep }),
        3 => (1..9_usize).prop_map(|records| Step::Poll { records }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Replace),
    ];
    prop::collection::vec(step, 1..80)
}

/// What must be there: every value ever committed, and each partition's position.
#[derive(Default)]
struct Model {
    logs: [Vec<Vec<u8>>; PARTITIONS as usize],
    pending: Vec<(usize, Vec<u8>)>,
    positions: [Option<(i64, i64)>; PARTITIONS as usize],
    read: [usize; PARTITIONS as usize],
    made: u64,
}

struct Subject {
    writer: Box<dyn Writer>,
    reader: Box<dyn Reader>,
    broker: Arc<Embedded>,
}

fn open(path: &Path, model: &mut Model) -> Subject {
    let options = Options { tail_cache_bytes: 100_000, ..Options::default() };
    let broker = Embedded::open(path, options).unwrap();
    broker.create_topics(&[spec("t", PARTITIONS, Cleanup::Delete)]).unwrap();
    broker.register_group("g", &["t".into()]).unwrap();
    let writer = broker.writer("w").unwrap();
    let at = |number: u32| {
        let offset = model.positions[number as usize].map_or(0, |(offset, _)| offset);
        (partition("t", number), Offset(offset))
    };
    let reader = broker.assign(Some("g"), &(0..PARTITIONS).map(at).collect::<Vec<_>>()).unwrap();
    model.read = model.positions.map(|position| position.map_or(0, |(offset, _)| usize::try_from(offset).unwrap()));
    model.pending.clear();
    Subject { writer, reader, broker }
}

fn check(subject: &Subject, model: &Model) {
    for number in 0..PARTITIONS {
        let log = &model.logs[number as usize];
        let (start, end) = bounds(&subject.broker, "t", number as usize);
        let keep_from = model.positions[number as usize].map_or(0, |(_, keep_from)| keep_from);
        assert!(start <= keep_from && end == log.len() as i64, "{start} to {end}, keep from {keep_from}");
        let expected = (start..).zip(log[usize::try_from(start).unwrap()..].iter().cloned());
        assert!(all(&subject.broker, "t", number).into_iter().eq(expected), "another log in partition {number}");
        let committed = subject.broker.committed("g", &[partition("t", number)]).unwrap().remove(0);
        let expected = model.positions[number as usize].map(|(offset, _)| offset);
        assert_eq!(committed.map(|committed| committed.offset.0), expected);
    }
}

fn apply(step: &Step, subject: &mut Subject, model: &mut Model, open_transaction: &mut bool) {
    match *step {
        Step::Append { partition, count, bytes } => {
            if !std::mem::replace(open_transaction, true) {
                subject.writer.begin().unwrap();
            }
            let mut records = Records::new();
            for _ in 0..count {
                model.made += 1;
                let one = noise(model.made, bytes);
                model.pending.push((partition as usize, one.get(0, Offset(0)).value.to_vec()));
                records.extend(&one);
            }
            subject.writer.append(&"t".into(), partition, &records).unwrap();
        }
        Step::Commit if *open_transaction => {
            subject.writer.commit().unwrap();
            *open_transaction = false;
            for (partition, value) in model.pending.drain(..) {
                model.logs[partition].push(value);
            }
        }
        Step::Abort | Step::Commit => {
            subject.writer.abort().unwrap();
            *open_transaction = false;
            model.pending.clear();
        }
        Step::Offsets { partition, share, keep } => {
            let before = model.positions[partition as usize].map_or((0, 0), |position| position);
            let span = model.logs[partition as usize].len() as i64 - before.0;
            let offset = before.0 + span * i64::from(share) / 255;
            let keep_from = before.1 + (offset - before.1) * i64::from(keep) / 255;
            subject.reader.commit(&[commit("t", partition, offset, keep_from)]).unwrap();
            model.positions[partition as usize] = Some((offset, keep_from));
            // A reader behind its group's commit could find its place gone.
            let read = &mut model.read[partition as usize];
            *read = (*read).max(usize::try_from(offset).unwrap());
            let place = Offset(i64::try_from(*read).unwrap());
            subject.reader.seek(&super::partition("t", partition), place).unwrap();
        }
        Step::Poll { records } => match subject.reader.poll(&PollLimits { records, ..LIMITS }).unwrap() {
            Polled::Batch(batch) => {
                let at = &mut model.read[batch.partition as usize];
                assert!(batch.len() <= records && batch.first_offset() == Some(Offset(*at as i64)));
                for record in batch.iter() {
                    assert!(model.logs[batch.partition as usize][*at] == record.value);
                    *at += 1;
                }
            }
            Polled::Idle => assert!(model.read.iter().zip(&model.logs).all(|(read, log)| *read == log.len())),
            other => panic!("{other:?}"),
        },
        Step::Replace => {
            subject.writer = subject.broker.writer("w").unwrap();
            *open_transaction = false;
            model.pending.clear();
        }
        Step::Reopen => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn does_as_the_model_does(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.db");
        let mut model = Model::default();
        let mut subject = open(&path, &mut model);
        let mut open_transaction = false;
        for step in &steps {
            if matches!(step, Step::Reopen) {
                drop(subject);
                subject = open(&path, &mut model);
                open_transaction = false;
            } else {
                apply(step, &mut subject, &mut model, &mut open_transaction);
            }
        }
        check(&subject, &model);
        drop(subject);
        check(&open(&path, &mut model), &model);
    }
}
