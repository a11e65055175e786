//! The port: what every backend does, and the values that cross it.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Batch, Cancel, Records, Result};

/// The most a commit's metadata may hold, in bytes (Kafka's `offset.metadata.max.bytes`).
pub const METADATA_MAX_BYTES: usize = 4096;

/// An offset: the next record to read. Everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

/// A topic's full name, prefix included. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: Topic,
    pub partition: u32,
}

/// What a log's offsets belong to: made with `broker.db`, the topic's id on Kafka. A topic that was
/// deleted and made again has another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation(pub Arc<str>);

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    pub topic: Topic,
    pub partitions: u32,
    pub cleanup: Cleanup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Kept until every registered group has done with it (embedded) or for ever (Kafka).
    Delete,
    /// The latest record of each key is kept.
    Compact,
    /// As `Delete`, but what every group has done with stays until the topic exceeds these bytes
    /// (embedded): so that people can still look at it.
    Bounded { bytes: u64 },
}

/// A topic as it is.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    pub incarnation: Incarnation,
    /// By partition number.
    pub partitions: Vec<LogBounds>,
}

/// The readable part of a partition: `start` is the oldest offset kept; `end` the one after the
/// last readable record (not after Kafka's commit markers). Equal when nothing can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    pub start: Offset,
    pub end: Offset,
}

/// A group's committed position in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub offset: Offset,
    /// At most [`METADATA_MAX_BYTES`].
    pub metadata: String,
}

/// A position to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub partition: TopicPartition,
    /// Next to read. Back-pressure goes by the least of these over the groups.
    pub offset: Offset,
    /// What a restart reads again from, at most `offset`. Deletion goes by the least of these.
    pub keep_from: Offset,
    /// At most [`METADATA_MAX_BYTES`].
    pub metadata: String,
}

/// A member of a group, and the topics that it reads.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub group: String,
    /// The member's name within the group; the same name again takes the old one's place
    /// (Kafka's `group.instance.id`).
    pub instance: String,
    pub topics: Vec<Topic>,
}

/// A partition that was assigned to this reader.
#[derive(Clone, Debug)]
pub struct Assigned {
    pub partition: TopicPartition,
    pub incarnation: Incarnation,
    pub bounds: LogBounds,
    pub committed: Option<Committed>,
}

/// Whose offsets a transaction commits: the group and this member's generation in it, so that a
/// stale member is refused. Opaque to callers.
#[derive(Clone, Debug)]
pub struct Membership {
    pub group: String,
    pub instance: String,
    pub generation: u64,
    /// What else the backend needs, in its own form.
    pub token: Arc<dyn std::any::Any + Send + Sync>,
}

/// Bounds of one poll. It returns as soon as something is there: it never waits for a full batch.
#[derive(Clone, Copy, Debug)]
pub struct PollLimits {
    pub records: usize,
    pub bytes: usize,
    pub timeout: Duration,
}

/// What a poll returns.
#[derive(Debug)]
pub enum Polled {
    /// These partitions are this reader's from now on, and are read from their committed offset, or
    /// from the start of the log where there is none; `seek` before the next poll to change that.
    Assigned(Vec<Assigned>),
    /// These are to be given up: finish or abort what is open on them, commit, then `release`.
    /// No records come until then.
    Revoked(Vec<TopicPartition>),
    Batch(Batch),
    /// The log is full and this group is the slowest: write out what is held and commit it now.
    Flush,
    /// Nothing came within the time-out.
    Idle,
}

pub trait Broker: Send + Sync {
    /// "embedded" or "kafka".
    fn kind(&self) -> &'static str;

    /// False from when no broker answers until one does.
    fn answers(&self) -> bool {
        true
    }

    /// How many records a transaction should hold where nothing else ends it: so many that what a
    /// commit costs by itself is little beside them, and not so many that they crowd out others.
    fn transaction_records(&self) -> usize {
        16 << 10
    }

    /// What is wrong with these topics, in words that say what would mend it; nothing where they
    /// are there and as `create_topics` makes them.
    fn faults_of_topics(&self, topics: &[TopicSpec]) -> Result<Vec<String>> {
        let _ = topics;
        Ok(Vec::new())
    }

    /// Makes the topics that are missing, as specified. One that is there with another number of
    /// partitions is refused.
    fn create_topics(&self, topics: &[TopicSpec]) -> Result<()>;

    /// What this user may not do with these topics, and the parts together do.
    fn missing_rights(&self, topics: &[Topic]) -> Result<Vec<String>> {
        let _ = topics;
        Ok(Vec::new())
    }

    /// None if there is no such topic.
    fn describe(&self, topic: &Topic) -> Result<Option<TopicInfo>>;

