//! Measures the execution engine, and compares each measurement with the same work without the engine. Everything runs
//! on one machine: a real API server, a real etcd with fsync, and real sshds on loopback. `docs/performance.md`
//! contains the results.
//!
//! ```console
//! cargo bench --bench engine                    # everything (about 12 minutes)
//! cargo bench --bench engine -- launch create   # one or more of the parts below
//! ```
//!
//! | module | measured | compared with |
//! |---|---|---|
//! | [`launch`] | a short command in Durable mode | a plain exec on the same connection |
//! | [`create`] | the time from the create to the watch event with the result | a new `ssh` |
//! | [`gateway`] | a synchronous call of the gateway | the API server alone, a new `ssh` |
//! | [`viewers`] | a viewer of live output | the same next to viewers that do not read |
//! | [`idle`] | memory of 500 idle WebSockets | a bound |
//! | [`through`] | 1 GiB of output over a WebSocket | the same command without a client |
//! | [`fleet`] | 600 executions on 8 machines | the API server alone |
//! | [`follow`] | 1 GiB of output | OpenSSH's own multiplexed connection |
//! | [`scale`] | memory, first dispatch, idle CPU, with 10,000 executions and 1,000 Machines | bounds |

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for one purpose: what cannot be measured has to be seen"
)]

#[path = "../../hack/lab/lab.rs"]
mod lab;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/cluster/world.rs"]
mod world;

mod create;
mod fleet;
mod follow;
mod gateway;
mod idle;
mod launch;
mod measure;
mod scale;
mod site;
mod socket;
mod through;
mod viewers;

use std::process::ExitCode;

use lab::ControlPlaneOptions;
use measure::Row;
use world::World;

const PARTS: [&str; 9] = ["launch", "create", "gateway", "viewers", "idle", "through", "fleet", "follow", "scale"];

fn main() -> ExitCode {
    // cargo adds the flag --bench, which the benchmark ignores.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let Some(unknown) = wanted.iter().find(|word| !PARTS.contains(&word.as_str())) {
        eprintln!("error: there is no part {unknown}; there are: {}", PARTS.join(" "));
        return ExitCode::FAILURE;
    }
    let world = World::start_with(ControlPlaneOptions::default());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut rows = Vec::new();
    for part in PARTS.into_iter().filter(|part| wanted.is_empty() || wanted.iter().any(|word| word == part)) {
        eprintln!("==> {part}");
        let measured = runtime.block_on(async {
            match part {
                "launch" => launch::rows(&world).await,
                "create" => create::rows(&world).await,
                "gateway" => gateway::rows(&world).await,
                "viewers" => viewers::rows(&world).await,
                "idle" => idle::rows(&world).await,
                "through" => through::rows(&world).await,
                "fleet" => fleet::rows(&world).await,
                "follow" => follow::rows(&world).await,
                _ => scale::rows(&world).await,
            }
        });
        measured.iter().for_each(|row| eprintln!("    {row}"));
        rows.extend(measured);
    }
    println!("\n{}", Row::HEAD);
    rows.iter().for_each(|row| println!("{row}"));
    println!();
    ExitCode::SUCCESS
}
