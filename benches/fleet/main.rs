//! Measures the delay that bad machines cause for good machines, the resources for idle machines, and the recovery of a
//! fleet. The benchmark uses an optimized build, a real API server, a real etcd with fsync, and real sshds on loopback.
//! `docs/performance.md` contains the results.
//!
//! ```console
//! cargo bench --bench fleet                     # everything (about 15 minutes)
//! cargo bench --bench fleet -- blackholes       # one or more of: blackholes return idle probing ansible
//! cargo bench --bench fleet -- probing 60       # measures for 60 s instead of 300 s
//! ```
//!
//! | module | measured | compared with |
//! |---|---|---|
//! | [`blackholes`] | starts on 100 good Machines next to 100 bad Machines | the same without bad Machines |
//! | [`returning`] | 50 Machines that return, with 20 executions each | the expected order and the expected results |
//! | [`idle`] | 500 unused connections | bounds for memory and for the time until they close |
//! | [`ansible`] | executions on 50 Machines | `ansible -m raw` |
//! | [`probing`] | 1,000 unused Machines | bounds for CPU and for memory above an empty process |
//!
//! One sshd acts as many machines: it listens on all of 127.0.0.0/8, and each Machine has its own address.

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
#[allow(dead_code, reason = "the other benchmark uses more of it")]
#[path = "../engine/measure.rs"]
mod measure;
#[allow(dead_code, reason = "the other benchmark uses more of it")]
#[path = "../engine/site.rs"]
mod site;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/cluster/world.rs"]
mod world;

mod ansible;
mod blackholes;
mod holes;
mod idle;
mod machines;
mod probing;
mod process;
mod returning;

use std::process::ExitCode;
use std::time::Duration;

use lab::ControlPlaneOptions;
use measure::Row;
use world::World;

const PARTS: [&str; 5] = ["blackholes", "return", "idle", "probing", "ansible"];

fn main() -> ExitCode {
    // cargo adds the flag --bench, which the benchmark ignores.
    let words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let (numbers, wanted): (Vec<_>, Vec<_>) = words.partition(|word| word.parse::<u64>().is_ok());
    if let Some(unknown) = wanted.iter().find(|word| !PARTS.contains(&word.as_str())) {
        eprintln!("error: there is no part {unknown}; there are: {}", PARTS.join(" "));
        return ExitCode::FAILURE;
    }
    let seconds = numbers.first().and_then(|number| number.parse().ok()).map_or(probing::USUAL, Duration::from_secs);
    let world = World::start_with(ControlPlaneOptions::default());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut rows = Vec::new();
    for part in PARTS.into_iter().filter(|part| wanted.is_empty() || wanted.iter().any(|word| word == part)) {
        eprintln!("==> {part}");
        let measured = runtime.block_on(async {
            match part {
                "blackholes" => blackholes::rows(&world).await,
                "return" => returning::rows(&world).await,
                "idle" => idle::rows(&world).await,
                "ansible" => ansible::rows(&world).await,
                _ => probing::rows(&world, seconds).await,
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
