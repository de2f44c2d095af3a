//! Hostile requests of `tests/policy/hostile.yaml`. Writ must deny each hostile request for the right reason, and allow
//! the other requests of the file. The cluster test `hostile_requests` sends the same requests to a real API server.

use self::file::File;
use super::*;

#[path = "../../../tests/policy/file.rs"]
mod file;

/// Minimum number of cases of each class in the file.
const CLASSES: &[(&str, usize)] = &[
    ("separators", 12),
    ("substitution", 10),
    ("redirection", 6),
    ("quoting", 10),
    ("globbing", 6),
    ("controls", 12),
    ("unicode", 10),
    ("options", 10),
    ("end-of-options", 5),
    ("paths", 12),
    ("assignments", 4),
    ("wrappers", 8),
    ("length", 12),
    ("nul", 5),
    ("integers", 12),
    ("enums", 10),
    ("patterns", 12),
    ("huge", 10),
    ("mixing", 15),
    ("environment", 12),
    ("action-types", 6),
    ("timeouts", 5),
    ("identity", 12),
    ("labels", 6),
    ("deny-evasions", 15),
];

fn rules(file: &File) -> RuleSet {
    let whitelists = file.whitelists.iter().map(|(name, rules)| compile(&whitelist(name, &rules.to_string())).into());
    let rules = RuleSet::new(whitelists.collect());
    let broken: Vec<_> = rules.whitelists().iter().flat_map(|whitelist| &whitelist.invalid_rules).collect();
    assert!(broken.is_empty() && rules.closed_by().is_none(), "{broken:?}");
    rules
}

fn verdict_of(case: &file::Request, rules: &RuleSet) -> Result<Verdict, RequestError> {
    let spec = serde_json::from_value(case.spec("web-1")).unwrap_or_else(|error| panic!("{}: {error}", case.shown()));
    let requester = case.requester("team").map(|(username, groups)| Requester { username, uid: String::new(), groups });
    let identity = requester.as_ref().map_or(Identity::Unknown, Identity::Known);
    Ok(decide(rules, &Request::parse(&spec)?, &case.labels, identity))
}

#[test]
fn every_hostile_request_is_denied_for_its_reason() {
    let file = file::read();
    let rules = rules(&file);
    let mut wrong = Vec::new();
    for case in &file.cases {
        let reason = match verdict_of(case, &rules) {
            Err(_) => "Malformed".to_owned(),
            Ok(Verdict::Deny(denial)) => format!("{:?}", denial.reason),
            Ok(Verdict::Allow(decision)) => format!("allowed: {:?}", decision.argv),
        };
        if Some(&reason) != case.expect.as_ref() {
            wrong.push(format!("{}: {reason}, not {:?}", case.shown(), case.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_file_has_enough_of_every_class() {
    let file = file::read();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &file.cases {
        *counts.entry(case.class.as_deref().expect("a class")).or_default() += 1;
    }
    for (class, least) in CLASSES {
        assert!(counts.remove(class).is_some_and(|count| count >= *least), "{class}: fewer than {least}");
    }
    assert!(counts.is_empty(), "give them a least number: {counts:?}");
    assert!(file.cases.len() >= 170 && file.allowed.len() >= 25);
}

#[test]
fn what_is_listed_is_allowed_and_runs_as_the_rule_says() {
    let file = file::read();
    let rules = rules(&file);
    assert!(file.allowed.iter().filter(|case| case.run).count() >= 5, "the cluster test runs too few");
    for case in &file.allowed {
        let decision =
            expect_allowed(verdict_of(case, &rules).unwrap_or_else(|error| panic!("{}: {error}", case.shown())));
        if let Some(argv) = &case.argv_is {
            assert_eq!(decision.argv, *argv, "{}", case.shown());
        }
    }
}
