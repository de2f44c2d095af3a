//! Measures the time from the create of an execution to the watch event with its result, on a quiet cluster. Compares
//! it with the same requests without `writ serve` (create, read, two writes), and with a new `ssh` process.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kube::ResourceExt as _;
use kube::api::PostParams;
use serde_json::json;
use writ::api::CommandExecution;

use crate::fleet::{Statuses, cycle};
use crate::lab::Sshd;
use crate::lab::files;
use crate::measure::{Row, Target, p50, shown};
use crate::site::{Site, Watch, sshd};
use crate::world::World;

const SAMPLES: usize = 120;
/// Number of warm-up samples, which do not count.
const WARM_UP: usize = 10;
/// Pause before each measurement. No other request is then in progress, so the measured times include every wait of a
/// quiet API server.
const QUIET: Duration = Duration::from_millis(100);
/// Time until the API servers apply installed or removed admission policies.
const POLICIES_CHANGE: Duration = Duration::from_secs(10);

pub async fn rows(world: &World) -> Vec<Row> {
    let mut rows = measure(world, "with the chart's policies").await;
    world.upgrade(&["--set", "admission.install=false"]);
    tokio::time::sleep(POLICIES_CHANGE).await;
    rows.extend(measure(world, "without admission policies").await);
    world.upgrade(&[]);
    tokio::time::sleep(POLICIES_CHANGE).await;
    rows
}

async fn measure(world: &World, which: &str) -> Vec<Row> {
    let sshd = sshd(world);
    let rules = json!([{"name": "true", "match": "true", "run": ["/bin/true"]}]);
    let site = Site::with_one_machine(world, &sshd, rules, &[]).await;
    let nobodys = Site::new(world).await;
    let client = SshClient::new(&sshd);
    let mut watch = site.watch().await;
    let (mut stages, mut alone, mut logins): ([Vec<Duration>; 3], Vec<Duration>, Vec<Duration>) = Default::default();
    for turn in 0..SAMPLES + WARM_UP {
        let name = format!("x{turn}");
        tokio::time::sleep(QUIET).await;
        let (times, statuses) = execute(&site, &mut watch, &name).await;
        let login = client.run();
        tokio::time::sleep(QUIET).await;
        let started = Instant::now();
        cycle(&nobodys, &name, &statuses).await;
        if turn >= WARM_UP {
            alone.push(started.elapsed());
            logins.push(login);
            stages.iter_mut().zip(times).for_each(|(stage, time)| stage.push(time));
        }
    }
    let [created, claimed, finished] = &stages;
    eprintln!("    {which}: answer to the create {}, seen as claimed {}", shown(created), shown(claimed));
    let what = format!("create to result of `true`, one at a time, {which}, against the API server alone");
    let beside = format!("(the same, {which}, against a fresh `ssh`)");
    vec![
        Row::ratio(&what, shown(finished), shown(&alone), p50(finished) / p50(&alone), Target::AtMost(1.3)),
        Row::ratio(&beside, shown(finished), shown(&logins), p50(finished) / p50(&logins), Target::None),
    ]
}

/// Runs an execution. Returns its statuses with the claim and with the result, and the times from the create to three
/// events:
///
/// 1. the response of the API server,
/// 2. the watch event with the claim,
/// 3. the watch event with the result.
pub async fn execute(site: &Site<'_>, watch: &mut Watch, name: &str) -> ([Duration; 3], Statuses) {
    let execution = site.execution(name, "m0", "true");
    let started = Instant::now();
    site.executions().create(&PostParams::default(), &execution).await.expect("an execution");
    let created = started.elapsed();
    let is_claimed = |object: &CommandExecution| object.name_any() == name && object.claim().is_some();
    let (claimed, object) = watch.until(is_claimed).await;
    let (finished, ended) = watch.succeeded(name).await;
    let statuses = Statuses { claimed: object.status.expect("a claim"), finished: ended.status.expect("a result") };
    ([created, claimed - started, finished - started], statuses)
}

/// OpenSSH's own client, which logs in again for each command.
pub struct SshClient {
    pub options: Vec<String>,
}

impl SshClient {
    pub fn new(sshd: &Sshd) -> Self {
        let known = sshd.private_key_path().with_file_name("known_hosts");
        let line = format!("[127.0.0.1]:{} {}\n", sshd.port(), sshd.host_key().expect("a host key"));
        files::write(&known, line, 0o600).expect("a file of known hosts");
        let mut options: Vec<String> = ["-F", "/dev/null", "-n", "-o", "BatchMode=yes"].map(str::to_owned).to_vec();
        for option in ["StrictHostKeyChecking=yes".to_owned(), format!("UserKnownHostsFile={}", known.display())] {
            options.extend(["-o".to_owned(), option]);
        }
        options.extend(["-i".to_owned(), sshd.private_key_path().display().to_string()]);
        options.extend(["-p".to_owned(), sshd.port().to_string(), format!("{}@127.0.0.1", sshd.user())]);
        Self { options }
    }

    pub fn run(&self) -> Duration {
        let mut ssh = Command::new("ssh");
        ssh.args(&self.options).arg("true").stdout(Stdio::null());
        let started = Instant::now();
        assert!(ssh.status().expect("an ssh").success(), "ssh did not work");
        started.elapsed()
    }
}
