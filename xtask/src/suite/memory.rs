//! Resident memory of the service over a run.

use std::time::Duration;

use tokio::time::Instant;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(5);
/// A sample stands for the time around it.
const AROUND: Duration = Duration::from_secs(45);

struct Sample {
    at: Duration,
    pid: u32,
    bytes: u64,
}

/// Samples of a run.
pub struct Memory {
    begun: Instant,
    last: Option<Instant>,
    samples: Vec<Sample>,
}

impl Memory {
    /// Starts to count time.
    pub fn new(begun: Instant) -> Self {
        Self { begun, last: None, samples: Vec::new() }
    }

    /// Takes a sample when one is due.
    pub fn look(&mut self, pid: u32) {
        if self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        if let Some(bytes) = resident(pid) {
            self.samples.push(Sample { at: self.begun.elapsed(), pid, bytes });
        }
    }

    /// The greatest of all samples, bytes.
    pub fn greatest(&self) -> u64 {
        self.samples.iter().map(|sample| sample.bytes).max().unwrap_or(0)
    }

    /// The median around a time, and the process, when one process was there all the while.
    pub fn around(&self, at: Duration) -> Option<(u32, u64)> {
        let near: Vec<&Sample> =
            self.samples.iter().filter(|sample| sample.at.abs_diff(at) <= AROUND).collect();
        let pid = near.last()?.pid;
        let mut bytes: Vec<u64> =
            near.iter().filter(|sample| sample.pid == pid).map(|sample| sample.bytes).collect();
        bytes.sort_unstable();
        Some((pid, bytes[bytes.len() / 2]))
    }
}

/// `VmRSS` of a process (proc(5)), bytes.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_size() {
        assert!(resident(std::process::id()) > Some(1 << 20));
    }

    #[test]
    fn the_median_around_a_time_is_of_the_newest_process() {
        let mut memory = Memory::new(Instant::now());
        for (second, pid, bytes) in [(560, 1, 50), (590, 2, 7), (600, 2, 9), (610, 2, 8), (900, 2, 100)] {
            memory.samples.push(Sample { at: Duration::from_secs(second), pid, bytes });
        }
        assert_eq!(memory.around(Duration::from_secs(600)), Some((2, 8)));
        assert_eq!(memory.around(Duration::from_secs(100)), None);
        assert_eq!(memory.greatest(), 100);
    }
}
