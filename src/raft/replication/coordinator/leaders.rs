//! What the coordinator knows of leaders: who leads which group, as this node's replicas see it and as peers tell, whose connection was lost, and what
//! requests are routed by in consequence.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Coordinator, all_groups};
use crate::cluster::{Ballot, GroupId, Hints, LeaderHint, News, NodeId, ReplicaId, RouteTable, Topology};
use crate::raft::leadership::LeaderSighting;
use crate::raft::membership;
use crate::raft::succession::{self, Leaderships};

/// How long a leader whose connection was lost is not named. Elections take less, also on a busy machine.
const LOST_LEADER_DOUBT: Duration = Duration::from_secs(5);

/// A peer that still has its connection to a node so long after this one's was lost does not only lack the news that the node is dead.
const LOST_HERE_ALONE_AFTER: Duration = Duration::from_secs(1);

impl Coordinator {
    pub(super) fn learn_sighting(&mut self, sighting: LeaderSighting) {
        if self.own_replica(sighting.group) != Some(sighting.replica) {
            // It is told once: dropped, it would leave the group without a known leader for as long as that one leads.
            self.early.insert(sighting.group, sighting);
            return;
        }
        let was_leading = self.leads.contains(&sighting.group);
        if sighting.leads_here {
            self.leads.insert(sighting.group);
        } else {
            self.leads.remove(&sighting.group);
        }
        let mut changed = was_leading != sighting.leads_here;
        // A leader hears of itself before its first entry is applied; it is announced when it can serve.
        match sighting.leader.filter(|leader| *leader != sighting.replica || sighting.leads_here) {
            Some(replica) => {
                if let Some(node) = self.node_of(sighting.group, replica) {
                    let hint = LeaderHint { term: sighting.term, replica, node };
                    changed |= self.hints.learn(sighting.group, hint);
                }
            }
            None => {
                // Above the leadership that it lost by its restart, and below that of any greater replica in the same term.
                let replica = ReplicaId(if sighting.led_before { sighting.replica.0 + 1 } else { 0 });
                let ballot = Ballot { term: sighting.term, replica };
                changed |= self.hints.learn_election(sighting.group, ballot);
            }
        }
        if changed {
            self.publish();
            self.replication.announce();
        }
    }

    pub(super) fn learn_connection(&mut self, node: NodeId, connected: bool) {
        if connected {
            self.lost.remove(&node);
            self.gone.remove(&node);
            // What it should know before it leads anything: among others how late it is.
            self.replication.announce();
        } else {
            self.lost.insert(node, Instant::now());
            self.connected.remove(&node);
            self.replication.space.forget(node);
            self.replication.walls.forget(node);
            // It may come back with another version.
            self.replication.levels.lock().remove(&node);
            self.learn_departure(node, false);
            self.succeed(node);
        }
        self.publish();
    }

    /// Elects others in place of a leader whose process has most likely ended.
    fn succeed(&mut self, lost: NodeId) {
        let leaderships = self.leaderships();
        for (group, (own, replica)) in &self.replicas {
            if let Some(leader) = self.hints.leader(*group).filter(|leader| leader.node == lost) {
                let (raft, timers) = (replica.group.raft().clone(), self.start.seed.timers);
                let leaderships = leaderships.clone();
                self.proposals.spawn(succession::succeed(raft, *group, *own, leader.replica, leaderships, timers));
            }
        }
    }

    /// Of data groups.
    fn leaderships(&self) -> Arc<Leaderships> {
        let topology = self.replication.topology.load();
        let is_here = |node: &NodeId| !self.lost.contains_key(node) && !self.gone.contains(node);
        let mut leaderships: Leaderships =
            topology.nodes().keys().filter(|node| is_here(node)).map(|node| (*node, 0)).collect();
        for leader in topology.groups().keys().filter_map(|group| self.hints.leader(*group)) {
            if let Some(count) = leaderships.get_mut(&leader.node) {
                *count += 1;
            }
        }
        Arc::new(leaderships)
    }

    pub(super) fn forget_lost(&mut self) {
        let before = self.lost.len();
        self.lost.retain(|_, since| since.elapsed() < LOST_LEADER_DOUBT);
        if self.lost.len() != before {
            self.publish();
        }
    }

