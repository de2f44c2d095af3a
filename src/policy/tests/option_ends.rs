//! Tests of the word `--`: cases in which `--` certainly ends the options, and the messages about all other cases.

use super::*;

fn rule(run: &str) -> String {
    rule_with(run, "p: {pattern: '[a-z-]+'}")
}

fn rule_with(run: &str, parameters: &str) -> String {
    format!("- {{name: r, run: {run}, parameters: {{{parameters}}}}}")
}

#[track_caller]
fn problem(rules: &str) -> RuleError {
    let compiled = compile(&whitelist("web", rules));
    compiled.invalid_rules.first().unwrap_or_else(|| panic!("in force: {rules}")).problem.clone()
}

#[track_caller]
fn may_be_a_value(run: &str, of: &str) {
    match problem(&rule(run)) {
        RuleError::DashesOfAnOption { option, .. } => assert_eq!(option, of, "{run}"),
        other => panic!("{run}: {other}"),
    }
}

#[test]
fn two_dashes_that_may_be_the_value_of_an_option_do_not_end_the_options() {
    may_be_a_value("[/bin/tar, -xf, --, '{p}']", "-xf");
    may_be_a_value("[/bin/tar, xf, --, '{p}']", "xf");
    may_be_a_value("[/bin/tar, cbf, '20', --, '{p}']", "cbf");
    may_be_a_value("[/usr/bin/sort, -o, --, '{p}']", "-o");
    may_be_a_value("[/usr/bin/sort, -ro, --, '{p}']", "-ro");
    may_be_a_value("[/usr/bin/sort, --output, --, '{p}']", "--output");
    may_be_a_value("[/usr/bin/sort, --outp, --, '{p}']", "--outp");
    may_be_a_value("[/usr/bin/git, commit, -m, --, '{p}']", "-m");
    may_be_a_value("[/usr/bin/grep, -e, --, '{p}']", "-e");
    may_be_a_value("[/usr/bin/grep, -re, --, '{p}']", "-re");
    may_be_a_value("[/usr/local/bin/backup, --to, --, '{p}']", "--to");
    may_be_a_value("[/usr/local/bin/backup, -v, --, '{p}']", "-v");
    may_be_a_value("[/bin/head, -n, --, '{p}']", "-n");
    may_be_a_value("[/usr/bin/kubectl, -n, --, get, '{p}']", "-n");
    may_be_a_value("[/usr/bin/tail, -s, --, x, '{p}']", "-s");
    may_be_a_value("[/usr/bin/helm, list, --version, --, '{p}']", "--version");
    // The requester chooses a letter of the option, so the option can take the `--` as its value.
    let two = |word: &str, o: &str| {
        rule_with(&format!("[/usr/bin/sort, '{word}', --, '{{p}}']"), &format!("o: {o}, p: {{pattern: '[a-z-]+'}}"))
    };
    for (word, o) in [
        ("-{o}", "{pattern: '[a-z]+'}"),
        ("-r{o}", "{pattern: '[a-z]+'}"),
        ("-{o}", "{enum: [r, o]}"),
        ("--{o}", "{pattern: '[a-z]+'}"),
    ] {
        assert!(matches!(problem(&two(word, o)), RuleError::DashesOfAnOption { .. }), "{word} {o}");
    }
    // The word has too many texts to check each text. It counts as an option if one of its texts begins with a dash.
    let many: Vec<String> = (0..70).map(|number| format!("x{number}")).collect();
    let with = |more: &str| two("{o}", &format!("{{enum: [{}{more}]}}", many.join(", ")));
    assert!(matches!(problem(&with(", -o")), RuleError::DashesOfAnOption { option, .. } if option == "{o}"));
    sound(&with(""));
    for (word, o) in [
        ("-{o}", "{enum: [r, n]}"),
        ("--{o}", "{enum: [reverse, unique]}"),
        ("--key={o}", "{pattern: '[0-9]+'}"),
        ("-k{o}", "{pattern: '[0-9]+'}"),
        ("-k{o}", "{integer: {maximum: 9}}"),
    ] {
        sound(&two(word, o));
    }
}

