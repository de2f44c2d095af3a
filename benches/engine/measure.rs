//! Rows of the result table, and values read from a process.

use std::fmt;
use std::time::Duration;

/// One line of the result table.
pub struct Row {
    what: String,
    measured: String,
    against: String,
    value: f64,
    target: Target,
}

/// Condition for the ratio of a row.
#[derive(Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// No condition. The row only explains other rows.
    None,
}

impl Row {
    pub const HEAD: &str = "| what | measured | held against | ratio | target | met |\n|---|---:|---:|---:|---:|---|";

    /// Returns a row with the ratio of two measurements.
    pub fn ratio(what: &str, measured: String, against: String, ratio: f64, target: Target) -> Self {
        Self { what: what.to_owned(), measured, against, value: ratio, target }
    }

    /// Returns a row that compares a measurement with a fixed bound. Its ratio is the measurement divided by the bound.
    pub fn bound(what: &str, measured: f64, unit: &str, bound: f64) -> Self {
        let (shown, against) = (format!("{measured:.1} {unit}"), format!("{bound} {unit}"));
        Self { what: what.to_owned(), measured: shown, against, value: measured / bound, target: Target::AtMost(1.0) }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, met) = match self.target {
            Target::AtMost(most) => (format!("<= {most}"), if self.value <= most { "yes" } else { "**no**" }),
            Target::AtLeast(least) => (format!(">= {least}"), if self.value >= least { "yes" } else { "**no**" }),
            Target::None => (String::new(), ""),
        };
        let Self { what, measured, against, value, .. } = self;
        write!(formatter, "| {what} | {measured} | {against} | {value:.3} | {target} | {met} |")
    }
}

/// Returns a percentile of the times. `of_thousand` is in thousandths: 990 is the 99th percentile.
pub fn percentile(times: &[Duration], of_thousand: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() - 1) * of_thousand / 1000]
}

/// Returns the median, in seconds.
pub fn p50(times: &[Duration]) -> f64 {
    percentile(times, 500).as_secs_f64()
}

/// Returns the median and the 99th percentile as text, in milliseconds.
pub fn shown(times: &[Duration]) -> String {
    let ms = |of_thousand| percentile(times, of_thousand).as_secs_f64() * 1e3;
    format!("{:.2} (p99 {:.1}) ms", ms(500), ms(990))
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Returns the memory of a process, in MiB. `VmRSS` selects the present memory, and `VmHWM` the maximum so far.
pub fn memory(pid: u32, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line = status.lines().find(|line| line.starts_with(what)).expect("its memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number") / 1024.0
}

/// Resets the maximum `VmHWM` to the present value (proc(5), clear_refs).
pub fn forget_most_memory(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("a process of our own");
}

/// Returns the CPU time of a process so far: utime and stime of proc(5), in ticks of 10 ms.
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process that runs");
    let (_, fields) = stat.rsplit_once(") ").expect("fields behind the name");
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
