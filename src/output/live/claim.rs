//! The claim of one execution, with the events that the runner publishes.

use std::sync::Arc;

use super::super::OutputKey;
use super::EndedStatus;
use super::entry::{Entry, EntryEnd};
use super::publisher::Publisher;
use super::registry::Registry;

/// The claim of one execution, as its viewers see it. If the claim is dropped before the end of the execution is
/// published, viewers receive `Released`.
#[derive(Debug)]
pub struct LiveClaim {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
    key: OutputKey,
    is_ended: bool,
}

impl LiveClaim {
    pub(super) fn new(registry: &Arc<Registry>, key: OutputKey, name: &str, is_adopted: bool) -> Self {
        let entry = registry.claim(&key, name, is_adopted);
        Self { registry: Arc::clone(registry), entry, key, is_ended: false }
    }

    /// Returns the key of the execution's output.
    pub fn key(&self) -> &OutputKey {
        &self.key
    }

    /// Starts both streams at offset 0, even if they were started before. Returns their publisher.
    pub(in crate::output) fn publish(&self, has_upload: bool) -> Publisher {
        Publisher::new(&self.entry, has_upload)
    }

    /// Publishes the end of the execution. Call this function only after the API server stored the result.
    pub fn ended(&mut self, status: EndedStatus) {
        self.finish(EntryEnd::Ended(status));
    }

    fn finish(&mut self, end: EntryEnd) {
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        self.registry.finish(&self.key, &self.entry, end);
    }
}

impl Drop for LiveClaim {
    fn drop(&mut self) {
        self.finish(EntryEnd::Released);
    }
}
