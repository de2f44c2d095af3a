use std::pin::pin;
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;
use crate::output::{LiveEvent, LiveOptions, LiveOutput, OutputKey, StreamOffsets};

use StreamKind::{Stderr, Stdout};

mod sessions;

fn key() -> OutputKey {
    OutputKey { namespace: "team".to_owned(), uid: "uid".to_owned() }
}

fn timeouts() -> UploadTimeouts {
    UploadTimeouts {
        buffer: Duration::from_millis(300),
        finish: Duration::from_secs(30),
        finish_in_all: Duration::from_secs(60),
        shutdown: Duration::from_millis(100),
    }
}

fn recorder(store: Option<Store>, patterns: &[&str]) -> (Recorder, LiveClaim) {
    recorder_in(&LiveOutput::default(), store, patterns)
}

fn recorder_in(live: &LiveOutput, store: Option<Store>, patterns: &[&str]) -> (Recorder, LiveClaim) {
    let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    let redaction = Redaction::compile(&patterns).expect("patterns");
    let claim = live.claimed(key(), "count", false);
    (Recorder::with_timeouts(&claim, 1000, &redaction, store, timeouts()), claim)
}

fn folder() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap(), []).unwrap();
    (folder, store)
}

/// Returns the files in a directory, including unfinished files.
fn files(folder: &tempfile::TempDir) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.path().join("team/uid")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Returns a store that needs the time `pause` for each write.
fn slow(pause: Duration) -> Store {
    let config = ThrottleConfig { wait_put_per_call: pause, ..ThrottleConfig::default() };
    Store::with(Box::new(ThrottledStore::new(InMemory::new(), config)), Path::default(), None, Duration::from_secs(20))
}

async fn never() {
    std::future::pending().await
}

async fn fetched(store: &Store, record: &StreamRecord) -> Vec<u8> {
    let mut read = Vec::new();
    store.fetch(&key(), record, &mut read).await.expect("it is stored");
    read
}

fn much(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index / 7 % 251) as u8).collect()
}

