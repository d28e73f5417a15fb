//! What the kernel says about this process: memory and CPU time, for INFO and MEMORY. Linux's /proc; zeros where it is silent.
//!
//! Reads a few hundred bytes that the kernel makes up on the spot; no disk is touched.

use std::fs;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct UsageFigures {
    /// Resident memory, the program's own pages included.
    pub resident_bytes: u64,
    /// Resident memory that was allocated.
    pub allocated_bytes: u64,
    /// The most that was ever resident.
    pub resident_bytes_max: u64,
    pub cpu_user_seconds: f64,
    pub cpu_system_seconds: f64,
    pub children_user_seconds: f64,
    pub children_system_seconds: f64,
    /// Of the machine.
    pub system_memory_bytes: u64,
}

impl UsageFigures {
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        Self::parse(&text("/proc/self/status"), &text("/proc/self/stat"), &text("/proc/meminfo"), ticks_per_second)
    }

    fn parse(status: &str, stat: &str, meminfo: &str, ticks_per_second: f64) -> Self {
        let [user, system, children_user, children_system] = cpu_seconds(stat, ticks_per_second);
        Self {
            resident_bytes: kilobytes(status, "VmRSS:"),
            allocated_bytes: kilobytes(status, "RssAnon:"),
            resident_bytes_max: kilobytes(status, "VmHWM:"),
            cpu_user_seconds: user,
            cpu_system_seconds: system,
            children_user_seconds: children_user,
            children_system_seconds: children_system,
            system_memory_bytes: kilobytes(meminfo, "MemTotal:"),
        }
    }
}

/// The value in bytes of a line like `VmRSS:    1234 kB`.
fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

/// User, system, and both of ended children.
fn cpu_seconds(stat: &str, ticks_per_second: f64) -> [f64; 4] {
    // The program's name stands in parentheses and may itself hold blanks and parentheses.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut ticks = after_name.split_whitespace().skip(11).map(|word| word.parse::<f64>().unwrap_or(0.0));
    std::array::from_fn(|_| ticks.next().unwrap_or(0.0) / ticks_per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read_by_name_and_by_place() {
        let status = "Name:\tkvorum\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nRssAnon:\t     512 kB\n";
        let stat = "7 (a) b)) S 1 1 1 0 -1 4194304 1 0 0 0 250 150 30 20 20 0 8";
        let figures = UsageFigures::parse(status, stat, "MemTotal:       16 kB\nMemFree: 1 kB\n", 100.0);
        let expected = UsageFigures {
            resident_bytes: 1 << 20,
            allocated_bytes: 512 << 10,
            resident_bytes_max: 2 << 20,
            cpu_user_seconds: 2.5,
            cpu_system_seconds: 1.5,
            children_user_seconds: 0.3,
            children_system_seconds: 0.2,
            system_memory_bytes: 16 << 10,
        };
        assert_eq!(figures, expected);
    }

    #[test]
    fn a_silent_kernel_gives_zeros() {
        assert_eq!(UsageFigures::parse("", "", "VmRSS", 100.0), UsageFigures::default());
    }

    #[test]
    fn this_process_uses_memory() {
        let figures = UsageFigures::read();
        assert!(figures.resident_bytes > 0 && figures.resident_bytes <= figures.resident_bytes_max);
        assert!(figures.allocated_bytes <= figures.resident_bytes);
    }
}
