//! Connections from elsewhere while protected mode is on: other nodes get their questions answered, everybody else Redis's refusal.
//!
//! Nodes find each other by these questions, at the client port: refused, they would form no cluster and a wiped one would not come back. § A node
//! joins from the address that it is to have and from no other, or anybody could take the place of a node that is away for a moment. Beyond that
//! nothing here does more than the peer port, which asks for no password either. A node that is alone nobody joins here.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::cluster::MetaOp;
use crate::command::WireError;
use crate::protocol::{Args, Protocol, ReadLimits, Reply, RequestReader, Requests};
use crate::raft::{Newcomer, Replication};
use crate::server::shared::Shared;

/// Such connections at a time; they do not count as clients, who would else be kept out by strangers.
pub const QUESTIONERS_MAX: usize = 64;
/// A node waits for less than this for the longest of its answers.
const LIFETIME_MAX: Duration = Duration::from_secs(10);

/// Redis's words, but for the options' names.
pub const PROTECTED_MODE_TEXT: &str = "DENIED Kvorum is running in protected mode because protected mode is enabled and no password is \
     set for the default user. In this mode connections are only accepted from the loopback interface. If you want to connect from \
     external computers, you may adopt one of the following solutions: 1) Disable protected mode by sending the command \
     'CONFIG SET protected-mode no' from the loopback interface. 2) Start the server with '--protected-mode no'. 3) Set a password \
     with '--requirepass'. NOTE: You only need to do one of the above things in order for the server to start accepting \
     connections from the outside.";

/// Answers until something else is asked, for a while at most. `place` is one of `QUESTIONERS_MAX`.
pub async fn serve(
    stream: std::net::TcpStream,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => (),
        // One that was silent, or broke off, has nobody left to tell.
        _ = tokio::time::timeout(LIFETIME_MAX, answer(stream, &shared)) => (),
    }
    drop(place);
}

async fn answer(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = RequestReader::new(ReadLimits { requests_max: 1, ..ReadLimits::default() });
    // Ten words of 16 KiB are more than any question has.
    reader.set_authenticated(false);
    let (mut requests, mut buffer) = (Requests::default(), Vec::new());
    let from = stream.peer_addr()?.ip();
    loop {
        requests.clear();
        let mut reply = Reply::new(Protocol::Resp2);
        let Ok(consumed) = reader.decode(&buffer, &mut requests) else { return refuse(stream, shared).await };
        if requests.is_empty() {
            // Lines that ask nothing.
            buffer.drain(..consumed);
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        }
        let args = requests.get(0, &buffer);
        if !answer_stranger(&args, from, &shared.replication, &mut reply).await {
            return refuse(stream, shared).await;
        }
        stream.write_all(reply.buffer()).await?;
        buffer.drain(..consumed);
    }
}

/// False if that is refused.
async fn answer_stranger(args: &Args<'_>, from: IpAddr, replication: &Arc<Replication>, reply: &mut Reply) -> bool {
    let is = |index: usize, name: &[u8]| args.get(index).is_some_and(|word| word.eq_ignore_ascii_case(name));
    // A node with a password is to hear that there is none here.
    if is(0, b"auth") && args.len() == 2 {
        WireError::AuthWithoutPassword.reply(reply);
        return true;
    }
    if !is(0, b"cluster") || !is(1, b"kvorum") {
        return false;
    }
    if is(2, b"join") {
        let is_alone = replication.newest_topology().nodes().len() == 1;
        if is_alone || !is_joiner(args.get(3), from).await {
            return false;
        }
    }
    answer_node(args, replication, reply).await
}

/// § A node joins, and takes the place of one that is away, from the address that it is to have and from no other.
async fn is_joiner(op: Option<&[u8]>, from: IpAddr) -> bool {
    let Some(Ok(MetaOp::Join { info, .. })) = op.map(MetaOp::decode) else { return false };
    let own = tokio::net::lookup_host((info.host.as_str(), info.port)).await;
    own.is_ok_and(|mut addresses| addresses.any(|address| address.ip().to_canonical() == from.to_canonical()))
}

/// What nodes ask each other by CLUSTER KVORUM, beside an operator's MEET. False if it is none of that.
pub async fn answer_node(args: &Args<'_>, replication: &Arc<Replication>, reply: &mut Reply) -> bool {
    let words: Vec<&[u8]> = args.iter().skip(2).collect();
    let Some((question, rest)) = words.split_first() else { return false };
    let outcome = match (question.to_ascii_uppercase().as_slice(), rest) {
        (b"PROBE", []) => Ok(replication.probe()),
        (b"HERE", [caller]) => replication.exchange_presence(caller),
        (b"STANDING", [cluster, node]) => Ok(replication.standing_of(cluster, node).into()),
        (b"JOIN", [op, held @ ..]) if held.len() <= 2 => {
            replication.join(op, Newcomer::of_word(held.get(1).copied()), held.first().copied()).await
        }
        _ => return false,
    };
    match outcome {
        Ok(bytes) => reply.bulk(&bytes),
        Err(error) => reply.error(&format!("ERR {error}")),
    }
    true
}

async fn refuse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    count_refused(shared);
    stream.write_all(format!("-{PROTECTED_MODE_TEXT}\r\n").as_bytes()).await
}

pub fn count_refused(shared: &Shared) {
    shared.clients.rejected.fetch_add(1, Ordering::Relaxed);
    shared.stats.node.connections_rejected.increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{NodeId, NodeInfo, WantedSettings};

    #[tokio::test]
    async fn a_node_joins_from_its_own_address_only() {
        let join = |host: &str| {
            let info = NodeInfo { host: host.to_owned(), port: 7001, peer_port: 17001, http_port: 0 };
            let settings = WantedSettings { groups: None, replicas: None, hash_check: 7 };
            MetaOp::Join { node: NodeId([1; 20]), info, settings }.encode()
        };
        let (own, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert!(is_joiner(Some(&join("192.0.2.1")), own).await);
        assert!(is_joiner(Some(&join("::ffff:192.0.2.1")), own).await);
        assert!(!is_joiner(Some(&join("192.0.2.1")), other).await);
        assert!(!is_joiner(Some(&join("no host")), own).await);
        assert!(!is_joiner(Some(b"damaged"), own).await && !is_joiner(None, own).await);
    }
}
