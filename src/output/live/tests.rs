mod bounds;
mod events;
mod spilling;

use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::output::{OutputKey, Recorder};
use crate::policy::Redaction;

use StreamKind::{Stderr, Stdout};

const MIB: usize = 1 << 20;

fn key(uid: &str) -> OutputKey {
    OutputKey { namespace: "team".to_owned(), uid: uid.to_owned() }
}

fn options(directory: &Path, spill_bytes: usize) -> LiveOptions {
    LiveOptions { directory: directory.join("spill"), spill_bytes: spill_bytes as u64 }
}

/// Returns a registry that keeps files in its own directory.
fn spilling(spill_bytes: usize) -> (tempfile::TempDir, LiveOutput) {
    let directory = tempfile::tempdir().unwrap();
    let live = LiveOutput::start(&options(directory.path(), spill_bytes)).unwrap();
    (directory, live)
}

fn recorder(claim: &LiveClaim, patterns: &[&str]) -> Recorder {
    let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Recorder::new(claim, 1000, &Redaction::compile(&patterns).unwrap(), None)
}

fn ended() -> EndedStatus {
    EndedStatus { phase: Phase::Succeeded, reason: Some(Reason::Completed), exit_code: Some(0), duration_ms: Some(1) }
}

/// Returns test bytes with a period of 1,255 bytes, so that a test detects a shifted or repeated piece.
fn bytes_at(offset: usize, length: usize) -> Vec<u8> {
    (offset..offset + length).map(|index| (index / 5 % 251) as u8).collect()
}

/// Returns all events of a viewer.
async fn all(mut viewer: Viewer) -> Vec<LiveEvent> {
    let mut events = Vec::new();
    while let Some(event) = viewer.next().await {
        events.push(event);
    }
    events
}

/// Number of bytes, digest and gaps of one stream, as a viewer received them.
#[derive(Debug, Default, Eq, PartialEq)]
struct Watched {
    bytes: u64,
    sha256: Vec<u8>,
    gaps: Vec<(u64, u64, GapReason)>,
}

/// Watches one stream up to an offset or to the end. Fails if a piece does not start where the previous piece ended.
async fn watch(viewer: &mut Viewer, stream: StreamKind, until: u64) -> Watched {
    let (mut watched, mut digest, mut next) = (Watched::default(), Sha256::new(), None);
    while next.unwrap_or(0) < until
        && let Some(event) = viewer.next().await
    {
        match event {
            LiveEvent::Output { stream: of, offset, bytes } if of == stream => {
                assert_eq!(offset, next.unwrap_or(offset));
                next = Some(offset + bytes.len() as u64);
                watched.bytes += bytes.len() as u64;
                digest.update(&bytes);
            }
            LiveEvent::Gap { stream: of, offset, length, reason } if of == stream => {
                assert_eq!(offset, next.unwrap_or(offset));
                next = Some(offset + length);
                watched.gaps.push((offset, length, reason));
            }
            _ => {}
        }
    }
    watched.sha256 = digest.finalize().to_vec();
    watched
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// Returns the paths of the spill files.
fn files(directory: &tempfile::TempDir) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory.path().join("spill")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Waits until another thread has made `is_so` true. Fails after 30 s.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
