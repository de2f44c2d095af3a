//! The events of an execution's life, and the names by which viewers find it.

use super::*;
use crate::output::PerStream;

fn output(stream: StreamKind, offset: u64, bytes: &'static [u8]) -> LiveEvent {
    LiveEvent::Output { stream, offset, bytes: Bytes::from_static(bytes) }
}

fn claimed(uid: &str, is_adopted: bool) -> LiveEvent {
    LiveEvent::Claimed { uid: uid.to_owned(), is_adopted }
}

fn progress(percent: Option<u8>, label: &str) -> LiveEvent {
    LiveEvent::Progress(Progress { percent, label: label.to_owned() })
}

#[tokio::test]
async fn viewer_of_an_expected_name_receives_every_event_in_order() {
    let live = LiveOutput::default();
    let viewer = live.subscribe("team", "count", StreamOffsets::default()).unwrap();
    assert_eq!(live.subscribe_uid("uid", StreamOffsets::default()).unwrap_err(), SubscribeError::NotHere);
    let watching = tokio::spawn(all(viewer));
    tokio::task::yield_now().await;
    let mut claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    let second = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    tokio::task::yield_now().await;
    recorder.started();
    tokio::task::yield_now().await;
    for (stream, bytes) in [(Stdout, "one"), (Stderr, "two"), (Stdout, "three")] {
        recorder.push(stream, bytes.as_bytes()).await;
    }
    let late = live.subscribe("team", "count", StreamOffsets::default()).unwrap();
    recorder.finish(false, std::future::pending()).await;
    claim.ended(ended());
    let expected = [
        claimed("uid", false),
        LiveEvent::Started,
        output(Stdout, 0, b"one"),
        output(Stderr, 0, b"two"),
        output(Stdout, 3, b"three"),
        LiveEvent::Ended(ended()),
    ];
    assert_eq!(watching.await.unwrap(), expected);
    for viewer in [second, late, live.subscribe_uid("uid", StreamOffsets::default()).unwrap()] {
        assert_eq!(all(viewer).await, expected, "joined later, also after the end");
    }
}

#[tokio::test]
async fn end_is_published_when_the_result_is_stored_and_not_before() {
    let live = LiveOutput::default();
    let mut claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    recorder.push(Stdout, b"all").await;
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    recorder.finish(false, std::future::pending()).await;
    assert_eq!(viewer.next().await, Some(claimed("uid", false)));
    assert_eq!(viewer.next().await, Some(output(Stdout, 0, b"all")));
    let early = tokio::time::timeout(Duration::from_millis(50), viewer.next()).await;
    assert!(early.is_err(), "the output is complete, and the result is not stored: {early:?}");
    claim.ended(ended());
    assert_eq!(all(viewer).await, [LiveEvent::Ended(ended())]);
}

#[tokio::test]
async fn claim_that_is_lost_is_released_and_its_adoption_announced() {
    let live = LiveOutput::default();
    let first = live.claimed(key("uid"), "count", false);
    let mut lost = recorder(&first, &[]);
    lost.push(Stdout, b"abcdef").await;
    let viewer = live.subscribe("team", "count", StreamOffsets::default()).unwrap();
    drop(lost);
    drop(first);
    assert_eq!(all(viewer).await, [claimed("uid", false), output(Stdout, 0, b"abcdef"), LiveEvent::Released]);
    assert!(live.subscribe_uid("uid", StreamOffsets::default()).is_err());
    // A viewer that reconnects continues at its offset, because the process that adopted the claim reads the same bytes
    // again.
    let resumed = live.subscribe("team", "count", StreamOffsets { stdout: 4, stderr: 0 }).unwrap();
    let mut second = live.claimed(key("uid"), "count", true);
    let mut adopted = recorder(&second, &[]);
    adopted.push(Stdout, b"abcdefgh").await;
    adopted.finish(false, std::future::pending()).await;
    second.ended(ended());
    assert_eq!(all(resumed).await, [claimed("uid", true), output(Stdout, 4, b"efgh"), LiveEvent::Ended(ended())]);
}

#[tokio::test]
async fn second_session_begins_the_streams_again() {
    let live = LiveOutput::default();
    let claim = live.claimed(key("uid"), "count", false);
    let mut first = recorder(&claim, &[]);
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    first.push(Stdout, b"no such account").await;
    assert_eq!(viewer.next().await, Some(claimed("uid", false)));
    assert_eq!(viewer.next().await, Some(output(Stdout, 0, b"no such account")));
    first.finish(true, std::future::pending()).await;
    let mut second = recorder(&claim, &[]);
    second.started();
    second.push(Stdout, b"hello").await;
    drop(second);
    drop(claim);
    let expected = [LiveEvent::Restarted, LiveEvent::Started, output(Stdout, 0, b"hello"), LiveEvent::Released];
    assert_eq!(all(viewer).await, expected);
}

#[tokio::test]
async fn name_that_is_used_again_belongs_to_the_newest_execution() {
    let live = LiveOutput::default();
    let mut first = live.claimed(key("first"), "count", false);
    first.ended(ended());
    let of_first = live.subscribe("team", "count", StreamOffsets::default()).unwrap();
    let _second = live.claimed(key("second"), "count", false);
    let mut of_second = live.subscribe("team", "count", StreamOffsets::default()).unwrap();
    assert_eq!(all(of_first).await.first(), Some(&claimed("first", false)));
    assert_eq!(of_second.next().await, Some(claimed("second", false)));
    let other = live.subscribe("other", "count", StreamOffsets::default()).unwrap();
    assert_eq!(live.usage().viewers, 2);
    drop((of_second, other));
    assert_eq!(live.usage().viewers, 0);
}

