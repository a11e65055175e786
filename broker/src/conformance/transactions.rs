//! Atomicity, abort, fencing, and offsets within transactions.
use super::*;
use crate::METADATA_MAX_BYTES;

pub fn a_transaction_over_topics_is_seen_whole(make: Make<'_>) {
    let broker = make();
    let (a, b) = (topic(&*broker, 2, Cleanup::Delete), topic(&*broker, 1, Cleanup::Delete));
    let mut writer = broker.writer(&unique("writer")).unwrap();
    let (mut of_a, mut of_b) = (reader_of(&*broker, &a), reader_of(&*broker, &b));
    writer.begin().unwrap();
    writer.append(&a, 0, &records(["a0"])).unwrap();
    writer.append(&a, 1, &records(["a1"])).unwrap();
    writer.append(&b, 0, &records(["b0", "b1"])).unwrap();
    writer.append(&a, 0, &records(["a2"])).unwrap();
    read(&mut *of_a, 0);
    read(&mut *of_b, 0);
    writer.commit().unwrap();
    let mut rows = read(&mut *of_a, 3);
    rows.sort_by_key(|row| (row.partition, row.offset));
    assert_eq!(values(&rows), ["a0", "a2", "a1"]);
    assert_eq!(values(&read(&mut *of_b, 2)), ["b0", "b1"]);
}

pub fn what_is_taken_is_appended_in_order(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 1, Cleanup::Delete);
    let mut writer = broker.writer(&unique("writer")).unwrap();
    let (mut taken, mut expected) = (Records::new(), Vec::new());
    for round in 0..3 {
        writer.begin().unwrap();
        // The first fills a row of the embedded log, the others share one.
        for (n, count) in [(0, 3_000), (1, 10), (2, 0), (3, 10)] {
            for i in 0..count {
                let value = format!("{round}.{n}.{i} {:>400}", "x");
                taken.push(0, b"k", &[("h", b"1")], |out| out.extend_from_slice(value.as_bytes()));
                expected.push(value);
            }
            writer.append_taking(&topic, 0, &mut taken).unwrap();
            assert!(taken.is_empty() && taken.bytes() == 0);
        }
        writer.commit().unwrap();
    }
    assert_eq!(values(&read(&mut *reader_of(&*broker, &topic), expected.len())), expected);
}

pub fn what_is_aborted_is_never_seen(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 1, Cleanup::Delete);
    let id = unique("writer");
    let mut writer = broker.writer(&id).unwrap();
    writer.begin().unwrap();
    writer.append(&topic, 0, &records(["aborted"])).unwrap();
    writer.abort().unwrap();
    write(&mut *writer, &topic, 0, &["kept"]);
    writer.begin().unwrap();
    writer.append(&topic, 0, &records(["dropped"])).unwrap();
    drop(writer);
    let mut writer = broker.writer(&id).unwrap();
    // Nothing of an empty transaction shows either.
    writer.begin().unwrap();
    writer.commit().unwrap();
    write(&mut *writer, &topic, 0, &["kept too"]);
    assert_eq!(values(&read(&mut *reader_of(&*broker, &topic), 2)), ["kept", "kept too"]);
}

