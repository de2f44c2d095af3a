//! 500 unused connections: the memory of each, and the time until they are closed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::machines::{Place, places, sshd_everywhere};
use crate::measure::{Row, Target, memory};
use crate::process::connections;
use crate::site::Site;
use crate::world::World;

const CONNECTIONS: usize = 500;
/// Maximum number of concurrent logins. An sshd on two cores could not answer 500 concurrent logins in time.
const AT_A_TIME: usize = 25;
/// Maximum memory of a connection, in KiB.
const MOST_KIB: f64 = 64.0;
/// Maximum time from the last use of a connection until Writ closes it, in seconds. Writ searches every 5 s for
/// connections that were unused for 60 s.
const CLOSED_AFTER: f64 = 70.0;
const PATIENCE: Duration = Duration::from_secs(180);

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd_everywhere(world, &["MaxStartups 1000"]);
    let mut site = Site::new(world).await;
    let all = places("idle", 7, &sshd, CONNECTIONS + 1);
    let (one, many) = all.split_at(1);
    site.add_machines(&sshd, &all, &json!({})).await;
    site.allow(json!([{"name": "true", "match": "true", "run": ["/bin/true"]}])).await;
    site.serve(&[]).await;
    // The same number of executions as below, but over one connection. `without` thus includes the memory that
    // executions need.
    let same = vec![one[0].clone(); CONNECTIONS];
    run_all(&site, "warm", &same).await;
    until_closed(&site, sshd.port()).await;
    let without = memory(site.writ(), "VmRSS");

    let started = Instant::now();
    run_all(&site, "idle", many).await;
    let (open, with) = (connections(site.writ(), sshd.port()), memory(site.writ(), "VmRSS"));
    let each = (with - without) * 1024.0 / open.max(1) as f64;
    eprintln!("    {open} connections are open after {:.0} s", started.elapsed().as_secs_f64());
    let last_used = Instant::now();
    until_closed(&site, sshd.port()).await;
    let closed_after = last_used.elapsed().as_secs_f64();
    let after = memory(site.writ(), "VmRSS");
    vec![
        Row::bound(&format!("an idle connection, of {open}: resident memory"), each, "KiB", MOST_KIB),
        Row::ratio(
            "(all of `writ serve`, with them and without)",
            format!("{with:.1} MiB"),
            format!("{without:.1} MiB; {after:.1} MiB after they were closed"),
            with / without,
            Target::None,
        ),
        Row::bound("the last idle connection is closed after its last use by", closed_after, "s", CLOSED_AFTER),
    ]
}

/// Runs an execution on each Machine, in groups of [`AT_A_TIME`] to limit concurrent logins.
async fn run_all(site: &Site<'_>, prefix: &str, places: &[Place]) {
    for (number, portion) in places.chunks(AT_A_TIME).enumerate() {
        site.run_on(&format!("{prefix}{number}"), portion).await;
    }
}

async fn until_closed(site: &Site<'_>, port: u16) {
    let started = Instant::now();
    while connections(site.writ(), port) > 0 {
        assert!(started.elapsed() < PATIENCE, "connections stay open");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
