//! Measures the time of a policy decision. Run it with `make bench`. `docs/benchmarks.md` contains the results.
//!
//! criterion prints the mean times and their changes since its last run. Before that, the benchmark prints a table that
//! includes the slowest decisions.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool for one purpose"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use writ::api::command_execution::{Requester, RuleRequest};
use writ::api::{CommandExecutionSpec, NameReference, Whitelist};
use writ::policy::{Identity, Request, RuleSet, Verdict, compile, decide};

/// Number of single decisions per row of the table.
const DECISIONS: usize = 200_000;
const RULES_OF_A_WHITELIST: usize = 20;
/// Patterns that are slow in other engines, each with a letter. A text of only this letter almost matches the pattern.
const HARD_PATTERNS: [(&str, &str); 4] =
    [("(a*)*b", "a"), ("(a|aa)+", "a"), ("(x+x+)+y", "x"), ("([ac]*a[ac]*){120}z", "a")];

struct World {
    rules: RuleSet,
    labels: BTreeMap<String, String>,
    requester: Requester,
}

impl World {
    fn new(rules: Vec<Value>) -> Self {
        let whitelists = rules.chunks(RULES_OF_A_WHITELIST).enumerate().map(|(index, rules)| {
            let whitelist = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "Whitelist",
                "metadata": {"name": format!("w{index:04}"), "namespace": "team"}, "spec": {"rules": rules}});
            let whitelist: Whitelist = serde_json::from_value(whitelist).unwrap();
            let compiled = compile(&whitelist);
            assert!(compiled.invalid_rules.is_empty() && compiled.closed.is_none(), "{:?}", compiled.invalid_rules);
            Arc::new(compiled)
        });
        let groups = ["dev", "sre", "system:authenticated"].map(str::to_owned).to_vec();
        Self {
            rules: RuleSet::new(whitelists.collect()),
            labels: BTreeMap::from([("role".to_owned(), "web".to_owned()), ("env".to_owned(), "prod".to_owned())]),
            requester: Requester { username: "jane".to_owned(), uid: String::new(), groups },
        }
    }

    fn decide(&self, request: &Request) -> Verdict {
        decide(&self.rules, black_box(request), &self.labels, Identity::Known(&self.requester))
    }

    fn is_allowed(&self, request: &Request) -> bool {
        matches!(self.decide(request), Verdict::Allow(_))
    }
}

/// Returns a rule as a team would write it. Every twentieth rule is a Deny.
fn realistic(index: usize) -> Value {
    let name = format!("rule-{index}");
    let subjects = json!([{"kind": "Group", "name": "sre"}, {"kind": "ServiceAccount", "name": "deployer"}]);
    match index % 20 {
        0..6 => json!({"name": name, "match": format!("check health of shop-{index}"),
            "run": ["/usr/bin/curl", "-fsS", "--max-time", "5", format!("http://127.0.0.1:8080/shop-{index}/health")]}),
        6..10 => json!({"name": name, "match": format!("systemctl {{verb}} shop-{index}.service"),
            "run": ["/usr/bin/systemctl", "{verb}", "--", format!("shop-{index}.service")], "runAs": "root",
            "parameters": {"verb": {"enum": ["start", "stop", "restart", "reload", "status"]}}}),
        10..13 => json!({"name": name, "match": format!("tail -n {{lines}} /var/log/shop-{index}.log"),
            "run": ["/usr/bin/tail", "-n", "{lines}", format!("/var/log/shop-{index}.log")],
            "parameters": {"lines": {"integer": {"minimum": 1, "maximum": 1000}, "default": "100"}}}),
        13..17 => json!({"name": name, "match": format!("journalctl -u shop-{index}-{{unit}} --since {{day}}"),
            "run": ["/usr/bin/journalctl", "-u", format!("shop-{index}-{{unit}}"), "--since={day}"],
            "parameters": {"unit": {"pattern": "[a-z][a-z0-9-]*"}, "day": {"pattern": "[0-9]{4}-[0-9]{2}-[0-9]{2}"}}}),
        17..19 => json!({"name": name, "match": format!("backup of shop-{index} to {{path}}"),
            "run": ["/usr/local/bin/backup", format!("--of=shop-{index}"), "--", "{path}"], "subjects": subjects,
            "machineSelector": {"matchLabels": {"role": "web"}},
            "parameters": {"path": {"pattern": "/srv(/[A-Za-z0-9][A-Za-z0-9._-]*)+"}}}),
        _ => json!({"name": name, "effect": "Deny", "run": ["/usr/bin/systemctl", "stop", "--", "{unit}"],
            "parameters": {"unit": {"pattern": format!("shop-{}[0-9]*\\.service", index * 1000)}}}),
    }
}

