//! Recordings of sessions: what they contain, where they are stored, and what a failing store does.

use super::*;
use crate::api::execution_status::{Encoding, RecordingRecord};

fn header(records_input: bool) -> SessionHeader {
    SessionHeader {
        columns: 80,
        rows: 24,
        tty: true,
        command: "/bin/sh".to_owned(),
        started: "2026-12-01T00:00:00Z".parse().unwrap(),
        records_input,
    }
}

fn session(store: Option<Store>, patterns: &[&str], records_input: bool) -> (Recorder, LiveClaim) {
    let (mut recorder, claim) = recorder(store, patterns);
    recorder.record_session(header(records_input));
    (recorder, claim)
}

async fn stored(store: &Store, record: &RecordingRecord) -> String {
    assert!(record.stored && record.not_stored.is_none(), "{record:?}");
    let stream = StreamRecord {
        bytes: record.bytes,
        sha256: record.sha256.clone(),
        truncated: true,
        redacted: false,
        stored: true,
        not_stored: None,
        encoding: Encoding::Utf8,
    };
    String::from_utf8(fetched(store, &stream).await).unwrap()
}

/// Returns the data of all events with a code.
fn data_of(recording: &str, code: &str) -> String {
    let events = recording.lines().skip(1).map(|line| serde_json::from_str::<(f64, String, String)>(line).unwrap());
    events.filter(|(_, own, _)| own == code).map(|(_, _, data)| data).collect()
}

