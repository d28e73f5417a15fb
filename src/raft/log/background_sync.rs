//! A thread that syncs a file while the writer goes on writing it, for `appendfsync everysec`: an inline fdatasync of a second's writes
//! would hold up every group for as long as the disk takes.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::raft::log::disk::DiskFile;

/// Batches up to `lsn` are on the disk.
#[derive(Debug, Clone, Copy)]
pub struct Synced {
    pub lsn: u64,
    pub took: Duration,
}

/// At most one sync is under way.
pub struct BackgroundSync {
    /// `None` once dropped, which ends the thread.
    requests: Option<SyncSender<(Arc<dyn DiskFile>, u64)>>,
    results: Receiver<io::Result<Synced>>,
    under_way: bool,
    /// In a simulation, which has no threads, results go in here at once.
    #[cfg(test)]
    at_once: Option<SyncSender<io::Result<Synced>>>,
    thread: Option<JoinHandle<()>>,
}

impl BackgroundSync {
    pub fn start() -> io::Result<Self> {
        let (requests, received) = sync_channel::<(Arc<dyn DiskFile>, u64)>(1);
        let (finished, results) = sync_channel(1);
        #[cfg(test)]
        if crate::clock::simulated::clocks().is_some() {
            return Ok(Self { requests: None, results, under_way: false, at_once: Some(finished), thread: None });
        }
        let serve = move || {
            for (file, lsn) in received {
                if finished.send(sync(&*file, lsn)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("kvorum-log-sync".to_owned()).spawn(serve)?;
        Ok(Self {
            requests: Some(requests),
            results,
            under_way: false,
            #[cfg(test)]
            at_once: None,
            thread: Some(thread),
        })
    }

    /// Syncs `file`, which holds batches up to `lsn`, unless a sync is under way.
    pub fn request(&mut self, file: &Arc<dyn DiskFile>, lsn: u64) {
        if self.under_way {
            return;
        }
        #[cfg(test)]
        if let Some(finished) = &self.at_once {
            self.under_way = finished.try_send(sync(&**file, lsn)).is_ok();
            return;
        }
        let requests = self.requests.as_ref().expect("present until dropped");
        // A thread that is gone is noticed when its result is asked for.
        self.under_way = requests.try_send((file.clone(), lsn)).is_ok();
    }

    /// What has finished since the last call.
    pub fn poll(&mut self) -> io::Result<Option<Synced>> {
        match self.results.try_recv() {
            Ok(result) => {
                self.under_way = false;
                result.map(Some)
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the syncing thread is gone")),
        }
    }

    /// Waits for the sync that is under way: the kernel reports a failed write to one caller of fsync per open file, and that caller may
    /// be the other thread.
    pub fn finish(&mut self) -> io::Result<Option<Synced>> {
        if !self.under_way {
            return Ok(None);
        }
        self.under_way = false;
        let result = self.results.recv();
        result.unwrap_or_else(|_| Err(io::Error::other("the syncing thread is gone"))).map(Some)
    }
}

fn sync(file: &dyn DiskFile, lsn: u64) -> io::Result<Synced> {
    let started = Instant::now();
    file.sync().map(|()| Synced { lsn, took: started.elapsed() })
}

impl Drop for BackgroundSync {
    fn drop(&mut self) {
        self.requests = None;
        // Its result has room in the channel: the thread ends after the sync it is in.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
