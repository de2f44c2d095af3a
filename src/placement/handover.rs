//! Decides when a member may act for its keys (Machines and tasks) after the set of members changed.
//!
//! If two members acted for the same Machine, more than `maxConcurrent` commands could run. A member therefore handles
//! a new set of members in two steps:
//!
//! 1. The list of Leases shows a new set of members. The member stops acting for the keys that it loses. Then the
//!    member publishes the view (digest) of the new set in its own Lease.
//! 2. All Leases show the new view. The member starts acting for the keys that it gains.
//!
//! If a member owned a key at the last agreement and owns the key now, the member keeps the key without a pause. This
//! is safe: an owner in between had a higher weight, so it would own the key now if it were still a member.
//!
//! # Caveats
//! Agreement only limits the number of running commands to `maxConcurrent`. The claim and the launcher's fence file on
//! the machine prevent a second start of a command.

use super::{Key, Members, View};

/// Living member in a list of Leases.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListedMember<'a> {
    /// The member's identity.
    pub identity: &'a str,
    /// View in the member's Lease. `None` if the member publishes no view. Such a member never agrees on a set of
    /// members.
    pub view: Option<&'a str>,
    /// True if the member is shutting down. Such a member has stopped dispatching, and owns no key.
    pub is_leaving: bool,
}

/// Result of [`agreement()`]. The current members are the living members that are not leaving.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Agreement<'a> {
    /// The Lease of every current member shows this view.
    Reached,
    /// Current members whose Leases show no view, or the view of another set.
    WaitingFor(Vec<&'a str>),
}

/// Returns the members that can own keys: all members that are not leaving.
fn acting(listed: &[ListedMember<'_>]) -> Members {
    listed.iter().filter(|member| !member.is_leaving).map(|member| member.identity).collect()
}

/// Determines if the Lease of each listed member shows the view of exactly these members. Ignores members that are
/// leaving.
pub fn agreement<'a>(listed: &[ListedMember<'a>]) -> Agreement<'a> {
    let expected = acting(listed).view();
    let differs = |member: &&ListedMember<'_>| !member.is_leaving && member.view != Some(expected.as_str());
    let waiting: Vec<_> = listed.iter().filter(differs).map(|member| member.identity).collect();
    if waiting.is_empty() { Agreement::Reached } else { Agreement::WaitingFor(waiting) }
}

/// State of one member: its current set of members, and the set on which all members last agreed.
///
/// # Guarantees
/// Two members never act for a key at the same time, if each member keeps these rules:
///
/// - The member repeats these steps, one after another: list the Leases, call [`observe`](Self::observe), store the
///   view of [`unpublished`](Self::unpublished) in its Lease, call [`confirm_published`](Self::confirm_published).
/// - Before the member publishes a view, it stops acting for the keys that it lost.
/// - Before the member leaves, it stops acting for all keys.
/// - If the member's own Lease has perhaps expired, the member acts for no key. The member calls
///   [`restart`](Self::restart) before it renews this Lease.
#[derive(Clone, Debug)]
pub struct Handover {
    own: String,
    /// Members in the last list that are not leaving.
    acting: Members,
    /// Members of the last agreement. `None` before the first agreement. Also `None` if the other members have perhaps
    /// made a later agreement without this member.
    agreed: Option<Members>,
    /// True if the API server has stored the view of `acting` in the Lease of this member.
    is_published: bool,
    is_agreed: bool,
}

impl Handover {
    /// Returns the state of a member that owns no key and has read no list.
    pub fn new(own: impl Into<String>) -> Self {
        Self { own: own.into(), acting: Members::default(), agreed: None, is_published: false, is_agreed: false }
    }

    /// Applies one list of all living members. The list normally includes this member.
    pub fn observe(&mut self, listed: &[ListedMember<'_>]) {
        let current = acting(listed);
        if !current.contains(&self.own) {
            // The other members divide all keys among themselves, because this member is not in their set.
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

    /// Returns the view of the members in the last list. Returns `None` before the first list, and if all listed
    /// members are leaving.
    pub fn view(&self) -> Option<View> {
        (!self.acting.is_empty()).then(|| self.acting.view())
    }

    /// Returns the view that this member must publish. Returns `None` if the member's Lease already shows this view,
    /// and before the first list.
    pub fn unpublished(&self) -> Option<View> {
        self.view().filter(|_| !self.is_published)
    }

    /// Records that the API server has stored this view in the Lease of this member.
    pub fn confirm_published(&mut self, view: &View) {
        self.is_published |= *view == self.acting.view();
    }

    /// Returns true if all members have agreed on the current set.
    pub fn is_agreed(&self) -> bool {
        self.is_agreed
    }

    /// Gives up all keys. If this member's Lease expired, the other members can have divided the keys.
    pub fn restart(&mut self) {
        *self = Self::new(std::mem::take(&mut self.own));
    }

    /// Returns true if this member may act for a key.
    pub fn may_act(&self, key: Key<'_>) -> bool {
        let owns = |members: &Members| members.owner(key) == Some(self.own.as_str());
        owns(&self.acting) && self.agreed.as_ref().is_some_and(owns)
    }
}
