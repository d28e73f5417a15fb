//! Precedence, messages and defaults of settings; `conf/kvorum.toml` held to the code.

use super::*;
use crate::config::{Appendfsync, ByteSize, LogLevel};

const DOCUMENTED: &str = include_str!("../../conf/kvorum.toml");

fn load_from(file: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<LoadedConfig, ConfigError> {
    let lookup = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_string());
    let mut words = vec!["--config".to_string(), "kvorum.toml".to_string()];
    words.extend(flags.iter().map(|flag| (*flag).to_string()));
    load(&words, &lookup, &|_| Ok(file.to_string()))
}

fn message(file: &str, environment: &[(&str, &str)], flags: &[&str]) -> String {
    load_from(file, environment, flags).expect_err("must be refused").to_string()
}

#[test]
fn the_defaults_are_valid() {
    let config = Config::default();
    assert_eq!((config.port, config.peer_port(), config.http_port()), (6379, 16379, Some(7379)));
    assert_eq!(config.appendfsync, Appendfsync::Always);
    assert_eq!(config.proto_max_bulk_len, ByteSize(512 << 20));
    assert_eq!(config.group_count(), 1);
    assert!(config.initial_cluster.is_empty());
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "port = 1001\ntimeout = 1\nmaxclients = 11\nbind = ['127.0.0.2', '::1']";
    let environment = [("KVORUM_PORT", "1002"), ("KVORUM_TIMEOUT", "2")];
    let config = load_from(file, &environment, &["--port", "1003", "--bind=127.0.0.3"]).unwrap().config;
    assert_eq!((config.port, config.timeout, config.maxclients, config.replica_count()), (1003, 2, 11, 3));
    assert_eq!(config.bind, ["127.0.0.3".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn every_form_of_a_value_in_the_file_is_understood() {
    let file = "bind = '127.0.0.1,::1'\nprotected-mode = false\nlog-segment-bytes = 67108864\n\
                proto-max-bulk-len = '64mb'\ninitial-cluster = ['a:1', '[::2]:2']\nslowlog-log-slower-than = -1\n\
                log-level = 'notice'";
    let config = load_from(file, &[], &[]).unwrap().config;
    assert_eq!(config.bind.len(), 2);
    assert!(!config.protected_mode.is_yes());
    assert_eq!(config.proto_max_bulk_len, ByteSize(64 << 20));
    assert_eq!(config.initial_cluster[1].to_string(), "[::2]:2");
    assert_eq!((config.slowlog_log_slower_than, config.log_level), (-1, LogLevel::Info));
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    assert_eq!(message("prot = 1", &[], &[]), "kvorum.toml: unknown key 'prot'; did you mean 'port'?");
    assert_eq!(message("data_dir = 'x'", &[], &[]), "kvorum.toml: unknown key 'data_dir'; did you mean 'data-dir'?");
    assert!(message("colour = 'red'", &[], &[]).contains("unknown key 'colour'; `kvorum server --help`"));
    assert!(message("config = 'other.toml'", &[], &[]).contains("unknown key 'config'"));
}

#[test]
fn an_unknown_variable_is_named_with_the_nearest_known_one() {
    let unknown = |name: &str| unknown_variables(std::iter::once(name.to_string())).pop();
    assert_eq!(
        unknown("KVORUM_REQUIRE_PASS").as_deref(),
        Some("unknown environment variable KVORUM_REQUIRE_PASS; did you mean KVORUM_REQUIREPASS?")
    );
    assert!(unknown("KVORUM_PASSWORD").is_some_and(|text| text.contains("`kvorum server --help`")));
    assert!(unknown("KVORUM_PEER_PROT").is_some_and(|text| text.contains("KVORUM_PEER_PORT?")));
    for name in [
        "PATH",
        "KVORUM_CONFIG",
        "KVORUM_PORT",
        "KVORUM_LOG_LEVEL",
        "KVORUM_SERVICE_HOST",
        "KVORUM_SERVICE_PORT_CLIENT",
        "KVORUM_PORT_6379_TCP_ADDR",
        "KVORUM_HEADLESS_PORT",
        "KVORUM_TEST_BOOT_ID",
    ] {
        assert_eq!(unknown(name), None);
    }
}

#[test]
fn a_bad_value_is_reported_with_its_place() {
    let text = message("port = 70000", &[], &[]);
    assert!(text.starts_with("kvorum.toml: port: invalid value '70000'"), "{text}");
    let text = message("", &[("KVORUM_REPLICAS", "9")], &[]);
    assert!(text.starts_with("environment variable KVORUM_REPLICAS: replicas: invalid value '9'"), "{text}");
    assert!(text.contains("1..=7"), "{text}");
    assert!(message("port = [", &[], &[]).starts_with("kvorum.toml: TOML parse error"));
    assert!(message("[port]\nx = 1", &[], &[]).contains("port: a table is not a value"));
}

#[test]
fn combinations_that_cannot_work_are_refused() {
    let table: [(&[&str], &str); 12] = [
        (&["--heartbeat-ms", "100"], "election-timeout-max-ms: 400 is too short for heartbeat-ms 100"),
        (&["--election-timeout-min-ms", "400"], "election-timeout-min-ms: 400 must be below"),
        (&["--port", "60000"], "peer-port: port 60000 + 10000 is above 65535"),
        (&["--port", "7000", "--peer-port", "7000"], "peer-port: 7000 is already port"),
        (&["--port", "7000", "--http-port", "17000"], "http-port: 17000 is already peer-port"),
        (&["--log-segment-bytes", "10"], "log-segment-bytes: 10 is not between 1mb and 4gb"),
        (&["--proto-max-bulk-len", "1gb"], "proto-max-bulk-len: 1gb is not between 1mb and 512mb"),
        (&["--initial-cluster", "a:1,b:1,a:1"], "initial-cluster: a:1 is listed twice"),
        (&["--join", "a:1,a:1"], "join: a:1 is listed twice"),
        (&["--join", "a:1", "--initial-cluster", "b:1"], "join: this node either founds a cluster"),
        (&["--join", "127.0.0.1:6379"], "join: 127.0.0.1:6379 is this node itself"),
        (&["--bind", "nowhere"], "'nowhere' is not an IP address"),
    ];
    for (flags, expected) in table {
        let text = message("", &[], flags);
        assert!(text.contains(expected), "{flags:?}: {text}");
    }
}

#[test]
fn the_http_port_can_be_turned_off_and_the_peer_port_set() {
    let config = load_from("", &[], &["--http-port", "0", "--peer-port", "65535", "--port", "60000"]).unwrap().config;
    assert_eq!((config.http_port(), config.peer_port()), (None, 65535));
}

#[test]
fn the_service_link_of_kubernetes_is_not_a_port() {
    let config = load_from("", &[("KVORUM_PORT", "tcp://10.0.0.1:6379")], &[]).unwrap().config;
    assert_eq!(config.port, 6379);
}

#[test]
fn a_node_is_announced_by_its_entry_in_the_initial_cluster() {
    let announced = |flags: &[&str]| load_from("", &[], flags).unwrap().config.announce().to_string();
    assert_eq!(announced(&["--port", "7002", "--initial-cluster", "a:7001,b:7002"]), "b:7002");
    assert_eq!(announced(&["--bind", "10.0.0.5,127.0.0.1"]), "10.0.0.5:6379");
    assert_eq!(announced(&["--bind", "*"]), "127.0.0.1:6379");
    assert_eq!(announced(&["--announce-host", "x", "--announce-port", "1"]), "x:1");
}

#[test]
fn a_member_keeps_its_host_unless_another_is_given() {
    let announced =
        |host: &str, flags: &[&str]| load_from("", &[], flags).unwrap().config.announce_again(host).to_string();
    let other_ports = "10.0.0.1:6379,10.0.0.2:6379";
    for (registered, flags, expected) in [
        ("10.0.0.1", &["--bind", "0.0.0.0", "--port", "7"][..], "10.0.0.1:7"),
        ("10.0.0.1", &["--bind", "0.0.0.0,10.0.0.9"], "10.0.0.1:6379"),
        ("10.0.0.1", &[], "10.0.0.1:6379"),
        ("node-1", &[], "node-1:6379"),
        ("node-1", &["--bind", "10.0.0.9"], "node-1:6379"),
        ("10.0.0.1", &["--bind", "127.0.0.1,10.0.0.1"], "10.0.0.1:6379"),
        // Both have this port, so neither is known to be this node's.
        ("10.0.0.1", &["--initial-cluster", other_ports], "10.0.0.1:6379"),
        ("10.0.0.1", &["--bind", "10.0.0.9"], "10.0.0.9:6379"),
        ("127.0.0.1", &["--bind", "10.0.0.9,127.0.0.1"], "10.0.0.9:6379"),
        ("10.0.0.1", &["--port", "7", "--initial-cluster", "b:7,c:8"], "b:7"),
        ("10.0.0.1", &["--announce-host", "x", "--bind", "10.0.0.1"], "x:6379"),
    ] {
        assert_eq!(announced(registered, flags), expected, "{registered} with {flags:?}");
    }
}

/// The documented file, with each `#key = value` line (no blank after the mark) taken as set.
fn documented_with_everything_set() -> String {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|letter: char| letter.is_ascii_lowercase()) => rest.to_string(),
        Some(_) | None => line.to_string(),
    };
    DOCUMENTED.lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_documented_file_names_every_setting_in_order() {
    let text = documented_with_everything_set();
    let keys = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    let keys: Vec<&str> = keys.map(|(key, _)| key).collect();
    assert_eq!(keys, setting_names());
}

#[test]
fn the_documented_file_as_shipped_is_the_defaults() {
    let mut shipped = load_from(DOCUMENTED, &[], &[]).unwrap().config;
    shipped.config = None;
    assert_eq!(format!("{shipped:?}"), format!("{:?}", Config::default()));
}

#[test]
fn the_values_in_the_documented_file_are_the_defaults() {
    let text = documented_with_everything_set();
    let table: toml::Table = text.parse().unwrap();
    let command = ServerFlags::command();
    for argument in command.get_arguments().filter(|argument| !argument.get_default_values().is_empty()) {
        let name = argument.get_long().unwrap();
        let default = argument.get_default_values()[0].to_str().unwrap();
        assert_eq!(scalar(&table[name]).as_deref(), Some(default), "{name}");
    }
    // One of the two.
    for left_out in ["join = ", "initial-cluster = "] {
        let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with(left_out)).collect();
        assert!(load_from(&rest.join("\n"), &[], &[]).is_ok());
    }
}
