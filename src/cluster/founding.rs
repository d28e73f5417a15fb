//! How nodes with empty directories become one cluster, exactly one, in any start order and across crashes and wipes.
//!
//! A forming node asks every listed peer how it stands, again and again, gives the answers to `step`, and does the one thing
//! that comes back. What it must make durable before it acts on it or answers a probe is its incarnation and its
//! `Standing`. The steps of a normal formation:
//!
//! 1. All listed nodes answer `Empty` with the same intent. The one at the smallest address writes a plan: `Found`.
//! 2. The others store the plan, pulled from the founder's probe answer or pushed by it: `AcceptPlan`, `SendPlan`.
//! 3. The founder sees that every node holds this very plan, and it alone initializes the meta group: `Initialize`.
//! 4. A node is `Member` from the moment that its meta log or vote is not empty; Raft carries that to the others.
//!
//! Why no node is ever in two clusters: a meta group is initialized only when every node of its plan
//! holds that plan; a node gives its plan up only for a later one of the same founder incarnation, which writes that one
//! only while it has initialized none, and afterwards initializes no other; and a wiped node is another incarnation,
//! which no earlier plan names. If the founder's own directory is lost before it initialized, formation stops, since
//! nobody can tell any more whether it did; `Wait` says which directories the operator has to empty.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::planted::{self, Bug};

use super::{Address, ClusterId, Founder, FoundingPlan, Intent, NodeId, NodeInfo, PlanError, PlanSeed};

/// A forming node: what it was started with and what it has made durable.
#[derive(Debug, Clone)]
pub struct FormingNode {
    pub node: NodeId,
    pub info: NodeInfo,
    /// Without `--initial-cluster`: this node alone. With `--join`: whom to join through.
    pub intent: Intent,
    pub purpose: Purpose,
    /// The plan it holds. Its meta log and vote are empty, or it would be a member and not forming.
    pub plan: Option<Box<FoundingPlan>>,
}

/// What a node with an empty directory was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To found a cluster with the listed nodes, or to join theirs.
    FoundOrJoin,
    /// To join a cluster that exists.
    Join,
}

/// How a listed address answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// No plan and no cluster.
    Empty { founder: Founder, intent: Intent },
    /// Holds a plan, and its meta log and vote are empty.
    Planned { founder: Founder, intent: Intent, plan: Box<FoundingPlan> },
    /// Has a cluster id: its meta log or vote is not empty.
    Member { cluster: ClusterId },
    /// No answer in time. A listed address without an entry counts as this.
    Unreachable,
}

/// What a forming node does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask again a little later.
    Wait(WaitReason),
    /// Make this plan, written by this node, durable; then ask again.
    Found(Box<FoundingPlan>),
    /// This node is the founder: offer its plan to these addresses, then ask again.
    SendPlan(Vec<Address>),
    /// Make this plan durable in place of any older one; only then answer that it is held.
    AcceptPlan(Box<FoundingPlan>),
    /// Initialize the meta group with the plan's meta voters and propose `MetaOp::Found`.
    Initialize,
    /// A cluster exists: never found one, ask its member at this address for membership.
    JoinThrough(Address),
    /// The operator gave the nodes different lists or settings. Print both and stop.
    RefuseListMismatch { address: Address, theirs: Intent, ours: Intent },
    /// The list names members of two clusters: joining either for good may be wrong. Print them and stop.
    RefuseTwoClusters(Address, Address),
    /// This node is not on its own list, so it can only join, and no listed node is a member that answers. Print it and stop.
    RefuseNotListed,
    /// The intent cannot be carried out. Print it and stop.
    RefuseIntent(PlanError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// § A listed node that does not answer may be a member.
    Unreachable(Vec<Address>),
    /// The node at this address, the smallest, will write the plan.
    FounderToPlan(Address),
    /// The plan is held here; its founder collects the others' answers or has just initialized.
    FounderToInitialize,
    /// The node at this address holds a plan of an incarnation that will not carry it out. Its directory must be emptied.
    DeadPlan(Address),
    /// The plan held here will not be carried out: its founder is gone, or a peer is in another cluster. This node's directory
    /// must be emptied.
    OwnPlanDead,
    /// This node is to join a cluster, and none of these addresses answers as a member of one.
    NoMember(Vec<Address>),
}

