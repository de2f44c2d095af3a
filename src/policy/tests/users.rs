use super::spoilt::problem;
use super::*;

/// `runAs` also accepts user names that useradd refuses, because Linux, sudo and directory services accept them.
#[test]
fn a_user_to_run_as_is_any_name_that_is_no_option_number_or_group() {
    let with = |user: &str| format!("- {{name: r, run: [/bin/true], runAs: '{user}'}}");
    for user in ["Root", "a.b", "_apt", "svc.deploy", "CORP\\deploy", "deploy@corp.example", "host$", "a-b_c+d", "1st"]
    {
        sound(&with(user));
    }
    let with_domain = format!("{}@corp.example", "a".repeat(40));
    sound(&with(&with_domain));
    let long = "a".repeat(33);
    for user in
        ["%a", "+a", "\\a", "a\\", "a:b", "a/b", "a`b", "a;b", "a|b", "a(b)", "a{b}", "a&b", "a<b", "a\"b", "$", &long]
    {
        assert!(matches!(problem(&with(user)), RuleError::RunAs), "{user}");
    }
}
