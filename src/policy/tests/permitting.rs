//! The list of rules that a requester can use on a Machine.

use super::*;

const RULES: &str = "
- name: restart
  description: Restarts a service.
  actionType: restart_service
  match: restart {unit}
  run: [/usr/bin/systemctl, restart, --, '{unit}']
  parameters:
    unit: {enum: [nginx.service, redis.service], description: The unit., default: nginx.service}
- {name: of-web, run: [/bin/true], machineSelector: {matchLabels: {role: web}}}
- {name: of-sre, run: [/bin/true, sre], subjects: [{kind: Group, name: sre}]}
- {name: as-root, run: [/bin/true, root], runAs: root, actionType: admin}
";

fn names(rules: &RuleSet, labels: &[(&str, &str)], identity: Identity<'_>) -> Vec<String> {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    permitted_rules(rules, &labels, identity).iter().map(|rule| rule.rule.to_owned()).collect()
}

#[test]
fn a_rule_is_listed_for_its_machines_and_subjects_only() {
    let (rules, sre, dev) = (sound(RULES), requester("jane", &["sre"]), requester("joe", &["dev"]));
    assert_eq!(names(&rules, &[], Identity::Known(&dev)), ["restart", "as-root"]);
    assert_eq!(names(&rules, &[("role", "web")], Identity::Known(&dev)), ["restart", "of-web", "as-root"]);
    assert_eq!(names(&rules, &[], Identity::Known(&sre)), ["restart", "of-sre", "as-root"]);
    for identity in [Identity::Unknown, Identity::Undecided] {
        assert_eq!(names(&rules, &[], identity), ["restart", "as-root"]);
    }
}

#[test]
fn a_deny_of_everything_hides_the_rules_that_it_forbids() {
    let jane = requester("jane", &["dev"]);
    for (deny, expected) in [
        ("{name: no, effect: Deny}", vec![]),
        ("{name: no, effect: Deny, actionType: admin}", vec!["restart"]),
        ("{name: no, effect: Deny, runAs: root}", vec!["restart"]),
        ("{name: no, effect: Deny, machineSelector: {matchLabels: {role: web}}}", vec!["restart", "as-root"]),
        ("{name: no, effect: Deny, subjects: [{kind: User, name: joe}]}", vec!["restart", "as-root"]),
        ("{name: no, effect: Deny, run: [/usr/bin/systemctl, restart, --, nginx.service]}", vec!["restart", "as-root"]),
    ] {
        let rules = policies(&[("web", RULES), ("zz", &format!("- {deny}"))]);
        assert_eq!(names(&rules, &[], Identity::Known(&jane)), expected, "{deny}");
    }
    // A Deny with subjects applies to everybody if the requester is not verified.
    let rules = policies(&[("web", RULES), ("zz", "- {name: no, effect: Deny, subjects: [{kind: User, name: joe}]}")]);
    assert!(names(&rules, &[], Identity::Unknown).is_empty());
}

#[test]
fn a_namespace_that_failed_closed_lists_no_rule() {
    let rules = policies(&[("web", RULES), ("zz", "- {name: no, effect: Deny, run: ['{x}']}")]);
    assert!(names(&rules, &[], Identity::Known(&requester("jane", &[]))).is_empty());
}

#[test]
fn a_listed_rule_describes_its_request_and_its_parameters() {
    let rules = sound(RULES);
    let all = permitted_rules(&rules, &BTreeMap::new(), Identity::Unknown);
    let restart = &all[0];
    assert_eq!((restart.whitelist, restart.action_type), ("web", "restart_service"));
    assert_eq!((restart.text.as_str(), restart.description), ("restart {unit}", Some("Restarts a service.")));
    assert_eq!(restart.run, ["/usr/bin/systemctl", "restart", "--", "{unit}"]);
    assert_eq!((restart.default_timeout_seconds, restart.maximum_timeout_seconds), (30, 3600));
    let unit = &restart.parameters[0];
    assert_eq!((unit.name, unit.description, unit.default), ("unit", Some("The unit."), Some("nginx.service")));
    assert_eq!(unit.values, AdmittedValues::OneOf(&["nginx.service".to_owned(), "redis.service".to_owned()]));
    assert_eq!((all[1].run_as, all[1].text.as_str()), (Some("root"), "/bin/true root"));
}