/// Why a plan from a peer is not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PlanRefusal {
    #[error("the plan names another incarnation of this node, or none")]
    NotNamed,
    #[error("the plan is for another list of nodes or other settings")]
    OtherIntent,
    #[error("a plan of another founder is held")]
    OtherFounder,
    #[error("the same or a later plan of this founder is held")]
    NotNewer,
}

impl FormingNode {
    /// Whether to store a plan that a peer offers. A member must not ask this: it answers `Probe::Member`.
    pub fn judge_plan(&self, plan: &FoundingPlan) -> Result<(), PlanRefusal> {
        // A plan for an earlier incarnation may still be under way: it counts on a disk that is gone.
        if plan.members().get(&self.info.address()) != Some(&self.node) {
            return Err(PlanRefusal::NotNamed);
        }
        if *plan.intent() != self.intent {
            return Err(PlanRefusal::OtherIntent);
        }
        match &self.plan {
            None => Ok(()),
            // § The held plan may have been initialized by its founder, unless that same founder says that it went on.
            Some(held) if held.founder() != plan.founder() => Err(PlanRefusal::OtherFounder),
            Some(held) if held.number() >= plan.number() => Err(PlanRefusal::NotNewer),
            Some(_) => Ok(()),
        }
    }

    /// How this node answers a probe.
    pub fn answer(&self) -> Probe {
        let founder = Founder { node: self.node, info: self.info.clone() };
        let intent = self.intent.clone();
        match &self.plan {
            None => Probe::Empty { founder, intent },
            Some(plan) => Probe::Planned { founder, intent, plan: plan.clone() },
        }
    }

    /// Decides what to do after one round of probes of the listed addresses. `seed` is used only for `Found`. Its own
    /// address's answer, if there is one, is ignored.
    pub fn step(&self, probes: &BTreeMap<Address, Probe>, seed: PlanSeed) -> Action {
        let mut answers = self.answers(probes);
        if planted::is(Bug::WipedNodeFounds) {
            answers.retain(|(_, answer)| matches!(answer, Probe::Empty { .. } | Probe::Planned { .. }));
        }
        // § A peer with a cluster id: never bootstrap.
        let mut members = answers.iter().filter_map(|(address, answer)| match answer {
            Probe::Member { cluster } => Some((*address, *cluster)),
            Probe::Empty { .. } | Probe::Planned { .. } | Probe::Unreachable => None,
        });
        if let Some((address, cluster)) = members.next() {
            let other = members.find(|(_, other)| *other != cluster);
            return match &self.plan {
                None => match other {
                    None => Action::JoinThrough(address.clone()),
                    Some((other, _)) => Action::RefuseTwoClusters(address.clone(), other.clone()),
                },
                Some(plan) if plan.cluster_id() == cluster => Action::Wait(WaitReason::FounderToInitialize),
                // Only after a change of lists. Whoever holds a plan may be counted as its voter at this moment, so it cannot become a
                // member elsewhere under the same incarnation.
                Some(_) => Action::Wait(WaitReason::OwnPlanDead),
            };
        }
        if self.purpose == Purpose::Join {
            return Action::Wait(WaitReason::NoMember(self.intent.addresses.iter().cloned().collect()));
        }
        if !self.intent.addresses.contains(&self.info.address()) {
            return Action::RefuseNotListed;
        }
        if let Some(refusal) = self.mismatch(&answers) {
            return refusal;
        }
        match &self.plan {
            Some(plan) if plan.founder() == self.node => self.step_as_founder(plan, &answers, seed),
            Some(plan) => self.step_as_acceptor(plan, &answers),
            None => self.step_empty(&answers, seed),
        }
    }

