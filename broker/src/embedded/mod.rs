//! The backend for one process: the log is one SQLite database that this process owns.
//!
//! | file | what it holds |
//! |---|---|
//! | `schema` | the database file: tables, settings, lock, errors |
//! | `recover` | what is read and checked when it is opened |
//! | `codec` | how a batch of records becomes one blob |
//! | `log` | partitions and their bounds in memory, the cache of their tails |
//! | `groups` | registered groups, their positions, the coordinator |
//! | `commit` | the one transaction that every commit is |
//! | `checkpoint` | from the write-ahead log into the database, beside the commits |
//! | `trim` | what may be deleted, and whether there is room |
//! | `writer`, `reader` | the port's two halves |
//!
//! Two locks: the database (held for a transaction), then the state (held briefly, never across
//! I/O), always in this order. Compressing and decompressing happen under neither.

mod checkpoint;
mod codec;
mod commit;
mod groups;
mod log;
mod reader;
mod recover;
mod schema;
#[cfg(test)]
mod tests;
mod trim;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, params};

use self::checkpoint::Checkpointer;
use self::commit::{WriterKey, in_transaction};
use self::log::{PartitionId, State};
use self::reader::EmbeddedReader;
pub use self::schema::Lock;
use self::schema::explain;
use self::writer::EmbeddedWriter;
use crate::{
    Broker, Cleanup, Committed, Error, Incarnation, LogBounds, Offset, Reader, Result, Subscription, Topic, TopicInfo,
    TopicPartition, TopicSpec, Writer,
};

/// What a commit survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A killed process. After a power loss the log may be behind what was made from it.
    #[default]
    Process,
    /// A power loss too: every commit waits for the disk.
    Power,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Stored bytes that the slowest group has not committed, from which on a writer that asks
    /// for room has to wait.
    pub max_log_bytes: u64,
    /// Memory for the latest batches, over all partitions.
    pub tail_cache_bytes: usize,
    pub durability: Durability,
    /// Committed bytes after which they are moved from the write-ahead log into the database. In fewer,
    /// more of what is moved is still in a cache; in more, the disk is waited for less often.
    pub checkpoint_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_log_bytes: 256 << 20,
            tail_cache_bytes: 40 << 20,
            durability: Durability::default(),
            checkpoint_bytes: 48 << 20,
        }
    }
}

/// A broker in this process. Its readers and writers keep the database open.
pub struct Embedded(Arc<Core>);

struct Core {
    /// Before the database: it ends, then that is closed.
    checkpointer: Checkpointer,
    database: Arc<Mutex<Connection>>,
    path: PathBuf,
    options: Options,
    incarnation: Incarnation,
    state: Mutex<State>,
    /// Records came, or a group changed.
    changed: Condvar,
    /// A group has committed.
    room: Condvar,
    /// Last, so that it is let go when the database is closed.
    _lock: Lock,
}

impl Embedded {
    /// Opens the database at `path`, or makes it; the folder must be there. It is this process's
    /// alone until the broker and all its readers and writers are dropped.
    ///
    /// # Errors
    /// [`Error::Stop`] if another process has it, or if it is not a log or a damaged one.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Arc<Self>> {
        Self::open_locked(Lock::take(path.as_ref())?, options)
    }

    /// The same, under a lock that was taken before.
    ///
    /// # Errors
    /// [`Error::Stop`] if it is not a log or a damaged one.
    pub fn open_locked(lock: Lock, options: Options) -> Result<Arc<Self>> {
        let path = lock.database.clone();
        let database = schema::open(&path, &options)?;
        let (incarnation, mut state) = recover::load(&path, &database)?;
        let database = Arc::new(Mutex::new(database));
        let checkpointer = Checkpointer::start(&path, &options, &database)?;
        state.cache_max_bytes = options.tail_cache_bytes;
        Ok(Arc::new(Self(Arc::new(Core {
            checkpointer,
            database,
            path,
            options,
            incarnation,
            state: Mutex::new(state),
            changed: Condvar::new(),
            room: Condvar::new(),
            _lock: lock,
        }))))
    }

    /// Made with the database.
    pub fn incarnation(&self) -> &Incarnation {
        &self.0.incarnation
    }

    /// Stored bytes that some registered group has not committed yet.
    pub fn held_bytes(&self) -> u64 {
        self.0.state().held(None).0
    }
}

impl Core {
    fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_change(&self, timeout: Duration, idle: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_timeout_while(self.state(), timeout, |state| idle(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn wait_for_room<'a>(&self, state: MutexGuard<'a, State>, timeout: Duration) -> MutexGuard<'a, State> {
        self.room.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
    }

    /// With the database in hand, so that no commit of this member is under way.
    fn leave(&self, group: &str, member: u64) {
        let database = self.database();
        self.state().leave(group, member);
        drop(database);
        self.changed.notify_all();
    }

    /// Changes the database, and the state once that is committed.
    fn change<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
        apply: impl FnOnce(&mut State, T),
    ) -> Result<()> {
        let database = self.database();
        let done = in_transaction(&database, work).map_err(|e| explain(&self.path, e))?;
        apply(&mut self.state(), done);
        drop(database);
        self.changed.notify_all();
        Ok(())
    }
}

