//! How far the parts are behind, and when all have caught up: judged by what is committed, nothing
//! by what a part says of itself. Asked on a thread of its own: a broker that does not answer holds
//! nobody up.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Broker, Error, Incarnation, LogBounds, Result, Target, Topic, TopicPartition};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use prometheus::{IntGauge, Registry};
use records::{clock, topics};

use super::live::{At, Live};
use super::topics::{Group, topic};
use super::{Ended, LAKE, WAREHOUSE};

/// How often it is looked how far behind the parts are; and once the input is done, how often whether
/// all have caught up, which is asked with less.
struct Pace {
    look: Duration,
    towards_the_end: Duration,
}

const OF_ITS_OWN: Pace = Pace { look: Duration::from_millis(200), towards_the_end: Duration::from_millis(20) };
const OF_A_CLUSTER: Pace = Pace { look: Duration::from_secs(1), towards_the_end: Duration::from_millis(20) };

struct Gauges {
    lag: IntGauge,
    stuck: IntGauge,
}

/// Where logs begin and end.
type Bounds = HashMap<TopicPartition, LogBounds>;

pub(super) struct Watch {
    broker: Arc<dyn Broker>,
    groups: Vec<(Group, Gauges)>,
    /// All topics, as they were first seen: offsets mean nothing in one that was made again.
    logs: Vec<(Topic, Incarnation)>,
    prefix: String,
    events: Topic,
    outputs: Vec<Topic>,
    live: Arc<Live>,
    target: Target,
    /// Of the events, once the input is done: the ends of its feeds are before theirs.
    events_end: Option<Bounds>,
    /// Of the outputs, once the sessionizer is past that.
    outputs_end: Option<Bounds>,
}

impl Watch {
    pub(super) fn new(
        broker: Arc<dyn Broker>,
        prefix: &str,
        groups: Vec<Group>,
        live: Arc<Live>,
        target: Target,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let with_gauges = |group: Group| {
            let gauge = |what: &str, help: &str| {
                let gauge = IntGauge::new(format!("clickstream_{}_{what}", group.part), help)?;
                registry.register(Box::new(gauge.clone()))?;
                prometheus::Result::Ok(gauge)
            };
            let lag = "Offsets from what the group has committed to the last readable record, over its partitions";
            let stuck = "1 while what it writes to cannot be reached and the other parts go on without it";
            let gauges = Gauges { lag: gauge("lag_records", lag)?, stuck: gauge("stuck", stuck)? };
            Ok((group, gauges))
        };
        Ok(Self {
            broker,
            groups: groups.into_iter().map(with_gauges).collect::<prometheus::Result<_>>()?,
            logs: Vec::new(),
            prefix: prefix.to_owned(),
            events: topic(prefix, topics::EVENTS),
            outputs: consumer::lake::TOPICS.iter().map(|name| topic(prefix, name)).collect(),
            live,
            target,
            events_end: None,
            outputs_end: None,
        })
    }

