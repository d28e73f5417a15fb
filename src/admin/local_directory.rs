//! What a directory of `kvorum local` already holds: a cluster keeps the node count and the ports that it was made with.
//!
//! Further nodes would join it for good, and a cluster that forgets all its addresses at once cannot find itself again, so
//! both are refused before anything is started. Nothing is written here.

use std::io;
use std::path::Path;

use crate::cluster::{NodeId, Topology};
use crate::raft::{Membership, NodeFile};

#[derive(Debug, thiserror::Error)]
pub(super) enum DirectoryError {
    #[error(
        "{directory} holds a cluster of {made_with} nodes: give --nodes {made_with}, or another --dir for a new cluster"
    )]
    OtherNodeCount { directory: String, made_with: usize },
    #[error(
        "{directory} holds a cluster whose node {number} is at port {port}: give --port {first}, or another --dir for a new cluster"
    )]
    OtherPort { directory: String, number: u16, port: u16, first: u16 },
    #[error("{directory} holds a cluster that is not one of `kvorum local`: give another --dir")]
    Foreign { directory: String },
    #[error("{directory}: {source}")]
    Unreadable { directory: String, source: io::Error },
}

/// Nodes that one `kvorum local` may start.
pub(super) const NODE_COUNT_MAX: u16 = 16;

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub nodes: u16,
    pub first_port: u16,
}

pub(super) fn node_directory_name(number: u16) -> String {
    format!("node-{number}")
}

/// Fails if the directory holds a cluster of another shape.
pub(super) fn check(directory: &Path, wanted: Wanted) -> Result<(), DirectoryError> {
    let shown = || directory.display().to_string();
    let mut newest: Option<Topology> = None;
    let mut ports = Vec::new();
    for number in 1..=NODE_COUNT_MAX {
        let own = directory.join(node_directory_name(number));
        let known = known_cluster(&own).map_err(|source| DirectoryError::Unreadable { directory: shown(), source })?;
        let Some((node, topology)) = known else { continue };
        if let Some(info) = topology.node(node) {
            ports.push((number, info.port));
        }
        if newest.as_ref().is_none_or(|newest| newest.epoch() < topology.epoch()) {
            newest = Some(topology);
        }
    }
    if let Some(made_with) = newest.map(|topology| topology.nodes().len())
        && made_with != usize::from(wanted.nodes)
    {
        return Err(DirectoryError::OtherNodeCount { directory: shown(), made_with });
    }
    let moved = ports.iter().find(|(number, port)| *port != wanted.first_port + number - 1);
    match moved {
        None => Ok(()),
        Some((number, port)) => Err(match port.checked_sub(number - 1) {
            Some(first) if first > 0 => {
                DirectoryError::OtherPort { directory: shown(), number: *number, port: *port, first }
            }
            Some(_) | None => DirectoryError::Foreign { directory: shown() },
        }),
    }
}

/// The node in a data directory and its cluster, founded or planned.
fn known_cluster(directory: &Path) -> io::Result<Option<(NodeId, Topology)>> {
    let Some(record) = NodeFile::read(directory)? else { return Ok(None) };
    Ok(match record.membership {
        Membership::Empty => None,
        Membership::Planned(plan) => Some((record.node, plan.topology().clone())),
        Membership::Member { topology, .. } => Some((record.node, *topology)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{fixture_node, fixture_topology};

    /// A directory as a cluster with ports from 7001 left it.
    fn left_behind(nodes: u16) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for number in 1..=nodes {
            let mut file = NodeFile::open(&directory.path().join(node_directory_name(number))).unwrap();
            file.record.node = fixture_node(number as u8);
            file.update_topology(&fixture_topology(usize::from(nodes), 1, 3)).unwrap();
        }
        directory
    }

    fn checked(directory: &Path, nodes: u16, first_port: u16) -> String {
        check(directory, Wanted { nodes, first_port }).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_new_directory_takes_any_cluster_and_a_used_one_its_own() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(checked(directory.path(), 5, 7101), "");
        assert_eq!(checked(left_behind(3).path(), 3, 7001), "");
        // A node whose directory was removed joins anew.
        let incomplete = left_behind(3);
        std::fs::remove_dir_all(incomplete.path().join("node-1")).unwrap();
        assert_eq!(checked(incomplete.path(), 3, 7001), "");
        assert!(checked(incomplete.path(), 1, 7001).contains("give --nodes 3"));
    }

    #[test]
    fn another_node_count_or_port_is_refused_with_the_one_it_was_made_with() {
        let directory = left_behind(3);
        for nodes in [1, 5] {
            let text = checked(directory.path(), nodes, 7001);
            assert!(text.contains("a cluster of 3 nodes: give --nodes 3, or another --dir"), "{text}");
        }
        let text = checked(directory.path(), 3, 7101);
        assert!(text.contains("node 1 is at port 7001: give --port 7001, or another --dir"), "{text}");
    }

    #[test]
    fn a_damaged_node_file_is_named() {
        let directory = left_behind(3);
        std::fs::write(directory.path().join("node-2/node.kvn"), b"KVNODE01garbage").unwrap();
        let text = checked(directory.path(), 3, 7001);
        assert!(text.contains("node-2/node.kvn is damaged"), "{text}");
    }
}