#[tokio::test]
async fn what_the_status_shows_whole_is_not_stored() {
    let (folder, store) = folder();
    let (mut recorder, _claim) = recorder(Some(store), &[]);
    recorder.push(Stdout, &[b'a'; 1000]).await;
    recorder.push(Stderr, b"short\n").await;
    let recorded = recorder.finish(false, never()).await;
    assert_eq!((recorded.stdout.len(), recorded.stderr.as_str()), (1000, "short\n"));
    for record in [recorded.stdout_record, recorded.stderr_record] {
        assert!(!record.truncated && !record.stored && record.not_stored.is_none());
    }
    assert_eq!(files(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn one_byte_more_and_what_is_too_long_only_as_json_are_stored_whole() {
    let (folder, store) = folder();
    let (mut recorder, _claim) = recorder(Some(store.clone()), &[]);
    for piece in much(1001).chunks(13) {
        recorder.push(Stdout, piece).await;
    }
    recorder.push(Stderr, &[b'\n'; 600]).await;
    let recorded = recorder.finish(false, never()).await;
    assert!(recorded.stdout_record.truncated && recorded.stdout_record.stored && recorded.stderr_record.stored);
    assert_eq!(fetched(&store, &recorded.stdout_record).await, much(1001));
    assert_eq!(fetched(&store, &recorded.stderr_record).await, [b'\n'; 600]);
    assert_eq!(files(&folder).len(), 2);
}

#[tokio::test]
async fn many_parts_of_both_streams_are_stored_to_the_byte_and_nothing_else_is_left() {
    let (folder, store) = folder();
    let (stdout, stderr) = (much(12_000_000), much(5 << 20));
    let (mut recorder, _claim) = recorder(Some(store.clone()), &[]);
    // These leftovers of an earlier crash must not remain.
    std::fs::create_dir_all(folder.path().join("team/uid")).unwrap();
    for name in ["stdout-1.partial", "stderr-2.partial#1"] {
        std::fs::write(folder.path().join("team/uid").join(name), "left").unwrap();
    }
    let mut pieces = stderr.chunks(44_444);
    for piece in stdout.chunks(100_000) {
        recorder.push(Stdout, piece).await;
        recorder.push(Stderr, pieces.next().unwrap_or_default()).await;
    }
    let recorded = recorder.finish(false, never()).await;
    assert_eq!((recorded.stdout_record.not_stored.as_ref(), recorded.stdout_record.stored), (None, true));
    assert!(fetched(&store, &recorded.stdout_record).await == stdout);
    assert!(fetched(&store, &recorded.stderr_record).await == stderr);
    assert_eq!(files(&folder).len(), 2);
}

#[tokio::test]
async fn only_redacted_bytes_are_stored_and_shown_live() {
    let (folder, store) = folder();
    let live = LiveOutput::default();
    let mut viewer = live.subscribe("team", "count", StreamOffsets::default()).unwrap();
    let (mut recorder, claim) = recorder_in(&live, Some(store.clone()), &["hunter2"]);
    for _ in 0..1000 {
        recorder.push(Stdout, b"pass hun").await;
        recorder.push(Stdout, b"ter2 end\n").await;
    }
    recorder.push(Stdout, b"hunt").await;
    let recorded = recorder.finish(true, never()).await;
    assert!(recorded.stdout_record.stored && recorded.stdout_record.redacted);
    let stored = fetched(&store, &recorded.stdout_record).await;
    assert!(stored.starts_with(b"pass *** end\npass *** end\n") && stored.ends_with(b"could be redacted]"));
    drop(claim);
    assert!(matches!(viewer.next().await, Some(LiveEvent::Claimed { .. })));
    let mut shown = Vec::new();
    while let Some(event) = viewer.next().await {
        match event {
            LiveEvent::Output { bytes, .. } => shown.extend_from_slice(&bytes),
            other => assert_eq!(other, LiveEvent::Released),
        }
    }
    assert!(shown == stored);
    assert_eq!(files(&folder).len(), 1);
}

#[tokio::test]
async fn a_store_that_hangs_holds_up_neither_the_output_nor_the_record() {
    let (mut recorder, _claim) = recorder(Some(slow(Duration::from_secs(3600))), &[]);
    let bytes = much(1 << 20);
    // Each write to the store would take an hour, so the recorder must give up the upload.
    let recorded = async {
        for _ in 0..24 {
            recorder.push(Stdout, &bytes).await;
        }
        recorder.finish(false, never()).await
    };
    let recorded = tokio::time::timeout(Duration::from_secs(600), recorded).await.expect("an end");
    assert_eq!(recorded.stdout_record.bytes, 24 << 20);
    assert!(!recorded.stdout_record.stored);
    assert_eq!(recorded.stdout_record.not_stored.as_deref(), Some("the output store did not take it in time"));
    assert_eq!(recorded.stderr_record.not_stored, None, "there was nothing to store");
}

#[tokio::test]
async fn the_end_waits_for_a_slow_store_but_not_once_there_is_no_time_left() {
    let (mut patient, _claim) = recorder(Some(slow(Duration::from_millis(500))), &[]);
    patient.push(Stdout, &much(5000)).await;
    assert!(patient.finish(false, never()).await.stdout_record.stored);
    let (mut hurried, _claim) = recorder(Some(slow(Duration::from_secs(3600))), &[]);
    hurried.push(Stdout, &much(5000)).await;
    let started = Instant::now();
    let recorded = hurried.finish(false, std::future::ready(())).await;
    assert!(started.elapsed() < Duration::from_secs(600), "the store would take an hour");
    assert_eq!(recorded.stdout_record.not_stored.as_deref(), Some("writ was stopped before it was stored"));
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_said_in_the_record() {
    let (folder, store) = folder();
    // A file occupies the path of the namespace's directory, so that the store fails.
    std::fs::write(folder.path().join("team"), "in the way").unwrap();
    for bytes in [5000, 11 << 20] {
        let (mut recorder, _claim) = recorder(Some(store.clone()), &[]);
        recorder.push(Stdout, &much(bytes)).await;
        let recorded = recorder.finish(false, never()).await;
        let said = recorded.stdout_record.not_stored.unwrap();
        assert!(said.contains("the output store failed") && !recorded.stdout_record.stored, "{said}");
        assert_eq!(recorded.stdout_record.bytes, bytes as i64);
    }
}

#[tokio::test]
async fn one_that_is_dropped_leaves_nothing_half_written() {
    let (folder, store) = folder();
    let (mut recorder, _claim) = recorder(Some(store), &[]);
    recorder.push(Stdout, &much(11 << 20)).await;
    let started = Instant::now();
    while files(&folder).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "the upload does not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(recorder);
    while !files(&folder).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "{:?} is left", files(&folder));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_bucket_is_written_in_parts_too() {
    let store = slow(Duration::ZERO);
    let (mut recorder, _claim) = recorder(Some(store.clone()), &[]);
    let bytes = much(11 << 20);
    for piece in bytes.chunks(32_768) {
        recorder.push(Stdout, piece).await;
    }
    let recorded = recorder.finish(false, never()).await;
    assert!(recorded.stdout_record.stored, "{:?}", recorded.stdout_record.not_stored);
    assert!(fetched(&store, &recorded.stdout_record).await == bytes);
    store.remove(&key()).await.unwrap();
    assert!(store.fetch(&key(), &recorded.stdout_record, &mut Vec::new()).await.is_err());
    let left = store.objects().list(None);
    assert_eq!(left.count().await, 0);
}

#[tokio::test]
async fn without_a_store_nothing_is_ever_waited_for() {
    let (mut recorder, _claim) = recorder(None, &[]);
    {
        let mut push = pin!(recorder.push(Stdout, &[b'a'; 1 << 20]));
        assert!((&mut push).now_or_never().is_some());
    }
    let recorded = recorder.finish(false, never()).now_or_never().expect("at once");
    assert!(recorded.stdout_record.truncated && !recorded.stdout_record.stored);
    assert_eq!(recorded.stdout_record.not_stored, None);
}

/// Returns a registry whose files use at most `mebibytes` together.
fn spilling(directory: &tempfile::TempDir, mebibytes: u64) -> LiveOutput {
    let directory = directory.path().join("spill");
    LiveOutput::start(&LiveOptions { directory, spill_bytes: mebibytes << 20 }).unwrap()
}

#[tokio::test]
async fn store_that_hangs_delays_no_command_whose_output_is_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let live = spilling(&directory, 128);
    let (mut recorder, _claim) = recorder_in(&live, Some(slow(Duration::from_secs(3600))), &[]);
    for _ in 0..24 {
        recorder.push(Stdout, &much(1 << 20)).await;
    }
    let recorded = recorder.finish(false, std::future::ready(())).await;
    assert_eq!(recorded.stdout_record.bytes, 24 << 20);
    // If the recorder had waited for the store, the message would be "did not take it in time".
    assert_eq!(recorded.stdout_record.not_stored.as_deref(), Some("writ was stopped before it was stored"));
}

#[tokio::test]
async fn bytes_that_were_deleted_before_the_store_took_them_are_recorded_as_not_stored() {
    let directory = tempfile::tempdir().unwrap();
    let live = spilling(&directory, 4);
    // The store answers after the spill files are full, so Writ deletes bytes that are not stored.
    let (mut recorder, _claim) = recorder_in(&live, Some(slow(Duration::from_secs(2))), &[]);
    for _ in 0..24 {
        recorder.push(Stdout, &much(1 << 20)).await;
    }
    let recorded = recorder.finish(false, never()).await;
    assert_eq!((recorded.stdout_record.bytes, recorded.stdout_record.stored), (24 << 20, false));
    // The second message appears if the disk of the test is too slow for the output.
    let said = recorded.stdout_record.not_stored.unwrap();
    assert!(said.contains("--spill-bytes") || said.contains("in time"), "{said}");
}
