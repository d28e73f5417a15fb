//! Ids of nodes, groups, replicas and epochs. All are newtypes: none can be passed for another.

use crate::random;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A node's incarnation: 160 random bits drawn when its data directory was created, printed as 40 hex digits (the form
/// every Redis Cluster client expects of a node id). A wiped node draws a new one, so it can never pass for its old self.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 20]);

/// A group. 0 is the meta group, data groups count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct GroupId(pub u32);

/// One node's member of one group; openraft's node id. Handed out by the meta group, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

/// Rises with every change of the topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// 128 random bits that name a cluster for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

/// One move of a slot between groups. Handed out by the meta group, rising, never reused: what names an older one is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct MoveId(pub u64);

impl GroupId {
    pub const META: Self = Self(0);
}

impl NodeId {
    /// Draws a new one from the operating system.
    pub fn random() -> Self {
        Self(random::draw())
    }

    /// `None` unless `text` is 40 hex digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 20];
        (text.len() == 40).then_some(())?;
        for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl ClusterId {
    /// Draws a new one from the operating system.
    pub fn random() -> Self {
        Self(random::draw())
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0[..4], f)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0[..4], f)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
