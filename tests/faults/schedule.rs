//! Which fault comes when, and how each is done and undone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::moves::{Roles, roles};
use super::net::BadLink;
use super::nodes::Nodes;
use super::random::Random;
use super::run::from_environment;
use crate::cluster::harness::eventually;
use crate::host::Stopwatch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// RedisRaft's first bugs showed in a healthy cluster.
    Nothing,
    KillLeader,
    KillTwo,
    KillAll,
    /// Of a slot's move that is under way, the leader of the group that has the slot.
    KillSource,
    /// The leader of the group that is to have it.
    KillTarget,
    /// The leader of the group that decides.
    KillMeta,
    /// All three at once.
    KillMovers,
    PauseMovers,
    /// A node is away until the others' logs begin after its own: it needs a snapshot.
    LeftBehind,
    /// What was not synced is gone.
    PowerLoss,
    PowerLossOfAll,
    /// SIGTERM, and started again.
    RestartLeader,
    RestartEach,
    PauseLeader,
    PauseTwo,
    PauseAll,
    /// The leader hears, and is not heard.
    LeaderMute,
    /// The leader is heard, and does not hear.
    LeaderDeaf,
    LeaderAlone,
    FollowerAlone,
    /// Two nodes do not hear each other, the others hear both.
    Bridge,
    EachAlone,
    /// The leader's links go down and up.
    Flapping,
    /// The leader is cut off, and comes back when its successor is killed.
    LeaderBackSuccessorKilled,
    DiskFull,
    AllDisksFull,
    /// The leader's disk cannot sync.
    SyncFails,
    /// Two nodes' wall clocks jump, one ahead and one back, and later both again.
    ClocksJump,
    SlowLink,
    LossyLink,
    /// Planned transfers, one after the other.
    Transfers,
}

/// How long a fault lasts: longer than a lease and an election; now and then longer than a node waits for an outcome (5 s).
const SHORT_MS: (usize, usize) = (1_200, 3_000);
const LONG_MS: usize = 6_500;
const LONG_ONE_IN: usize = 8;
const FLAP_MS: (usize, usize) = (20, 250);
/// For a node to notice that its disk cannot sync, and to end.
const STOP_WAIT: Duration = Duration::from_secs(20);
const JUMP_SECONDS_MAX: usize = 7200;
/// About what a move of a small slot takes.
const MOVE_MS: usize = 40;
/// For leaders to be on their own nodes again, which takes 12 s.
const SPREAD_WAIT: Duration = Duration::from_secs(20);
/// For a bad link to have been one.
const SPOIL_WAIT: Duration = Duration::from_secs(10);
const SNAPSHOT_WRITTEN: &str = "wrote a snapshot";
pub const SNAPSHOT_INSTALLED: &str = "installed a snapshot";
const SNAPSHOT_WAIT: Duration = Duration::from_secs(60);
/// To send and to install one.
const SNAPSHOT_TIME: Duration = Duration::from_secs(1);

impl Fault {
    pub const ALL: [Self; 32] = [
        Self::Nothing,
        Self::KillLeader,
        Self::KillTwo,
        Self::KillAll,
        Self::KillSource,
        Self::KillTarget,
        Self::KillMeta,
        Self::KillMovers,
        Self::PauseMovers,
        Self::LeftBehind,
        Self::PowerLoss,
        Self::PowerLossOfAll,
        Self::RestartLeader,
        Self::RestartEach,
        Self::PauseLeader,
        Self::PauseTwo,
        Self::PauseAll,
        Self::LeaderMute,
        Self::LeaderDeaf,
        Self::LeaderAlone,
        Self::FollowerAlone,
        Self::Bridge,
        Self::EachAlone,
        Self::Flapping,
        Self::LeaderBackSuccessorKilled,
        Self::DiskFull,
        Self::AllDisksFull,
        Self::SyncFails,
        Self::ClocksJump,
        Self::SlowLink,
        Self::LossyLink,
        Self::Transfers,
    ];
    /// What a Redis Cluster loses acknowledged writes by.
    pub const CONTROL: [Self; 3] = [Self::LeaderAlone, Self::PauseLeader, Self::KillLeader];

