//! First output of a command.

use crate::output::StreamKind;

/// Maximum number of bytes of standard error to keep. The message with which sudo requires a password is shorter.
const MAX_FIRST_WORDS: usize = 128;

/// First bytes of standard error, and a flag that is true if the command wrote to standard output.
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
