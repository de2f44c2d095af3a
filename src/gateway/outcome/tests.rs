use super::*;

fn ended(phase: Phase, reason: Option<Reason>) -> CommandExecutionStatus {
    CommandExecutionStatus { phase, reason, message: Some("why".to_owned()), ..CommandExecutionStatus::default() }
}

fn code(phase: Phase, reason: Reason) -> Option<u16> {
    refusal(&ended(phase, Some(reason)), 30).map(|error| error.status.as_u16())
}

#[test]
fn each_phase_and_reason_of_the_contract_has_its_status_code() {
    for (phase, reason, expected) in [
        (Phase::Succeeded, Reason::Completed, None),
        (Phase::Succeeded, Reason::AlreadyExecuted, None),
        (Phase::Failed, Reason::NonZeroExitCode, None),
        (Phase::Failed, Reason::Signalled, None),
        (Phase::Failed, Reason::OutputLimitExceeded, Some(500)),
        (Phase::Rejected, Reason::NoMatchingRule, Some(400)),
        (Phase::Rejected, Reason::NotPermitted, Some(403)),
        (Phase::Rejected, Reason::Denied, Some(403)),
        (Phase::Rejected, Reason::Ambiguous, Some(403)),
        (Phase::Rejected, Reason::PolicyBroken, Some(403)),
        (Phase::Rejected, Reason::MachineNotFound, Some(404)),
        (Phase::Rejected, Reason::MachineInvalid, Some(500)),
        (Phase::Rejected, Reason::Malformed, Some(422)),
        (Phase::Rejected, Reason::ObjectTooLarge, Some(422)),
        (Phase::Rejected, Reason::QueueFull, Some(503)),
        (Phase::TimedOut, Reason::Stopped, Some(408)),
        (Phase::TimedOut, Reason::RemoteMayStillRun, Some(408)),
        (Phase::Cancelled, Reason::CancelledBeforeStart, Some(409)),
        (Phase::Cancelled, Reason::Stopped, Some(409)),
        (Phase::Expired, Reason::MachineOffline, Some(500)),
        (Phase::Expired, Reason::MachineMisconfigured, Some(500)),
        (Phase::Expired, Reason::MachineSuspended, Some(503)),
        (Phase::Expired, Reason::ReceiptUnreadable, Some(503)),
        (Phase::Expired, Reason::StartingDeadlineExceeded, Some(408)),
        (Phase::LaunchFailed, Reason::StartingDeadlineExceeded, Some(408)),
        (Phase::LaunchFailed, Reason::HostKeyMismatch, Some(500)),
        (Phase::LaunchFailed, Reason::PolicyChanged, Some(500)),
        (Phase::LaunchFailed, Reason::NoSession, Some(500)),
        (Phase::OutcomeUnknown, Reason::ConnectionLost, Some(500)),
        (Phase::OutcomeUnknown, Reason::Rebooted, Some(500)),
        (Phase::Queued, Reason::MachineSuspended, Some(408)),
        (Phase::Queued, Reason::WaitingForSlot, Some(408)),
        (Phase::Pending, Reason::ReceiptUnreadable, Some(408)),
        (Phase::Pending, Reason::WaitingForController, Some(408)),
        (Phase::Running, Reason::Started, Some(408)),
        (Phase::Dispatched, Reason::Claimed, Some(408)),
    ] {
        assert_eq!(code(phase, reason), expected, "{phase:?} {reason:?}");
    }
}

#[test]
fn every_phase_has_a_word_and_only_an_end_of_its_own_is_an_answer() {
    for phase in Phase::ALL {
        let is_answer = refusal(&ended(phase, None), 30).is_none();
        let word = StatusWord::of(phase, None);
        assert_eq!(is_answer, word == StatusWord::Completed, "{phase:?}");
        assert!(StatusWord::ALL.contains(&word));
    }
    assert_eq!(StatusWord::of(Phase::Failed, Some(Reason::OutputLimitExceeded)), StatusWord::Failed);
}

#[test]
fn an_unknown_outcome_and_an_ended_wait_say_that_the_command_may_have_run() {
    let unknown = refusal(&ended(Phase::OutcomeUnknown, Some(Reason::ConnectionLost)), 30).unwrap();
    assert_eq!((unknown.body.may_have_run, unknown.body.error.as_str()), (Some(true), "Outcome unknown"));
    let running = refusal(&ended(Phase::Running, Some(Reason::Started)), 30).unwrap();
    assert_eq!(running.body.may_have_run, Some(true));
    let queued = refusal(&ended(Phase::Queued, Some(Reason::WaitingForSlot)), 30).unwrap();
    assert_eq!(queued.body.may_have_run, Some(true), "it can still start");
}

#[test]
fn what_succeeds_later_says_when() {
    for reason in [Reason::QueueFull, Reason::MachineSuspended, Reason::ReceiptUnreadable] {
        let phase = if reason == Reason::QueueFull { Phase::Rejected } else { Phase::Expired };
        assert!(refusal(&ended(phase, Some(reason)), 30).unwrap().retry_after.is_some(), "{reason:?}");
    }
}
