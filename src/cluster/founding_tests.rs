//! Formation, explored: every interleaving of three forming nodes with delayed answers, lost messages, crashes and wipes.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::fixture::{info, intent, members, node, plan, seed};
use super::{
    Action, Address, ClusterId, FormingNode, Founder, FoundingPlan, NodeId, PlanRefusal, PlanSeed, Probe, Purpose,
    WaitReason,
};

const NODES: usize = 3;

fn forming(number: u8, nodes: usize, held: Option<FoundingPlan>) -> FormingNode {
    let (node, info, intent) = (node(number), info(number), intent(nodes, 1, 3));
    FormingNode { node, info, intent, purpose: Purpose::FoundOrJoin, plan: held.map(Box::new) }
}

fn address(number: u8) -> Address {
    info(number).address()
}

/// What node `number` does when its peers answer so.
fn check(number: u8, held: Option<FoundingPlan>, answers: &[(u8, Probe)], expected: &Action) {
    let probes = answers.iter().map(|(peer, answer)| (address(*peer), answer.clone())).collect();
    assert_eq!(forming(number, NODES, held).step(&probes, seed(9)), *expected, "node {number} hears {answers:?}");
}

fn empty(number: u8) -> Probe {
    forming(number, NODES, None).answer()
}

fn planned(number: u8, held: &FoundingPlan) -> Probe {
    forming(number, NODES, Some(held.clone())).answer()
}

const MEMBER: Probe = Probe::Member { cluster: ClusterId([42; 16]) };

#[test]
fn a_single_node_founds_and_initializes_by_itself() {
    let mut alone = forming(1, 1, None);
    let Action::Found(plan) = alone.step(&BTreeMap::new(), seed(3)) else { panic!("must found") };
    assert_eq!(plan.cluster_id(), ClusterId([3; 16]));
    alone.plan = Some(plan);
    assert_eq!(alone.step(&BTreeMap::new(), seed(4)), Action::Initialize);
}

#[test]
fn a_node_that_is_to_join_never_founds_and_joins_through_whoever_answers() {
    let joins = FormingNode { purpose: Purpose::Join, ..forming(3, 2, None) };
    let nobody = [BTreeMap::new(), [(address(1), empty(1)), (address(2), empty(2))].into()];
    for probes in nobody {
        let wait = Action::Wait(WaitReason::NoMember(vec![address(1), address(2)]));
        assert_eq!(joins.step(&probes, seed(9)), wait);
    }
    let one = [(address(1), Probe::Unreachable), (address(2), MEMBER)].into();
    assert_eq!(joins.step(&one, seed(9)), Action::JoinThrough(address(2)));
}

#[test]
fn a_wiped_node_joins_if_any_peer_is_a_member_and_waits_while_one_is_silent() {
    for number in 1..=3 {
        let (low, high) = match number {
            1 => (2, 3),
            2 => (1, 3),
            _ => (1, 2),
        };
        let join = |through| Action::JoinThrough(address(through));
        check(number, None, &[(low, empty(low)), (high, MEMBER)], &join(high));
        check(number, None, &[(low, MEMBER)], &join(low));
        let wait = |silent| Action::Wait(WaitReason::Unreachable(silent));
        check(number, None, &[(low, empty(low)), (high, Probe::Unreachable)], &wait(vec![address(high)]));
        check(number, None, &[], &wait(vec![address(low), address(high)]));
        let other = Probe::Member { cluster: ClusterId([43; 16]) };
        check(number, None, &[(low, MEMBER), (high, other)], &Action::RefuseTwoClusters(address(low), address(high)));
    }
}

#[test]
fn only_the_smallest_address_founds_and_only_when_all_are_empty() {
    let expected = FoundingPlan::new(1, node(1), intent(3, 1, 3), &members(3), seed(9)).unwrap();
    check(1, None, &[(2, empty(2)), (3, empty(3))], &Action::Found(Box::new(expected)));
    check(2, None, &[(1, empty(1)), (3, empty(3))], &Action::Wait(WaitReason::FounderToPlan(address(1))));
}

