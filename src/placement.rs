//! Placement: which member owns a Machine, or a task that one member does for all of them. Pure.
//!
//! Rendezvous hashing: each member gets a weight for each key, and the member with the highest weight owns the key.
//! Every member computes the same owner from the same set of members, and no member keeps a table. If a member leaves,
//! only its own keys move, evenly to the others; if a member joins, it takes its share of the keys from all others.
//!
//! # Guarantees
//! Weights depend on nothing except the two names: not on the version of Writ, the architecture, or the order of the
//! members. `placement/tests.rs` holds test vectors from another implementation of the formula in [`weight`].
//!
//! [`Handover`] decides from which moment a member may use a new set of members. No dispatch depends on this module
//! yet.

mod handover;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::{self, Display};

use sha2::{Digest as _, Sha256};

pub use handover::{Agreement, Handover, ListedMember, agreement};

/// Version of the rules by which members with equal views divide the keys. Members of different editions never agree.
/// Edition 0 publishes its view, but dispatches to all Machines. Increase the number when dispatch depends on
/// placement, and with each change of [`weight`] or [`Handover`].
pub const EDITION: u32 = 0;

/// First bytes of every hashed text, so that a digest of this module never equals one with another purpose.
const DOMAIN: &[u8] = b"writ.dev/placement";
/// Length in bytes of the digest in a [`View`]. 128 bits: two sets of members never get the same view by accident.
const VIEW_BYTES: usize = 16;

/// Something that exactly one member owns.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Key<'a> {
    /// A Machine, by its UID: a Machine that is deleted and created again may get another owner.
    Machine(&'a str),
    /// A task that one member does for all of them, by its name.
    Singleton(&'a str),
}

impl<'a> Key<'a> {
    /// Returns the name that keeps a Machine and a singleton of the same text apart, and the text.
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
    /// Returns the text that a Lease carries.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for View {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A set of members, by their identities.
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
    /// Returns true if a member of this identity is in the set.
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

    /// Returns the members of both sets.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// Returns the owner of a key: the member with the highest weight. `None` if the set is empty.
    pub fn owner(&self, key: Key<'_>) -> Option<&str> {
        self.iter().max_by_key(|identity| (weight(identity, key), *identity))
    }

    /// Returns all members in the order in which they may act for a key; the owner comes first.
    pub fn ranked(&self, key: Key<'_>) -> Vec<&str> {
        let mut ranked: Vec<_> = self.iter().map(|identity| (weight(identity, key), identity)).collect();
        ranked.sort_unstable_by_key(|entry| Reverse(*entry));
        ranked.into_iter().map(|(_, identity)| identity).collect()
    }

    /// Returns the rank of a member for a key: 0 for the owner. `None` if the member is not in the set.
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

/// Returns the weight of a member for a key: the first 8 bytes, big endian, of `SHA-256("writ.dev/placement" +
/// T("weight") + T(identity) + T(kind) + T(key))`. `kind` is `machine` or `singleton`, and `T(text)` is the text's
/// length in bytes as 8 bytes, big endian, and then the text. If two weights are equal, the greater identity (by bytes)
/// wins.
pub fn weight(identity: &str, key: Key<'_>) -> u64 {
    let (kind, text) = key.parts();
    let mut hash = Sha256::new_with_prefix(DOMAIN);
    ["weight", identity, kind, text].into_iter().for_each(|part| update_with_text(&mut hash, part));
    hash.finalize().iter().take(8).fold(0, |weight, byte| (weight << 8) | u64::from(*byte))
}

/// Adds the length and then the text, so that two lists of texts never give the same bytes.
fn update_with_text(hash: &mut Sha256, text: &str) {
    hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(text);
}
