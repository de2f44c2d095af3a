use std::collections::BTreeMap;

use super::*;
use crate::api::execution_status::{Encoding, OutputHolder, StreamRecord};
use crate::api::{CommandExecutionSpec, Whitelist, WhitelistSpec};
use crate::policy;

fn execution() -> CommandExecution {
    CommandExecution::new("x", CommandExecutionSpec::with_command("say hello"))
}

/// Returns an execution whose decision has the given `drain_seconds`.
fn execution_with(drain_seconds: u32) -> CommandExecution {
    let rule =
        format!("[{{name: hello, match: say hello, run: [/bin/echo], output: {{drainSeconds: {drain_seconds}}}}}]");
    let spec = WhitelistSpec { rules: serde_saphyr::from_str(&rule).unwrap(), ..WhitelistSpec::default() };
    let rules = policy::RuleSet::new(vec![policy::compile(&Whitelist::new("web", spec)).into()]);
    let mut execution = execution();
    let request = policy::Request::parse(&execution.spec).unwrap();
    let verdict = policy::decide(&rules, &request, &BTreeMap::new(), policy::Identity::Unknown);
    let policy::Verdict::Allow(decision) = verdict else { panic!("denied: {verdict:?}") };
    let decision = Some(decision.record(MicroTime(Timestamp::UNIX_EPOCH)));
    execution.status = Some(CommandExecutionStatus { decision, ..CommandExecutionStatus::default() });
    execution
}

/// No end is before its start, even if a clock is set back by minutes or the clocks of two processes differ slightly.
#[test]
fn no_record_ends_before_it_began() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let mut execution = execution_with(1);
    execution.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at("2026-11-21T12:10:00Z")));
    let early = at("2026-11-21T12:09:59.6Z");
    let claim = crate::api::execution_status::Claim {
        token: "token".to_owned(),
        holder: "team/writ-1".to_owned(),
        mode: crate::api::ExecutionMode::Direct,
        dispatched_time: MicroTime(early),
        not_after_time: None,
    };
    let machine = crate::api::execution_status::MachineRecord {
        name: "web-1".to_owned(),
        uid: "uid".to_owned(),
        generation: 1,
        address: "192.0.2.1".to_owned(),
        user: "deploy".to_owned(),
        host_key_fingerprint: "SHA256:key".to_owned(),
    };
    let rules = execution.status.as_ref().and_then(|status| status.decision.clone());
    execution.status = Some(CommandExecutionStatus {
        claim: Some(claim),
        machine: Some(machine),
        decision: rules,
        ..CommandExecutionStatus::default()
    });
    for started in ["2026-11-21T12:00:00Z", "2026-11-21T12:09:59.7Z", "2026-11-21T12:10:30Z"] {
        let mut outcome = outcome(Termination::Exited { code: 0 }, None);
        outcome.started = Some(at(started));
        let running = crate::execution::with_start(&execution, at(started), early);
        let status = conclude(&execution, outcome, early);
        let (start, end) = (status.start_time.unwrap().0, status.completion_time.unwrap().0);
        assert!(at("2026-11-21T12:10:00Z") <= start && start <= end, "{started}: {start} {end}");
        assert!(running.start_time.unwrap().0 >= at("2026-11-21T12:10:00Z"));
    }
    let refused = conclude(&execution, outcome(not_confirmed(), None), early);
    assert_eq!(refused.completion_time.unwrap().0, at("2026-11-21T12:10:00Z"));
}

fn not_confirmed() -> Termination {
    Termination::Unknown { reason: Reason::StartNotConfirmed, problem: "it may have run".to_owned() }
}

fn concluded(ending: Termination, stop_cause: Option<StopCause>) -> CommandExecutionStatus {
    conclude(&execution(), outcome(ending, stop_cause), "2026-11-21T12:00:01Z".parse().unwrap())
}

