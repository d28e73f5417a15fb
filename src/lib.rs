//! Kvorum: a Redis-protocol cache and store that never loses a write it acknowledged. This page is the map.
//!
//! # Words
//!
//! *key slot*: what clients compute, CRC-16 of the hash tag or key, mod 16384. *slot*: one of the 1024 hash slots, the unit of ownership.
//! *group*: a Raft group that owns a range of slots. *replica*: one node's member of a group, with an id never reused. *node*: a process.
//! *topology*: the replicated map slot -> group -> replicas with its *epoch*. *meta group*: the Raft group that holds it. *command*: what a
//! client sends. *op*: what enters the log. *move*: transferring a slot between groups (`raft/slots.rs`). *entry*: one Raft log entry, a batch of ops. *position*: (log index, op number in the
//! entry). *chunk*: a run of one connection's commands for one group, with one completion. *turn*: what one read of a connection
//! completed. *keyspace*: one group's data. *bucket*: one key slot's data.
//!
//! # Layers
//!
//! An item imports only from lower layers; `tests/tidy.rs` holds the code to it.
//!
//! | layer | folder | what |
//! |---|---|---|
//! | 0 | `slot` `clock` `random` `planted` `config` `metrics` `workers` | vocabulary and knobs |
//! | 1 | `protocol` `keyspace` `cluster` | bytes <-> argv and replies · data in buckets · topology and routing |
//! | 2 | `command` | the table: row, plan, apply, read; op codec; wire error texts |
//! | 3 | `raft` | groups, proposer, log, transport, snapshots, meta group (openraft appears here alone) |
//! | 4 | `rebalance` | where groups, replicas, leaders and slots should be, and bringing them there |
//! | 5 | `admin` | HTTP, operator commands and CLI |
//! | 6 | `server` | listener, connections, turns, the commands a node answers itself |
//! | 7 | `node` `main` | wiring, start and stop in order |
//! | 8 | `simulation` `fuzzing` | tests only: whole nodes on a simulated network, disk and clock · what `tests/fuzz` calls |
//!
//! # Life of a SET
//!
//! 1. `server/connection.rs` reads what has arrived; `protocol/request.rs` (`RequestReader::decode`) finds the complete requests.
//! 2. `server/turn.rs` walks them; `server/dispatch.rs` finds the row (`command/table.rs`) and the route (`raft/replication.rs`, `Replication::route`):
//!    here, MOVED, wait, or down.
//! 3. `server/stretch.rs` calls the row's `plan` (`command/set.rs`), which writes an op into the group's chunk (`raft/chunk.rs`).
//! 4. `server/settle.rs` submits the chunk: `Group::submit` (`raft/group.rs`) queues it for the proposer, within bounds (`raft/submissions.rs`).
//! 5. `raft/proposer.rs` packs what waits into one entry (`raft/batch.rs`), notes it in `raft/pending.rs` and proposes it.
//! 6. openraft appends it: `raft/log/store.rs` to memory, `raft/log/writer.rs` to disk, with one fdatasync for all groups; `raft/transport/` carries
//!    the same bytes to the followers, which do the same.
//! 7. On a quorum, `raft/machine.rs` applies it on every replica: `op::apply` calls the row's `apply` under the bucket's lock
//!    (`keyspace/store.rs`), which sets the bucket's position. On the proposing node the reply is written and the chunk completed.
//! 8. `server/places.rs` puts the turn's replies in order, `server/output.rs` writes them.
//!
//! A GET ends at 3: it runs on the connection's own task under the group's lease (`raft/lease.rs`), which is checked before and after.
//!
//! # Tasks that live long
//!
//! | task | owner | hears | tells |
//! |---|---|---|---|
//! | node main (`node.rs`) | process | signals, SHUTDOWN, failures | everybody, to stop |
//! | workers (`workers.rs`) | node | their runtimes' tasks | |
//! | log writer (`raft/log/writer.rs`, a thread) | `NodeLog` | `Queue` | openraft's `IOFlushed`, barriers |
//! | log sync (`raft/log/background_sync.rs`, a thread, everysec only) | `Segments` | files to sync | log writer |
//! | removal of large files (`raft/log/removal.rs`, a thread) | process | files without a name | |
//! | coordinator (`raft/replication/coordinator.rs`) | node | leader sightings, peers' hints, connections, topologies, started replicas | route table, hints, replicas |
//! | per group: proposer, leadership, upkeep, failure watch (`raft/replica.rs`) | `Replica` | chunks; openraft's metrics and transfers; a timer | openraft; lease, intake, sightings; snapshots, due keys |
//! | openraft's own, per group | `openraft::Raft` | | |
//! | transport: accept, dial, one per connection, appends (`raft/transport/tasks.rs`) | `Transport` | frames | replicas, `PeerInbox` |
//! | questions of peers (`raft/peers.rs`) | node | `PeerInbox` | groups, meta group |
//! | address announcer (`raft/addresses.rs`) | node | topologies | meta group |
//! | search for peers that have moved (`raft/addresses.rs`) | node | a timer, nodes' client ports | transport |
//! | membership driver (`rebalance/driver.rs`) | node | a timer | groups it leads |
//! | scheduler (`rebalance/scheduler.rs`), acts where the meta group is led | node | a timer, groups' leaders | meta group |
//! | membership watch (`raft/members.rs`) | node | a timer, peers' client ports | node main |
//! | driver of moves, one task per group at work (`rebalance/moves.rs`) | node | topologies, a timer | groups it leads, peers, meta group |
//! | pushes of slots that move (`server/notifications.rs`) | node | topologies | connections that asked for them |
//! | accept loops and connections (`server/listener.rs`) | `Listener` | sockets | groups |
//! | health, metrics, log level (`node.rs`), free space (`raft/space.rs`), HTTP (`admin/http.rs`) | node | timers, sockets | leadership tasks, driver |
//!
//! # Departures from the design
//!
//! * One turn at a time per connection: nothing further is parsed while a turn is unanswered, so order needs no bookkeeping.
//! * Replies are written by `protocol/reply.rs`; redis-protocol is the oracle of its tests and decodes what nodes answer each other. Measured there:
//!   12 ns against 42 ns for a bulk string of 64 bytes.
//! * A group's leader brings its own membership to what the topology wants (`rebalance/driver.rs`), instead of the meta leader asking it to: one
//!   orchestrator per group all the same, and no message that could be lost.
//! * A removed or moved replica stays, as `departing`, until its group's leader has committed a membership without it (`cluster/changes.rs`): until then its
//!   vote still counts.
//! * A replica that moves to a node which is lost meanwhile, or is to leave, may stay where it was (`MetaOp::Keep`, `rebalance/placement.rs`): with no other
//!   node free the group would wait for one that never comes.
//! * How long a node has been away is counted, not dated (`rebalance/absence.rs`): no clock of another node shortens the wait.
//! * A slot that moves is sent as deltas between exports (`keyspace/delta.rs`), not as data and then a stream of ops: no write is in two logs, and a pass
//!   that fails is made again. `raft/slots.rs` says why it is as safe. Adopt names the count and checksum of the pages, not of the keys: the latter cannot
//!   be checked at apply, since replay meets buckets that a snapshot has at a later position. The source's leader compares the keys before it commits.
//! * Slots weigh by number, bytes and sampled requests in equal parts (`rebalance/slots.rs`), and move for evenness only when it has been wanting for a minute, or at
//!   once for a new group: requests come in waves.
//! * The feature level selects nothing yet, as there is one (`raft/batch.rs`); nor is there a second protocol version (`raft/transport/handshake.rs`). No upgrade between two releases was tried: there is none yet, and
//!   peers speak version 4 alone. `tests/clients/run --previous BINARY` tries one.
//! * Sub-tables are vectors sorted by hash, not hash tables (`keyspace/table.rs`): SCAN and splits need the order.
//! * Forming nodes pull: the founding plan travels in the answers to probes on the client port (`raft/formation.rs`).
//! * The lease counts acknowledgements where requests are sent (`raft/acks.rs`), since openraft's own count can be later than a follower's last contact; so does a
//!   read by ReadIndex.
//! * Half of the leader's own election timeout is a lease only if followers have about the same: the handshake compares them, and a restarted node keeps to the
//!   longest that it was run with (`raft/promise.rs`).
//! * The proposer has a timer after all: a small entry waits for the one in flight, and up to 1 ms for the clients that one answered
//!   (`raft/cohort.rs`): 33 instead of 44 us per SET at P=1, and 5.2 instead of 6.1 at P=16.
//! * An append that carries only a commit index waits up to 5 ms for entries to travel with (`raft/transport/pace.rs`): 3 us less per SET at P=1.
//! * Entries go at once to as many followers as make a quorum with the leader, the *front* (`raft/acks.rs`), and to the others some 6 ms later, several together
//!   (`raft/transport/pace.rs`): 40.5 instead of 49 us per SET at P=1, 23.3 instead of 19.6 k/s (its first version, without LTO). When the front stops
//!   acknowledging, two entries more are held back.
//! * Segments of the log are prepared with zeros a mebibyte ahead, so that a small batch's fdatasync needs no journal commit.
//! * The log is written past the kernel's cache (`raft/log/direct.rs`): SETs at P=16 take a tenth less of the processor, those of 100 KB a fifth, those at P=1
//!   the same.
//! * A file that is not needed any more loses its name at once and its space in steps (`raft/log/removal.rs`): where the disk is told of free blocks, the
//!   removal of a segment held up every sync for 32 ms.
//! * Of a group's log only the newest 8 MiB are in memory, or the newest 16 entries if those are large, beside what is tiny; older entries are read back from its
//!   files (`raft/log/place.rs`). A node's memory no longer grows by the log (950 to 155 MB after 8 M SETs), and reused memory is faster than new: 4.1 instead of 5.2 us
//!   per SET at P=16.
//! * A snapshot is written at a quarter of a core and synced every 256 KiB (`raft/snapshot.rs`, `raft/snapshot_io.rs`): with steps of 1 MiB SETs beside it at P=1 had a p99.9 2 ms
//!   above that without snapshots, before it 7 ms (each pair measured in one run, the two runs apart). At P=16 it was 26 ms against 30 without
//!   in seven rounds on a quiet host, 98 against 85 on a starved one. A node writes
//!   one at a time (`raft/snapshot_turns.rs`).
//! * A full disk does not stop the node: the log holds space in reserve (`raft/log/segments.rs`), leaderships go to nodes that have space, and without a
//!   majority that has, writes are refused and reads go on (`raft/space.rs`).

pub mod admin;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod config;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod keyspace;
pub mod metrics;
pub mod node;
mod planted;
pub mod protocol;
pub mod raft;
pub mod random;
pub mod rebalance;
pub mod server;
#[cfg(test)]
mod simulation;
pub mod slot;
pub mod workers;
