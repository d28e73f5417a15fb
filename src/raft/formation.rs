//! How a node without a cluster finds or founds one: it asks every listed peer and does what `cluster::FormingNode` decides.
//!
//! Everything durable happens here, before it is told to anyone: the incarnation (in `node_file.rs`), the accepted plan, the membership.
//! Peers pull: a node offers its plan in its answer to a probe, and "accepted" is what its own answer then says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::cluster::{
    Action, Address, ClusterId, FormingNode, FoundingPlan, GroupId, Intent, MetaOp, NodeInfo, PlanSeed, Probe, Purpose,
    Topology, WaitReason,
};
use crate::command::WireError;
use crate::config::Secret;
use crate::protocol::{Protocol, ReadLimits, Reply, RequestReader, Requests};
use crate::raft::node_file::{Membership, NodeFile};
use crate::random;

const ROUND_INTERVAL: Duration = Duration::from_millis(100);
const PROBE_WAIT_MAX: Duration = Duration::from_millis(500);
const JOIN_WAIT_MAX: Duration = Duration::from_secs(6);
/// A topology of a thousand nodes fits many times over.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Probing connections served at a time.
const CONNECTIONS_MAX: usize = 256;
/// How long a node whose list or settings differ from a peer's goes on answering, before it stops.
const MISMATCH_SHOWN: Duration = Duration::from_secs(2);
const FORMING_TEXT: &str = "LOADING Kvorum is forming its cluster: waiting for the other founding nodes";
/// How often a wait of unchanged reason is logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// What a node becomes.
pub struct Formed {
    pub topology: Topology,
}

/// What forming needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct FormationConfig {
    pub info: NodeInfo,
    pub intent: Intent,
    pub purpose: Purpose,
    pub password: Option<Secret>,
}

