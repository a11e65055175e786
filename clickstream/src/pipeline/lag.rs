//! How far a part is behind, and when all have caught up: judged by what is committed, nothing by
//! what a part says of itself.
use std::collections::HashMap;

use anyhow::{Context, Result};
use broker::{LogBounds, Offset, TopicPartition};

use super::Run;
use super::topics::{READS, topic};

impl Run {
    /// True once every sink is at or past the ends that were taken when the sessionizer was.
    pub(super) fn caught_up(&self) -> Result<bool> {
        if self.target.get().is_none() {
            if self.lag("sessionizer")? > 0 {
                return Ok(false);
            }
            // The sessionizer writes nothing more for these feeds: the ends are final.
            let mut ends = HashMap::new();
            for name in consumer::lake::TOPICS {
                ends.extend(self.bounds(name)?.into_iter().map(|(partition, bounds)| (partition, bounds.end)));
            }
            self.target.set(ends);
        }
        Ok(self.lag("lake")? == 0 && self.lag("marts")? == 0)
    }

    fn bounds(&self, name: &str) -> Result<Vec<(TopicPartition, LogBounds)>> {
        let topic = topic(&self.prefix, name);
        let info = self.broker.describe(&topic)?.with_context(|| format!("the topic {topic} is gone"))?;
        Ok((0..).zip(info.partitions).map(|(p, bounds)| (TopicPartition::new(&topic, p), bounds)).collect())
    }

    /// Records that the part has not committed yet, up to the target where it is set.
    pub(super) fn lag(&self, part: &str) -> Result<i64> {
        let names = READS.iter().find(|(name, _)| *name == part).map_or(&[][..], |(_, names)| names);
        let mut lag = 0;
        for name in names {
            let bounds = self.bounds(name)?;
            let partitions: Vec<_> = bounds.iter().map(|(partition, _)| partition.clone()).collect();
            let committed = self.broker.committed(&format!("{}{part}", self.prefix), &partitions)?;
            for ((partition, bounds), committed) in bounds.iter().zip(committed) {
                let end = match self.target.get().and_then(|ends| ends.get(partition)) {
                    Some(end) if part != "sessionizer" => *end,
                    _ => bounds.end,
                };
                let Offset(at) = committed.map_or(bounds.start, |committed| committed.offset);
                lag += (end.0 - at).max(0);
            }
        }
        Ok(lag)
    }
}
