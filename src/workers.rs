//! The threads that serve clients and groups: one current-thread runtime each.
//!
//! Current-thread runtimes took about half the CPU per entry of one multi-thread runtime (better batches, no work
//! stealing between the tasks of one group). A group's tasks live on one of them, connections are spread over all.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    threads: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Workers {
    pub fn start(count: usize) -> io::Result<Self> {
        let mut workers = Self { handles: Vec::new(), threads: Vec::new() };
        for index in 0..count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.handles.push(runtime.handle().clone());
            let (stop, stopped) = oneshot::channel::<()>();
            let run = move || {
                // Either a stop or a dropped sender ends the thread.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            };
            let thread = std::thread::Builder::new().name(format!("kvorum-{index}")).spawn(run)?;
            workers.threads.push((stop, thread));
        }
        Ok(workers)
    }

    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Drops what still runs on them and joins the threads.
    pub fn stop(self) {
        for (stop, thread) in self.threads {
            let _ = stop.send(());
            // A panicked worker has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}