#[derive(Debug, thiserror::Error)]
pub enum FormationError {
    #[error(
        "{address} was started with another list of founding nodes or other settings: it has {theirs:?}, this node has {ours:?}"
    )]
    OtherIntent { address: Address, theirs: Box<Intent>, ours: Box<Intent> },
    #[error(
        "the password is not the one of {address}, which answers \"{text}\": requirepass has to be the same on all nodes"
    )]
    OtherPassword { address: Address, text: String },
    #[error(
        "{0} and {1}, both listed in --initial-cluster or --join, are members of different clusters: list the nodes of one"
    )]
    TwoClusters(Address, Address),
    #[error(
        "this node's own address {own} is not in --initial-cluster ({}), and no node listed there is in a cluster that it could join: \
         set --announce-host, or correct the list",
        shown(listed)
    )]
    NotListed { own: Address, listed: BTreeSet<Address> },
    #[error(transparent)]
    Plan(#[from] crate::cluster::PlanError),
    #[error("the cluster refused this node: {0}")]
    Refused(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Forms or joins; returns once this node's membership is durable. Meanwhile it answers probes on `listen`, the client port,
/// which is free again afterwards.
pub async fn form(
    file: &mut NodeFile,
    config: &FormationConfig,
    listen: &[SocketAddr],
) -> Result<Formed, FormationError> {
    let plan = match &file.record.membership {
        Membership::Empty => None,
        Membership::Planned(plan) => Some(plan.clone()),
        Membership::Member { topology, .. } => return Ok(Formed { topology: (**topology).clone() }),
    };
    let FormationConfig { info, intent, purpose, password: _ } = config.clone();
    let node = FormingNode { node: file.record.node, info, intent, purpose, plan };
    let answer = Arc::new(Mutex::new(node.answer()));
    let answers = Answers { probe: answer.clone(), password: config.password.clone(), others: FORMING_TEXT };
    let mut answering = JoinSet::new();
    for address in listen {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
        answering.spawn(answer_probes(listener, answers.clone()));
    }
    let formed = drive(file, config, node, &answer).await;
    answering.shutdown().await;
    formed
}

async fn drive(
    file: &mut NodeFile,
    config: &FormationConfig,
    mut node: FormingNode,
    answer: &Mutex<Probe>,
) -> Result<Formed, FormationError> {
    let (mut reporter, mut refusals) = (Reporter::default(), Reporter::default());
    loop {
        let probes = match probe_all(&node, config.password.as_ref(), &mut refusals).await {
            Ok(probes) => probes,
            Err(error) => return refused(error).await,
        };
        if let Some(plan) = founded(&node, &probes) {
            // The founder has initialized: this node is a member by the plan it holds.
            let topology = plan.topology().clone();
            file.update_topology(&topology)?;
            return Ok(Formed { topology });
        }
        match node.step(&probes, draw_seed()) {
            Action::Wait(reason) => reporter.report(&reason),
            // Peers see the plan in our answer and take it from there.
            Action::SendPlan(_) => (),
            Action::Found(plan) | Action::AcceptPlan(plan) => {
                // § Durable before anyone hears of it.
                file.update(Membership::Planned(plan.clone()))?;
                node.plan = Some(plan);
                *answer.lock() = node.answer();
                continue;
            }
            Action::Initialize => {
                let plan = node.plan.as_ref().expect("only a founder with a plan initializes");
                for warning in plan.warnings() {
                    tracing::warn!(?warning, "the cluster is founded with less than was asked for");
                }
                let topology = plan.topology().clone();
                file.update_topology(&topology)?;
                return Ok(Formed { topology });
            }
            Action::JoinThrough(address) => {
                // § A founding node that is wiped must be able to come back while a quorum of founding nodes is all there is.
                let newcomer = match node.purpose {
                    Purpose::FoundOrJoin => Newcomer::Returning,
                    Purpose::Join => Newcomer::Stranger,
                };
                match join(&join_op(&node), newcomer, &BTreeSet::new(), config.password.as_ref(), &address).await {
                    Ok(topology) => {
                        if node.purpose == Purpose::FoundOrJoin
                            && let Some(difference) = list_difference(&node.intent.addresses, &topology)
                        {
                            tracing::warn!(
                                "--initial-cluster is not the list of the cluster that this node joined: {difference}"
                            );
                        }
                        // A plan that came to nothing is dropped: this node founds no cluster any more.
                        file.update(Membership::Member { topology: Box::new(topology.clone()), plan: None })?;
                        return Ok(Formed { topology });
                    }
                    Err(JoinFailure::Refused(reason)) => return Err(FormationError::Refused(reason)),
                    Err(JoinFailure::Later(reason)) => {
                        reporter.note(&format!("cannot join through {address} yet: {reason}"))
                    }
                }
            }
            Action::RefuseListMismatch { address, theirs, ours } => {
                let (theirs, ours) = (Box::new(theirs), Box::new(ours));
                return refused(FormationError::OtherIntent { address, theirs, ours }).await;
            }
            Action::RefuseTwoClusters(one, other) => return Err(FormationError::TwoClusters(one, other)),
            Action::RefuseNotListed => {
                let (own, listed) = (node.info.address(), node.intent.addresses);
                return Err(FormationError::NotListed { own, listed });
            }
            Action::RefuseIntent(error) => return Err(error.into()),
        }
        tokio::time::sleep(ROUND_INTERVAL).await;
    }
}

/// Still answering probes: the others must see it too, or the last of them would wait for ever.
async fn refused(error: FormationError) -> Result<Formed, FormationError> {
    tokio::time::sleep(MISMATCH_SHOWN).await;
    Err(error)
}

/// What is on one of the two lists alone. The cluster's own may have changed since it was founded, so this is no reason to refuse.
fn list_difference(listed: &BTreeSet<Address>, topology: &Topology) -> Option<String> {
    let members: BTreeSet<Address> = topology.nodes().values().map(NodeInfo::address).collect();
    let strangers: BTreeSet<Address> = listed.difference(&members).cloned().collect();
    let missing: BTreeSet<Address> = members.difference(listed).cloned().collect();
    let part = |what: &str, addresses: &BTreeSet<Address>| {
        (!addresses.is_empty()).then(|| format!("{what} {}", shown(addresses)))
    };
    let parts = [part("no member is at", &strangers), part("not listed are", &missing)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn shown<'a>(addresses: impl IntoIterator<Item = &'a Address>) -> String {
    addresses.into_iter().map(Address::to_string).collect::<Vec<_>>().join(", ")
}

/// The plan this node holds, if a peer says that its cluster exists.
fn founded<'a>(node: &'a FormingNode, probes: &BTreeMap<Address, Probe>) -> Option<&'a FoundingPlan> {
    let plan = node.plan.as_deref()?;
    let exists = |probe: &Probe| matches!(probe, Probe::Member { cluster } if *cluster == plan.cluster_id());
    probes.values().any(exists).then_some(plan)
}

fn draw_seed() -> PlanSeed {
    let bytes: [u8; 32] = random::draw();
    let mut hash_secret = [0; 4];
    for (word, chunk) in hash_secret.iter_mut().zip(bytes.chunks(8)) {
        *word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
    }
    PlanSeed { cluster_id: ClusterId::random(), hash_secret }
}

/// An error if a peer refuses this node's password: the password is one for all, so that clients need only one. Other errors that are answered are
/// logged: what answers so is no node that forms or has a cluster.
async fn probe_all(
    node: &FormingNode,
    password: Option<&Secret>,
    refusals: &mut Reporter,
) -> Result<BTreeMap<Address, Probe>, FormationError> {
    let own = node.info.address();
    let mut asking = JoinSet::new();
    for address in node.intent.addresses.iter().filter(|address| **address != own) {
        let (address, password) = (address.clone(), password.cloned());
        asking.spawn(async move {
            let ask = call(&address, password.as_ref(), &[b"CLUSTER", b"KVORUM", b"PROBE"]);
            let answer = tokio::time::timeout(PROBE_WAIT_MAX, ask).await;
            match answer {
                Ok(Ok(Ok(bytes))) => Ok((address, postcard::from_bytes(&bytes).unwrap_or(Probe::Unreachable), None)),
                Ok(Ok(Err(text))) if is_about_password(&text) => Err(FormationError::OtherPassword { address, text }),
                Ok(Ok(Err(text))) => Ok((address, Probe::Unreachable, Some(text))),
                Ok(Err(_)) | Err(_) => Ok((address, Probe::Unreachable, None)),
            }
        });
    }
    let answers = asking.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let refused = answers.iter().filter_map(|(address, _, text)| Some(format!("{address}: {}", text.as_ref()?)));
    let mut refused: Vec<String> = refused.collect();
    if !refused.is_empty() {
        refused.sort();
        refusals.note(&format!("nodes were asked for their cluster and refused: {}", refused.join("; ")));
    }
    Ok(answers.into_iter().map(|(address, probe, _)| (address, probe)).collect())
}

fn is_about_password(text: &str) -> bool {
    ["NOAUTH", "WRONGPASS", "ERR AUTH"].iter().any(|start| text.starts_with(start))
}

/// What a node that joins is to the member that is registered at its address and does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Newcomer {
    /// Its next incarnation: what that one had is gone, so it is replaced at once.
    Returning,
    /// Nobody knows. § The member may come back with all that it has, so it is replaced only when it is given up.
    Stranger,
}

