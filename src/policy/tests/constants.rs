//! Bytes that constants may contain but patterns must not admit: `'`, `\` and `!`. A program that builds shell text
//! from its words can misread these bytes. The author of a rule can know that a byte in a constant is harmless.

use super::*;

#[test]
fn constants_may_hold_quotes_backslashes_and_exclamation_marks() {
    let hard = r"'\!";
    let rule = serde_json::json!([{
        "name": "r",
        "workingDirectory": format!("/srv/{hard}"),
        "run": ["/usr/bin/printf", r"it's \d!\n", "--", "{v}"],
        "parameters": {"v": {"enum": [r"a\b", "c!", "d'e"]}},
        "environment": {"TZ": {"enum": [hard], "default": hard}},
    }]);
    let rules = sound(&rule.to_string());
    for form in [by_rule("r", &[("v", "d'e")]), argv(&["/usr/bin/printf", r"it's \d!\n", "--", "d'e"])] {
        let decision = allowed(&rules, &form);
        assert_eq!(decision.argv, ["/usr/bin/printf", r"it's \d!\n", "--", "d'e"]);
        assert_eq!(
            (decision.environment["TZ"].as_str(), decision.working_directory.as_deref()),
            (hard, Some(r"/srv/'\!"))
        );
    }
    for pattern in ["it's", r"a\\", "a!"] {
        let rule =
            serde_json::json!([{"name": "r", "run": ["/bin/echo", "{v}"], "parameters": {"v": {"pattern": pattern}}}]);
        let compiled = compile(&whitelist("web", &rule.to_string()));
        assert!(
            compiled.invalid_rules[0].problem.to_string().contains("only an enum may list"),
            "{:?}",
            compiled.invalid_rules
        );
    }
}
