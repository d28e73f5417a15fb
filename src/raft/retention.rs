//! What the node's log and directory let go of, seen from outside of the groups: old segments that quiet groups hold, and replicas that
//! are gone.
//!
//! A busy group makes snapshots and purges by itself (`raft/upkeep.rs`). Segments are shared, so a group that writes little, the meta group
//! above all, would hold on to the others' entries beside its own for ever.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::storage::RaftStateMachine;

use crate::cluster::{GroupId, ReplicaId};
use crate::raft::TypeConfig;
use crate::raft::log::{NodeLog, Pin};
use crate::raft::upkeep::ENTRIES_PURGED_AT_ONCE;

/// Between two steps of a purge.
const STEP: Duration = Duration::from_millis(10);

/// Bytes the log may have for `replicas` that purge by themselves.
pub fn log_bytes_of(replicas: usize, log_bytes_max: u64) -> u64 {
    log_bytes_max.saturating_mul(2).saturating_mul(replicas.max(1) as u64)
}

/// Purges the entries of `pin`, or makes the snapshot that lets the next call do so.
pub async fn release<SM: RaftStateMachine<TypeConfig>>(raft: openraft::Raft<TypeConfig, SM>, pin: Pin) {
    // A core that has stopped is reported elsewhere; what fails now is tried again.
    if pin.covered {
        let mut index = pin.purged.unwrap_or(0);
        while index < pin.index {
            index = (index + ENTRIES_PURGED_AT_ONCE as u64).min(pin.index);
            let _ = raft.trigger().purge_log(index).await;
            tokio::time::sleep(STEP).await;
        }
        return;
    }
    let applied_more = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.snapshot < metrics.last_applied
    };
    if applied_more {
        let _ = raft.trigger().snapshot().await;
    }
}

/// Takes from the log what is neither in `kept` nor of a group in `starting`; the directories of such replicas are returned.
///
/// § Ids are never reused, so what is found unwanted once may be deleted at any later time. A crash on the way leaves the rest to the next
/// start.
pub fn forget_others(
    log: &NodeLog,
    data_directory: &Path,
    kept: &BTreeSet<(GroupId, ReplicaId)>,
    starting: &BTreeSet<GroupId>,
) -> Vec<PathBuf> {
    let unwanted = |key: &(GroupId, ReplicaId)| !kept.contains(key) && !starting.contains(&key.0);
    for (group, replica) in log.replicas().into_iter().filter(unwanted) {
        tracing::info!(%group, %replica, "this node has no such replica any more: its log is removed");
        log.remove_group(group, replica);
    }
    let directories = fs::read_dir(replicas_directory(data_directory)).into_iter().flatten().flatten();
    let directories = directories.map(|directory| directory.path());
    directories.filter(|path| replica_of(path).is_some_and(|key| unwanted(&key))).collect()
}

fn replicas_directory(data_directory: &Path) -> PathBuf {
    data_directory.join("groups")
}

/// Where a replica's snapshots are.
pub fn replica_directory(data_directory: &Path, group: GroupId, replica: ReplicaId) -> PathBuf {
    replicas_directory(data_directory).join(format!("{group}-{replica}"))
}

/// The replica whose directory this is; `None` for what others have put there.
fn replica_of(directory: &Path) -> Option<(GroupId, ReplicaId)> {
    let (group, replica) = directory.file_name()?.to_str()?.split_once('-')?;
    Some((GroupId(group.parse().ok()?), ReplicaId(replica.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::log::{Fsync, LogOptions};
    use crate::raft::types::{LeaderId, LogId};

    #[test]
    fn what_is_left_of_other_replicas_is_forgotten_for_good() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = LogOptions { fsync: Fsync::Always, segment_bytes: 1 << 20, accept_loss: false, memory_bytes: 0 };
        let open = || NodeLog::open(&directory.path().join("log"), options).expect("opens").0;
        let key = |group, replica| (GroupId(group), ReplicaId(replica));
        let log = open();
        for (group, replica) in [key(0, 1), key(1, 4), key(2, 5), key(3, 6), key(3, 7)] {
            log.group(group, replica).snapshot_saved(LogId::new(LeaderId { term: 1, node_id: 1 }, 1));
            fs::create_dir_all(replica_directory(directory.path(), group, replica)).expect("creates");
        }
        fs::create_dir(directory.path().join("groups/lost+found")).expect("creates");
        let (kept, starting) = ([key(0, 1), key(3, 7)].into(), [GroupId(2)].into());
        let mut gone = forget_others(&log, directory.path(), &kept, &starting);
        gone.sort();
        assert_eq!(
            gone,
            [key(1, 4), key(3, 6)].map(|(group, replica)| replica_directory(directory.path(), group, replica))
        );
        assert_eq!(log.replicas(), [key(0, 1), key(2, 5), key(3, 7)]);
        drop(log);
        assert_eq!(open().replicas(), [key(0, 1), key(2, 5), key(3, 7)], "also after a restart");
    }
}
