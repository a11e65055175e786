//! The one transaction that every commit is: records, offsets and deletion together.
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::Core;
use super::codec::Blob;
use super::groups::{MemberKey, Position};
use super::log::{OFFSET_MAX, PartitionId, State};
use super::schema::explain;
use super::trim::Cut;
use crate::{Error, METADATA_MAX_BYTES, Records, Result};

/// Records to append to one partition: they become one row, or in a compacted topic one each.
pub(super) struct Append {
    pub(super) partition: PartitionId,
    pub(super) records: Arc<Records>,
    pub(super) blobs: Vec<Blob>,
    /// A blob for each record, rather than one for all.
    pub(super) singly: bool,
}

/// A position to commit, and whose it is. Without a member it is taken from anyone.
#[derive(Clone, Debug)]
pub(super) struct GroupCommit {
    pub(super) group: String,
    pub(super) member: Option<MemberKey>,
    pub(super) partition: PartitionId,
    pub(super) position: Position,
}

/// A transactional id and the epoch of the writer that holds it.
#[derive(Clone, Debug)]
pub(super) struct WriterKey {
    pub(super) id: String,
    pub(super) epoch: u64,
}

impl State {
    pub(super) fn check_writer(&self, key: &WriterKey) -> Result<()> {
        if self.writers.get(&key.id) == Some(&key.epoch) {
            return Ok(());
        }
        Err(Error::Fenced(format!("another writer has taken the transactional id {}", key.id)))
    }

    pub(super) fn check_commit(&self, commit: &GroupCommit) -> Result<()> {
        let (log, position) = (self.log(commit.partition), &commit.position);
        if let Some(member) = commit.member {
            self.check_member(&commit.group, member, commit.partition)?;
        }
        let refuse = |why: String| Err(Error::Stop(format!("group {}, {}: {why}", commit.group, log.name)));
        if position.metadata.len() > METADATA_MAX_BYTES {
            let bytes = position.metadata.len();
            return refuse(format!("metadata of {bytes} bytes; {METADATA_MAX_BYTES} is the most"));
        }
        if position.offset < 0 || position.offset > log.end {
            return refuse(format!("offset {} is outside the log, which ends at {}", position.offset, log.end));
        }
        if position.keep_from > position.offset || position.keep_from < 0 {
            return refuse(format!("keep-from {} must not pass offset {}", position.keep_from, position.offset));
        }
        Ok(())
    }
}

impl Core {
    /// Makes all of it durable and visible, or nothing. Held throughout: the database, so that
    /// nobody can be fenced between the check and the commit. The state only before and after.
    pub(super) fn commit(&self, writer: Option<&WriterKey>, appends: &[Append], commits: &[GroupCommit]) -> Result<()> {
        let database = self.database();
        let (bases, cuts) = self.plan(writer, appends, commits)?;
        in_transaction(&database, |database| {
            append(database, appends, &bases)?;
            commit_positions(database, commits)?;
            cuts.iter().try_for_each(|cut| delete(database, cut))
        })
        .map_err(|e| explain(&self.path, e))?;
        let mut state = self.state();
        let mut written_bytes = 0;
        for (written, base) in appends.iter().zip(bases) {
            let bytes = written.blobs.iter().map(|blob| blob.bytes().len() as u64).sum();
            written_bytes += bytes;
            state.appended(written.partition, base, &written.records, bytes);
            if matches!(state.log(written.partition).cleanup, crate::Cleanup::Bounded { .. }) {
                state.trim_later(written.partition);
            }
        }
        for commit in commits {
            let group = state.group_mut(&commit.group);
            group.positions.insert(commit.partition, commit.position.clone());
            group.asked_to_flush = false;
            state.trim_later(commit.partition);
        }
        state.trimmed(&cuts);
        drop(state);
        drop(database);
        self.checkpointer.committed(written_bytes);
        self.changed.notify_all();
        if !commits.is_empty() {
            self.room.notify_all();
        }
        Ok(())
    }

