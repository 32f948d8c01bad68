//! What the kernel says of a process: its CPU time and its memory. Linux only, as `/proc` is.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Clock ticks a second in `/proc`: 100 on every Linux, whatever the kernel's own clock.
const TICKS: u32 = 100;

/// User and system time of all its threads, those that have ended included.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The second field is the program's name in brackets and may hold spaces.
    let (_, fields) = stat.rsplit_once(')').context("an odd /proc/PID/stat")?;
    // What is left begins with the third field, counted from 1 as in proc(5); 14 and 15 it is.
    let ticks = |field: usize| -> Result<u64> {
        let text = fields.split_ascii_whitespace().nth(field - 3);
        Ok(text.context("a short /proc/PID/stat")?.parse()?)
    };
    Ok(Duration::from_secs(ticks(14)? + ticks(15)?) / TICKS)
}

/// `VmRSS` or `VmHWM`, in MB of 10^6 bytes.
pub fn memory_mb(pid: u32, field: &str) -> Result<f64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .with_context(|| format!("no {field} in /proc/PID/status"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}
