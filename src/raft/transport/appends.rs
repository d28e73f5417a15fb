//! Hot path. Appends on the receiving side: one long-lived `stream_append` per link, replica and lane.
//!
//! openraft's stream answers in order and ends with the first error. The ids of requests in it are kept in the same order;
//! when it ends, those still there are refused, and the next frame opens a new stream. Heartbeats have a stream of their
//! own, or they would wait behind entries that are being written to disk.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::codec::{AppendRequest, encode_append_answer};
use super::errors::Refusal;
use super::link::Link;
use super::registry::Registered;
use super::tasks::Tasks;

/// Requests that wait for the core. A sender keeps at most 64 in flight, but may start over.
const APPENDS_WAITING_MAX: usize = 256;

#[derive(Default)]
struct Waiting {
    requests: VecDeque<u64>,
    ended: bool,
}

pub struct AppendStream {
    pub registered: Arc<Registered>,
    waiting: Arc<Mutex<Waiting>>,
    input: mpsc::Sender<AppendRequest>,
}

impl AppendStream {
    pub fn open(registered: Arc<Registered>, link: Arc<Link>, tasks: &Tasks) -> Self {
        let (input, mut receiver) = mpsc::channel(APPENDS_WAITING_MAX);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let runtime = registered.runtime.clone();
        let (ids, replica) = (Arc::clone(&waiting), Arc::clone(&registered));
        let pump = async move {
            let requests = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed();
            tokio::select! {
                biased;
                () = answer_in_order(&replica, requests, &ids, &link) => {}
                () = replica.gone() => {}
            }
            let mut ids = ids.lock();
            ids.ended = true;
            ids.requests.drain(..).for_each(|request| link.refuse(request, Refusal::Stopped));
        };
        tasks.spawn_on(&runtime, pump);
        Self { registered, waiting, input }
    }

    /// False if the stream has ended and a new one is needed.
    pub fn push(&self, request: u64, append: AppendRequest, link: &Link) -> Result<(), AppendRequest> {
        // The id and the request enter under one lock, so the pump cannot end between them and leave one unanswered.
        let mut waiting = self.waiting.lock();
        if waiting.ended {
            return Err(append);
        }
        match self.input.try_send(append) {
            Ok(()) => waiting.requests.push_back(request),
            Err(mpsc::error::TrySendError::Full(_)) => link.refuse(request, Refusal::Busy),
            Err(mpsc::error::TrySendError::Closed(append)) => return Err(append),
        }
        Ok(())
    }
}

async fn answer_in_order(
    registered: &Registered,
    requests: openraft::base::BoxStream<'static, AppendRequest>,
    waiting: &Mutex<Waiting>,
    link: &Link,
) {
    let mut results = registered.port.stream_append(requests);
    while let Some(result) = results.next().await {
        // The core may answer before `push` has let go of the lock, but not before the id is in.
        let request = waiting.lock().requests.pop_front();
        let request = request.expect("openraft answers each request once, in order");
        match result {
            Ok(result) => link.answer(request, encode_append_answer(&result)),
            Err(fatal) => {
                // The failure watch says why a replica ended that was not told to.
                tracing::debug!(group = %registered.group, replica = %registered.replica, %fatal, "append refused: the replica has stopped");
                link.refuse(request, Refusal::Stopped);
            }
        }
    }
}
