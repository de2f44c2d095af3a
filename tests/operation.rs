//! Compares the dashboard, the alerts and the guide with the text of `/metrics`. A renamed metric must not leave an
//! alert behind that never fires.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what cannot be has to fail"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use writ::api::{CommandExecutionStatus, Phase, Reason};
use writ::telemetry::{Metrics, Purpose};

fn file(path: &str) -> String {
    std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of this repository")
}

/// Returns the text of `/metrics` after each event was recorded once.
fn scrape() -> String {
    let metrics = Metrics::new();
    metrics.allowed();
    metrics.reconciled("executions", Instant::now());
    metrics.reconcile_failed("executions", "unavailable");
    metrics.claimed(Duration::ZERO);
    metrics.adopted();
    let stream = json!({"bytes": 1, "sha256": "", "truncated": false, "encoding": "utf-8"});
    let output = json!({"stdout": stream, "stderr": stream, "incomplete": false});
    let finished = CommandExecutionStatus {
        phase: Phase::Succeeded,
        reason: Some(Reason::Completed),
        duration_ms: Some(1),
        output: Some(serde_json::from_value(output).expect("a record of output")),
        ..CommandExecutionStatus::default()
    };
    metrics.finished(&finished);
    metrics.result_lost("refused");
    metrics.live_output(1, 1);
    metrics.live_output_dropped("spill_budget", 1);
    metrics.executions(1, 1);
    metrics.machines("Online", 1);
    metrics.connected("connected", Some(Duration::ZERO));
    metrics.connections(Purpose::Commands, 1);
    metrics.session("opened");
    metrics.ssh_request("answered");
    metrics.api_request("get_execution", "ok", Instant::now());
    metrics.watch_failed("executions");
    metrics.lease_gap();
    metrics.clock_offset(0.5);
    metrics.namespaces_by_stamping(1, 0, 0);
    metrics.whitelists(1, 1);
    metrics.event("published");
    metrics.traces_exported("sent");
    metrics.gateway().request_started("/api/v1/me", "GET").answered(200);
    metrics.gateway().connection_dropped("late");
    metrics.gateway().tls_reloaded(false);
    metrics.gateway().session_refused("untrusted");
    metrics.text()
}

/// Returns the names of all series in a scrape.
fn exposed() -> BTreeSet<String> {
    let scrape = scrape();
    let series = scrape.lines().filter(|line| !line.starts_with('#'));
    series.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// Returns the words in a text that are names of metrics.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let is_name = |word: &&str| word.starts_with("writ_") || word.starts_with("process_");
    words.filter(is_name).map(str::to_owned).collect()
}

/// Returns the metric name of a series. For a histogram, this is the name without the suffix.
fn family(series: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| series.strip_suffix(suffix)).unwrap_or(series)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alerts {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default, rename = "for")]
    lasting: Option<String>,
    labels: Labels,
    annotations: Annotations,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    severity: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotations {
    summary: String,
    description: String,
    runbook: String,
}

#[test]
fn every_alert_uses_metrics_that_there_are_and_leads_to_a_chapter_that_there_is() {
    let alerts: Alerts = serde_saphyr::from_str(&file("charts/writ/files/alerts.yaml")).expect("rules as they must be");
    let (exposed, guide) = (exposed(), file("docs/guides/operation.md"));
    let group = &alerts.groups[0];
    assert_eq!((alerts.groups.len(), group.name.as_str()), (1, "writ"));
    let mut names = BTreeSet::new();
    for rule in &group.rules {
        let name = &rule.alert;
        assert!(names.insert(name.clone()), "{name} is there twice");
        let used = named(&rule.expr);
        assert!(!used.is_empty(), "{name} looks at nothing");
        for metric in used {
            assert!(exposed.contains(&metric), "{name}: there is no {metric}");
        }
        for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
            assert_eq!(rule.expr.matches(open).count(), rule.expr.matches(close).count(), "{name}: {open}{close}");
        }
        assert!(["info", "warning", "critical"].contains(&rule.labels.severity.as_str()), "{name}");
        assert!(rule.lasting.as_deref().is_none_or(|lasting| lasting.ends_with('m')), "{name}");
        assert!(!rule.annotations.summary.is_empty() && rule.annotations.description.len() > 60, "{name}");
        let anchor = format!("docs/guides/operation.md#{}", name.to_lowercase());
        assert_eq!(rule.annotations.runbook, anchor, "{name}");
        assert!(guide.contains(&format!("\n### {name}\n")), "the guide has no chapter {name}");
    }
}

#[test]
fn every_panel_of_the_dashboard_uses_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(&file("charts/writ/files/grafana-dashboard.json")).expect("JSON");
    let exposed = exposed();
    let mut expressions = Vec::new();
    collect(&dashboard, &mut expressions);
    assert!(expressions.len() > 20, "{} expressions", expressions.len());
    for expression in expressions {
        let used = named(&expression);
        assert!(!used.is_empty(), "{expression} looks at nothing");
        for metric in used {
            assert!(exposed.contains(&metric), "there is no {metric}: {expression}");
        }
    }
    let mut ids: Vec<i64> = dashboard["panels"].as_array().unwrap().iter().filter_map(|it| it["id"].as_i64()).collect();
    let panels = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), panels, "panels have IDs of their own");
}

fn collect(value: &Value, expressions: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            expressions.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| collect(field, expressions));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, expressions)),
        _ => {}
    }
}

#[test]
fn the_guide_says_what_every_metric_means_and_names_none_that_is_not_there() {
    let guide = file("docs/guides/operation.md");
    let rows: BTreeSet<String> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split(['`', '{']).next())
        .filter(|name| !named(name).is_empty())
        .map(str::to_owned)
        .collect();
    let families: BTreeSet<String> = exposed().iter().map(|series| family(series).to_owned()).collect();
    assert_eq!(rows, families);
}

#[test]
fn names_of_metrics_say_their_unit_and_whether_they_only_grow() {
    let scrape = scrape();
    for line in scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        assert!(name.starts_with("writ_") || name.starts_with("process_"), "{name}");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name} has no unit");
        assert!(kind != "counter" || scrape.contains(&format!("\n{name}_total")), "{name} is a counter");
    }
}

/// docs/guides/it-does-not-run.md has a row for each reason, except for the reasons of a successful run.
#[test]
fn every_reason_has_its_remedy_in_the_guide() {
    let guide = file("docs/guides/it-does-not-run.md");
    let definitions = writ::api::crds::all();
    let (_, definition) = definitions.iter().find(|(name, _)| name == "commandexecutions.yaml").expect("a definition");
    let definition = serde_json::to_value(definition).expect("JSON");
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/reason/enum";
    let reasons = definition.pointer(path).and_then(Value::as_array).expect("the reasons");
    assert!(reasons.len() > 40);
    let is_named = |reason: &str| guide.split(|each: char| !each.is_ascii_alphanumeric()).any(|word| word == reason);
    let missing: Vec<&str> = reasons
        .iter()
        .filter_map(Value::as_str)
        .filter(|reason| !["Claimed", "Started", "Completed"].contains(reason) && !is_named(reason))
        .collect();
    assert!(missing.is_empty(), "no row in docs/guides/it-does-not-run.md for {missing:?}");
}
