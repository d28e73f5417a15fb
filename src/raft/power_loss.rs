//! A start after which entries that this node acknowledged may be gone: the log was not synced before each acknowledgement (`appendfsync` everysec or
//! no), and either the kernel was restarted and the log had not been stopped cleanly, or a sync of it failed (`log/failed_sync.rs`).
//!
//! § Such a node must not come back as the replicas it was: a quorum that counted on its copy would be none. It joins anew, with new
//! replica ids, through a quorum of nodes that are whole; what it had is set aside and brought back by the others. Each group that it has
//! entries of must have such a quorum, and show it by a commit without this node (`raft/peers.rs`): else what is here may be all there is.
//!
//! If no such quorum is left (with one or two replicas there never is), only the operator can decide that what remains is to count:
//! `kvorum cluster accept-loss` on as few nodes as make a quorum. What that means for Raft: votes, truncations and memberships are synced in every mode, so no node votes twice in a
//! term and the election's rule stands: of the nodes that vote, the one with the newest log leads. A log that lost its tail is
//! like that of a replica that never received it. What can be lost is an entry that was acknowledged on no other node of the new quorum. A node
//! that is whole never loses an election to one that is not, as long as both are asked; so nodes that did not accept stay
//! out (they wait, and then join anew) rather than come back with entries that the new leader never saw.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::cluster::{Address, GroupId, MetaOp, NodeId, Probe, Topology, WantedSettings};
use crate::raft::directory::{named, replace_file, sync_directory};
use crate::raft::formation::{
    Answers, FormationConfig, FormationError, JoinFailure, Newcomer, Reporter, answer_probes, join,
};
use crate::raft::log::Recovered;
use crate::raft::node_file::{self, Membership, NodeFile, NodeRecord};

const REPORT_FILE: &str = "power-loss.txt";
const MARKER_FILE: &str = "accept-loss";
const SET_ASIDE: &str = "set-aside";
pub const LOG_DIRECTORY: &str = "log";
/// All that a node has.
const MOVED: [&str; 3] = ["groups", LOG_DIRECTORY, node_file::FILE_NAME];
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
const WAITING_TEXT: &str = "CLUSTERDOWN this node may have lost acknowledged writes in a power failure or a failed sync, and waits for the others to take it in; \
     if they cannot, see `kvorum cluster accept-loss --help`";

/// What is to become of the data.
#[derive(Debug)]
pub enum Resolution {
    /// It is as good as there is.
    Keep,
    /// This node is a new member of its cluster.
    Replace(Box<NodeRecord>),
}

/// Decides by itself where nothing has to be asked, else waits: for the cluster to take this node in, or for the operator. Meanwhile the client
/// port says what the matter is.
pub async fn resolve(
    directory: &Path,
    file: &NodeFile,
    recovered: &Recovered,
    config: &FormationConfig,
    listen: &[SocketAddr],
) -> Result<Resolution, FormationError> {
    let Membership::Member { topology, .. } = &file.record.membership else {
        // It has acknowledged nothing but votes, which are synced.
        return Ok(Resolution::Keep);
    };
    let report = report_text(recovered);
    if topology.nodes().len() == 1 {
        // There is no other copy and never was: what is gone was promised to nobody for longer than the mode says.
        tracing::warn!("{report}");
        return Ok(Resolution::Keep);
    }
    replace_file(&directory.join(REPORT_FILE), &[report.as_bytes()])?;
    tracing::warn!("{report}");
    let mut answering = JoinSet::new();
    let probe = Arc::new(Mutex::new(Probe::Member { cluster: topology.cluster_id() }));
    let answers = Answers { probe, password: config.password.clone(), others: WAITING_TEXT };
    for address in listen {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
        answering.spawn(answer_probes(listener, answers.clone()));
    }
    let resolution = wait(directory, &held(recovered), topology, config).await;
    answering.shutdown().await;
    resolution
}