    /// What this machine has not, and the fault needs.
    pub fn lacks(self, nodes: &Nodes) -> Option<&'static str> {
        let (is_there, what) = match self {
            Self::LeaderMute
            | Self::LeaderDeaf
            | Self::LeaderAlone
            | Self::FollowerAlone
            | Self::Bridge
            | Self::EachAlone
            | Self::Flapping
            | Self::LeaderBackSuccessorKilled => (nodes.net.is_some(), "network namespaces: root and `ip`"),
            Self::DiskFull | Self::AllDisksFull => (nodes.has_disks(), "small disks: root and `mount`"),
            Self::SyncFails | Self::ClocksJump | Self::PowerLoss | Self::PowerLossOfAll => {
                (!nodes.shims.is_empty(), "a library to load into nodes: `cc`")
            }
            Self::SlowLink | Self::LossyLink => (nodes.can_spoil_links(), "bad links: root, `ip` and `tc`"),
            Self::Nothing
            | Self::KillLeader
            | Self::KillTwo
            | Self::KillAll
            | Self::KillSource
            | Self::KillTarget
            | Self::KillMeta
            | Self::KillMovers
            | Self::PauseMovers
            | Self::LeftBehind
            | Self::RestartLeader
            | Self::RestartEach
            | Self::PauseLeader
            | Self::PauseTwo
            | Self::PauseAll
            | Self::Transfers => (true, "nothing"),
        };
        (!is_there).then_some(what)
    }

    /// What an operator does on purpose.
    pub fn is_planned(self) -> bool {
        matches!(self, Self::RestartLeader | Self::RestartEach | Self::Transfers)
    }

    /// Does it to the cluster and undoes it. `leader` leads the group of most hot keys.
    pub fn strike(self, nodes: &mut Nodes, leader: usize, random: &mut Random) {
        let others: Vec<usize> = (0..nodes.nodes.len()).filter(|node| *node != leader).collect();
        let other = others[random.below(others.len())];
        let all: Vec<usize> = (0..nodes.nodes.len()).collect();
        let hold = hold(random);
        match self {
            Self::Nothing => std::thread::sleep(hold),
            Self::KillLeader => kill(nodes, &[leader], hold),
            Self::KillTwo => kill(nodes, &[leader, other], hold),
            Self::KillAll => kill(nodes, &all, hold),
            Self::KillSource => kill_movers(nodes, |roles| [roles.source].into(), random),
            Self::KillTarget => kill_movers(nodes, |roles| [roles.target].into(), random),
            Self::KillMeta => kill_movers(nodes, |roles| [roles.meta].into(), random),
            Self::KillMovers => kill_movers(nodes, |roles| roles.nodes(), random),
            Self::PauseMovers => {
                let victims = movers(nodes, spread_wait(), |roles| roles.nodes(), random);
                pause(nodes, &victims, hold);
            }
            Self::LeftBehind => leave_behind(nodes, other),
            Self::PowerLoss => lose_power(nodes, &[leader], hold),
            Self::PowerLossOfAll => lose_power(nodes, &all, hold),
            Self::RestartLeader => restart(nodes, &[leader]),
            Self::RestartEach => restart(nodes, &all),
            Self::PauseLeader => pause(nodes, &[leader], hold),
            Self::PauseTwo => pause(nodes, &[leader, other], hold),
            Self::PauseAll => pause(nodes, &all, hold),
            Self::LeaderMute => cut(nodes, &one_way(&[leader], &others), hold),
            Self::LeaderDeaf => cut(nodes, &one_way(&others, &[leader]), hold),
            Self::LeaderAlone => cut(nodes, &both_ways(&[leader], &others), hold),
            Self::FollowerAlone => {
                let rest: Vec<usize> = all.into_iter().filter(|node| *node != other).collect();
                cut(nodes, &both_ways(&[other], &rest), hold);
            }
            Self::Bridge => cut(nodes, &both_ways(&[leader], &[other]), hold),
            Self::EachAlone => cut(nodes, &one_way(&all, &all), hold),
            Self::Flapping => flap(nodes, &both_ways(&[leader], &others), hold, random),
            Self::LeaderBackSuccessorKilled => back_when_successor_dies(nodes, leader, &others, hold, random),
            Self::DiskFull => fill(nodes, &[leader], leader, hold),
            Self::AllDisksFull => fill(nodes, &all, leader, hold),
            Self::SyncFails => fail_syncs(nodes, leader, hold),
            Self::ClocksJump => jump(nodes, leader, other, hold, random),
            Self::SlowLink => spoil(nodes, leader, BadLink::Slow, hold),
            Self::LossyLink => spoil(nodes, leader, BadLink::Lossy, hold),
            Self::Transfers => [other, leader, other].into_iter().for_each(|node| {
                nodes.take_leadership(node);
                std::thread::sleep(hold / 3);
            }),
        }
    }
}

