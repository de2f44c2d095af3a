//! Progress messages of the laboratory: one line for each step, and the time that it took.
//!
//! All messages go to standard error, so that programs can read standard output, for example the paths of `lab tools`.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Interval between two progress lines if standard error is no terminal. The long interval keeps logs short.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
/// Interval between two updates of the progress line on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);

/// A step in progress. [`step()`] prints its name, and [`Step::done`] prints its duration.
#[derive(Debug)]
#[must_use = "say `.done()` when the step is over"]
pub struct Step {
    started: Instant,
    drawn: Instant,
    terminal: bool,
    line_open: bool,
}

/// Starts a step and prints it: `==> starting etcd ...`.
pub fn step(what: impl Display) -> Step {
    eprintln!("==> {what} ...");
    let now = Instant::now();
    Step { started: now, drawn: now, terminal: std::io::stderr().is_terminal(), line_open: false }
}

/// Prints a note, indented below its step.
pub fn note(what: impl Display) {
    eprintln!("    {what}");
}

impl Step {
    /// Prints the progress of a long step. On a terminal it overwrites one line. Elsewhere it prints a line every 10 s.
    pub fn progress(&mut self, how_far: impl Display) {
        let interval = if self.terminal { TERMINAL_INTERVAL } else { PLAIN_INTERVAL };
        if self.drawn.elapsed() < interval {
            return;
        }
        self.drawn = Instant::now();
        let seconds = self.started.elapsed().as_secs();
        if self.terminal {
            // \x1b[K clears the end of a longer previous line.
            eprint!("\r    {how_far}, {seconds} s\x1b[K");
            // A failed write of a progress line is ignored.
            let _ = std::io::stderr().flush();
            self.line_open = true;
        } else {
            eprintln!("    {how_far}, {seconds} s");
        }
    }

    /// Ends the step. Prints and returns the time that it took.
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
    /// Ends the progress line. If an error ends the step, the error message therefore starts on a new line.
    fn drop(&mut self) {
        self.close_line();
    }
}
