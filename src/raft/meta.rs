//! The meta group: its state machine (the topology) and proposals to it.
//!
//! Every node has a replica, voter or learner, so every node answers from committed ownership and membership.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::alias::SnapshotOf;
use openraft::errors::ClientWriteError;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::clock::Timestamp;
use crate::cluster::{Event, MetaError, MetaOp, MetaOutcome, ReplicaId, Topology, apply_meta};
use crate::raft::batch::{self, BatchHeader, BatchKind, Origin};
use crate::raft::leadership::{led_before, sighted, won};
use crate::raft::log::Disk;
use crate::raft::snapshot_files::{PublishError, SnapshotFiles};
use crate::raft::snapshot_io::{SnapshotReader, SnapshotWriter};
use crate::raft::space::{is_full, wait_for_more};
use crate::raft::types::{Batch, Completion, Entry, LeaderId, LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::raft::{GroupLog, SnapshotFile};

pub type MetaRaft = openraft::Raft<TypeConfig, MetaMachine>;

const PROPOSAL_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the meta group's state machine holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct MetaContent {
    log_id: Option<LogId>,
    membership: StoredMembership,
    /// `None` until the founding plan has been applied.
    topology: Option<Topology>,
}

type Answer = Result<MetaOutcome, MetaError>;

#[derive(Debug)]
pub struct MetaState {
    pub replica: ReplicaId,
    pub origin: Origin,
    /// The term of the log's vote when this process started: see `leadership::won`.
    found_term: u64,
    /// What entries are written with.
    level: Arc<AtomicU16>,
    content: Mutex<MetaContent>,
    topology: watch::Sender<Option<Arc<Topology>>>,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
    seq: AtomicU64,
}

impl MetaState {
    /// `known` is what the node last wrote down; it serves until the log has caught up.
    pub fn new(
        replica: ReplicaId,
        nonce: u64,
        found_term: u64,
        level: Arc<AtomicU16>,
        known: Option<Arc<Topology>>,
    ) -> Self {
        Self {
            replica,
            origin: Origin { replica: replica.0, nonce },
            found_term,
            level,
            content: Mutex::default(),
            topology: watch::Sender::new(known),
            waiting: Mutex::default(),
            seq: AtomicU64::new(0),
        }
    }

    /// This replica's own, if it has one.
    pub fn leadership(&self, raft: &MetaRaft) -> Option<LeaderId> {
        won(raft, self.found_term)
    }

    /// The meta group's leader and its term, as this replica knows them.
    pub fn leader(&self, raft: &MetaRaft) -> (u64, Option<ReplicaId>) {
        sighted(raft, self.found_term)
    }

    pub fn led_before(&self, raft: &MetaRaft) -> bool {
        led_before(raft, self.replica, self.found_term)
    }

    /// The newest topology this node knows; `None` before the founding plan is applied.
    pub fn topology(&self) -> watch::Receiver<Option<Arc<Topology>>> {
        self.topology.subscribe()
    }

    /// The founding plan has been applied.
    pub fn is_founded(&self) -> bool {
        self.content.lock().topology.is_some()
    }

    /// What was decided, the oldest first. The founding plan, which nodes know before it is applied, has no event of itself.
    pub fn events(&self) -> VecDeque<Event> {
        let known = self.topology.borrow().clone();
        let content = self.content.lock();
        let applied = content.topology.as_ref();
        let newest = applied.filter(|applied| known.as_ref().is_none_or(|known| known.epoch() <= applied.epoch()));
        newest.or(known.as_deref()).map(|topology| topology.events().clone()).unwrap_or_default()
    }

    fn publish(&self, topology: Option<&Topology>) {
        let Some(topology) = topology else { return };
        self.topology.send_if_modified(|known| {
            // Replay after a restart passes through older states, which must not undo what the node has written down.
            let newer = known.as_ref().is_none_or(|known| known.epoch() < topology.epoch());
            if newer {
                *known = Some(Arc::new(topology.clone()));
            }
            newer
        });
    }
}

