//! One turn: all requests that a read of the socket completed, answered in order. Hot path.
//!
//! § While a turn is unanswered its connection parses nothing further. So a later command can never overtake one that waits
//! for a commit or for a leader, whichever packet it came in, and replies leave strictly in order.
//!
//! There are no transactions. § A client that uses one sends it whole, and takes the error for MULTI for that of the transaction: what follows must not
//! happen, so all is refused up to EXEC or DISCARD. One that sends nothing for a second after a whole request has seen the error, and is answered again (a network that
//! takes longer between two parts of a transaction would deceive us here); one that goes on and on is cut off.
//!
//! A turn is a run of stretches. Commands that look at the node as a whole (SCAN, INFO, CLIENT PAUSE, ..) stand alone between
//! two stretches: everything before them is complete when they run.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Boottime;
use crate::command::{NodeCommand, Row, WireError};
use crate::protocol::{Args, Requests};
use crate::server::clients::{Client, Signal};
use crate::server::commands::{self, CommandContext};
use crate::server::dispatch::{Dispatch, dispatch};
use crate::server::latency::LatencyEvent;
use crate::server::output::{Output, hung_up};
use crate::server::places::{Assembled, Place, Rest, assemble, bytes_of};
use crate::server::session::{Flow, ReplyMode, Session};
use crate::server::settle::{Patience, Routed, wait_for_route};
use crate::server::shared::Shared;
use crate::server::slowlog::SlowCommand;
use crate::server::stats::Verdict;
use crate::server::stretch::{Pass, STEP_COUNT_MAX, Step, Stretch, Task};
use crate::slot::KeySlot;

#[derive(Debug)]
pub struct Turn<'a, 'o> {
    pub shared: &'a Arc<Shared>,
    pub session: &'a mut Session,
    pub output: &'a mut Output<'o>,
    pub requests: &'a Requests,
    pub bytes: &'a [u8],
    /// Reused from turn to turn.
    pub stretch: &'a mut Stretch,
}

/// Why a stretch ended before its turn did.
enum Stop {
    /// The turn's end, or the stretch's bound.
    Bound,
    Alone {
        row: &'static Row,
        command: NodeCommand,
    },
    Parked(KeySlot),
    Paused(&'static Row),
    Transaction,
    CrossProtocol,
}

/// How long a transaction that is refused may go on without an end.
const TRANSACTION_MAX: Duration = Duration::from_secs(10);

impl Turn<'_, '_> {
    /// Leaves the replies in the output. `Close`: the connection must be closed once they are sent.
    pub async fn run(mut self) -> io::Result<Flow> {
        let mut patience = Patience::default();
        let mut next = 0;
        while next < self.requests.len() {
            let (stop, collected) = self.collect(next);
            let (answered, flow) = self.answer_stretch(&mut patience).await?;
            next += answered;
            if flow == Flow::Close {
                return Ok(Flow::Close);
            }
            // A pass that met its bounds leaves the rest of what was collected for the next round.
            if answered == collected {
                match stop {
                    Stop::Bound => (),
                    Stop::Alone { row, command } => {
                        if self.run_alone(next, row, command).await == Flow::Close {
                            return Ok(Flow::Close);
                        }
                        next += 1;
                    }
                    Stop::Parked(key_slot) => {
                        if self.park(next, key_slot, &mut patience).await == Parked::Refused {
                            next += 1;
                        }
                    }
                    Stop::Paused(row) => self.wait_for_unpause(row).await,
                    Stop::Transaction => {
                        if self.refuse_transaction(next) == Flow::Close {
                            return Ok(Flow::Close);
                        }
                        next += 1;
                    }
                    Stop::CrossProtocol => return Ok(Flow::Close),
                }
            }
            if next < self.requests.len() {
                self.output.make_room(self.shared.parameters.tunables().client_output_limit).await?;
            }
        }
        Ok(Flow::Continue)
    }