#[tokio::test]
async fn short_session_is_stored_beside_its_streams() {
    let (folder, store) = folder();
    let (mut recorder, _claim) = session(Some(store.clone()), &[], false);
    recorder.push(Stdout, b"$ ").await;
    recorder.session_input(b"hunter2\r").await;
    recorder.session_resized(90, 30).await;
    recorder.push(Stderr, b"no\xe2\x82").await;
    recorder.push(Stderr, b"\xac\n").await;
    recorder.session_ended(Some(1));
    let recorded = recorder.finish(false, never()).await;
    let record = recorded.recording.unwrap();
    assert!(!record.incomplete && !record.records_input);
    let recording = stored(&store, &record).await;
    assert_eq!(files(&folder), [record.sha256]);
    assert_eq!((data_of(&recording, "o").as_str(), data_of(&recording, "x").as_str()), ("$ no€\n", "1"));
    assert_eq!((data_of(&recording, "k").as_str(), data_of(&recording, "r").as_str()), ("8", "90x30"));
    assert!(!recording.contains("hunter2"), "{recording}");
    store.remove(&key()).await.unwrap();
    assert_eq!(files(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn recording_has_only_redacted_output_and_input() {
    let (_folder, store) = folder();
    let (mut recorder, _claim) = session(Some(store.clone()), &["hunter2"], true);
    for key in b"hunter2\r" {
        recorder.session_input(&[*key]).await;
    }
    recorder.push(Stdout, b"pass hun").await;
    recorder.push(Stdout, b"ter2 end\nhunt").await;
    recorder.session_input(b"hun").await;
    let recorded = recorder.finish(true, never()).await;
    let recording = stored(&store, recorded.recording.as_ref().unwrap()).await;
    assert!(data_of(&recording, "o").starts_with("pass *** end\n***"), "{recording}");
    assert!(data_of(&recording, "i").starts_with("***\r***"), "{recording}");
    assert!(!recording.contains("hun"), "{recording}");
    assert!(recorded.recording.unwrap().records_input);
}

#[tokio::test]
async fn long_session_is_stored_in_parts_and_large_streams_beside_it() {
    for (name, store) in [("folder", folder()), ("bucket", (tempfile::tempdir().unwrap(), slow(Duration::ZERO)))] {
        let (_folder, store) = store;
        let (mut recorder, _claim) = session(Some(store.clone()), &[], true);
        let bytes: Vec<u8> = much(12 << 20).iter().map(|byte| b'a' + byte % 26).collect();
        for piece in bytes.chunks(100_000) {
            recorder.push(Stdout, piece).await;
            recorder.session_input(b"\x1b[A").await;
        }
        recorder.session_ended(Some(0));
        let recorded = recorder.finish(false, never()).await;
        assert!(fetched(&store, &recorded.stdout_record).await == bytes, "{name}");
        let recording = stored(&store, &recorded.recording.unwrap()).await;
        assert!(data_of(&recording, "o").as_bytes() == bytes, "{name}");
        assert_eq!(data_of(&recording, "i").len(), 3 * bytes.len().div_ceil(100_000), "{name}");
        assert_eq!(store.objects().list(None).count().await, 2, "{name}");
    }
}

#[tokio::test]
async fn session_over_the_limit_is_stored_as_incomplete_with_its_exit_code() {
    let (_folder, store) = folder();
    let (mut recorder, _claim) = session(Some(store.clone()), &[], false);
    for _ in 0..17 {
        recorder.push(Stdout, &[b'a'; 1 << 20]).await;
    }
    recorder.session_ended(Some(0));
    let recorded = recorder.finish(false, never()).await;
    let record = recorded.recording.unwrap();
    assert!(record.incomplete && record.bytes <= 16 << 20 && record.left_out_bytes > 0);
    let recording = stored(&store, &record).await;
    assert_eq!(data_of(&recording, "o").len() as i64 + record.left_out_bytes, 17 << 20);
    assert_eq!(data_of(&recording, "m"), "the recording ends here: over 16777216 bytes");
    assert_eq!(data_of(&recording, "x"), "0");
}

#[tokio::test]
async fn session_without_a_store_says_so_and_waits_for_nothing() {
    let (mut recorder, _claim) = session(None, &[], false);
    {
        let mut push = pin!(recorder.push(Stdout, &[b'a'; 1 << 20]));
        assert!((&mut push).now_or_never().is_some());
    }
    let recorded = recorder.finish(false, never()).now_or_never().expect("at once");
    let record = recorded.recording.unwrap();
    assert!(!record.stored && record.bytes > 1 << 20 && record.sha256.len() == 64);
    assert!(record.not_stored.unwrap().contains("--output-store"));
}

#[tokio::test]
async fn store_that_cannot_be_written_is_in_the_record_of_the_session() {
    let (folder, store) = folder();
    std::fs::write(folder.path().join("team"), "in the way").unwrap();
    for bytes in [500, 1 << 20] {
        let (mut recorder, _claim) = session(Some(store.clone()), &[], false);
        recorder.push(Stdout, &vec![b'a'; bytes]).await;
        let record = recorder.finish(false, never()).await.recording.unwrap();
        let why = record.not_stored.unwrap();
        assert!(!record.stored && why.contains("the output store failed") && why.len() <= 256, "{why}");
    }
}

#[tokio::test]
async fn store_that_hangs_ends_the_recording_and_not_the_session() {
    let (mut recorder, _claim) = session(Some(slow(Duration::from_secs(3600))), &[], false);
    let recorded = async {
        for _ in 0..12 {
            recorder.push(Stdout, &[b'a'; 1 << 20]).await;
            recorder.session_input(b"x").await;
        }
        recorder.finish(false, never()).await
    };
    let recorded = tokio::time::timeout(Duration::from_secs(600), recorded).await.expect("an end");
    assert_eq!(recorded.stdout_record.bytes, 12 << 20);
    let record = recorded.recording.unwrap();
    assert_eq!(record.not_stored.as_deref(), Some("the output store did not take it in time"));
    let (mut hurried, _claim) = session(Some(slow(Duration::from_secs(3600))), &[], false);
    hurried.push(Stdout, b"x").await;
    let record = hurried.finish(false, std::future::ready(())).await.recording.unwrap();
    assert_eq!(record.not_stored.as_deref(), Some("writ was stopped before it was stored"));
}

#[tokio::test]
async fn wait_that_its_caller_drops_loses_no_line() {
    let store = slow(Duration::from_millis(20));
    let (mut recorder, _claim) = session(Some(store.clone()), &[], true);
    let paste = [b'a'; 40_000];
    for _ in 0..200 {
        // The first poll records the input. The drop ends a wait for the store.
        let _ = recorder.session_input(&paste).now_or_never();
    }
    let record = recorder.finish(false, never()).await.recording.unwrap();
    let recording = stored(&store, &record).await;
    assert_eq!(data_of(&recording, "i").len(), 200 * paste.len());
}

#[tokio::test]
async fn dropped_session_leaves_nothing_half_written() {
    let (folder, store) = folder();
    let (mut recorder, _claim) = session(Some(store), &[], false);
    recorder.push(Stdout, &[b'a'; 900]).await;
    recorder.session_input(&[b'x'; 900]).await;
    for _ in 0..40_000 {
        recorder.session_resized(100, 100).await;
    }
    let started = Instant::now();
    while files(&folder).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "the upload does not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(files(&folder).iter().all(|file| file.starts_with("recording-")), "{:?}", files(&folder));
    drop(recorder);
    while !files(&folder).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "{:?} is left", files(&folder));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
