//! Logins with a low limit on open files. Whatever fails, the launcher distinguishes commands that ran from commands
//! that did not.

use writ::launcher::{Answer, ExitOutcome, NotStarted, RequestRefusal};

use crate::machine::{Machine, everywhere, nonce, uid};

/// Limits on the number of open files that the test sets.
const LIMITS: std::ops::Range<u32> = 4..26;

#[test]
fn a_limit_of_open_files_makes_no_record_of_a_command_that_did_not_run() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        for limit in LIMITS {
            let (nonce, uid) = (nonce(), uid());
            let before = machine.ran().len();
            let mut request = machine.localized(&machine.launching(&nonce, &uid, &machine.noted("echo out; exit 5")));
            request.command = format!("ulimit -n {limit}; {}", request.command);
            let (said, exit_code) = machine.raw_session(&nonce, &request).exited();
            let has_run = machine.ran().len() > before;
            let context = format!("{kind:?} with {limit}: {said:?} {exit_code:?}\n{}", machine.journal(&uid));
            match said.answers.last() {
                Some(Answer::Ended(ended)) => {
                    // The output may be incomplete, but then the record reports it.
                    assert!(has_run && ended.outcome == ExitOutcome::Exited(5), "{context}");
                    assert!(ended.missing.is_some() || said.stdout == b"out\n", "{context}");
                }
                Some(
                    Answer::NotStarted(NotStarted::Files)
                    | Answer::Refused(RequestRefusal::Files | RequestRefusal::Cut),
                )
                | None => {
                    assert!(!has_run, "{context}");
                }
                // The launcher created the fence, and the next step failed.
                Some(Answer::Starting) => assert!(!has_run, "{context}"),
                other => panic!("{other:?}: {context}"),
            }
            // The answer to a later request agrees with the first answer.
            match machine.close(&uid) {
                Answer::Ended(ended) => assert!(has_run && ended.outcome == ExitOutcome::Exited(5), "{context}"),
                Answer::Tombstoned | Answer::NotStarted(_) => assert!(!has_run, "{context}"),
                Answer::Lost(_) => assert!(said.answers.is_empty(), "{context}"),
                other => panic!("{other:?}: {context}"),
            }
            assert!(has_run || limit < 24, "{context}");
        }
    });
}