/// Every kind once, in an order of its own, then again: rare kinds do not exist.
pub struct Schedule {
    kinds: Vec<Fault>,
    left: Vec<Fault>,
}

impl Schedule {
    pub fn new(kinds: Vec<Fault>) -> Self {
        Self { kinds, left: Vec::new() }
    }

    pub fn next(&mut self, random: &mut Random) -> Fault {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        self.left.swap_remove(random.below(self.left.len()))
    }
}

fn hold(random: &mut Random) -> Duration {
    let short = SHORT_MS.0 + random.below(SHORT_MS.1 - SHORT_MS.0);
    let is_long = random.below(LONG_ONE_IN) == 0;
    Duration::from_millis(if is_long { LONG_MS } else { short } as u64)
}

fn kill(nodes: &mut Nodes, victims: &[usize], hold: Duration) {
    victims.iter().for_each(|node| nodes.nodes[*node].kill());
    std::thread::sleep(hold);
    victims.iter().for_each(|node| nodes.nodes[*node].start());
}

/// The short run has no time for it.
fn spread_wait() -> Duration {
    if from_environment("KVORUM_FAULT_SECONDS").is_some() { SPREAD_WAIT } else { Duration::ZERO }
}

/// Waits for a move, and some of the time that its steps take.
fn movers(
    nodes: &Nodes,
    spread_wait: Duration,
    choose: fn(Roles) -> BTreeSet<usize>,
    random: &mut Random,
) -> Vec<usize> {
    let roles = roles(nodes, spread_wait);
    std::thread::sleep(Duration::from_millis(random.below(MOVE_MS) as u64));
    println!("          {roles:?} of a move");
    choose(roles).into_iter().collect()
}

/// Each is back at once: what they had begun is to go on, or be undone. A move has many steps, so there are several tries.
fn kill_movers(nodes: &mut Nodes, choose: fn(Roles) -> BTreeSet<usize>, random: &mut Random) {
    for spread_wait in [spread_wait(), Duration::ZERO, Duration::ZERO] {
        let victims = movers(nodes, spread_wait, choose, random);
        kill(nodes, &victims, Duration::ZERO);
        nodes.wait_ready();
    }
}

/// Until the node has been given a snapshot. Of which groups the others write one is chance, and half a log stays behind each, so that what
/// a node misses during one snapshot may still be there: each try lasts for one more. All others are written to, as of four nodes each leads a group that
/// another has no replica of.
fn leave_behind(nodes: &mut Nodes, victim: usize) {
    let said = |nodes: &Nodes, node: usize, text: &str| nodes.nodes[node].log().matches(text).count();
    let others: Vec<usize> = (0..nodes.nodes.len()).filter(|node| *node != victim).collect();
    let written = |nodes: &Nodes| others.iter().map(|node| said(nodes, *node, SNAPSHOT_WRITTEN)).sum::<usize>();
    let installed = said(nodes, victim, SNAPSHOT_INSTALLED);
    let waited = Stopwatch::start();
    let mut wanted = 0;
    while said(nodes, victim, SNAPSHOT_INSTALLED) == installed {
        wanted += 1;
        assert!(!waited.is_over(SNAPSHOT_WAIT), "no snapshot is installed\n{}", nodes.nodes[victim].log());
        nodes.nodes[victim].kill();
        let before = written(nodes);
        eventually(
            SNAPSHOT_WAIT,
            || format!("{wanted} snapshots are written"),
            || {
                others.iter().for_each(|node| nodes.write_bulk(*node));
                written(nodes) >= before + others.len() * wanted
            },
        );
        nodes.nodes[victim].start();
        nodes.wait_ready();
        std::thread::sleep(SNAPSHOT_TIME);
    }
}

fn lose_power(nodes: &mut Nodes, victims: &[usize], hold: Duration) {
    victims.iter().for_each(|node| nodes.nodes[*node].kill());
    for node in victims {
        nodes.shims[*node].lose_power(&nodes.nodes[*node].directory);
    }
    std::thread::sleep(hold);
    victims.iter().for_each(|node| nodes.nodes[*node].start());
}

/// The next one when the one before serves again: what a rolling restart waits for.
fn restart(nodes: &mut Nodes, victims: &[usize]) {
    for node in victims {
        let code = nodes.nodes[*node].stop();
        assert_eq!(code, Some(0), "a clean stop\n{}", nodes.nodes[*node].log());
        nodes.nodes[*node].start();
        nodes.wait_ready();
    }
}

