//! What a connection's task knows about its client and nobody else changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::cluster::GroupId;
use crate::protocol::Protocol;
use crate::server::clients::{Client, ClientNames};

/// CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode {
    On,
    Off,
    /// The next command gets no reply.
    SkipNext,
    /// The one that runs gets none: only seen by commands that run alone.
    SkipThis,
}

/// Whether the connection lives on after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a connection that has to be closed must not read on"]
pub enum Flow {
    Continue,
    /// What was answered is sent, then the connection is closed.
    Close,
}

#[derive(Debug)]
pub struct Session {
    pub client: Arc<Client>,
    pub authenticated: bool,
    pub reply_mode: ReplyMode,
    pub protocol: Protocol,
    /// Groups that this connection has written to, for WAIT, and the entry that answered it last in each.
    pub written: Vec<(GroupId, Option<u64>)>,
    /// Since when a transaction is refused, until EXEC or DISCARD is; see `turn.rs`.
    pub refused: Option<Instant>,
    /// CLIENT MAINT_NOTIFICATIONS ON.
    pub notifications: Option<broadcast::Receiver<Bytes>>,
}

impl Session {
    /// `password_needed`: clients must authenticate first.
    pub fn new(client: Arc<Client>, password_needed: bool) -> Self {
        Self {
            client,
            authenticated: !password_needed,
            reply_mode: ReplyMode::On,
            protocol: Protocol::Resp2,
            written: Vec::new(),
            refused: None,
            notifications: None,
        }
    }

    pub fn note_write(&mut self, group: GroupId) {
        self.last_answer(group);
    }

    pub fn note_answer(&mut self, group: GroupId, entry: u64) {
        *self.last_answer(group) = Some(entry);
    }

    pub fn answered_by(&self, group: GroupId) -> Option<u64> {
        self.written.iter().find(|(written, _)| *written == group)?.1
    }

    fn last_answer(&mut self, group: GroupId) -> &mut Option<u64> {
        let known = self.written.iter().position(|(written, _)| *written == group);
        let at = known.unwrap_or_else(|| {
            self.written.push((group, None));
            self.written.len() - 1
        });
        &mut self.written[at].1
    }

    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        // RESP2 has no pushes.
        self.notifications = self.notifications.take().filter(|_| protocol == Protocol::Resp3);
        self.client.switches.resp3.store(protocol == Protocol::Resp3, Ordering::Relaxed);
    }

    /// RESET: as if the client had just connected.
    pub fn reset(&mut self, password_needed: bool) {
        self.authenticated = !password_needed;
        // A reply that is skipped stays so, this one's too.
        if self.reply_mode != ReplyMode::SkipThis {
            self.reply_mode = ReplyMode::On;
        }
        self.refused = None;
        self.set_protocol(Protocol::Resp2);
        let switches = &self.client.switches;
        for switch in [&switches.no_evict, &switches.no_touch, &switches.readonly] {
            switch.store(false, Ordering::Relaxed);
        }
        self.client.rename(|names| {
            *names = ClientNames { name: Box::default(), ..std::mem::take(names) };
        });
    }
}
