//! What the laboratory tells the person in front of it: one line for each step, and the time it took.
//!
//! All of it goes to standard error, so that standard output holds only what a program may want to read
//! (`lab tools` prints paths there).

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How long a run without a terminal stays silent between two progress lines, so that a log stays short.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
/// How often the progress line on a terminal is drawn again.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);

/// A step under way: announced when made, its time printed by [`Step::done`].
#[derive(Debug)]
#[must_use = "say `.done()` when the step is over"]
pub struct Step {
    started: Instant,
    drawn: Instant,
    terminal: bool,
    line_open: bool,
}

/// Announces a step: `==> starting etcd ...`.
pub fn step(what: impl Display) -> Step {
    eprintln!("==> {what} ...");
    let now = Instant::now();
    Step { started: now, drawn: now, terminal: std::io::stderr().is_terminal(), line_open: false }
}

/// Says something that takes no time, indented below the step it belongs to.
pub fn note(what: impl Display) {
    eprintln!("    {what}");
}

impl Step {
    /// Shows how far a long step is. On a terminal one line is rewritten; elsewhere a line comes every 10 s.
    pub fn progress(&mut self, how_far: impl Display) {
        let interval = if self.terminal { TERMINAL_INTERVAL } else { PLAIN_INTERVAL };
        if self.drawn.elapsed() < interval {
            return;
        }
        self.drawn = Instant::now();
        let seconds = self.started.elapsed().as_secs();
        if self.terminal {
            // \x1b[K clears what a longer line before left behind.
            eprint!("\r    {how_far}, {seconds} s\x1b[K");
            // A progress line that cannot be shown is no reason to stop.
            let _ = std::io::stderr().flush();
            self.line_open = true;
        } else {
            eprintln!("    {how_far}, {seconds} s");
        }
    }

    /// Ends the step and prints the time it took, which it also returns.
    pub fn done(mut self) -> Duration {
        self.close_line();
        let took = self.started.elapsed();
        eprintln!("    done in {:.1} s", took.as_secs_f64());
        took
    }

    fn close_line(&mut self) {
        if std::mem::take(&mut self.line_open) {
            eprintln!();
        }
    }
}

impl Drop for Step {
    /// A step left by an error must not leave the error on the end of a progress line.
    fn drop(&mut self) {
        self.close_line();
    }
}
