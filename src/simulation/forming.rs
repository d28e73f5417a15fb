//! A machine whose node belongs to no cluster yet, or whose copies may lack what it acknowledged: founds or joins as `raft/formation.rs` and
//! `raft/power_loss.rs` do, with the questions to its peers carried by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cluster::{Action, Address, ClusterId, FormingNode, GroupId, MetaOp, NodeId, PlanSeed, Probe, Topology};
use crate::node;
use crate::raft::power_loss;
use crate::raft::{Membership, Newcomer, NodeFile, NodeRecord};
use crate::random;
use crate::simulation::node::Machine;

/// Between two rounds of questions.
pub const ROUND_MS: u64 = 100;
const JOIN_WAIT_MS_MAX: u64 = 6000;

type Answer = Arc<Mutex<Option<Result<Vec<u8>, String>>>>;

enum Way {
    /// Nothing was lost, since there was nothing: founding is possible.
    Empty,
    /// § Once a member of this cluster: may only join it anew, when these groups can do without its copies.
    Lost(ClusterId, BTreeSet<GroupId>),
}

pub struct Forming {
    way: Way,
    node: FormingNode,
    file: NodeFile,
    asked: Option<(u64, Answer)>,
}

/// How a round ended.
pub enum Round {
    Goes,
    /// A member now, with the log that it has.
    Formed,
    /// A new member; its log is its old self's.
    JoinedAnew,
}

impl Forming {
    pub fn new(machine: &Machine, file: NodeFile, held: BTreeSet<GroupId>) -> Self {
        let mut config = node::formation_config(&machine.config(), None);
        config.intent.addresses = machine.cluster_addresses();
        let (node, way, plan) = match &file.record.membership {
            Membership::Empty => (file.record.node, Way::Empty, None),
            Membership::Planned(plan) => (file.record.node, Way::Empty, Some(plan.clone())),
            Membership::Member { topology, .. } => (NodeId::random(), Way::Lost(topology.cluster_id(), held), None),
        };
        let (info, intent, purpose) = (config.info, config.intent, config.purpose);
        Self { way, node: FormingNode { node, info, intent, purpose, plan }, file, asked: None }
    }

    pub fn answer(&self) -> Probe {
        match &self.way {
            Way::Empty => self.node.answer(),
            Way::Lost(cluster, _) => Probe::Member { cluster: *cluster },
        }
    }

    /// `leader`: the machine whose node leads the meta group, if it can be reached.
    pub fn step(&mut self, now_ms: u64, probes: &BTreeMap<Address, Probe>, leader: Option<&Machine>) -> Round {
        if let Some((since, answer)) = &self.asked {
            let answered = answer.lock().take();
            return match answered {
                Some(Ok(topology)) => self.joined(&Topology::decode(&topology).expect("a topology")),
                None if now_ms - since < JOIN_WAIT_MS_MAX => Round::Goes,
                Some(Err(_)) | None => {
                    self.asked = None;
                    Round::Goes
                }
            };
        }
        let action = match self.way {
            Way::Empty => self.node.step(probes, draw_seed()),
            Way::Lost(..) => Action::JoinThrough(self.node.info.address()),
        };
        match action {
            Action::Found(plan) | Action::AcceptPlan(plan) => {
                self.file.update(Membership::Planned(plan.clone())).expect("writes");
                self.node.plan = Some(plan);
                Round::Goes
            }
            Action::Initialize => self.formed(),
            // The founder has initialized.
            Action::Wait(_) if self.node.plan.is_some() && probes.values().any(|probe| self.is_founded(probe)) => {
                self.formed()
            }
            Action::JoinThrough(_) => {
                self.asked = leader.map(|leader| (now_ms, self.ask(leader)));
                Round::Goes
            }
            Action::Wait(_) | Action::SendPlan(_) => Round::Goes,
            refused => panic!("a node is refused: {refused:?}"),
        }
    }

    fn is_founded(&self, probe: &Probe) -> bool {
        let cluster = self.node.plan.as_ref().map(|plan| plan.cluster_id());
        matches!(probe, Probe::Member { cluster: other } if Some(*other) == cluster)
    }

    fn formed(&mut self) -> Round {
        let plan = self.node.plan.clone().expect("formed by a plan");
        self.file.update_topology(plan.topology()).expect("writes");
        Round::Formed
    }

    fn ask(&self, leader: &Machine) -> Answer {
        let (node, info, settings) = (self.node.node, self.node.info.clone(), self.node.intent.settings);
        let op = MetaOp::Join { node, info, settings }.encode();
        let answer = Answer::default();
        let slot = answer.clone();
        let held = match &self.way {
            Way::Empty => None,
            Way::Lost(_, held) => Some(postcard::to_stdvec(held).expect("numbers encode")),
        };
        if let Some(shared) = leader.shared() {
            leader.spawn(async move {
                let joined = shared.replication.join(&op, Newcomer::Returning, held.as_deref()).await;
                *slot.lock() = Some(joined);
            });
        }
        answer
    }

    fn joined(&mut self, topology: &Topology) -> Round {
        let membership = Membership::Member { topology: Box::new(topology.clone()), plan: None };
        match self.way {
            Way::Empty => {
                self.file.update(membership).expect("writes");
                Round::Formed
            }
            Way::Lost(..) => {
                let record = NodeRecord { node: self.node.node, membership };
                power_loss::set_aside(self.file.directory(), &record).expect("sets aside");
                Round::JoinedAnew
            }
        }
    }
}

fn draw_seed() -> PlanSeed {
    PlanSeed { cluster_id: ClusterId::random(), hash_secret: [random::draw_u64(), 2, 3, 4] }
}