#[tokio::test]
async fn newest_progress_replaces_one_that_was_not_read() {
    let live = LiveOutput::default();
    let claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    for percent in 0..=100 {
        recorder.push(Stdout, format!("\rcopying {percent:3}%").as_bytes()).await;
    }
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    viewer.next().await;
    assert_eq!(viewer.next().await, Some(progress(Some(100), "copying")));
    drop((recorder, claim));
    let rest = all(viewer).await;
    assert!(matches!(rest.as_slice(), [LiveEvent::Output { offset: 0, .. }, LiveEvent::Released]), "{rest:?}");
}

#[tokio::test]
async fn progress_of_both_streams_comes_between_unchanged_output() {
    let live = LiveOutput::default();
    let mut claim = live.claimed(key("uid"), "install", false);
    let mut recorder = recorder(&claim, &[]);
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    assert_eq!(viewer.next().await, Some(claimed("uid", false)));
    let chunks: [(StreamKind, &'static [u8], Option<LiveEvent>); 6] = [
        (Stdout, b"\r\nProgress: [ 40", None),
        (Stdout, b"%]\r\n", Some(progress(Some(40), ""))),
        (Stderr, b"web.iso 1%[>   ]\xff", Some(progress(Some(1), "web.iso"))),
        (Stdout, b"Unpacking web (1.2) ...\r\n", Some(progress(Some(40), "Unpacking web (1.2)"))),
        (Stderr, b"\rweb.iso 1%[>   ]\xff", None),
        (Stdout, b"\x1b[31mdone 100%\x1b[0m\r\n", None),
    ];
    let mut offsets = PerStream::<u64>::default();
    for (stream, bytes, expected) in chunks {
        recorder.push(stream, bytes).await;
        if expected.is_some() {
            assert_eq!(viewer.next().await, expected);
        }
        assert_eq!(viewer.next().await, Some(output(stream, *offsets.of(stream), bytes)));
        *offsets.of_mut(stream) += bytes.len() as u64;
    }
    let captured = recorder.finish(false, std::future::pending()).await;
    let recorded = (captured.stdout_record.bytes as u64, captured.stderr_record.bytes as u64);
    assert_eq!(recorded, (offsets.stdout, offsets.stderr));
    claim.ended(ended());
    assert_eq!(all(viewer).await, [LiveEvent::Ended(ended())]);
}

#[tokio::test]
async fn progress_of_the_first_session_ends_with_its_streams() {
    let live = LiveOutput::default();
    let claim = live.claimed(key("uid"), "install", false);
    let mut first = recorder(&claim, &[]);
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    assert_eq!(viewer.next().await, Some(claimed("uid", false)));
    first.push(Stdout, b"hello\n").await;
    assert_eq!(viewer.next().await, Some(output(Stdout, 0, b"hello\n")));
    first.push(Stdout, b"Progress: [ 40%]\nUnpack").await;
    let mut second = recorder(&claim, &[]);
    first.push(Stdout, b"Progress: [ 50%]\n").await;
    assert_eq!(viewer.next().await, Some(LiveEvent::Restarted));
    let text = b"ing web (1.2) ...\nUnpacking web (1.2) ...\n";
    second.push(Stdout, text).await;
    assert_eq!(viewer.next().await, Some(progress(None, "Unpacking web (1.2)")));
    assert_eq!(viewer.next().await, Some(output(Stdout, 0, text)));
    drop((first, second, claim));
    assert_eq!(all(viewer).await, [LiveEvent::Released]);
}

#[tokio::test]
async fn progress_has_no_text_that_a_pattern_matches() {
    let live = LiveOutput::default();
    let claim = live.claimed(key("uid"), "install", false);
    let mut recorder = recorder(&claim, &["token=[a-z]+"]);
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    assert_eq!(viewer.next().await, Some(claimed("uid", false)));
    recorder.push(Stdout, b"pmstatus:web:7:with token=se").await;
    recorder.push(Stdout, b"cret now\n").await;
    assert_eq!(viewer.next().await, Some(progress(Some(7), "with *** now")));
}

#[tokio::test]
async fn viewer_that_is_cancelled_while_it_waits_loses_nothing() {
    let live = LiveOutput::default();
    let claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    let mut shown = Vec::new();
    for index in 0..100_u8 {
        recorder.push(Stdout, &[index]).await;
        while let Ok(event) = tokio::time::timeout(Duration::ZERO, viewer.next()).await {
            if let Some(LiveEvent::Output { bytes, .. }) = event {
                shown.extend_from_slice(&bytes);
            }
        }
    }
    assert_eq!(shown, (0..100).collect::<Vec<u8>>());
}

#[tokio::test]
async fn single_reads_follow_the_stream() {
    let live = LiveOutput::default();
    let claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    recorder.push(Stdout, b"0123456789").await;
    let read = |offset| live.read("uid", Stdout, offset, 4);
    assert_eq!(read(3).await, Some(LiveRead::Bytes(Bytes::from_static(b"3456"))));
    assert_eq!(read(10).await, Some(LiveRead::Nothing { is_complete: false }));
    recorder.finish(false, std::future::pending()).await;
    assert_eq!(read(10).await, Some(LiveRead::Nothing { is_complete: true }));
    drop(claim);
    assert_eq!(read(3).await, None);
}
