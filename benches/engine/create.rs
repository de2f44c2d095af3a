//! From the create of an execution to the watch event with its result, beside a fresh `ssh`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kube::api::PostParams;
use serde_json::json;

use crate::lab::Sshd;
use crate::lab::files;
use crate::measure::{Row, Target, p50, shown};
use crate::site::{Site, Watch, sshd};
use crate::world::World;

const SAMPLES: usize = 120;
/// Not counted: connection, caches, compiled rules.
const WARM_UP: usize = 10;

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd(world);
    let rules = json!([{"name": "true", "match": "true", "run": ["/bin/true"]}]);
    let site = Site::with_one_machine(world, &sshd, rules, &[]).await;
    let client = SshClient::new(&sshd);
    let mut watch = site.watch().await;
    let (mut executions, mut logins) = (Vec::new(), Vec::new());
    for turn in 0..SAMPLES + WARM_UP {
        let (execution, login) = (execute(&site, &mut watch, turn).await, client.run());
        if turn >= WARM_UP {
            executions.push(execution);
            logins.push(login);
        }
    }
    let what = "create to result of `true`, one at a time, against a fresh `ssh`";
    let ratio = p50(&executions) / p50(&logins);
    vec![Row::ratio(what, shown(&executions), shown(&logins), ratio, Target::AtMost(0.1))]
}

async fn execute(site: &Site<'_>, watch: &mut Watch, turn: usize) -> Duration {
    let name = format!("x{turn}");
    let execution = site.execution(&name, "m0", "true");
    let started = Instant::now();
    site.executions().create(&PostParams::default(), &execution).await.expect("an execution");
    let (ended, _) = watch.succeeded(&name).await;
    ended - started
}

/// OpenSSH's own client, which logs in anew each time.
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

    fn run(&self) -> Duration {
        let mut ssh = Command::new("ssh");
        ssh.args(&self.options).arg("true").stdout(Stdio::null());
        let started = Instant::now();
        assert!(ssh.status().expect("an ssh").success(), "ssh did not work");
        started.elapsed()
    }
}
