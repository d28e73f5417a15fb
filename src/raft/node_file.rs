//! `node.kvn`: who this node is, and what it last knew of its cluster. Replaced whole: temporary file, fsync, rename,
//! directory fsync. `node.kvn.next` takes its place when what the node had is set aside (`power_loss.rs`).
//!
//! ```text
//! "KVNODE01" | crc32 of the rest u32 | postcard of NodeRecord
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cluster::{FoundingPlan, NodeId, NodeInfo, Topology};
use crate::raft::directory::{create_directory, named, replace_file, sync_directory};

const MAGIC: &[u8; 8] = b"KVNODE01";
pub(super) const FILE_NAME: &str = "node.kvn";
const NEXT_FILE_NAME: &str = "node.kvn.next";

/// What survives a restart beside the log and the snapshots.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeRecord {
    pub node: NodeId,
    pub membership: Membership,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Membership {
    /// Belongs to no cluster yet.
    Empty,
    /// § Has accepted a founding plan, durably, and acknowledged it; waits for the founder.
    Planned(Box<FoundingPlan>),
    /// Belongs to a cluster.
    Member {
        /// The last one it saw, so that it finds its peers and replicas without the meta group.
        topology: Box<Topology>,
        /// Kept by founding nodes: a crash may come before the meta group has the plan in its log.
        plan: Option<Box<FoundingPlan>>,
    },
}

impl NodeRecord {
    pub fn is_member(&self) -> bool {
        matches!(self.membership, Membership::Member { .. })
    }

    /// What is registered of this node, if it is a member.
    pub fn info(&self) -> Option<&NodeInfo> {
        match &self.membership {
            Membership::Member { topology, .. } => topology.node(self.node),
            Membership::Empty | Membership::Planned(_) => None,
        }
    }
}

#[derive(Debug)]
pub struct NodeFile {
    directory: PathBuf,
    pub record: NodeRecord,
}

impl NodeFile {
    /// Reads the file; in an empty directory draws an incarnation and makes it durable first.
    pub fn open(directory: &Path) -> io::Result<Self> {
        create_directory(directory).map_err(|error| named(directory, &error))?;
        let record = match Self::read(directory)? {
            Some(record) => record,
            None => {
                let record = NodeRecord { node: NodeId::random(), membership: Membership::Empty };
                write(directory, FILE_NAME, &record)?;
                record
            }
        };
        Ok(Self { directory: directory.to_owned(), record })
    }

    #[cfg(test)]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn path(directory: &Path) -> PathBuf {
        directory.join(FILE_NAME)
    }

    /// What the file says, if there is one. Changes nothing.
    pub fn read(directory: &Path) -> io::Result<Option<NodeRecord>> {
        let path = Self::path(directory);
        let damaged = || {
            let text =
                format!("{} is damaged: restore it from a backup, or wipe the directory to join anew", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        match fs::read(&path) {
            Ok(bytes) => decode(&bytes).map(Some).ok_or_else(damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(&path, &error)),
        }
    }

    /// The plan this node founded its cluster by.
    pub fn plan(&self) -> Option<&FoundingPlan> {
        match &self.record.membership {
            Membership::Empty => None,
            Membership::Planned(plan) => Some(plan),
            Membership::Member { plan, .. } => plan.as_deref(),
        }
    }

    /// Returns once the topology is durable.
    pub fn update_topology(&mut self, topology: &Topology) -> io::Result<()> {
        let plan = self.plan().cloned().map(Box::new);
        self.update(Membership::Member { topology: Box::new(topology.clone()), plan })
    }

    /// Returns once it is durable that the node is to become what `record` says.
    pub(super) fn write_next(directory: &Path, record: &NodeRecord) -> io::Result<()> {
        write(directory, NEXT_FILE_NAME, record)
    }

    pub(super) fn has_next(directory: &Path) -> io::Result<bool> {
        let path = directory.join(NEXT_FILE_NAME);
        path.try_exists().map_err(|error| named(directory, &error))
    }

    /// The node is what `write_next` was given from now on.
    pub(super) fn take_next(directory: &Path) -> io::Result<()> {
        let next = directory.join(NEXT_FILE_NAME);
        let renamed = fs::rename(&next, Self::path(directory)).and_then(|()| sync_directory(directory));
        renamed.map_err(|error| named(&next, &error))
    }

    /// Returns once the change is durable.
    pub fn update(&mut self, membership: Membership) -> io::Result<()> {
        let record = NodeRecord { node: self.record.node, membership };
        write(&self.directory, FILE_NAME, &record)?;
        self.record = record;
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Option<NodeRecord> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (crc, body) = rest.split_first_chunk::<4>()?;
    (crc32fast::hash(body) == u32::from_le_bytes(*crc)).then_some(())?;
    postcard::from_bytes(body).ok()
}

fn write(directory: &Path, name: &str, record: &NodeRecord) -> io::Result<()> {
    let body = postcard::to_stdvec(record).map_err(io::Error::other)?;
    replace_file(&directory.join(name), &[MAGIC, &crc32fast::hash(&body).to_le_bytes(), &body])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_gets_an_incarnation_that_a_restart_keeps_and_a_wipe_does_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = NodeFile::open(directory.path()).expect("opens").record.node;
        assert_eq!(NodeFile::open(directory.path()).expect("opens").record.node, first);
        fs::remove_file(directory.path().join(FILE_NAME)).expect("removes");
        assert_ne!(NodeFile::open(directory.path()).expect("opens").record.node, first);
    }

    #[test]
    fn a_path_that_cannot_be_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, b"").expect("writes");
        for error in [NodeFile::read(&file).err(), NodeFile::open(&file.join("below")).err()] {
            let text = error.expect("refused").to_string();
            assert!(text.starts_with(&file.display().to_string()), "{text}");
        }
    }

    #[test]
    fn a_damaged_file_is_refused_by_name() {
        let directory = tempfile::tempdir().expect("a directory");
        NodeFile::open(directory.path()).expect("opens");
        let path = directory.path().join(FILE_NAME);
        let whole = fs::read(&path).expect("reads");
        for position in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[position] ^= 1;
            fs::write(&path, bytes).expect("writes");
            let error = NodeFile::open(directory.path()).expect_err("refused");
            assert!(error.to_string().contains(FILE_NAME));
        }
    }
}
