//! Settings that must be equal on all nodes of a cluster, fixed when it is founded, and how a node that wants others is
//! refused. Node-local settings (ports, fsync mode) do not belong here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The cluster's own settings, part of the topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settings {
    /// Number of data groups. `None`: one for each node, made and dissolved as nodes come and go.
    pub groups: Option<u32>,
    /// Replicas that each group should have. It has fewer while there are fewer nodes.
    pub replicas: u32,
    /// Hash of a test vector. ahash gives other results on other CPUs, and a bucket's order follows from it.
    pub hash_check: u64,
}

/// What one node was started with. `None` means its operator left the matter to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WantedSettings {
    pub groups: Option<u32>,
    pub replicas: Option<u32>,
    pub hash_check: u64,
}

/// A node wants settings that are not the cluster's. The text names both values of everything that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct SettingsMismatch {
    pub cluster: Settings,
    pub node: WantedSettings,
}

impl WantedSettings {
    /// `Err` names every wanted value that is not the cluster's.
    pub fn check(self, cluster: Settings) -> Result<(), SettingsMismatch> {
        let fits = self.groups.is_none_or(|groups| cluster.groups == Some(groups))
            && self.replicas.is_none_or(|replicas| replicas == cluster.replicas)
            && self.hash_check == cluster.hash_check;
        if fits { Ok(()) } else { Err(SettingsMismatch { cluster, node: self }) }
    }
}

impl From<Settings> for WantedSettings {
    fn from(settings: Settings) -> Self {
        let Settings { groups, replicas, hash_check } = settings;
        Self { groups, replicas: Some(replicas), hash_check }
    }
}

impl fmt::Display for WantedSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u32>| value.map_or("unset".to_owned(), |value| value.to_string());
        let (groups, replicas) = (number(self.groups), number(self.replicas));
        write!(f, "groups {groups}, replicas {replicas}, hash check {:016x}", self.hash_check)
    }
}

impl fmt::Display for SettingsMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, node } = self;
        f.write_str("settings differ from the cluster's:")?;
        let mut separator = " ";
        let groups = cluster.groups.map_or("one per node".to_owned(), |groups| groups.to_string());
        let differ = [
            ("groups", groups, node.groups.filter(|groups| cluster.groups != Some(*groups))),
            ("replicas", cluster.replicas.to_string(), node.replicas.filter(|replicas| *replicas != cluster.replicas)),
        ];
        for (name, cluster, node) in differ {
            if let Some(node) = node {
                write!(f, "{separator}{name} {node} here, {cluster} in the cluster")?;
                separator = "; ";
            }
        }
        if node.hash_check != cluster.hash_check {
            let (node, cluster) = (node.hash_check, cluster.hash_check);
            write!(f, "{separator}hash check {node:016x} here, {cluster:016x} in the cluster")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: Settings = Settings { groups: Some(3), replicas: 3, hash_check: 7 };

    #[test]
    fn a_mismatch_prints_both_values_of_what_differs_and_nothing_else() {
        let wanted = WantedSettings { groups: Some(4), replicas: Some(3), hash_check: 8 };
        let text = wanted.check(CLUSTER).unwrap_err().to_string();
        assert_eq!(
            text,
            "settings differ from the cluster's: groups 4 here, 3 in the cluster; \
             hash check 0000000000000008 here, 0000000000000007 in the cluster"
        );
    }

    #[test]
    fn a_number_of_groups_is_not_what_a_cluster_has_that_follows_its_nodes() {
        let cluster = Settings { groups: None, ..CLUSTER };
        assert_eq!(WantedSettings { groups: None, replicas: None, hash_check: 7 }.check(cluster), Ok(()));
        let wanted = WantedSettings { groups: Some(3), replicas: None, hash_check: 7 };
        let text = wanted.check(cluster).unwrap_err().to_string();
        assert_eq!(text, "settings differ from the cluster's: groups 3 here, one per node in the cluster");
    }

    #[test]
    fn unset_settings_take_the_clusters() {
        assert_eq!(WantedSettings { groups: None, replicas: None, hash_check: 7 }.check(CLUSTER), Ok(()));
        assert_eq!(WantedSettings::from(CLUSTER).check(CLUSTER), Ok(()));
    }
}
