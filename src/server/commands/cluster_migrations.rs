//! Valkey 9's CLUSTER MIGRATESLOTS and its kin, and Redis 8.4's CLUSTER MIGRATION: they start the same moves as CLUSTER SETSLOT, and return at once.
//!
//! Slots move in blocks of sixteen: those of a block that were not named come along, and a job for them finds them there, or under way.
//!
//! Sources: <https://valkey.io/commands/cluster-migrateslots/>, <https://redis.io/docs/latest/commands/cluster-migration/>.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Timestamp;
use crate::cluster::{GroupId, MoveId, NodeId, Topology};
use crate::command::{ClusterMigration, WireError, integer_argument};
use crate::protocol::{Args, Reply};
use crate::raft::Replication;
use crate::server::commands::CommandContext;
use crate::server::commands::cluster_slots::{BY_OPERATOR, key_slot, ranges};
use crate::server::migrations::{KeySlotRange, Migration, MigrationState};
use crate::server::shared::Shared;
use crate::slot::{KeySlot, Slot};

/// What one job is to move, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    ranges: Vec<KeySlotRange>,
    target: NodeId,
}

pub async fn run(
    command: ClusterMigration,
    args: &Args<'_>,
    context: &mut CommandContext<'_>,
) -> Result<(), WireError> {
    let (shared, reply) = (context.shared, &mut *context.reply);
    let replication = &shared.replication;
    match command {
        ClusterMigration::Migrateslots => {
            let topology = replication.newest_topology();
            let wanted = parse(args, &topology, replication.node())?;
            let jobs = wanted.into_iter().map(|wanted| export_job(wanted, &topology, shared));
            match start(jobs.collect::<Result<_, _>>()?, shared).await {
                Ok(()) => reply.ok(),
                Err(reason) => refuse(&reason, reply),
            }
        }
        ClusterMigration::Getslotmigrations => {
            let jobs = look(shared);
            reply.array(jobs.len());
            jobs.iter().for_each(|job| as_valkey(job, replication.node(), reply));
        }
        ClusterMigration::Cancelslotmigrations => match cancel(|_| true, shared).await {
            Ok(0) => return Err(WireError::NoMigrations),
            Ok(_) => reply.ok(),
            Err(reason) => refuse(&reason, reply),
        },
        ClusterMigration::Migration => return migration(args, context).await,
    }
    Ok(())
}

async fn migration(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let (shared, reply) = (context.shared, &mut *context.reply);
    let task = match (args.len(), args[3].to_ascii_lowercase().as_slice()) {
        (5, b"id") => Some(Some(String::from_utf8_lossy(&args[4]).into_owned())),
        (4, b"all") => Some(None),
        _ => None,
    };
    let is_asked = |job: &Migration| matches!(&task, Some(id) if id.as_ref().is_none_or(|id| *id == job.id));
    match (args[2].to_ascii_lowercase().as_slice(), &task) {
        (b"import", _) => {
            let ranges = ranges(args, 3, "cluster|migration")?;
            let job = import_job(ranges, &shared.replication.newest_topology(), shared)?;
            let id = job.id.clone();
            match start(vec![job], shared).await {
                Ok(()) => reply.bulk(id.as_bytes()),
                Err(reason) => refuse(&reason, reply),
            }
        }
        (b"status", Some(_)) => {
            let jobs: Vec<Migration> = look(shared).into_iter().filter(is_asked).collect();
            reply.array(jobs.len());
            jobs.iter().for_each(|job| as_redis(job, shared.replication.node(), reply));
        }
        (b"cancel", Some(_)) => match cancel(is_asked, shared).await {
            Ok(count) => reply.integer(i64::try_from(count).unwrap_or(i64::MAX)),
            Err(reason) => refuse(&reason, reply),
        },
        _ => return Err(WireError::UnknownArgument),
    }
    Ok(())
}

fn refuse(reason: &str, reply: &mut Reply) {
    reply.error(&format!("ERR {}", reason.replace(['\r', '\n'], " ")));
}

/// `SLOTSRANGE start end [start end ...] NODE id`, once or more.
fn parse(args: &Args<'_>, topology: &Topology, own: NodeId) -> Result<Vec<Wanted>, WireError> {
    let mut wanted = Vec::new();
    let mut at = 2;
    while at < args.len() {
        let mut ranges: Vec<KeySlotRange> = Vec::new();
        if !args[at].eq_ignore_ascii_case(b"slotsrange") {
            return Err(WireError::Syntax);
        }
        at += 1;
        while args.get(at).is_some_and(|word| integer_argument(word).is_ok()) {
            let range = (key_slot(&args[at])?, key_slot(args.get(at + 1).ok_or(WireError::Syntax)?)?);
            ranges.push(checked(range, &ranges)?);
            at += 2;
        }
        if ranges.is_empty() {
            return Err(WireError::NoSlotRanges);
        }
        let (Some(word), Some(id)) = (args.get(at), args.get(at + 1)) else { return Err(WireError::Syntax) };
        if !word.eq_ignore_ascii_case(b"node") {
            return Err(WireError::Syntax);
        }
        at += 2;
        wanted.push(Wanted { ranges, target: target(id, topology, own)? });
    }
    Ok(wanted)
}