pub fn outputs_and_offsets_are_one(make: Make<'_>) {
    let broker = make();
    let (input, output) = (topic(&*broker, 1, Cleanup::Delete), topic(&*broker, 1, Cleanup::Delete));
    let group = group(&*broker, &[&input]);
    let partition = TopicPartition::new(&input, 0);
    write(&mut *broker.writer(&unique("producer")).unwrap(), &input, 0, &["1", "2"]);
    let mut member = subscribe(&*broker, &group, "member", &[&input]);
    assert_eq!(assigned(&mut *member)[0].committed, None);
    let end = Offset(read(&mut *member, 2)[1].offset.0 + 1);
    let membership = member.membership().expect("it is a member");
    let mut writer = broker.writer(&unique("writer")).unwrap();
    for (keep, result) in [(false, "lost"), (true, "done")] {
        writer.begin().unwrap();
        writer.append(&output, 0, &records([result])).unwrap();
        writer.commit_offsets(&membership, &[commit_at(&partition, end, result)]).unwrap();
        assert_eq!(committed(&*broker, &group, &partition), None, "not before it commits");
        if keep { writer.commit().unwrap() } else { writer.abort().unwrap() }
    }
    assert_eq!(committed(&*broker, &group, &partition), Some((end, "done".to_owned())));
    assert_eq!(values(&read(&mut *reader_of(&*broker, &output), 1)), ["done"]);
    // Offsets without outputs.
    writer.begin().unwrap();
    writer.commit_offsets(&membership, &[commit_at(&partition, end, "again")]).unwrap();
    writer.commit().unwrap();
    assert_eq!(committed(&*broker, &group, &partition), Some((end, "again".to_owned())));
}

pub fn metadata_comes_back_and_has_a_limit(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 1, Cleanup::Delete);
    let group = group(&*broker, &[&topic]);
    let partition = TopicPartition::new(&topic, 0);
    let mut writer = broker.writer(&unique("writer")).unwrap();
    write(&mut *writer, &topic, 0, &["1"]);
    let mut member = subscribe(&*broker, &group, "member", &[&topic]);
    assigned(&mut *member);
    let end = Offset(read(&mut *member, 1)[0].offset.0 + 1);
    for metadata in ["", "né\n{\"plan\":1}", &"x".repeat(METADATA_MAX_BYTES)] {
        member.commit(&[commit_at(&partition, end, metadata)]).unwrap();
        assert_eq!(committed(&*broker, &group, &partition), Some((end, metadata.to_owned())));
    }
    let too_long = commit_at(&partition, end, &"y".repeat(METADATA_MAX_BYTES + 1));
    is_stop(member.commit(std::slice::from_ref(&too_long)));
    writer.begin().unwrap();
    is_stop(writer.commit_offsets(&member.membership().unwrap(), &[too_long]));
    writer.abort().unwrap();
    let (_, metadata) = committed(&*broker, &group, &partition).unwrap();
    assert!(metadata.starts_with('x'), "what was refused changed nothing");
}

pub fn a_later_writer_fences_the_earlier(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 1, Cleanup::Delete);
    let (id, other) = (unique("writer"), unique("other"));
    let mut earlier = broker.writer(&id).unwrap();
    let mut unrelated = broker.writer(&other).unwrap();
    write(&mut *earlier, &topic, 0, &["before"]);
    earlier.begin().unwrap();
    earlier.append(&topic, 0, &records(["lost"])).unwrap();
    unrelated.begin().unwrap();
    unrelated.append(&topic, 0, &records(["unrelated"])).unwrap();
    let mut later = broker.writer(&id).unwrap();
    write(&mut *later, &topic, 0, &["after"]);
    assert!(is_fenced(earlier.commit()));
    assert!(is_fenced(earlier.begin()), "and it stays so");
    unrelated.commit().unwrap();
    // Open transactions of two writers lie in the log in any order.
    let rows = read(&mut *reader_of(&*broker, &topic), 3);
    let mut values = values(&rows);
    values.sort_unstable();
    assert_eq!(values, ["after", "before", "unrelated"]);
}

pub fn calls_out_of_turn_are_refused(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 2, Cleanup::Delete);
    let mut writer = broker.writer(&unique("writer")).unwrap();
    is_stop(writer.append(&topic, 0, &records(["no transaction"])));
    is_stop(writer.commit());
    writer.begin().unwrap();
    is_stop(writer.begin());
    let no_partition = is_stop(writer.append(&topic, 2, &records(["no such partition"])));
    assert!(no_partition.contains(topic.as_str()), "{no_partition}");
    writer.abort().unwrap();
    write(&mut *writer, &topic, 1, &["it goes on"]);
    assert_eq!(values(&read(&mut *reader_of(&*broker, &topic), 1)), ["it goes on"]);
}
