//! Reading whole groups: which this node leads, and reads under their leases.
//!
//! Commands over all keys cover the groups that this node leads. While a group that has a replica here has no leader, or the replica is
//! still starting, they wait, since its keys would be missing from every node's answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::GroupId;
use crate::command::WireError;
use crate::raft::{Group, NoLeader, Route};
use crate::server::settle::{Routed, wait_for_route};
use crate::server::shared::Shared;
use crate::slot::KeySlot;

/// A move's outcome is a matter of milliseconds.
const SETTLED_POLL: Duration = Duration::from_millis(2);
const SETTLED_TRIES_MAX: usize = 1000;
/// Until a group that has lost its leader is looked at again.
const NO_LEADER_PAUSE: Duration = Duration::from_millis(20);

/// The group that this node leads for a key slot; `None` if another node does. Waits for a leader, within bounds.
pub async fn route_in_time(key_slot: KeySlot, shared: &Shared) -> Result<Option<Arc<Group>>, WireError> {
    let give_up = Instant::now() + shared.config.park_time_max();
    match wait_for_route(key_slot, 0, shared, give_up).await {
        Routed::Local(group) => Ok(Some(group)),
        Routed::Elsewhere(_) => Ok(None),
        Routed::Down => Err(WireError::ClusterDown),
    }
}

/// The groups that this node leads, in the order of their ids. Waits until every group with a replica here has a leader,
/// within bounds.
async fn led_groups(shared: &Shared, give_up: Instant) -> Result<Vec<Arc<Group>>, WireError> {
    let replication = &shared.replication;
    let mut led = Vec::new();
    // § By the topology: a replica that is still starting is not among the groups yet, and its keys would be missing. A group without slots, and
    // none on the way to it, has no keys to wait for.
    let is_led = |group: GroupId| replication.group(group).is_some_and(|group| group.leads());
    // Looked at anew after each wait.
    let is_in_use = |group: GroupId| replication.topology().is_in_use(group) || is_led(group);
    let topology = replication.topology();
    let here = topology.replicas_on(replication.node()).map(|(group, _)| group);
    for group in here.filter(|group| is_in_use(*group)) {
        led.extend(led_until(group, shared, give_up).await?);
    }
    Ok(led)
}

/// The groups that this node leads, at a moment when no slot of any of them waits for a move's outcome.
pub async fn settled_groups(shared: &Shared, give_up: Instant) -> Result<Vec<Arc<Group>>, WireError> {
    loop {
        let groups = led_groups(shared, give_up).await?;
        if groups.iter().all(|group| group.slot_version().is_some()) {
            return Ok(groups);
        }
        if Instant::now() >= give_up {
            return Err(WireError::ClusterDown);
        }
        tokio::task::yield_now().await;
    }
}

/// Runs `read` on the groups that this node leads, again while one of them loses its leader, within bounds.
pub async fn read_all<T, F>(shared: &Shared, read: impl Fn(Vec<Arc<Group>>) -> F) -> Result<T, WireError>
where
    F: Future<Output = Result<T, ReadAllError>>,
{
    let give_up = Instant::now() + shared.config.park_time_max();
    loop {
        let mut changes = shared.replication.changes();
        match read(led_groups(shared, give_up).await?).await {
            Ok(value) => return Ok(value),
            Err(ReadAllError::Refused(error)) => return Err(error),
            Err(ReadAllError::NoLeader) if Instant::now() >= give_up => return Err(WireError::ClusterDown),
            Err(ReadAllError::NoLeader) => {
                let pause = give_up.min(Instant::now() + NO_LEADER_PAUSE);
                // Either way the groups are looked at again.
                let _ = tokio::time::timeout_at(pause, changes.changed()).await;
            }
        }
    }
}

/// Why all groups could not be read.
#[derive(Debug)]
pub enum ReadAllError {
    /// Leadership went away between the route and the read.
    NoLeader,
    Refused(WireError),
}

impl From<NoLeader> for ReadAllError {
    fn from(NoLeader: NoLeader) -> Self {
        Self::NoLeader
    }
}

impl From<WireError> for ReadAllError {
    fn from(error: WireError) -> Self {
        Self::Refused(error)
    }
}

/// The group if this node leads it, once it has a leader and none of its slots waits for a move's outcome.
async fn led_until(id: GroupId, shared: &Shared, give_up: Instant) -> Result<Option<Arc<Group>>, WireError> {
    let mut changes = shared.replication.changes();
    loop {
        match shared.replication.route_group(id) {
            Route::Local(group) if group.slot_version().is_some() => return Ok(Some(group)),
            // A group that the topology has let go of has no keys.
            Route::Moved(_) | Route::Down => return Ok(None),
            Route::Local(_) | Route::Park => (),
        }
        if !matches!(tokio::time::timeout_at(give_up, changes.changed()).await, Ok(Ok(()))) {
            return Err(WireError::ClusterDown);
        }
    }
}

/// Runs `read` so that it sees every write acknowledged before. It may run twice.
///
/// § The lease is checked before and after; a doubtful one costs a ReadIndex, and then the read needs no lease. A slot that came, left or
/// froze meanwhile was read by halves, or not at all: the read is made again.
pub async fn read_led<T>(group: &Group, read: impl Fn(&Group) -> T) -> Result<T, NoLeader> {
    for _ in 0..SETTLED_TRIES_MAX {
        let version = group.slot_version();
        let value = match read_leased(group, &read) {
            Some(value) => value,
            None => {
                group.read_index().await?;
                read(group)
            }
        };
        if version.is_some() && version == group.slot_version() {
            return Ok(value);
        }
        tokio::time::sleep(SETTLED_POLL).await;
    }
    Err(NoLeader)
}

fn read_leased<T>(group: &Group, read: impl Fn(&Group) -> T) -> Option<T> {
    let guard = group.lease()?;
    let value = read(group);
    guard.confirm().then_some(value)
}