#[test]
fn usual_forms_are_taken() {
    for run in [
        "[/bin/rm, --, '{p}']",
        "[/bin/rm, -f, --, '{p}']",
        "[/bin/rm, -rf, --, '{p}']",
        "[/usr/bin/grep, -F, --, '{p}', /var/log/app.log]",
        "[/usr/bin/grep, -c, -i, --, '{p}', /var/log/app.log]",
        "[/usr/bin/grep, -A, '3', --, '{p}', /var/log/app.log]",
        "[/usr/bin/grep, -A3, --, '{p}', /var/log/app.log]",
        "[/usr/bin/grep, --fixed-strings, --, '{p}', /var/log/app.log]",
        "[/usr/bin/systemctl, restart, --, '{p}']",
        "[/usr/bin/systemctl, --no-block, restart, --, '{p}']",
        "[/usr/bin/systemctl, restart, --no-block, --, '{p}']",
        "[/usr/bin/tail, -n, '50', --, '{p}']",
        "[/usr/bin/tail, -n50, --, '{p}']",
        "[/usr/bin/tail, --lines=50, --, '{p}']",
        "[/bin/ls, -la, --, '{p}']",
        "[/bin/cp, -a, --, /srv/a, '{p}']",
        "[/bin/tar, -xf, /srv/a.tar, --, '{p}']",
        "[/bin/tar, xf, /srv/a.tar, --, '{p}']",
        "[/bin/tar, --file=/srv/a.tar, -x, --, '{p}']",
        "[/usr/bin/sort, -o, /srv/out, --, '{p}']",
        "[/usr/bin/sort, -t, '-', --, '{p}']",
        "[/usr/bin/sort, -o, --, --, '{p}']",
        "[/usr/bin/git, checkout, --quiet, --, '{p}']",
        "[/usr/bin/pkill, -TERM, -f, --, '{p}']",
        "[/usr/bin/pkill, -HUP, --, '{p}']",
        "[/bin/kill, '-9', --, '{p}']",
        "[/usr/bin/apt-get, install, -y, --, '{p}']",
        "[/usr/bin/logger, -t, deploy, --, '{p}']",
        "[/usr/bin/rsync, -a, --delete, --, '{p}', /srv/backup]",
        "[/usr/bin/curl, -fsS, --max-time, '5', --, '{p}']",
        "[/usr/local/bin/deploy, --force, --, '{p}']",
        "[/usr/local/bin/deploy, web, --, '{p}']",
        "[/bin/sh, /opt/deploy.sh, --, '{p}']",
        "[/usr/bin/nice, -n, '5', /bin/rm, --, '{p}']",
    ] {
        sound(&rule(run));
    }
    // Both rules are valid: no value of the pattern begins with a dash, and Writ does not check the values of an enum.
    sound(&rule_with("[/bin/tar, -xf, --, '{p}']", "p: {pattern: '[a-z][a-z-]*'}"));
    sound(&rule_with("[/bin/tar, -xf, --, '{p}']", "p: {enum: [--all]}"));
}

/// The `--` of a launcher does not end the options of the program that the launcher starts.
#[test]
fn two_dashes_before_a_program_that_another_one_runs_are_not_its_own() {
    for run in [
        "[/usr/bin/nice, --, /bin/rm, '{p}']",
        "[/usr/bin/timeout, '5', --, /bin/rm, '{p}']",
        "[/usr/bin/nohup, --, /usr/bin/nice, --, /bin/rm, '{p}']",
        "[/bin/bash, --, /opt/deploy.sh, '{p}']",
        "[/usr/bin/npm, run, build, --, '{p}']",
    ] {
        assert!(matches!(problem(&rule(run)), RuleError::OptionAsOperand { .. }), "{run}");
    }
    sound(&rule("[/usr/bin/timeout, '5', --, /bin/rm, --, '{p}']"));
    assert!(matches!(
        problem(&rule("[/usr/bin/nice, /usr/bin/sort, -o, --, '{p}']")),
        RuleError::DashesOfAnOption { .. }
    ));
}