#[test]
fn the_founder_initializes_only_when_every_node_holds_its_plan() {
    let plan = plan(3, 1, 3);
    let founder = |answers: &[(u8, Probe)], expected| check(1, Some(plan.clone()), answers, &expected);
    founder(&[(2, planned(2, &plan)), (3, empty(3))], Action::SendPlan(vec![address(3)]));
    founder(&[(2, planned(2, &plan))], Action::Wait(WaitReason::Unreachable(vec![address(3)])));
    founder(&[(2, planned(2, &plan)), (3, planned(3, &plan))], Action::Initialize);
}

#[test]
fn an_acceptor_takes_plans_of_one_founder_only_and_each_newer_than_the_last() {
    let first = plan(3, 1, 3);
    let second = FoundingPlan::new(2, node(1), intent(3, 1, 3), &members(3), seed(2)).unwrap();
    let foreign = FoundingPlan::new(9, node(3), intent(3, 1, 3), &members(3), seed(3)).unwrap();
    let other_list = plan(2, 1, 3);
    for (held, offered, expected) in [
        (None, &first, Ok(())),
        (Some(&first), &second, Ok(())),
        (Some(&first), &first, Err(PlanRefusal::NotNewer)),
        (Some(&second), &first, Err(PlanRefusal::NotNewer)),
        (Some(&first), &foreign, Err(PlanRefusal::OtherFounder)),
        (None, &other_list, Err(PlanRefusal::OtherIntent)),
    ] {
        assert_eq!(forming(2, NODES, held.cloned()).judge_plan(offered), expected);
    }
    let mut wiped = forming(2, NODES, None);
    wiped.node = node(22);
    assert_eq!(wiped.judge_plan(&first), Err(PlanRefusal::NotNamed));
    check(2, None, &[(1, planned(1, &first))], &Action::AcceptPlan(Box::new(first.clone())));
    check(2, None, &[(3, planned(3, &first)), (1, empty(1))], &Action::Wait(WaitReason::DeadPlan(address(3))));
}

#[test]
fn a_wiped_founder_does_not_found_again_while_a_peer_holds_its_old_plan() {
    let old = plan(3, 1, 3);
    let mut wiped = forming(1, NODES, None);
    wiped.node = node(11);
    let probes = BTreeMap::from([(address(2), planned(2, &old)), (address(3), empty(3))]);
    assert_eq!(wiped.step(&probes, seed(9)), Action::Wait(WaitReason::DeadPlan(address(2))));
    let probes = BTreeMap::from([(address(1), wiped.answer()), (address(3), empty(3))]);
    assert_eq!(forming(2, NODES, Some(old)).step(&probes, seed(9)), Action::Wait(WaitReason::OwnPlanDead));
}

#[test]
fn another_list_or_other_settings_are_refused_with_both_shown() {
    let mut peer = forming(2, NODES, None);
    peer.intent = intent(3, 5, 3);
    let refusal = forming(1, NODES, None).step(&BTreeMap::from([(address(2), peer.answer())]), seed(1));
    let Action::RefuseListMismatch { address: at, theirs, ours } = refusal else { panic!("{refusal:?}") };
    assert_eq!(at, address(2));
    assert!(theirs.to_string().contains("groups 5") && ours.to_string().contains("groups 1"));
}

#[test]
fn a_node_that_is_not_listed_never_founds() {
    let mut guest = forming(7, NODES, None);
    let answers = BTreeMap::from([(address(1), empty(1)), (address(2), empty(2)), (address(3), empty(3))]);
    assert_eq!(guest.step(&answers, seed(1)), Action::RefuseNotListed);
    guest.intent = intent(7, 1, 3);
    let answers = BTreeMap::from([(address(3), MEMBER)]);
    assert_eq!(guest.step(&answers, seed(1)), Action::JoinThrough(address(3)));
}

