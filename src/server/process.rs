//! What the operating system says of this process: memory and CPU, for INFO and metrics.

use std::fs;

/// Resident set size in bytes; 0 where the kernel does not say.
pub fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split(' ').nth(1)?.parse().ok());
    pages.unwrap_or(0u64) * rustix::param::page_size() as u64
}

/// Memory of the machine in bytes; 0 where the kernel does not say.
pub fn machine_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0u64) * 1024
}

/// (user, system) seconds of CPU since the start.
pub fn cpu_seconds() -> (f64, f64) {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let mut ticks = after_name.split_whitespace().skip(11).map(|field| field.parse::<f64>().unwrap_or(0.0));
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    (ticks.next().unwrap_or(0.0) / per_second, ticks.next().unwrap_or(0.0) / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_cpu() {
        assert!(resident_bytes() > 1 << 20 && machine_bytes() > resident_bytes());
        let started = std::time::Instant::now();
        while started.elapsed().as_millis() < 60 {}
        let (user, system) = cpu_seconds();
        assert!(user + system > 0.0);
    }
}
