//! What a person asks of a machine: `writ machine keyscan`, `check` and `setup`. With the rights of whoever runs it; nothing is
//! stored, and nothing is run but what Writ itself asks of a machine.

mod setup;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::cli::Ending;
use crate::cluster::{ClientOptions, Cluster};
use crate::fleet::{Step, check};
use crate::ssh::{Cidr, Network, scan};

/// Keys, logins and set-up of machines.
#[derive(Args, Debug)]
pub struct MachineTools {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Print the host keys of a host, as lines for `spec.hostKeys` of its Machine.
    ///
    /// Nothing is believed by that: whoever is in between shows you his own. Compare a fingerprint with what
    /// `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the machine's console.
    Keyscan(Keyscan),
    /// Log in to a Machine as executions do, step by step, and say where it fails.
    ///
    /// Reads the Machine and its Secret with your own rights, and connects from where you are. Exit code 0: commands can be
    /// started; 4: not.
    Check(Named),
    /// Print what to put on the machine: the line for authorized_keys, and the lines for sudo.
    Setup(Named),
}

#[derive(Args, Debug)]
struct Keyscan {
    /// Name or address.
    host: String,

    /// Port of sshd.
    #[arg(long, short, default_value_t = 22)]
    port: u16,

    /// Seconds that all of it may take.
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,

    #[command(flatten)]
    ranges: Ranges,
}

#[derive(Args, Debug)]
struct Named {
    /// The Machine.
    name: String,

    /// Kubeconfig file to use [default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Namespace of the Machine [default: the kubeconfig's].
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,

    #[command(flatten)]
    ranges: Ranges,
}

/// Where may be connected to: the same flags as those of `writ serve`.
#[derive(Args, Debug)]
struct Ranges {
    /// As of `writ serve`: a range of addresses that machines may have. Loopback has to be named.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    allow_cidr: Vec<Cidr>,

    /// As of `writ serve`: a range of addresses that is never connected to.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    deny_cidr: Vec<Cidr>,

    /// As of `writ serve`: a range in which no machines are meant to be.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    refuse_cidr: Vec<Cidr>,
}

impl Ranges {
    fn network(&self, refused: Vec<std::net::IpAddr>) -> Network {
        let network = Network::new(self.allow_cidr.clone(), self.deny_cidr.clone(), refused);
        network.refusing(self.refuse_cidr.clone())
    }
}

impl Named {
    async fn cluster(&self) -> anyhow::Result<Cluster> {
        let options = ClientOptions::of_person(self.kubeconfig.as_deref(), self.namespace.as_deref());
        Cluster::connect(&options).await.context("the kubeconfig cannot be used")
    }
}

impl MachineTools {
    /// Does what is asked for.
    ///
    /// # Errors
    /// What it needs is not there; for people.
    pub async fn run(&self, out: &mut (dyn Write + Send)) -> anyhow::Result<Ending> {
        match &self.tool {
            Tool::Keyscan(keyscan) => keyscan.run(out).await,
            Tool::Check(named) => run_check(named, out).await,
            Tool::Setup(named) => {
                let cluster = named.cluster().await?;
                out.write_all(setup::setup(&cluster, &named.name).await?.as_bytes())?;
                Ok(Ending::Good)
            }
        }
    }
}

impl Keyscan {
    async fn run(&self, out: &mut (dyn Write + Send)) -> anyhow::Result<Ending> {
        if let Some((host, port)) = self.host.split_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
            anyhow::bail!(
                "{:?} is neither a name nor an address; the port has a flag: {host} --port {port}",
                self.host
            );
        }
        let network = self.ranges.network(Vec::new());
        let keys = scan(&self.host, self.port, &network, Duration::from_secs(self.timeout)).await?;
        writeln!(
            out,
            "# what {} port {} shows; compare a fingerprint on its console before you trust it",
            self.host, self.port
        )?;
        writeln!(out, "hostKeys:")?;
        for key in keys {
            writeln!(out, "  # {} {}", key.fingerprint, key.algorithm)?;
            writeln!(out, "  - {}", key.line)?;
        }
        Ok(Ending::Good)
    }
}

async fn run_check(named: &Named, out: &mut (dyn Write + Send)) -> anyhow::Result<Ending> {
    let cluster = named.cluster().await?;
    let network = named.ranges.network(cluster.addresses().await);
    let mut written = Ok(());
    let namespace = cluster.home().to_owned();
    let mut say = |step: Step| {
        let hop = step.hop.map(|hop| format!("jump host {hop}: ")).unwrap_or_default();
        let (word, seen) = match step.seen {
            Ok(seen) => ("ok  ", seen),
            Err(problem) => ("FAIL", problem),
        };
        // What a machine says goes to a terminal.
        let seen: String = seen.chars().map(|each| if each.is_control() { ' ' } else { each }).collect();
        if written.is_ok() {
            written = writeln!(out, "{word}  {hop}{}: {seen}", step.what);
        }
    };
    let good = check(&cluster, &network, &namespace, &named.name, &mut say).await;
    written?;
    Ok(if good { Ending::Good } else { Ending::Lacking })
}
