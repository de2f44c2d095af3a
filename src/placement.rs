//! Computes which member (`writ serve` process) owns a key: a Machine, or a task that only one member carries out.
//! Pure.
//!
//! The method is rendezvous hashing: each member gets a weight for each key, and the member with the highest weight
//! owns the key. All members compute the same owner from the same set of members. If a member leaves, only its own keys
//! move, evenly to the other members. If a member joins, keys move only to this member.
//!
//! # Guarantees
//! A weight depends only on the identity of the member and on the key. All versions of Writ compute the same weights on
//! all architectures. `placement/tests.rs` has test vectors from another implementation of [`weight`].
//!
//! [`Handover`] decides when a member may start to use a new set of members. The dispatch of commands does not depend
//! on this module yet.

mod handover;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::{self, Display};

use sha2::{Digest as _, Sha256};

pub use handover::{Agreement, Handover, ListedMember, agreement};

/// Version of the rules that divide the keys among members. Members with different editions never agree on a set of
/// members. In edition 0, each member dispatches to all Machines.
///
/// Increase the number if [`weight`] or [`Handover`] changes, and when dispatch starts to depend on placement.
pub const EDITION: u32 = 0;

/// Prefix of each text that this module hashes. The prefix makes these digests different from the digests that other
/// code computes of the same text.
const DOMAIN: &[u8] = b"writ.dev/placement";
/// Length of the digest in a [`View`], in bytes. With 128 bits, two sets of members never get the same view by
/// accident.
const VIEW_BYTES: usize = 16;

/// Key: a Machine or a task that exactly one member owns.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Key<'a> {
    /// A Machine, by its UID. If a Machine is deleted and created again, it has another UID, and perhaps another owner.
    Machine(&'a str),
    /// A task that one member carries out for all members, by its name.
    Singleton(&'a str),
}

impl<'a> Key<'a> {
    /// Returns the kind and the text of the key. The kind distinguishes a Machine and a singleton with the same text.
    fn parts(self) -> (&'static str, &'a str) {
        match self {
            Self::Machine(uid) => ("machine", uid),
            Self::Singleton(name) => ("singleton", name),
        }
    }
}

/// Digest of a set of members, with the edition. Members compare views as text and never parse them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct View(String);

impl View {
    /// Returns the text that a member stores in its Lease.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for View {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Set of members, by identity.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Members {
    identities: BTreeSet<String>,
}

impl<T: Into<String>> FromIterator<T> for Members {
    fn from_iter<I: IntoIterator<Item = T>>(identities: I) -> Self {
        Self { identities: identities.into_iter().map(Into::into).collect() }
    }
}

impl Members {
    /// Returns true if the member with this identity is in the set.
    pub fn contains(&self, identity: &str) -> bool {
        self.identities.contains(identity)
    }

    /// Returns the number of members.
    pub fn len(&self) -> usize {
        self.identities.len()
    }

    /// Returns true if the set has no member.
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }

    /// Returns the identities, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.identities.iter().map(String::as_str)
    }

    /// Returns the set of all members that are in `self` or in `other`.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// Returns the owner of a key: the member with the highest weight. `None` if the set is empty.
    pub fn owner(&self, key: Key<'_>) -> Option<&str> {
        self.iter().max_by_key(|identity| (weight(identity, key), *identity))
    }

    /// Returns all members, ordered by their weight for a key. The first member is the owner. If the owner leaves, the
    /// next member becomes the owner.
    pub fn ranked(&self, key: Key<'_>) -> Vec<&str> {
        let mut ranked: Vec<_> = self.iter().map(|identity| (weight(identity, key), identity)).collect();
        ranked.sort_unstable_by_key(|entry| Reverse(*entry));
        ranked.into_iter().map(|(_, identity)| identity).collect()
    }

    /// Returns the rank of a member for a key, 0 for the owner. Returns `None` if the member is not in the set.
    pub fn rank(&self, identity: &str, key: Key<'_>) -> Option<usize> {
        self.ranked(key).iter().position(|each| *each == identity)
    }

    /// Returns the digest of this set.
    pub fn view(&self) -> View {
        let mut hash = Sha256::new_with_prefix(DOMAIN);
        update_with_text(&mut hash, "view");
        self.iter().for_each(|identity| update_with_text(&mut hash, identity));
        let digest: String = hash.finalize().iter().take(VIEW_BYTES).map(|byte| format!("{byte:02x}")).collect();
        View(format!("{EDITION}-{digest}"))
    }
}

/// Returns the weight of a member for a key: the first 8 bytes, big endian, of
/// `SHA-256("writ.dev/placement" + T("weight") + T(identity) + T(kind) + T(key))`.
///
/// - `kind` is `machine` or `singleton`.
/// - `T(text)` is the length of the text in bytes (as 8 bytes, big endian), followed by the text.
///
/// If two weights are equal, the member with the greater identity (by bytes) owns the key.
pub fn weight(identity: &str, key: Key<'_>) -> u64 {
    let (kind, text) = key.parts();
    let mut hash = Sha256::new_with_prefix(DOMAIN);
    ["weight", identity, kind, text].into_iter().for_each(|part| update_with_text(&mut hash, part));
    hash.finalize().iter().take(8).fold(0, |weight, byte| (weight << 8) | u64::from(*byte))
}

/// Adds the length of the text to the hash, and then the text. The lengths distinguish the texts `a`, `bc` from the
/// texts `ab`, `c`.
fn update_with_text(hash: &mut Sha256, text: &str) {
    hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(text);
}
