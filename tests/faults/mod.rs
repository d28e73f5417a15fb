//! Real nodes, real sockets, real faults: what the clients were told is checked for linearizability, key by key.

mod aftermath;
mod clients;
mod failover;
mod history;
mod linearizable;
mod linearizable_tests;
mod members;
mod moves;
mod net;
mod nodes;
mod protected;
mod random;
mod report;
mod run;
mod schedule;