fn checked(range: KeySlotRange, before: &[KeySlotRange]) -> Result<KeySlotRange, WireError> {
    if range.0 > range.1 {
        return Err(WireError::SlotRangeReversed(range.0, range.1));
    }
    match before.iter().find(|other| range.0 <= other.1 && other.0 <= range.1) {
        Some(other) => Err(WireError::SlotRangesOverlap { range, before: *other }),
        None => Ok(range),
    }
}

fn target(id: &[u8], topology: &Topology, own: NodeId) -> Result<NodeId, WireError> {
    let node = NodeId::parse(id).ok_or_else(|| WireError::InvalidNodeName(WireError::echo(id)))?;
    match topology.node(node) {
        None => Err(WireError::UnknownNodeName(node)),
        Some(_) if node == own => Err(WireError::TargetIsMyself),
        Some(_) => Ok(node),
    }
}

fn slots_in(ranges: &[KeySlotRange]) -> BTreeSet<Slot> {
    ranges.iter().flat_map(|(first, last)| first.up_to(*last)).map(KeySlot::slot).collect()
}

fn job(wanted: Wanted, source: NodeId, topology: &Topology, shared: &Shared) -> Result<Migration, WireError> {
    let Wanted { ranges, target } = wanted;
    let slots = topology.receivers(slots_in(&ranges), target, &shared.replication.hints());
    let slots = slots.ok_or(WireError::LeadsNothing(target))?;
    let now = Timestamp::wall_now();
    let job = Migration {
        id: NodeId::random().to_string(),
        ranges,
        left: 0,
        slots,
        moves: BTreeSet::new(),
        source,
        target,
        created: now,
        updated: now,
        state: MigrationState::Active,
    };
    Ok(Migration { left: job.slot_count(), ..job })
}

/// This node has the slots, or has had them: the target may have them by now.
fn export_job(wanted: Wanted, topology: &Topology, shared: &Shared) -> Result<Migration, WireError> {
    let active = look(shared).into_iter().filter(|job| job.state == MigrationState::Active);
    let covered: Vec<Migration> = active.collect();
    let all = || wanted.ranges.iter().flat_map(|(first, last)| first.up_to(*last));
    if let Some(moving) = all().find(|key_slot| covered.iter().any(|job| job.covers(*key_slot))) {
        return Err(WireError::AlreadyMigrating(moving));
    }
    let hints = shared.replication.hints();
    let leader = |group: GroupId| hints.leader(group).map(|leader| leader.node);
    let own = shared.replication.node();
    let is_served = |slot: &Slot| {
        leader(topology.group_of(*slot)) == Some(own) || leader(topology.destination_of(*slot)) == Some(wanted.target)
    };
    if !slots_in(&wanted.ranges).iter().all(is_served) {
        return Err(WireError::SlotsNotServed);
    }
    job(wanted, own, topology, shared)
}

/// This node is to have the slots.
fn import_job(ranges: Vec<KeySlotRange>, topology: &Topology, shared: &Shared) -> Result<Migration, WireError> {
    let (hints, own) = (shared.replication.hints(), shared.replication.node());
    let leader = |slot: Slot| hints.leader(topology.group_of(slot)).map(|leader| leader.node);
    let owners: BTreeSet<NodeId> =
        slots_in(&ranges).into_iter().filter_map(leader).filter(|node| *node != own).collect();
    if owners.len() > 1 {
        return Err(WireError::SeveralSources);
    }
    // All of them came with others of their blocks.
    let source = owners.first().copied().unwrap_or(own);
    job(Wanted { ranges, target: own }, source, topology, shared)
}

/// All of the jobs, or none.
async fn start(mut jobs: Vec<Migration>, shared: &Shared) -> Result<(), String> {
    let mut seen = BTreeMap::<Slot, NodeId>::new();
    for (slot, target) in jobs.iter().flat_map(|job| job.slots.values().flatten().map(|slot| (*slot, job.target))) {
        if seen.insert(slot, target).is_some_and(|other| other != target) {
            let (first, last) = slot.key_slot_bounds();
            return Err(format!("Slot ranges in migrations overlap: slots {first}-{last} move together"));
        }
    }
    let replication = &shared.replication;
    for at in 0..jobs.len() {
        if let Err(reason) = begin(&mut jobs[at], replication).await {
            give_up(&jobs, replication).await;
            return Err(reason);
        }
    }
    let topology = replication.newest_topology();
    jobs.into_iter().for_each(|job| shared.migrations.note(job, &topology, Timestamp::wall_now()));
    Ok(())
}

