//! The bounds on viewers, names, memory and time.

use super::super::registry::{MAX_EXPECTED, MAX_EXPECTED_PER_NAMESPACE, MAX_VIEWERS, Times};
use super::super::stream::MAX_MEMORY_BYTES;
use super::*;

fn expect(live: &LiveOutput, namespace: usize, name: usize) -> Result<Viewer, SubscribeError> {
    live.subscribe(&format!("team-{namespace}"), &format!("count-{name}"), StreamOffsets::default())
}

#[tokio::test]
async fn viewer_that_leaves_makes_room_for_another() {
    let live = LiveOutput::default();
    let claim = live.claimed(key("uid"), "count", false);
    let view = || live.subscribe_uid("uid", StreamOffsets::default());
    let mut viewers: Vec<_> = (0..MAX_VIEWERS).map(|_| view().unwrap()).collect();
    assert_eq!(view().unwrap_err(), SubscribeError::TooManyViewers);
    viewers.pop();
    viewers.push(view().unwrap());
    drop(claim);
}

#[tokio::test]
async fn expected_names_are_bounded_in_all_and_for_each_namespace() {
    let live = LiveOutput::default();
    let mut viewers = Vec::new();
    for namespace in 0..MAX_EXPECTED / MAX_EXPECTED_PER_NAMESPACE {
        viewers.extend((0..MAX_EXPECTED_PER_NAMESPACE).map(|name| expect(&live, namespace, name).unwrap()));
        assert_eq!(expect(&live, namespace, MAX_EXPECTED).unwrap_err(), SubscribeError::TooManyNames);
    }
    assert_eq!(expect(&live, 99, 0).unwrap_err(), SubscribeError::TooManyNames);
    expect(&live, 0, 0).expect("another viewer of an expected name");
    let claim = live.claimed(OutputKey { namespace: "team-0".to_owned(), uid: "uid".to_owned() }, "count-0", false);
    let in_its_place = expect(&live, 0, MAX_EXPECTED).expect("a claimed name is no longer expected");
    drop((viewers, claim, in_its_place));
    for name in 0..MAX_EXPECTED_PER_NAMESPACE {
        drop(expect(&live, 0, name).expect("names without viewers are forgotten"));
    }
}

#[tokio::test]
async fn viewer_of_a_name_that_never_comes_is_sent_away() {
    let live = LiveOutput::with(None, Times { expected_for: Duration::from_millis(20), ..Times::default() });
    assert_eq!(all(expect(&live, 0, 0).unwrap()).await, [LiveEvent::Expired]);
}

#[tokio::test]
async fn ended_execution_is_found_until_its_time_is_over() {
    for (kept_after_end, is_found) in [(Duration::from_secs(3600), true), (Duration::ZERO, false)] {
        let live = LiveOutput::with(None, Times { kept_after_end, ..Times::default() });
        let mut claim = live.claimed(key("uid"), "count", false);
        claim.ended(ended());
        drop(claim);
        let found = live.subscribe_uid("uid", StreamOffsets::default());
        assert_eq!(found.is_ok(), is_found, "{kept_after_end:?}");
    }
}

#[tokio::test]
async fn viewer_that_stops_reading_keeps_the_bytes_of_an_ended_execution_for_a_bounded_time() {
    let live = LiveOutput::with(None, Times { kept_after_end: Duration::from_millis(20), ..Times::default() });
    let mut claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    recorder.push(Stdout, b"never read").await;
    let stopped = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    drop(recorder);
    claim.ended(ended());
    until("the bytes are deleted", || live.usage().memory_bytes == 0).await;
    let gap = LiveEvent::Gap { stream: Stdout, offset: 0, length: 10, reason: GapReason::Removed };
    assert_eq!(all(stopped).await[1..], [gap, LiveEvent::Ended(ended())]);
    drop(claim);
    assert_eq!(live.subscribe_uid("uid", StreamOffsets::default()).unwrap_err(), SubscribeError::NotHere);
}

#[tokio::test]
async fn memory_without_files_is_bounded_and_given_back() {
    let live = LiveOutput::default();
    let claims: Vec<_> =
        (0..400).map(|index| live.claimed(key(&index.to_string()), &index.to_string(), false)).collect();
    let mut recorders: Vec<_> = claims.iter().map(|claim| recorder(claim, &[])).collect();
    let watched = live.subscribe_uid("0", StreamOffsets::default()).unwrap();
    for recorder in &mut recorders {
        recorder.push(Stdout, &bytes_at(0, 400_000)).await;
        recorder.push(Stderr, b"short").await;
        let held = live.usage().memory_bytes;
        // Each stream can keep its last chunk in addition to the maximum.
        assert!(held <= (MAX_MEMORY_BYTES + 400 * 64 * 1024) as u64, "{held}");
    }
    let watched = {
        drop(recorders);
        drop(claims);
        assert!(live.usage().memory_bytes <= 512 * 1024, "only what is still watched");
        all(watched).await
    };
    let LiveEvent::Gap { stream: Stdout, offset: 0, length, reason: GapReason::Memory } = watched[1] else {
        panic!("{:?}", watched[1])
    };
    let shown: usize = watched
        .iter()
        .map(|event| match event {
            LiveEvent::Output { stream: Stdout, bytes, .. } => bytes.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(length as usize + shown, 400_000);
    assert_eq!(live.usage().memory_bytes, 0);
}

#[tokio::test]
async fn viewer_without_files_that_is_too_slow_learns_of_the_gap() {
    let live = LiveOutput::default();
    let claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    recorder.push(Stdout, &bytes_at(0, MIB)).await;
    let watched = watch(&mut viewer, Stdout, MIB as u64).await;
    let [(0, gap, GapReason::Memory)] = watched.gaps[..] else { panic!("{watched:?}") };
    assert_eq!(watched.sha256, sha256(&bytes_at(gap as usize, MIB - gap as usize)));
}

#[tokio::test]
async fn order_of_many_small_writes_is_bounded_and_no_byte_is_missed() {
    let live = LiveOutput::default();
    let claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    for _ in 0..10_000 {
        recorder.push(Stderr, b"e").await;
        recorder.push(Stdout, b"o").await;
    }
    let viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    drop(recorder);
    drop(claim);
    let mut counts = (0, 0);
    for event in all(viewer).await {
        match event {
            LiveEvent::Output { stream: Stdout, bytes, .. } => counts.0 += bytes.len(),
            LiveEvent::Output { stream: Stderr, bytes, .. } => counts.1 += bytes.len(),
            _ => {}
        }
    }
    assert_eq!(counts, (10_000, 10_000));
}
