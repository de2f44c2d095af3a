use super::*;

#[test]
fn what_happened_stands_in_the_text_with_the_words_of_the_api() {
    let metrics = Metrics::new();
    metrics.allowed();
    let status = CommandExecutionStatus {
        phase: Phase::Rejected,
        reason: Some(Reason::NoMatchingRule),
        ..CommandExecutionStatus::default()
    };
    metrics.finished(&status);
    metrics.api_request("get_execution", "ok", Instant::now());
    let text = metrics.text();
    for line in [
        "writ_decisions_total{verdict=\"allowed\",reason=\"Allowed\"} 1",
        "writ_decisions_total{verdict=\"rejected\",reason=\"NoMatchingRule\"} 1",
        "writ_executions_finished_total{phase=\"Rejected\",reason=\"NoMatchingRule\"} 1",
        "writ_executions_finished_total{phase=\"OutcomeUnknown\",reason=\"Rebooted\"} 0",
        "writ_api_requests_total{operation=\"get_execution\",outcome=\"ok\"} 1",
        &format!("writ_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        "process_cpu_seconds_total ",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} in:\n{text}");
    }
}

#[test]
fn a_result_waits_until_it_is_dropped() {
    let metrics = Metrics::new();
    let waits = metrics.result_waits();
    assert!(metrics.text().contains("writ_results_waiting 1"));
    drop(waits);
    assert!(metrics.text().contains("writ_results_waiting 0"));
}
