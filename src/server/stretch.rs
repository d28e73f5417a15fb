//! A stretch: the requests of a turn between two commands that have to run alone. Hot path.
//!
//! `execute` is one synchronous pass: local reads are answered, writes are planned into one chunk per group. What needs
//! waiting (commits, doubtful leases, re-routing) is `settle.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command::{self, LcsJob, NodeCommand, PlanFn, ReadFn, ReadOutcome, Row, Run, WireError};
use crate::config::ReadMode;
use crate::keyspace::{Marking, SlotState, Time};
use crate::planted::{self, Bug};
use crate::protocol::{Args, OwnedArgs, Protocol, REPLY_BYTES_MAX, Replies, Reply, Requests};
use crate::raft::{CHUNK_BYTES_MAX, Chunk, Group, LeaseGuard};
use crate::server::commands::{self, CommandContext};
use crate::server::dispatch::Keyed;
use crate::server::places::Place;
use crate::server::session::Session;
use crate::server::shared::Shared;
use crate::slot::KeySlot;

/// A stretch ends when it has this many requests, ...
pub const STEP_COUNT_MAX: usize = 1024;
/// ... its local replies this many bytes, ...
const LOCAL_BYTES_MAX: usize = 256 << 10;
/// ... or this many words of reads whose replies come later, of a size that is not known yet. Large values among them are copied as the
/// client takes them.
const LATER_WORDS_MAX: usize = 256;

/// What one request of the stretch needs.
#[derive(Debug)]
pub enum Task {
    Refused {
        row: Option<&'static Row>,
        error: WireError,
    },
    InPlace {
        row: &'static Row,
        command: NodeCommand,
    },
    /// `load` is an index into [`Stretch::loads`].
    Keyed {
        row: &'static Row,
        key_slot: KeySlot,
        load: usize,
    },
}

#[derive(Debug)]
pub struct Step {
    /// Index in the turn's requests.
    pub request: usize,
    pub task: Task,
    pub place: Place,
}

/// How far reads from the local replica may be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Under the lease, confirmed after the pass.
    Lease,
    /// Not by a lease (`--read-mode read-index`).
    NoLease,
    /// § The lease was missing or did not hold to the end: what was read under it counts for nothing.
    Doubtful,
    /// A ReadIndex covers all reads of the group in this stretch.
    Indexed,
}

/// What the stretch wants from one group.
#[derive(Debug)]
pub struct Load {
    pub group: Arc<Group>,
    pub chunk: Chunk,
    /// The step behind each item of the chunk that is answered.
    pub items: Vec<usize>,
    pub trust: Trust,
    /// The chunk holds, or held, a client's write.
    pub wrote: bool,
    protocol: Protocol,
}

/// A read whose values were taken under the lock and whose work is still to be done.
#[derive(Debug)]
pub struct Job {
    pub step: usize,
    pub job: Box<LcsJob>,
}

#[derive(Debug, Default)]
pub struct Stretch {
    pub steps: Vec<Step>,
    pub loads: Vec<Load>,
    pub jobs: Vec<Job>,
    /// Replies made elsewhere; see [`Place::Foreign`].
    pub buffers: Vec<Replies>,
    /// The steps' places, side by side for `assemble`; kept for its memory.
    pub places: Vec<Place>,
    /// Loads before this one are history: their steps were answered or have moved on to a later load.
    first_open_load: usize,
}

/// What a pass works with.
#[derive(Debug)]
pub struct Pass<'a> {
    pub shared: &'a Arc<Shared>,
    pub session: &'a mut Session,
    pub reply: &'a mut Reply,
    pub requests: &'a Requests,
    pub bytes: &'a [u8],
}

/// One group's lease during a pass.
enum Lease<'g> {
    Untaken,
    /// Nothing was read yet, and a lease will not do.
    Unwanted,
    Held(LeaseGuard<'g>),
    /// A ReadIndex covers the reads.
    Covered,
    /// Something should have been read and could not be.
    Missing,
}

