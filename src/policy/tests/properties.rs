//! Properties of every policy and every request, tested with random policies and requests. `PROPTEST_CASES` sets the
//! number of cases (default 256). `hack/fuzz` tests more cases in the same way.

use proptest::prelude::*;

use super::model::{self, Source};
use super::oracle::{Question, World};
use super::*;

fn config() -> ProptestConfig {
    // Many random rules are invalid on purpose, so the number of rejected cases is not limited.
    ProptestConfig { failure_persistence: None, max_global_rejects: u32::MAX, ..ProptestConfig::default() }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..1200)
}

fn form(world: &World, spec: &CommandExecutionSpec) -> Option<Verdict> {
    world.judge(&Question { spec, labels: &BTreeMap::new(), requester: None })
}

/// The random cases result in verdicts of all kinds. Without all kinds, the property tests would prove little.
#[test]
fn the_cases_are_of_every_kind() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut state: u64 = 1;
    for _ in 0..400 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[1]
        })
        .take(1200)
        .collect();
        let source = &mut Source(&bytes);
        let world = World::new(model::policy(source));
        for _ in 0..8 {
            let spec = model::request(source, &world.lists);
            let (labels, requester) = (model::labels(source), model::requester(source));
            let verdict = world.judge(&Question { spec: &spec, labels: &labels, requester: requester.as_ref() });
            let kind = match verdict {
                None => "Malformed".to_owned(),
                Some(Verdict::Allow(_)) => "Allowed".to_owned(),
                Some(Verdict::Deny(denial)) => format!("{:?}", denial.reason),
            };
            *seen.entry(kind).or_default() += 1;
        }
    }
    let kinds = ["Malformed", "Allowed", "NoMatchingRule", "NotPermitted", "Denied", "Ambiguous", "PolicyBroken"];
    assert!(kinds.iter().all(|kind| seen.get(*kind).is_some_and(|count| *count >= 20)), "{seen:?}");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn values_that_fit_are_allowed_and_the_three_ways_give_the_same_decision(bytes in bytes()) {
        let source = &mut Source(&bytes);
        let mut list = model::policy(source).swap_remove(0);
        let rule = model::Rule { role: None, subjects: None, ..list.rules.swap_remove(0) };
        list.rules = vec![rule.clone()];
        let world = World::new(vec![list]);
        let values: Vec<String> = rule.parameters.iter().map(|values| model::fitting(source, values)).collect();
        let fits = rule.parameters.iter().zip(&values).all(|(known, value)| value.len() <= known.maximum.unwrap_or(256) as usize);
        prop_assume!(!world.in_force().is_empty() && fits && !world.is_closed());
        let [by_text, by_words, by_name] = model::three_ways(&rule, &values).map(|spec| form(&world, &spec));
        let Some(Verdict::Allow(decision)) = &by_words else { panic!("{by_words:?}") };
        let expected: Vec<String> = rule.run.iter().map(|word| model::expanded(word, &values)).collect();
        prop_assert_eq!(&decision.argv, &expected);
        prop_assert_eq!(&by_words, &by_name);
        // If a parameter has no placeholder in the text, a request by text uses the default of the parameter. The
        // decisions by text and by words can then differ. The test compares both decisions only if the text has all
        // placeholders.
        let has_all = |pieces: &Vec<model::Piece>| {
            (0..values.len()).all(|index| pieces.contains(&model::Piece::Place(index)))
        };
        if rule.text.as_ref().is_none_or(has_all) {
            prop_assert_eq!(&by_text, &by_words);
        }
    }

    #[test]
    fn what_is_decided_about_any_request_is_what_the_oracle_says(bytes in bytes()) {
        let source = &mut Source(&bytes);
        let world = World::new(model::policy(source));
        for _ in 0..8 {
            let spec = model::request(source, &world.lists);
            let (labels, requester) = (model::labels(source), model::requester(source));
            world.judge(&Question { spec: &spec, labels: &labels, requester: requester.as_ref() });
        }
    }

    #[test]
    fn no_policy_and_no_request_is_too_wild(bytes in bytes()) {
        super::wild::judge(&mut Source(&bytes));
    }
}
