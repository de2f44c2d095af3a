use super::*;

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Returns the wait after the exit status, in milliseconds. `last_output` is the time from the exit status to the last
/// output, in milliseconds.
fn waits(last_output: u64, drain_seconds: u64) -> u128 {
    let ended = Instant::now();
    let deadline = drain_deadline(ended, ended + milliseconds(last_output), Duration::from_secs(drain_seconds));
    (deadline - ended).as_millis()
}

#[test]
fn the_wait_after_the_exit_is_that_of_the_decision() {
    for seconds in [1, 2, 60] {
        assert_eq!(waits(0, seconds), u128::from(seconds) * 1000);
        assert_eq!(waits(500, seconds), u128::from(seconds) * 1000, "output does not prolong it");
    }
    // Output from before the exit status does not count.
    let ended = Instant::now() + milliseconds(60_000);
    assert_eq!(drain_deadline(ended, Instant::now(), Duration::from_secs(2)), ended + milliseconds(2000));
}

#[test]
fn output_that_is_still_arriving_is_waited_for() {
    assert_eq!(waits(0, 0), 500, "the command's own bytes may come after its exit status");
    assert_eq!(waits(300, 0), 800);
    assert_eq!(waits(1900, 2), 2400);
    assert_eq!(waits(9900, 2), 10_000, "a process that writes without a pause does not hold the result");
    assert_eq!(waits(10_000, 0), 10_000);
    assert_eq!(waits(59_900, 60), 60_000);
}

#[test]
fn the_record_says_why_output_is_missing() {
    assert_eq!(incomplete_reason(false, true, false), None);
    assert_eq!(incomplete_reason(false, false, true), Some(IncompleteReason::StillOpen));
    assert_eq!(incomplete_reason(false, false, false), Some(IncompleteReason::NotReceived));
    for (is_closed, is_drain_over) in [(true, false), (false, true), (false, false)] {
        assert_eq!(incomplete_reason(true, is_closed, is_drain_over), Some(IncompleteReason::OverLimit));
    }
}
