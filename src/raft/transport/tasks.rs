//! The transport's tasks: every one is spawned here and joined at shutdown.

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

#[derive(Default)]
pub struct Tasks {
    set: Mutex<JoinSet<()>>,
}

impl Tasks {
    pub fn spawn_on(&self, runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set.lock();
        while let Some(ended) = set.try_join_next() {
            report(ended);
        }
        set.spawn_on(task, runtime);
    }

    /// Waits for all tasks, which the caller has told to end; those that do not in time are aborted.
    pub async fn join(&self, wait_max: Duration) {
        let mut set = std::mem::take(&mut *self.set.lock());
        let joined = tokio::time::timeout(wait_max, async {
            while let Some(ended) = set.join_next().await {
                report(ended);
            }
        });
        if joined.await.is_err() {
            tracing::warn!(tasks = set.len(), "transport tasks did not end in time and are aborted");
            set.shutdown().await;
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a transport task panicked");
    }
}
