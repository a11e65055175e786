//! A broker in memory that hands out what it holds in random pieces, and may end a run anywhere.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use broker::{
    Batch, Broker, Cancel, Commit, Committed, Error, Incarnation, LogBounds, Membership, Offset, PollLimits, Polled,
    Reader, Records, Result, Subscription, Topic, TopicInfo, TopicPartition, TopicSpec, Writer,
};

#[derive(Clone)]
pub(crate) struct Double(Arc<Mutex<State>>);

pub(crate) struct State {
    pub(crate) incarnation: &'static str,
    pub(crate) logs: HashMap<Topic, Vec<Arc<Records>>>,
    /// What a log no longer keeps.
    pub(crate) start: Offset,
    pub(crate) committed: HashMap<TopicPartition, Offset>,
    /// Cancelled once all is committed, or when nothing comes of waiting.
    pub(crate) cancel: Cancel,
    /// Whether it was cancelled although not all was committed.
    pub(crate) stuck: bool,
    /// Calls of poll and commit until the run is ended, as by kill -9.
    pub(crate) crash_in: Option<u32>,
    /// Whether `Polled::Flush` is mixed in.
    pub(crate) flush: bool,
    random: u64,
    idle: u32,
}

struct DoubleReader {
    state: Arc<Mutex<State>>,
    positions: Vec<(TopicPartition, Offset)>,
}

impl Double {
    pub(crate) fn new(logs: HashMap<Topic, Vec<Records>>, seed: u64) -> Self {
        let logs = logs.into_iter().map(|(topic, logs)| (topic, logs.into_iter().map(Arc::new).collect())).collect();
        Self(Arc::new(Mutex::new(State {
            incarnation: "one",
            logs,
            start: Offset(0),
            committed: HashMap::new(),
            cancel: Cancel::new(),
            stuck: false,
            crash_in: None,
            flush: false,
            random: seed | 1,
            idle: 0,
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Ready for the next start.
    pub(crate) fn restarted(&self, crash_in: Option<u32>) -> Cancel {
        let mut state = self.state();
        (state.cancel, state.stuck, state.idle, state.crash_in) = (Cancel::new(), false, 0, crash_in);
        state.cancel.clone()
    }

    pub(crate) fn committed_offsets(&self) -> HashMap<TopicPartition, Offset> {
        self.state().committed.clone()
    }

    pub(crate) fn ends(&self) -> HashMap<TopicPartition, Offset> {
        self.state().ends()
    }
}

impl State {
    fn next(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn ends(&self) -> HashMap<TopicPartition, Offset> {
        let of_topic = |(topic, logs): (&Topic, &Vec<Arc<Records>>)| {
            let ends: Vec<_> = (0..)
                .zip(logs)
                .map(|(i, log)| (TopicPartition::new(topic, i), Offset(i64::try_from(log.len()).unwrap())))
                .collect();
            ends
        };
        self.logs.iter().flat_map(of_topic).collect()
    }

    fn crash(&mut self) -> Result<()> {
        match &mut self.crash_in {
            Some(0) => Err(Error::Stop("killed".into())),
            Some(n) => {
                *n -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Broker for Double {
    fn kind(&self) -> &'static str {
        "double"
    }

    fn create_topics(&self, _: &[TopicSpec]) -> Result<()> {
        Ok(())
    }

    fn describe(&self, topic: &Topic) -> Result<Option<TopicInfo>> {
        let state = self.state();
        let bounds = |log: &Arc<Records>| LogBounds { start: state.start, end: Offset(log.len().try_into().unwrap()) };
        Ok(state.logs.get(topic).map(|logs| TopicInfo {
            incarnation: Incarnation(state.incarnation.into()),
            partitions: logs.iter().map(bounds).collect(),
        }))
    }

    fn register_group(&self, _: &str, _: &[Topic]) -> Result<Vec<(TopicPartition, u64)>> {
        Ok(Vec::new())
    }

    fn committed(&self, _: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>> {
        let state = self.state();
        let of = |partition| state.committed.get(partition);
        Ok(partitions
            .iter()
            .map(|partition| of(partition).map(|offset| Committed { offset: *offset, metadata: String::new() }))
            .collect())
    }

    fn writer(&self, _: &str) -> Result<Box<dyn Writer>> {
        Err(Error::Stop("marts write nothing".into()))
    }

    fn subscribe(&self, _: &Subscription) -> Result<Box<dyn Reader>> {
        Err(Error::Stop("marts take their partitions".into()))
    }

    fn assign(&self, _: Option<&str>, partitions: &[(TopicPartition, Offset)]) -> Result<Box<dyn Reader>> {
        Ok(Box::new(DoubleReader { state: self.0.clone(), positions: partitions.to_vec() }))
    }
}

impl Reader for DoubleReader {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled> {
        let mut state = self.state.lock().unwrap();
        state.crash()?;
        if state.flush && state.next(5) == 0 {
            return Ok(Polled::Flush);
        }
        let ends = state.ends();
        let open: Vec<_> =
            (0..self.positions.len()).filter(|i| self.positions[*i].1 < ends[&self.positions[*i].0]).collect();
        if open.is_empty() {
            let caught_up = ends.iter().all(|(partition, end)| state.committed.get(partition) == Some(end));
            state.idle += 1;
            if caught_up || state.idle > 50 {
                state.stuck = !caught_up;
                state.cancel.cancel();
            }
            return Ok(Polled::Idle);
        }
        let chosen = open[usize::try_from(state.next(open.len() as u64)).unwrap()];
        let take = usize::try_from(1 + state.next(7)).unwrap().min(limits.records);
        let (partition, position) = &mut self.positions[chosen];
        let log = state.logs[&partition.topic][partition.partition as usize].clone();
        let batch = Batch::contiguous(partition.topic.clone(), partition.partition, Offset(0), log)
            .slice(usize::try_from(position.0).unwrap(), take);
        *position = batch.next_offset().unwrap();
        Ok(Polled::Batch(batch))
    }

    fn seek(&mut self, _: &TopicPartition, _: Offset) -> Result<()> {
        Err(Error::Stop("marts do not seek".into()))
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        state.crash()?;
        for commit in commits {
            assert_eq!(commit.offset, commit.keep_from);
            state.committed.insert(commit.partition.clone(), commit.offset);
        }
        state.crash()
    }

    fn release(&mut self) -> Result<()> {
        Ok(())
    }

    fn membership(&self) -> Option<Membership> {
        None
    }

    fn leave(&mut self) -> Result<()> {
        Ok(())
    }
}
