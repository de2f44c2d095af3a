//! Measurement of the cost of a launch, compared with a plain exec of the same command, without SSH: `cargo test --test
//! launcher -- --ignored --nocapture cost`. `cargo bench --bench engine -- launch` compares a launch with the first
//! edition of the launcher, over SSH.

use std::time::{Duration, Instant};

use writ::policy::command_line;

use crate::machine::{KINDS, Machine, decision};

const ROUNDS: usize = 200;

#[test]
#[ignore = "a measurement"]
fn a_launch_beside_a_plain_exec() {
    for kind in KINDS {
        let machine = Machine::new(kind);
        let long = "x".repeat(9_000);
        for words in [&["/bin/true"][..], &["/bin/echo", "out"][..], &["/bin/echo", &long][..]] {
            let decision = decision(words);
            let line = command_line(&decision);
            let (mut plain, mut launched, mut polled) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                plain.push(took(|| drop(machine.plain(&line))));
                launched.push(took(|| drop(machine.run(&decision))));
                polled.push(took(|| drop(machine.poll(&crate::machine::uid()))));
            }
            let [plain, launched, polled] = [plain, launched, polled].map(median);
            println!(
                "{kind:?} {} {}: plain {plain:?}, launched {launched:?} ({:.2} times), poll of nothing {polled:?}",
                words[0],
                words.get(1).map_or(0, |word| word.len()),
                launched.as_secs_f64() / plain.as_secs_f64()
            );
        }
    }
}

fn took(what: impl FnOnce()) -> Duration {
    let start = Instant::now();
    what();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
