//! Agreement on members: the rule by which a member may use a new set of members.
//!
//! Two members that act on different sets would both dispatch to some Machines, and `maxConcurrent` would not hold. So
//! each change has two steps, and the members exchange their views through the Leases:
//!
//! ```text
//! list of Leases           a member                                          its Lease
//! another set is living -> stops with the keys that it loses at once     -> shows the new view
//! all show this view    -> starts with the keys that it gains
//! ```
//!
//! A member keeps a key without a pause in one case: it owned the key at the last agreement, and owns it among the
//! members that live now. Any other owner in between had a higher weight, and is no longer alive.
//!
//! # Caveats
//! Agreement keeps `maxConcurrent` exact. It does not protect against a second start of a command: the claim and the
//! fence do.

use super::{Key, Members, View};

/// A living member in one list of Leases.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListedMember<'a> {
    /// The member's identity.
    pub identity: &'a str,
    /// The view that its Lease shows. `None` for a version of Writ that knows no views, which therefore never agrees.
    pub view: Option<&'a str>,
    /// True if the member is shutting down: it has stopped to dispatch, and owns nothing.
    pub is_leaving: bool,
}

/// Result of comparing the views of all living members.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Agreement<'a> {
    /// Every member shows the view of exactly these members.
    Reached,
    /// These members show another view, or none.
    WaitingFor(Vec<&'a str>),
}

/// Returns the members that own keys: all that are not leaving.
fn acting(listed: &[ListedMember<'_>]) -> Members {
    listed.iter().filter(|member| !member.is_leaving).map(|member| member.identity).collect()
}

/// Compares the views in one list of Leases with the set of its members. Members that are leaving do not count.
pub fn agreement<'a>(listed: &[ListedMember<'a>]) -> Agreement<'a> {
    let expected = acting(listed).view();
    let differs = |member: &&ListedMember<'_>| !member.is_leaving && member.view != Some(expected.as_str());
    let waiting: Vec<_> = listed.iter().filter(differs).map(|member| member.identity).collect();
    if waiting.is_empty() { Agreement::Reached } else { Agreement::WaitingFor(waiting) }
}

/// The set of members that one member acts on, and its rights until all members agree.
///
/// # Guarantees
/// No two members may act for a key at the same time, if each member keeps these rules:
/// 1. It lists the Leases, calls [`observe`](Self::observe), publishes [`unpublished`](Self::unpublished), and calls
///    [`confirm_published`](Self::confirm_published) after the API server has stored the view; only then it lists
///    again.
/// 2. It publishes a view only after it has stopped to act for the keys that it lost, and leaves only after it has
///    stopped to act for all.
/// 3. It acts for no key if its own Lease may have expired, and calls [`restart`](Self::restart) before it renews such
///    a Lease.
#[derive(Clone, Debug)]
pub struct Handover {
    own: String,
    /// The members of the last list.
    acting: Members,
    /// The members of the last agreement. `None` if another member may act for any key: before the first agreement, and
    /// after the others could agree without this member.
    agreed: Option<Members>,
    /// True if the API server has stored the view of `acting` in the own Lease.
    is_published: bool,
    is_agreed: bool,
}

impl Handover {
    /// Returns the state of a member that owns no key and has read no list.
    pub fn new(own: impl Into<String>) -> Self {
        Self { own: own.into(), acting: Members::default(), agreed: None, is_published: false, is_agreed: false }
    }

    /// Applies one list of all living members, the own one included.
    pub fn observe(&mut self, listed: &[ListedMember<'_>]) {
        let current = acting(listed);
        if !current.contains(&self.own) {
            // The other members divide the keys among themselves.
            self.agreed = None;
        }
        if current != self.acting {
            self.acting = current;
            self.is_published = false;
            self.is_agreed = false;
        } else if self.is_published && !self.is_agreed && agreement(listed) == Agreement::Reached {
            self.agreed = Some(current);
            self.is_agreed = true;
        }
    }

    /// Returns the members of the last list that are not leaving.
    pub fn acting(&self) -> &Members {
        &self.acting
    }

    /// Returns the view of the members of the last list. `None` before the first list, which includes the own Lease.
    pub fn view(&self) -> Option<View> {
        (!self.acting.is_empty()).then(|| self.acting.view())
    }

    /// Returns the view to publish. `None` if the Lease already shows it, and before the first list.
    pub fn unpublished(&self) -> Option<View> {
        self.view().filter(|_| !self.is_published)
    }

    /// Records that the API server has stored this view in the own Lease.
    pub fn confirm_published(&mut self, view: &View) {
        self.is_published |= *view == self.acting.view();
    }

    /// Returns true if all members have agreed on the current set.
    pub fn is_agreed(&self) -> bool {
        self.is_agreed
    }

    /// Gives up all keys: the own Lease may have expired, so the other members may have divided the keys.
    pub fn restart(&mut self) {
        *self = Self::new(std::mem::take(&mut self.own));
    }

    /// Returns true if this member may act for a key.
    pub fn may_act(&self, key: Key<'_>) -> bool {
        let owns = |members: &Members| members.owner(key) == Some(self.own.as_str());
        owns(&self.acting) && self.agreed.as_ref().is_some_and(owns)
    }
}
