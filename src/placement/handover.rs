//! Agreement on members: the rule that decides when a member may use a new set of members. With this set, the member
//! computes which keys (Machines and tasks) it owns.
//!
//! If two members acted on different sets, both could dispatch to the same Machine, and more than `maxConcurrent`
//! commands could run. Each change of the set therefore has two steps. The members exchange their views through the
//! Leases:
//!
//! ```text
//! list of Leases           a member                                              its Lease
//! the members changed   -> stops acting immediately for the keys that it loses -> shows the new view
//! all show the new view -> starts acting for the keys that it gains
//! ```
//!
//! A member keeps a key without a pause if the member owned the key at the last agreement and owns the key now. This is
//! safe, even if the key had another owner in between. The other owner had a higher weight. The other owner is
//! therefore no longer alive, because otherwise it would own the key now.
//!
//! # Caveats
//! Agreement keeps the number of running commands within `maxConcurrent`. Agreement does not prevent a second start of
//! a command. Only the claim and the launcher's fence file on the machine prevent a second start.

use super::{Key, Members, View};

/// Living member in a list of Leases.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListedMember<'a> {
    /// The member's identity.
    pub identity: &'a str,
    /// View in the member's Lease. `None` if the member's version of Writ does not publish views. Such a member never
    /// agrees.
    pub view: Option<&'a str>,
    /// True if the member is shutting down. The member has stopped dispatching, and owns no key.
    pub is_leaving: bool,
}

/// Result of comparing the views of all living members.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Agreement<'a> {
    /// The Lease of every member shows the view of exactly these members.
    Reached,
    /// The Leases of these members show another view, or no view.
    WaitingFor(Vec<&'a str>),
}

/// Returns the members that can own keys: all members that are not leaving.
fn acting(listed: &[ListedMember<'_>]) -> Members {
    listed.iter().filter(|member| !member.is_leaving).map(|member| member.identity).collect()
}

/// Compares the views in one list of Leases with the view of the members in this list. Ignores members that are
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
/// 1. The member repeats this cycle: it lists the Leases, calls [`observe`](Self::observe), publishes
///    [`unpublished`](Self::unpublished), and calls [`confirm_published`](Self::confirm_published) after the API server
///    has stored the view. The member does not list again before the last of these calls.
/// 2. Before the member publishes a view, it stops acting for the keys that it lost. Before the member leaves, it stops
///    acting for all keys.
/// 3. If the member's own Lease has perhaps expired, the member acts for no key. The member calls
///    [`restart`](Self::restart) before it renews this Lease.
#[derive(Clone, Debug)]
pub struct Handover {
    own: String,
    /// Members in the last list that are not leaving.
    acting: Members,
    /// Members of the last agreement. `None` before the first agreement, and after the other members could have agreed
    /// without this member. In both cases, another member perhaps acts for any key.
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

    /// Gives up all keys. Needed if this member's Lease has perhaps expired, because the other members have then
    /// perhaps divided the keys.
    pub fn restart(&mut self) {
        *self = Self::new(std::mem::take(&mut self.own));
    }

    /// Returns true if this member may act for a key.
    pub fn may_act(&self, key: Key<'_>) -> bool {
        let owns = |members: &Members| members.owner(key) == Some(self.own.as_str());
        owns(&self.acting) && self.agreed.as_ref().is_some_and(owns)
    }
}