/// Why a proposal has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    #[error("this node does not lead the meta group")]
    NotLeader,
    #[error("the meta group did not answer in time; whether the change happened is unknown")]
    Unknown,
    #[error(transparent)]
    Refused(#[from] MetaError),
}

/// Proposes `op` on the meta leader. All meta ops are idempotent, so an unknown outcome may be tried again.
pub async fn propose(
    raft: &MetaRaft,
    state: &MetaState,
    leader: LeaderId,
    op: &MetaOp,
) -> Result<MetaOutcome, ProposeError> {
    let seq = state.seq.fetch_add(1, Ordering::Relaxed);
    let body = postcard::to_stdvec(op).expect("a meta op encodes");
    let (kind, stamp, origin) = (BatchKind::Meta, Timestamp::wall_now(), state.origin);
    let level = state.level.load(Ordering::Relaxed);
    let header = BatchHeader { level, kind, count: 1, stamp, origin, seq, durable: true };
    let (answer, receiver) = oneshot::channel();
    state.waiting.lock().insert(seq, answer);
    let (refused, refusal) = oneshot::channel();
    let completion = Completion::new(move |result: openraft::raft::ClientWriteResult<_>| {
        if matches!(result, Err(ClientWriteError::ForwardToLeader(_))) {
            let _ = refused.send(());
        }
    });
    let write = raft.write(batch::encode(&header, [body].iter())).with_leader(leader).responder(completion).await;
    let outcome = tokio::time::timeout(PROPOSAL_WAIT_MAX, async {
        write.map_err(|_| ProposeError::Unknown)?;
        tokio::select! {
            biased;
            answer = receiver => Ok(answer.map_err(|_| ProposeError::Unknown)??),
            Ok(()) = refusal => Err(ProposeError::NotLeader),
        }
    })
    .await
    .unwrap_or(Err(ProposeError::Unknown));
    state.waiting.lock().remove(&seq);
    outcome
}

#[derive(Debug)]
pub struct MetaMachine {
    pub state: Arc<MetaState>,
    pub log: GroupLog,
    pub files: SnapshotFiles,
}

impl MetaMachine {
    /// Loads the newest snapshot, if there is one.
    pub fn open(disk: Arc<dyn Disk>, state: Arc<MetaState>, log: GroupLog, directory: PathBuf) -> io::Result<Self> {
        let mut files = SnapshotFiles::open(disk, directory)?;
        if let Some(path) = files.newest() {
            let content = read(files.disk(), &path)?;
            let meta = SnapshotMeta { last_log_id: content.log_id, last_membership: content.membership.clone() };
            files.adopt(meta, path)?;
            state.publish(content.topology.as_ref());
            *state.content.lock() = content;
        }
        log.check_covered(state.content.lock().log_id, files.directory())?;
        Ok(Self { state, log, files })
    }

