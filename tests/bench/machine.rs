//! What the machine and its processes say of themselves.

use anyhow::Context as _;
use serde_json::{Value, json};

/// Of `/proc`; the same on every machine that we support.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where a benchmark ran, for its report.
pub(crate) fn describe() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo").lines().find_map(|line| {
        line.strip_prefix("model name")?.split_once(':').map(|(_, m)| m.trim().to_owned())
    });
    json!({
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "processor": model,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

/// The resident memory of a process in KiB.
pub(crate) fn resident_kib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse()?)
}

/// How many files a process has open.
pub(crate) fn files(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Seconds of processor time that a process has used.
pub(crate) fn processor_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before may hold anything; user and system time are the 12th and
    // 13th words after it.
    let after = stat.rsplit_once(')').context("no name in stat")?.1;
    let ticks = |word: usize| -> anyhow::Result<f64> {
        Ok(after.split_whitespace().nth(word).context("stat is short")?.parse()?)
    };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_files_and_time() {
        let own = std::process::id();
        assert!(resident_kib(own).unwrap() > 100.0);
        assert!(files(own).unwrap() >= 3);
        let before = processor_seconds(own).unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(100) {}
        assert!(processor_seconds(own).unwrap() > before);
    }
}
