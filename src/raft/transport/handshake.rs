//! The first bytes on a connection. Both sides say who they are, then both say whether that will do.
//!
//! ```text
//! hello    "KVPEER\r\n" 8 | version u16 | oldest u16 | cluster id 16 | node id 20 | hash of the test vector u64 |
//!          settings fingerprint u32 | election timeout u32 (ms) | password check u64 | crc32 of all before u32                little-endian
//! verdict  0 u8 | 0 u16        accepted
//!          1 u8 | length u16 | text        refused, with the reason, which both sides log
//!
//! dialler:  hello ............................... verdict
//! acceptor: ............ hello verdict ..................
//! ```
//! Both keep this form in every version. A node speaks the versions from `oldest` to `version`; two nodes refuse each other if they
//! have none in common, else they are to speak the highest that they have. There is one so far, so nothing asks which that is; the release that adds the
//! second, and goes on speaking this one, has to.
//! What entries mean is settled apart from that, by the feature level (`batch.rs`). § ahash differs between CPUs and
//! builds; nodes whose hash of the test vector differs must not share a cluster, since exports are in hash order. The password
//! check, a hash of the clients' password under the cluster's secret, is for the caller to compare.

use std::fmt::Display;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::errors::LinkError;
use crate::cluster::{ClusterId, NodeId};

pub const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Raised whenever frames or bodies change their form.
pub const PROTOCOL_VERSION: u16 = 4;
/// The oldest that this release speaks, too.
pub const PROTOCOL_OLDEST: u16 = 4;

const MAGIC: &[u8; 8] = b"KVPEER\r\n";
const HELLO_BYTES: usize = 8 + 2 + 2 + 16 + 20 + 8 + 8 + 8 + 4;
/// What each side writes before its first frame: hello, and the verdict that accepts.
#[cfg(test)]
pub const GREETING_BYTES: usize = HELLO_BYTES + 1 + 2;
const CHECKED_BYTES: usize = HELLO_BYTES - 4;
const REASON_BYTES_MAX: usize = 1024;

/// What one side says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub version: u16,
    pub oldest: u16,
    pub cluster: ClusterId,
    pub node: NodeId,
    pub hash_vector: u64,
    pub settings_fingerprint: u32,
    /// Milliseconds; the greatest.
    pub election_timeout: u32,
    pub password_check: u64,
}

impl Hello {
    fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = Vec::with_capacity(HELLO_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.oldest.to_le_bytes());
        out.extend_from_slice(&self.cluster.0);
        out.extend_from_slice(&self.node.0);
        out.extend_from_slice(&self.hash_vector.to_le_bytes());
        out.extend_from_slice(&self.settings_fingerprint.to_le_bytes());
        out.extend_from_slice(&self.election_timeout.to_le_bytes());
        out.extend_from_slice(&self.password_check.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out.try_into().expect("the fields add up to HELLO_BYTES")
    }

    fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, LinkError> {
        if !bytes.starts_with(MAGIC) {
            return Err(LinkError::Damaged("not a Kvorum peer"));
        }
        let mut rest = &bytes[MAGIC.len()..];
        let (mut version, mut oldest) = ([0; 2], [0; 2]);
        take(&mut rest, &mut version);
        take(&mut rest, &mut oldest);
        let crc = crc32fast::hash(&bytes[..CHECKED_BYTES]).to_le_bytes();
        if crc != bytes[CHECKED_BYTES..] {
            return Err(LinkError::Damaged("checksum of the hello"));
        }
        let (mut cluster, mut node, mut hash, mut password) = ([0; 16], [0; 20], [0; 8], [0; 8]);
        let (mut settings, mut timeout) = ([0; 4], [0; 4]);
        take(&mut rest, &mut cluster);
        take(&mut rest, &mut node);
        take(&mut rest, &mut hash);
        take(&mut rest, &mut settings);
        take(&mut rest, &mut timeout);
        take(&mut rest, &mut password);
        Ok(Self {
            version: u16::from_le_bytes(version),
            oldest: u16::from_le_bytes(oldest),
            cluster: ClusterId(cluster),
            node: NodeId(node),
            hash_vector: u64::from_le_bytes(hash),
            settings_fingerprint: u32::from_le_bytes(settings),
            election_timeout: u32::from_le_bytes(timeout),
            password_check: u64::from_le_bytes(password),
        })
    }

