//! Caches the verdict on each Whitelist, because compiling and linting use a whole core for a moment.
//!
//! A verdict is valid until its Whitelist changes. The verdict on a Whitelist with Deny rules is valid until any
//! Whitelist of the namespace changes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::api::ObjectMeta;

use crate::api::execution_status::ObjectRecord;
use crate::cluster::ClusterError;
use crate::execution::storable;
use crate::policy::CompiledWhitelist;

use super::ready_reason::ready_reason;
use super::warnings::Warnings;

/// The part of a Whitelist's status that describes its rules: a few KiB of text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Verdict {
    pub rule_count: usize,
    /// Reason of the condition Ready.
    pub reason: &'static str,
    /// Message of the condition Ready.
    pub message: String,
    /// True if the Whitelist has a rule for certain requesters only.
    pub has_subjects: bool,
    /// True if the Whitelist has a Deny rule. In this case, the warnings also depend on the other Whitelists of the
    /// namespace.
    pub has_deny: bool,
    pub warnings: Warnings,
}

impl Verdict {
    pub fn new(compiled: &CompiledWhitelist, has_deny: bool, warnings: Warnings) -> Self {
        let (reason, message) = ready_reason(compiled);
        let (rule_count, has_subjects) = (compiled.rule_count(), compiled.has_subjects());
        Self { rule_count, reason, message: storable(&message), has_subjects, has_deny, warnings }
    }
}

/// Version of one or several Whitelists: a hash of their names, UIDs and generations.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Version(u64);

impl Version {
    /// Returns the version of one Whitelist.
    pub fn of_one(metadata: &ObjectMeta) -> Self {
        Self::of_all([(
            metadata.name.as_deref().unwrap_or_default(),
            metadata.uid.as_deref().unwrap_or_default(),
            metadata.generation.unwrap_or_default(),
        )])
    }

    /// Returns the version of all Whitelists of a namespace, from their compiled form.
    pub fn of_compiled(whitelists: &[Arc<CompiledWhitelist>]) -> Self {
        Self::of_all(whitelists.iter().map(|whitelist| {
            let ObjectRecord { name, uid, generation } = &whitelist.record;
            (name.as_str(), uid.as_str(), *generation)
        }))
    }

    /// Returns the version of the given Whitelists. Each item is the name, UID and generation of a Whitelist. The order
    /// of the items does not matter.
    pub fn of_all<'a>(whitelists: impl IntoIterator<Item = (&'a str, &'a str, i64)>) -> Self {
        let mut all: Vec<_> = whitelists.into_iter().collect();
        all.sort_unstable();
        let mut hasher = DefaultHasher::new();
        all.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Last verdict on each existing Whitelist.
#[derive(Default)]
pub(super) struct Verdicts(Mutex<HashMap<(String, String), Kept>>);

struct Kept {
    own: Version,
    /// Version of all Whitelists of the namespace. `None` if the verdict does not depend on the other Whitelists.
    all: Option<Version>,
    verdict: Arc<Verdict>,
}

impl Verdicts {
    /// Returns the verdict on a Whitelist. Calls `judge` if the stored verdict is outdated.
    ///
    /// - `own` is the version of this Whitelist.
    /// - `all_now` returns the version of all Whitelists of the namespace.
    /// - `judge` returns a new verdict. If the verdict depends on the other Whitelists, `judge` also returns the
    ///   version of all Whitelists.
    ///
    /// # Errors
    /// The error of `judge`. The previous verdict is kept.
    pub async fn get(
        &self,
        (namespace, name): (&str, &str),
        own: Version,
        all_now: impl FnOnce() -> Version,
        judge: impl AsyncFnOnce() -> Result<(Verdict, Option<Version>), ClusterError>,
    ) -> Result<Arc<Verdict>, ClusterError> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(verdict) = self.find(&key, &own, all_now) {
            return Ok(verdict);
        }
        let (verdict, all) = judge().await?;
        let verdict = Arc::new(verdict);
        self.lock().insert(key, Kept { own, all, verdict: Arc::clone(&verdict) });
        Ok(verdict)
    }

    fn find(&self, key: &(String, String), own: &Version, all_now: impl FnOnce() -> Version) -> Option<Arc<Verdict>> {
        let kept = self.lock();
        let kept = kept.get(key).filter(|kept| kept.own == *own)?;
        let is_current = kept.all.as_ref().is_none_or(|all| *all == all_now());
        is_current.then(|| Arc::clone(&kept.verdict))
    }

    /// Removes the verdict on a deleted Whitelist.
    pub fn remove(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests the verdict on the Whitelist `team/own`. Returns true if this request computed a new verdict.
    async fn is_judged(verdicts: &Verdicts, generation: i64, others: &[(&str, &str, i64)], has_deny: bool) -> bool {
        let own = ("own", "uid", generation);
        let all = || Version::of_all(others.iter().copied().chain([own]));
        let mut judged = false;
        let judge = async || {
            judged = true;
            let verdict = Verdict {
                rule_count: 1,
                reason: "AllRulesInForce",
                message: String::new(),
                has_subjects: true,
                has_deny,
                warnings: Warnings::default(),
            };
            Ok((verdict, has_deny.then(all)))
        };
        verdicts.get(("team", "own"), Version::of_all([own]), all, judge).await.unwrap();
        judged
    }

    #[tokio::test]
    async fn whitelist_is_judged_once_per_generation() {
        let verdicts = Verdicts::default();
        assert!(is_judged(&verdicts, 1, &[], false).await);
        assert!(!is_judged(&verdicts, 1, &[], false).await);
        assert!(!is_judged(&verdicts, 1, &[("other", "x", 1)], false).await, "nothing in it depends on others");
        assert!(is_judged(&verdicts, 2, &[], false).await);
        verdicts.remove("team", "own");
        assert!(is_judged(&verdicts, 2, &[], false).await);
    }

    #[tokio::test]
    async fn whitelist_with_deny_is_judged_again_when_another_one_changes() {
        let verdicts = Verdicts::default();
        let others = [("a", "1", 1), ("b", "2", 1)];
        assert!(is_judged(&verdicts, 1, &others, true).await);
        assert!(!is_judged(&verdicts, 1, &[("b", "2", 1), ("a", "1", 1)], true).await, "the order means nothing");
        assert!(is_judged(&verdicts, 1, &[("a", "1", 2), ("b", "2", 1)], true).await, "another generation");
        assert!(is_judged(&verdicts, 1, &[("a", "3", 2), ("b", "2", 1)], true).await, "another UID");
        assert!(is_judged(&verdicts, 1, &[("a", "3", 2)], true).await, "one is gone");
        assert!(!is_judged(&verdicts, 1, &[("a", "3", 2)], true).await);
    }

    #[tokio::test]
    async fn failed_judgement_is_not_kept() {
        let verdicts = Verdicts::default();
        let fails = async || {
            Err(ClusterError::Unavailable { target: "the Whitelists of team".to_owned(), message: "away".to_owned() })
        };
        let own = Version::of_all([("own", "uid", 1)]);
        assert!(verdicts.get(("team", "own"), own, Version::default, fails).await.is_err());
        assert!(is_judged(&verdicts, 1, &[], false).await);
    }
}
