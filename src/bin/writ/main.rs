//! `writ`: flags, wiring, run.

mod serve;

use std::io::{BufReader, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use writ::cli::pipe::{READER_GONE, ReaderGone};
use writ::cli::{Ending, Explain, Lint, Output, Ready};
use writ::tools::MachineTools;

use serve::{Serve, serve};

/// Audited remote commands as Kubernetes objects.
#[derive(Debug, Parser)]
#[command(name = "writ", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller: watch CommandExecutions and run what the Whitelists allow.
    ///
    /// Needs the CRDs (`kubectl apply -f crds/`) and the permissions of `deploy/operator-role.yaml`. On SIGTERM or
    /// ctrl-C it starts nothing new and waits for what runs.
    Serve(Serve),
    Explain(Box<Explain>),
    Lint(Lint),
    Output(Output),
    Ready(Ready),
    Machine(MachineTools),
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = match Cli::parse().command {
        Command::Serve(options) => return ended(serve(options).await.map(|()| Ending::Good), ExitCode::FAILURE),
        command => command,
    };
    let gone = ReaderGone::default();
    let outcome = run(command, &mut gone.watch(std::io::stdout()), &mut gone.watch(std::io::stderr())).await;
    if gone.is_set() {
        return READER_GONE.into();
    }
    ended(outcome, Ending::BadInput.code().into())
}

/// Runs what a person asks for at a terminal.
async fn run(
    command: Command,
    stdout: &mut (dyn Write + Send),
    stderr: &mut (dyn Write + Send),
) -> anyhow::Result<Ending> {
    let ending = match command {
        Command::Serve(options) => serve(options).await.map(|()| Ending::Good),
        Command::Explain(options) => options.run(BufReader::new(std::io::stdin()), stdout).await,
        Command::Output(options) => options.run(stdout, stderr).await,
        Command::Ready(options) => options.run(stdout, stderr).await,
        Command::Machine(options) => options.run(stdout).await,
        Command::Lint(options) => options.run(stdout),
    }?;
    stdout.flush()?;
    Ok(ending)
}

fn ended(outcome: anyhow::Result<Ending>, of_failure: ExitCode) -> ExitCode {
    match outcome {
        Ok(ending) => ending.code().into(),
        Err(error) => {
            // Where nobody reads it, there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "writ: {error:#}");
            of_failure
        }
    }
}