/// Each message contains a remedy. With the remedy, the rule is in force.
#[test]
fn who_follows_the_messages_has_a_rule_in_force() {
    let pattern = "[A-Za-z0-9_][A-Za-z0-9._-]*";
    let told = problem(&rule("[/bin/tar, -xf, --, '{p}']")).to_string();
    assert!(told.contains("admits \"-\" at the beginning") && told.contains(pattern), "{told}");
    assert!(told.contains("write that value between -xf and --"), "{told}");
    sound(&rule("[/bin/tar, -xf, /srv/a.tar, --, '{p}']"));
    let told = problem(&rule("[/bin/rm, '{p}']")).to_string();
    assert!(told.contains(pattern) && told.contains("put -- before it in run"), "{told}");
    sound(&rule("[/bin/rm, --, '{p}']"));
    // The message does not recommend `--` if `--` does not help for the program.
    for program in ["/usr/bin/find", "/bin/dd", "/usr/bin/ps", "/usr/sbin/ip", "/usr/bin/npm"] {
        let told = problem(&rule(&format!("[{program}, '{{p}}']"))).to_string();
        assert!(!told.contains("put --"), "{told}");
    }
    // No check refuses `pattern`, which the messages recommend.
    let shown = |run: &str| rule_with(run, &format!("p: {{pattern: '{pattern}'}}"));
    sound(&shown("[/bin/tar, -xf, --, '{p}']"));
    for run in ["[/bin/rm, '{p}']", "[/bin/cat, '/srv/{p}']", "[/usr/bin/find, '{p}']"] {
        let findings = lint(&whitelist("web", &shown(run)));
        assert!(findings.is_sound() && findings.warnings.is_empty(), "{:?} {:?}", findings.errors(), findings.warnings);
    }
    // The message about a pattern that admits a forbidden byte also recommends `pattern`.
    let told = problem(&rule_with("[/bin/cat, '/srv/{p}']", "p: {pattern: '.+'}")).to_string();
    assert!(told.contains(pattern), "{told}");
    // The message about `..` recommends a pattern for a path below a directory.
    let told = problem(&rule_with("[/bin/cat, '/srv/{p}']", "p: {pattern: '[a-z./]+'}")).to_string();
    let path = "[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*";
    assert!(told.contains(path) && told.contains("run[1] is \"/srv/..\""), "{told}");
    let findings = lint(&whitelist("web", &rule_with("[/bin/cat, '/srv/{p}']", &format!("p: {{pattern: '{path}'}}"))));
    assert!(findings.is_sound() && findings.warnings.is_empty(), "{:?}", findings.warnings);
    sound(&rule_with("[/bin/cat, '/srv/{p}']", "p: {pattern: '[a-z./]+', allowParentDirectory: true}"));
}

#[test]
fn who_follows_the_messages_has_a_rule_that_is_read_in_one_way() {
    let two = |text: &str, run: &str, a: &str| {
        format!(
            "- {{name: r, {text}run: [/bin/echo, {run}], parameters: {{a: {{pattern: '{a}'}}, b: {{pattern: b}}}}}}"
        )
    };
    let told = |rules: String, of: &str| assert!(problem(&rules).to_string().contains(of), "{}", problem(&rules));
    told(two("match: 'copy {a} {b}', ", "'{a}', '{b}'", "[a-z ]+"), "move it to the end of match");
    sound(&two("match: 'copy {b} {a}', ", "'{a}', '{b}'", "[a-z ]+"));
    told(two("", "'{a}', '{b}'", "[a-z ]+"), "a match of its own with this parameter at the end");
    told(two("match: 'x {b} {a}', ", "'{a}{b}'", "[a-z]+"), "give what follows it a word of its own");
    sound(&two("match: 'x {b} {a}', ", "'{a}', '{b}'", "[a-z]+"));
}

#[test]
fn dashes_that_an_option_takes_for_certain_are_warned_of() {
    let warned = |run: &str| {
        let findings = lint(&whitelist("web", &rule_with(run, "p: {pattern: '[a-z]+'}")));
        findings.warnings.iter().any(|warning| warning.message.contains("not the end of the options"))
    };
    assert!(warned("[/bin/tar, -xf, --, '{p}']") && warned("[/usr/bin/sort, -o, --, '{p}']"));
    assert!(!warned("[/bin/rm, -f, --, '{p}']") && !warned("[/usr/bin/grep, --, -e, --, '{p}']"));
}

#[test]
fn two_dashes_behind_an_option_of_a_launcher_end_its_options_if_that_takes_no_value() {
    let rule = |option: &str| rule(&format!("[/usr/bin/flock, {option}, --, '{{p}}', /bin/true]"));
    for option in ["-n", "-xn", "--nonblock", "-o", "-w5", "--timeout=5"] {
        sound(&rule(option));
    }
    for option in ["-w", "--timeout", "-nw", "--later", "-Z"] {
        let problem = problem(&rule(option));
        assert!(matches!(problem, RuleError::DashesOfAnOption { .. }), "{option}: {problem}");
    }
    // The `--` is the value of `-k`, so `{p}` is the duration.
    may_be_a_value("[/usr/bin/timeout, -k, --, '{p}', /bin/true]", "-k");
}