fn outcome(ending: Termination, stop_cause: Option<StopCause>) -> CommandOutcome {
    let stream = StreamRecord {
        bytes: 0,
        sha256: String::new(),
        truncated: false,
        redacted: false,
        stored: false,
        not_stored: None,
        encoding: Encoding::Utf8,
    };
    let started = !matches!(ending, Termination::Refused(_)) && ending != not_confirmed();
    CommandOutcome {
        ending,
        stop_cause,
        no_processes_left: false,
        started: started.then(|| "2026-11-21T12:00:00Z".parse().unwrap()),
        duration_ms: Some(7),
        stdout: "out".to_owned(),
        stderr: String::new(),
        output: OutputRecord {
            stdout: stream.clone(),
            stderr: stream,
            incomplete: false,
            incomplete_reason: None,
            held_by: Vec::new(),
            recording: None,
        },
    }
}

/// Returns the message of a command that exited with 0 and whose output is incomplete.
fn message_about(reason: IncompleteReason, held_by: Vec<OutputHolder>, execution: &CommandExecution) -> String {
    let mut outcome = outcome(Termination::Exited { code: 0 }, None);
    outcome.output = OutputRecord { incomplete: true, incomplete_reason: Some(reason), held_by, ..outcome.output };
    let status = conclude(execution, outcome, "2026-11-21T12:00:01Z".parse().unwrap());
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    let message = status.message.unwrap();
    assert_eq!((status.phase, ready.message.as_str()), (Phase::Succeeded, message.as_str()));
    message
}

const REASONS: [IncompleteReason; 7] = [
    IncompleteReason::StillOpen,
    IncompleteReason::ReaderEnded,
    IncompleteReason::DiskFull,
    IncompleteReason::FileSizeLimit,
    IncompleteReason::OverLimit,
    IncompleteReason::Removed,
    IncompleteReason::NotReceived,
];

const OVER: StopCause = StopCause::OutputLimit { maximum_bytes: 65_536 };

fn observed_endings() -> Vec<Termination> {
    vec![
        Termination::Exited { code: 0 },
        Termination::Exited { code: 255 },
        Termination::Signalled { signal: "TERM".to_owned() },
    ]
}

fn unobserved_endings() -> Vec<Termination> {
    let problem = LaunchProblem { reason: Reason::ExecRequestRefused, message: "no".to_owned() };
    vec![
        Termination::Refused(problem),
        not_confirmed(),
        Termination::ConnectionLost { problem: "reset".to_owned() },
        Termination::NoExitStatus,
        Termination::StopNotConfirmed,
        Termination::HolderStopped,
        Termination::StoppedExitUnknown,
        Termination::Unknown { reason: Reason::Rebooted, problem: "booted anew".to_owned() },
        Termination::Unknown { reason: Reason::ConnectionLost, problem: "out of reach".to_owned() },
    ]
}

#[test]
fn exit_code_zero_and_only_that_is_success() {
    assert_eq!(concluded(Termination::Exited { code: 0 }, None).phase, Phase::Succeeded);
    for ending in observed_endings().into_iter().skip(1).chain(unobserved_endings()) {
        assert_ne!(concluded(ending.clone(), None).phase, Phase::Succeeded, "{ending:?}");
    }
    for cause in [StopCause::Timeout, StopCause::Cancel, OVER] {
        assert_ne!(concluded(Termination::Exited { code: 0 }, Some(cause)).phase, Phase::Succeeded);
    }
}

#[test]
fn an_exit_code_or_signal_is_recorded_where_and_only_where_it_was_observed() {
    for told in [None, Some(StopCause::Timeout), Some(StopCause::Cancel), Some(OVER)] {
        for ending in unobserved_endings() {
            let status = concluded(ending.clone(), told);
            assert_eq!((status.exit_code, status.signal), (None, None), "{ending:?}");
        }
        for ending in observed_endings() {
            let status = concluded(ending.clone(), told);
            assert!(status.exit_code.is_some() != status.signal.is_some(), "{ending:?}");
        }
    }
}

