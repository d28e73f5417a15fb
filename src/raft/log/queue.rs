//! What waits for the writer: a queue per group, served in turn, so that one group's 512 MB entry holds up no other group's vote.
//!
//! The queue has no bound of its own: what it holds is in the groups' tails anyway (entries are refcounted), proposers keep at most
//! four entries in flight and followers acknowledge before they are sent more than 64 requests.

use std::collections::{BTreeMap, VecDeque};

use openraft::storage::IOFlushed;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::raft::log::format::{LogKey, Record};
use crate::raft::types::{Entry, TypeConfig};

/// One thing to write, and whom to tell.
pub enum Item {
    Entries {
        entries: Vec<Entry>,
        done: Option<IOFlushed<TypeConfig>>,
    },
    /// `sync`: fdatasync whatever the mode.
    Record {
        record: Record,
        sync: bool,
        done: Option<oneshot::Sender<std::io::Result<()>>>,
    },
    /// Nothing to write: everything before it on disk, whatever the mode.
    Barrier {
        done: oneshot::Sender<std::io::Result<()>>,
    },
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<LogKey, VecDeque<Item>>,
    closing: bool,
}

#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

impl Queue {
    pub fn push(&self, key: LogKey, item: Item) {
        let mut state = self.state.lock();
        state.waiting.entry(key).or_default().push_back(item);
        drop(state);
        self.arrived.notify_one();
    }

    /// Lets the writer finish what waits and end.
    pub fn close(&self) {
        self.state.lock().closing = true;
        self.arrived.notify_one();
    }

    /// Everything that waits; waits for something until `timeout`. `None` when closed and drained.
    pub fn drain(&self, timeout: Option<std::time::Duration>) -> Option<BTreeMap<LogKey, VecDeque<Item>>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.closing {
            match timeout {
                Some(timeout) => {
                    if self.arrived.wait_for(&mut state, timeout).timed_out() {
                        break;
                    }
                }
                None => self.arrived.wait(&mut state),
            }
        }
        if state.waiting.is_empty() && state.closing {
            return None;
        }
        Some(std::mem::take(&mut state.waiting))
    }

    /// What has arrived meanwhile joins behind what the writer still holds.
    pub fn join_into(&self, held: &mut BTreeMap<LogKey, VecDeque<Item>>) {
        let mut state = self.state.lock();
        for (key, items) in std::mem::take(&mut state.waiting) {
            held.entry(key).or_default().extend(items);
        }
    }
}
