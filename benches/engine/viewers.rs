//! Measures viewers of running commands: the time from a write on the machine to a viewer, and the cost of viewers that
//! do not read.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::gateway::GatedSite;
use crate::measure::{Row, Target, memory, p50, shown};
use crate::site::sshd;
use crate::socket::Socket;
use crate::world::World;

/// Output of a command, in bytes.
const BYTES: usize = 64 << 20;
const TURNS: usize = 5;
/// Number of viewers that do not read. An execution has at most 32 viewers.
const STALLED: usize = 8;
/// Number of lines with a time that a command prints.
const STAMPS: usize = 150;
/// Time in which the messages for a viewer fill all buffers.
const FILLS: Duration = Duration::from_secs(8);
/// Maximum memory of a viewer that does not read, in MiB.
const MEMORY: f64 = 1.0;
/// Interval at which the launcher looks for new output of a command.
const POLL: Duration = Duration::from_millis(50);

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd(world);
    let output = json!({"maximumBytes": 2 * BYTES});
    let lines = format!("seq 1 {BYTES} | head -c {BYTES}");
    let stamps = format!("for stamp in $(seq {STAMPS}); do date +%s%N; sleep 0.1; done");
    let rule =
        |name: &str, line: &str| json!({"name": name, "match": name, "run": ["/bin/sh", "-c", line], "output": output});
    let rules = json!([rule("lines", &lines), rule("kept", &format!("{lines}; sleep 60")), rule("stamps", &stamps)]);
    let gated = GatedSite::new(world, &sshd, rules).await;
    let delays = delays(&gated).await;
    let poll = [POLL];
    let mut rows = vec![Row::ratio(
        "from a write on the machine to a viewer, against the interval of the launcher",
        shown(&delays),
        shown(&poll),
        p50(&delays) / p50(&poll),
        Target::None,
    )];
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let (first, second) = (read_whole(&gated, 0).await, read_whole(&gated, STALLED).await);
        // The first turn is a warm-up.
        if turn > 0 {
            alone.push(first);
            beside.push(second);
        }
    }
    rows.push(Row::ratio(
        &format!("64 MiB to a viewer next to {STALLED} that do not read, against without them"),
        shown(&beside),
        shown(&alone),
        p50(&beside) / p50(&alone),
        Target::AtMost(1.1),
    ));
    rows.push(stalled_memory(&gated).await);
    rows
}

/// Returns the times from the prints of a command until a viewer has each line.
async fn delays(gated: &GatedSite<'_>) -> Vec<Duration> {
    let (mut socket, _) = gated.start("stamps").await;
    let mut delays = Vec::new();
    while let Some(message) = socket.next().await {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
        let message: Value = serde_json::from_slice(message).expect("JSON");
        if message["type"] == "stdout" {
            let stamps = message["data"].as_str().expect("text").lines();
            delays.extend(stamps.map(|stamp| now - Duration::from_nanos(stamp.parse().expect("a time"))));
        }
    }
    assert_eq!(delays.len(), STAMPS);
    delays
}

/// Opens viewers that do not read.
async fn stall(gated: &GatedSite<'_>, id: &str, count: usize) -> Vec<Socket> {
    let mut stalled = Vec::new();
    for _ in 0..count {
        stalled.push(gated.view(id, &gated.key).await);
    }
    stalled
}

/// Returns the time from the start of a command until a viewer has its whole output, next to viewers that do not read.
async fn read_whole(gated: &GatedSite<'_>, stalled: usize) -> Duration {
    let started = Instant::now();
    let (runner, id) = gated.start("lines").await;
    drop(runner);
    let mut viewer = gated.view(&id, &gated.key).await;
    let _stalled = stall(gated, &id, stalled).await;
    read(&mut viewer).await;
    while viewer.next().await.is_some() {}
    started.elapsed()
}

/// Reads all bytes of the command's output.
async fn read(viewer: &mut Socket) {
    let mut bytes = 0;
    while bytes < BYTES {
        let message = viewer.next().await.unwrap_or_else(|| panic!("the stream ended after {bytes} bytes"));
        let message: Value = serde_json::from_slice(message).expect("JSON");
        if message["type"] == "stdout" {
            assert_eq!(message["offset"], bytes, "a hole");
            bytes += message["data"].as_str().expect("text").len();
        }
    }
}

async fn stalled_memory(gated: &GatedSite<'_>) -> Row {
    let (runner, id) = gated.start("kept").await;
    drop(runner);
    // The first viewer reads everything, so that the memory of the command itself does not count.
    read(&mut gated.view(&id, &gated.key).await).await;
    tokio::time::sleep(FILLS).await;
    let before = memory(gated.site.writ(), "VmRSS");
    let _stalled = stall(gated, &id, STALLED).await;
    tokio::time::sleep(FILLS).await;
    let each = (memory(gated.site.writ(), "VmRSS") - before) / STALLED as f64;
    Row::bound(&format!("memory of a viewer that does not read, of {STALLED}"), each, "MiB", MEMORY)
}