    /// Why `self` will not talk to `other`, if so.
    fn objection(&self, other: &Self) -> Option<String> {
        fn differ<T: PartialEq + Display>(what: &str, mine: T, theirs: T) -> Option<String> {
            (mine != theirs).then(|| format!("{what} differs: {mine} here, {theirs} there"))
        }
        let versions = |hello: &Self| format!("{} to {}", hello.oldest, hello.version);
        let common = self.version.min(other.version) >= self.oldest.max(other.oldest);
        (!common)
            .then(|| format!("no common protocol version: {} here, {} there", versions(self), versions(other)))
            .or_else(|| differ("cluster id", self.cluster, other.cluster))
            .or_else(|| differ("hash of the test vector", self.hash_vector, other.hash_vector))
            .or_else(|| differ("settings fingerprint", self.settings_fingerprint, other.settings_fingerprint))
            .or_else(|| self.lease_objection(other))
            .or_else(|| (self.node == other.node).then(|| format!("node {} dialled itself", self.node)))
    }

    /// § A leader's lease is half of its own election timeout, and a follower honours its own: with timeouts that are too far apart another would be elected
    /// while the lease runs.
    fn lease_objection(&self, other: &Self) -> Option<String> {
        let (mine, theirs) = (u64::from(self.election_timeout), u64::from(other.election_timeout));
        (2 * mine.max(theirs) > 3 * mine.min(theirs)).then(|| {
            format!("election-timeout-max-ms differs by more than half: {mine} here, {theirs} there; change it in steps, node by node")
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8], field: &mut [u8; N]) {
    let (head, tail) = rest.split_at(N);
    field.copy_from_slice(head);
    *rest = tail;
}

/// The dialler's side: who answered. `expected` is the node that should answer at that address.
pub async fn dial(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    mine: &Hello,
    expected: NodeId,
) -> Result<Hello, LinkError> {
    in_time(async {
        stream.write_all(&mine.encode()).await?;
        let theirs = read_hello(stream).await?;
        let verdict = read_verdict(stream).await;
        let objection = mine.objection(&theirs).or_else(|| {
            (theirs.node != expected).then(|| format!("node {expected} was dialled, node {} answered", theirs.node))
        });
        if verdict.is_ok() {
            write_verdict(stream, objection.as_deref()).await?;
        }
        verdict?;
        objection.map_or(Ok(theirs), |reason| Err(LinkError::Refused(reason)))
    })
    .await
}

/// The acceptor's side: who dialled. `objection` judges a node whose hello is otherwise fine.
pub async fn accept(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    mine: &Hello,
    objection: impl FnOnce(NodeId) -> Option<String>,
) -> Result<Hello, LinkError> {
    in_time(async {
        let theirs = read_hello(stream).await?;
        let objection = mine.objection(&theirs).or_else(|| objection(theirs.node));
        stream.write_all(&mine.encode()).await?;
        write_verdict(stream, objection.as_deref()).await?;
        if let Some(reason) = objection {
            return Err(LinkError::Refused(format!("node {}: {reason}", theirs.node)));
        }
        read_verdict(stream).await?;
        Ok(theirs)
    })
    .await
}

async fn in_time<T>(step: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    let timed_out = LinkError::HandshakeTimedOut(HANDSHAKE_WAIT_MAX.as_millis());
    tokio::time::timeout(HANDSHAKE_WAIT_MAX, step).await.unwrap_or(Err(timed_out))
}

async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hello, LinkError> {
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes).await?;
    Hello::decode(&bytes)
}

async fn write_verdict(stream: &mut (impl AsyncWrite + Unpin), objection: Option<&str>) -> Result<(), LinkError> {
    let reason = objection.unwrap_or_default();
    let reason = &reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX)];
    let mut out = vec![u8::from(objection.is_some())];
    out.extend_from_slice(&(reason.len() as u16).to_le_bytes());
    out.extend_from_slice(reason);
    stream.write_all(&out).await?;
    Ok(stream.flush().await?)
}

