//! Viewers that join, leave and resume at random. Each of them reads the same bytes.
//!
//! `make viewers` is the long form: `WRIT_VIEWERS=20 WRIT_VIEWER_MIB=64`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::socket::{Frame, Socket};
use super::{Gated, rule};

/// Number of viewers in the short form.
const SHORT_VIEWERS: usize = 4;
/// Output in the short form, in MiB.
const SHORT_MIB: usize = 2;
/// Number of parts that a viewer reads, on average, before the end of the output.
const VISITS: usize = 6;
/// Maximum pause of a viewer between two visits.
const MAX_AWAY: Duration = Duration::from_millis(800);
/// Pause after a refusal. A caller may read 50 times per second.
const AFTER_REFUSAL: Duration = Duration::from_millis(500);
/// Maximum time for all viewers.
const PATIENCE: Duration = Duration::from_secs(600);

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Returns the bytes of the command: counted lines up to a size.
fn counted_lines(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 16);
    let mut line = 1_u64;
    while text.len() < bytes {
        text.extend(format!("{line}\n").into_bytes());
        line += 1;
    }
    text.truncate(bytes);
    text
}

/// The part of an output that a viewer has read, over all its visits.
#[derive(Default)]
struct Read {
    digest: Sha256,
    bytes: usize,
    visits: usize,
    is_complete: bool,
}

impl Read {
    /// Opens the stream at the present offset, and reads about `budget` bytes.
    async fn visit(&mut self, gated: &Gated, id: &str, budget: usize) {
        let path = format!("/api/v1/commands/{id}/stream?offset={}", self.bytes);
        let headers = [("Authorization", format!("Bearer {}", gated.jane))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let (head, socket) = Socket::try_open(gated, &path, &headers).await;
        let Some(mut socket) = socket else {
            assert!(head.contains(" 429 ") || head.contains(" 503 "), "{head}");
            tokio::time::sleep(AFTER_REFUSAL).await;
            return;
        };
        self.visits += 1;
        let until = self.bytes.saturating_add(budget);
        while self.bytes < until {
            match socket.next().await {
                Frame::Message(message) => self.take(&message),
                Frame::Closed(code) => {
                    assert!(code == 1000 && self.is_complete, "closed with {code} after {}", self.bytes);
                    return;
                }
                Frame::Bytes(bytes) => panic!("{} bytes of a session", bytes.len()),
                Frame::Lost => panic!("the connection was lost after {}\n{}", self.bytes, gated.case.log()),
            }
        }
    }

    fn take(&mut self, message: &Value) {
        match message["type"].as_str() {
            Some("stdout") => {
                assert_eq!(message["offset"], self.bytes, "a hole or an overlap");
                let data = message["data"].as_str().expect("text");
                self.digest.update(data);
                self.bytes += data.len();
            }
            Some("end") => {
                assert_eq!((&message["status"], &message["exitCode"]), (&json!("completed"), &json!(0)), "{message}");
                self.is_complete = true;
            }
            Some("execution" | "progress") => {}
            _ => panic!("an unexpected message: {message}"),
        }
    }
}

/// Joins at a random time, and reads the whole output in visits of random length with random pauses.
async fn view(gated: Arc<Gated>, id: String, bytes: usize) -> Read {
    let (mut read, started) = (Read::default(), Instant::now());
    while !read.is_complete {
        assert!(started.elapsed() < PATIENCE, "{} of {bytes} bytes after {} visits", read.bytes, read.visits);
        tokio::time::sleep(MAX_AWAY.mul_f64(fastrand::f64())).await;
        let budget = 1 + fastrand::usize(..2 * bytes / VISITS);
        read.visit(&gated, &id, budget).await;
    }
    read
}

/// Viewer that reads the first message only, until `over` completes.
async fn stall(gated: &Gated, id: &str, over: impl Future<Output = ()>) {
    let mut socket = Socket::open(gated, &format!("/api/v1/commands/{id}/stream")).await;
    assert!(matches!(socket.next().await, Frame::Message(_)));
    over.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_that_come_and_go_read_the_same_bytes() {
    let (viewers, bytes) = (number("WRIT_VIEWERS", SHORT_VIEWERS), number("WRIT_VIEWER_MIB", SHORT_MIB) << 20);
    let gated = Arc::new(Gated::new().await);
    // Half of the output comes at once. The rest needs several seconds, so that viewers also wait for bytes.
    let half = bytes / 2;
    let script = format!(
        "seq 1 {bytes} | head -c {bytes} | (head -c {half}; for part in 1 2 3 4 5; do sleep 1; head -c {}; done; cat)",
        bytes / 10
    );
    let mut lines = rule("lines", &script);
    lines["output"] = json!({"maximumBytes": 2 * bytes});
    lines["timeoutSeconds"] = json!({"default": 600, "maximum": 600});
    gated.case.apply_whitelist("lines", json!([lines])).await;
    let queued = gated.post("/api/v1/commands", json!({"machine": "web-1", "command": "lines"})).await;
    assert_eq!(queued.status, 202, "{queued:?}");
    let id = queued.text("command_id").to_owned();
    let (sender, over) = tokio::sync::oneshot::channel::<()>();
    let all = async {
        // Each viewer has its own task. In one task, a quick viewer would use up the turns of the others.
        let tasks = (0..viewers).map(|_| tokio::spawn(view(Arc::clone(&gated), id.clone(), bytes)));
        let reads: Vec<Read> = join_all(tasks).await.into_iter().map(|read| read.expect("a viewer")).collect();
        let _ = sender.send(());
        reads
    };
    let stalled = stall(&gated, &id, async {
        let _ = over.await;
    });
    let (reads, ()) = tokio::join!(all, stalled);

    let expected = Sha256::digest(counted_lines(bytes));
    let visits: Vec<usize> = reads.iter().map(|read| read.visits).collect();
    for read in reads {
        let digest = read.digest.finalize();
        let is_same = read.bytes == bytes && digest.as_slice() == expected.as_slice();
        assert!(is_same, "{} of {bytes} bytes, or other ones, after {} visits", read.bytes, read.visits);
    }
    assert!(visits.iter().sum::<usize>() > 2 * viewers, "{visits:?}");
    let view = gated.ended(&id).await;
    assert_eq!(view["phase"], "Succeeded", "{view}");
    let name = id.split_once(':').expect("an id").1;
    let output = gated.case.finished(name).await.output.expect("a record of the output");
    let hexadecimal: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((output.stdout.sha256, output.incomplete), (hexadecimal, false));
}
