//! Rebalances, leaving, taking over, and stale members.
use std::collections::BTreeSet;

use super::*;

/// A member and what it was told.
struct Member {
    reader: Box<dyn Reader>,
    owned: BTreeSet<TopicPartition>,
    revocations: u32,
    rows: Vec<Row>,
}

impl Member {
    fn new(reader: Box<dyn Reader>) -> Self {
        Self { reader, owned: BTreeSet::new(), revocations: 0, rows: Vec::new() }
    }

    /// One poll; what is revoked is released at once.
    fn step(&mut self) {
        match self.reader.poll(&LIMITS).unwrap() {
            Polled::Assigned(assigned) => self.owned.extend(assigned.into_iter().map(|assigned| assigned.partition)),
            Polled::Revoked(revoked) => {
                for partition in revoked {
                    assert!(self.owned.remove(&partition), "{partition} was revoked from one who has it not");
                }
                self.revocations += 1;
                self.reader.release().unwrap();
            }
            Polled::Batch(batch) => {
                assert!(self.owned.contains(&batch.topic_partition()), "records of what is not its own");
                self.rows.extend(rows_of(&batch));
            }
            Polled::Flush | Polled::Idle => {}
        }
    }
}

/// Polls all members in turn until each has so many partitions.
fn settle(members: &mut [&mut Member], partitions: &[usize]) {
    for _ in 0..POLLS_MAX {
        if members.iter().zip(partitions).all(|(member, count)| member.owned.len() == *count) {
            let all: BTreeSet<_> = members.iter().flat_map(|member| &member.owned).collect();
            assert_eq!(all.len(), partitions.iter().sum::<usize>(), "each belongs to one member");
            return;
        }
        members.iter_mut().for_each(|member| member.step());
    }
    panic!("the group did not settle at {partitions:?} within {POLLS_MAX} polls");
}

pub fn two_members_share_and_hand_over(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 4, Cleanup::Delete);
    let group = group(&*broker, &[&topic]);
    let mut writer = broker.writer(&unique("writer")).unwrap();
    let mut first = Member::new(subscribe(&*broker, &group, "first", &[&topic]));
    settle(&mut [&mut first], &[4]);
    let mut second = Member::new(subscribe(&*broker, &group, "second", &[&topic]));
    // It gets nothing while the first has not released.
    let mut revoked = None;
    for _ in 0..POLLS_MAX {
        if let Polled::Revoked(partitions) = first.reader.poll(&LIMITS).unwrap() {
            revoked = Some(partitions);
            break;
        }
        second.step();
    }
    let revoked = revoked.expect("the first is asked to give up partitions");
    for _ in 0..QUIET_POLLS {
        second.step();
        assert!(second.owned.is_empty(), "assigned before it was released");
    }
    // What was in hand can still be committed.
    let end = broker.describe(&topic).unwrap().unwrap().partitions[0].end;
    let last = commit_at(&revoked[0], end, "the last before handing over");
    first.reader.commit(std::slice::from_ref(&last)).unwrap();
    revoked.iter().for_each(|partition| assert!(first.owned.remove(partition)));
    first.reader.release().unwrap();
    settle(&mut [&mut first, &mut second], &[2, 2]);
    let metadata = committed(&*broker, &group, &revoked[0]).map(|(_, metadata)| metadata);
    assert_eq!(metadata.as_deref(), Some("the last before handing over"));
    for partition in 0..4 {
        write(&mut *writer, &topic, partition, &[&partition.to_string()]);
    }
    for _ in 0..POLLS_MAX {
        if first.rows.len() + second.rows.len() == 4 {
            break;
        }
        first.step();
        second.step();
    }
    assert_eq!((first.rows.len(), second.rows.len()), (2, 2), "each reads its own");
    second.reader.leave().unwrap();
    let mut without = BTreeSet::new();
    std::mem::swap(&mut without, &mut second.owned);
    settle(&mut [&mut first], &[4]);
    assert!(without.is_subset(&first.owned));
    // One that is dropped gives up its share as well.
    let mut third = Member::new(subscribe(&*broker, &group, "third", &[&topic]));
    settle(&mut [&mut first, &mut third], &[2, 2]);
    drop(first);
    settle(&mut [&mut third], &[4]);
}

pub fn the_same_instance_takes_over(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 2, Cleanup::Delete);
    let group = group(&*broker, &[&topic]);
    write(&mut *broker.writer(&unique("writer")).unwrap(), &topic, 0, &["1"]);
    let mut old = Member::new(subscribe(&*broker, &group, "same", &[&topic]));
    settle(&mut [&mut old], &[2]);
    let mut new = Member::new(subscribe(&*broker, &group, "same", &[&topic]));
    settle(&mut [&mut new], &[2]);
    let partition = TopicPartition::new(&topic, 0);
    let start = broker.describe(&topic).unwrap().unwrap().partitions[0].start;
    assert!(is_fenced(old.reader.commit(&[commit_at(&partition, start, "stale")])));
    assert_eq!(committed(&*broker, &group, &partition), None);
    let fenced = (0..POLLS_MAX).find_map(|_| old.reader.poll(&LIMITS).err());
    assert!(matches!(fenced, Some(Error::Fenced(_))), "{fenced:?}");
    // Its going disturbs nobody.
    drop(old);
    new.reader.commit(&[commit_at(&partition, start, "current")]).unwrap();
    assert_eq!(values(&read(&mut *new.reader, 1)), ["1"]);
}

pub fn a_stale_member_commits_nothing(make: Make<'_>) {
    let broker = make();
    let (input, output) = (topic(&*broker, 2, Cleanup::Delete), topic(&*broker, 1, Cleanup::Delete));
    let group = group(&*broker, &[&input]);
    let mut first = Member::new(subscribe(&*broker, &group, "first", &[&input]));
    settle(&mut [&mut first], &[2]);
    let stale = first.reader.membership().unwrap();
    let mut second = Member::new(subscribe(&*broker, &group, "second", &[&input]));
    let mut writer = broker.writer(&unique("writer")).unwrap();
    let start = broker.describe(&input).unwrap().unwrap().partitions[0].start;
    let partition = TopicPartition::new(&input, 0);
    // Taken into the transaction while it was current, stale when it commits.
    writer.begin().unwrap();
    writer.append(&output, 0, &records(["never"])).unwrap();
    writer.commit_offsets(&stale, &[commit_at(&partition, start, "stale")]).unwrap();
    settle(&mut [&mut first, &mut second], &[1, 1]);
    let late = writer.commit();
    assert!(is_lost(late), "a commit of a generation that is over");
    let _ = writer.abort();
    // Stale from the beginning.
    let mut writer = broker.writer(&unique("writer")).unwrap();
    writer.begin().unwrap();
    writer.append(&output, 0, &records(["never"])).unwrap();
    let refused =
        writer.commit_offsets(&stale, &[commit_at(&partition, start, "stale")]).and_then(|()| writer.commit());
    assert!(is_lost(refused));
    let _ = writer.abort();
    assert_eq!(committed(&*broker, &group, &partition), None);
    read(&mut *reader_of(&*broker, &output), 0);
    // The current owner's goes through.
    let owner = if first.owned.contains(&partition) { &first } else { &second };
    let mut writer = broker.writer(&unique("writer")).unwrap();
    writer.begin().unwrap();
    writer.append(&output, 0, &records(["once"])).unwrap();
    let current = owner.reader.membership().unwrap();
    writer.commit_offsets(&current, &[commit_at(&partition, start, "current")]).unwrap();
    writer.commit().unwrap();
    assert_eq!(values(&read(&mut *reader_of(&*broker, &output), 1)), ["once"]);
}