    /// Takes requests into the stretch until one cannot be part of it. Returns how many were taken.
    ///
    /// § All of it by the same routes: of two commands for a slot that moves from one group of this node to another, the later must not go to the
    /// new group while the earlier is refused by the old one.
    fn collect(&mut self, from: usize) -> (Stop, usize) {
        loop {
            let version = self.shared.replication.version();
            let collected = self.collect_once(from);
            if version == self.shared.replication.version() {
                return collected;
            }
        }
    }

    fn collect_once(&mut self, from: usize) -> (Stop, usize) {
        self.stretch.clear();
        let paused = self.shared.pause.paused();
        let count_max = match self.session.reply_mode {
            ReplyMode::On | ReplyMode::Off => STEP_COUNT_MAX,
            ReplyMode::SkipNext | ReplyMode::SkipThis => 1,
        };
        let end = self.requests.len().min(from + count_max);
        for request in from..end {
            let args = self.requests.get(request, self.bytes);
            let stop = match dispatch(&args, self.shared, self.session, paused) {
                Dispatch::Refused { row, error } => {
                    self.stretch.push(request, Task::Refused { row, error });
                    continue;
                }
                Dispatch::InPlace { row, command } => {
                    self.stretch.push(request, Task::InPlace { row, command });
                    continue;
                }
                Dispatch::Keyed(keyed) => {
                    self.stretch.push_keyed(request, keyed, self.shared, self.session);
                    continue;
                }
                Dispatch::Alone { row, command } => Stop::Alone { row, command },
                Dispatch::Park(key_slot) => Stop::Parked(key_slot),
                Dispatch::Paused(row) => Stop::Paused(row),
                Dispatch::Transaction => Stop::Transaction,
                Dispatch::CrossProtocol => Stop::CrossProtocol,
            };
            return (stop, request - from);
        }
        (Stop::Bound, end - from)
    }

    /// Runs the stretch and puts its replies in order. Returns how many requests it answered.
    async fn answer_stretch(&mut self, patience: &mut Patience) -> io::Result<(usize, Flow)> {
        if self.stretch.steps.is_empty() {
            return Ok((0, Flow::Continue));
        }
        let mark = self.output.reply.len();
        let mut pass = Pass {
            shared: self.shared,
            session: &mut *self.session,
            reply: &mut self.output.reply,
            requests: self.requests,
            bytes: self.bytes,
        };
        let began = Boottime::now();
        let answered = self.stretch.execute(0..self.stretch.steps.len(), &mut pass);
        let worked = Boottime::now().saturating_since(began);
        self.stretch.steps.truncate(answered);
        if self.stretch.steps.iter().any(|step| !matches!(step.place, Place::Own { .. })) {
            self.stretch.settle(&mut pass, patience).await;
            let written = self.stretch.loads.iter().filter(|load| load.wrote);
            written.for_each(|load| self.session.note_write(load.group.id()));
            self.note_commit(began);
        }
        self.account(began, worked);
        let Stretch { steps, places, buffers, .. } = &mut *self.stretch;
        places.clear();
        places.extend(steps.iter().map(|step| step.place));
        let (assembled, mut rest) = assemble(&mut self.output.reply, mark, places, buffers);
        match self.session.reply_mode {
            ReplyMode::On => {
                self.output.append(&mut rest);
                let client = &self.session.client;
                if !rest.is_empty() && append_all(self.output, rest, self.shared, client).await? == Flow::Close {
                    return Ok((answered, Flow::Close));
                }
            }
            ReplyMode::Off | ReplyMode::SkipNext | ReplyMode::SkipThis => self.mute(mark),
        }
        self.stretch.buffers.clear();
        match assembled {
            Assembled::Complete => Ok((answered, Flow::Continue)),
            Assembled::Cut => {
                self.shared.stats.node.unknown_outcomes.increment(1);
                Ok((answered, Flow::Close))
            }
        }
    }

    /// CLIENT REPLY OFF and SKIP.
    fn mute(&mut self, mark: usize) {
        match self.session.reply_mode {
            ReplyMode::On => (),
            ReplyMode::Off => self.output.reply.truncate(mark),
            ReplyMode::SkipNext | ReplyMode::SkipThis => {
                self.output.reply.truncate(mark);
                self.session.reply_mode = ReplyMode::On;
            }
        }
    }

