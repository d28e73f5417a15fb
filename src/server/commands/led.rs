//! Reading whole groups: which this node leads, and reads under their leases.
//!
//! Commands over all keys cover the groups that this node leads. While a group that has a replica here has no leader, they
//! wait, since its keys would be missing from every node's answer.

use std::sync::Arc;

use tokio::time::Instant;

use crate::command::WireError;
use crate::raft::{Group, NoLeader};
use crate::server::settle::{Routed, wait_for_route};
use crate::server::shared::Shared;
use crate::slot::KeySlot;

impl From<NoLeader> for WireError {
    /// Leadership went away between the route and the read.
    fn from(NoLeader: NoLeader) -> Self {
        Self::LeadershipMoved
    }
}

/// The group that this node leads for a key slot; `None` if another node does. Waits for a leader, within bounds.
pub async fn route_in_time(key_slot: KeySlot, shared: &Shared) -> Result<Option<Arc<Group>>, WireError> {
    route_until(key_slot, shared, Instant::now() + shared.config.park_time_max()).await
}

async fn route_until(key_slot: KeySlot, shared: &Shared, give_up: Instant) -> Result<Option<Arc<Group>>, WireError> {
    match wait_for_route(key_slot, 0, shared, give_up).await {
        Routed::Local(group) => Ok(Some(group)),
        Routed::Elsewhere(_) => Ok(None),
        Routed::Down => Err(WireError::ClusterDown),
    }
}

/// The groups that this node leads, in the order of their ids. Waits until every group with a replica here has a leader,
/// within bounds.
pub async fn led_groups(shared: &Shared) -> Result<Vec<Arc<Group>>, WireError> {
    let give_up = Instant::now() + shared.config.park_time_max();
    let topology = shared.replication.topology();
    let mut led = Vec::new();
    for group in shared.replication.groups() {
        let Some(slot) = topology.slots_of(group.id()).next() else { continue };
        let key_slot = slot.key_slots().next().expect("a slot has sixteen key slots");
        led.extend(route_until(key_slot, shared, give_up).await?.filter(|routed| routed.id() == group.id()));
    }
    Ok(led)
}

/// Runs `read` so that it sees every write acknowledged before. It may run twice.
///
/// § The lease is checked before and after; a doubtful one costs a ReadIndex, and then the read needs no lease.
pub async fn read_led<T>(group: &Group, read: impl Fn(&Group) -> T) -> Result<T, NoLeader> {
    if let Some(value) = read_leased(group, &read) {
        return Ok(value);
    }
    group.read_index().await?;
    Ok(read(group))
}

fn read_leased<T>(group: &Group, read: impl Fn(&Group) -> T) -> Option<T> {
    let guard = group.lease()?;
    let value = read(group);
    guard.confirm().then_some(value)
}