/// Returns a rule whose text starts like the texts of all other rules.
fn alike(index: usize) -> Value {
    match index % 20 {
        0..19 => json!({"name": format!("rule-{index}"), "match": format!("systemctl restart shop-{index}-{{part}}"),
            "run": ["/usr/bin/systemctl", "restart", "--", format!("shop-{index}-{{part}}.service")],
            "parameters": {"part": {"pattern": "[a-z]+"}}}),
        _ => realistic(index),
    }
}

/// Returns a rule with the same text as all other rules. Only its name and the allowed values of its parameter differ
/// from the other rules, as if each team had its own rule.
fn of_one_text(index: usize) -> Value {
    json!({"name": format!("rule-{index}"), "match": "systemctl restart {unit}",
        "run": ["/usr/bin/systemctl", "restart", "--", "{unit}"],
        "parameters": {"unit": {"enum": [format!("shop-{index}.service"), format!("shop-{index}.timer")]}}})
}

/// Returns the largest allowed pattern of a slow kind. A match takes longer if the pattern is larger.
fn largest_pattern() -> String {
    let pattern = |count: usize| format!("(a?){{{count}}}a{{{count}}}[ab]*[bc]");
    let is_taken = |count: &usize| {
        let parameters = json!({"p": {"pattern": pattern(*count), "maxLength": 4096}});
        let rules = json!([{"name": "r", "run": ["/bin/echo", "{p}"], "parameters": parameters}]);
        let whitelist = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "Whitelist",
            "metadata": {"name": "w"}, "spec": {"rules": rules}});
        compile(&serde_json::from_value::<Whitelist>(whitelist).unwrap()).invalid_rules.is_empty()
    };
    pattern((1..2000).rev().find(is_taken).unwrap())
}

fn nothing() -> CommandExecutionSpec {
    let spec = json!({"machineRef": NameReference::new("web-1"), "command": "x"});
    CommandExecutionSpec { command: None, ..serde_json::from_value(spec).unwrap() }
}

fn command(text: &str) -> Request {
    Request::parse(&CommandExecutionSpec { command: Some(text.to_owned()), ..nothing() }).unwrap()
}

fn argv(words: &[&str]) -> Request {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    Request::parse(&CommandExecutionSpec { argv: Some(words), ..nothing() }).unwrap()
}

fn by_rule(name: String, parameters: &[(&str, &str)]) -> Request {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let rule = Some(RuleRequest { name, parameters, whitelist: None });
    Request::parse(&CommandExecutionSpec { rule, ..nothing() }).unwrap()
}

/// Returns 64 requests. `make` creates each request from the index of a rule. The indexes are spread over all `count`
/// rules of the policy.
fn requests(count: usize, make: impl Fn(usize) -> Request) -> Vec<Request> {
    (0..64).map(|turn| make(turn * count / 64 / 20 * 20)).collect()
}

/// Returns groups of requests to a policy of `count` realistic rules. Each group has a name, and true if its requests
/// are allowed.
fn questions(count: usize) -> Vec<(&'static str, bool, Vec<Request>)> {
    let unit = |index: usize| format!("shop-{index}.service");
    vec![
        (
            "allowed, by text",
            true,
            requests(count, |index| command(&format!("journalctl -u shop-{}-cart --since 2026-11-21", index + 13))),
        ),
        (
            "allowed, by argv",
            true,
            requests(count, |index| argv(&["/usr/bin/systemctl", "restart", "--", &unit(index + 6)])),
        ),
        (
            "allowed, by rule",
            true,
            requests(count, |index| by_rule(format!("rule-{}", index + 17), &[("path", "/srv/backup/2026/11")])),
        ),
        ("denied, nothing near", false, requests(count, |_| command("rm -rf /"))),
        ("denied, nothing near, by argv", false, requests(count, |_| argv(&["/bin/rm", "-rf", "/"]))),
        ("denied, no such rule", false, requests(count, |_| by_rule("nothing".to_owned(), &[]))),
        ("denied, near", false, requests(count, |index| command(&format!("systemctl mask {}", unit(index + 6))))),
    ]
}

fn percentile(sorted: &[Duration], of_thousand: usize) -> f64 {
    sorted[(sorted.len() - 1) * of_thousand / 1000].as_nanos() as f64 / 1000.0
}

