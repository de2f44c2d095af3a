//! Replies as the scripts write them.

use super::*;

/// Returns frames of these sizes, as send.sh writes them.
fn frames(output: &[u8], from: usize, sizes: &[usize]) -> Vec<u8> {
    let (mut text, mut offset, mut rest) = (Vec::new(), from, output);
    for size in sizes.iter().copied().chain([output.len()]) {
        let (frame, behind) = rest.split_at(size.min(rest.len()));
        if !frame.is_empty() {
            text.extend(marked(&format!("@C {offset} {}\n", frame.len())));
            text.extend(frame);
            offset += frame.len();
        }
        // The mark confirms the bytes so far. send.sh writes the mark even without new bytes.
        text.extend(marked("@+\n"));
        rest = behind;
    }
    text
}

/// The two streams of a reply.
#[derive(Clone, Debug)]
pub struct Sent {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Sent {
    /// Returns the reply to an attach, with these outputs and the end of the command. If `runs` is true, the reply
    /// first reports a running command.
    pub fn of(stdout: &[u8], stderr: &[u8], sizes: &[usize], runs: bool) -> Self {
        let lengths = format!("{} {}", stdout.len(), stderr.len());
        let starts = if runs { "@A A 0 0 100 120 4711\n@+\n" } else { "" };
        let ends = format!("@D A 0 0 100 7 - {lengths} 105 - -\n@.\n");
        let stdout = [marked(starts), frames(stdout, 0, sizes), marked(&ends)].concat();
        Self { stdout, stderr: [frames(stderr, 0, sizes), marked("@.\n")].concat() }
    }
}