    /// One answer per listed peer.
    fn answers<'a>(&'a self, probes: &'a BTreeMap<Address, Probe>) -> Vec<(&'a Address, &'a Probe)> {
        let own = self.info.address();
        let peers = self.intent.addresses.iter().filter(|address| **address != own);
        peers.map(|address| (address, probes.get(address).unwrap_or(&Probe::Unreachable))).collect()
    }

    fn mismatch(&self, answers: &[(&Address, &Probe)]) -> Option<Action> {
        answers.iter().find_map(|(address, answer)| match answer {
            Probe::Empty { intent, .. } | Probe::Planned { intent, .. } if *intent != self.intent => {
                let (address, theirs, ours) = ((*address).clone(), intent.clone(), self.intent.clone());
                Some(Action::RefuseListMismatch { address, theirs, ours })
            }
            Probe::Empty { .. } | Probe::Planned { .. } | Probe::Member { .. } | Probe::Unreachable => None,
        })
    }

    fn step_empty(&self, answers: &[(&Address, &Probe)], seed: PlanSeed) -> Action {
        if let Some(plan) = self.offered_plan(answers) {
            return Action::AcceptPlan(plan);
        }
        if let Some(address) = holders_of_plans(answers, |_| true).first() {
            // Its founder may yet replace it by one that names this node; a wiped founder never will.
            return match self.founder_is_alive(answers) {
                true => Action::Wait(WaitReason::FounderToInitialize),
                false => Action::Wait(WaitReason::DeadPlan(address.clone())),
            };
        }
        let missing = unreachable(answers);
        if !missing.is_empty() {
            return Action::Wait(WaitReason::Unreachable(missing));
        }
        // § All listed nodes are empty and were given the same list.
        self.found(1, answers, seed)
    }

    fn step_as_founder(&self, plan: &FoundingPlan, answers: &[(&Address, &Probe)], seed: PlanSeed) -> Action {
        let foreign = holders_of_plans(answers, |held| held.founder() != self.node);
        if let Some(address) = foreign.into_iter().next() {
            return Action::Wait(WaitReason::DeadPlan(address));
        }
        let missing = unreachable(answers);
        let outdated = *plan.intent() != self.intent
            || answers.iter().any(|(address, answer)| match answer {
                Probe::Empty { founder, .. } | Probe::Planned { founder, .. } => {
                    plan.members().get(*address) != Some(&founder.node)
                }
                Probe::Member { .. } | Probe::Unreachable => false,
            });
        if outdated {
            // A node was wiped since the plan was written. The meta log is empty, so this founder has initialized nothing and
            // may write another plan, but only when it knows every node's incarnation.
            return match missing.is_empty() {
                true => self.found(plan.number() + 1, answers, seed),
                false => Action::Wait(WaitReason::Unreachable(missing)),
            };
        }
        let lacking = answers.iter().filter(|(_, answer)| match answer {
            Probe::Empty { .. } => true,
            Probe::Planned { plan: held, .. } => **held != *plan,
            Probe::Member { .. } | Probe::Unreachable => false,
        });
        let lacking: Vec<Address> = lacking.map(|(address, _)| (*address).clone()).collect();
        if !lacking.is_empty() {
            return Action::SendPlan(lacking);
        }
        match missing.is_empty() {
            // § Every node of the plan has it on disk.
            true => Action::Initialize,
            false => Action::Wait(WaitReason::Unreachable(missing)),
        }
    }

    fn step_as_acceptor(&self, plan: &FoundingPlan, answers: &[(&Address, &Probe)]) -> Action {
        if let Some(newer) = self.offered_plan(answers) {
            return Action::AcceptPlan(newer);
        }
        let founder_is_gone = answers.iter().any(|(address, answer)| match answer {
            Probe::Empty { founder, .. } | Probe::Planned { founder, .. } => {
                plan.members().get(*address) == Some(&plan.founder()) && founder.node != plan.founder()
            }
            Probe::Member { .. } | Probe::Unreachable => false,
        });
        match founder_is_gone {
            true => Action::Wait(WaitReason::OwnPlanDead),
            false => Action::Wait(WaitReason::FounderToInitialize),
        }
    }

    /// A plan that its own founder shows and that this node should store.
    fn offered_plan(&self, answers: &[(&Address, &Probe)]) -> Option<Box<FoundingPlan>> {
        answers.iter().find_map(|(_, answer)| match answer {
            Probe::Planned { founder, plan, .. } if founder.node == plan.founder() => {
                self.judge_plan(plan).is_ok().then(|| plan.clone())
            }
            Probe::Planned { .. } | Probe::Empty { .. } | Probe::Member { .. } | Probe::Unreachable => None,
        })
    }

    /// Whether a founder of the plans that peers hold answered itself, or may still do so.
    fn founder_is_alive(&self, answers: &[(&Address, &Probe)]) -> bool {
        answers.iter().any(|(_, answer)| match answer {
            Probe::Planned { founder, plan, .. } => founder.node == plan.founder(),
            Probe::Unreachable => true,
            Probe::Empty { .. } | Probe::Member { .. } => false,
        })
    }

    /// Writes a plan if this node is the one at the smallest address. All peers have answered, none is a member.
    fn found(&self, number: u64, answers: &[(&Address, &Probe)], seed: PlanSeed) -> Action {
        let own = self.info.address();
        let smallest = self.intent.addresses.first().expect("this node's own address is listed");
        if *smallest != own {
            return Action::Wait(WaitReason::FounderToPlan(smallest.clone()));
        }
        let mut members: BTreeMap<Address, Founder> = BTreeMap::new();
        members.insert(own, Founder { node: self.node, info: self.info.clone() });
        for (address, answer) in answers {
            match answer {
                Probe::Empty { founder, .. } | Probe::Planned { founder, .. } => {
                    members.insert((*address).clone(), founder.clone());
                }
                Probe::Member { .. } | Probe::Unreachable => unreachable!("a plan is written only when all answered"),
            }
        }
        match FoundingPlan::new(number, self.node, self.intent.clone(), &members, seed) {
            Ok(plan) => Action::Found(Box::new(plan)),
            Err(error) => Action::RefuseIntent(error),
        }
    }
}

