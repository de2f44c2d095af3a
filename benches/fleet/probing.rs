//! CPU and memory of `writ serve` while it only probes 1,000 unused Machines.

use std::time::{Duration, Instant};

use kube::Api;
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::json;
use writ::api::Machine;

use crate::machines::{places, sshd_everywhere};
use crate::measure::{Row, Target, cpu, memory};
use crate::process::open_files;
use crate::site::Site;
use crate::world::World;

/// Default duration of the CPU measurement, equal to the default interval between two probes of a Machine.
pub const USUAL: Duration = Duration::from_secs(300);
const MACHINES: usize = 1_000;
/// Maximum time until all Machines were probed once.
const PATIENCE: Duration = Duration::from_secs(600);
/// Maximum time until the first Machine has a status.
const FIRST: Duration = Duration::from_secs(60);
const MOST_CPU: f64 = 3.0;
const MOST_MEMORY: f64 = 40.0;
/// Time to wait until the connections of the first probes are closed.
const SETTLE: Duration = Duration::from_secs(70);

pub async fn rows(world: &World, over: Duration) -> Vec<Row> {
    let sshd = sshd_everywhere(world, &["MaxStartups 1000"]);
    let empty = memory_of_an_empty_one(world).await;
    let mut site = Site::new(world).await;
    site.add_machines(&sshd, &places("probed", 8, &sshd, MACHINES), &json!({})).await;
    let started = Instant::now();
    site.serve(&[]).await;
    let probes = until_online(&site).await;
    let (first, burst) = (started.elapsed().as_secs_f64(), cpu(site.writ()).as_secs_f64());
    let most = memory(site.writ(), "VmHWM");
    tokio::time::sleep(SETTLE).await;

    let (before, logins) = (cpu(site.writ()), accepted(&sshd));
    tokio::time::sleep(over).await;
    let share = (cpu(site.writ()) - before).as_secs_f64() / over.as_secs_f64() * 100.0;
    let (logins, resident) = (accepted(&sshd) - logins, memory(site.writ(), "VmRSS"));
    let what = if probes { "1,000 Machines" } else { "1,000 Machines (this writ does not probe)" };
    vec![
        Row::bound(&format!("{what}: of a core, over {} s with {logins} logins", over.as_secs()), share, "%", MOST_CPU),
        Row::bound(
            &format!("{what}: resident over the {empty:.1} MiB of an empty `writ serve`"),
            resident - empty,
            "MiB",
            MOST_MEMORY,
        ),
        Row::ratio(
            &format!("({what}: the first look at all of them)"),
            format!("{first:.1} s, {burst:.1} s of CPU"),
            format!("at most {most:.1} MiB resident, {} files open at the end", open_files(site.writ())),
            burst / first,
            Target::None,
        ),
    ]
}

/// Returns the memory of a `writ serve` without Machines, 15 s after its start.
async fn memory_of_an_empty_one(world: &World) -> f64 {
    let mut site = Site::new(world).await;
    site.serve(&[]).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    memory(site.writ(), "VmRSS")
}

/// Waits until all Machines are Online. Returns false if no Machine has a status after [`FIRST`], because this build of
/// `writ serve` then does not probe.
async fn until_online(site: &Site<'_>) -> bool {
    let resource = ApiResource::erase::<Machine>(&());
    let machines: Api<DynamicObject> = Api::namespaced_with(site.client.clone(), &site.namespace, &resource);
    let started = Instant::now();
    loop {
        let all = machines.list(&ListParams::default()).await.expect("Machines").items;
        let phases: Vec<&str> = all.iter().filter_map(|machine| machine.data["status"]["phase"].as_str()).collect();
        let online = phases.iter().filter(|phase| **phase == "Online").count();
        if online == MACHINES {
            return true;
        }
        if phases.is_empty() && started.elapsed() > FIRST {
            return false;
        }
        let others = phases.iter().find(|phase| **phase != "Online");
        assert!(started.elapsed() < PATIENCE, "only {online} are Online; one of the others is {others:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Returns the number of logins that an sshd has accepted.
fn accepted(sshd: &crate::lab::Sshd) -> usize {
    sshd.log().unwrap_or_default().matches("Accepted publickey").count()
}