    fn note_commit(&self, began: Boottime) {
        let waited_ms = Boottime::now().saturating_since(began).as_millis() as u64;
        let threshold_ms = self.shared.parameters.tunables().latency_monitor_threshold_ms;
        if threshold_ms > 0 && waited_ms >= threshold_ms {
            self.shared.latency.record(LatencyEvent::Commit, waited_ms);
        }
    }

    /// Counts the stretch's commands. Its clock readings are shared out evenly: two per stretch, not two per command.
    fn account(&self, began: Boottime, worked: Duration) {
        let stats = &self.shared.stats;
        let steps = &self.stretch.steps;
        // Any of them: many clients begin each pipeline with the same key.
        let drawn = (began.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % steps.len().max(1);
        let slot = steps[drawn..].iter().chain(&steps[..drawn]).find_map(|step| match step.task {
            Task::Keyed { key_slot, .. } => Some(key_slot.slot()),
            _ => None,
        });
        if let Some(slot) = slot {
            self.shared.replication.slot_requests().note(slot, steps.len());
        }
        let each = worked / u32::try_from(steps.len()).unwrap_or(u32::MAX).max(1);
        let mut last_command = u32::MAX;
        for step in steps {
            let reply = bytes_of(&self.output.reply, &step.place, &self.stretch.buffers);
            let failed = reply.first() == Some(&b'-');
            if failed {
                stats.count_error(reply);
            }
            if let Some((row, verdict)) = verdict(step, failed) {
                stats.count(row, verdict, each);
                last_command = stats.number(row);
            }
        }
        self.session.client.mark_active(began, last_command);
        let each_usec = i64::try_from(each.as_micros()).unwrap_or(i64::MAX);
        let ran = steps.iter().filter(|step| !matches!(step.task, Task::Refused { .. }));
        self.note_slow(each_usec, ran.map(|step| step.request));
    }

    fn note_slow(&self, usec: i64, requests: impl Iterator<Item = usize>) {
        let tunables = self.shared.parameters.tunables();
        let threshold_ms = tunables.latency_monitor_threshold_ms;
        if threshold_ms > 0 && usec / 1000 >= i64::try_from(threshold_ms).unwrap_or(i64::MAX) {
            self.shared.latency.record(LatencyEvent::Command, (usec / 1000) as u64);
        }
        if tunables.slowlog_log_slower_than_us < 0 || usec < tunables.slowlog_log_slower_than_us {
            return;
        }
        for request in requests {
            let client = &self.session.client;
            let args = self.requests.get(request, self.bytes);
            let name = client.names().name;
            let slow = SlowCommand { args, usec: usec as u64, addr: client.addr, name };
            self.shared.slowlog.push(slow, tunables.slowlog_max_len);
        }
    }

    fn refuse_transaction(&mut self, request: usize) -> Flow {
        let args = self.requests.get(request, self.bytes);
        let is = |name: &[u8]| args.get(0).is_some_and(|word| word.eq_ignore_ascii_case(name));
        let error = if is(b"multi") && args.len() == 1 {
            self.session.refused = Some(Instant::now());
            WireError::unknown_command(&args)
        } else if is(b"exec") || is(b"discard") {
            self.session.refused = None;
            WireError::unknown_command(&args)
        } else {
            WireError::MultiRefused
        };
        let mark = self.output.reply.len();
        error.reply(&mut self.output.reply);
        self.shared.stats.count_error(&self.output.reply.buffer()[mark..]);
        self.mute(mark);
        let endless = self.session.refused.is_some_and(|since| since.elapsed() > TRANSACTION_MAX);
        if endless { Flow::Close } else { Flow::Continue }
    }

    async fn run_alone(&mut self, request: usize, row: &'static Row, command: NodeCommand) -> Flow {
        let args = self.requests.get(request, self.bytes);
        let mark = self.output.reply.len();
        let began = Boottime::now();
        self.session.client.mark_active(began, self.shared.stats.number(row));
        if self.session.reply_mode == ReplyMode::SkipNext {
            self.session.reply_mode = ReplyMode::SkipThis;
        }
        let flow = self.run_watched(&args, command).await;
        // As in Redis, what WAIT waits for is not work.
        let took = match command {
            NodeCommand::Wait => Duration::ZERO,
            _ => Boottime::now().saturating_since(began),
        };
        let reply = &self.output.reply.buffer()[mark..];
        let failed = reply.first() == Some(&b'-');
        if failed {
            self.shared.stats.count_error(reply);
        }
        self.shared.stats.count(row, if failed { Verdict::Failed } else { Verdict::Done }, took);
        if !row.flags.contains(&crate::command::Flag::SkipSlowlog) {
            self.note_slow(i64::try_from(took.as_micros()).unwrap_or(i64::MAX), std::iter::once(request));
        }
        // CLIENT REPLY SKIP is about the next one's.
        if self.session.reply_mode != ReplyMode::SkipNext {
            self.mute(mark);
        }
        flow
    }

    /// Runs a command that may wait; WAIT, which may do so for ever, ends when its client hangs up.
    async fn run_watched(&mut self, args: &Args<'_>, command: NodeCommand) -> Flow {
        let client = self.session.client.clone();
        let (reply, stream) = self.output.reply_and_stream();
        let mut context = CommandContext { shared: self.shared, session: &mut *self.session, reply };
        // Boxed: these are rare and their state would make every connection's task larger.
        let mut running = Box::pin(commands::run_alone(command, args, &mut context));
        tokio::select! {
            flow = &mut running => flow,
            () = hung_up(stream), if command == NodeCommand::Wait => {
                client.send(Signal::Drain);
                running.await
            }
        }
    }

    /// The client counts as blocked meanwhile, by the command that waits; CLIENT UNBLOCK leaves it alone, as in Redis.
    async fn wait_for_unpause(&self, row: &'static Row) {
        let client = &self.session.client;
        client.mark_active(Boottime::now(), self.shared.stats.number(row));
        let _blocked = client.postpone();
        self.shared.pause.wait().await;
    }

    /// Waits for a leader of the key slot's group. § Nothing behind the request runs meanwhile.
    async fn park(&mut self, request: usize, key_slot: KeySlot, patience: &mut Patience) -> Parked {
        let give_up = patience.until(self.shared);
        match wait_for_route(key_slot, self.bytes.len(), self.shared, give_up).await {
            // The walk goes on with this request and finds the route itself.
            Routed::Local(_) | Routed::Elsewhere(_) => Parked::Routed,
            Routed::Down => {
                let mark = self.output.reply.len();
                WireError::ClusterDown.reply(&mut self.output.reply);
                self.shared.stats.count_error(&self.output.reply.buffer()[mark..]);
                let args = self.requests.get(request, self.bytes);
                if let Ok(row) = crate::command::table::resolve(&args) {
                    self.shared.stats.count(row, Verdict::Rejected, Duration::ZERO);
                }
                self.mute(mark);
                Parked::Refused
            }
        }
    }
}

/// What parking came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parked {
    Routed,
    /// Answered with an error.
    Refused,
}

fn verdict(step: &Step, failed: bool) -> Option<(&'static Row, Verdict)> {
    let ran = if failed { Verdict::Failed } else { Verdict::Done };
    match &step.task {
        Task::Refused { row, .. } => row.map(|row| (row, Verdict::Rejected)),
        Task::InPlace { row, .. } | Task::Keyed { row, .. } => Some((row, ran)),
    }
}
/// As the client reads. One that reads nothing must not hold up a stop for as long as it likes.
async fn append_all(output: &mut Output<'_>, rest: Rest<'_>, shared: &Shared, client: &Client) -> io::Result<Flow> {
    let bytes_max = shared.parameters.tunables().client_output_limit;
    tokio::select! {
        biased;
        appended = output.append_all(rest, bytes_max) => appended.map(|()| Flow::Continue),
        () = client.killed() => Ok(Flow::Close),
    }
}
