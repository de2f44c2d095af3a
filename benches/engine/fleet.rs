//! Measures the rate of 600 executions on 8 machines. The comparison is the rate of the same API requests without
//! `writ serve`.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use futures::{StreamExt as _, stream};
use kube::ResourceExt as _;
use kube::api::PostParams;
use serde_json::json;
use writ::api::{CommandExecution, CommandExecutionStatus, Phase};

use crate::measure::{Row, Target, cpu, median};
use crate::site::{Site, sshd};
use crate::world::World;

const EXECUTIONS: usize = 600;
const MACHINES: usize = 8;
const PARALLEL: usize = 64;
/// Operations of the metric `writ_api_requests_total` that write an execution.
const WRITES: [&str; 4] = ["write_status", "write_result", "patch_finalizer", "clear_managed_fields"];
/// Number of turns. Each turn measures the API server alone, and then `writ serve`.
const TURNS: usize = 3;

pub async fn rows(world: &World) -> Vec<Row> {
    let machines: Vec<_> = (0..MACHINES).map(|_| sshd(world)).collect();
    let mut site = Site::new(world).await;
    for (index, sshd) in machines.iter().enumerate() {
        site.add_machine(&format!("m{index}"), sshd).await;
    }
    site.allow(json!([{"name": "true", "match": "true", "run": ["/bin/true"]}])).await;
    site.serve(&["--listen-operations", "127.0.0.1:0"]).await;
    let nobodys = Site::new(world).await;
    // The first run is a warm-up. `stored` later writes the two statuses of this run.
    let (_, statuses) = executed(&site, "first").await;
    let (mut rates, mut bare_rates) = (Vec::new(), Vec::new());
    let counted = site.api_requests().await;
    for turn in 0..TURNS {
        bare_rates.push(stored(&nobodys, &format!("b{turn}"), &statuses).await);
        let before = cpu(site.writ());
        rates.push(executed(&site, &format!("x{turn}")).await.0);
        let spent = (cpu(site.writ()) - before).as_secs_f64() * 1e3 / EXECUTIONS as f64;
        eprintln!(
            "    {:.0}/s alone, {:.0}/s executed ({spent:.2} ms of CPU each in writ)",
            bare_rates[turn], rates[turn]
        );
    }
    let calls = Calls::between(&counted, &site.api_requests().await);
    let ratios: Vec<f64> = rates.iter().zip(&bare_rates).map(|(rate, bare)| rate / bare).collect();
    let what = "600 executions on 8 machines against the API server alone (create, read, two writes; 64 in parallel)";
    let shown = |rates: &[f64]| format!("{:.0}/s", median(rates));
    let mut rows = vec![Row::ratio(what, shown(&rates), shown(&bare_rates), median(&ratios), Target::AtLeast(0.6))];
    rows.extend(calls.rows());
    rows
}

/// Requests to the API server for one execution, with the create.
struct Calls {
    all: f64,
    writes: f64,
}

impl Calls {
    /// Returns the requests between two readings of the counters.
    fn between(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Self {
        let executions = (EXECUTIONS * TURNS) as f64;
        // The user sends the create, so `writ serve` does not count it.
        let mut calls = Self { all: 1.0, writes: 1.0 };
        for (operation, count) in after {
            let each = (count - before.get(operation).copied().unwrap_or_default()) / executions;
            if each >= 0.005 {
                eprintln!("    {operation}: {each:.2} for each execution");
            }
            calls.all += each;
            if WRITES.contains(&operation.as_str()) {
                calls.writes += each;
            }
        }
        calls
    }

    fn rows(&self) -> Vec<Row> {
        [
            ("requests to the API server for each of them, with the create", self.all, 7.0),
            ("(writes among them)", self.writes, 3.0),
        ]
        .into_iter()
        .map(|(what, value, most)| Row::ratio(what, format!("{value:.2}"), String::new(), value, Target::AtMost(most)))
        .collect()
    }
}

/// The two statuses that Writ stores after the create of an execution: with the claim, and with the result.
pub struct Statuses {
    pub claimed: CommandExecutionStatus,
    pub finished: CommandExecutionStatus,
}

/// Creates all executions and waits for the last result. Returns the number of executions per second, and two statuses,
/// which can belong to different executions.
async fn executed(site: &Site<'_>, prefix: &str) -> (f64, Statuses) {
    let mut watch = site.watch().await;
    let started = Instant::now();
    let create = async |index: usize| {
        let (name, machine) = (format!("{prefix}-{index}"), format!("m{}", index % MACHINES));
        let execution = site.execution(&name, &machine, "true");
        site.executions().create(&PostParams::default(), &execution).await.expect("an execution");
    };
    let creating = stream::iter((0..EXECUTIONS).map(create)).buffer_unordered(PARALLEL).collect::<Vec<()>>();
    let watching = async {
        let (mut ended, mut claimed) = (HashSet::new(), None);
        loop {
            let (at, object) = watch.next().await;
            if object.phase() == Phase::Dispatched {
                claimed = object.status.or(claimed);
            } else if object.phase().is_finished() {
                assert_eq!(object.phase(), Phase::Succeeded, "{:?}", object.status);
                ended.insert(object.name_any());
                if ended.len() == EXECUTIONS {
                    return (at, claimed.expect("a claim"), object.status.expect("a result"));
                }
            }
        }
    };
    let (_, (at, claimed, finished)) = tokio::join!(creating, watching);
    (EXECUTIONS as f64 / (at - started).as_secs_f64(), Statuses { claimed, finished })
}

/// Makes only the API requests of the executions, in a namespace without `writ serve`. Returns the number of executions
/// per second.
async fn stored(site: &Site<'_>, prefix: &str, statuses: &Statuses) -> f64 {
    let started = Instant::now();
    let one = async |index: usize| cycle(site, &format!("{prefix}-{index}"), statuses).await;
    stream::iter((0..EXECUTIONS).map(one)).buffer_unordered(PARALLEL).collect::<Vec<()>>().await;
    EXECUTIONS as f64 / started.elapsed().as_secs_f64()
}

/// Makes only the requests that one execution needs: one create, one read, and two writes of the status.
pub async fn cycle(site: &Site<'_>, name: &str, statuses: &Statuses) {
    let (api, parameters) = (site.executions(), PostParams::default());
    api.create(&parameters, &site.execution(name, "m0", "true")).await.expect("an execution");
    let mut object: CommandExecution = api.get(name).await.expect("an execution");
    for status in [&statuses.claimed, &statuses.finished] {
        // The API server refuses a changed claim or decision, so both statuses get the values of `claimed`.
        let status = CommandExecutionStatus {
            claim: statuses.claimed.claim.clone(),
            decision: statuses.claimed.decision.clone(),
            machine: statuses.claimed.machine.clone(),
            remote: statuses.claimed.remote.clone(),
            ..status.clone()
        };
        object.status = Some(status);
        object = api.replace_status(name, &parameters, &object).await.expect("a status");
    }
}
