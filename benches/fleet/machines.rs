//! Many Machines, each with its own address in 127.0.0.0/8, and executions on them at a steady rate.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use kube::ResourceExt as _;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use writ::api::Phase;

use crate::lab::{Sshd, SshdOptions};
use crate::site::{Site, machine};
use crate::world::World;

/// Number of concurrent requests to the API server in the unmeasured parts of the benchmark.
pub const PARALLEL: usize = 16;
const GROUP: &str = "writ.dev/v1alpha1";
/// Start of the name of each Secret. The port of the sshd follows. All Machines of an sshd share one Secret.
const SECRET: &str = "fleet";

/// Starts one sshd for many machines, with these lines in its configuration.
pub fn sshd_everywhere(world: &World, config: &[&str]) -> Sshd {
    let mut config: Vec<String> = config.iter().map(|line| (*line).to_owned()).collect();
    config.push("LogLevel INFO".to_owned());
    let options = SshdOptions {
        config,
        plain: true,
        listen_address: Some(std::net::Ipv4Addr::UNSPECIFIED.into()),
        ..SshdOptions::default()
    };
    Sshd::start(&world.reaper, &options).expect("an sshd")
}

/// Returns the address of the machine with this number. Each kind of machine has its own network.
pub fn address(network: u8, number: usize) -> String {
    format!("127.{network}.{}.{}", number / 250, number % 250 + 1)
}

/// Name, address and port of a machine.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: String,
    pub address: String,
    pub port: u16,
}

/// Returns the names, addresses and ports of `count` Machines. One sshd serves all of them.
pub fn places(prefix: &str, network: u8, sshd: &Sshd, count: usize) -> Vec<Place> {
    let place =
        |number| Place { name: format!("{prefix}{number}"), address: address(network, number), port: sshd.port() };
    (0..count).map(place).collect()
}

impl Site<'_> {
    /// Adds Machines with the keys of an sshd. `changes` overwrites fields of their spec.
    pub async fn add_machines(&self, sshd: &Sshd, places: &[Place], changes: &Value) {
        let secret = format!("{SECRET}-{}", sshd.port());
        let content = json!({"metadata": {"labels": {"writ.dev/credentials": "true"}}, "type": "kubernetes.io/ssh-auth",
            "stringData": {"ssh-privatekey": sshd.private_key().expect("a key")}});
        self.apply("v1", "Secret", &secret, content).await;
        let add = async |place: &Place| {
            let mut object = machine(&secret, sshd);
            object["spec"]["address"] = json!(place.address);
            object["spec"]["port"] = json!(place.port);
            // Each Machine has its own directory for the launcher, like a real machine.
            object["spec"]["execution"]["directory"] = json!(sshd.home().join(&place.name));
            for (field, value) in changes.as_object().into_iter().flatten() {
                object["spec"][field] = value.clone();
            }
            self.apply(GROUP, "Machine", &place.name, object).await;
        };
        stream::iter(places.iter().map(add)).buffer_unordered(PARALLEL).collect::<Vec<()>>().await;
    }

    /// Creates `each` executions of `true` on each of these Machines, without waiting for them.
    pub async fn create_on(&self, prefix: &str, places: &[Place], each: usize) {
        let create = async |number: usize| {
            let name = format!("{prefix}-{number}");
            let object = self.execution(&name, &places[number % places.len()].name, "true");
            self.executions().create(&PostParams::default(), &object).await.expect("an execution");
        };
        let all = stream::iter((0..places.len() * each).map(create));
        all.buffer_unordered(PARALLEL).collect::<Vec<()>>().await;
    }

    /// Runs `true` once on each of these Machines.
    pub async fn run_on(&self, prefix: &str, places: &[Place]) {
        let mut watch = self.watch().await;
        let creating = self.create_on(prefix, places, 1);
        let watching = async {
            let mut ended = std::collections::HashSet::new();
            while ended.len() < places.len() {
                let (_, object) = watch.next().await;
                if object.name_any().starts_with(prefix) && object.phase().is_finished() {
                    assert_eq!(object.phase(), Phase::Succeeded, "{:?}", object.status);
                    ended.insert(object.name_any());
                }
            }
        };
        tokio::join!(creating, watching);
    }

    /// Creates `count` executions on these Machines in turn, one per interval `every`. Returns the times from the
    /// create of each execution to its start and to its end. The watch event with the claim counts as the start.
    pub async fn run_steadily(&self, prefix: &str, places: &[Place], count: usize, every: Duration) -> Times {
        let mut watch = self.watch().await;
        let creating = async {
            let mut ticks = tokio::time::interval(every);
            let mut tasks = tokio::task::JoinSet::new();
            let mut created = HashMap::new();
            for number in 0..count {
                ticks.tick().await;
                let name = format!("{prefix}-{number}");
                let object = self.execution(&name, &places[number % places.len()].name, "true");
                let api = self.executions();
                created.insert(name, Instant::now());
                tasks.spawn(async move {
                    api.create(&PostParams::default(), &object).await.expect("an execution");
                });
            }
            tasks.join_all().await;
            created
        };
        let watching = async {
            let (mut started, mut ended) = (HashMap::new(), HashMap::new());
            while ended.len() < count {
                let (at, object) = watch.next().await;
                let (name, phase) = (object.name_any(), object.phase());
                if !name.starts_with(prefix) {
                    continue;
                }
                if object.claim().is_some() {
                    started.entry(name.clone()).or_insert(at);
                }
                if phase.is_finished() {
                    assert_eq!(phase, Phase::Succeeded, "{:?}", object.status);
                    ended.entry(name).or_insert(at);
                }
            }
            (started, ended)
        };
        let (created, (started, ended)) = tokio::join!(creating, watching);
        say_slowest(&created, &started);
        let since = |at: HashMap<String, Instant>| at.into_iter().map(|(name, at)| at - created[&name]).collect();
        Times { started: since(started), ended: since(ended) }
    }

    /// Returns the number of executions in each phase. Counts only executions whose names start with `prefix`.
    pub async fn phases(&self, prefix: &str) -> BTreeMap<String, usize> {
        let mut phases = BTreeMap::new();
        let all = self.executions().list(&ListParams::default()).await.expect("executions");
        for object in all.items.iter().filter(|object| object.name_any().starts_with(prefix)) {
            *phases.entry(object.phase().as_str().to_owned()).or_default() += 1;
        }
        phases
    }
}

/// Prints the names of the 8 executions with the longest times from create to start. Each name ends with a number.
/// Consecutive numbers indicate a common cause.
fn say_slowest(created: &HashMap<String, Instant>, started: &HashMap<String, Instant>) {
    let mut slowest: Vec<_> = started.iter().map(|(name, at)| (*at - created[name], name)).collect();
    slowest.sort_unstable();
    let shown = slowest.iter().rev().take(8).map(|(took, name)| format!("{name} {} ms", took.as_millis()));
    eprintln!("    started last: {}", shown.collect::<Vec<_>>().join(", "));
}

/// Times from the create of each execution to its start and to its end.
pub struct Times {
    pub started: Vec<Duration>,
    pub ended: Vec<Duration>,
}
