//! Order, bounds, seeking, assigned readers, compaction, and what a record is.
use std::collections::BTreeMap;

use super::*;

pub fn offsets_alone_are_where_the_next_member_begins(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 1, Cleanup::Delete);
    let group = group(&*broker, &[&topic]);
    let partition = TopicPartition::new(&topic, 0);
    write(&mut *broker.writer(&unique("writer")).unwrap(), &topic, 0, &["1", "2", "3"]);
    let mut member = subscribe(&*broker, &group, "member", &[&topic]);
    assigned(&mut *member);
    let rows = read(&mut *member, 3);
    member.commit(&[commit_at(&partition, rows[1].offset, "one done")]).unwrap();
    member.leave().unwrap();
    drop(member);
    let mut next = subscribe(&*broker, &group, "next", &[&topic]);
    let at = assigned(&mut *next).remove(0);
    let there = at.committed.unwrap();
    assert_eq!((there.offset, there.metadata.as_str()), (rows[1].offset, "one done"));
    assert_eq!(at.incarnation, broker.describe(&topic).unwrap().unwrap().incarnation);
    assert_eq!(values(&read(&mut *next, 2)), ["2", "3"]);
}

pub fn a_partition_is_read_in_order(make: Make<'_>) {
    const PARTITIONS: u32 = 3;
    let broker = make();
    let topic = topic(&*broker, PARTITIONS, Cleanup::Delete);
    let mut writers = [broker.writer(&unique("a")).unwrap(), broker.writer(&unique("b")).unwrap()];
    let mut written = vec![Vec::new(); PARTITIONS as usize];
    for i in 0..60_u32 {
        let writer = &mut writers[i as usize % 2];
        writer.begin().unwrap();
        let partition = i % PARTITIONS;
        for part in 0..i % 5 {
            let value = format!("{i}.{part}");
            writer.append(&topic, partition, &records([&value])).unwrap();
            if i % 7 != 0 {
                written[partition as usize].push(value);
            }
        }
        if i % 7 == 0 { writer.abort().unwrap() } else { writer.commit().unwrap() }
    }
    let count = written.iter().map(Vec::len).sum();
    let rows = read(&mut *reader_of(&*broker, &topic), count);
    for (partition, expected) in (0..).zip(&written) {
        let of: Vec<Row> = rows.iter().filter(|row| row.partition == partition).cloned().collect();
        assert_eq!(values(&of), *expected);
        assert!(of.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets ascend");
        let bounds = broker.describe(&topic).unwrap().unwrap().partitions[partition as usize];
        assert_eq!(bounds.end, Offset(of.last().unwrap().offset.0 + 1), "the end follows the last readable record");
    }
}

pub fn a_poll_keeps_its_bounds(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 1, Cleanup::Delete);
    let values: Vec<String> = (0..100).map(|i| format!("{i:0>100}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    write(&mut *broker.writer(&unique("writer")).unwrap(), &topic, 0, &values);
    // Of 103 bytes each, key included; a bound that fits none gives one.
    for (records, bytes, most) in [(7, 1 << 20, 7), (1_000, 1_035, 10), (1_000, 10, 1), (1_000, 1 << 20, 100)] {
        let mut reader = reader_of(&*broker, &topic);
        let limits = PollLimits { records, bytes, timeout: POLL };
        let mut read = Vec::new();
        for _ in 0..POLLS_MAX {
            if let Polled::Batch(batch) = reader.poll(&limits).unwrap() {
                assert!((1..=most).contains(&batch.len()), "{} records, {most} at the most", batch.len());
                read.extend(rows_of(&batch));
            }
            if read.len() == values.len() {
                break;
            }
        }
        assert_eq!(super::values(&read), values);
    }
}

pub fn seeking_stays_within_the_log(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 2, Cleanup::Delete);
    let group = group(&*broker, &[&topic]);
    let partition = TopicPartition::new(&topic, 1);
    let mut writer = broker.writer(&unique("writer")).unwrap();
    write(&mut *writer, &topic, 1, &["1", "2"]);
    write(&mut *writer, &topic, 1, &["3"]);
    let mut member = subscribe(&*broker, &group, "member", &[&topic]);
    assigned(&mut *member);
    let rows = read(&mut *member, 3);
    for back_to in [1, 0, 2] {
        member.seek(&partition, rows[back_to].offset).unwrap();
        assert_eq!(read(&mut *member, 3 - back_to), rows[back_to..]);
    }
    let bounds = broker.describe(&topic).unwrap().unwrap().partitions[1];
    member.seek(&partition, bounds.end).unwrap();
    for outside in [bounds.start.0 - 1, bounds.end.0 + 5] {
        let why = is_stop(member.seek(&partition, Offset(outside)));
        for named in [&partition.to_string(), &outside.to_string(), &bounds.end.to_string()] {
            assert!(why.contains(named), "{named} in: {why}");
        }
    }
    is_stop(member.seek(&TopicPartition::new(&topic, 9), Offset(0)));
    read(&mut *member, 0);
}

pub fn an_assigned_reader_begins_where_it_is_told(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 2, Cleanup::Delete);
    let group = group(&*broker, &[&topic]);
    let mut writer = broker.writer(&unique("writer")).unwrap();
    write(&mut *writer, &topic, 0, &["a", "b", "c"]);
    write(&mut *writer, &topic, 1, &["d"]);
    let rows = read(&mut *reader_of(&*broker, &topic), 4);
    let of = |value: &str| rows.iter().find(|row| row.value == value.as_bytes()).unwrap().offset;
    let own = [(TopicPartition::new(&topic, 0), of("b")), (TopicPartition::new(&topic, 1), of("d"))];
    let mut reader = broker.assign(Some(&group), &own).unwrap();
    let mut again = read(&mut *reader, 3);
    again.sort_by(|a, b| a.value.cmp(&b.value));
    assert_eq!(values(&again), ["b", "c", "d"]);
    assert!(reader.membership().is_none());
    reader.commit(&[commit_at(&own[0].0, of("c"), "")]).unwrap();
    assert_eq!(committed(&*broker, &group, &own[0].0), Some((of("c"), String::new())));
    let mut of_no_group = broker.assign(None, &own).unwrap();
    is_stop(of_no_group.commit(&[commit_at(&own[0].0, of("c"), "")]));
    // It goes on with what comes later.
    write(&mut *writer, &topic, 1, &["e"]);
    assert_eq!(values(&read(&mut *reader, 1)), ["e"]);
}