#[test]
fn every_outcome_is_finished_and_has_a_reason_and_a_message() {
    for told in [None, Some(StopCause::Timeout), Some(StopCause::Cancel), Some(OVER)] {
        for ending in observed_endings().into_iter().chain(unobserved_endings()) {
            let status = concluded(ending, told);
            assert!(status.phase.is_finished() && status.completion_time.is_some());
            assert!(status.reason.is_some() && status.message.is_some_and(|message| !message.is_empty()));
        }
    }
}

#[test]
fn unconfirmed_stop_may_still_run() {
    for (cause, phase) in [(StopCause::Timeout, Phase::TimedOut), (StopCause::Cancel, Phase::Cancelled)] {
        let lost = Termination::ConnectionLost { problem: "reset".to_owned() };
        for ending in [Termination::StopNotConfirmed, Termination::NoExitStatus, Termination::HolderStopped, lost] {
            let status = concluded(ending, Some(cause));
            assert_eq!((status.phase, status.reason), (phase, Some(Reason::RemoteMayStillRun)));
            assert!(status.message.is_some_and(|message| message.contains("may still run")));
        }
        let status = concluded(Termination::Signalled { signal: "KILL".to_owned() }, Some(cause));
        assert_eq!((status.phase, status.reason), (phase, Some(Reason::Stopped)));
    }
}

#[test]
fn output_over_the_limit_fails_however_the_command_ended() {
    for ending in observed_endings() {
        let status = concluded(ending.clone(), Some(OVER));
        assert_eq!((status.phase, status.reason), (Phase::Failed, Some(Reason::OutputLimitExceeded)), "{ending:?}");
        let message = status.message.unwrap();
        assert!(message.contains("65536 bytes") && message.contains("left behind may still run"), "{message}");
        // The message mentions no stop request, because the command perhaps ended before the request.
        assert!(!message.contains("stop request"), "{message}");
    }
    let lost = Termination::ConnectionLost { problem: "reset".to_owned() };
    for ending in [Termination::StopNotConfirmed, Termination::NoExitStatus, Termination::HolderStopped, lost] {
        let status = concluded(ending.clone(), Some(OVER));
        assert_eq!((status.phase, status.reason), (Phase::Failed, Some(Reason::OutputLimitExceeded)), "{ending:?}");
        let message = status.message.unwrap();
        assert!(message.contains("65536 bytes") && message.contains("it may still run on the machine"), "{message}");
    }
}

#[test]
fn unobserved_end_is_unknown() {
    for ending in unobserved_endings().into_iter().skip(1) {
        assert_eq!(concluded(ending.clone(), None).phase, Phase::OutcomeUnknown, "{ending:?}");
    }
}

#[test]
fn a_start_that_was_not_confirmed_is_unknown_whatever_it_was_told() {
    let status = concluded(not_confirmed(), Some(StopCause::Timeout));
    assert_eq!((status.phase, status.start_time, status.stdout), (Phase::OutcomeUnknown, None, None));
}