async fn wait(
    directory: &Path,
    held: &BTreeSet<GroupId>,
    topology: &Topology,
    config: &FormationConfig,
) -> Result<Resolution, FormationError> {
    let settings = topology.settings();
    let settings =
        WantedSettings { groups: settings.groups, replicas: Some(settings.replicas), ..config.intent.settings };
    let op = MetaOp::Join { node: NodeId::random(), info: config.info.clone(), settings };
    let others = topology.nodes().values().map(crate::cluster::NodeInfo::address);
    let mut peers: BTreeSet<Address> = others.chain(config.intent.addresses.iter().cloned()).collect();
    peers.remove(&config.info.address());
    let mut reporter = Reporter::default();
    loop {
        if directory.join(MARKER_FILE).exists() {
            tracing::warn!("the operator has accepted the loss: this node goes on with what it has");
            return Ok(Resolution::Keep);
        }
        let mut reasons = Vec::new();
        for address in &peers {
            match join(&op, Newcomer::Returning, held, config.password.as_ref(), address).await {
                Ok(topology) => {
                    let MetaOp::Join { node, .. } = op else { unreachable!("made above") };
                    let membership = Membership::Member { topology: Box::new(topology), plan: None };
                    return Ok(Resolution::Replace(Box::new(NodeRecord { node, membership })));
                }
                Err(JoinFailure::Refused(reason)) => return Err(FormationError::Refused(reason)),
                Err(JoinFailure::Later(reason)) => reasons.push(format!("{address}: {reason}")),
            }
        }
        reporter.note(&format!(
            "acknowledged writes may be missing here after a power failure or one of the disk; not taken in anew ({}). If the others are up and that stays so, a quorum \
             has lost what is missing or is gone: run `kvorum cluster accept-loss --data-dir {}`, on as few nodes as make a quorum",
            reasons.join("; "),
            directory.display()
        ));
        tokio::time::sleep(ROUND_INTERVAL).await;
    }
}

/// Data groups that this node may have acknowledged something of. § Not those without an entry: the first one is a membership, which is
/// synced before anything is acknowledged. The meta group has to commit the node's join anyway.
pub fn held(recovered: &Recovered) -> BTreeSet<GroupId> {
    let with_entries = recovered.replicas.iter().filter(|(_, last)| last.is_some());
    with_entries.map(|((group, _), _)| *group).filter(|group| *group != GroupId::META).collect()
}

fn report_text(recovered: &Recovered) -> String {
    let mut text = "This machine was restarted while the node ran with appendfsync everysec or no and had not been stopped, or its disk failed \
        to sync the log in such a mode. Writes that it acknowledged before may be missing here: about the last second's with everysec, about the last half minute's with no. \
        What is here:"
        .to_owned();
    for ((group, replica), last) in &recovered.replicas {
        let last = last
            .map_or_else(|| "nothing".to_owned(), |id| format!("up to term {} entry {}", id.leader_id.term, id.index));
        let name = if *group == GroupId::META { "meta group".to_owned() } else { format!("group {group}") };
        write!(text, "\n  {name}, replica {replica}: {last}").expect("writing to a string does not fail");
    }
    text
}

/// What a node that waits in this directory says about it; `None` if none does.
pub fn report(directory: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(directory.join(REPORT_FILE)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(named(&directory.join(REPORT_FILE), &error)),
    }
}

/// The operator's word that the node in this directory is to go on with what it has.
pub fn accept(directory: &Path) -> io::Result<()> {
    replace_file(&directory.join(MARKER_FILE), &[])
}

/// Before what a node had is set aside for another reason: a crash in between must not look like a log that was lost.
pub fn announce_new_member(directory: &Path) -> io::Result<()> {
    let text = b"This node has joined another cluster; what it had is in set-aside.";
    replace_file(&directory.join(REPORT_FILE), &[text])
}

/// Forgets what was waited for, once a log that is not under suspicion any more is begun.
pub fn settled(directory: &Path) -> io::Result<()> {
    for name in [REPORT_FILE, MARKER_FILE] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&directory.join(name), &error)),
            Ok(()) | Err(_) => (),
        }
    }
    sync_directory(directory).map_err(|error| named(directory, &error))
}

