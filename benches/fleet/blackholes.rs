//! Executions on 100 good Machines at a steady rate: first alone, then next to 100 bad Machines with queued executions.

use std::time::Duration;

use serde_json::json;

use crate::holes::{self, Hole};
use crate::lab::Sshd;
use crate::machines::{Place, Times, address, places, sshd_everywhere};
use crate::measure::{Row, Target, forget_most_memory, memory, p50, percentile, shown};
use crate::process::{open_files, threads};
use crate::site::Site;
use crate::world::World;

const GOOD: usize = 100;
/// Number of bad Machines of each of the four kinds.
const BAD: usize = 25;
/// Number of queued executions on each bad Machine.
const WAITING: usize = 3;
/// Number of executions in each phase of the benchmark. Their rate, one per [`EVERY`], is about a third of the maximum
/// rate of `writ serve` in earlier measurements.
const EXECUTIONS: usize = 400;
const EVERY: Duration = Duration::from_millis(100);
/// Maximum delay that bad Machines may add to the starts on good Machines, in milliseconds. The delay is measured at
/// the 99th percentile of the times from create to start.
const MOST: f64 = 200.0;

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd_everywhere(world, &["MaxStartups 1000"]);
    // The benchmark freezes this sshd later, so the good Machines use another sshd.
    let frozen_sshd = sshd_everywhere(world, &["MaxStartups 1000"]);
    let mut site = Site::new(world).await;
    let good = places("good", 1, &sshd, GOOD);
    site.add_machines(&sshd, &good, &json!({})).await;
    site.allow(json!([{"name": "true", "match": "true", "run": ["/bin/true"]}])).await;
    site.serve(&[]).await;
    site.run_on("warm", &good).await;

    let alone = Phase::measure(&site, "alone", &good).await;
    let (_holes, mut bad) = bad_machines(&site, &sshd).await;
    let frozen = places("frozen", 2, &frozen_sshd, BAD);
    site.add_machines(&frozen_sshd, &frozen, &json!({})).await;
    site.run_on("before", &frozen).await;
    frozen_sshd.freeze();
    bad.extend(frozen);
    site.create_on("waits", &bad, WAITING).await;
    let beside = Phase::measure(&site, "beside", &good).await;
    let later = Phase::measure(&site, "later", &good).await;
    eprintln!("    what waits on the bad ones: {:?}", site.phases("waits").await);
    drop(site);
    compare(&alone, &beside, &later)
}

/// Adds 75 bad Machines of three kinds. Their keys are the keys of the good Machines.
async fn bad_machines(site: &Site<'_>, sshd: &Sshd) -> (Vec<Hole>, Vec<Place>) {
    let (mut bad, mut places) = (Vec::new(), Vec::new());
    for number in 0..BAD {
        let hole = holes::drops_syn(&address(3, number)).await;
        places.push(place(format!("drops{number}"), &hole));
        bad.push(hole);
        let hole = holes::silent(&address(4, number)).await;
        places.push(place(format!("silent{number}"), &hole));
        bad.push(hole);
        let hole = holes::tarpit(&address(5, number)).await;
        places.push(place(format!("tarpit{number}"), &hole));
        bad.push(hole);
    }
    site.add_machines(sshd, &places, &json!({})).await;
    (bad, places)
}

fn place(name: String, hole: &Hole) -> Place {
    Place { name, address: hole.address.ip().to_string(), port: hole.address.port() }
}

/// Results of one phase of the benchmark: the times of the executions, and the memory, threads and open files of
/// `writ serve` at the end of the phase.
struct Phase {
    times: Times,
    resident: f64,
    most: f64,
    threads: usize,
    open_files: usize,
}

impl Phase {
    async fn measure(site: &Site<'_>, name: &str, good: &[Place]) -> Self {
        let writ = site.writ();
        forget_most_memory(writ);
        let times = site.run_steadily(name, good, EXECUTIONS, EVERY).await;
        let (resident, most) = (memory(writ, "VmRSS"), memory(writ, "VmHWM"));
        let phase = Self { times, resident, most, threads: threads(writ), open_files: open_files(writ) };
        eprintln!(
            "    {name}: started after {}, ended after {}",
            shown(&phase.times.started),
            shown(&phase.times.ended)
        );
        phase
    }

    fn process(&self) -> String {
        let Self { resident, most, threads, open_files, .. } = self;
        format!("{resident:.1} MiB (at most {most:.1}), {threads} threads, {open_files} files")
    }
}

fn compare(alone: &Phase, beside: &Phase, later: &Phase) -> Vec<Row> {
    let mut rows = Vec::new();
    let rate = 1000 / EVERY.as_millis();
    for (when, phase) in [("", beside), (", 40 s later", later)] {
        for (what, times, without) in
            [("start", &phase.times.started, &alone.times.started), ("result", &phase.times.ended, &alone.times.ended)]
        {
            let what = format!(
                "create to {what} on {GOOD} good Machines ({rate}/s), beside {} bad ones{when}, against without",
                BAD * 4
            );
            rows.push(Row::ratio(&what, shown(times), shown(without), p50(times) / p50(without), Target::None));
        }
        let p99 = |phase: &Phase| percentile(&phase.times.started, 990).as_secs_f64() * 1e3;
        let what = format!("create to start, p99: what the bad ones add{when}");
        rows.push(Row::bound(&what, p99(phase) - p99(alone), "ms", MOST));
        let what = format!("`writ serve` at the end{when}");
        rows.push(Row::ratio(&what, phase.process(), alone.process(), phase.resident / alone.resident, Target::None));
    }
    rows
}
