//! Measures `writ serve` in a namespace with many finished executions: its memory, the time until the first command
//! starts, and its CPU while nothing happens.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use kube::api::{ListParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use writ::api::{CommandExecution, CommandExecutionStatus, Machine, MachinePhase, Phase};

use crate::lab::Sshd;
use crate::measure::{Row, cpu, memory};
use crate::site::{Site, machine, sshd};
use crate::world::World;

const FINISHED: usize = 10_000;
const MACHINES: usize = 1_000;
const PARALLEL: usize = 64;
/// Number of bytes of standard output in each finished execution.
const OUTPUT: usize = 2_000;
/// Maximum time until `writ serve` has probed all Machines once. Each probe logs in.
const ALL_PROBED: Duration = Duration::from_secs(300);
/// Time to wait after that, so that `writ serve` completes the work of its start.
const SETTLE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(30);

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd(world);
    let rules = json!([{"name": "true", "match": "true", "run": ["/bin/true"]}]);
    let mut site = Site::with_one_machine(world, &sshd, rules, &[]).await;
    let finished = one(&site).await;
    site.stop_writ();
    fill(&site, &sshd, finished).await;
    let waiting = site.execution("waiting", "m0", "true");
    site.executions().create(&PostParams::default(), &waiting).await.expect("an execution");
    let mut watch = site.watch().await;
    let started = Instant::now();
    site.start_writ(&[]);
    let is_claimed = |object: &CommandExecution| object.name_any() == "waiting" && object.claim().is_some();
    let (dispatched, _) = watch.until(is_claimed).await;
    all_probed(&site).await;
    tokio::time::sleep(SETTLE).await;
    let (resident, most) = (memory(site.writ(), "VmRSS"), memory(site.writ(), "VmHWM"));
    let before = cpu(site.writ());
    tokio::time::sleep(IDLE).await;
    let idle = (cpu(site.writ()) - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    site.stop_writ();
    let of = format!("{FINISHED} finished executions, {MACHINES} Machines");
    vec![
        Row::bound(&format!("{of}: resident"), resident, "MiB", 32.0),
        Row::bound(&format!("{of}: resident at most, since the start"), most, "MiB", 32.0),
        Row::bound(&format!("{of}: start to first dispatch"), (dispatched - started).as_secs_f64(), "s", 2.0),
        Row::bound(&format!("{of}: idle, of a core over 30 s"), idle, "%", 1.0),
    ]
}

/// Waits until every Machine has the result of a probe.
async fn all_probed(site: &Site<'_>) {
    let (machines, started): (Api<Machine>, _) =
        (Api::namespaced(site.client.clone(), &site.namespace), Instant::now());
    loop {
        let all = machines.list(&ListParams::default()).await.expect("the Machines");
        let is_probed = |machine: &Machine| {
            let phase = machine.status.as_ref().and_then(|status| status.phase);
            phase.is_some_and(|phase| phase != MachinePhase::Unknown)
        };
        let left = all.items.iter().filter(|machine| !is_probed(machine)).count();
        if left == 0 {
            eprintln!("    all Machines probed after {:.0} s", started.elapsed().as_secs_f64());
            return;
        }
        assert!(started.elapsed() < ALL_PROBED, "{left} Machines are not probed");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Runs an execution. Returns its status, with [`OUTPUT`] bytes as standard output.
async fn one(site: &Site<'_>) -> CommandExecutionStatus {
    let mut watch = site.watch().await;
    let execution = site.execution("one", "m0", "true");
    site.executions().create(&PostParams::default(), &execution).await.expect("an execution");
    let (_, object) = watch.succeeded("one").await;
    CommandExecutionStatus { stdout: Some("0123456789".repeat(OUTPUT / 10)), ..object.status.expect("a result") }
}

async fn fill(site: &Site<'_>, sshd: &Sshd, finished: CommandExecutionStatus) {
    let started = Instant::now();
    let resource = ApiResource::erase::<Machine>(&());
    let machines: Api<DynamicObject> = Api::namespaced_with(site.client.clone(), &site.namespace, &resource);
    let (api, parameters) = (site.executions(), PostParams::default());
    let add_machine = async |index: usize| {
        let object = DynamicObject::new(&format!("other-{index}"), &resource).data(machine("m0", sshd));
        machines.create(&parameters, &object).await.expect("a Machine");
    };
    stream::iter((1..MACHINES).map(add_machine)).buffer_unordered(PARALLEL).collect::<Vec<()>>().await;
    let add = async |index: usize| {
        let name = format!("old-{index}");
        let mut object = api.create(&parameters, &site.execution(&name, "m0", "true")).await.expect("an execution");
        object.status = Some(finished.clone());
        let stored = api.replace_status(&name, &parameters, &object).await.expect("a status");
        assert_eq!(stored.phase(), Phase::Succeeded);
    };
    stream::iter((0..FINISHED).map(add)).buffer_unordered(PARALLEL).collect::<Vec<()>>().await;
    eprintln!("    {FINISHED} executions stored in {:.0} s", started.elapsed().as_secs_f64());
}
