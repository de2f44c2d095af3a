use proptest::prelude::*;

use super::*;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn limits() -> Limits {
    Limits {
        timeout: seconds(30),
        drain: seconds(2),
        maximum_bytes: 64 << 20,
        unreachable_timeout: seconds(3600),
        stop_timeout: seconds(300),
    }
}

/// Maximum duration of a run with [`limits`]: 30 + 2 + 35 + 3600 seconds.
const RUN: Duration = seconds(3667);

#[test]
fn a_command_of_which_nothing_is_heard_is_followed_for_one_run_from_its_claim() {
    assert_eq!(Deadlines::new(limits()).end(), RUN);
    assert_eq!(Deadlines::new(limits()).stop_due(), None);
}

#[test]
fn the_confirmed_start_counts_once() {
    let mut deadlines = Deadlines::new(limits());
    deadlines.note_sent(seconds(1));
    deadlines.note_started(seconds(10));
    deadlines.note_started(seconds(3000));
    assert_eq!((deadlines.end(), deadlines.stop_due()), (RUN + seconds(10), Some(seconds(10 + 30 + 2 + 35))));
}

#[test]
fn a_cancel_ends_it_within_its_patience_and_the_first_one_counts() {
    let mut deadlines = Deadlines::new(limits());
    deadlines.note_stop(seconds(100));
    deadlines.note_stop(seconds(200));
    assert_eq!(deadlines.end() + FINAL_POLL, seconds(400));
    // If the deadline of the run is before the deadline of the stop, the stop request changes nothing.
    let mut late = Deadlines::new(limits());
    late.note_stop(RUN - seconds(1));
    assert_eq!(late.end(), RUN);
}

#[test]
fn adopting_holder_has_time_to_poll_and_no_more() {
    let mut deadlines = Deadlines::new(limits());
    deadlines.note_stop(seconds(100));
    deadlines.note_takeover(seconds(100_000));
    assert_eq!(deadlines.end(), seconds(100_000) + TAKEOVER);
    // A takeover long before the deadline does not change the deadline.
    let mut early = Deadlines::new(limits());
    early.note_takeover(seconds(50));
    assert_eq!(early.end(), RUN);
}

#[test]
fn late_launch_by_another_holder_has_its_whole_timeout() {
    let mut deadlines = Deadlines::new(limits());
    deadlines.note_takeover(seconds(200_000));
    deadlines.note_sent(seconds(200_001));
    deadlines.note_started(seconds(200_002));
    assert_eq!(deadlines.end(), seconds(200_002) + RUN);
}

#[test]
fn a_backlog_is_read_to_its_end_if_it_comes_fast_enough() {
    let mut deadlines = Deadlines::new(limits());
    // 3600 bytes, one byte per second for an hour, move the deadline by less than a second.
    deadlines.note_received(3600);
    assert!(deadlines.end() < RUN + seconds(1));
    deadlines.note_received(MIN_RATE * 60);
    assert_eq!(deadlines.end(), RUN + seconds(60));
    // Bytes over the output limit of the rule do not count.
    deadlines.note_received(u64::MAX);
    assert_eq!(deadlines.end(), RUN + seconds(2048));
}

#[test]
fn a_wrong_clock_of_a_later_holder_ends_no_healthy_command() {
    let mut deadlines = Deadlines::new(limits());
    // The clock of this holder is wrong by two hours. `stop_due` must count from the start that the machine reports.
    deadlines.note_stored_start(seconds(1));
    deadlines.note_takeover(seconds(7200));
    assert_eq!(deadlines.stop_due(), None);
    deadlines.note_started(seconds(7199));
    assert_eq!(deadlines.stop_due(), Some(seconds(7199 + 30 + 2 + 35)));
    // The deadline from the stored start has passed. The holder still has `TAKEOVER` to read the journal.
    assert_eq!(deadlines.end(), seconds(7200) + TAKEOVER);
}

#[test]
fn a_start_is_not_before_its_launch() {
    let mut deadlines = Deadlines::new(limits());
    deadlines.note_sent(seconds(500));
    deadlines.note_started(Duration::ZERO);
    assert_eq!(deadlines.stop_due(), Some(seconds(500 + 30 + 2 + 35)));
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Sent,
    Started(u64),
    Stop,
    Received(u64),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Sent),
        any::<u64>().prop_map(Event::Started),
        Just(Event::Stop),
        any::<u64>().prop_map(Event::Received),
        (0..2000_u64).prop_map(Event::Wait),
    ]
}

proptest! {
    /// Whatever a machine reports, in any order, the deadline is at most two runs after the first launch, plus the time
    /// for the output. A stop request ends the command within the stop timeout.
    #[test]
    fn nothing_that_a_machine_says_moves_the_deadline_beyond_its_bound(events in prop::collection::vec(event(), 0..60)) {
        let limits = limits();
        let mut deadlines = Deadlines::new(limits);
        let (mut now, mut sent, mut stop) = (Duration::ZERO, None, None);
        for event in events {
            match event {
                Event::Sent => {
                    deadlines.note_sent(now);
                    sent.get_or_insert(now);
                }
                Event::Started(at) => deadlines.note_started(Duration::from_millis(at)),
                Event::Stop => {
                    deadlines.note_stop(now);
                    stop.get_or_insert(now);
                }
                Event::Received(bytes) => deadlines.note_received(bytes),
                Event::Wait(time) => now += seconds(time),
            }
            let output = seconds(limits.maximum_bytes / MIN_RATE);
            prop_assert!(deadlines.end() <= sent.unwrap_or_default() + RUN + RUN + output);
            if let Some(stop) = stop {
                prop_assert!(deadlines.end() + FINAL_POLL <= stop + limits.stop_timeout);
            }
        }
    }

    /// The elapsed time and the received bytes limit the number of sessions, even if each session makes progress.
    #[test]
    fn sessions_have_a_bounded_rate(steps in prop::collection::vec((0..5000_u64, 0..20_000_u64, any::<bool>()), 1..400)) {
        let mut pace = Pace::default();
        let (mut now, mut all_bytes) = (Duration::ZERO, 0);
        for (index, (lasts, bytes, steps_forward)) in steps.into_iter().enumerate() {
            now += Duration::from_millis(lasts);
            pace.note_session(Duration::from_millis(lasts));
            if bytes > 0 {
                pace.note_bytes(bytes);
            }
            if steps_forward {
                pace.note_step();
            }
            all_bytes += bytes;
            now += pace.pause(now);
            let earned = now.as_secs() / SESSION_EVERY.as_secs() + all_bytes / BYTES_OF_SESSION;
            prop_assert!(index as u64 <= u64::from(EARLY_SESSIONS) + earned + 1, "{index} sessions in {now:?}");
            prop_assert!(index as u64 <= u64::from(EARLY_SESSIONS) + now.as_secs() + 1, "{index} sessions in {now:?}");
        }
    }
}

#[test]
fn words_without_progress_lead_to_the_longest_pause() {
    let mut pace = Pace::default();
    let mut now = Duration::ZERO;
    let pauses: Vec<Duration> = (0..100)
        .map(|_| {
            let pause = pace.pause(now);
            now += pause;
            pause
        })
        .collect();
    assert_eq!(pauses.first(), Some(&INITIAL_BACKOFF));
    assert!(pauses.iter().skip(8).all(|pause| *pause >= MAX_BACKOFF), "{pauses:?}");
    pace.note_step();
    assert!(pace.pause(now) < MAX_BACKOFF);
}
