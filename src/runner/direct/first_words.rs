//! The start of what a command writes.

use crate::output::StreamKind;

/// More than sudo writes if it wants a password.
const MAX_FIRST_WORDS: usize = 128;

/// The start of what a command writes.
#[derive(Debug, Default)]
pub(super) struct FirstWords {
    pub stderr: Vec<u8>,
    pub has_stdout: bool,
}

impl FirstWords {
    pub fn push(&mut self, kind: StreamKind, bytes: &[u8]) {
        match kind {
            StreamKind::Stdout => self.has_stdout |= !bytes.is_empty(),
            StreamKind::Stderr => {
                let room = MAX_FIRST_WORDS.saturating_sub(self.stderr.len());
                self.stderr.extend(bytes.iter().take(room));
            }
        }
    }
}
