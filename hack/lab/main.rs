//! `lab`: runs the laboratory on this machine until the program ends.
//!
//! `hack/control-plane` and `hack/sshd` are shortcuts for its subcommands.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people: steps go to standard error, paths and settings to standard output"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

mod demo;
#[path = "lab.rs"]
mod lab;

use lab::{ControlPlane, ControlPlaneOptions, LabError, Reaper, Sshd, SshdOptions, Toolbox, User, openssh, say};

/// Run a real Kubernetes API server and real SSH servers on this machine, until the program ends.
///
/// Everything listens on 127.0.0.1 only. $KUBEBUILDER_ASSETS may name a directory with kube-apiserver and etcd. Without
/// it, both programs are built from source once, with Go. As root on Debian or Ubuntu, a missing sshd is installed.
#[derive(Debug, Parser)]
#[command(name = "lab")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run etcd and kube-apiserver until ctrl-C, and create a kubeconfig for each user.
    ControlPlane {
        /// Only find or build the programs, and print their paths.
        #[arg(long)]
        assets_only: bool,
    },
    /// Run an SSH server until ctrl-C, and print the login command.
    Sshd,
    /// Run Writ on a control plane and an SSH server with four CommandExecutions, and print their results. Runs until
    /// ctrl-C.
    Demo {
        /// End after the four executions. The exit code is 0 only if each execution has the expected result.
        #[arg(long)]
        once: bool,
        /// Use this existing cluster (the current context of the file). The demo installs the CRDs, which stay, and
        /// creates a namespace, which is deleted at the end.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
    /// Run Helm, in the version with which the chart is tested.
    Helm {
        /// Arguments for helm.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Find or build kube-apiserver, etcd and kubectl, find or install sshd, and print their paths.
    Tools,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().what {
        What::ControlPlane { assets_only: true } => print_toolbox(),
        What::ControlPlane { assets_only: false } => control_plane(),
        What::Sshd => sshd(),
        What::Demo { once, kubeconfig } => demo::run(&demo::DemoOptions { once, kubeconfig }),
        What::Helm { arguments } => return helm(&arguments),
        What::Tools => print_toolbox().and_then(|()| print_openssh()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

/// Runs helm and returns its success as the exit code.
fn helm(arguments: &[String]) -> ExitCode {
    let outcome = Toolbox::helm().and_then(|helm| {
        std::process::Command::new(&helm).args(arguments).status().map_err(LabError::run(helm.display()))
    });
    match outcome {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn print_toolbox() -> Result<(), LabError> {
    let toolbox = Toolbox::find_or_build()?;
    println!("kube-apiserver {}", toolbox.kube_apiserver.display());
    println!("etcd           {}", toolbox.etcd.display());
    println!("kubectl        {}", toolbox.kubectl.display());
    Ok(())
}

fn print_openssh() -> Result<(), LabError> {
    let openssh = openssh::Openssh::find_or_install()?;
    println!("sshd           {}", openssh.sshd.display());
    println!("ssh-keygen     {}", openssh.ssh_keygen.display());
    Ok(())
}

fn control_plane() -> Result<(), LabError> {
    run(|reaper| {
        let toolbox = Toolbox::find_or_build()?;
        let control_plane = ControlPlane::start(&toolbox, reaper, ControlPlaneOptions::default())?;
        println!("# the API server is {}; its log is in", control_plane.server());
        println!("# {}", control_plane.folder().display());
        for user in User::ALL {
            let group = user.group().map(|group| format!(", group {group}")).unwrap_or_default();
            println!("export KUBECONFIG={}  # {}{group}", control_plane.kubeconfig(user).display(), user.name());
        }
        Ok(control_plane)
    })
}

fn sshd() -> Result<(), LabError> {
    run(|reaper| {
        let sshd = Sshd::start(reaper, &SshdOptions::default())?;
        let host_key = sshd.host_key().map_err(LabError::file("read", "the host key"))?;
        let (port, user, key) = (sshd.port(), sshd.user(), sshd.private_key_path());
        println!("address   127.0.0.1:{port}");
        println!("user      {user}");
        println!("host key  {host_key}");
        println!("key       {}", key.display());
        println!("ledger    {}", sshd.ledger_path().display());
        println!("log in:   ssh -i {} -o StrictHostKeyChecking=no -p {port} {user}@127.0.0.1", key.display());
        Ok(sshd)
    })
}

/// Starts servers, waits for ctrl-C or TERM, and stops them. A signal during the start ends the program immediately,
/// and the reaper cleans up.
fn run<Servers>(start: impl FnOnce(&Arc<Reaper>) -> Result<Servers, LabError>) -> Result<(), LabError> {
    let reaper = Reaper::start()?;
    let servers = start(&reaper)?;
    eprintln!("==> running; ctrl-C stops it");
    wait_for_signal().map_err(LabError::run("a signal handler"))?;
    let step = say::step("stopping");
    drop(servers);
    drop(reaper);
    step.done();
    Ok(())
}

fn wait_for_signal() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // A closed terminal (hangup) ends the program cleanly, too.
        let (mut interrupt, mut terminate, mut hangup) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        Ok(())
    })
}
