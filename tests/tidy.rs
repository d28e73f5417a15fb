//! The source's own rules, checked on its text: layers, facades, sizes, words and dependencies.
//!
//! It reads lines as rustfmt writes them, not Rust: enough to catch drift, cheap enough to run each time.

use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module and its layer. A file may use `crate::x` only of lower layers and of its own module.
const LAYERS: &[(&str, u32)] = &[
    ("slot", 0),
    ("clock", 0),
    ("random", 0),
    ("planted", 0),
    ("config", 0),
    ("metrics", 0),
    ("workers", 0),
    ("protocol", 1),
    ("keyspace", 1),
    ("cluster", 1),
    ("command", 2),
    ("raft", 3),
    ("rebalance", 4),
    ("admin", 5),
    ("server", 6),
    ("simulation", 8),
    ("fuzzing", 8),
    ("node", 7),
    ("main", 8),
    ("lib", 8),
];
/// Layers 0 to 2 know neither tasks nor sockets nor files; these crates would bring them in.
const PURE_LAYER_MAX: u32 = 2;
const IMPURE: &[&str] = &["tokio::", "std::fs", "std::net::Tcp", "std::net::Udp", "hyper::"];
const IMPURE_EXCEPTIONS: &[&str] = &["workers"];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// Parts of a defined name that say nothing, or that the glossary replaces.
const BANNED_NAME_PARTS: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "manager", "partition", "region", "shard", "slave"];
/// Names the wire protocol prints, and so may define functions for.
const WIRE_NAMES: &[&str] = &["myshardid", "shard_id", "my_shard_id", "shards", "cluster_shard", "cluster_shards"];
const BANNED_NAME_STARTS: &[&str] = &["process_", "handle_"];
/// Text with a better alternative, anywhere in the source. Split so that this file does not find itself.
const BANNED_TEXT: &[(&str, &str)] = &[
    (concat!("unbounded_", "channel"), "every queue has a limit"),
    (concat!("mpsc::", "channel()"), "every queue has a limit"),
    (concat!("#[ig", "nore"), "a test that does not run is not a test"),
    (concat!("#[should_", "panic"), "assert on the error instead"),
    (concat!("todo", "!("), "finish it or leave it out"),
    (concat!("FIX", "ME"), "fix it"),
    (concat!("XX", "X"), "say what is wrong"),
];

struct Source {
    /// Relative to the repository, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    fn is_library(&self) -> bool {
        self.path.starts_with("src/")
    }

    /// Top-level module: the folder or file directly under src.
    fn module(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs")
    }

    /// Numbered lines without comments and without blank ones.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in ["src", "tests", "bench"] {
        collect(&root().join(folder), &mut found);
    }
    assert!(found.len() > 10, "the source was not found");
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder is readable").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name =
                path.strip_prefix(root()).expect("it was found under the root").to_string_lossy().replace('\\', "/");
            found.push(Source { path: name, text: fs::read_to_string(&path).expect("sources are UTF-8") });
        }
    }
}

fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}\n  {}\n", offences.join("\n  "));
}

fn layer(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// The identifiers that follow `prefix` in the line.
fn identifiers_after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    line.match_indices(prefix).map(move |(at, _)| {
        let rest = &line[at + prefix.len()..];
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
        rest.split_at(end)
    })
}

#[test]
fn files_use_lower_layers_only() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.is_library()) {
        let own = source.module();
        let Some(own_layer) = layer(own) else {
            offences.push(format!("{}: module '{own}' has no layer in tests/tidy.rs", source.path));
            continue;
        };
        for (number, line) in source.code() {
            for (used, _) in identifiers_after(line, "crate::").filter(|(used, _)| *used != own && !used.is_empty()) {
                if layer(used).is_some_and(|used_layer| used_layer >= own_layer) {
                    offences.push(format!("{}:{number}: {own} (layer {own_layer}) uses {used}", source.path));
                }
            }
        }
    }
    assert_none("A file imports only from lower layers, never sideways or up.", &offences);
}

#[test]
fn folders_are_used_through_their_facade() {
    let mut offences = Vec::new();
    for source in sources() {
        let own = if source.is_library() { source.module() } else { "" };
        for (number, line) in source.code() {
            for prefix in ["crate::", "kvorum::"] {
                for (folder, rest) in identifiers_after(line, prefix).filter(|(folder, _)| *folder != own) {
                    let Some(rest) = rest.strip_prefix("::") else { continue };
                    let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
                    let Some((file, rest)) = end.map(|end| rest.split_at(end)) else { continue };
                    let inner = root().join("src").join(folder).join(format!("{file}.rs"));
                    let is_public = fs::read_to_string(root().join("src").join(folder).join("mod.rs"))
                        .is_ok_and(|facade| facade.contains(&format!("pub mod {file};")));
                    if rest.starts_with("::") && inner.exists() && !is_public {
                        offences.push(format!("{}:{number}: {prefix}{folder}::{file}::", source.path));
                    }
                }
            }
        }
    }
    assert_none("From outside a folder use crate::folder::Item, never crate::folder::file::Item.", &offences);
}

#[test]
fn facades_hold_no_logic() {
    let is_logic = |line: &str| {
        let line = line.trim_start();
        ["fn ", "pub fn ", "impl ", "impl<", "pub(crate) fn ", "async fn "].iter().any(|start| line.starts_with(start))
    };
    let facades = sources().into_iter().filter(|source| source.is_library() && source.path.ends_with("/mod.rs"));
    let logic = facades.flat_map(|source| {
        let lines: Vec<_> = source.code().filter(|(_, line)| is_logic(line)).map(|(number, _)| number).collect();
        lines.into_iter().map(move |number| format!("{}:{number}", source.path))
    });
    assert_none("mod.rs is docs, mod and pub use.", &logic.collect::<Vec<_>>());
}