/// Moves what the node had out of the way and makes it the new member that `record` says. The log is closed. What was set aside at an
/// earlier time is deleted.
///
/// § A crash in between must not leave a new member with its old self's log, nor have a second attempt delete what the first one moved: once
/// the new record is written down, the next start goes on from there.
pub fn set_aside(directory: &Path, record: &NodeRecord) -> io::Result<PathBuf> {
    let aside = directory.join(SET_ASIDE);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&aside, &error)),
        Ok(()) | Err(_) => fs::create_dir(&aside).map_err(|error| named(&aside, &error))?,
    }
    NodeFile::write_next(directory, record)?;
    finish_set_aside(directory)?;
    Ok(aside)
}

/// To be called at a start before anything else is read: brings to its end what a crash may have interrupted.
pub fn finish_set_aside(directory: &Path) -> io::Result<()> {
    if !NodeFile::has_next(directory)? {
        return Ok(());
    }
    let aside = directory.join(SET_ASIDE);
    for name in MOVED {
        match fs::rename(directory.join(name), aside.join(name)) {
            // It is there already, or never was here.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&directory.join(name), &error)),
            Ok(()) | Err(_) => (),
        }
    }
    for changed in [&aside, directory] {
        sync_directory(changed).map_err(|error| named(changed, &error))?;
    }
    NodeFile::take_next(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [(&str, &str); 3] = [("groups/1-2/snapshot", "a snapshot"), ("log/1.log", "a log"), (MARKER_FILE, "")];

    fn begun() -> (tempfile::TempDir, NodeId) {
        let directory = tempfile::tempdir().expect("a directory");
        let node = NodeFile::open(directory.path()).expect("opens").record.node;
        for (name, text) in OLD.into_iter().chain([("set-aside/log/0.log", "of an earlier time")]) {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("below the directory")).expect("a directory");
            fs::write(path, text).expect("writes");
        }
        (directory, node)
    }

    fn check(directory: &Path, old: NodeId, new: NodeId, crashed: usize) {
        let now = NodeFile::read(directory).expect("reads").map(|record| record.node);
        assert_eq!(now, Some(new), "after {crashed} moves");
        let aside = directory.join(SET_ASIDE);
        let kept = NodeFile::read(&aside).expect("reads").map(|record| record.node);
        assert_eq!(kept, Some(old), "after {crashed} moves");
        for (name, text) in &OLD[..2] {
            assert!(!directory.join(name).exists(), "{name} after {crashed} moves");
            assert_eq!(fs::read_to_string(aside.join(name)).expect(name), *text, "after {crashed} moves");
        }
        assert!(directory.join(MARKER_FILE).exists(), "for `settled` to remove");
        assert!(!aside.join("log/0.log").exists());
    }

    #[test]
    fn what_is_set_aside_is_whole_after_a_crash_at_each_step() {
        let record = NodeRecord { node: NodeId::random(), membership: Membership::Empty };
        for crashed in 0..=MOVED.len() {
            let (directory, old) = begun();
            let directory = directory.path();
            fs::remove_dir_all(directory.join(SET_ASIDE)).expect("removes");
            finish_set_aside(directory).expect("nothing to do");
            assert_eq!(NodeFile::open(directory).expect("opens").record.node, old, "nothing is decided yet");
            fs::create_dir(directory.join(SET_ASIDE)).expect("creates");
            NodeFile::write_next(directory, &record).expect("writes");
            for name in &MOVED[..crashed] {
                fs::rename(directory.join(name), directory.join(SET_ASIDE).join(name)).expect("moves");
            }
            for _ in 0..2 {
                finish_set_aside(directory).expect("finishes");
                check(directory, old, record.node, crashed);
            }
        }
        let (directory, old) = begun();
        set_aside(directory.path(), &record).expect("sets aside");
        check(directory.path(), old, record.node, MOVED.len());
    }
}
