//! Reads of Machines and Secrets that concurrent tasks share. If 75 executions of a Machine are created at once, all of
//! them need the Machine.

use crate::api::Machine;

use super::coalesce::KeyedCoalescer;
use super::ssh_secret::SshSecret;

/// Maximum number of concurrent reads of one object. One read would suffice, but if its answer is lost, all tasks would
/// wait for its deadline.
const MAX_CONCURRENT_READS: usize = 2;

/// Reads by `NAMESPACE/NAME`. A result is kept only until the tasks that share it have it.
pub(super) struct SharedReads {
    pub machines: KeyedCoalescer<Machine>,
    pub secrets: KeyedCoalescer<SshSecret>,
}

impl Default for SharedReads {
    fn default() -> Self {
        Self { machines: KeyedCoalescer::new(MAX_CONCURRENT_READS), secrets: KeyedCoalescer::new(MAX_CONCURRENT_READS) }
    }
}