/// What a local read came to.
enum LocalRead {
    Answered,
    Due,
    NotOwned,
    Compute(Box<LcsJob>),
}

impl Stretch {
    /// Makes it empty; memory that an unusual stretch took is given back.
    pub fn clear(&mut self) {
        self.steps.clear();
        self.loads.clear();
        self.jobs.clear();
        self.buffers.clear();
        self.first_open_load = 0;
        if self.steps.capacity() > 128 {
            self.steps = Vec::new();
            self.places = Vec::new();
        }
    }

    pub fn push(&mut self, request: usize, task: Task) {
        self.steps.push(Step { request, task, place: Place::Pending });
    }

    pub fn push_keyed(&mut self, request: usize, keyed: Keyed, shared: &Shared, session: &Session) {
        let Keyed { row, key_slot, group } = keyed;
        let load = self.load_of(group, shared, session);
        self.push(request, Task::Keyed { row, key_slot, load });
    }

    /// The open load of `group`, added if there is none.
    pub fn load_of(&mut self, group: Arc<Group>, shared: &Shared, session: &Session) -> usize {
        let open = &self.loads[self.first_open_load..];
        if let Some(load) = open.iter().position(|load| Arc::ptr_eq(&load.group, &group)) {
            return self.first_open_load + load;
        }
        let trust = match shared.config.read_mode {
            ReadMode::Lease => Trust::Lease,
            ReadMode::ReadIndex => Trust::NoLease,
        };
        let protocol = session.protocol;
        self.loads.push(Load { group, chunk: Chunk::new(protocol), items: Vec::new(), trust, wrote: false, protocol });
        self.loads.len() - 1
    }

    /// Every load so far has been submitted and answered; steps that are still pending get new ones.
    pub fn close_loads(&mut self) {
        self.first_open_load = self.loads.len();
    }

    /// Runs the steps with these indices, in order, until one of the stretch's bounds is met. Returns how many it ran.
    /// Afterwards a step is answered, or in its group's chunk, or a job, or, if its group's trust is doubtful or the
    /// slot is not here, still pending.
    pub fn execute(&mut self, steps: impl Iterator<Item = usize>, pass: &mut Pass<'_>) -> usize {
        let handles: Vec<Arc<Group>> = self.loads.iter().map(|load| load.group.clone()).collect();
        let mut leases: Vec<Lease<'_>> = self.loads.iter().map(|load| Lease::of(load.trust)).collect();
        let mark = pass.reply.total_len();
        let (mut chunk_bytes, mut later_words) = (0, 0);
        let mut ran = 0;
        let mut marking = marking(pass);
        for index in steps {
            let full = pass.reply.total_len() - mark > LOCAL_BYTES_MAX || chunk_bytes > CHUNK_BYTES_MAX;
            if full || later_words >= LATER_WORDS_MAX {
                break;
            }
            ran += 1;
            let step = &mut self.steps[index];
            let start = pass.reply.len();
            match &step.task {
                Task::Refused { error, .. } => error.reply(pass.reply),
                Task::InPlace { command, .. } => {
                    let args = pass.requests.get(step.request, pass.bytes);
                    let mut context =
                        CommandContext { shared: pass.shared, session: &mut *pass.session, reply: &mut *pass.reply };
                    commands::run(*command, &args, &mut context);
                    // It may have been CONFIG SET or CLIENT NO-TOUCH.
                    marking = self::marking(pass);
                }
                Task::Keyed { row, key_slot, load } => {
                    let (load_index, load) = (*load, &mut self.loads[*load]);
                    let args = pass.requests.get(step.request, pass.bytes);
                    let before = load.chunk.bytes();
                    let words = args.len();
                    let keyed = KeyedStep { index, row, key_slot: *key_slot, args, marking };
                    let lease = &mut leases[load_index];
                    let outcome = run_keyed(&keyed, load, &handles[load_index], lease, pass.reply);
                    chunk_bytes += load.chunk.bytes() - before;
                    match outcome {
                        KeyedOutcome::Answered => (),
                        KeyedOutcome::InChunk | KeyedOutcome::Pending => {
                            later_words += if matches!(row.run, Run::Read(_)) { words } else { 0 };
                            continue;
                        }
                        KeyedOutcome::Compute(job) => {
                            self.jobs.push(Job { step: index, job });
                            continue;
                        }
                    }
                }
            }
            step.place = Place::Own { start, end: pass.reply.len() };
        }
        let doubtful: Vec<usize> =
            leases.into_iter().enumerate().filter_map(|(load, lease)| (!lease.confirm()).then_some(load)).collect();
        doubtful.into_iter().for_each(|load| self.doubt(load));
        ran
    }

