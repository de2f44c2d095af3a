//! Tests of the agreement on members. First examples, then random histories of members that join, leave, pause and
//! resume.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::placement::{Agreement, Handover, Key, ListedMember, Members, View, agreement};

fn listed<'a>(identity: &'a str, view: Option<&'a str>) -> ListedMember<'a> {
    ListedMember { identity, view, is_leaving: false }
}

fn view(names: &[&str]) -> View {
    names.iter().copied().collect::<Members>().view()
}

/// Returns the handover of a member that is alone and has published its view.
fn alone(own: &str) -> Handover {
    let view = view(&[own]);
    let mut handover = Handover::new(own);
    handover.observe(&[listed(own, None)]);
    handover.confirm_published(&view);
    handover.observe(&[listed(own, Some(view.as_str()))]);
    handover
}

#[test]
fn members_agree_once_all_show_the_view_of_these_members() {
    let both = view(&["a", "b"]);
    let both = Some(both.as_str());
    assert_eq!(agreement(&[listed("a", both), listed("b", both)]), Agreement::Reached);
    assert_eq!(agreement(&[listed("a", both), listed("b", None)]), Agreement::WaitingFor(vec!["b"]));
    // All three members show the view of a and b. This view lacks c, so no member agrees.
    let three = [listed("a", both), listed("b", both), listed("c", both)];
    assert_eq!(agreement(&three), Agreement::WaitingFor(vec!["a", "b", "c"]));
}

#[test]
fn a_member_of_another_edition_never_agrees() {
    let both = view(&["a", "b"]);
    let newer = format!("9{}", both.as_str());
    let members = [listed("a", Some(both.as_str())), listed("b", Some(&newer))];
    assert_eq!(agreement(&members), Agreement::WaitingFor(vec!["b"]));
}

#[test]
fn a_member_that_leaves_owns_nothing_and_nobody_waits_for_it() {
    let alone = view(&["a"]);
    let leaving = ListedMember { identity: "b", view: None, is_leaving: true };
    assert_eq!(agreement(&[listed("a", Some(alone.as_str())), leaving]), Agreement::Reached);
}

#[test]
fn a_member_alone_acts_after_its_view_is_stored_and_listed() {
    let mut handover = Handover::new("a");
    let key = Key::Machine("m");
    assert_eq!(handover.unpublished(), None, "it has seen no list");
    handover.observe(&[listed("a", None)]);
    let own = handover.unpublished().unwrap();
    handover.observe(&[listed("a", Some(own.as_str()))]);
    assert!(!handover.may_act(key), "the list may be older than what it published");
    handover.confirm_published(&own);
    assert!(!handover.may_act(key));
    handover.observe(&[listed("a", Some(own.as_str()))]);
    assert!(handover.may_act(key) && handover.is_agreed());
    assert_eq!(handover.unpublished(), None);
}

#[test]
fn keys_that_stay_are_served_without_a_pause_and_lost_ones_end_at_once() {
    let mut handover = alone("a");
    let keys: Vec<String> = (0..40).map(|number| format!("m{number}")).collect();
    handover.observe(&[listed("a", None), listed("b", None)]);
    let both: Members = ["a", "b"].into_iter().collect();
    for uid in &keys {
        let key = Key::Machine(uid);
        assert_eq!(handover.may_act(key), both.owner(key) == Some("a"), "{uid}");
    }
}

#[test]
fn a_member_whose_own_lease_is_not_listed_acts_for_nothing_until_all_agree_again() {
    let mut handover = alone("a");
    let (key, own, other) = (Key::Machine("m"), view(&["a"]), view(&["b"]));
    handover.observe(&[listed("b", Some(other.as_str()))]);
    assert!(!handover.may_act(key));
    handover.observe(&[listed("a", Some(own.as_str()))]);
    assert!(!handover.may_act(key), "the other may have had all keys meanwhile");
    handover.confirm_published(&own);
    handover.observe(&[listed("a", Some(own.as_str()))]);
    assert!(handover.may_act(key));
}

#[test]
fn a_member_that_gave_everything_up_holds_nothing() {
    let mut handover = alone("a");
    handover.restart();
    assert!(!handover.may_act(Key::Machine("m")));
    assert!(handover.acting().is_empty());
}

/// A member and its Lease.
struct Node {
    identity: String,
    handover: Handover,
    /// View in the Lease of this member.
    shown: Option<View>,
    is_leaving: bool,
    /// True while the process is paused. The Lease then expires at a different time for each observer.
    is_paused: bool,
    /// Observers that consider the Lease of this member expired.
    expired_for: BTreeSet<String>,
}

