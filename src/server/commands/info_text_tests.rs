//! INFO's text for given figures.

use std::time::Duration;

use super::*;
use crate::metrics::{CommandCounts, CommandStats};
use crate::server::commands::info_figures::GroupFigures;

fn text(sections: &[Section], figures: &Figures) -> String {
    render(&sections.iter().copied().collect(), figures)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

fn two_groups() -> Figures {
    let led = GroupFigures {
        id: 1,
        replica: 4,
        leads: true,
        term: 3,
        applied_index: 70,
        keys: 5,
        keys_with_ttl: 2,
        keyspace_bytes: 400,
        log_bytes: 90,
        ..GroupFigures::default()
    };
    let followed = GroupFigures { id: 2, leads: false, ..led.clone() };
    Figures { groups: vec![led, followed], ..Figures::default() }
}

#[test]
fn sections_stand_one_blank_line_apart_and_lines_end_as_in_redis() {
    let text = text(&[Section::Cluster, Section::Replication], &Figures::default());
    assert!(text.starts_with("# Replication\r\nrole:master\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n# Cluster\r\ncluster_enabled:1\r\n"), "{text}");
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
}

#[test]
fn the_fields_that_clients_read_are_there() {
    let all = [
        Section::Server,
        Section::Clients,
        Section::Memory,
        Section::Persistence,
        Section::Stats,
        Section::Replication,
        Section::Cpu,
        Section::Cluster,
    ];
    let mut figures = two_groups();
    (figures.stats.reads, figures.stats.writes, figures.stats.denied_auths) = (3, 2, 4);
    (figures.stats.per_second.peer_read_bytes, figures.stats.per_second.peer_written_bytes) = (1024.0, 512.0);
    let text = text(&all, &figures);
    for (name, value) in [
        ("redis_version", REDIS_VERSION),
        ("kvorum_version", VERSION),
        ("redis_mode", "cluster"),
        ("arch_bits", "64"),
        ("connected_clients", "0"),
        ("used_memory_dataset", "800"),
        ("maxmemory", "0"),
        ("loading", "0"),
        ("role", "master"),
        ("master_repl_offset", "140"),
        ("instantaneous_ops_per_sec", "0"),
        ("evicted_keys", "0"),
        ("cluster_enabled", "1"),
        ("used_cpu_sys", "0.000000"),
        ("used_cpu_sys_main_thread", "0.000000"),
        ("used_cpu_user_main_thread", "0.000000"),
        ("used_memory_lua", "0"),
        ("number_of_cached_scripts", "0"),
        ("allocator_frag_ratio", "1.00"),
        ("allocator_rss_bytes", "0"),
        ("rss_overhead_ratio", "1.00"),
        ("total_reads_processed", "3"),
        ("total_writes_processed", "2"),
        ("instantaneous_input_repl_kbps", "1.00"),
        ("instantaneous_output_repl_kbps", "0.50"),
        ("expired_stale_perc", "0.00"),
        ("expire_cycle_cpu_milliseconds", "0"),
        ("atomicvar_api", "c11-builtin"),
        ("acl_access_denied_auth", "4"),
        ("acl_access_denied_channel", "0"),
    ] {
        assert_eq!(field(&text, name), Some(value), "{name}\n{text}");
    }
}

#[test]
fn every_field_stands_once() {
    let mut figures = two_groups();
    figures.server.binds = vec!["127.0.0.1".to_owned()];
    let all = [Section::Server, Section::Clients, Section::Memory, Section::Persistence, Section::Stats];
    let text = text(&[&all[..], &[Section::Replication, Section::Cpu, Section::Kvorum]].concat(), &figures);
    let mut names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_database_counts_the_groups_led_here_and_is_absent_when_empty() {
    assert_eq!(text(&[Section::Keyspace], &two_groups()), "# Keyspace\r\ndb0:keys=5,expires=2,avg_ttl=0\r\n");
    assert_eq!(text(&[Section::Keyspace], &Figures::default()), "# Keyspace\r\n");
}

#[test]
fn groups_have_a_line_each_with_the_role_of_this_replica() {
    let text = text(&[Section::Kvorum], &two_groups());
    assert_eq!(field(&text, "group_1"), Some("role=leader,replica=4,term=3,applied=70,keys=5,bytes=400,log_bytes=90"));
    assert!(field(&text, "group_2").is_some_and(|line| line.starts_with("role=follower,")));
    assert_eq!((field(&text, "groups_here"), field(&text, "groups_led")), (Some("2"), Some("1")));
}

#[test]
fn commands_errors_and_percentiles_have_a_line_each() {
    let stats = CommandStats::new(vec!["get", "config|set"]);
    stats.record(0, Duration::from_micros(3));
    stats.record(0, Duration::from_micros(4));
    stats.record_failed(0);
    stats.record_rejected(1);
    let commands: Vec<(&'static str, CommandCounts)> = stats.used().collect();
    let figures = Figures {
        commands,
        errors: [("MOVED".to_owned(), 2)].into(),
        latency_percentiles: vec![50.0, 99.9],
        ..Figures::default()
    };
    let text = text(&[Section::Commandstats, Section::Errorstats, Section::Latencystats], &figures);
    assert_eq!(
        text,
        "# Commandstats\r\n\
         cmdstat_get:calls=2,usec=7,usec_per_call=3.50,rejected_calls=0,failed_calls=1\r\n\
         cmdstat_config|set:calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0\r\n\
         \r\n# Errorstats\r\nerrorstat_MOVED:count=2\r\n\
         \r\n# Latencystats\r\nlatency_percentiles_usec_get:p50=3.000,p99.9=4.000\r\n"
    );
}

#[test]
fn sizes_are_spelt_for_people_as_redis_does() {
    for (bytes, expected) in
        [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1_714_568, "1.64M"), (25_276_514_304, "23.54G")]
    {
        assert_eq!(human(bytes), expected);
    }
}