#[test]
fn a_founder_replaces_its_plan_when_a_node_was_wiped_before_it_initialized() {
    let old = plan(3, 1, 3);
    let wiped = Founder { node: node(33), info: info(3) };
    let probes = BTreeMap::from([
        (address(2), planned(2, &old)),
        (address(3), Probe::Empty { founder: wiped, intent: intent(3, 1, 3) }),
    ]);
    let action = forming(1, NODES, Some(old.clone())).step(&probes, seed(9));
    let Action::Found(new) = action else { panic!("{action:?}") };
    assert_eq!((new.number(), new.members()[&address(3)]), (2, node(33)));
    assert_eq!(forming(2, NODES, Some(old)).judge_plan(&new), Ok(()));
}

// The model. A node's incarnation, standing and the answers it has gathered; the plans under way as messages.

/// An index into `Model::plans`.
type PlanIndex = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Standing {
    Empty,
    Planned(PlanIndex),
    Member(PlanIndex),
}

/// What a node answered when it was asked, which may be long ago.
type Gathered = Option<(u8, Standing)>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    incarnations: [u8; NODES],
    standings: [Standing; NODES],
    /// `gathered[asker][peer]`. A peer that was not heard from counts as unreachable when the asker acts.
    gathered: [[Gathered; NODES]; NODES],
    /// Bit 3 x plan + target: a plan that was pushed to a target, to be delivered at any time, any number of times.
    pushed: u64,
    /// Bit per plan.
    initialized: u32,
    wipes_left: u8,
}

#[derive(Debug, Clone)]
enum Deed {
    Nothing,
    Hold(PlanIndex),
    Push(Vec<usize>),
    Initialize,
    Join(usize),
}

#[derive(Default)]
struct Model {
    plans: Vec<FoundingPlan>,
    deeds: HashMap<(usize, u8, Standing, [Gathered; NODES]), Deed>,
}

fn incarnation(position: usize, incarnation: u8) -> NodeId {
    node((position as u8 + 1) * 16 + incarnation)
}

impl Model {
    fn forming(&self, position: usize, count: u8, standing: Standing) -> FormingNode {
        let held = match standing {
            Standing::Empty => None,
            Standing::Planned(plan) => Some(self.plans[usize::from(plan)].clone()),
            Standing::Member(_) => unreachable!("a member is not forming"),
        };
        let mut forming = forming(position as u8 + 1, NODES, held);
        forming.node = incarnation(position, count);
        forming
    }

    fn answer(&self, position: usize, gathered: (u8, Standing)) -> Probe {
        match gathered {
            (_, Standing::Member(plan)) => Probe::Member { cluster: self.plans[usize::from(plan)].cluster_id() },
            (count, Standing::Empty | Standing::Planned(_)) => self.forming(position, count, gathered.1).answer(),
        }
    }

    /// Plans are told apart by founder incarnation, number and members; one written twice after a crash is the same.
    fn index_of(&mut self, plan: FoundingPlan) -> PlanIndex {
        let same = |known: &FoundingPlan| {
            (known.founder(), known.number(), known.members()) == (plan.founder(), plan.number(), plan.members())
        };
        let index = self.plans.iter().position(same).unwrap_or_else(|| {
            self.plans.push(plan);
            self.plans.len() - 1
        });
        assert!(index * NODES < 60, "the model's bit sets are full");
        index as PlanIndex
    }