fn unreachable(answers: &[(&Address, &Probe)]) -> Vec<Address> {
    let silent = answers.iter().filter(|(_, answer)| **answer == Probe::Unreachable);
    silent.map(|(address, _)| (*address).clone()).collect()
}

/// Peers that hold a plan which `matches`.
fn holders_of_plans(answers: &[(&Address, &Probe)], matches: impl Fn(&FoundingPlan) -> bool) -> Vec<Address> {
    let holders = answers.iter().filter(|(_, answer)| match answer {
        Probe::Planned { plan, .. } => matches(plan),
        Probe::Empty { .. } | Probe::Member { .. } | Probe::Unreachable => false,
    });
    holders.map(|(address, _)| (*address).clone()).collect()
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(addresses) => {
                let list: Vec<String> = addresses.iter().map(Address::to_string).collect();
                write!(f, "no answer from {}", list.join(", "))
            }
            Self::NoMember(addresses) => {
                let list: Vec<String> = addresses.iter().map(Address::to_string).collect();
                write!(f, "no member of a cluster answers at {}", list.join(", "))
            }
            Self::FounderToPlan(address) => write!(f, "{address} is to write the founding plan"),
            Self::FounderToInitialize => f.write_str("the founder is to initialize the cluster"),
            Self::DeadPlan(address) => {
                write!(
                    f,
                    "{address} holds a founding plan of a node that has lost its directory; empty the directory of {address} too"
                )
            }
            Self::OwnPlanDead => f.write_str(
                "the founding plan held here cannot be carried out any more; empty this node's directory too",
            ),
        }
    }
}