    /// What requests are routed by: a leader whose connection was just lost is most likely dead, and a MOVED to it would only make the client
    /// give up. Requests wait for its successor instead. If none appears while others still hear it, it is named again; one that nobody hears
    /// is not, however long its group finds no quorum for a vote.
    fn hints_for_routing(&self, topology: &Topology) -> Hints {
        let mut hints = self.hints.clone();
        let is_away = |node: &NodeId| self.lost.contains_key(node) || self.gone.contains(node);
        for group in all_groups(topology) {
            if let Some(leader) = hints.leader(group).filter(|leader| is_away(&leader.node)) {
                hints.learn_election(group, Ballot { term: leader.term, replica: ReplicaId(u64::MAX) });
            }
        }
        hints
    }

    /// Called now and then, for what nobody tells: that time goes by without an answer.
    pub(super) fn look_for_leaders(&mut self) {
        let mut gone = self.replication.failed_nodes();
        gone.retain(|node| !self.connected.values().any(|connected| connected.contains(node)));
        let changed = gone != self.gone;
        self.gone = gone;
        let topology = self.replication.topology.load_full();
        let leaderless = self.leaderless_now(&topology, &self.hints_for_routing(&topology));
        if changed || !leaderless.iter().eq(self.leaderless.keys()) {
            self.publish();
        }
    }

    /// Groups in an election, or whose leader is away, or is this node and has long heard from no quorum: the one judgement by which clients are sent
    /// on and readiness and the cluster's state are told.
    fn leaderless_now(&self, topology: &Topology, hints: &Hints) -> BTreeSet<GroupId> {
        let is_led = |group: &GroupId| match self.leads.contains(group) {
            true => self.hears_quorum(*group),
            // § That this node leads it says this node alone: others may name it by what it was before it was restarted.
            false => {
                let elsewhere = hints.leader(*group).is_some_and(|leader| leader.node != self.replication.node);
                elsewhere && hints.is_current(*group)
            }
        };
        all_groups(topology).filter(|group| !is_led(group)).collect()
    }

    fn hears_quorum(&self, group: GroupId) -> bool {
        let within = 2 * self.start.seed.timers.election_max;
        match self.replicas.get(&group) {
            Some((_, replica)) => replica.hears_quorum(within),
            None => group == GroupId::META && self.meta.hears_quorum(within),
        }
    }

    pub(super) fn learn_news(&mut self, from: NodeId, bytes: &[u8]) {
        match News::decode(bytes) {
            Ok(News { mut hints, space, level, wall, leaving, connected }) => {
                hints.forget_dissolved(&self.replication.topology.load());
                self.replication.space.learn(from, space);
                self.replication.walls.learn(from, wall);
                self.replication.levels.lock().insert(from, level);
                self.learn_departure(from, leaving);
                self.connected.insert(from, connected.clone());
                let lost = self.lost.len();
                // Alive, and cut off from this node alone: its leaderships go on.
                self.lost.retain(|node, since| since.elapsed() < LOST_HERE_ALONE_AFTER || !connected.contains(node));
                if self.hints.merge(&hints) || self.lost.len() != lost {
                    self.publish();
                }
            }
            Err(error) => tracing::warn!(%error, "a peer's leader hints were dropped"),
        }
    }

    fn learn_departure(&self, node: NodeId, leaving: bool) {
        let known = self.replication.leaving.load();
        if known.contains(&node) != leaving {
            let mut leaving_now = BTreeSet::clone(&known);
            if leaving {
                leaving_now.insert(node)
            } else {
                leaving_now.remove(&node)
            };
            self.replication.leaving.store(Arc::new(leaving_now));
        }
    }

    /// The raft membership knows replicas that the topology has let go of already.
    fn node_of(&self, group: GroupId, replica: ReplicaId) -> Option<NodeId> {
        let status = match self.replicas.get(&group) {
            Some((_, replica)) => membership::status(replica.group.raft()),
            None => membership::status(&self.meta.raft),
        };
        status.members.get(&replica).copied()
    }

    /// Makes the current knowledge visible to requests.
    pub(super) fn publish(&mut self) {
        let topology = self.replication.topology.load_full();
        let hints = self.hints_for_routing(&topology);
        let (leaderless, now) = (self.leaderless_now(&topology, &hints), Instant::now());
        let since = |group: GroupId| (group, self.leaderless.get(&group).copied().unwrap_or(now));
        self.leaderless = leaderless.into_iter().map(since).collect();
        self.replication.leaderless.store(Arc::new(self.leaderless.clone()));
        let routes = RouteTable::new(&topology, &hints, self.replication.node, &self.leads);
        self.replication.leaderships.store(self.leaderships());
        self.replication.hints.store(Arc::new(self.hints.clone()));
        self.replication.routes.store(Arc::new(routes));
        self.replication.lost.store(Arc::new(self.lost.keys().copied().collect()));
        self.replication.changes.send_modify(|count| *count += 1);
    }
}