fn row(what: &str, count: usize, mut once: impl FnMut(usize)) {
    let mut times: Vec<Duration> = (0..count)
        .map(|turn| {
            let started = Instant::now();
            once(turn);
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    let [p50, p99, p999, most] = [500, 990, 999, 1000].map(|part| percentile(&times, part));
    println!("| {what} | {p50:.1} | {p99:.1} | {p999:.1} | {most:.0} |");
}

/// Returns a policy with this pattern, and a request with a text of `length` bytes: `go `, one letter many times, and
/// `ending`.
fn hard(pattern: &str, letter: &str, ending: &str, length: usize) -> (World, Request) {
    let world = World::new(vec![json!({"name": "hard", "match": "go {p}", "run": ["/bin/echo", "{p}"],
        "parameters": {"p": {"pattern": pattern, "maxLength": 4096}}})]);
    let value = letter.repeat(length - 3 - ending.len()) + ending;
    (world, command(&format!("go {value}")))
}

/// Returns a request with a text above the maximum length, which is parsed and refused.
fn hostile() -> CommandExecutionSpec {
    CommandExecutionSpec { command: Some("systemctl restart shop-6.service; ".repeat(2000)), ..nothing() }
}

/// Returns a request with a text of the maximum length that starts like the text of a rule.
fn longest() -> Request {
    command(&format!("journalctl -u shop-13-{}", "a".repeat(4096 - 22)))
}

/// Prints the distribution of the times, which criterion does not print.
fn table(_: &mut Criterion) {
    println!("\n| microseconds for one decision | p50 | p99 | p99.9 | max |\n|---|---:|---:|---:|---:|");
    for count in [100, 1_000, 10_000] {
        let world = World::new((0..count).map(realistic).collect());
        for (what, is_allowed, requests) in questions(count) {
            assert!(requests.iter().all(|request| world.is_allowed(request) == is_allowed), "{what}");
            row(&format!("{count} rules: {what}"), DECISIONS, |turn| {
                drop(black_box(world.decide(&requests[turn % requests.len()])))
            });
        }
        let world = World::new((0..count).map(alike).collect());
        let near = requests(count, |index| command(&format!("systemctl restart shop-{index}x")));
        row(&format!("{count} rules that begin alike: denied"), DECISIONS, |turn| {
            drop(black_box(world.decide(&near[turn % near.len()])))
        });
    }
    let world = World::new((0..1_000).map(realistic).collect());
    let spec = hostile();
    row("64 KiB of text, parsed and refused", 20_000, |_| drop(black_box(Request::parse(&spec))));
    let request = longest();
    row("4096 bytes of text, 1000 rules", 20_000, |_| drop(black_box(world.decide(&request))));
    let world = World::new((0..1_000).map(of_one_text).collect());
    let named = requests(1_000, |index| command(&format!("systemctl restart shop-{index}.timer")));
    row("1000 rules of one text, other values: allowed", 20_000, |turn| {
        drop(black_box(world.decide(&named[turn % named.len()])))
    });
    let unknown = command("systemctl restart nothing.service");
    row("1000 rules of one text, other values: denied", 20_000, |_| drop(black_box(world.decide(&unknown))));
    let largest = largest_pattern();
    for length in [256, 4096] {
        let (world, request) = hard(&largest, "a", "", length);
        row(&format!("the largest pattern, `{largest}`, and {length} bytes"), 300, |_| {
            drop(black_box(world.decide(&request)))
        });
    }
    for (pattern, letter) in HARD_PATTERNS {
        for length in [256, 4096] {
            let (world, request) = hard(pattern, letter, "!", length);
            assert!(!world.is_allowed(&request));
            row(&format!("`{}` and {length} bytes", pattern.replace('|', "\\|")), 20_000, |_| {
                drop(black_box(world.decide(&request)))
            });
        }
    }
    println!();
}

fn decisions(criterion: &mut Criterion) {
    for count in [100, 1_000, 10_000] {
        let world = World::new((0..count).map(realistic).collect());
        let mut group = criterion.benchmark_group(format!("{count} rules"));
        group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        for (what, _, requests) in questions(count) {
            let mut turn = 0;
            group.bench_function(what, |bencher| {
                bencher.iter(|| {
                    turn += 1;
                    world.decide(&requests[turn % requests.len()])
                });
            });
        }
    }
}

criterion_group!(all, table, decisions);
criterion_main!(all);
