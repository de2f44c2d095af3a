//! Measures the memory of 500 WebSockets that wait for output.

use std::time::Duration;

use serde_json::json;

use crate::gateway::{GatedSite, make_key, open};
use crate::measure::{Row, memory};
use crate::site::sshd;
use crate::world::World;

const SOCKETS: usize = 500;
/// Number of callers. A caller has at most 64 sockets.
const CALLERS: usize = 8;
/// Number of commands. A command has at most 32 viewers.
const COMMANDS: usize = 16;
/// Time in which each socket has pings and checks of its caller.
const SETTLES: Duration = Duration::from_secs(30);
/// Maximum memory of all sockets, in MiB.
const MEMORY: f64 = 32.0;

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd(world);
    let timeout = json!({"default": 600, "maximum": 600});
    let rules = json!([{"name": "wait", "match": "wait", "run": ["/bin/sleep", "600"], "timeoutSeconds": timeout}]);
    let gated = GatedSite::new(world, &sshd, rules).await;
    let mut keys = Vec::new();
    for caller in 0..CALLERS {
        let user = format!("viewer-{caller}");
        open(world, &gated.site.namespace, &user);
        keys.push(make_key(world, &gated.site.namespace, &user));
    }
    let mut ids = Vec::new();
    for _ in 0..COMMANDS {
        ids.push(gated.start("wait").await.1);
    }
    tokio::time::sleep(SETTLES).await;
    let before = memory(gated.site.writ(), "VmRSS");
    let mut sockets = Vec::new();
    for index in 0..SOCKETS {
        let mut socket = gated.view(&ids[index % COMMANDS], &keys[index * CALLERS / SOCKETS]).await;
        assert!(socket.next().await.is_some(), "socket {index} has no first message");
        sockets.push(socket);
    }
    tokio::time::sleep(SETTLES).await;
    let growth = memory(gated.site.writ(), "VmRSS") - before;
    let count = sockets.len();
    drop(sockets);
    tokio::time::sleep(SETTLES).await;
    let left = memory(gated.site.writ(), "VmRSS") - before;
    eprintln!("    {before:.1} MiB before, {growth:.1} MiB more with {count} sockets, {left:.1} MiB more after them");
    vec![Row::bound(&format!("{SOCKETS} idle WebSockets: resident memory"), growth, "MiB", MEMORY)]
}