impl Newcomer {
    /// The word of a join that says so.
    pub const RETURNING: &[u8] = b"RETURNING";

    pub fn of_word(word: Option<&[u8]>) -> Self {
        if word == Some(Self::RETURNING) { Self::Returning } else { Self::Stranger }
    }
}

pub(super) enum JoinFailure {
    /// For good: the operator has to change something.
    Refused(String),
    Later(String),
}

fn join_op(node: &FormingNode) -> MetaOp {
    MetaOp::Join { node: node.node, info: node.info.clone(), settings: node.intent.settings }
}

/// Asks the member at `address` to take in the node that `op` names, which is to give up copies of the groups in `held`.
pub(super) async fn join(
    op: &MetaOp,
    newcomer: Newcomer,
    held: &BTreeSet<GroupId>,
    password: Option<&Secret>,
    address: &Address,
) -> Result<Topology, JoinFailure> {
    let (body, held) = (op.encode(), postcard::to_stdvec(held).expect("numbers encode"));
    let words: [&[u8]; 6] = [b"CLUSTER", b"KVORUM", b"JOIN", &body, &held, Newcomer::RETURNING];
    let said = if newcomer == Newcomer::Returning { words.len() } else { words.len() - 1 };
    let ask = call(address, password, &words[..said]);
    let answer =
        tokio::time::timeout(JOIN_WAIT_MAX, ask).await.map_err(|_| JoinFailure::Later("no answer".to_owned()))?;
    match answer.map_err(|error| JoinFailure::Later(error.to_string()))? {
        Ok(bytes) => Topology::decode(&bytes).map_err(|error| JoinFailure::Later(error.to_string())),
        Err(text) => match text.strip_prefix("ERR refused: ") {
            Some(reason) => Err(JoinFailure::Refused(reason.to_owned())),
            None => Err(JoinFailure::Later(text)),
        },
    }
}

/// One command to another node's client port: the bulk it answers, or the text of its error, also of one about the password.
pub(super) async fn call(
    address: &Address,
    password: Option<&Secret>,
    words: &[&[u8]],
) -> io::Result<Result<Vec<u8>, String>> {
    let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    if let Some(password) = password {
        put_request(&mut request, &[b"AUTH", password.0.as_bytes()]);
    }
    put_request(&mut request, words);
    stream.write_all(&request).await?;
    let mut buffer = Vec::new();
    if password.is_some() {
        let authenticated = read_reply(&mut stream, &mut buffer).await?;
        if authenticated.is_err() {
            return Ok(authenticated);
        }
    }
    read_reply(&mut stream, &mut buffer).await
}

