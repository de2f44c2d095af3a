//! Flags of `writ serve` for the files that hold the output of running commands.

use std::path::PathBuf;

use clap::Args;
use writ::output::{LiveOptions, LiveOutput};

/// Default of `--spill-bytes`: 4 GiB.
const DEFAULT_SPILL_BYTES: u64 = 4 << 30;

#[derive(Args, Debug)]
pub struct SpillFlags {
    /// Maximum total size of the files with the redacted output of running commands, in bytes. The files are in the
    /// subdirectory `spill` of the state directory. Writ deletes a file after the result is stored. One namespace uses
    /// at most half of the limit. Over the limit, the oldest bytes are deleted, and viewers see a gap. With 0, there
    /// are no files.
    #[arg(long, default_value_t = DEFAULT_SPILL_BYTES, value_name = "BYTES")]
    spill_bytes: u64,
}

impl SpillFlags {
    /// Starts live output. If no directory is usable, output stays in memory only.
    pub fn start(&self, state_directory: Option<PathBuf>) -> LiveOutput {
        let Some(directory) = state_directory.filter(|_| self.spill_bytes > 0) else { return LiveOutput::default() };
        let options = LiveOptions { directory: directory.join("spill"), spill_bytes: self.spill_bytes };
        match LiveOutput::start(&options) {
            Ok(live) => live,
            Err(error) => {
                tracing::warn!(
                    directory = %options.directory.display(), %error,
                    "spill files unavailable; viewers of large outputs get gaps; check --state-directory"
                );
                LiveOutput::default()
            }
        }
    }
}
