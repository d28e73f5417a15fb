//! Real nodes, real sockets, real faults: what the clients were told is checked for linearizability, key by key.

mod clients;
mod failover;
mod history;
mod linearizable;
mod linearizable_tests;
mod net;
mod nodes;
mod random;
mod report;
mod run;
mod schedule;