/// What others have begun already goes on without the job.
async fn begin(job: &mut Migration, replication: &Replication) -> Result<(), String> {
    for (to, slots) in &job.slots {
        let topology = replication.newest_topology();
        let open: BTreeSet<Slot> = slots.iter().copied().filter(|slot| topology.destination_of(*slot) != *to).collect();
        if !open.is_empty() {
            let count = open.len() as u64;
            let MoveId(first) = replication.start_moves(*to, open, BY_OPERATOR).await?;
            job.moves.extend((first..first + count).map(MoveId));
        }
    }
    Ok(())
}

async fn give_up(jobs: &[Migration], replication: &Replication) {
    if let Err(error) = replication.cancel_moves(|moved| jobs.iter().any(|job| job.has_begun(moved))).await {
        tracing::warn!(%error, "moves that were started with others that could not be go on");
    }
}

fn look(shared: &Shared) -> Vec<Migration> {
    shared.migrations.look(&shared.replication.newest_topology(), Timestamp::wall_now())
}

/// How many jobs were under way.
async fn cancel(is_asked: impl Fn(&Migration) -> bool, shared: &Shared) -> Result<usize, String> {
    let active = look(shared).into_iter().filter(|job| job.state == MigrationState::Active && is_asked(job));
    let active: Vec<Migration> = active.collect();
    shared.replication.cancel_moves(|moved| active.iter().any(|job| job.has_begun(moved))).await?;
    let ids = active.iter().map(|job| job.id.clone()).collect();
    shared.migrations.note_cancelled(&ids, &shared.replication.newest_topology(), Timestamp::wall_now());
    Ok(active.len())
}

fn text_of(ranges: &[KeySlotRange]) -> String {
    ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(" ")
}

/// What there is to say beside the state.
fn remark(job: &Migration) -> String {
    match job.state {
        MigrationState::Active => format!("{} of {} blocks have moved", job.slot_count() - job.left, job.slot_count()),
        MigrationState::Failed => format!("{} blocks are in other groups, see kvorum cluster events", job.left),
        MigrationState::Done | MigrationState::Cancelled => String::new(),
    }
}

fn as_valkey(job: &Migration, own: NodeId, reply: &mut Reply) {
    let state = match job.state {
        MigrationState::Active => "migrating",
        MigrationState::Done => "success",
        MigrationState::Cancelled => "cancelled",
        MigrationState::Failed => "failed",
    };
    let heard = if job.state == MigrationState::Active { Timestamp::wall_now() } else { job.updated };
    reply.map(11);
    for (name, text) in [
        ("name", job.id.clone()),
        ("operation", if job.target == own { "IMPORT" } else { "EXPORT" }.to_owned()),
        ("slot_ranges", text_of(&job.ranges)),
        ("target_node", job.target.to_string()),
        ("source_node", job.source.to_string()),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    for (name, at) in [("create_time", job.created), ("last_update_time", job.updated), ("last_ack_time", heard)] {
        reply.bulk(name.as_bytes());
        reply.integer(at.as_ms() / 1000);
    }
    for (name, text) in [("state", state.to_owned()), ("message", remark(job))] {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    reply.bulk(b"cow_size");
    reply.integer(0);
}

fn as_redis(job: &Migration, own: NodeId, reply: &mut Reply) {
    let state = match job.state {
        MigrationState::Active => "in_progress",
        MigrationState::Done => "completed",
        MigrationState::Cancelled => "canceled",
        MigrationState::Failed => "failed",
    };
    let error = if job.state == MigrationState::Failed { remark(job) } else { String::new() };
    let end = if job.state == MigrationState::Active { 0 } else { job.updated.as_ms() };
    reply.map(12);
    for (name, text) in [
        ("id", job.id.clone()),
        ("slots", text_of(&job.ranges)),
        ("source", job.source.to_string()),
        ("dest", job.target.to_string()),
        ("operation", if job.target == own { "import" } else { "migrate" }.to_owned()),
        ("state", state.to_owned()),
        ("last_error", error),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    let created = job.created.as_ms();
    for (name, number) in
        [("retries", 0), ("create_time", created), ("start_time", created), ("end_time", end), ("write_pause_ms", 0)]
    {
        reply.bulk(name.as_bytes());
        reply.integer(number);
    }
}