/// One step of a simulated history. Each step concerns one member.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The member with this index publishes its new view. A member without a new view lists the Leases instead. If
    /// member `n` is paused and bit `n` of the `u8` is 0, the listing member considers the Lease of member `n` expired.
    Proceed(usize, u8),
    /// A new member joins, if there are fewer than 5.
    Join,
    Leave(usize),
    Pause(usize),
    Resume(usize),
}

#[derive(Default)]
struct World {
    nodes: Vec<Node>,
    joined: u32,
}

impl World {
    fn join(&mut self) {
        if self.nodes.len() >= 5 {
            return;
        }
        self.joined += 1;
        let identity = format!("home/writ-{}", self.joined);
        let handover = Handover::new(identity.clone());
        self.nodes.push(Node {
            identity,
            handover,
            shown: None,
            is_leaving: false,
            is_paused: false,
            expired_for: BTreeSet::new(),
        });
    }

    fn proceed(&mut self, index: usize, living: u8) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        if node.is_paused || node.is_leaving {
            return;
        }
        if let Some(view) = node.handover.unpublished() {
            node.handover.confirm_published(&view);
            node.shown = Some(view);
            return;
        }
        let observer = node.identity.clone();
        for (number, node) in self.nodes.iter_mut().enumerate().filter(|(_, node)| node.is_paused) {
            if living & (1 << number) == 0 {
                node.expired_for.insert(observer.clone());
            }
        }
        let entries: Vec<(String, Option<View>, bool)> = self
            .nodes
            .iter()
            .filter(|node| !node.expired_for.contains(&observer))
            .map(|node| (node.identity.clone(), node.shown.clone(), node.is_leaving))
            .collect();
        let list: Vec<ListedMember<'_>> = entries
            .iter()
            .map(|(identity, view, is_leaving)| ListedMember {
                identity,
                view: view.as_ref().map(View::as_str),
                is_leaving: *is_leaving,
            })
            .collect();
        if let Some(node) = self.nodes.get_mut(index) {
            node.handover.observe(&list);
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Proceed(index, living) => self.proceed(index, living),
            Step::Join => self.join(),
            Step::Leave(index) => match self.nodes.get_mut(index) {
                // The second `Leave` of a member deletes its Lease.
                Some(node) if node.is_leaving => drop(self.nodes.remove(index)),
                Some(node) if !node.is_paused => node.is_leaving = true,
                _ => {}
            },
            Step::Pause(index) => self.nodes.iter_mut().skip(index).take(1).for_each(|node| node.is_paused = true),
            Step::Resume(index) => {
                for node in self.nodes.iter_mut().skip(index).take(1).filter(|node| node.is_paused) {
                    node.handover.restart();
                    node.shown = None;
                    node.is_paused = false;
                    node.expired_for.clear();
                }
            }
        }
    }

    fn actors(&self, key: Key<'_>) -> Vec<&str> {
        let acts = |node: &&Node| !node.is_paused && !node.is_leaving && node.handover.may_act(key);
        self.nodes.iter().filter(acts).map(|node| node.identity.as_str()).collect()
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => (0..5_usize, any::<u8>()).prop_map(|(index, living)| Step::Proceed(index, living)),
        2 => Just(Step::Join),
        1 => (0..5_usize).prop_map(Step::Leave),
        1 => (0..5_usize).prop_map(Step::Pause),
        4 => (0..5_usize).prop_map(Step::Resume),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_key_ever_has_two_actors_and_in_the_end_each_has_one(steps in vec(step(), 0..160)) {
        let keys: Vec<String> = (0..6).map(|number| format!("m{number}")).collect();
        let mut world = World::default();
        (0..3).for_each(|_| world.join());
        for (number, step) in steps.iter().enumerate() {
            world.apply(*step);
            for key in &keys {
                let actors = world.actors(Key::Machine(key));
                prop_assert!(actors.len() <= 1, "after step {number} ({step:?}): {key} has {actors:?}");
            }
        }
        // All members resume, then list and publish until all agree.
        (0..5).for_each(|index| world.apply(Step::Resume(index)));
        for _ in 0..6 {
            (0..5).for_each(|index| world.proceed(index, 0));
        }
        let members: Members =
            world.nodes.iter().filter(|node| !node.is_leaving).map(|node| node.identity.clone()).collect();
        for key in &keys {
            let key = Key::Machine(key);
            prop_assert_eq!(world.actors(key), members.owner(key).into_iter().collect::<Vec<_>>());
        }
    }
}