/// The command itself can also write the text of sudo's error, so the hint changes only `status.message`.
#[test]
fn words_of_sudo_are_explained_where_it_runs_as_another_user() {
    let mut execution = execution_with(1);
    let message = |execution: &CommandExecution, code: u32, stdout: &str, stderr: &str| {
        let mut outcome = outcome(Termination::Exited { code }, None);
        (outcome.stdout, outcome.stderr) = (stdout.to_owned(), stderr.to_owned());
        let status = conclude(execution, outcome, "2026-11-21T12:00:01Z".parse().unwrap());
        assert_eq!((status.phase, status.exit_code), (Phase::Failed, Some(i64::from(code))));
        status.message.unwrap()
    };
    let words = "sudo: a password is required\n";
    assert!(!message(&execution, 1, "", words).contains("sudoers"), "it runs as the login user");
    execution.status.as_mut().unwrap().decision.as_mut().unwrap().run_as = Some("deploy".to_owned());
    assert!(message(&execution, 1, "", words).contains(r#"`LOGIN-USER ALL=(deploy) NOPASSWD: /bin/echo ""`"#));
    for (code, stdout, stderr) in
        [(2, "", words), (1, "out", words), (1, "", "no\n"), (1, "", "x\nsudo: a password is required\n")]
    {
        assert!(!message(&execution, code, stdout, stderr).contains("sudoers"), "{code} {stdout} {stderr}");
    }
}

#[test]
fn signal_without_a_name_is_described() {
    let message = |signal: &str| concluded(Termination::Signalled { signal: signal.to_owned() }, None).message.unwrap();
    assert!(message("XFSZ").starts_with("ended by signal XFSZ "));
    assert!(
        message("SIG@openssh.com").starts_with("ended by a signal that the SSH server of the machine does not name (")
    );
}

#[test]
fn unknown_outcome_stays_unknown_after_a_stop_request() {
    for reason in [Reason::Rebooted, Reason::MachineChanged, Reason::RecordLost] {
        for told in [None, Some(StopCause::Timeout), Some(StopCause::Cancel)] {
            let status = concluded(Termination::Unknown { reason, problem: "why".to_owned() }, told);
            assert_eq!((status.phase, status.reason), (Phase::OutcomeUnknown, Some(reason)));
        }
    }
    let out_of_reach = Termination::Unknown { reason: Reason::ConnectionLost, problem: "why".to_owned() };
    let status = concluded(out_of_reach, Some(StopCause::Cancel));
    assert_eq!((status.phase, status.reason), (Phase::Cancelled, Some(Reason::RemoteMayStillRun)));
}

#[test]
fn stopped_command_without_exit_code_is_stopped() {
    let status = concluded(Termination::StoppedExitUnknown, Some(StopCause::Timeout));
    assert_eq!((status.phase, status.reason, status.exit_code), (Phase::TimedOut, Some(Reason::Stopped), None));
}

#[test]
fn output_limit_message_does_not_claim_a_stop_request() {
    let status = concluded(Termination::Exited { code: 0 }, Some(OVER));
    assert_eq!(
        status.message.as_deref(),
        Some(
            "the command wrote more than decision.output.maximumBytes (65536 bytes) and ended with exit code 0; \
             processes that it left behind may still run"
        )
    );
    let outcome = CommandOutcome { no_processes_left: true, ..outcome(Termination::Exited { code: 3 }, Some(OVER)) };
    let status = conclude(&execution(), outcome, "2026-11-21T12:00:01Z".parse().unwrap());
    assert_eq!(
        status.message.as_deref(),
        Some(
            "the command wrote more than decision.output.maximumBytes (65536 bytes) and ended with exit code 3; \
             no process of the command was found on the machine any more"
        )
    );
}

#[test]
fn the_message_names_the_processes_that_held_the_output_open() {
    let holder = |process_id, name: &str| OutputHolder { process_id, name: name.to_owned() };
    let held_by = vec![holder(1234, "sleep"), holder(88, "nginx")];
    let message = message_about(IncompleteReason::StillOpen, held_by, &execution_with(2));
    assert_eq!(
        message,
        "exit code 0 in 7 ms; the output is incomplete: processes still held it open after the wait of 2 s: \
         sleep (1234), nginx (88)"
    );
    let still_open = |execution: &CommandExecution| message_about(IncompleteReason::StillOpen, Vec::new(), execution);
    assert!(still_open(&execution_with(60)).ends_with("processes still held it open after the wait of 60 s"));
    assert!(still_open(&execution_with(0)).ends_with("processes still held it open after the exit of the command"));
    assert!(still_open(&execution()).ends_with("processes still held it open after the wait"));
}

#[test]
fn every_cause_of_an_incomplete_output_has_a_text_of_its_own() {
    let mut messages: Vec<_> =
        REASONS.into_iter().map(|reason| message_about(reason, Vec::new(), &execution_with(2))).collect();
    for message in &messages {
        let (result, why) = message.split_once("; the output is incomplete: ").unwrap();
        assert!(result == "exit code 0 in 7 ms" && why.len() > 30 && !why.ends_with('.'), "{message}");
    }
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), REASONS.len());
}