fn put_request(request: &mut Vec<u8>, words: &[&[u8]]) {
    request.extend(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        request.extend(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}

/// A bulk string, a simple string or an error; anything else is not an answer to what is asked here.
async fn read_reply(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Result<Vec<u8>, String>> {
    use redis_protocol::resp2::{decode::decode, types::OwnedFrame};
    loop {
        match decode(buffer).map_err(io::Error::other)? {
            Some((frame, used)) => {
                buffer.drain(..used);
                return match frame {
                    OwnedFrame::BulkString(bytes) | OwnedFrame::SimpleString(bytes) => Ok(Ok(bytes)),
                    OwnedFrame::Error(text) => Ok(Err(text)),
                    OwnedFrame::Integer(_) | OwnedFrame::Array(_) | OwnedFrame::Null => {
                        Err(io::Error::other("an unexpected kind of reply"))
                    }
                };
            }
            None if buffer.len() > ANSWER_BYTES_MAX => return Err(io::Error::other("an answer is too large")),
            None => {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

/// What a node answers at its client port before it serves there.
#[derive(Clone)]
pub(super) struct Answers {
    pub probe: Arc<Mutex<Probe>>,
    /// Asked for as by the real server, so that nodes with different ones find out before they share a cluster.
    pub password: Option<Secret>,
    /// The error that everybody else gets.
    pub others: &'static str,
}

/// Answers probes, and tells everybody else why the node is not there yet.
pub(super) async fn answer_probes(listener: TcpListener, answers: Answers) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => (),
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                match accepted {
                    Ok((stream, _)) => drop(connections.spawn(answer_connection(stream, answers.clone()))),
                    // Out of file descriptors, most likely, and the connection still waits.
                    Err(_) => tokio::time::sleep(ROUND_INTERVAL).await,
                }
            }
        }
    }
}

async fn answer_connection(mut stream: TcpStream, answers: Answers) -> io::Result<()> {
    let mut authenticated = answers.password.is_none();
    let mut reader = RequestReader::new(ReadLimits { word_bytes_max: 1 << 20, ..ReadLimits::default() });
    let (mut requests, mut buffer) = (Requests::default(), Vec::new());
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        requests.clear();
        let Ok(consumed) = reader.decode(&buffer, &mut requests) else { return Ok(()) };
        let mut reply = Reply::new(Protocol::Resp2);
        for index in 0..requests.len() {
            let args = requests.get(index, &buffer);
            let words: Vec<Vec<u8>> = args.iter().map(<[u8]>::to_ascii_uppercase).collect();
            match words.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice() {
                [b"CLUSTER", b"KVORUM", b"PROBE"] if authenticated => {
                    let probe = postcard::to_stdvec(&*answers.probe.lock()).expect("a probe's answer encodes");
                    reply.bulk(&probe);
                }
                [b"AUTH", .., _] => match &answers.password {
                    Some(password) if password.is(&args[args.len() - 1]) => {
                        authenticated = true;
                        reply.ok();
                    }
                    Some(_) => WireError::WrongPass.reply(&mut reply),
                    None if args.len() == 2 => WireError::AuthWithoutPassword.reply(&mut reply),
                    None => reply.ok(),
                },
                _ if !authenticated => WireError::NoAuth.reply(&mut reply),
                _ => reply.error(answers.others),
            }
        }
        buffer.drain(..consumed);
        stream.write_all(reply.buffer()).await?;
    }
}

/// Logs what is waited for, once, and again from time to time.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    last: Option<(String, tokio::time::Instant)>,
}

impl Reporter {
    fn report(&mut self, reason: &WaitReason) {
        match reason {
            WaitReason::Unreachable(missing) => {
                self.note(&format!("waiting for {}", shown(missing)));
            }
            WaitReason::NoMember(_) => self.note(&format!("cannot join yet: {reason}; name others with --join")),
            WaitReason::FounderToPlan(founder) => self.note(&format!("waiting for {founder} to found the cluster")),
            WaitReason::FounderToInitialize => self.note("waiting for the founding node to start the cluster"),
            WaitReason::DeadPlan(address) => self.note(&format!(
                "{address} holds a founding plan of a node that is gone; if no cluster ever ran, wipe its data directory"
            )),
            WaitReason::OwnPlanDead => {
                self.note("the node that planned this cluster is gone; if no cluster ever ran, wipe this data directory");
            }
        }
    }

    pub(super) fn note(&mut self, text: &str) {
        let repeated = self.last.as_ref().is_some_and(|(last, at)| last == text && at.elapsed() < REPORT_INTERVAL);
        if !repeated {
            tracing::info!("{text}");
            self.last = Some((text.to_owned(), tokio::time::Instant::now()));
        }
    }
}