fn pause(nodes: &Nodes, victims: &[usize], hold: Duration) {
    victims.iter().for_each(|node| nodes.nodes[*node].signal("STOP"));
    victims.iter().for_each(|node| nodes.nodes[*node].wait_stopped());
    std::thread::sleep(hold);
    victims.iter().for_each(|node| nodes.nodes[*node].signal("CONT"));
}

fn one_way(from: &[usize], to: &[usize]) -> Vec<(usize, usize)> {
    let pairs = from.iter().flat_map(|from| to.iter().map(|to| (*from, *to)));
    pairs.filter(|(from, to)| from != to).collect()
}

fn both_ways(some: &[usize], others: &[usize]) -> Vec<(usize, usize)> {
    [one_way(some, others), one_way(others, some)].concat()
}

fn cut(nodes: &Nodes, links: &[(usize, usize)], hold: Duration) {
    let net = nodes.net.as_ref().expect("only where it is possible");
    net.cut(links);
    std::thread::sleep(hold);
    net.mend(links);
}

fn flap(nodes: &Nodes, links: &[(usize, usize)], hold: Duration, random: &mut Random) {
    let until = Instant::now() + hold;
    while Instant::now() < until {
        let mut a_while = || Duration::from_millis((FLAP_MS.0 + random.below(FLAP_MS.1 - FLAP_MS.0)) as u64);
        let (down, up) = (a_while(), a_while());
        cut(nodes, links, down);
        std::thread::sleep(up);
    }
}

/// The old leader has entries of its own that nobody else has, its successor's may be on two nodes of three.
fn back_when_successor_dies(nodes: &mut Nodes, leader: usize, others: &[usize], hold: Duration, random: &mut Random) {
    let links = both_ways(&[leader], others);
    cut(nodes, &links, hold);
    let successor = others[random.below(others.len())];
    kill(nodes, &[successor], hold);
}

/// A node without space goes on when it has some again.
fn fill(nodes: &Nodes, victims: &[usize], leader: usize, hold: Duration) {
    victims.iter().for_each(|node| nodes.disks[*node].fill());
    // Space is taken ahead of need: without a load of their own, a short time would not find its end.
    nodes.write_bulk(leader);
    std::thread::sleep(hold);
    victims.iter().for_each(|node| nodes.disks[*node].free());
}

/// A node whose disk does not keep what is written ends by itself, and is started again on another day.
fn fail_syncs(nodes: &mut Nodes, victim: usize, hold: Duration) {
    nodes.shims[victim].fail_syncs(true);
    let code = nodes.nodes[victim].wait(STOP_WAIT);
    assert!(code.is_some_and(|code| code > 0), "the node ended with {code:?}\n{}", nodes.nodes[victim].log());
    std::thread::sleep(hold);
    nodes.shims[victim].fail_syncs(false);
    nodes.nodes[victim].start();
}

fn jump(nodes: &Nodes, one: usize, other: usize, hold: Duration, random: &mut Random) {
    let mut seconds = || (1 + random.below(JUMP_SECONDS_MAX)) as i64;
    let (ahead, back) = (seconds(), seconds());
    nodes.shims[one].shift_wall_clock(ahead);
    nodes.shims[other].shift_wall_clock(-back);
    let wall =
        |node: usize| nodes.nodes[node].ask(&["LASTSAVE"]).text().parse::<i64>().expect("the present, in seconds");
    assert!(wall(one) - wall(other) >= ahead + back - 2, "the clocks differ");
    std::thread::sleep(hold);
    [one, other].iter().for_each(|node| nodes.shims[*node].shift_wall_clock(0));
}

fn spoil(nodes: &Nodes, victim: usize, link: BadLink, hold: Duration) {
    let net = nodes.net.as_ref().expect("only where it is possible");
    assert!(net.spoil(victim, link), "as before");
    std::thread::sleep(hold);
    // § A queue that is never full loses nothing, however short: then there was no fault.
    let was_bad = || match (link, net.spoilt(victim)) {
        (BadLink::Slow, (_, delayed)) => delayed > 0,
        (BadLink::Lossy, (dropped, _)) => dropped > 0,
    };
    eventually(SPOIL_WAIT, || format!("{link:?} link of node {victim}: {:?}", net.spoilt(victim)), was_bad);
    net.repair(victim);
}
