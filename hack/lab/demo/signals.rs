//! ctrl-C, TERM and hangup, seen between steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::lab::LabError;

/// What a shell reports for a program that ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// The signals that this program got.
pub struct Signals {
    received: Arc<AtomicBool>,
    first: Receiver<()>,
}

impl Signals {
    /// Takes signals from now on. The first one ends the demo at its next step; the second one ends the program at
    /// once, and the reaper cleans up.
    pub fn listen() -> Self {
        let (sender, first) = mpsc::channel();
        let received = Arc::new(AtomicBool::new(false));
        let signals = Self { received: Arc::clone(&received), first };
        std::thread::spawn(move || {
            while crate::wait_for_signal().is_ok() {
                if received.swap(true, Ordering::SeqCst) {
                    std::process::exit(INTERRUPTED);
                }
                // Nobody waits for it any more when the demo is ending anyway.
                let _ = sender.send(());
            }
        });
        signals
    }

    /// Whether there was one.
    pub fn received(&self) -> bool {
        self.received.load(Ordering::SeqCst)
    }

    /// Fails where there was one.
    pub fn check(&self) -> Result<(), LabError> {
        if self.received() { Err(LabError::Interrupted) } else { Ok(()) }
    }

    /// Waits for one.
    pub fn wait(&self) {
        // Fails only when signals cannot be taken at all: then there is nothing to wait for.
        let _ = self.first.recv();
    }

    /// Waits for this long, or fails when one comes.
    pub fn pause(&self, duration: Duration) -> Result<(), LabError> {
        match self.first.recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => self.check(),
            _ => Err(LabError::Interrupted),
        }
    }
}