pub fn compaction_keeps_the_latest_of_each_key(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 1, Cleanup::Compact);
    let mut writer = broker.writer(&unique("writer")).unwrap();
    let mut expected = BTreeMap::new();
    for round in 0..4_u8 {
        writer.begin().unwrap();
        let mut records = Records::new();
        for key in [b"a", b"b", b"a", b"c"].iter().take(2 + usize::from(round) % 3) {
            let value = [round, u8::try_from(records.len()).unwrap()];
            records.push(i64::from(round), *key, &[], |out| out.extend_from_slice(&value));
            if round != 2 {
                expected.insert(key.to_vec(), value.to_vec());
            }
        }
        writer.append(&topic, 0, &records).unwrap();
        if round == 2 { writer.abort().unwrap() } else { writer.commit().unwrap() }
    }
    let end = broker.describe(&topic).unwrap().unwrap().partitions[0].end;
    let mut reader = reader_of(&*broker, &topic);
    let (mut latest, mut next) = (BTreeMap::new(), Offset(i64::MIN));
    poll_until(&mut *reader, "the end", |polled| {
        if let Polled::Batch(batch) = polled {
            for row in rows_of(&batch) {
                assert!(row.offset >= next, "in order");
                next = Offset(row.offset.0 + 1);
                latest.insert(row.key, row.value);
            }
        }
        (next == end).then_some(())
    });
    assert_eq!(latest, expected);
}