#[test]
fn the_lower_layers_know_no_tasks_sockets_or_files() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.is_library()) {
        let module = source.module();
        let is_pure =
            layer(module).is_some_and(|layer| layer <= PURE_LAYER_MAX) && !IMPURE_EXCEPTIONS.contains(&module);
        for (number, line) in source.code().filter(|_| is_pure) {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                offences.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    assert_none("Layers 0 to 2 have no async, no sockets and no files.", &offences);
}

#[test]
fn openraft_appears_in_the_raft_folder_alone() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.is_library() && source.module() != "raft") {
        let lines = source.code().filter(|(_, line)| line.contains("openraft::"));
        offences.extend(lines.map(|(number, _)| format!("{}:{number}", source.path)));
    }
    assert_none("openraft stays behind src/raft.", &offences);
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let bare = sources().into_iter().filter(|source| !source.text.starts_with("//!"));
    assert_none("Every file opens with `//!`.", &bare.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn files_and_functions_stay_small() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            offences.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
        }
        // rustfmt puts a function's closing brace at the indentation of its first line.
        let mut open: Option<(String, usize, usize)> = None;
        for (number, line) in source.code() {
            match &mut open {
                Some((close, start, count)) => {
                    *count += 1;
                    let indentation = close.trim_end_matches('}');
                    let is_declaration = line.ends_with(';') && line.starts_with(&format!("{indentation})"));
                    if is_declaration {
                        open = None;
                    } else if line == close.as_str() {
                        if *count > FUNCTION_LINES_MAX + 2 {
                            offences.push(format!("{}:{start}: a function of {count} lines", source.path));
                        }
                        open = None;
                    }
                }
                None if starts_function(line) && !line.ends_with('}') && !line.ends_with(';') => {
                    let indentation = &line[..line.len() - line.trim_start().len()];
                    open = Some((format!("{indentation}}}"), number, 1));
                }
                None => {}
            }
        }
    }
    assert_none("Files and functions stay small.", &offences);
}

fn starts_function(line: &str) -> bool {
    let before = line.trim_start().split("fn ").next().unwrap_or_default();
    let only_qualifiers = before.split_whitespace().all(|word| {
        word.starts_with("pub") || word.ends_with(')') || ["const", "async", "unsafe", "extern"].contains(&word)
    });
    line.contains("fn ") && only_qualifiers
}

#[test]
fn names_follow_the_glossary() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.is_library()) {
        for (number, line) in source.code() {
            let line = line.trim_start();
            for keyword in ["fn ", "struct ", "enum ", "trait ", "mod "] {
                for (name, _) in identifiers_after(line, keyword).filter(|_| is_definition(line, keyword)) {
                    if is_banned(name) {
                        offences.push(format!("{}:{number}: {name}", source.path));
                    }
                }
            }
        }
    }
    assert_none("Names say what a thing is, in the glossary's words.", &offences);
}

fn is_definition(line: &str, keyword: &str) -> bool {
    let before = line.split(keyword).next().unwrap_or_default();
    before.split_whitespace().all(|word| word.starts_with("pub") || ["const", "async", "unsafe"].contains(&word))
}

fn is_banned(name: &str) -> bool {
    let snake = snake_case(name);
    let has_banned_part = snake.split('_').any(|part| BANNED_NAME_PARTS.contains(&part));
    let starts_badly = BANNED_NAME_STARTS.iter().any(|start| snake.starts_with(start));
    (has_banned_part || starts_badly) && !WIRE_NAMES.contains(&snake.as_str())
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[test]
fn banned_text_does_not_appear() {
    let mut offences = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            for (text, reason) in BANNED_TEXT.iter().filter(|(text, _)| line.contains(text)) {
                offences.push(format!("{}:{}: {text}: {reason}", source.path, index + 1));
            }
        }
    }
    assert_none("Text with a better alternative.", &offences);
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut offences = Vec::new();
    let (mut in_dependencies, mut explained) = (false, false);
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
            explained = false;
        } else if line.starts_with('#') {
            explained = true;
        } else if in_dependencies && line.contains(" = ") && !explained {
            offences.push(line.to_string());
        } else if line.trim().is_empty() {
            explained = false;
        }
    }
    assert_none("Each dependency has a sentence in Cargo.toml on why it is there.", &offences);
}

#[test]
fn every_metric_is_described_in_one_place() {
    let described = fs::read_to_string(root().join("src/metrics/names.rs")).unwrap();
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.is_library() && source.module() != "metrics") {
        for (number, line) in source.code() {
            for (rest, after) in identifiers_after(line, "\"kvorum_").filter(|(_, after)| after.starts_with('"')) {
                let is_macro = ["counter!(", "gauge!(", "histogram!("].iter().any(|name| line.contains(name));
                if is_macro && !described.contains(&format!("\"kvorum_{rest}{}", &after[..1])) {
                    offences.push(format!("{}:{number}: kvorum_{rest}", source.path));
                }
            }
        }
    }
    assert_none("Every metric's name and description is in src/metrics/names.rs.", &offences);
}

#[test]
fn the_checks_see_what_they_look_for() {
    assert!(starts_function("    pub(crate) async fn run() {"));
    assert!(!starts_function("    let f: fn (u8) = g;"));
    assert!(is_banned("LogManager") && is_banned("handle_request") && is_banned("shard_of"));
    assert!(!is_banned("cluster_shards") && !is_banned("regional"));
    let uses: Vec<_> = identifiers_after("use crate::raft::{A}; crate::slot::B", "crate::").collect();
    assert_eq!(uses, [("raft", "::{A}; crate::slot::B"), ("slot", "::B")]);
}
