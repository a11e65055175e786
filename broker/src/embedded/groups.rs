//! Consumer groups: what they have committed, and the coordinator that shares partitions out among
//! their members, eagerly, as Kafka's does. When a member comes or goes, every member is told to
//! give up all it has; once all have, a new generation begins and each is told what it gets.
use std::fmt;

use hashbrown::{HashMap, HashSet};

use super::log::{PartitionId, State};
use crate::{Error, Result, Subscription, Topic};

#[derive(Clone, Debug)]
pub(super) struct Position {
    pub(super) offset: i64,
    pub(super) keep_from: i64,
    pub(super) metadata: String,
}

#[derive(Debug, Default)]
pub(super) struct Group {
    /// What nothing may be deleted of that the group has not done with.
    pub(super) registered: HashSet<Topic>,
    pub(super) positions: HashMap<PartitionId, Position>,
    /// Counts the requests to write out what is held; each reader answers each once.
    pub(super) flushes: u64,
    /// It was asked and has committed nothing since.
    pub(super) asked_to_flush: bool,
    /// How far its readers have read, as of their last poll.
    pub(super) read: HashMap<PartitionId, i64>,
    members: Vec<Member>,
    generation: u64,
    rebalancing: bool,
}

/// Which member, in which generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberKey {
    pub(super) id: u64,
    pub(super) generation: u64,
}

#[derive(Debug)]
struct Member {
    id: u64,
    instance: String,
    topics: Vec<Topic>,
    owned: Vec<PartitionId>,
    /// What it should be told at its next poll.
    news: News,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    None,
    Assigned,
    Revoked,
}

/// What a member's poll has to say before it gives records.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GroupEvent {
    Assigned { generation: u64, partitions: Vec<PartitionId> },
    Revoked(Vec<PartitionId>),
}

pub(super) fn fenced(group: &str, why: impl fmt::Display) -> Error {
    Error::Fenced(format!("group {group}: {why}"))
}

impl Group {
    fn member(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn member_mut(&mut self, id: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    /// Takes a member in. The same instance again takes the old one's place, without a rebalance
    /// if it reads the same topics.
    fn join(&mut self, id: u64, subscription: &Subscription) {
        let same = self.members.iter_mut().find(|member| member.instance == subscription.instance);
        match same {
            Some(member) if !self.rebalancing && member.topics == subscription.topics => {
                (member.id, member.news) = (id, News::Assigned);
                return;
            }
            _ => self.members.retain(|member| member.instance != subscription.instance),
        }
        let (instance, topics) = (subscription.instance.clone(), subscription.topics.clone());
        self.members.push(Member { id, instance, topics, owned: Vec::new(), news: News::None });
        self.members.sort_by(|a, b| a.instance.cmp(&b.instance));
        self.revoke_all();
    }

    fn revoke_all(&mut self) {
        self.rebalancing = true;
        for member in &mut self.members {
            // Who has not yet heard of an assignment has nothing to give up.
            if member.news == News::Assigned {
                member.owned.clear();
            }
            member.news = if member.owned.is_empty() { News::None } else { News::Revoked };
        }
    }

    /// Begins a new generation if all has been given up.
    fn assign_if_released(&mut self, partitions_of: impl Fn(&Topic) -> Vec<PartitionId>) {
        if !self.rebalancing || self.members.iter().any(|member| !member.owned.is_empty()) {
            return;
        }
        self.rebalancing = false;
        self.generation += 1;
        let topics: HashSet<Topic> = self.members.iter().flat_map(|member| member.topics.iter().cloned()).collect();
        for topic in topics {
            let readers: Vec<usize> =
                (0..self.members.len()).filter(|i| self.members[*i].topics.contains(&topic)).collect();
            // The same partition number of every topic goes to the same member.
            for (number, id) in partitions_of(&topic).into_iter().enumerate() {
                self.members[readers[number % readers.len()]].owned.push(id);
            }
        }
        for member in &mut self.members {
            member.owned.sort_unstable();
            member.news = News::Assigned;
        }
    }

    fn check(&self, name: &str, key: MemberKey, partition: PartitionId) -> Result<()> {
        let Some(member) = self.member(key.id) else {
            return Err(fenced(name, "this member has left, or another of the same instance has taken its place"));
        };
        if key.generation != self.generation || !member.owned.contains(&partition) {
            let (own, now) = (key.generation, self.generation);
            return Err(Error::Abort(format!("group {name}: generation {own} is over; the group is at {now}")));
        }
        Ok(())
    }
}

impl State {
    pub(super) fn group_mut(&mut self, name: &str) -> &mut Group {
        if !self.groups.contains_key(name) {
            self.groups.insert(name.to_owned(), Group::default());
        }
        #[allow(clippy::unwrap_used, reason = "inserted above")]
        self.groups.get_mut(name).unwrap()
    }

    pub(super) fn join(&mut self, subscription: &Subscription) -> u64 {
        self.members_made += 1;
        let id = self.members_made;
        self.group_mut(&subscription.group).join(id, subscription);
        self.settle(&subscription.group);
        id
    }

    pub(super) fn leave(&mut self, group: &str, id: u64) {
        if let Some(state) = self.groups.get_mut(group)
            && state.member(id).is_some()
        {
            state.members.retain(|member| member.id != id);
            state.revoke_all();
            self.settle(group);
        }
    }

    pub(super) fn release(&mut self, group: &str, id: u64) -> Result<()> {
        let Some(member) = self.groups.get_mut(group).and_then(|group| group.member_mut(id)) else {
            return Err(fenced(group, "this member is no longer in it"));
        };
        member.owned.clear();
        self.settle(group);
        Ok(())
    }

    fn settle(&mut self, group: &str) {
        let Self { groups, topics, .. } = self;
        if let Some(group) = groups.get_mut(group) {
            group.assign_if_released(|topic| topics.get(topic).map_or_else(Vec::new, |t| t.partitions.clone()));
        }
    }

    /// Whether the member's next poll has news for it; true for one that is no longer in the group.
    pub(super) fn has_group_event(&self, group: &str, id: u64) -> bool {
        self.groups.get(group).and_then(|group| group.member(id)).is_none_or(|member| member.news != News::None)
    }

    pub(super) fn group_event(&mut self, name: &str, id: u64) -> Result<Option<GroupEvent>> {
        let Some(group) = self.groups.get_mut(name) else {
            return Err(fenced(name, "there is no such group"));
        };
        let generation = group.generation;
        let Some(member) = group.member_mut(id) else {
            return Err(fenced(name, "this member has left, or another of the same instance has taken its place"));
        };
        let partitions = member.owned.clone();
        Ok(match std::mem::replace(&mut member.news, News::None) {
            News::None => None,
            News::Assigned => Some(GroupEvent::Assigned { generation, partitions }),
            News::Revoked => Some(GroupEvent::Revoked(partitions)),
        })
    }

    pub(super) fn check_member(&self, group: &str, key: MemberKey, partition: PartitionId) -> Result<()> {
        self.groups.get(group).ok_or_else(|| fenced(group, "there is no such group"))?.check(group, key, partition)
    }
}