    fn deed(&mut self, position: usize, state: &State) -> Deed {
        let (count, standing) = (state.incarnations[position], state.standings[position]);
        let key = (position, count, standing, state.gathered[position]);
        if let Some(deed) = self.deeds.get(&key) {
            return deed.clone();
        }
        let heard = (0..NODES).filter_map(|peer| {
            state.gathered[position][peer].map(|gathered| (address(peer as u8 + 1), self.answer(peer, gathered)))
        });
        let probes: BTreeMap<Address, Probe> = heard.collect();
        // The plan drawn next gets an unused cluster id.
        let seed = PlanSeed { cluster_id: ClusterId([100 + self.plans.len() as u8; 16]), hash_secret: [0; 4] };
        let position_of = |address: &Address| usize::from(address.port) - 7001;
        let deed = match self.forming(position, count, standing).step(&probes, seed) {
            Action::Wait(_) => Deed::Nothing,
            Action::Found(plan) | Action::AcceptPlan(plan) => Deed::Hold(self.index_of(*plan)),
            Action::SendPlan(targets) => Deed::Push(targets.iter().map(position_of).collect()),
            Action::Initialize => Deed::Initialize,
            Action::JoinThrough(address) => Deed::Join(position_of(&address)),
            refusal @ (Action::RefuseListMismatch { .. }
            | Action::RefuseTwoClusters(_, _)
            | Action::RefuseNotListed
            | Action::RefuseIntent(_)) => panic!("{refusal:?}"),
        };
        self.deeds.insert(key, deed.clone());
        deed
    }

    fn act(&mut self, position: usize, state: &State) -> State {
        let mut next = state.clone();
        next.gathered[position] = [None; NODES];
        let standing = state.standings[position];
        match (self.deed(position, state), standing) {
            (Deed::Nothing, _) => {}
            (Deed::Hold(plan), _) => next.standings[position] = Standing::Planned(plan),
            (Deed::Push(targets), Standing::Planned(plan)) => {
                targets.iter().for_each(|target| next.pushed |= 1 << (usize::from(plan) * NODES + target));
            }
            (Deed::Initialize, Standing::Planned(plan)) => {
                next.standings[position] = Standing::Member(plan);
                next.initialized |= 1 << plan;
            }
            (Deed::Join(through), _) => {
                if let Standing::Member(plan) = state.standings[through] {
                    next.standings[position] = Standing::Member(plan);
                }
            }
            (deed, standing) => panic!("{deed:?} by a node that is {standing:?}"),
        }
        next
    }

    fn deliver(&self, plan: PlanIndex, target: usize, state: &State) -> Option<State> {
        let standing = state.standings[target];
        if matches!(standing, Standing::Member(_)) {
            return None;
        }
        let offered = &self.plans[usize::from(plan)];
        self.forming(target, state.incarnations[target], standing).judge_plan(offered).ok()?;
        let mut next = state.clone();
        next.standings[target] = Standing::Planned(plan);
        Some(next)
    }

    fn successors(&mut self, state: &State) -> Vec<State> {
        let mut successors = Vec::new();
        for position in 0..NODES {
            let mut forget = state.clone();
            forget.gathered[position] = [None; NODES];
            if state.wipes_left > 0 {
                let mut wiped = forget.clone();
                wiped.incarnations[position] += 1;
                wiped.standings[position] = Standing::Empty;
                wiped.wipes_left -= 1;
                successors.push(wiped);
            }
            // A crash, or peers that were down when asked.
            successors.push(forget);
            let peers = (0..NODES).filter(|peer| *peer != position);
            if let Standing::Member(plan) = state.standings[position] {
                // Raft reaches a node that waits with the same plan.
                for peer in peers.filter(|peer| state.standings[*peer] == Standing::Planned(plan)) {
                    let mut reached = state.clone();
                    reached.standings[peer] = Standing::Member(plan);
                    reached.gathered[peer] = [None; NODES];
                    successors.push(reached);
                }
                continue;
            }
            for peer in peers.filter(|peer| state.gathered[position][*peer].is_none()) {
                let mut asked = state.clone();
                asked.gathered[position][peer] = Some((state.incarnations[peer], state.standings[peer]));
                successors.push(asked);
            }
            successors.push(self.act(position, state));
        }
        for bit in (0..64).filter(|bit| state.pushed & (1 << bit) != 0) {
            successors.extend(self.deliver((bit / NODES) as PlanIndex, bit % NODES, state));
        }
        successors
    }

