//! Measures the recovery of 50 unreachable Machines that become reachable in the same moment. Each Machine has a queue,
//! in which some executions expire. One sshd serves all Machines, with the default limit for new connections
//! (MaxStartups 10:30:100).

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use kube::ResourceExt as _;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use tokio::sync::watch;
use writ::api::{CommandExecution, Phase};

use crate::holes;
use crate::lab::Sshd;
use crate::machines::{PARALLEL, Place, address, sshd_everywhere};
use crate::measure::{Row, Target};
use crate::site::Site;
use crate::world::World;

const MACHINES: usize = 50;
/// Number of executions on each Machine. Every fourth execution expires.
const QUEUED: usize = 20;
const EXPIRES_AFTER_SECONDS: u32 = 5;
/// Minimum time per round of creates. Creation times are whole seconds. Because a round takes more than 1 s, each round
/// has later creation times than the round before it.
const ROUND: Duration = Duration::from_millis(1100);
/// Maximum time until the executions reach an expected state.
const PATIENCE: Duration = Duration::from_secs(600);
/// Program `note MACHINE NUMBER`. It appends a line to the ledger, the file of all commands that ran.
const NOTE: &str = "#!/bin/sh\necho \"$1 $2\" >>\"$HOME/ran\"\n";

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd_everywhere(world, &["LogLevel VERBOSE"]);
    let (release, open) = watch::channel(false);
    let (mut proxies, mut places) = (Vec::new(), Vec::new());
    let to = ([127, 0, 0, 1], sshd.port()).into();
    for number in 0..MACHINES {
        let proxy = holes::proxy(&address(6, number), to, &open).await;
        let (address, port) = (proxy.address.ip().to_string(), proxy.address.port());
        places.push(Place { name: format!("m{number}"), address, port });
        proxies.push(proxy);
    }
    let mut site = Site::new(world).await;
    // Half of the Machines run one command at a time, which makes the order of the commands visible. The other half
    // have the default limit.
    let (strict, usual) = places.split_at(MACHINES / 2);
    site.add_machines(&sshd, strict, &json!({"maxConcurrent": 1})).await;
    site.add_machines(&sshd, usual, &json!({})).await;
    site.allow(json!([note(&sshd)])).await;
    site.serve(&[]).await;
    fill(&site, &places).await;
    until(&site, "what expires has expired", |phases| phases.get("Expired") == Some(&(MACHINES * expiring()))).await;

    let released = Instant::now();
    release.send(true).expect("proxies");
    let finished = |phases: &BTreeMap<String, usize>| {
        let ended = ["Succeeded", "Expired", "Failed", "LaunchFailed", "OutcomeUnknown", "TimedOut", "Cancelled"];
        ended.iter().filter_map(|phase| phases.get(*phase)).sum::<usize>() == MACHINES * QUEUED
    };
    let phases = until(&site, "all have ended", finished).await;
    let seconds = released.elapsed().as_secs_f64();
    eprintln!("    {phases:?}");
    let mut rows = judge(&site, &sshd, seconds).await;
    // sshd does not log every dropped connection, so the number of lines is a minimum.
    let dropped = sshd.log().unwrap_or_default().lines().filter(|line| line.contains("past MaxStartups")).count();
    let what = "(connections that sshd dropped meanwhile, of which nobody is to be told; lines in its log)";
    rows.push(Row::ratio(what, dropped.to_string(), "at least 1".to_owned(), dropped as f64, Target::None));
    drop((site, proxies));
    rows
}

/// Returns the number of expiring executions in a queue.
fn expiring() -> usize {
    (0..QUEUED).filter(|number| expires(*number)).count()
}

fn expires(number: usize) -> bool {
    number % 4 == 3
}

fn note(sshd: &Sshd) -> serde_json::Value {
    let program = sshd.home().join("note");
    std::fs::write(&program, NOTE).expect("a program on the machine");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a mode");
    json!({"name": "note", "match": "note {machine} {number}", "run": [program, "{machine}", "{number}"],
        "parameters": {"machine": {"pattern": "m[0-9]+"}, "number": {"integer": {"minimum": 0, "maximum": 1000}}}})
}

