//! Limits the reads of each caller. Expensive reads count several times.

use std::time::Instant;

use super::caller::Caller;
use super::error::ApiError;
use super::state::Gateway;

/// Maximum number of reads per second and caller.
pub const READS_PER_SECOND: usize = 50;
/// Maximum number of other requests per second and caller. Each costs a few calls to the API server even if it is
/// refused. The rate of commands is far below this limit, but 50 repeated calls with one key must be possible.
const WRITES_PER_SECOND: usize = 100;
/// Additional reads for a list of executions or Whitelists, which can take many pages. The number is small, so that a
/// page with the histories of ten Machines stays within the limit. `ExecutionScans` limits the concurrent lists.
pub const SCAN_READS: usize = 1;
/// Number of single objects that count as one additional read. The API server reads an object in about 2 ms.
pub const OBJECTS_PER_READ: usize = 50;

impl Gateway {
    /// Counts a request that is no read.
    ///
    /// # Errors
    /// 429 if the caller sends too many.
    pub fn count_write(&self, caller: &Caller) -> Result<(), ApiError> {
        let key = format!("write {}", caller.rate_key());
        let taken = self.reads().take(&key, 1, WRITES_PER_SECOND, Instant::now());
        taken.map_err(|left| ApiError::too_many_reads(WRITES_PER_SECOND, left))
    }

    /// Counts reads of a caller. Each GET already counts as one read.
    ///
    /// # Errors
    /// 429 if the caller reads too often.
    pub fn count_reads(&self, caller: &Caller, reads: usize) -> Result<(), ApiError> {
        // A call that alone exceeds the limit must be possible.
        let reads = reads.min(READS_PER_SECOND - 1);
        let taken = self.reads().take(&caller.rate_key(), reads, READS_PER_SECOND, Instant::now());
        taken.map_err(|left| ApiError::too_many_reads(READS_PER_SECOND, left))
    }
}
