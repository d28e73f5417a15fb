//! A snapshot going out: the file in chunks of one frame each, a few of them unacknowledged at a time.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use openraft::alias::SnapshotOf;
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;

use super::codec::{self, SnapshotBegin, SnapshotChunk, SnapshotEnd};
use super::errors::CallError;
use super::frame::{FRAGMENT_BYTES_MAX, Kind};
use super::lanes::Body;
use super::network::PeerNetwork;
use crate::raft::blocking::blocking;
use crate::raft::log::DiskFile;
use crate::raft::{SnapshotFile, TypeConfig, Vote};
use crate::random;

/// Together 2 MiB: enough for a fast link, and what entries of the same group wait behind at most.
pub const CHUNKS_IN_FLIGHT_MAX: usize = 8;
const CHUNK_BYTES: usize = FRAGMENT_BYTES_MAX - SnapshotChunk::HEAD_BYTES;
/// A chunk not acknowledged for so long means that the receiver's disk or task is stuck.
const CHUNK_WAIT_MAX: Duration = Duration::from_secs(20);
/// Installing reads the whole snapshot into memory there.
const INSTALL_WAIT_MAX: Duration = Duration::from_secs(600);
const QUEUE_RETRY_WAIT: Duration = Duration::from_millis(10);

type SendError = StreamingError<TypeConfig>;

pub async fn send(
    network: &PeerNetwork,
    vote: Vote,
    snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
    cancel: impl Future<Output = ReplicationClosed>,
) -> Result<SnapshotResponse<TypeConfig>, SendError> {
    let mut cancel = pin!(cancel);
    tokio::select! {
        biased;
        closed = &mut cancel => Err(closed.into()),
        sent = send_all(network, vote, snapshot) => sent,
    }
}

async fn send_all(
    network: &PeerNetwork,
    vote: Vote,
    snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
) -> Result<SnapshotResponse<TypeConfig>, SendError> {
    // Not there: a newer snapshot replaced it, openraft asks for the current one and tries again.
    let (disk, path) = (network.disk().clone(), snapshot.snapshot.path);
    let opened = blocking(move || disk.open(&path)).await.flatten();
    let file = opened.map_err(|error| NetworkError::new(&error))?;
    let len = snapshot.snapshot.len;
    let transfer = random::draw_u64();
    let begin = SnapshotBegin { transfer, len, vote, meta: snapshot.meta };
    call(network, Kind::SnapshotBegin, begin.encode().into(), CHUNK_WAIT_MAX).await?;

    let mut crc32 = crc32fast::Hasher::new();
    let mut unacknowledged = FuturesOrdered::new();
    let mut offset = 0;
    while offset < len {
        if unacknowledged.len() == CHUNKS_IN_FLIGHT_MAX {
            unacknowledged.next().await.expect("it is not empty")?;
        }
        let size = usize::try_from(len - offset).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let read = blocking(read(file.clone(), offset, size)).await.flatten();
        let bytes = read.map_err(|error| Unreachable::new(&error))?;
        crc32.update(&bytes);
        let chunk = SnapshotChunk { transfer, offset, bytes: bytes.freeze() };
        offset += size as u64;
        unacknowledged.push_back(enqueue(network, Kind::SnapshotChunk, chunk.encode(), CHUNK_WAIT_MAX).await?);
    }
    while let Some(acknowledged) = unacknowledged.next().await {
        acknowledged?;
    }
    let end = SnapshotEnd { transfer, crc32: crc32.finalize() };
    let answer = call(network, Kind::SnapshotEnd, end.encode().into(), INSTALL_WAIT_MAX).await?;
    codec::decode_rare(&answer).map_err(|error| Unreachable::new(&error).into())
}

fn read(file: Arc<dyn DiskFile>, offset: u64, size: usize) -> impl FnOnce() -> io::Result<BytesMut> {
    move || {
        let mut bytes = BytesMut::zeroed(size);
        match file.read_at(&mut bytes, offset)? == size {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

async fn call(network: &PeerNetwork, kind: Kind, body: Body, wait_max: Duration) -> Result<bytes::Bytes, SendError> {
    enqueue(network, kind, body, wait_max).await?.await
}

/// Queues a frame, waiting for room if there is none; then its answer can be awaited.
async fn enqueue(
    network: &PeerNetwork,
    kind: Kind,
    body: Body,
    wait_max: Duration,
) -> Result<impl Future<Output = Result<bytes::Bytes, SendError>> + use<>, SendError> {
    let reply = loop {
        match network.request(kind, body.clone()) {
            Err(CallError::QueueFull) => tokio::time::sleep(QUEUE_RETRY_WAIT).await,
            Err(error) => return Err(Unreachable::new(&error).into()),
            Ok(reply) => break reply,
        }
    };
    Ok(async move {
        let answer = tokio::time::timeout(wait_max, reply).await.unwrap_or(Err(CallError::TimedOut));
        answer.map_err(|error| Unreachable::new(&error).into())
    })
}