    fn assert_one_cluster(&self, state: &State) {
        let initialized: Vec<usize> =
            (0..self.plans.len()).filter(|plan| state.initialized & (1 << plan) != 0).collect();
        for (position, first) in initialized.iter().enumerate() {
            for second in &initialized[position + 1..] {
                let shares = |node: &NodeId| self.plans[*second].members().values().any(|other| other == node);
                let shared = self.plans[*first].members().values().any(shares);
                assert!(!shared, "two initialized clusters share a node: {state:?}");
            }
        }
        let mut members = state.standings.iter().filter_map(|standing| match standing {
            Standing::Member(plan) => Some(plan),
            Standing::Empty | Standing::Planned(_) => None,
        });
        let first = members.next();
        assert!(members.all(|plan| Some(plan) == first), "living members of two clusters: {state:?}");
    }

    /// A plan is held whose founder was wiped, or its initialized cluster was lost with it: no node may act on it again.
    fn founder_was_lost(&self, state: &State) -> bool {
        state.standings.iter().any(|standing| match standing {
            Standing::Planned(plan) => {
                let founder = self.plans[usize::from(*plan)].founder();
                (0..NODES).all(|position| incarnation(position, state.incarnations[position]) != founder)
            }
            Standing::Empty | Standing::Member(_) => false,
        })
    }
}

/// Visits every reachable state; returns the states, the edges backwards, and the model.
fn explore(wipes: u8) -> (Vec<State>, Vec<Vec<u32>>, Model) {
    let mut model = Model::default();
    let start = State {
        incarnations: [0; NODES],
        standings: [Standing::Empty; NODES],
        gathered: [[None; NODES]; NODES],
        pushed: 0,
        initialized: 0,
        wipes_left: wipes,
    };
    let mut index_of = HashMap::from([(start.clone(), 0_u32)]);
    let (mut states, mut predecessors) = (vec![start], vec![Vec::new()]);
    let mut queue = VecDeque::from([0_u32]);
    while let Some(index) = queue.pop_front() {
        let state = states[index as usize].clone();
        model.assert_one_cluster(&state);
        for next in model.successors(&state) {
            let next_index = *index_of.entry(next).or_insert_with_key(|next| {
                states.push(next.clone());
                predecessors.push(Vec::new());
                queue.push_back(states.len() as u32 - 1);
                states.len() as u32 - 1
            });
            predecessors[next_index as usize].push(index);
        }
    }
    (states, predecessors, model)
}

/// For each state, whether some continuation without wipes ends with three members of one cluster.
fn can_form(states: &[State], predecessors: &[Vec<u32>]) -> Vec<bool> {
    let formed = |state: &State| state.standings.iter().all(|standing| matches!(standing, Standing::Member(_)));
    let mut can_form: Vec<bool> = states.iter().map(formed).collect();
    let mut queue: VecDeque<usize> = (0..states.len()).filter(|index| can_form[*index]).collect();
    while let Some(index) = queue.pop_front() {
        for before in predecessors[index].iter().map(|before| *before as usize) {
            if !can_form[before] && states[before].wipes_left == states[index].wipes_left {
                can_form[before] = true;
                queue.push_back(before);
            }
        }
    }
    can_form
}

#[test]
fn without_wipes_one_cluster_can_always_still_form_and_never_two() {
    let (states, predecessors, _) = explore(0);
    assert!(can_form(&states, &predecessors).into_iter().all(|can_form| can_form));
    assert!(states.iter().all(|state| state.initialized.count_ones() <= 1));
}

#[test]
fn with_wipes_at_any_step_never_two_clusters_and_only_a_lost_founder_stops_formation() {
    let (states, predecessors, model) = explore(1);
    assert!(states.len() > 100_000 && model.plans.len() > 3, "{} states, {} plans", states.len(), model.plans.len());
    for (state, can_form) in states.iter().zip(can_form(&states, &predecessors)) {
        assert!(can_form || model.founder_was_lost(state), "{state:?}");
    }
}
