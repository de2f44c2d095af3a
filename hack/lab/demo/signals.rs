//! Handles ctrl-C, TERM and hangup. The demo checks for these signals between its steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::lab::LabError;

/// Exit code that a shell reports for a program that ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// The signals that this program received.
pub struct Signals {
    received: Arc<AtomicBool>,
    first: Receiver<()>,
}

impl Signals {
    /// Handles signals from now on. The first signal ends the demo at its next step. The second signal ends the program
    /// immediately, and the reaper cleans up.
    pub fn listen() -> Self {
        let (sender, first) = mpsc::channel();
        let received = Arc::new(AtomicBool::new(false));
        let signals = Self { received: Arc::clone(&received), first };
        std::thread::spawn(move || {
            while crate::wait_for_signal().is_ok() {
                if received.swap(true, Ordering::SeqCst) {
                    std::process::exit(INTERRUPTED);
                }
                // The send fails only if the demo is ending and has dropped the receiver.
                let _ = sender.send(());
            }
        });
        signals
    }

    /// Returns true if a signal was received.
    pub fn received(&self) -> bool {
        self.received.load(Ordering::SeqCst)
    }

    /// Returns an error if a signal was received.
    pub fn check(&self) -> Result<(), LabError> {
        if self.received() { Err(LabError::Interrupted) } else { Ok(()) }
    }

    /// Waits for a signal.
    pub fn wait(&self) {
        // The call fails only if the signal handler failed. In this case no signal would ever arrive.
        let _ = self.first.recv();
    }

    /// Waits for `duration`. Returns an error if a signal arrives.
    pub fn pause(&self, duration: Duration) -> Result<(), LabError> {
        match self.first.recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => self.check(),
            _ => Err(LabError::Interrupted),
        }
    }
}
