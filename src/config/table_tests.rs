//! CONFIG GET and SET against Redis's texts.

use super::*;

fn table() -> ConfigTable {
    ConfigTable::new(&Config::default())
}

fn get(table: &ConfigTable, pattern: &str) -> Vec<(String, String)> {
    table.get(pattern).into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn one(table: &ConfigTable, name: &str) -> String {
    let found = get(table, name);
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found[0].1.clone()
}

#[test]
fn every_initial_value_is_one_that_set_would_take() {
    let table = table();
    for parameter in PARAMETERS {
        let value = &table.initial[parameter.name];
        assert_eq!(parameter.kind.normalized(value, value).as_ref(), Ok(value), "{}", parameter.name);
    }
}

#[test]
fn names_and_aliases_are_unique() {
    let mut names: Vec<_> = PARAMETERS.iter().flat_map(|row| [Some(row.name), row.alias]).flatten().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn every_file_key_is_a_setting() {
    let settings = crate::config::load::setting_names();
    for key in PARAMETERS.iter().filter_map(|row| row.file_key) {
        assert!(settings.iter().any(|name| name == key), "{key}");
    }
}

#[test]
fn every_setting_of_the_file_can_be_asked_for_by_its_name() {
    let table = table();
    for name in crate::config::load::setting_names() {
        one(&table, &name);
    }
}

#[test]
fn no_more_clients_are_taken_than_sockets_can_be_opened() {
    let table = table().with_clients_max(20_000);
    let error = table.set(&[("timeout", "5"), ("maxclients", "20001")]).unwrap_err();
    let expected = "ERR CONFIG SET failed (possibly related to argument 'maxclients') - The operating system is not able to handle the \
                    specified number of clients, try with 20000";
    assert_eq!(error, expected);
    assert_eq!((one(&table, "timeout"), one(&table, "maxclients")), ("0".to_owned(), "10000".to_owned()));
    table.set(&[("maxclients", "20000")]).unwrap();
    assert_eq!(table.tunables().maxclients, 20_000);
}

#[test]
fn output_limits_are_checked_and_merged_as_redis_does() {
    let table = table();
    table.set(&[("client-output-buffer-limit", "Replica 1mb 2 3 pubsub 4 5 6")]).unwrap();
    let expected = "normal 1073741824 0 0 slave 1048576 2 3 pubsub 4 5 6";
    assert_eq!(one(&table, "client-output-buffer-limit"), expected);
    for (text, reason) in [
        ("x", "Wrong number of arguments in buffer limit configuration."),
        ("normal 1 2", "Wrong number of arguments in buffer limit configuration."),
        ("master 1 2 3", "Invalid client class specified in buffer limit configuration."),
        ("normal x 2 3", "Error in hard, soft or soft_seconds setting in buffer limit configuration."),
        ("normal 1 2 -3", "Error in hard, soft or soft_seconds setting in buffer limit configuration."),
    ] {
        let error = table.set(&[("client-output-buffer-limit", text)]).unwrap_err();
        assert!(error.ends_with(reason), "{text}: {error}");
    }
    assert_eq!(one(&table, "client-output-buffer-limit"), expected);
}

#[test]
fn the_output_limit_of_normal_clients_is_set_by_either_name_and_each_reads_back_in_its_own_words() {
    let table = table();
    let shown = || {
        let limits = one(&table, "client-output-buffer-limit");
        (limits.split(" slave").next().unwrap().to_owned(), one(&table, "client-output-limit"))
    };
    for (name, value, limits, bytes) in [
        ("client-output-buffer-limit", "normal 4mb 2mb 10", "normal 4194304 2097152 10", 4 << 20),
        ("client-output-limit", "2mb", "normal 2097152 0 0", 2 << 20),
        ("client-output-buffer-limit", "normal 100 0 0", "normal 100 0 0", 1 << 20),
        ("client-output-buffer-limit", "normal 0 0 0", "normal 0 0 0", 1 << 40),
    ] {
        table.set(&[(name, value)]).unwrap();
        assert_eq!(shown(), (limits.to_owned(), bytes.to_string()), "{name} {value}");
        assert_eq!(table.tunables().client_output_limit, bytes);
    }
}

#[test]
fn what_would_promise_what_kvorum_does_not_do_is_refused() {
    for (name, value) in [
        ("min-replicas-to-write", "1"),
        ("min-slaves-to-write", "1"),
        ("cluster-allow-reads-when-down", "yes"),
        ("cluster-require-full-coverage", "yes"),
        ("maxmemory", "1mb"),
        ("maxmemory-clients", "1mb"),
        ("cluster-announce-hostname", "a.example"),
        ("cluster-preferred-endpoint-type", "hostname"),
    ] {
        assert!(table().set(&[(name, value)]).is_err(), "{name}");
    }
}

#[test]
fn what_redis_lets_tools_set_is_remembered() {
    for (name, value) in [
        ("repl-disable-tcp-nodelay", "yes"),
        ("oom-score-adj", "relative"),
        ("cluster-link-sendbuf-limit", "1048576"),
        ("rdb-save-incremental-fsync", "no"),
        ("crash-log-enabled", "no"),
        ("active-defrag-threshold-lower", "20"),
        ("shutdown-on-sigterm", "nosave"),
        ("replica-ignore-maxmemory", "no"),
        ("replica-announced", "no"),
        ("aof-timestamp-enabled", "yes"),
    ] {
        let table = table();
        table.set(&[(name, value)]).unwrap();
        assert_eq!(one(&table, name), value);
    }
}

#[test]
fn what_clients_ask_first_is_answered_as_a_cluster_node_without_snapshots_would() {
    let table = table();
    let expected = [
        ("save", ""),
        ("appendonly", "yes"),
        ("databases", "1"),
        ("timeout", "0"),
        ("replica-read-only", "yes"),
        ("slave-read-only", "yes"),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("cluster-enabled", "yes"),
        ("proto-max-bulk-len", "536870912"),
        ("appendfsync", "always"),
        ("loglevel", "notice"),
    ];
    for (name, value) in expected {
        assert_eq!(one(&table, name), value, "{name}");
    }
}

#[test]
fn get_takes_globs_in_any_case_and_finds_nothing_for_an_unknown_name() {
    let table = table();
    assert_eq!(one(&table, "MAXCLIENTS"), "10000");
    let names: Vec<_> = get(&table, "*max-listpack-e*").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["hash-max-listpack-entries", "set-max-listpack-entries", "zset-max-listpack-entries"]);
    assert_eq!(get(&table, "slowlog-max-le[mno]").len(), 1);
    assert_eq!(get(&table, "slowlog-max-le[^n]").len(), 0);
    assert_eq!(get(&table, "timeou?").len(), 1);
    assert_eq!(get(&table, "no-such-thing"), []);
    assert!(get(&table, "*").len() > PARAMETERS.len());
}

#[test]
fn appendfsync_may_be_set_to_what_it_is() {
    let table = table();
    assert_eq!(table.set(&[("appendfsync", "always")]), Ok(()));
    assert!(table.set(&[("appendfsync", "no")]).unwrap_err().ends_with("can't set immutable config"));
}

#[test]
fn a_hostile_glob_ends_soon() {
    let pattern = "*a".repeat(5_000) + "b";
    assert!(!glob_matches(pattern.as_bytes(), &[b'a'; 6_000]));
}

#[test]
fn set_changes_what_tunables_and_get_show() {
    let table = table();
    table.set(&[("SlowLog-Log-Slower-Than", "-1"), ("requirepass", "s3cret"), ("proto-max-bulk-len", "1MB")]).unwrap();
    let tunables = table.tunables();
    assert_eq!(tunables.slowlog_log_slower_than_us, -1);
    assert_eq!(tunables.requirepass, Some(Secret("s3cret".to_string())));
    assert_eq!(one(&table, "proto-max-bulk-len"), "1048576");
    table.set(&[("requirepass", "")]).unwrap();
    assert_eq!(table.tunables().requirepass, None);
}

#[test]
fn an_alias_sets_the_same_value() {
    let table = table();
    table.set(&[("hash-max-ziplist-entries", "7")]).unwrap();
    assert_eq!(one(&table, "hash-max-listpack-entries"), "7");
}

#[test]
fn refusals_are_in_the_words_of_redis() {
    let failed =
        |name: &str, reason: &str| format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}");
    let policies = "argument(s) must be one of the following: volatile-lru, volatile-lfu, volatile-random, \
                    volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, noeviction";
    let table: [(&str, &str, String); 10] = [
        ("nope", "1", "ERR Unknown option or number of arguments for CONFIG SET - 'nope'".to_string()),
        ("port", "1", failed("port", "can't set immutable config")),
        ("maxclients", "x", failed("maxclients", "argument couldn't be parsed into an integer")),
        ("maxclients", "0", failed("maxclients", "argument must be between 1 and 1000000 inclusive")),
        ("latency-tracking", "maybe", failed("latency-tracking", "argument must be 'yes' or 'no'")),
        ("maxmemory-policy", "x", failed("maxmemory-policy", policies)),
        ("proto-max-bulk-len", "x", failed("proto-max-bulk-len", "argument must be a memory value")),
        (
            "proto-max-bulk-len",
            "1",
            failed("proto-max-bulk-len", "argument must be between 1048576 and 536870912 inclusive"),
        ),
        ("save", "900 1", failed("save", "Kvorum supports only ''")),
        (
            "latency-tracking-info-percentiles",
            "101",
            failed("latency-tracking-info-percentiles", "argument(s) must be at most 16 numbers from 0 to 100"),
        ),
    ];
    for (name, value, expected) in table {
        assert_eq!(self::table().set(&[(name, value)]), Err(expected));
    }
}

