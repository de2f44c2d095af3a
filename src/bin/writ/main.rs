//! `writ`: parses the flags and runs the command.

mod serve;

use std::io::{BufReader, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};
use writ::cli::machine::MachineCommand;
use writ::cli::pipe::{READER_GONE, ReaderGone};
use writ::cli::{ApiKeyCommand, CliExit, Explain, Lint, Output, Ready};

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
    /// Run the controller: watch CommandExecutions and run the commands that the Whitelists allow.
    ///
    /// Needs the CRDs (`kubectl apply -f crds/`) and the permissions of `deploy/operator-role.yaml`. After SIGTERM or
    /// ctrl-C, Writ starts no new commands and waits for running commands.
    Serve(Box<Serve>),
    Explain(Box<Explain>),
    Lint(Lint),
    Output(Output),
    Ready(Ready),
    Machine(MachineCommand),
    ApiKey(ApiKeyCommand),
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = match parse_arguments().command {
        Command::Serve(options) => {
            return exit_code(Box::pin(serve(*options)).await.map(|()| CliExit::Success), ExitCode::FAILURE);
        }
        command => command,
    };
    let gone = ReaderGone::default();
    let outcome = Box::pin(run(command, &mut gone.watch(std::io::stdout()), &mut gone.watch(std::io::stderr()))).await;
    if gone.is_set() {
        return READER_GONE.into();
    }
    exit_code(outcome, CliExit::Usage.code().into())
}

/// Parses the command line. Prints the error and exits with 2 if the command line is not valid.
fn parse_arguments() -> Cli {
    Cli::try_parse().unwrap_or_else(|mut error| {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let is_explain = arguments.first().is_some_and(|command| command == "explain");
        if is_explain && error.kind() == ErrorKind::UnknownArgument && !arguments.iter().any(|word| word == "--") {
            let tip =
                "put `--` between the flags and the request: `writ explain --machine web-1 -- systemctl restart x`";
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        error.exit()
    })
}

/// Runs a command that a user starts in a terminal.
async fn run(
    command: Command,
    stdout: &mut (dyn Write + Send),
    stderr: &mut (dyn Write + Send),
) -> anyhow::Result<CliExit> {
    let exit = match command {
        Command::Serve(options) => Box::pin(serve(*options)).await.map(|()| CliExit::Success),
        Command::Explain(options) => options.run(BufReader::new(std::io::stdin()), stdout).await,
        Command::Output(options) => options.run(stdout, stderr).await,
        Command::Ready(options) => options.run(stdout, stderr).await,
        Command::Machine(options) => options.run(stdout).await,
        Command::ApiKey(options) => options.run(stdout, stderr).await,
        Command::Lint(options) => options.run(stdout),
    }?;
    stdout.flush()?;
    Ok(exit)
}

fn exit_code(outcome: anyhow::Result<CliExit>, on_failure: ExitCode) -> ExitCode {
    match outcome {
        Ok(exit) => exit.code().into(),
        Err(error) => {
            // A failed write to stderr is ignored, because the error cannot be reported in another way.
            let _ = writeln!(std::io::stderr(), "writ: {error:#}");
            on_failure
        }
    }
}