#[test]
fn the_message_says_nothing_of_an_output_that_is_complete_or_that_the_status_does_not_have() {
    for reason in REASONS {
        for (ending, incomplete) in [(Termination::Exited { code: 0 }, false), (not_confirmed(), true)] {
            let mut outcome = outcome(ending, None);
            outcome.output = OutputRecord { incomplete, incomplete_reason: Some(reason), ..outcome.output };
            let status = conclude(&execution(), outcome, "2026-11-21T12:00:01Z".parse().unwrap());
            assert!(!status.message.unwrap().contains("incomplete"), "{reason:?}");
        }
    }
    let mut outcome = outcome(Termination::Exited { code: 0 }, None);
    outcome.output.incomplete = true;
    let status = conclude(&execution(), outcome, "2026-11-21T12:00:01Z".parse().unwrap());
    assert_eq!(status.message.as_deref(), Some("exit code 0 in 7 ms"), "versions without a reason say none");
}

/// Returns the status of a finished command. `own_seconds` is the execution's own timeout in seconds.
fn said(
    ending: Termination,
    stop_cause: Option<StopCause>,
    own_seconds: Option<u32>,
    stderr: &str,
) -> CommandExecutionStatus {
    let mut execution = execution_with(1);
    execution.spec.timeout_seconds = own_seconds;
    let outcome = CommandOutcome { stderr: stderr.to_owned(), ..outcome(ending, stop_cause) };
    conclude(&execution, outcome, "2026-11-21T12:00:01Z".parse().unwrap())
}

#[test]
fn message_names_the_exceeded_limit_and_the_last_stderr_line() {
    let term = || Termination::Signalled { signal: "TERM".to_owned() };
    let exit = |code| Termination::Exited { code };
    let timeout = Some(StopCause::Timeout);
    for (ending, told, own, stderr, expected) in [
        (term(), timeout, None, "", "ran longer than 30 s (the default timeout of the rule web/hello;"),
        (term(), timeout, Some(7), "", "ran longer than 7 s (spec.timeoutSeconds of the execution;"),
        (exit(3), None, None, "oh\nno space\n", "exit code 3 in 7 ms; last line of stderr: no space"),
        (exit(127), None, None, "", "does not exist on the machine: check decision.argv[0], \"/bin/echo\""),
        (
            exit(126),
            None,
            None,
            "x",
            "cannot be executed (its rights, or its format) on the machine: check decision.argv[0]",
        ),
        (term(), None, None, "oh\n", "ended by signal TERM in 7 ms; last line of stderr: oh"),
    ] {
        let message = said(ending, told, own, stderr).message.unwrap();
        assert!(message.contains(expected), "{expected} is not in: {message}");
    }
}

#[test]
fn a_line_of_output_is_in_the_message_of_the_status_alone_and_only_where_the_command_failed_by_itself() {
    let status = said(Termination::Exited { code: 3 }, None, None, "a line\n");
    assert!(status.message.as_ref().unwrap().ends_with("last line of stderr: a line"));
    assert!(status.conditions.iter().all(|condition| !condition.message.contains("a line")));
    assert!(!crate::execution::EventNotice::of(&status).unwrap().message.contains("a line"));
    let lost = || Termination::ConnectionLost { problem: "reset".to_owned() };
    for (ending, told) in [
        (Termination::Exited { code: 0 }, None),
        (Termination::Exited { code: 3 }, Some(StopCause::Timeout)),
        (Termination::Exited { code: 3 }, Some(StopCause::Cancel)),
        (Termination::Exited { code: 3 }, Some(OVER)),
        (lost(), None),
    ] {
        let message = said(ending, told, None, "a line\n").message.unwrap();
        assert!(!message.contains("a line"), "{message}");
    }
    let long = said(Termination::Exited { code: 3 }, None, None, &"e<".repeat(100_000)).message.unwrap();
    assert!(long.contains("stderr: e<e<") && long.chars().count() < 400, "{}", long.len());
}
