//! openraft's type parameters as Kvorum sets them. openraft appears in `raft/` alone.

use std::fmt;

use bytes::Bytes;
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};

use crate::cluster::NodeId;

/// What one Raft entry carries: a batch of ops, encoded once. Cloning costs a refcount, and the same bytes go to the
/// log and to every peer. Its layout is in `raft/batch.rs`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Bytes);

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The node a replica lives on. Its address is the transport's to know: addresses change, this does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(f)
    }
}

/// Called once with what openraft knows of a proposal; replies do not travel through it (see `raft/proposer.rs`).
pub struct Completion<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Completion<T> {
    pub fn new(complete: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(complete))
    }
}

impl<T: OptionalSend + 'static> openraft::raft::responder::Responder<TypeConfig, T> for Completion<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Batch;
    type R = ();
    /// The replica id (`cluster::ReplicaId`): fresh for every membership of a node in a group, never reused.
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Self::D, Self::NodeId, Self::Node>;
    type Entry = openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = crate::raft::runtime::Runtime;
    type Responder<T>
        = Completion<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// Who led when an entry was appended: (term, replica), in the order in which a log holds them.
pub type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use openraft::Membership;

    use super::*;

    /// One set of voters, or the two of a joint membership.
    pub fn membership(voters: &[&[u64]]) -> StoredMembership {
        let configs = voters.iter().map(|set| set.iter().copied().collect()).collect();
        let member = |id: &u64| (*id, Member { node: NodeId([*id as u8; 20]) });
        let nodes: BTreeMap<u64, Member> = voters.iter().flat_map(|set| set.iter()).map(member).collect();
        StoredMembership::new(None, Membership::new(configs, nodes).expect("consistent"))
    }
}