pub fn topics_are_made_once(make: Make<'_>) {
    let broker = make();
    let topic: Topic = unique("topic").as_str().into();
    assert!(broker.describe(&topic).unwrap().is_none());
    let spec = |partitions| TopicSpec { topic: topic.clone(), partitions, cleanup: Cleanup::Delete };
    broker.create_topics(&[spec(3)]).unwrap();
    write(&mut *broker.writer(&unique("writer")).unwrap(), &topic, 2, &["kept"]);
    broker.create_topics(&[spec(3)]).unwrap();
    assert_eq!(values(&read(&mut *reader_of(&*broker, &topic), 1)), ["kept"]);
    let why = is_stop(broker.create_topics(&[spec(5)]));
    assert!(why.contains(topic.as_str()) && why.contains('3') && why.contains('5'), "{why}");
    assert_eq!(broker.describe(&topic).unwrap().unwrap().partitions.len(), 3);
}

pub fn a_record_comes_back_as_written(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 1, Cleanup::Delete);
    let all_bytes: Vec<u8> = (0..=255).collect();
    type Written<'a> = (i64, &'a [u8], Vec<(&'a str, &'a [u8])>, &'a [u8]);
    let written: Vec<Written<'_>> = vec![
        (1_571_234_567_890, b"key", vec![("content-type", b"application/protobuf"), ("sent-at", &[0; 8])], b"value"),
        (1, b"", vec![], b"value"),
        (2, b"k", vec![("empty", b""), ("twice", b"1"), ("twice", b"2")], b""),
        (3, b"k", vec![("empty", b""), ("twice", b"1"), ("twice", b"2")], b""),
        (4, b"the same headers", vec![("empty", b""), ("twice", b"1"), ("twice", b"2")], &all_bytes),
        (5, b"", vec![("empty", b""), ("twice", b"1"), ("twice", b"3")], b"as long, not the same"),
        (6, b"none", vec![], b"1"),
        (7, b"none again", vec![], b"2"),
        (253_402_300_799_999, &all_bytes, vec![("bytes", &all_bytes)], &all_bytes),
    ];
    let mut records = Records::new();
    for (at, key, headers, value) in &written {
        records.push(*at, key, headers, |out| out.extend_from_slice(value));
    }
    let mut writer = broker.writer(&unique("writer")).unwrap();
    writer.begin().unwrap();
    writer.append(&topic, 0, &records).unwrap();
    records.clear();
    writer.commit().unwrap();
    let read = read(&mut *reader_of(&*broker, &topic), written.len());
    for (row, (at, key, headers, value)) in read.iter().zip(&written) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        assert_eq!((row.timestamp_ms, &*row.key, &*row.value, &row.headers), (*at, *key, *value, &headers));
    }
}

pub fn a_large_record_comes_back(make: Make<'_>) {
    const BYTES: usize = 2 << 20;
    let broker = make();
    let topic = topic(&*broker, 1, Cleanup::Delete);
    // No repetition that a compressor could live on.
    let mut state = 1_u32;
    let large: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(BYTES)
    .collect();
    let mut writer = broker.writer(&unique("writer")).unwrap();
    writer.begin().unwrap();
    writer.append(&topic, 0, &records([b"small".as_slice(), &large, b"small"])).unwrap();
    writer.commit().unwrap();
    let rows = read(&mut *reader_of(&*broker, &topic), 3);
    assert!(rows[1].value == large, "it came back changed");
}

pub fn reopening_changes_nothing(make: Make<'_>) {
    let broker = make();
    let topic = topic(&*broker, 1, Cleanup::Delete);
    let group = group(&*broker, &[&topic]);
    let partition = TopicPartition::new(&topic, 0);
    write(&mut *broker.writer(&unique("writer")).unwrap(), &topic, 0, &["1", "2"]);
    let rows = read(&mut *reader_of(&*broker, &topic), 2);
    let mut reader = broker.assign(Some(&group), &[(partition.clone(), rows[0].offset)]).unwrap();
    reader.commit(&[commit_at(&partition, rows[1].offset, "plan")]).unwrap();
    let before = broker.describe(&topic).unwrap().unwrap();
    drop(reader);
    drop(broker);
    let broker = make();
    let after = broker.describe(&topic).unwrap().unwrap();
    assert_eq!((&before.incarnation, &before.partitions), (&after.incarnation, &after.partitions));
    assert_eq!(committed(&*broker, &group, &partition), Some((rows[1].offset, "plan".to_owned())));
    assert_eq!(read(&mut *reader_of(&*broker, &topic), 2), rows);
}