    fn apply_entry(&self, entry: &Entry) -> io::Result<()> {
        let mut content = self.state.content.lock();
        match &entry.payload {
            EntryPayload::Blank => (),
            EntryPayload::Membership(membership) => {
                content.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
            EntryPayload::Normal(batch) => self.apply_batch(&mut content.topology, batch)?,
        }
        content.log_id = Some(entry.log_id);
        Ok(())
    }

    fn apply_batch(&self, topology: &mut Option<Topology>, batch: &Batch) -> io::Result<()> {
        let (header, body) = batch::decode(batch).map_err(io::Error::other)?;
        if header.kind != BatchKind::Meta {
            return Err(io::Error::other("ops of a data group in the meta group's log"));
        }
        let op: MetaOp = postcard::from_bytes(&body).map_err(io::Error::other)?;
        let answer = apply_meta(topology, &op, header.stamp);
        self.state.publish(topology.as_ref());
        if header.origin == self.state.origin
            && let Some(waiting) = self.state.waiting.lock().remove(&header.seq)
        {
            // The asker may have given up.
            let _ = waiting.send(answer);
        }
        Ok(())
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<MetaContent> {
    let mut reader = SnapshotReader::open(disk, path)?;
    let (mut block, mut rest) = (Vec::new(), Vec::new());
    if !reader.next(&mut block)? || reader.next(&mut rest)? {
        return Err(reader.damaged("a meta snapshot has exactly one block"));
    }
    postcard::from_bytes(&block).map_err(|_| reader.damaged("its content does not decode"))
}

/// Holds a copy of the content as of its creation.
#[derive(Debug)]
pub struct MetaSnapshotBuilder {
    content: MetaContent,
    log: GroupLog,
    files: SnapshotFiles,
}

fn write(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut writer = SnapshotWriter::create(disk, path)?;
    writer.block(content)?;
    writer.finish().map(|_| ())
}

impl RaftSnapshotBuilder<TypeConfig> for MetaSnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotFile>> {
        let meta = SnapshotMeta { last_log_id: self.content.log_id, last_membership: self.content.membership.clone() };
        let path = self.files.temporary();
        let bytes = postcard::to_stdvec(&self.content).map_err(io::Error::other)?;
        while let Err(error) = write(self.files.disk(), &path, &bytes) {
            if !is_full(&error) {
                return Err(error);
            }
            wait_for_more(&self.files, &path, || self.files.newer_than(&meta).is_none()).await?;
        }
        self.log.flush().await?;
        match self.files.publish(meta, &path).await {
            Ok(snapshot) => {
                if let Some(log_id) = snapshot.meta.last_log_id {
                    self.log.snapshot_saved(log_id);
                }
                Ok(snapshot)
            }
            Err(PublishError::Older(newer)) => Ok(*newer),
            Err(PublishError::Io(error)) => Err(error),
        }
    }
}

impl RaftStateMachine<TypeConfig> for MetaMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = MetaSnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let content = self.state.content.lock();
        Ok((content.log_id, content.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + openraft::OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            self.apply_entry(&entry)?;
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> MetaSnapshotBuilder {
        let content = self.state.content.lock().clone();
        MetaSnapshotBuilder { content, log: self.log.clone(), files: self.files.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let mut content = read(self.files.disk(), &snapshot.path)?;
        content.log_id = meta.last_log_id;
        content.membership = meta.last_membership.clone();
        // § As in `raft/snapshot.rs`: what was truncated for it is gone first.
        self.log.flush().await?;
        match self.files.publish(meta.clone(), &snapshot.path).await {
            Ok(_) | Err(PublishError::Older(_)) => (),
            Err(PublishError::Io(error)) => return Err(error),
        }
        if let Some(log_id) = meta.last_log_id {
            self.log.snapshot_saved(log_id);
        }
        self.state.publish(content.topology.as_ref());
        *self.state.content.lock() = content;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotFile>>> {
        Ok(self.files.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture_topology;

    #[test]
    fn a_young_clusters_events_say_that_it_was_founded() {
        let plan = fixture_topology(3, 3, 3);
        let state = MetaState::new(ReplicaId(1), 7, 0, Arc::default(), Some(Arc::new(plan.clone())));
        assert!(state.events().is_empty(), "nothing is applied here yet");
        let mut older = Some(plan.clone());
        let pause = |topology: &mut Option<Topology>, op| drop(apply_meta(topology, &op, Timestamp(5)).unwrap());
        pause(&mut older, MetaOp::PauseRebalance);
        let newer = older.clone();
        state.content.lock().topology = newer.clone();
        assert_eq!(state.events().len(), 1, "with no word of it published");
        state.publish(newer.as_ref());
        state.content.lock().topology = Some(plan);
        assert_eq!(state.events().len(), 1, "older entries are applied anew after a restart");
    }
}
