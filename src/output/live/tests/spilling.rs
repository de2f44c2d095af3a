//! Spill files: their content, their bounds, and a disk that fails.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::output::Store;

/// Returns the size of the large output, in bytes. CI uses the default of 8 MiB. `LIVE_OUTPUT_MIB=1024` selects the
/// long test.
fn large() -> usize {
    std::env::var("LIVE_OUTPUT_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(8) * MIB
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewer_that_joins_late_reads_from_the_first_byte_while_the_command_runs() {
    let (directory, live) = spilling(2 * large() + 8 * MIB);
    let mut claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    let (mut digest, mut offset) = (Sha256::new(), 0);
    while offset < large() {
        let piece = bytes_at(offset, 30_000);
        recorder.push(Stdout, &piece).await;
        digest.update(&piece);
        offset += piece.len();
    }
    let mut viewer = live.subscribe("team", "count", StreamOffsets::default()).unwrap();
    let watched = watch(&mut viewer, Stdout, offset as u64).await;
    assert_eq!((watched.bytes, &watched.gaps), (offset as u64, &vec![]));
    assert_eq!(watched.sha256, digest.finalize().to_vec());
    assert!(live.usage().memory_bytes < 6 * MIB as u64, "the rest is in the file");
    recorder.push(Stdout, b"it still runs").await;
    assert!(matches!(viewer.next().await, Some(LiveEvent::Output { bytes, .. }) if &bytes[..] == b"it still runs"));
    let middle = offset / 2;
    let found = live.read("uid", Stdout, middle as u64, 1000).await;
    assert_eq!(found, Some(LiveRead::Bytes(Bytes::from(bytes_at(middle, 1000)))), "any part can be searched");
    let [file] = &files(&directory)[..] else { panic!("one file") };
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    drop(recorder);
    claim.ended(ended());
    drop(viewer);
    until("the file is deleted at the end", || files(&directory).is_empty()).await;
    until("the accounts are empty", || live.usage().spill_bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_viewers_get_equal_digests_and_one_that_stops_delays_nobody() {
    let length = large().min(64 * MIB);
    let (_directory, live) = spilling(2 * length + 8 * MIB);
    let mut claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    let view = || live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    // This viewer reads nothing until all other viewers are done. It must delay neither the command nor the other
    // viewers.
    let mut stopped = view();
    let watching: Vec<_> = (1..32)
        .map(|_| {
            let mut viewer = view();
            tokio::spawn(async move { watch(&mut viewer, Stdout, length as u64).await })
        })
        .collect();
    let (mut digest, mut offset) = (Sha256::new(), 0);
    while offset < length {
        let piece = bytes_at(offset, 32_768);
        recorder.push(Stdout, &piece).await;
        digest.update(&piece);
        offset += piece.len();
    }
    let digest = digest.finalize().to_vec();
    recorder.finish(false, std::future::pending()).await;
    for viewer in watching {
        let watched = viewer.await.unwrap();
        assert_eq!((watched.bytes, &watched.sha256), (length as u64, &digest));
    }
    assert!(live.usage().memory_bytes < 6 * MIB as u64, "a viewer that does not read holds no memory");
    assert_eq!(watch(&mut stopped, Stdout, length as u64).await.sha256, digest, "it resumes where it was");
    // A slow machine needs more than 60 s for the digests. The claim ends only after them, because the files stay for
    // only 60 s after the end.
    claim.ended(ended());
    assert_eq!(all(stopped).await, [LiveEvent::Ended(ended())]);
}

#[tokio::test]
async fn short_output_stays_in_memory() {
    let (directory, live) = spilling(64 * MIB);
    let claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    for stream in [Stdout, Stderr] {
        recorder.push(stream, &bytes_at(0, 64 << 10)).await;
    }
    let (other, live_of_other) = spilling(64 * MIB);
    let claim_of_other = live_of_other.claimed(key("uid"), "count", false);
    let mut long = super::recorder(&claim_of_other, &[]);
    long.push(Stdout, &bytes_at(0, (64 << 10) + 1)).await;
    until("the longer one has a file", || files(&other).len() == 1).await;
    assert!(files(&directory).is_empty());
}

#[tokio::test]
async fn text_that_a_pattern_matches_is_in_no_file_and_an_unfinished_line_is_held() {
    let (directory, live) = spilling(64 * MIB);
    let claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &["hunter[0-9]+"]);
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    let mut written = 0;
    while written < MIB {
        // Each pass cuts the secret at another position. The files must contain no part of the secret.
        for cut in 1..10 {
            let line = b"password hunter1234567 is in here\n";
            for piece in [&line[..9 + cut], &line[9 + cut..]] {
                recorder.push(Stdout, piece).await;
                recorder.push(Stderr, piece).await;
                written += 2 * piece.len();
            }
        }
    }
    recorder.push(Stdout, b"no end: hunter12").await;
    until("both files have whole chunks", || live.usage().spill_bytes >= (MIB - 400_000) as u64).await;
    let files = files(&directory);
    assert_eq!(files.len(), 2);
    for file in files {
        let bytes = std::fs::read(file).unwrap();
        assert!(!bytes.is_empty());
        for secret in [&b"hunter"[..], b"1234567"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
    let LiveRead::Nothing { .. } = live.read("uid", Stdout, u64::MAX, 1).await.unwrap() else { panic!() };
    drop(recorder);
    drop(claim);
    let mut shown = Vec::new();
    while let Some(event) = viewer.next().await {
        if let LiveEvent::Output { bytes, .. } = event {
            shown.extend_from_slice(&bytes);
        }
    }
    assert!(shown.ends_with(b"password *** is in here\n"), "the unfinished line was never released");
    assert!(!shown.windows(6).any(|window| window == b"hunter"));
}

#[tokio::test]
async fn oldest_bytes_go_when_the_budget_is_over_and_viewers_get_a_gap() {
    let (_directory, live) = spilling(8 * MIB);
    let claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    let mut offset = 0;
    while offset < 16 * MIB {
        recorder.push(Stdout, &bytes_at(offset, 32_768)).await;
        offset += 32_768;
        until("the disk has it", || live.usage().memory_bytes < MIB as u64).await;
    }
    assert!(live.usage().spill_bytes <= 4 * MIB as u64, "half of the limit for one namespace");
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    let watched = watch(&mut viewer, Stdout, offset as u64).await;
    // The size of the gap varies: if the last bytes reach the disk while the viewer reads, Writ removes another piece.
    let mut gap = 0;
    for (start, length, reason) in &watched.gaps {
        assert_eq!((*start, *reason), (gap, GapReason::SpillBudget), "{:?}", watched.gaps);
        gap += length;
    }
    assert!(gap as usize >= 12 * MIB - 65_536 && (gap as usize) < 14 * MIB, "{gap}");
    assert_eq!(watched.sha256, sha256(&bytes_at(gap as usize, offset - gap as usize)));
    let lost: u64 = live.take_lost().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(lost, gap);
}

/// Returns a registry and a flag. While the flag is set, the disk of the registry fails with `error`.
fn failing(error: io::ErrorKind) -> (tempfile::TempDir, LiveOutput, Arc<AtomicBool>) {
    let directory = tempfile::tempdir().unwrap();
    let is_failing = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_failing);
    let write = Box::new(move |file: &std::fs::File, bytes: &[u8], offset: u64| {
        if flag.load(Ordering::Relaxed) {
            return Err(io::Error::from(error));
        }
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
    });
    let live = LiveOutput::start_with(&options(directory.path(), 64 * MIB), write).unwrap();
    (directory, live, is_failing)
}

#[tokio::test]
async fn full_disk_makes_a_gap_and_neither_delays_nor_spoils_the_result() {
    let (_directory, live, is_failing) = failing(io::ErrorKind::StorageFull);
    let claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    recorder.push(Stdout, &bytes_at(0, MIB)).await;
    until("the first part is in the file", || live.usage().memory_bytes <= 64 << 10).await;
    is_failing.store(true, Ordering::Relaxed);
    recorder.push(Stdout, &bytes_at(MIB, 7 * MIB)).await;
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    until("the failure is known", || live.usage().memory_bytes <= 512 << 10).await;
    let watched = watch(&mut viewer, Stdout, 8 * MIB as u64).await;
    let [(from, length, GapReason::DiskFailed)] = watched.gaps[..] else { panic!("{:?}", watched.gaps) };
    assert!(from as usize >= MIB - 65_536 && length > 0, "the file still has what it had: {from}");
    let lost: u64 = live.take_lost().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(lost, length);
    let record = recorder.finish(false, std::future::pending()).await.stdout_record;
    assert_eq!((record.bytes, record.sha256), (8 * MIB as i64, hex(&sha256(&bytes_at(0, 8 * MIB)))));
}

#[tokio::test]
async fn disk_that_hangs_costs_a_bounded_wait_and_the_rest_stays_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let (release, hang) = std::sync::mpsc::channel::<()>();
    let hang = std::sync::Mutex::new(hang);
    let write = Box::new(move |_: &std::fs::File, _: &[u8], _: u64| {
        // Blocks until the test ends.
        let _ = hang.lock().unwrap().recv();
        Ok(())
    });
    let live = LiveOutput::start_with(&options(directory.path(), 64 * MIB), write).unwrap();
    let mut claim = live.claimed(key("uid"), "count", false);
    let mut recorder = recorder(&claim, &[]);
    for index in 0..16 {
        recorder.push(Stdout, &bytes_at(index * MIB, MIB)).await;
    }
    let mut viewer = live.subscribe_uid("uid", StreamOffsets::default()).unwrap();
    let watched = watch(&mut viewer, Stdout, 16 * MIB as u64).await;
    let [(0, gap, GapReason::DiskSlow)] = watched.gaps[..] else { panic!("{:?}", watched.gaps) };
    assert_eq!(watched.sha256, sha256(&bytes_at(gap as usize, 16 * MIB - gap as usize)));
    let record = recorder.finish(false, std::future::pending()).await.stdout_record;
    assert_eq!(record.bytes, 16 * MIB as i64);
    claim.ended(ended());
    drop(release);
}

#[tokio::test]
async fn files_of_a_crash_are_deleted_at_start_and_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let spill = directory.path().join("spill");
    std::fs::create_dir_all(&spill).unwrap();
    for name in ["0123-0-stdout.spill", "0123-1-stderr.spill", "somebody-else.txt"] {
        std::fs::write(spill.join(name), "left").unwrap();
    }
    let live = LiveOutput::start(&options(directory.path(), 64 * MIB)).unwrap();
    assert_eq!(files(&directory), [spill.join("somebody-else.txt")]);
    drop(live);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_reads_the_files_and_stores_both_streams_whole() {
    let (_directory, live) = spilling(256 * MIB);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap(), []).unwrap();
    let mut claim = live.claimed(key("uid"), "count", false);
    let mut recorder = Recorder::new(&claim, 1000, &Redaction::default(), Some(store.clone()));
    let bytes = bytes_at(0, 24 * MIB);
    for piece in bytes.chunks(100_000) {
        recorder.push(Stdout, piece).await;
        recorder.push(Stderr, &piece[..10]).await;
    }
    let output = recorder.finish(false, std::future::pending()).await;
    claim.ended(ended());
    for (record, expected) in [(&output.stdout_record, 24 * MIB), (&output.stderr_record, 2520)] {
        assert_eq!((record.stored, record.not_stored.as_ref(), record.bytes), (true, None, expected as i64));
        let mut read = Vec::new();
        store.fetch(&key("uid"), record, &mut read).await.expect("the digest is checked");
    }
}