    /// Until the other end of `done` is dropped; a message in it says that the input is done.
    pub(super) fn run(mut self, done: &Receiver<()>, ended: &Sender<Ended>) {
        let pace = if self.broker.kind() == "embedded" { OF_ITS_OWN } else { OF_A_CLUSTER };
        let mut input_is_done = false;
        let mut rate = Rate::default();
        // The parts have enough to ask as they begin.
        let mut look_at = clock::now() + pace.look;
        loop {
            let is_ending = input_is_done && !self.live.has_caught_up();
            match self.step(is_ending, pace.look, &mut look_at, &mut rate) {
                Ok(()) => {}
                Err(error @ (Error::Stop(_) | Error::Fenced(_))) => {
                    let _ = ended.try_send(Ended::Watch(error.into()));
                    return;
                }
                Err(error) => tracing::debug!(%error, "how far the parts are is not known now"),
            }
            let until_look = look_at.saturating_duration_since(clock::now());
            let wait = if is_ending { pace.towards_the_end.min(until_look) } else { until_look };
            match done.recv_timeout(wait) {
                Ok(()) => input_is_done = true,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn step(&mut self, is_ending: bool, every: Duration, look_at: &mut Instant, rate: &mut Rate) -> Result<()> {
        if clock::now() >= *look_at {
            let looked = self.look(rate);
            *look_at = clock::now() + every;
            looked?;
        }
        if is_ending && self.has_caught_up()? {
            self.live.set_caught_up();
            // What is shown from now on is of the end.
            *look_at = clock::now();
        }
        Ok(())
    }

    fn look(&mut self, rate: &mut Rate) -> Result<()> {
        // Where a log ends costs some reading: each is looked at once for all groups.
        let mut topics: Vec<Topic> = self.groups.iter().flat_map(|(group, _)| group.topics.clone()).collect();
        topics.sort_unstable();
        topics.dedup();
        let bounds = self.bounds(&topics)?;
        let mut seen = Vec::with_capacity(self.groups.len());
        for (group, gauges) in &self.groups {
            let at = self.positions(group, &bounds)?;
            let lag = at.iter().map(|(partition, at)| (ends_at(&bounds, partition) - at).max(0)).sum();
            let position = at.iter().map(|(_, at)| at).sum();
            gauges.lag.set(lag);
            seen.push(At { part: group.part, position, lag });
        }
        let taken = seen.first().map_or(0, |first| first.position);
        self.live.saw(seen, rate.of(taken, clock::now()));
        for (group, gauges) in &self.groups {
            gauges.stuck.set(self.live.stuck().contains(&group.part).into());
        }
        self.check_logs()
    }

    fn check_logs(&mut self) -> Result<()> {
        if self.logs.is_empty() {
            let mut logs = Vec::new();
            for topic in topics::ALL.iter().map(|name| topic(&self.prefix, name)) {
                logs.extend(self.broker.describe(&topic)?.map(|info| (topic, info.incarnation)));
            }
            self.logs = logs;
        }
        self.broker.check_logs(&self.logs)
    }

    /// What the group has committed, or where the log begins, of those of its partitions that `bounds` has.
    fn positions(&self, group: &Group, bounds: &Bounds) -> Result<Vec<(TopicPartition, i64)>> {
        let names: Vec<_> =
            bounds.keys().filter(|partition| group.topics.contains(&partition.topic)).cloned().collect();
        let committed = self.broker.committed(&group.name, &names)?;
        let start = |partition: &TopicPartition| bounds.get(partition).map_or(0, |bounds| bounds.start.0);
        let at = |(name, committed): (TopicPartition, Option<broker::Committed>)| {
            let at = committed.map_or_else(|| start(&name), |committed| committed.offset.0);
            (name, at)
        };
        Ok(names.into_iter().zip(committed).map(at).collect())
    }

    fn bounds(&self, topics: &[Topic]) -> Result<Bounds> {
        let mut all = HashMap::new();
        for topic in topics {
            let info = self.broker.describe(topic)?.ok_or_else(|| Error::Stop(format!("the topic {topic} is gone")))?;
            all.extend((0..).zip(info.partitions).map(|(n, bounds)| (TopicPartition::new(topic, n), bounds)));
        }
        Ok(all)
    }

    /// The sessionizer is past the ends of the feeds; the sinks are at or past what the topics ended
    /// at then. What others write meanwhile delays nothing.
    fn has_caught_up(&mut self) -> Result<bool> {
        if self.events_end.is_none() {
            self.events_end = Some(self.bounds(std::slice::from_ref(&self.events))?);
        }
        if self.outputs_end.is_none() {
            if !self.are_past("sessionizer", self.events_end.as_ref())? {
                return Ok(false);
            }
            // The sessionizer writes nothing more for these feeds: the ends are final.
            let bounds = self.bounds(&self.outputs)?;
            self.target.set(bounds.iter().map(|(partition, bounds)| (partition.clone(), bounds.end)).collect());
            self.outputs_end = Some(bounds);
        }
        let mut behind = Vec::new();
        for part in [LAKE, WAREHOUSE, "marts"] {
            if !self.are_past(part, self.outputs_end.as_ref())? {
                behind.push(part);
            }
        }
        self.live.set_behind(&behind);
        Ok(behind.is_empty())
    }

    /// True also of a part that does not run here.
    fn are_past(&self, part: &str, bounds: Option<&Bounds>) -> Result<bool> {
        let Some(bounds) = bounds else { return Ok(false) };
        let Some((group, _)) = self.groups.iter().find(|(group, _)| group.part == part) else { return Ok(true) };
        let at = self.positions(group, bounds)?;
        Ok(at.iter().all(|(partition, at)| *at >= ends_at(bounds, partition)))
    }
}

fn ends_at(bounds: &Bounds, partition: &TopicPartition) -> i64 {
    bounds.get(partition).map_or(0, |bounds| bounds.end.0)
}

/// Of positions, smoothed.
#[derive(Default)]
struct Rate {
    last: Option<(Instant, i64)>,
    per_second: f64,
}

impl Rate {
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    fn of(&mut self, position: i64, now: Instant) -> f64 {
        if let Some((before, at)) = self.last.replace((now, position)) {
            let seconds = (now - before).as_secs_f64().max(1e-3);
            let rate = (position - at).max(0) as f64 / seconds;
            self.per_second = if self.per_second == 0.0 { rate } else { 0.7 * self.per_second + 0.3 * rate };
        }
        self.per_second
    }
}
