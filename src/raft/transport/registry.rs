//! The replicas of this node that take part, and how a frame reaches one.
//!
//! § Replica ids are never reused, and a frame names the one it is for: whatever was meant for an earlier replica of the
//! same group on this node is refused here, before it can reach a Raft core.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::Fatal;
use openraft::raft::{SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse};
use openraft::storage::RaftStateMachine;
use openraft::{Raft, Snapshot};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::codec::{AppendRequest, AppendResult};
use crate::cluster::{GroupId, ReplicaId};
use crate::raft::log::Disk;
use crate::raft::space::Space;
use crate::raft::{SnapshotFile, SnapshotMeta, TypeConfig, Vote};

/// What the transport asks of a Raft instance, whatever its state machine is.
pub trait RaftPort: Send + Sync + 'static {
    fn stream_append(
        &self,
        input: BoxStream<'static, AppendRequest>,
    ) -> BoxStream<'static, Result<AppendResult, Fatal<TypeConfig>>>;
    fn vote(&self, request: VoteRequest<TypeConfig>) -> BoxFuture<'static, Option<VoteResponse<TypeConfig>>>;
    fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> BoxFuture<'static, Option<VoteResponse<TypeConfig>>>;
    fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> BoxFuture<'static, Option<TransferLeaderResponse<TypeConfig>>>;
    fn install_snapshot(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        file: SnapshotFile,
    ) -> BoxFuture<'static, Option<SnapshotResponse<TypeConfig>>>;
}

/// Answers are `None` when the core has stopped.
impl<SM> RaftPort for Raft<TypeConfig, SM>
where
    SM: RaftStateMachine<TypeConfig, SnapshotData = SnapshotFile>,
{
    fn stream_append(
        &self,
        input: BoxStream<'static, AppendRequest>,
    ) -> BoxStream<'static, Result<AppendResult, Fatal<TypeConfig>>> {
        Raft::stream_append(self, input).boxed()
    }

    fn vote(&self, request: VoteRequest<TypeConfig>) -> BoxFuture<'static, Option<VoteResponse<TypeConfig>>> {
        let raft = self.clone();
        Box::pin(async move { raft.vote(request).await.ok() })
    }

    fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> BoxFuture<'static, Option<VoteResponse<TypeConfig>>> {
        let raft = self.clone();
        Box::pin(async move { raft.pre_vote(request).await.ok() })
    }

    fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> BoxFuture<'static, Option<TransferLeaderResponse<TypeConfig>>> {
        let raft = self.clone();
        Box::pin(async move { raft.handle_transfer_leader(request).await.ok() })
    }

    fn install_snapshot(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        file: SnapshotFile,
    ) -> BoxFuture<'static, Option<SnapshotResponse<TypeConfig>>> {
        let raft = self.clone();
        Box::pin(async move { raft.install_full_snapshot(vote, Snapshot { meta, snapshot: file }).await.ok() })
    }
}

/// Where received snapshots are written until they are installed.
pub struct SnapshotPlace {
    pub disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    /// Is told of those that do not fit.
    pub space: Arc<Space>,
}

/// A replica that takes part.
pub struct Registered {
    pub group: GroupId,
    pub replica: ReplicaId,
    pub port: Arc<dyn RaftPort>,
    pub snapshots: SnapshotPlace,
    /// The runtime the replica lives on; its requests are served there.
    pub runtime: Handle,
    /// Closed when the replica is deregistered.
    gone: watch::Sender<()>,
}

impl Registered {
    /// Resolves when the replica is deregistered.
    pub async fn gone(&self) {
        self.gone.closed().await;
    }
}

struct Place {
    registered: Arc<Registered>,
    /// Dropped with the place, it lets `Registered::gone` resolve.
    _here: watch::Receiver<()>,
}

#[derive(Default)]
pub struct Registry {
    replicas: RwLock<BTreeMap<(GroupId, ReplicaId), Place>>,
}

impl Registry {
    /// Must be called on the runtime the replica lives on. Replaces an earlier registration of the same id.
    pub fn register(&self, group: GroupId, replica: ReplicaId, port: Arc<dyn RaftPort>, snapshots: SnapshotPlace) {
        let (gone, here) = watch::channel(());
        let registered = Registered { group, replica, port, snapshots, runtime: Handle::current(), gone };
        self.replicas.write().insert((group, replica), Place { registered: Arc::new(registered), _here: here });
    }

    pub fn deregister(&self, group: GroupId, replica: ReplicaId) {
        self.replicas.write().remove(&(group, replica));
    }

    pub fn find(&self, group: GroupId, replica: ReplicaId) -> Option<Arc<Registered>> {
        self.replicas.read().get(&(group, replica)).map(|place| Arc::clone(&place.registered))
    }
}
