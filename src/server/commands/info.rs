//! INFO: which sections are asked for. `info_text` writes them, `info_figures` gathers what they say.

use std::collections::BTreeSet;

use crate::protocol::Args;
use crate::server::commands::CommandContext;
use crate::server::commands::info_figures::Figures;
use crate::server::commands::info_text;

/// In the order in which they are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    Server,
    Clients,
    Memory,
    Persistence,
    Stats,
    Replication,
    Cpu,
    Modules,
    Commandstats,
    Errorstats,
    Latencystats,
    Cluster,
    Keyspace,
    /// Our own: this node's groups.
    Kvorum,
}

impl Section {
    const ALL: [Self; 14] = [
        Self::Server,
        Self::Clients,
        Self::Memory,
        Self::Persistence,
        Self::Stats,
        Self::Replication,
        Self::Cpu,
        Self::Modules,
        Self::Commandstats,
        Self::Errorstats,
        Self::Latencystats,
        Self::Cluster,
        Self::Keyspace,
        Self::Kvorum,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::Clients => "Clients",
            Self::Memory => "Memory",
            Self::Persistence => "Persistence",
            Self::Stats => "Stats",
            Self::Replication => "Replication",
            Self::Cpu => "CPU",
            Self::Modules => "Modules",
            Self::Commandstats => "Commandstats",
            Self::Errorstats => "Errorstats",
            Self::Latencystats => "Latencystats",
            Self::Cluster => "Cluster",
            Self::Keyspace => "Keyspace",
            Self::Kvorum => "Kvorum",
        }
    }

    /// Printed by a plain INFO. The rest is long: a line for each command.
    fn is_default(self) -> bool {
        match self {
            Self::Commandstats | Self::Latencystats => false,
            Self::Server
            | Self::Clients
            | Self::Memory
            | Self::Persistence
            | Self::Stats
            | Self::Replication
            | Self::Cpu
            | Self::Modules
            | Self::Errorstats
            | Self::Cluster
            | Self::Keyspace
            | Self::Kvorum => true,
        }
    }
}

/// The sections that the words ask for, each once; as in Redis, a word that names none is passed over.
fn wanted<'a>(words: impl ExactSizeIterator<Item = &'a [u8]>) -> BTreeSet<Section> {
    let defaults = || Section::ALL.into_iter().filter(|section| section.is_default());
    if words.len() == 0 {
        return defaults().collect();
    }
    let mut wanted = BTreeSet::new();
    for word in words {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("all") || is("everything") {
            return Section::ALL.into_iter().collect();
        } else if is("default") {
            wanted.extend(defaults());
        } else {
            wanted.extend(Section::ALL.into_iter().find(|section| is(section.title())));
        }
    }
    wanted
}

pub fn info(args: &Args<'_>, context: &mut CommandContext<'_>) {
    let mut words = args.iter();
    words.next();
    let sections = wanted(words);
    let figures = Figures::gather(&sections, context.shared);
    context.reply.verbatim("txt", info_text::render(&sections, &figures).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(words: &[&str]) -> Vec<&'static str> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        wanted(words.into_iter()).into_iter().map(Section::title).collect()
    }

    #[test]
    fn sections_come_once_and_in_order() {
        assert_eq!(titles(&["keyspace", "SERVER", "Keyspace", "nothing"]), ["Server", "Keyspace"]);
        assert_eq!(titles(&["nothing"]), [""; 0]);
    }

    #[test]
    fn a_plain_info_leaves_out_what_is_long() {
        let plain = titles(&[]);
        assert_eq!(plain, titles(&["default"]));
        assert!(!plain.contains(&"Commandstats") && !plain.contains(&"Latencystats"));
        assert_eq!(titles(&["default", "commandstats"]).len(), plain.len() + 1);
        assert_eq!(titles(&["everything"]).len(), Section::ALL.len());
        assert_eq!(titles(&["cpu", "ALL"]).len(), Section::ALL.len());
    }
}
