use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof, proptest};
use tokio::time::timeout;

use super::*;

const NAMESPACES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Step {
    /// A task of this namespace waits, with this rank.
    Wait(usize, i64),
    /// The waiting task at this index leaves. The index wraps around.
    Leave(usize),
    /// The holder at this index gives its permit back. The index wraps around.
    GiveBack(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 0..1000_usize;
    // Namespace 0 makes the most requests, so that it competes for all permits.
    let namespace = prop_oneof![3 => Just(0), 2 => 0..NAMESPACES.len()];
    let step = prop_oneof![
        5 => (namespace, 0..3_i64).prop_map(|(namespace, rank)| Step::Wait(namespace, rank)),
        1 => number.clone().prop_map(Step::Leave),
        4 => number.prop_map(Step::GiveBack),
    ];
    vec(step, 0..200)
}

/// Model that checks the guarantees. The model counts permits independently of the tested code.
#[derive(Default)]
struct Model {
    /// Waiting tasks. The next task of a namespace is the one with the smallest ticket.
    waiting: Vec<(Ticket, &'static str)>,
    /// For each namespace that waits below its share: the number of permits that each other namespace got during the
    /// wait.
    passed: HashMap<&'static str, BTreeMap<&'static str, usize>>,
    holding: Vec<&'static str>,
}

impl Model {
    fn held(&self, namespace: &str) -> usize {
        self.holding.iter().filter(|each| **each == namespace).count()
    }

    fn may_have(&self, namespace: &str, size: Size) -> bool {
        self.held(namespace) < size.share && self.waiting.iter().any(|(_, each)| *each == namespace)
    }

    /// Gives permits to waiting tasks until no task can get a permit. Checks the guarantees after each permit.
    fn settle(&mut self, turns: &mut Turns<(usize, &'static str)>, arrivals: &HashMap<usize, Ticket>, size: Size) {
        while let Some((arrival, namespace)) = turns.next() {
            let (ticket, _) = *self.waiting.iter().filter(|(_, each)| *each == namespace).min().expect("it waited");
            self.waiting.retain(|(each, _)| *each != ticket);
            assert_eq!(ticket, arrivals[&arrival], "within {namespace} the first one goes first");
            self.passed.remove(namespace);
            for other in NAMESPACES {
                if other != namespace && self.may_have(other, size) {
                    let passed = self.passed.entry(other).or_default().entry(namespace).or_default();
                    *passed += 1;
                    assert!(*passed <= 1, "{namespace} went twice before {other}, which waited");
                }
            }
            self.holding.push(namespace);
            assert!(self.held(namespace) <= size.share, "{namespace} has more than its share");
            assert!(self.holding.len() <= size.places, "more places are held than there are");
        }
        for namespace in NAMESPACES {
            if !self.may_have(namespace, size) {
                self.passed.remove(namespace);
            } else {
                assert_eq!(self.holding.len(), size.places, "{namespace} waits before a free place");
            }
        }
    }
}

proptest! {
    #[test]
    fn places_are_shared_as_promised(steps in steps(), places in 1..6_usize, share in 1..6_usize) {
        let size = Size { places, share };
        let (mut turns, mut model, mut arrivals) = (Turns::new(size), Model::default(), HashMap::new());
        for (arrival, step) in steps.into_iter().enumerate() {
            match step {
                Step::Wait(number, rank) => {
                    let namespace = NAMESPACES[number];
                    let ticket = turns.wait(namespace, rank, (arrival, namespace));
                    arrivals.insert(arrival, ticket);
                    model.waiting.push((ticket, namespace));
                }
                Step::Leave(number) if !model.waiting.is_empty() => {
                    let (ticket, namespace) = model.waiting.remove(number % model.waiting.len());
                    assert!(turns.leave(namespace, ticket));
                    assert!(!turns.leave(namespace, ticket), "it is not there any more");
                }
                Step::GiveBack(number) if !model.holding.is_empty() => {
                    let namespace = model.holding.remove(number % model.holding.len());
                    turns.give_back(namespace);
                }
                Step::Leave(_) | Step::GiveBack(_) => {}
            }
            model.settle(&mut turns, &arrivals, size);
        }
        for (ticket, namespace) in model.waiting {
            assert!(turns.leave(namespace, ticket));
        }
        model.holding.into_iter().for_each(|namespace| turns.give_back(namespace));
        assert!(turns.is_idle(), "something is kept of those who are gone");
    }
}

#[tokio::test]
async fn a_namespace_that_wants_all_leaves_places_to_others() {
    let pool = Pool::new(Size { places: 3, share: 2 });
    let mut greedy: Vec<_> = (0..20).map(|_| Box::pin(pool.place("greedy"))).collect();
    let mut held = Vec::new();
    for each in &mut greedy {
        if let std::task::Poll::Ready(place) = futures::poll!(each.as_mut()) {
            held.push(place);
        }
    }
    assert_eq!(held.len(), 2);
    let other = timeout(Duration::from_secs(5), pool.place("other")).await.expect("a place is left");
    drop((held, greedy, other));
    assert!(!pool.is_in_use());
}

#[tokio::test]
async fn who_is_dropped_with_a_place_that_it_has_not_taken_gives_it_back() {
    let pool = Pool::new(Size { places: 1, share: 1 });
    let first = pool.place("a").await;
    let mut second = Box::pin(pool.place("b"));
    assert!(futures::poll!(second.as_mut()).is_pending());
    // The pool gives the permit to the second task, which is never polled again. The third task must get the permit.
    drop(first);
    drop(second);
    let third = timeout(Duration::from_secs(5), pool.place("c")).await.expect("it was given back");
    drop(third);
    assert!(!pool.is_in_use());
}