    /// Runs all of these steps, whatever the bounds: what stands behind them in the stretch may have been answered already. The
    /// pass that took them in first kept to the bounds.
    pub fn execute_all(&mut self, steps: &[usize], pass: &mut Pass<'_>) {
        let mut ran = 0;
        while ran < steps.len() {
            ran += self.execute(steps[ran..].iter().copied(), pass);
        }
    }

    /// § Forgets what the pass did for this group, so that after a ReadIndex all of it is done again in order. Planning has
    /// no effects, so nothing else has to be undone.
    fn doubt(&mut self, doubtful: usize) {
        let load = &mut self.loads[doubtful];
        load.trust = Trust::Doubtful;
        load.chunk = load.new_chunk();
        load.items.clear();
        let steps = &mut self.steps;
        self.jobs.retain(|job| !is_of_load(&steps[job.step], doubtful));
        steps.iter_mut().filter(|step| is_of_load(step, doubtful)).for_each(|step| step.place = Place::Pending);
    }
}

impl Load {
    pub fn new_chunk(&self) -> Chunk {
        Chunk::new(self.protocol)
    }
}

pub fn is_of_load(step: &Step, index: usize) -> bool {
    match &step.task {
        Task::Keyed { load, .. } => *load == index,
        Task::Refused { .. } | Task::InPlace { .. } => false,
    }
}

impl<'g> Lease<'g> {
    fn of(trust: Trust) -> Self {
        match trust {
            Trust::Lease => Self::Untaken,
            Trust::NoLease | Trust::Doubtful => Self::Unwanted,
            Trust::Indexed => Self::Covered,
        }
    }

    /// Takes the lease the first time a pass reads from the group. False if there is none.
    fn take(&mut self, group: &'g Group) -> bool {
        match self {
            Self::Untaken => *self = group.lease().map_or(Self::Missing, Self::Held),
            Self::Unwanted => *self = Self::Missing,
            Self::Held(_) | Self::Covered | Self::Missing => (),
        }
        matches!(self, Self::Held(_) | Self::Covered)
    }

    /// § The second check, after all values were read.
    fn confirm(self) -> bool {
        match self {
            Self::Held(guard) => guard.confirm(),
            Self::Untaken | Self::Unwanted | Self::Covered => true,
            Self::Missing => false,
        }
    }
}

fn marking(pass: &Pass<'_>) -> Marking {
    Marking {
        untouched: pass.session.client.switches.no_touch.load(Ordering::Relaxed),
        by_frequency: pass.shared.parameters.tunables().eviction_policy.is_lfu(),
    }
}

struct KeyedStep<'a> {
    index: usize,
    row: &'static Row,
    key_slot: KeySlot,
    args: Args<'a>,
    marking: Marking,
}

enum KeyedOutcome {
    /// The reply was appended.
    Answered,
    InChunk,
    /// Has to be tried again: there is no lease.
    Pending,
    Compute(Box<LcsJob>),
}

