//! A log without threads, on a disk in memory, for the simulation.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::Disk;
use super::error::LogError;
use super::memory_disk::{Fault, MemoryDisk};
use super::node_log::{LogOptions, NodeLog, Recovered};
use super::writer::Writer;
use crate::random::simulated::Chance;

/// The disk of one machine, over the lives of its processes.
#[derive(Default)]
pub struct SimulatedLog {
    disk: MemoryDisk,
    /// Times the machine was started.
    boots: u64,
}

pub struct SimulatedWriter(Writer);

impl SimulatedLog {
    /// As this life of the machine's processes sees it.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    pub fn open(&self, options: LogOptions) -> Result<(NodeLog, Recovered, SimulatedWriter), LogError> {
        let boot_id = self.boots.to_le_bytes().to_vec();
        let (log, recovered, writer) = NodeLog::recover(self.disk(), Path::new("/log"), options, boot_id, None)?;
        Ok((log, recovered, SimulatedWriter(writer)))
    }

    /// One of the next operations fails.
    pub fn fail_soon(&self, chance: &mut Chance) {
        let operation = self.disk.operations() + 1 + chance.below(40);
        self.disk.fail_at(operation, Fault::Error(io::ErrorKind::Other));
    }

    /// Little more is to be had, and one of the next operations finds nothing at all, as do some after it, whatever was reserved.
    pub fn fill(&self, chance: &mut Chance) {
        self.disk.limit_free(Some(chance.below(64 << 10) as usize));
        let operation = self.disk.operations() + 1 + chance.below(40);
        self.disk.fail_at(operation, Fault::Full(1 + chance.below(4)));
    }

    pub fn empty(&self) {
        self.disk.limit_free(None);
    }

    /// The process is gone, what it wrote is there.
    pub fn kill(&mut self) {
        self.disk = self.disk.after_kill();
    }

    /// Any part of what was not synced may be there.
    pub fn lose_power(&mut self, chance: &mut Chance) {
        self.disk = self.disk.after_power_loss(chance);
        self.boots += 1;
    }
}

impl SimulatedWriter {
    /// One batch. False once the log has ended.
    pub fn step(&mut self) -> bool {
        self.0.step()
    }
}