impl Broker for Embedded {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<()> {
        for spec in topics {
            let (first, there) = {
                let state = self.0.state();
                (state.partitions.len(), state.topics.get(&spec.topic).map(|topic| topic.partitions.len()))
            };
            match there {
                Some(partitions) if partitions == spec.partitions as usize => continue,
                Some(partitions) => {
                    return Err(Error::Stop(format!(
                        "topic {} has {partitions} partitions, {} were asked for; ask for {partitions}, or take \
                         another data folder",
                        spec.topic, spec.partitions
                    )));
                }
                None if spec.partitions == 0 => {
                    return Err(Error::Stop(format!("topic {}: it needs at least one partition", spec.topic)));
                }
                None => {}
            }
            let (cleanup, max_bytes) = match spec.cleanup {
                Cleanup::Delete => ("delete", None),
                Cleanup::Compact => ("compact", None),
                Cleanup::Bounded { bytes } => ("bounded", Some(i64::try_from(bytes).unwrap_or(i64::MAX))),
            };
            let name = spec.topic.as_str();
            let insert = |database: &Connection| {
                database.execute(
                    "INSERT INTO topic (name, partitions, cleanup, max_bytes) VALUES (?1, ?2, ?3, ?4)",
                    params![name, spec.partitions, cleanup, max_bytes],
                )?;
                for partition in 0..spec.partitions {
                    database.execute(
                        "INSERT INTO topic_partition (id, topic, partition, next_offset) VALUES (?1, ?2, ?3, 0)",
                        params![first as i64 + i64::from(partition), name, partition],
                    )?;
                }
                Ok(())
            };
            self.0.change(insert, |state, ()| {
                state.add_topic(&spec.topic, spec.cleanup);
                for _ in 0..spec.partitions {
                    state.add_partition(&spec.topic, 0);
                }
            })?;
        }
        Ok(())
    }

    fn describe(&self, topic: &Topic) -> Result<Option<TopicInfo>> {
        let state = self.0.state();
        Ok(state.topics.get(topic).map(|found| {
            let partitions: Vec<LogBounds> = found.partitions.iter().map(|id| state.log(*id).bounds()).collect();
            TopicInfo { incarnation: self.0.incarnation.clone(), partitions }
        }))
    }

    fn register_group(&self, group: &str, topics: &[Topic]) -> Result<Vec<(TopicPartition, u64)>> {
        let (new, missed) = {
            let state = self.0.state();
            let registered = state.groups.get(group).map(|group| &group.registered);
            let new: Vec<Topic> = topics
                .iter()
                .filter(|topic| !registered.is_some_and(|registered| registered.contains(*topic)))
                .cloned()
                .collect();
            let mut missed = Vec::new();
            for topic in &new {
                state.id(topic, 0)?;
                for id in state.topics.get(topic).map_or(&[][..], |topic| &topic.partitions) {
                    let log = state.log(*id);
                    // One that was forgotten has read some of it.
                    let read = reader::committed(&state, group, *id).map_or(0, |committed| committed.offset.0);
                    if log.start() > read {
                        missed.push((log.name.clone(), (log.start() - read).cast_unsigned()));
                    }
                }
            }
            (new, missed)
        };
        if !new.is_empty() {
            let insert = |database: &Connection| {
                new.iter().try_for_each(|topic| {
                    let insert = "INSERT OR IGNORE INTO registered (name, topic) VALUES (?1, ?2)";
                    database.execute(insert, params![group, topic.as_str()]).map(drop)
                })
            };
            self.0.change(insert, |state, ()| state.group_mut(group).registered.extend(new.iter().cloned()))?;
        }
        Ok(missed)
    }

    fn registered_groups(&self) -> Vec<String> {
        let state = self.0.state();
        let registered = state.groups.iter().filter(|(_, group)| !group.registered.is_empty());
        let mut names: Vec<String> = registered.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    fn forget_group(&self, group: &str) -> Result<()> {
        let delete = |database: &Connection| {
            database.execute("DELETE FROM registered WHERE name = ?1", params![group]).map(drop)
        };
        self.0.change(delete, |state, ()| state.group_mut(group).registered.clear())
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>> {
        let state = self.0.state();
        partitions.iter().map(|partition| Ok(reader::committed(&state, group, state.id_of(partition)?))).collect()
    }

    fn writer(&self, transactional_id: &str) -> Result<Box<dyn Writer>> {
        // With the database in hand, so that no commit of the earlier writer is under way.
        let database = self.0.database();
        let epoch = {
            let mut state = self.0.state();
            let epoch = state.writers.entry(transactional_id.to_owned()).or_default();
            *epoch += 1;
            *epoch
        };
        drop(database);
        let key = WriterKey { id: transactional_id.to_owned(), epoch };
        Ok(Box::new(EmbeddedWriter::new(Arc::clone(&self.0), key)))
    }

    fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Reader>> {
        // What it is going to read must not go while it reads.
        self.register_group(&subscription.group, &subscription.topics)?;
        // With the database in hand, as for a writer: it may fence a member.
        let database = self.0.database();
        let (id, flushes) = {
            let mut state = self.0.state();
            (state.join(subscription), state.group_mut(&subscription.group).flushes)
        };
        drop(database);
        self.0.changed.notify_all();
        let core = Arc::clone(&self.0);
        Ok(Box::new(EmbeddedReader::of_member(core, &subscription.group, &subscription.instance, id, flushes)))
    }

    fn assign(&self, group: Option<&str>, partitions: &[(TopicPartition, Offset)]) -> Result<Box<dyn Reader>> {
        let state = self.0.state();
        let mut given: Vec<(PartitionId, TopicPartition, i64)> = Vec::with_capacity(partitions.len());
        for (partition, offset) in partitions {
            let id = state.id_of(partition)?;
            let bounds = state.log(id).bounds();
            reader::within(partition, offset.0, bounds.start.0, bounds.end.0)?;
            given.push((id, partition.clone(), offset.0));
        }
        let flushes = group.and_then(|group| state.groups.get(group)).map_or(0, |group| group.flushes);
        drop(state);
        Ok(Box::new(EmbeddedReader::of_partitions(Arc::clone(&self.0), group, given, flushes)))
    }
}