fn run_keyed<'g>(
    keyed: &KeyedStep<'_>,
    load: &mut Load,
    group: &'g Group,
    lease: &mut Lease<'g>,
    reply: &mut Reply,
) -> KeyedOutcome {
    match keyed.row.run {
        Run::Write { code, plan, .. } => match plan_write(keyed, code, plan, load) {
            Ok(()) => {
                load.wrote = true;
                load.items.push(keyed.index);
                KeyedOutcome::InChunk
            }
            Err(error) => {
                error.reply(reply);
                KeyedOutcome::Answered
            }
        },
        Run::Read(read) => {
            // § A read behind a write of the same turn to the same group rides along with it, answered at apply in order.
            if !load.chunk.is_empty() && !planted::is(Bug::ReadOvertakesWrite) {
                return ride_along(keyed, load);
            }
            if !lease.take(group) {
                return KeyedOutcome::Pending;
            }
            match read_locally(keyed, read, group, reply) {
                LocalRead::Answered => KeyedOutcome::Answered,
                // § It could not be committed, or would use up what is kept for votes.
                LocalRead::Due if group.refuses_expiry() => {
                    WireError::DiskFull.reply(reply);
                    KeyedOutcome::Answered
                }
                LocalRead::Due => ask_the_log(keyed, load),
                // Not re-tried beside the chunk: a later write to the slot in this turn might then overtake it.
                LocalRead::NotOwned => ride_along(keyed, load),
                LocalRead::Compute(job) => KeyedOutcome::Compute(job),
            }
        }
        Run::Node(_) | Run::Container => unreachable!("dispatch makes no keyed step of them"),
    }
}

fn plan_write(keyed: &KeyedStep<'_>, code: command::OpCode, plan: PlanFn, load: &mut Load) -> Result<(), WireError> {
    let now = load.group.time().clock;
    load.chunk.push_op(code, keyed.key_slot, keyed.args.span(), |writer| plan(&keyed.args, now, writer))
}

fn ride_along(keyed: &KeyedStep<'_>, load: &mut Load) -> KeyedOutcome {
    load.chunk.push_read(keyed.row, OwnedArgs::copy(&keyed.args), keyed.key_slot, keyed.marking);
    load.items.push(keyed.index);
    KeyedOutcome::InChunk
}

/// § A read that finds a key past due by the clock does not answer "expired" by itself: the log deletes the key, and the read is
/// answered behind that.
fn ask_the_log(keyed: &KeyedStep<'_>, load: &mut Load) -> KeyedOutcome {
    let positions = command::key_positions(keyed.row, keyed.args.len());
    let keys = positions.filter_map(|position| keyed.args.get(position));
    load.chunk
        .push_silent(command::OpCode::EXPIRE_DUE, keyed.key_slot, |writer| command::plan_expire_due(keys, writer));
    ride_along(keyed, load)
}

fn read_locally(keyed: &KeyedStep<'_>, read: ReadFn, group: &Group, reply: &mut Reply) -> LocalRead {
    let (start, before) = (reply.len(), reply.total_len());
    // Taken for each read, not once a turn: a later read must not be answered at an earlier stamp than one before it.
    let time = Time { marking: keyed.marking, ..group.time() };
    let outcome = group.keyspace().read(keyed.key_slot, |bucket| match bucket.state() {
        // § Ownership is checked under the same lock as the values are read.
        SlotState::Owned => Some(read(&keyed.args, bucket, time, reply)),
        SlotState::Absent => None,
    });
    let local = match outcome {
        Some(ReadOutcome::Done) if reply.total_len() - before > REPLY_BYTES_MAX => {
            reply.truncate(start);
            WireError::ReplyTooLarge.reply(reply);
            return LocalRead::Answered;
        }
        Some(ReadOutcome::Done) => return LocalRead::Answered,
        Some(ReadOutcome::Due) => LocalRead::Due,
        Some(ReadOutcome::Compute(job)) => LocalRead::Compute(job),
        None => LocalRead::NotOwned,
    };
    reply.truncate(start);
    local
}
