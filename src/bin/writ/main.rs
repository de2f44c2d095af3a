//! `writ`: flags, wiring, run.

mod serve;

use std::io::BufReader;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
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
#[expect(clippy::print_stderr, reason = "the last word of a program goes to its user")]
async fn main() -> ExitCode {
    let (outcome, of_failure) = match Cli::parse().command {
        Command::Serve(options) => (serve(options).await.map(|()| Ending::Good), ExitCode::FAILURE),
        Command::Explain(options) => {
            let outcome = options.run(BufReader::new(std::io::stdin()), &mut std::io::stdout().lock()).await;
            (outcome, Ending::BadInput.code().into())
        }
        Command::Output(options) => {
            let outcome = options.run(&mut std::io::stdout().lock(), &mut std::io::stderr().lock()).await;
            (outcome, Ending::BadInput.code().into())
        }
        Command::Ready(options) => {
            let outcome = options.run(&mut std::io::stdout().lock(), &mut std::io::stderr().lock()).await;
            (outcome, Ending::BadInput.code().into())
        }
        Command::Machine(options) => (options.run(&mut std::io::stdout()).await, Ending::BadInput.code().into()),
        Command::Lint(options) => (options.run(&mut std::io::stdout().lock()), Ending::BadInput.code().into()),
    };
    match outcome {
        Ok(ending) => ending.code().into(),
        Err(error) => {
            eprintln!("writ: {error:#}");
            of_failure
        }
    }
}
