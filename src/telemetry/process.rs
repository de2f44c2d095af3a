//! Memory, CPU time and open files of this process, read from /proc at each scrape. Without /proc these metrics are
//! absent.

use std::fmt::{Debug, Error};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Clock ticks per second in /proc (`USER_HZ`): 100 on all systems that Writ is built for.
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;

/// Metrics of this process, with the names that Prometheus' own libraries use.
#[derive(Debug, Default)]
pub(super) struct Process;

/// Values from /proc.
#[derive(Debug, Default, PartialEq)]
struct Read {
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    resident_bytes: Option<i64>,
    open_files: Option<i64>,
    max_files: Option<i64>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let read = Read::now();
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: Option<f64>| -> Result<(), Error> {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        #[expect(clippy::cast_precision_loss, reason = "exact up to 8 PiB")]
        let whole = |value: Option<i64>| value.map(|value| value as f64);
        let (seconds, bytes) = (Some(&Unit::Seconds), Some(&Unit::Bytes));
        gauge("process_start_time", "Start of this process, in Unix time.", seconds, read.start_seconds)?;
        gauge("process_resident_memory", "Resident memory.", bytes, whole(read.resident_bytes))?;
        gauge("process_open_fds", "Open files and sockets.", None, whole(read.open_files))?;
        gauge("process_max_fds", "Maximum open files and sockets.", None, whole(read.max_files))?;
        if let Some(cpu_seconds) = read.cpu_seconds {
            let counter = ConstCounter::new(cpu_seconds);
            let help = "User and system CPU time.";
            counter.encode(encoder.encode_descriptor("process_cpu", help, seconds, counter.metric_type())?)?;
        }
        Ok(())
    }
}

impl Read {
    fn now() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut read = Self::of(&text("/proc/self/stat"), &text("/proc/self/status"), &text("/proc/stat"));
        read.open_files = std::fs::read_dir("/proc/self/fd").ok().and_then(|files| i64::try_from(files.count()).ok());
        read.max_files = number_after(&text("/proc/self/limits"), "Max open files");
        read
    }

    fn of(stat: &str, status: &str, machine: &str) -> Self {
        // The name of the program is in parentheses and can contain spaces. The other fields follow after the last `)`.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok().map(|ticks| ticks / CLOCK_TICKS_PER_SECOND);
        #[expect(clippy::cast_precision_loss, reason = "exact for as long as there are computers")]
        let booted = number_after(machine, "btime").map(|booted| booted as f64);
        Self {
            // Index 0 is field 3 of proc(5). Fields: utime 14, stime 15, starttime 22.
            cpu_seconds: ticks(11).zip(ticks(12)).map(|(user, system)| user + system),
            start_seconds: ticks(19).zip(booted).map(|(since_boot, booted)| booted + since_boot),
            resident_bytes: resident_in(status),
            ..Self::default()
        }
    }
}

/// Returns the resident memory of this process, in bytes. Returns `None` without /proc.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    u64::try_from(resident_in(&status)?).ok()
}

/// Returns the resident memory in bytes, from the content of /proc/PID/status.
fn resident_in(status: &str) -> Option<i64> {
    number_after(status, "VmRSS:").map(|kibibytes| kibibytes * 1024)
}

/// Returns the number after `word`, from the first line that starts with `word`.
fn number_after(text: &str, word: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix(word))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 1000 1 1 1";
        let read = Read::of(stat, "Name:\twrit\nVmRSS:\t    2048 kB\n", "cpu 1 2\nbtime 1700000000\n");
        assert_eq!(read.cpu_seconds, Some(3.0));
        assert_eq!(read.start_seconds, Some(1_700_000_010.0));
        assert_eq!(read.resident_bytes, Some(2 * 1024 * 1024));
        assert_eq!(Read::of("", "", ""), Read::default());
    }
}