#[test]
fn one_bad_value_leaves_all_as_it_was() {
    let table = table();
    let error = table.set(&[("timeout", "5"), ("maxclients", "no")]).unwrap_err();
    assert!(error.contains("'maxclients'"), "{error}");
    assert_eq!(one(&table, "timeout"), "0");
    let error = table.set(&[("timeout", "5"), ("TIMEOUT", "6")]).unwrap_err();
    assert_eq!(error, "ERR CONFIG SET failed (possibly related to argument 'TIMEOUT') - duplicate parameter");
}

#[test]
fn rewrite_writes_changed_settings_and_the_result_loads() {
    let table = table();
    table.set(&[("loglevel", "warning"), ("timeout", "9"), ("hz", "20"), ("requirepass", "12")]).unwrap();
    let text = table.rewritten("# mine\nport = 7001\n");
    assert_eq!(text, "# mine\nport = 7001\ntimeout = 9\nrequirepass = \"12\"\nlog-level = \"warning\"\n");
    let words = ["--config".to_string(), "x".to_string()];
    let loaded = crate::config::load(&words, &|_| None, &|_| Ok(text.clone())).unwrap().config;
    assert_eq!((loaded.timeout, loaded.log_level, loaded.port), (9, LogLevel::Warn, 7001));
}
