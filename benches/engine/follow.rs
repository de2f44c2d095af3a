//! Measures the rate and the memory of `writ serve` for 1 GiB of output. The rate is compared with OpenSSH's own client
//! on an open connection.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kube::ResourceExt as _;
use kube::api::PostParams;
use serde_json::json;

use crate::create::SshClient;
use crate::lab::Sshd;
use crate::lab::processes::Process;
use crate::measure::{Row, Target, cpu, forget_most_memory, median, memory};
use crate::site::{Site, Watch, sshd};
use crate::world::World;

const BYTES: u64 = 1 << 30;
const TURNS: usize = 3;
const MEMORY: f64 = 16.0;

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd(world);
    let multiplexed = Multiplexed::open(world, &sshd);
    let mut rows = Vec::new();
    for (name, flags) in [("output store in a folder", &[][..]), ("no output store", &["--output-store", "none"])] {
        rows.extend(measured(world, &sshd, &multiplexed, name, flags).await);
    }
    rows
}

async fn measured(world: &World, sshd: &Sshd, multiplexed: &Multiplexed, name: &str, flags: &[&str]) -> Vec<Row> {
    let output = json!({"maximumBytes": BYTES * 2});
    let rules = json!([
        {"name": "zeros", "match": "zeros", "run": ["/usr/bin/head", "-c", BYTES.to_string(), "/dev/zero"], "output": output},
        {"name": "some", "match": "some", "run": ["/usr/bin/head", "-c", "100000", "/dev/zero"]},
    ]);
    let mut site = Site::with_one_machine(world, sshd, rules, flags).await;
    let mut watch = site.watch().await;
    execute(&site, &mut watch, "warm-up", "some").await;
    let (mut rates, mut own_rates, mut extra) = (Vec::new(), Vec::new(), 0.0_f64);
    for turn in 0..TURNS {
        own_rates.push(rate(multiplexed.run()));
        let before = memory(site.writ(), "VmRSS");
        forget_most_memory(site.writ());
        let spent = cpu(site.writ());
        rates.push(rate(execute(&site, &mut watch, &format!("x{turn}"), "zeros").await));
        extra = extra.max(memory(site.writ(), "VmHWM") - before);
        let spent = (cpu(site.writ()) - spent).as_secs_f64();
        eprintln!(
            "    ssh -S: {:.0} MB/s; writ, {name}: {:.0} MB/s ({spent:.2} s of CPU), {extra:.1} MiB more",
            own_rates[turn], rates[turn]
        );
    }
    site.stop_writ();
    let ratios: Vec<f64> = rates.iter().zip(&own_rates).map(|(rate, own)| rate / own).collect();
    let shown = |rates: &[f64]| format!("{:.0} MB/s", median(rates));
    let what = format!("1 GiB of output against `ssh -S` ({name})");
    vec![
        Row::ratio(&what, shown(&rates), shown(&own_rates), median(&ratios), Target::AtLeast(0.8)),
        Row::bound(&format!("memory for that ({name})"), extra, "MiB", MEMORY),
    ]
}

fn rate(time: Duration) -> f64 {
    BYTES as f64 / 1e6 / time.as_secs_f64()
}

/// Runs an execution. Returns the time from its create to the watch event with its result.
pub async fn execute(site: &Site<'_>, watch: &mut Watch, name: &str, command: &str) -> Duration {
    let execution = site.execution(name, "m0", command);
    let started = Instant::now();
    site.executions().create(&PostParams::default(), &execution).await.expect("an execution");
    let (ended, object) = watch.succeeded(name).await;
    let output = object.status.as_ref().and_then(|status| status.output.as_ref()).expect("a record of the output");
    assert!(!output.incomplete, "{}: {output:?}", object.name_any());
    ended - started
}

/// An open connection of `ssh -M`, and the options with which other `ssh` clients use it.
struct Multiplexed {
    client: SshClient,
    socket: PathBuf,
    _master: Process,
}

impl Multiplexed {
    fn open(world: &World, sshd: &Sshd) -> Self {
        let client = SshClient::new(sshd);
        let folder = world.reaper.make_folder("ssh", 0o700).expect("a folder");
        let socket = folder.join("socket");
        let mut master = Command::new("ssh");
        master.args(["-M", "-N", "-S"]).arg(&socket).args(&client.options);
        let master = world.reaper.spawn("ssh", &mut master, &folder.join("ssh.log")).expect("an ssh");
        let started = Instant::now();
        while !socket.exists() {
            assert!(started.elapsed() < Duration::from_secs(20), "ssh -M does not connect");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { client, socket, _master: master }
    }

    fn run(&self) -> Duration {
        let mut ssh = Command::new("ssh");
        ssh.arg("-S").arg(&self.socket).args(&self.client.options);
        ssh.arg(format!("head -c {BYTES} /dev/zero")).stdout(Stdio::null());
        let started = Instant::now();
        assert!(ssh.status().expect("an ssh").success(), "ssh -S did not work");
        started.elapsed()
    }
}
