//! Tests of CLUSTER: replies as frames, from a fixture topology.

use std::time::Duration;

use super::*;
use crate::cluster::{Absent, Hints, fixture_node as node_id, fixture_topology as topology};
use crate::protocol::Protocol;
use crate::server::commands::fixture::args;

fn written(protocol: Protocol, write: impl FnOnce(&mut Reply)) -> String {
    let mut reply = Reply::new(protocol);
    write(&mut reply);
    String::from_utf8(reply.buffer().to_vec()).unwrap()
}

#[test]
fn slots_of_one_node_are_one_range_with_its_address_and_id() {
    let (topology, absent) = (topology(1, 1, 1), Absent::default());
    let view = ClusterView::new(&topology, &Hints::default(), &absent);
    let id = node_id(1);
    let head = format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:7001\r\n$40\r\n{id}\r\n");
    assert_eq!(written(Protocol::Resp2, |reply| slots(&view, reply)), format!("{head}*0\r\n"));
    assert_eq!(written(Protocol::Resp3, |reply| slots(&view, reply)), format!("{head}%0\r\n"));
}

#[test]
fn shards_name_ranges_and_the_one_node_of_each() {
    let (topology, absent) = (topology(1, 1, 1), Absent::default());
    let view = ClusterView::new(&topology, &Hints::default(), &absent);
    let id = node_id(1);
    let expected = format!(
        "*1\r\n%2\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n$5\r\nnodes\r\n*1\r\n%7\r\n$2\r\nid\r\n$40\r\n{id}\r\n$4\r\nport\r\n:7001\r\n\
         $2\r\nip\r\n$9\r\n127.0.0.1\r\n$8\r\nendpoint\r\n$9\r\n127.0.0.1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n\
         $18\r\nreplication-offset\r\n:0\r\n$6\r\nhealth\r\n$6\r\nonline\r\n"
    );
    assert_eq!(written(Protocol::Resp3, |reply| shards(&view, reply)), expected);
    let gone = Absent { failed: [id].into(), ..Absent::default() };
    let failed = ClusterView::new(&topology, &Hints::default(), &gone);
    let shown = written(Protocol::Resp3, |reply| shards(&failed, reply));
    assert_eq!(shown, expected.replace("$6\r\nonline", "$4\r\nfail"));
    let resp2 = expected.replace("%2", "*4").replace("%7", "*14");
    assert_eq!(written(Protocol::Resp2, |reply| shards(&view, reply)), resp2);
}

#[test]
fn hashslot_names_slot_group_and_leader() {
    let (topology, absent) = (topology(1, 1, 1), Absent::default());
    let slot = KeySlot::of_key(b"foo").slot().to_string();
    let view = ClusterView::new(&topology, &Hints::default(), &absent);
    let text = written(Protocol::Resp2, |reply| hash_slot(b"foo", &view, reply));
    let expected =
        format!("*6\r\n$4\r\nslot\r\n:{slot}\r\n$5\r\ngroup\r\n:1\r\n$6\r\nleader\r\n$14\r\n127.0.0.1:7001\r\n");
    assert_eq!(text, expected);
}

#[test]
fn key_slot_arguments_are_integers_below_16384() {
    assert_eq!(key_slot_argument(b"16383"), Ok(KeySlot::new(16383)));
    assert_eq!(key_slot_argument(b"16384"), Ok(None));
    assert_eq!(key_slot_argument(b"-1"), Ok(None));
    assert_eq!(key_slot_argument(b"x"), Err(WireError::NotAnInteger));
}

#[test]
fn only_registered_nodes_are_known() {
    let topology = topology(1, 1, 1);
    assert_eq!(registered(node_id(1).to_string().as_bytes(), &topology), Ok(node_id(1)));
    let error = registered(b"nobody\r\n", &topology).unwrap_err();
    assert_eq!(error.to_string(), "ERR Unknown node nobody  ");
}

#[test]
fn links_list_connected_peers_only() {
    let peer = |number: u8, connected_for| PeerState {
        node: node_id(number),
        address: None,
        connected_for,
        lost_for: None,
        silent_for: None,
        dialled_here: number == 1,
        connects: 1,
        bytes_sent: 0,
        bytes_received: 0,
        frames_sent: 0,
        frames_received: 0,
        queue_bytes: 7,
        queue_frames: 1,
        requests_pending: 0,
    };
    let peers = [peer(1, Some(Duration::from_secs(1))), peer(2, None)];
    let text = written(Protocol::Resp3, |reply| links(&peers, reply));
    assert!(text.starts_with("*1\r\n%6\r\n$9\r\ndirection\r\n$2\r\nto\r\n"), "{text}");
    assert!(text.contains("$2\r\nrw\r\n") && text.ends_with("$16\r\nsend-buffer-used\r\n:7\r\n"), "{text}");
}

#[test]
fn a_wrong_failover_is_refused_in_redis_words() {
    let check = |line: &str| {
        let words = args(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        check_failover(&words.args()).map_err(|error| error.to_string())
    };
    assert!(check("cluster failover").is_ok() && check("cluster failover TAKEOVER").is_ok());
    assert_eq!(check("cluster failover x").unwrap_err(), "ERR syntax error");
    let expected = "ERR unknown subcommand or wrong number of arguments for 'failover'. Try CLUSTER HELP.";
    assert_eq!(check("cluster failover force x").unwrap_err(), expected);
}
