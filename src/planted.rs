//! Bugs that the simulation plants to show that it would find them (`simulation/planted_bugs.rs`): guarantees left out one at a time, and
//! only in tests.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A follower's acknowledgement is made up by the leader.
    AcknowledgeBeforeQuorum,
    /// The log acknowledges what it has not synced.
    AcknowledgeBeforeSync,
    /// With `everysec` nothing is synced but full segments.
    EverySecondIsForgotten,
    /// The lease lasts as long as the election time-out, counted from the answer.
    LeaseWithoutMargin,
    /// Reads do not look at the lease's end.
    LeaseWithoutEnd,
    /// A read without a lease asks no quorum.
    ReadIndexWithoutQuorum,
    /// The old leader's lease is not revoked.
    LeaseKeptAcrossTransfer,
    RestartForgetsVote,
    /// A restarted voter votes at once, also while a leader that it has forgotten holds a lease.
    NoWaitAfterRestart,
    /// What is pending when leadership is lost is taken for what did not happen.
    LostLeadershipIsRefused,
    /// An entry that another leader truncates is taken for one that cannot come back (Raft's figure 8).
    TruncatedIsRefused,
    /// A restarted leader goes on in its term without an election, and what it proposes is not told from what it proposed before. After an
    /// election the leader's id alone tells it.
    PendingKeyWithoutNonce,
    /// After a restart the leadership that the vote tells of is taken for one that lasts.
    FormerLeadershipOpens,
    PositionWithoutOpNumber,
    /// A snapshot is published before the log is durable through its buckets' positions.
    SnapshotAheadOfLog,
    ExpiryByLocalClock,
    ReadOvertakesWrite,
    /// A node with an empty directory founds a cluster although its peers have one.
    WipedNodeFounds,
    /// A slot's new group serves it when it has its data.
    ServeBeforeCommitted,
    /// A source that cannot go on with a move takes its slot back without asking for the move's outcome.
    UnfreezeUnasked,
    /// Writes to a frozen slot go on.
    FreezeStopsNothing,
    /// A step of a move that ended here counts when it comes late.
    LateStepCounts,
    /// A replica that is to go is deleted before its group has a membership without it.
    DepartsWithVote,
    /// A node that is to leave is forgotten with all that it has.
    ForgottenWithReplicas,
}

/// Whether the guarantee is left out.
#[cfg(not(test))]
pub const fn is(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub use chosen::is;
#[cfg(all(test, tokio_unstable))]
pub use chosen::plant;

#[cfg(test)]
mod chosen {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// For this thread, from now on.
    #[cfg(tokio_unstable)]
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}