async fn read_verdict(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), LinkError> {
    let refused = stream.read_u8().await?;
    let len = stream.read_u16_le().await?;
    if usize::from(len) > REASON_BYTES_MAX {
        return Err(LinkError::Damaged("length of a verdict"));
    }
    let mut reason = vec![0; usize::from(len)];
    stream.read_exact(&mut reason).await?;
    match refused {
        0 => Ok(()),
        _ => Err(LinkError::RefusedByPeer(String::from_utf8_lossy(&reason).escape_debug().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: u8) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            oldest: PROTOCOL_OLDEST,
            cluster: ClusterId([1; 16]),
            node: NodeId([node; 20]),
            hash_vector: 7,
            settings_fingerprint: 8,
            election_timeout: 400,
            password_check: 9,
        }
    }

    /// Both sides' outcomes as text.
    async fn meet(dialler: Hello, acceptor: Hello, expected: u8) -> (String, String) {
        let (mut a, mut b) = tokio::io::duplex(4096);
        let (dialled, accepted) = tokio::join!(
            dial(&mut a, &dialler, NodeId([expected; 20])),
            accept(&mut b, &acceptor, |node| (node.0[0] == 9).then(|| "unknown node".to_owned())),
        );
        let text = |error: Option<LinkError>| error.map(|error| error.to_string()).unwrap_or_default();
        (text(dialled.err()), text(accepted.err()))
    }

    #[tokio::test]
    async fn equal_settings_connect() {
        assert_eq!(meet(hello(1), hello(2), 2).await, (String::new(), String::new()));
    }

    #[tokio::test]
    async fn a_newer_release_that_speaks_this_version_connects() {
        let newer = || Hello { version: PROTOCOL_VERSION + 4, ..hello(1) };
        assert_eq!(meet(newer(), hello(2), 2).await, (String::new(), String::new()));
        assert_eq!(meet(hello(2), newer(), 1).await, (String::new(), String::new()));
    }

    #[tokio::test]
    async fn election_timeouts_that_no_lease_outlives_connect() {
        for election_timeout in [267, 600] {
            let other = Hello { election_timeout, ..hello(1) };
            assert_eq!(meet(other, hello(2), 2).await, (String::new(), String::new()));
        }
    }

    #[tokio::test]
    async fn every_mismatch_is_refused_with_both_values_on_both_sides() {
        let cases = [
            (Hello { cluster: ClusterId([3; 16]), ..hello(1) }, "cluster id", "01".repeat(16), "03".repeat(16)),
            (Hello { version: 9, oldest: 8, ..hello(1) }, "protocol version", "4 to 4".to_owned(), "8 to 9".to_owned()),
            (Hello { version: 2, oldest: 0, ..hello(1) }, "protocol version", "4 to 4".to_owned(), "0 to 2".to_owned()),
            (Hello { hash_vector: 70, ..hello(1) }, "hash of the test vector", "7".to_owned(), "70".to_owned()),
            (Hello { settings_fingerprint: 80, ..hello(1) }, "settings fingerprint", "8".to_owned(), "80".to_owned()),
            (
                Hello { election_timeout: 601, ..hello(1) },
                "election-timeout-max-ms",
                "400".to_owned(),
                "601".to_owned(),
            ),
            (
                Hello { election_timeout: 266, ..hello(1) },
                "election-timeout-max-ms",
                "400".to_owned(),
                "266".to_owned(),
            ),
            (hello(9), "unknown node", String::new(), "09".repeat(20)),
            (hello(2), "dialled itself", String::new(), "02".repeat(20)),
        ];
        for (dialler, what, mine, theirs) in cases {
            let (dialled, accepted) = meet(dialler, hello(2), 2).await;
            assert!(accepted.contains(what) && accepted.contains(&mine) && accepted.contains(&theirs), "{accepted}");
            assert!(dialled.starts_with("refused by the peer") && dialled.contains(what), "{dialled}");
        }
    }

    #[tokio::test]
    async fn another_node_at_the_address_is_refused_by_the_dialler() {
        let (dialled, accepted) = meet(hello(1), hello(2), 3).await;
        assert!(dialled.contains("was dialled") && accepted.starts_with("refused by the peer"), "{dialled} {accepted}");
    }

    #[tokio::test]
    async fn strangers_and_damage_get_no_answer() {
        for bytes in [[0; HELLO_BYTES], {
            let mut damaged = hello(1).encode();
            damaged[30] ^= 1;
            damaged
        }] {
            let (mut a, mut b) = tokio::io::duplex(4096);
            a.write_all(&bytes).await.unwrap();
            assert!(matches!(accept(&mut b, &hello(2), |_| None).await, Err(LinkError::Damaged(_))));
            drop(b);
            assert_eq!(a.read(&mut [0; 8]).await.unwrap(), 0);
        }
    }
}
