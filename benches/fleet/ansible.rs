//! Compares the rate of `true` on 50 machines with `ansible -m raw`, both with open connections. Needs `ansible` in the
//! PATH: `python3 -m venv venv && venv/bin/pip install ansible-core`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::json;

use crate::lab::{Sshd, files};
use crate::machines::{Place, places, sshd_everywhere};
use crate::measure::{Row, Target, median};
use crate::site::Site;
use crate::world::World;

const HOSTS: usize = 50;
/// Number of turns. Each turn measures ansible, and then `writ serve`.
const TURNS: usize = 5;

pub async fn rows(world: &World) -> Vec<Row> {
    if Command::new("ansible").arg("--version").output().is_err() {
        eprintln!("    skipped: there is no `ansible` in the PATH; see benches/fleet/ansible.rs");
        return Vec::new();
    }
    let sshd = sshd_everywhere(world, &["MaxStartups 1000"]);
    let hosts = places("host", 8, &sshd, HOSTS);
    let ansible = Ansible::new(world, &sshd, &hosts);
    let mut site = Site::new(world).await;
    site.add_machines(&sshd, &hosts, &json!({})).await;
    site.allow(json!([{"name": "true", "match": "true", "run": ["/bin/true"]}])).await;
    site.serve(&[]).await;
    site.run_on("warm", &hosts).await;
    ansible.run();
    let (mut rates, mut own_rates) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let started = Instant::now();
        ansible.run();
        own_rates.push(HOSTS as f64 / started.elapsed().as_secs_f64());
        let started = Instant::now();
        site.run_on(&format!("turn{turn}"), &hosts).await;
        rates.push(HOSTS as f64 / started.elapsed().as_secs_f64());
        eprintln!("    ansible: {:.1} hosts/s; writ: {:.1} hosts/s", own_rates[turn], rates[turn]);
    }
    let ratios: Vec<f64> = rates.iter().zip(&own_rates).map(|(rate, own)| rate / own).collect();
    let shown = |rates: &[f64]| format!("{:.1}/s", median(rates));
    let what = format!("`true` on {HOSTS} machines against `ansible -m raw` with {HOSTS} forks, connections open");
    vec![Row::ratio(&what, shown(&rates), shown(&own_rates), median(&ratios), Target::AtLeast(6.0))]
}

struct Ansible {
    inventory: PathBuf,
    folder: PathBuf,
}

impl Ansible {
    fn new(world: &World, sshd: &Sshd, hosts: &[Place]) -> Self {
        let folder = world.reaper.make_folder("ansible", 0o700).expect("a folder");
        let mut text = String::new();
        for Place { name, address, port } in hosts {
            let (user, key) = (sshd.user(), sshd.private_key_path().display().to_string());
            writeln!(
                text,
                "{name} ansible_host={address} ansible_port={port} ansible_user={user} ansible_ssh_private_key_file={key}"
            )
            .expect("a text");
        }
        let inventory = folder.join("hosts");
        files::write(&inventory, text, 0o600).expect("an inventory");
        Self { inventory, folder }
    }

    /// Runs `true` on each host. The ssh connections of ansible stay open for 60 s.
    fn run(&self) {
        let mut ansible = Command::new("ansible");
        ansible.args(["all", "-m", "raw", "-a", "/bin/true", "-f", &HOSTS.to_string(), "-i"]).arg(&self.inventory);
        ansible.env("ANSIBLE_HOST_KEY_CHECKING", "False").env("ANSIBLE_HOME", &self.folder).env("HOME", &self.folder);
        let Output { status, stdout, stderr } = ansible.output().expect("ansible");
        let (printed, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success() && printed.matches("rc=0").count() == HOSTS, "{printed}\n{errors}");
    }
}