    /// Checks all, and says where each append stands and what is deleted along with it.
    fn plan(
        &self,
        writer: Option<&WriterKey>,
        appends: &[Append],
        commits: &[GroupCommit],
    ) -> Result<(Vec<i64>, Vec<Cut>)> {
        let state = self.state();
        if let Some(writer) = writer {
            state.check_writer(writer)?;
        }
        commits.iter().try_for_each(|commit| state.check_commit(commit))?;
        let mut bases: Vec<i64> = Vec::with_capacity(appends.len());
        let mut bytes = 0;
        for (i, append) in appends.iter().enumerate() {
            let before = appends[..i].iter().filter(|earlier| earlier.partition == append.partition);
            let base =
                state.log(append.partition).end + before.map(|earlier| earlier.records.len() as i64).sum::<i64>();
            if base + append.records.len() as i64 > OFFSET_MAX {
                return Err(Error::Stop(format!(
                    "{}: the log is at its last offset",
                    state.log(append.partition).name
                )));
            }
            bases.push(base);
            bytes += append.blobs.iter().map(|blob| blob.bytes().len() as u64).sum::<u64>();
        }
        Ok((bases, state.plan_trim(bytes)))
    }
}

/// Rolls back whatever fails, the commit itself included.
pub(super) fn in_transaction<T>(
    database: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let run = |sql: &str| database.prepare_cached(sql)?.execute([]).map(drop);
    run("BEGIN IMMEDIATE")?;
    let done = work(database).and_then(|value| {
        fail::fail_point!("broker::before_commit");
        run("COMMIT")?;
        fail::fail_point!("broker::after_commit");
        Ok(value)
    });
    if done.is_err() && !database.is_autocommit() {
        // The first error is the one to tell.
        let _ = run("ROLLBACK");
    }
    done
}

fn append(database: &Connection, appends: &[Append], bases: &[i64]) -> rusqlite::Result<()> {
    let mut insert = database.prepare_cached("INSERT INTO batch (id, data) VALUES (?1, ?2)")?;
    let mut replace = database.prepare_cached(
        "INSERT INTO latest (id, partition, key, data) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (partition, key) DO UPDATE SET id = excluded.id, data = excluded.data",
    )?;
    let mut advance = database.prepare_cached("UPDATE topic_partition SET next_offset = ?2 WHERE id = ?1")?;
    for (append, base) in appends.iter().zip(bases) {
        let (id, records) = (append.partition, &append.records);
        match append.blobs.as_slice() {
            [whole] if !append.singly => drop(insert.execute(params![id.row(*base), whole.bytes()])?),
            singles => {
                for (i, single) in singles.iter().enumerate() {
                    let record = records.get(i, crate::Offset(base + i as i64));
                    replace.execute(params![id.row(record.offset.0), id.0, record.key, single.bytes()])?;
                }
            }
        }
        advance.execute(params![id.0, base + records.len() as i64])?;
    }
    Ok(())
}

fn commit_positions(database: &Connection, commits: &[GroupCommit]) -> rusqlite::Result<()> {
    let mut upsert = database.prepare_cached(
        "INSERT INTO position (name, partition, next_offset, keep_from, metadata) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (name, partition) DO UPDATE SET \
         next_offset = excluded.next_offset, keep_from = excluded.keep_from, metadata = excluded.metadata",
    )?;
    for GroupCommit { group, partition, position, .. } in commits {
        upsert.execute(params![group, partition.0, position.offset, position.keep_from, position.metadata])?;
    }
    Ok(())
}

fn delete(database: &Connection, cut: &Cut) -> rusqlite::Result<()> {
    let (from, to) = (cut.partition.row(cut.old_start), cut.partition.row(cut.start));
    database.prepare_cached("DELETE FROM batch WHERE id >= ?1 AND id < ?2")?.execute([from, to]).map(drop)
}
