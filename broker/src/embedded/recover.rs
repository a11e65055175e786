//! What is read and checked when a log is opened: every blob's checksum, and that the rows of each
//! partition follow one another up to where its end was committed.
use std::path::Path;

use rusqlite::{Connection, Row};

use super::codec;
use super::groups::Position;
use super::log::{OFFSET_BITS, OFFSET_MAX, PartitionId, State};
use super::schema::{damaged, explain};
use crate::{Cleanup, Error, Incarnation, Result, Topic, TopicPartition};

pub(super) fn load(path: &Path, database: &Connection) -> Result<(Incarnation, State)> {
    let failed = |e| explain(path, e);
    let incarnation: String =
        database.query_row("SELECT incarnation FROM log", [], |row| row.get(0)).map_err(failed)?;
    let mut state = State::default();
    let topics = rows(database, "SELECT name, cleanup, max_bytes FROM topic", |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<i64>>(2)?))
    })
    .map_err(failed)?;
    for (name, cleanup, bytes) in topics {
        let cleanup = match cleanup.as_str() {
            "compact" => Cleanup::Compact,
            "bounded" => Cleanup::Bounded { bytes: bytes.unwrap_or(0).max(0).cast_unsigned() },
            _ => Cleanup::Delete,
        };
        state.add_topic(&name.as_str().into(), cleanup);
    }
    let partitions =
        rows(database, "SELECT id, topic, partition, next_offset FROM topic_partition ORDER BY id", |row| {
            Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?, row.get::<_, u32>(2)?, row.get::<_, i64>(3)?))
        })
        .map_err(failed)?;
    for (id, topic, partition, end) in partitions {
        let topic: Topic = topic.as_str().into();
        let known = state.add_partition(&topic, end);
        if known.0 != id || state.partitions.last().is_none_or(|log| log.name != TopicPartition::new(&topic, partition))
        {
            return Err(damaged(path, &format!("partition {topic}-{partition} does not fit the others")));
        }
    }
    load_batches(path, database, &mut state)?;
    let registered = rows(database, "SELECT name, topic FROM registered", |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })
    .map_err(failed)?;
    for (group, topic) in registered {
        state.group_mut(&group).registered.insert(topic.as_str().into());
    }
    let positions = rows(database, "SELECT name, partition, next_offset, keep_from, metadata FROM position", |row| {
        let position = Position { offset: row.get(2)?, keep_from: row.get(3)?, metadata: row.get(4)? };
        Ok((row.get::<_, String>(0)?, PartitionId(row.get(1)?), position))
    })
    .map_err(failed)?;
    for (group, partition, position) in positions {
        state.group_mut(&group).positions.insert(partition, position);
    }
    state.to_trim = state.ids().collect();
    Ok((Incarnation(incarnation.as_str().into()), state))
}

fn rows<T>(
    database: &Connection,
    query: &str,
    map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    database.prepare(query)?.query_map([], map)?.collect()
}

fn load_batches(path: &Path, database: &Connection, state: &mut State) -> Result<()> {
    let failed = |e| explain(path, e);
    let mut query = database.prepare("SELECT id, data FROM batch ORDER BY id").map_err(failed)?;
    let mut found = query.query([]).map_err(failed)?;
    // Where the rows read so far end.
    let mut at: Option<(PartitionId, i64)> = None;
    while let Some(row) = found.next().map_err(failed)? {
        let key: i64 = row.get(0).map_err(failed)?;
        let id = PartitionId(u32::try_from(key >> OFFSET_BITS).unwrap_or(u32::MAX));
        let base = key & OFFSET_MAX;
        if id.0 as usize >= state.partitions.len() {
            return Err(damaged(path, &format!("row {key} belongs to no partition")));
        }
        if at.is_none_or(|(before, _)| before != id) {
            ends_where_committed(path, state, at)?;
            at = Some((id, base));
        }
        let blob = row.get_ref(1).and_then(|data| Ok(data.as_blob()?)).map_err(failed)?;
        let log = state.log_mut(id);
        let count = codec::check(blob).map_err(|what| torn(path, &log.name, base, what))?;
        if let Some((_, end)) = at
            && end != base
        {
            return Err(torn(path, &log.name, end, &format!("the records up to offset {base} are missing")));
        }
        log.push_row(base, blob.len() as u64);
        at = Some((id, base + i64::from(count)));
    }
    ends_where_committed(path, state, at)
}

fn ends_where_committed(path: &Path, state: &State, at: Option<(PartitionId, i64)>) -> Result<()> {
    let Some((id, end)) = at else { return Ok(()) };
    let log = state.log(id);
    if end == log.end {
        return Ok(());
    }
    Err(torn(path, &log.name, end, &format!("the log should reach offset {}", log.end)))
}

/// A fault of one stored batch.
pub(super) fn torn(path: &Path, partition: &TopicPartition, offset: i64, what: &str) -> Error {
    damaged(path, &format!("the batch of {partition} at offset {offset} is damaged: {what}"))
}
