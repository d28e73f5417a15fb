//! Where settings come from: flags over environment over file over defaults.
//!
//! The file's keys and the environment's variables become flags put in front of those the person typed; in clap the
//! last occurrence wins, so one definition of each setting and one parser serve all three sources. File and environment
//! are checked one setting at a time first, so that a message names the place that has to be changed.

use std::io;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use super::options::Config;

/// Settings that only make sense as flags.
const FLAG_ONLY: [&str; 4] = ["config", "exit-with-parent", "help", "version"];
const VARIABLE_PREFIX: &str = "KVORUM_";
/// A key further than this from what was written is no likely typing error.
const EDITS_MAX: usize = 3;

/// Looks a variable up; `std::env::var(..).ok()` in production.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;
/// Reads the file that --config names; `std::fs::read_to_string` in production.
pub type ConfigFile<'a> = dyn Fn(&Path) -> io::Result<String> + 'a;

/// A node's settings and the file to which CONFIG REWRITE writes.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
    pub config: Config,
    pub file: Option<PathBuf>,
    /// What was given and means nothing, to be logged.
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Wrong flags, or a request for help; clap prints it and knows the exit status.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: {message}", path.display())]
    File { path: PathBuf, message: String },
    #[error("environment variable {variable}: {message}")]
    Environment { variable: String, message: String },
    /// The sources are sound, their combination is not.
    #[error("{0}")]
    Combination(String),
}

/// The words after `kvorum server`.
#[derive(Debug, Parser)]
#[command(name = "kvorum server", version, about = "Run one node", term_width = 100)]
struct ServerFlags {
    #[command(flatten)]
    config: Config,
}

/// Resolves a node's settings. `flags` are the words after `kvorum server`.
pub fn load(
    flags: &[String],
    environment: &Environment<'_>,
    read_file: &ConfigFile<'_>,
) -> Result<LoadedConfig, ConfigError> {
    let typed = ServerFlags::try_parse_from(words(&[], flags))?.config;
    let file = typed.config.or_else(|| environment("KVORUM_CONFIG").map(PathBuf::from));
    let mut layered = match &file {
        Some(path) => file_flags(path, read_file)?,
        None => Vec::new(),
    };
    layered.extend(environment_flags(environment)?);
    let config = ServerFlags::try_parse_from(words(&layered, flags))?.config;
    config.check().map_err(ConfigError::Combination)?;
    Ok(LoadedConfig { config, file, warnings: Vec::new() })
}

/// Names of the settings that file and environment may give.
pub(super) fn setting_names() -> Vec<String> {
    let command = ServerFlags::command();
    let names = command.get_arguments().filter_map(|argument| argument.get_long());
    names.filter(|name| !FLAG_ONLY.contains(name)).map(str::to_string).collect()
}

/// What to say of variables whose names look like settings and are none, of all that are set.
pub fn unknown_variables(set: impl Iterator<Item = String>) -> Vec<String> {
    let known = setting_names();
    let unknown = set.filter_map(|variable| {
        let key = variable.strip_prefix(VARIABLE_PREFIX)?.to_ascii_lowercase().replace('_', "-");
        let is_known = known.contains(&key) || key == "config";
        let nearest = nearest(&key, &known);
        (!is_known && (nearest.is_some() || !is_of_others(&key))).then(|| match nearest {
            Some(name) => format!("unknown environment variable {variable}; did you mean {}?", variable_of(name)),
            None => format!("unknown environment variable {variable}; `kvorum server --help` lists the settings"),
        })
    });
    unknown.collect()
}

/// Our own tests' and benchmarks', and those that Kubernetes sets in every pod beside services named kvorum and kvorum-x.
fn is_of_others(key: &str) -> bool {
    ["test-", "bench-", "transcripts-", "port-"].iter().any(|start| key.starts_with(start))
        || key.ends_with("-port")
        || ["service-host", "service-port", "-port-"].iter().any(|part| key.contains(part))
}

fn variable_of(name: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", name.replace('-', "_").to_ascii_uppercase())
}

fn words(layered: &[String], flags: &[String]) -> Vec<String> {
    let program = std::iter::once("kvorum server".to_string());
    program.chain(layered.iter().cloned()).chain(flags.iter().cloned()).collect()
}

fn file_flags(path: &Path, read_file: &ConfigFile<'_>) -> Result<Vec<String>, ConfigError> {
    let text = read_file(path).map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
    text_flags(&text).map_err(|message| ConfigError::File { path: path.to_path_buf(), message })
}

fn text_flags(text: &str) -> Result<Vec<String>, String> {
    let names = setting_names();
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string().trim().to_string())?;
    let mut flags = Vec::new();
    for (key, value) in table {
        if !names.contains(&key) {
            return Err(unknown_key(&key, &names));
        }
        let value = scalar(&value).ok_or_else(|| format!("{key}: a table is not a value"))?;
        flags.push(checked_flag(&key, &value)?);
    }
    Ok(flags)
}

/// `--key=value`, unless the setting does not take this value. One word, so that a value may start with a dash.
fn checked_flag(key: &str, value: &str) -> Result<String, String> {
    let flag = format!("--{key}={value}");
    match ServerFlags::try_parse_from(["kvorum server", &flag]) {
        Ok(_) => Ok(flag),
        Err(error) => Err(format!("{key}: {}", first_sentence(&error))),
    }
}

/// clap's message without "error:", the hints about usage, and the flag spelling.
fn first_sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(if *yes { "yes" } else { "no" }.to_string()),
        toml::Value::Datetime(time) => Some(time.to_string()),
        toml::Value::Array(items) => Some(items.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(",")),
        toml::Value::Table(_) => None,
    }
}

fn unknown_key(key: &str, names: &[String]) -> String {
    match nearest(key, names) {
        Some(name) => format!("unknown key '{key}'; did you mean '{name}'?"),
        None => format!("unknown key '{key}'; `kvorum server --help` lists them"),
    }
}

/// The setting that was most likely meant.
fn nearest<'a>(key: &str, names: &'a [String]) -> Option<&'a String> {
    let (edits, name) = names.iter().map(|name| (edit_distance(key, name), name)).min()?;
    (edits <= EDITS_MAX).then_some(name)
}

/// Levenshtein distance, with `_` and `-` equal.
fn edit_distance(left: &str, right: &str) -> usize {
    let letters = |text: &str| text.replace('_', "-").into_bytes();
    let (left, right) = (letters(left), letters(right));
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

fn environment_flags(environment: &Environment<'_>) -> Result<Vec<String>, ConfigError> {
    let mut flags = Vec::new();
    for name in setting_names() {
        let variable = variable_of(&name);
        // Kubernetes sets KVORUM_PORT=tcp://10.0.0.1:6379 in every pod beside a service named kvorum.
        let value = environment(&variable).filter(|value| !(name == "port" && value.starts_with("tcp://")));
        if let Some(value) = value {
            let flag = checked_flag(&name, &value)
                .map_err(|message| ConfigError::Environment { variable: variable.clone(), message })?;
            flags.push(flag);
        }
    }
    Ok(flags)
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