    /// The same, once all that was appended by now is committed or aborted: a transaction that any
    /// writer has open hides what was committed after it began. `Error::Retry` if one stays open for
    /// longer than transactions may.
    fn describe_settled(&self, topic: &Topic, cancel: &Cancel) -> Result<Option<TopicInfo>> {
        let _ = cancel;
        self.describe(topic)
    }

    /// `Error::Stop` if one of these logs is another by now. To be asked after records were read and
    /// before what was made of them is kept; the commit of a group's member asks by itself.
    fn check_logs(&self, logs: &[(Topic, Incarnation)]) -> Result<()> {
        let _ = logs;
        Ok(())
    }

    /// Embedded: from now on nothing that the group has not done with is deleted. One that is
    /// registered after the first write starts at the oldest record kept; what it misses is
    /// returned (records by partition). Kafka: there is nothing to register, and what was deleted before
    /// the group has committed anything is told each time.
    fn register_group(&self, group: &str, topics: &[Topic]) -> Result<Vec<(TopicPartition, u64)>>;

    /// Embedded: the groups that are registered, whether they run or not.
    fn registered_groups(&self) -> Vec<String> {
        Vec::new()
    }

    /// Embedded: from now on nothing is kept for the group, and nothing waits for it. What it has committed stays.
    fn forget_group(&self, group: &str) -> Result<()> {
        let _ = group;
        Ok(())
    }

    /// What the group has committed, in the order of `partitions`.
    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>>;

    /// A transactional writer. It takes the place of any earlier one of that id, which is fenced
    /// and whose open transaction is aborted, before this returns.
    fn writer(&self, transactional_id: &str) -> Result<Box<dyn Writer>>;

    /// Joins a group; its first polls return the assignment.
    fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Reader>>;

    /// A reader of these partitions from these offsets, outside any assignment. `commit` goes to
    /// `group` where one is given and is refused otherwise.
    fn assign(&self, group: Option<&str>, partitions: &[(TopicPartition, Offset)]) -> Result<Box<dyn Reader>>;
}

/// Transactions. At most one is open; dropping a writer aborts it.
pub trait Writer: Send {
    /// Waits until the log has room (embedded), or returns `Error::Cancelled`. Call it with no
    /// transaction open. A writer that never calls it is never held back.
    fn wait_for_room(&mut self, cancel: &Cancel) -> Result<()>;

    /// For a writer whose records have no time of their own: waits while a reader of this process is
    /// so far behind that what it reads is in memory no more, as long as it makes headway; or returns
    /// `Error::Cancelled`. Call it with no transaction open.
    fn wait_for_readers(&mut self, cancel: &Cancel) -> Result<()>;

    fn begin(&mut self) -> Result<()>;

    /// Appends to the open transaction. The bytes are copied; the records may be used again.
    fn append(&mut self, topic: &Topic, partition: u32, records: &Records) -> Result<()>;

    /// The same of records that the caller has done with, whatever becomes of the transaction: they
    /// are empty afterwards. A backend that keeps records need not copy them.
    fn append_taking(&mut self, topic: &Topic, partition: u32, records: &mut Records) -> Result<()> {
        self.append(topic, partition, records)?;
        records.clear();
        Ok(())
    }

    /// Adds offsets of a group to the open transaction; `Error::Abort` if the group has gone on
    /// without this member (now, or when the transaction commits), `Error::Fenced` if another of the
    /// same instance has taken its place.
    fn commit_offsets(&mut self, membership: &Membership, commits: &[Commit]) -> Result<()>;

    /// All of it becomes visible at once, or nothing does.
    fn commit(&mut self) -> Result<()>;

    fn abort(&mut self) -> Result<()>;
}

/// Committed records only, in offset order within a partition.
pub trait Reader: Send {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled>;

    /// Reads on from `offset`, within the log's bounds or an error (never a silent jump).
    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()>;

    /// Commits offsets alone. `Error::Abort` if the group has gone on without this member: the next
    /// polls tell what it has now. `Error::Fenced` if another of the same instance has its place.
    fn commit(&mut self, commits: &[Commit]) -> Result<()>;

    /// Gives up the partitions that the last `Polled::Revoked` named.
    fn release(&mut self) -> Result<()>;

    /// For `Writer::commit_offsets`. None outside a group.
    fn membership(&self) -> Option<Membership>;

    /// Leaves the group, so that its partitions go to others at once.
    fn leave(&mut self) -> Result<()>;
}

impl Topic {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Topic {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl TopicPartition {
    pub fn new(topic: &Topic, partition: u32) -> Self {
        Self { topic: topic.clone(), partition }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As Kafka's tools write it: `topic-partition`.
impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
