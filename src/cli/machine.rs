//! `writ machine keyscan`, `check` and `setup`. They use the rights of the user, store nothing, and run only Writ's own
//! requests on a machine.

mod address_args;
mod setup;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::cli::CliExit;
use crate::cli::object_name::parse_machine;
use crate::cluster::{ClientOptions, Cluster};
use crate::fleet::{Step, check};
use crate::ssh::scan;

pub use address_args::AddressArgs;

/// Read host keys, test logins and print the configuration of machines.
#[derive(Args, Debug)]
pub struct MachineCommand {
    #[command(subcommand)]
    command: MachineSubcommand,
}

#[derive(Debug, Subcommand)]
enum MachineSubcommand {
    /// Print the host keys of a host, as lines for `spec.hostKeys` of its Machine.
    ///
    /// The keys are not verified: an attacker in the network could send the attacker's own keys. Compare a fingerprint
    /// with the output of `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the machine's console.
    Keyscan(Keyscan),
    /// Log in to a Machine as Writ does for an execution, and print the result of each step.
    ///
    /// Reads the Machine and its Secret with your own rights, and connects from this host. Exit code 0: commands can be
    /// started; 4: they cannot be started.
    Check(MachineArgs),
    /// Print the configuration for a machine: the lines for authorized_keys and for sudo.
    Setup(MachineArgs),
}

#[derive(Args, Debug)]
struct Keyscan {
    /// Host name or address.
    host: String,

    /// Port of sshd.
    #[arg(long, short, default_value_t = 22)]
    port: u16,

    /// Deadline for the whole scan, in seconds, 1 to 300.
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,

    #[command(flatten)]
    addresses: AddressArgs,
}

#[derive(Args, Debug)]
struct MachineArgs {
    /// Name of the Machine.
    #[arg(value_parser = parse_machine)]
    name: String,

    /// Kubeconfig file to use [default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Namespace of the Machine [default: the namespace of the kubeconfig].
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,

    #[command(flatten)]
    addresses: AddressArgs,
}

impl MachineArgs {
    async fn cluster(&self) -> anyhow::Result<Cluster> {
        let options = ClientOptions::for_user(self.kubeconfig.as_deref(), self.namespace.as_deref());
        Cluster::connect(&options).await.context("the kubeconfig cannot be used")
    }
}

impl MachineCommand {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// An object or a value that the subcommand needs is missing or cannot be used. The error message is for users.
    pub async fn run(&self, out: &mut (dyn Write + Send)) -> anyhow::Result<CliExit> {
        match &self.command {
            MachineSubcommand::Keyscan(keyscan) => keyscan.run(out).await,
            MachineSubcommand::Check(named) => Box::pin(run_check(named, out)).await,
            MachineSubcommand::Setup(named) => {
                let cluster = named.cluster().await?;
                out.write_all(setup::setup(&cluster, &named.name).await?.as_bytes())?;
                Ok(CliExit::Success)
            }
        }
    }
}

impl Keyscan {
    async fn run(&self, out: &mut (dyn Write + Send)) -> anyhow::Result<CliExit> {
        if let Some((host, port)) = self.host.split_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
            anyhow::bail!(
                "{:?} must be a name or an address; give the port by its flag: {host} --port {port}",
                self.host
            );
        }
        let network = self.addresses.policy(Vec::new());
        let keys = scan(&self.host, self.port, &network, Duration::from_secs(self.timeout)).await?;
        writeln!(
            out,
            "# host keys of {} port {}; compare a fingerprint on its console before you trust them",
            self.host, self.port
        )?;
        writeln!(out, "hostKeys:")?;
        for key in keys {
            writeln!(out, "  # {} {}", key.fingerprint, key.algorithm)?;
            writeln!(out, "  - {}", key.line)?;
        }
        Ok(CliExit::Success)
    }
}

async fn run_check(named: &MachineArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<CliExit> {
    let cluster = named.cluster().await?;
    let network = named.addresses.policy(cluster.addresses().await);
    let mut written = Ok(());
    let namespace = cluster.own_namespace().to_owned();
    let mut say = |step: Step| {
        let hop = step.hop.map(|hop| format!("jump host {hop}: ")).unwrap_or_default();
        let (word, seen) = match step.seen {
            Ok(seen) => ("ok  ", seen),
            Err(problem) => ("FAIL", problem),
        };
        // Text from a machine must not control the user's terminal.
        let seen: String = seen.chars().map(|each| if each.is_control() { ' ' } else { each }).collect();
        if written.is_ok() {
            written = writeln!(out, "{word}  {hop}{}: {seen}", step.what);
        }
    };
    let good = Box::pin(check(&cluster, &network, &namespace, &named.name, &mut say)).await;
    written?;
    Ok(if good { CliExit::Success } else { CliExit::NotAvailable })
}