/// Creates one execution per Machine in each round. The order of the names differs from the order of creation, to
/// detect a queue that sorts by name.
async fn fill(site: &Site<'_>, places: &[Place]) {
    let started = Instant::now();
    for number in 0..QUEUED {
        let begun = Instant::now();
        let create = async |place: &Place| {
            let name = format!("x{}-{}-{number}", (number * 7) % QUEUED, place.name);
            let mut object = site.execution(&name, &place.name, &format!("note {} {number}", place.name));
            object.spec.starting_deadline_seconds = if expires(number) { EXPIRES_AFTER_SECONDS } else { 3600 };
            site.executions().create(&PostParams::default(), &object).await.expect("an execution");
        };
        stream::iter(places.iter().map(create)).buffer_unordered(PARALLEL).collect::<Vec<()>>().await;
        tokio::time::sleep(ROUND.saturating_sub(begun.elapsed())).await;
    }
    eprintln!("    {} executions wait after {:.0} s", places.len() * QUEUED, started.elapsed().as_secs_f64());
}

async fn until(
    site: &Site<'_>,
    what: &str,
    is_so: impl Fn(&BTreeMap<String, usize>) -> bool,
) -> BTreeMap<String, usize> {
    let started = Instant::now();
    loop {
        let phases = site.phases("x").await;
        if is_so(&phases) {
            return phases;
        }
        assert!(started.elapsed() < PATIENCE, "it does not come to that {what}: {phases:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Compares the statuses and the ledger with the expected results.
async fn judge(site: &Site<'_>, sshd: &Sshd, seconds: f64) -> Vec<Row> {
    let ledger = std::fs::read_to_string(sshd.home().join("ran")).unwrap_or_default();
    let mut ran: HashMap<String, Vec<usize>> = HashMap::new();
    for line in ledger.lines() {
        let (machine, number) = line.split_once(' ').expect("a machine and a number");
        ran.entry(machine.to_owned()).or_default().push(number.parse().expect("a number"));
    }
    let expired_ran = ran.values().flatten().filter(|number| expires(**number)).count();
    let disordered = |machines: std::ops::Range<usize>, most: usize| {
        machines.filter(|machine| too_early(ran.get(&format!("m{machine}")), most)).count()
    };
    let objects = site.executions().list(&ListParams::default()).await.expect("executions").items;
    let not_so: Vec<&CommandExecution> = objects.iter().filter(|object| object.phase() != expected(object)).collect();
    for object in not_so.iter().take(5) {
        let status = object.status.as_ref();
        eprintln!("    {}: {:?}", object.name_any(), status.map(|status| (status.phase, status.message.clone())));
    }
    let all = MACHINES * QUEUED;
    let queues = format!("{MACHINES} queues of {QUEUED} that come back at once");
    let count = |what: &str, measured: usize| {
        let target = Target::AtMost(0.0);
        Row::ratio(&format!("{queues}: {what}"), measured.to_string(), "0".to_owned(), measured as f64, target)
    };
    vec![
        Row::ratio(
            &format!("{queues}: seconds until the last has ended"),
            format!("{seconds:.1} s"),
            format!("{:.1} executions/s", ledger.lines().count() as f64 / seconds),
            seconds,
            Target::None,
        ),
        Row::ratio(
            &format!("{queues}: commands that ran, by the machine's own ledger"),
            ledger.lines().count().to_string(),
            (all - MACHINES * expiring()).to_string(),
            ledger.lines().count() as f64 / (all - MACHINES * expiring()) as f64,
            Target::AtLeast(1.0),
        ),
        count("expired ones that ran", expired_ran),
        count("executions that ended in anything but Succeeded or Expired", not_so.len()),
        count("queues with `maxConcurrent: 1` that were out of order", disordered(0..MACHINES / 2, 0)),
        count(
            "queues with `maxConcurrent: 4` in which one overtook more than three",
            disordered(MACHINES / 2..MACHINES, 3),
        ),
    ]
}

/// Returns the expected final phase.
fn expected(object: &CommandExecution) -> Phase {
    if object.spec.starting_deadline_seconds == EXPIRES_AFTER_SECONDS { Phase::Expired } else { Phase::Succeeded }
}

/// Returns true if an execution ran before more than `most` older executions. Up to `most` are normal for concurrent
/// executions.
fn too_early(ran: Option<&Vec<usize>>, most: usize) -> bool {
    let ran: &[usize] = ran.map_or(&[], Vec::as_slice);
    ran.iter().enumerate().any(|(place, number)| ran[place..].iter().filter(|later| *later < number).count() > most)
}
