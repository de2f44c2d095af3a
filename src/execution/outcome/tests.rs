use super::*;
use crate::api::CommandExecutionSpec;
use crate::api::execution_status::{Encoding, StreamRecord};

fn execution() -> CommandExecution {
    CommandExecution::new("x", CommandExecutionSpec::asking_for("say hello"))
}

fn concluded(ending: Ending, told_to_stop: Option<StopCause>) -> CommandExecutionStatus {
    let stream = StreamRecord {
        bytes: 0,
        sha256: String::new(),
        truncated: false,
        redacted: false,
        stored: false,
        not_stored: None,
        encoding: Encoding::Utf8,
    };
    let started = !matches!(ending, Ending::Refused(_) | Ending::StartNotConfirmed);
    let outcome = Outcome {
        ending,
        told_to_stop,
        nothing_left: false,
        started: started.then(|| "2026-11-21T12:00:00Z".parse().unwrap()),
        duration_ms: Some(7),
        stdout: "out".to_owned(),
        stderr: String::new(),
        output: OutputRecord { stdout: stream.clone(), stderr: stream, incomplete: false },
    };
    conclude(&execution(), outcome, "2026-11-21T12:00:01Z".parse().unwrap())
}

const OVER: StopCause = StopCause::OutputLimit { maximum_bytes: 65_536 };

fn observed_endings() -> Vec<Ending> {
    vec![Ending::Exited { code: 0 }, Ending::Exited { code: 255 }, Ending::Signalled { signal: "TERM".to_owned() }]
}

fn unobserved_endings() -> Vec<Ending> {
    let problem = LaunchProblem { reason: Reason::ExecutionRefused, message: "no".to_owned() };
    vec![
        Ending::Refused(problem),
        Ending::StartNotConfirmed,
        Ending::ConnectionLost { problem: "reset".to_owned() },
        Ending::NoExitStatus,
        Ending::NotSeenToStop,
        Ending::HolderStopped,
        Ending::Gone,
        Ending::Unknown { reason: Reason::Rebooted, problem: "booted anew".to_owned() },
        Ending::Unknown { reason: Reason::ConnectionLost, problem: "out of reach".to_owned() },
    ]
}

#[test]
fn exit_code_zero_and_only_that_is_success() {
    assert_eq!(concluded(Ending::Exited { code: 0 }, None).phase, Phase::Succeeded);
    for ending in observed_endings().into_iter().skip(1).chain(unobserved_endings()) {
        assert_ne!(concluded(ending.clone(), None).phase, Phase::Succeeded, "{ending:?}");
    }
    for cause in [StopCause::Timeout, StopCause::Cancel, OVER] {
        assert_ne!(concluded(Ending::Exited { code: 0 }, Some(cause)).phase, Phase::Succeeded);
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
fn a_command_that_was_told_to_stop_and_not_seen_to_may_still_run() {
    for (cause, phase) in [(StopCause::Timeout, Phase::TimedOut), (StopCause::Cancel, Phase::Cancelled)] {
        let lost = Ending::ConnectionLost { problem: "reset".to_owned() };
        for ending in [Ending::NotSeenToStop, Ending::NoExitStatus, Ending::HolderStopped, lost] {
            let status = concluded(ending, Some(cause));
            assert_eq!((status.phase, status.reason), (phase, Some(Reason::RemoteMayStillRun)));
            assert!(status.message.is_some_and(|message| message.contains("may still run")));
        }
        let status = concluded(Ending::Signalled { signal: "KILL".to_owned() }, Some(cause));
        assert_eq!((status.phase, status.reason), (phase, Some(Reason::Stopped)));
    }
}

#[test]
fn a_command_that_wrote_too_much_failed_for_that_however_it_ended() {
    for ending in observed_endings() {
        let status = concluded(ending.clone(), Some(OVER));
        assert_eq!((status.phase, status.reason), (Phase::Failed, Some(Reason::OutputLimitExceeded)), "{ending:?}");
        let message = status.message.unwrap();
        assert!(message.contains("65536 bytes") && message.contains("left behind may still run"), "{message}");
        // It may have been quicker than the word to stop.
        assert!(!message.contains("told to stop"), "{message}");
    }
    let lost = Ending::ConnectionLost { problem: "reset".to_owned() };
    for ending in [Ending::NotSeenToStop, Ending::NoExitStatus, Ending::HolderStopped, lost] {
        let status = concluded(ending.clone(), Some(OVER));
        assert_eq!((status.phase, status.reason), (Phase::Failed, Some(Reason::OutputLimitExceeded)), "{ending:?}");
        let message = status.message.unwrap();
        assert!(message.contains("65536 bytes") && message.contains("it may still run on the machine"), "{message}");
    }
}

#[test]
fn what_was_not_observed_is_unknown() {
    for ending in unobserved_endings().into_iter().skip(1) {
        assert_eq!(concluded(ending.clone(), None).phase, Phase::OutcomeUnknown, "{ending:?}");
    }
}

#[test]
fn a_start_that_was_not_confirmed_is_unknown_whatever_it_was_told() {
    let status = concluded(Ending::StartNotConfirmed, Some(StopCause::Timeout));
    assert_eq!((status.phase, status.start_time, status.stdout), (Phase::OutcomeUnknown, None, None));
}

#[test]
fn what_is_unknown_for_good_stays_unknown_whoever_wanted_it_to_stop() {
    for reason in [Reason::Rebooted, Reason::MachineChanged, Reason::RecordLost] {
        for told in [None, Some(StopCause::Timeout), Some(StopCause::Cancel)] {
            let status = concluded(Ending::Unknown { reason, problem: "why".to_owned() }, told);
            assert_eq!((status.phase, status.reason), (Phase::OutcomeUnknown, Some(reason)));
        }
    }
    let out_of_reach = Ending::Unknown { reason: Reason::ConnectionLost, problem: "why".to_owned() };
    let status = concluded(out_of_reach, Some(StopCause::Cancel));
    assert_eq!((status.phase, status.reason), (Phase::Cancelled, Some(Reason::RemoteMayStillRun)));
}

#[test]
fn one_that_is_seen_to_be_gone_was_stopped_and_has_no_exit_code() {
    let status = concluded(Ending::Gone, Some(StopCause::Timeout));
    assert_eq!((status.phase, status.reason, status.exit_code), (Phase::TimedOut, Some(Reason::Stopped), None));
}
