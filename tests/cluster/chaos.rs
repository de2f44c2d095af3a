//! Faults at random moments, many times. Then the tests compare each record with the notes of the machine itself: each
//! command started once, each exit code and each byte is right, and nothing is left behind.
//!
//! `make chaos-lite` is the long form and sets the number of faults. The usual test run has a short form.

use std::time::Duration;

use serde_json::json;

use crate::case::Case;
use crate::cutter::{Cutter, Random};
use crate::lab::{SshdOptions, processes, say};
use crate::work::{self, Work};

/// Returns a number from an environment variable (of faults, commands or the seed), or `otherwise`.
fn count(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn seed() -> u64 {
    let seed = count("WRIT_CHAOS_SEED", u64::from(std::process::id()));
    say::note(format!("WRIT_CHAOS_SEED={seed}"));
    seed
}

/// Returns work that lasts from a few milliseconds to half a minute. Most of it is short.
fn some_work(random: &mut Random, name: &str) -> Work {
    let seconds = match random.below(20) {
        0..=7 => "0".to_owned(),
        8..=13 => format!("0.{:03}", random.below(300)),
        14..=18 => format!("{}.{}", random.below(2), random.below(10)),
        _ => "7.5".to_owned(),
    };
    let bytes = match random.below(4) {
        0 => random.below(100),
        1 => random.below(20_000),
        2 => random.below(300_000),
        _ => 0,
    };
    let code = u8::try_from([0, 0, 1, 3, 127, 255][usize::try_from(random.below(6)).expect("small")]).expect("small");
    Work { id: name.to_owned(), bytes, seconds, code }
}

/// Waits until the machine has no output files and no processes of executions.
async fn nothing_is_left(case: &Case, works: &[Work]) {
    let mut left = String::new();
    // Writ retries a failed acknowledgement after up to two minutes. This loop allows at least 180 s.
    for _ in 0..1800 {
        let outputs = work::outputs_left(&case.sshd);
        let processes =
            uids(case).await.iter().map(|uid| processes::marked("WRIT_EXECUTION", uid).len()).sum::<usize>();
        if outputs.is_empty() && processes == 0 {
            return;
        }
        left = format!("{processes} processes, {outputs:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("of {} commands are left behind: {left}\n{}", works.len(), case.log());
}

async fn uids(case: &Case) -> Vec<String> {
    let all = case.executions().list(&kube::api::ListParams::default()).await.expect("executions");
    all.items.into_iter().filter_map(|execution| execution.metadata.uid).collect()
}

#[tokio::test]
async fn a_controller_killed_at_random_instants_loses_and_doubles_nothing() {
    let mut case = Case::durable().await;
    let kills = count("WRIT_CHAOS_KILLS", 8);
    let mut random = Random(seed());
    let mut works = Vec::new();
    for kill in 0..kills {
        for index in 0..2 {
            let work = some_work(&mut random, &format!("k{kill}.{index}"));
            case.execute(&work.id, &work.command()).await;
            works.push(work);
        }
        // The kills happen from before the claim until after the end of most commands. The next process adopts the
        // claims, or is killed while it adopts them.
        let pause = if random.below(3) == 0 { random.below(6000) } else { random.below(400) };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        case.kill_writ();
        case.start_writ();
        if kill % 20 == 19 {
            say::note(format!("{} of {kills} kills", kill + 1));
        }
    }
    for work in &works {
        let status = case.finished(&work.id).await;
        work::check(&case, work, &status);
    }
    assert_eq!(work::started(&case.sshd).len(), works.len());
}

#[tokio::test]
async fn connections_reset_at_random_bytes_lose_and_double_nothing_and_leave_nothing_behind() {
    let case = Case::durable_with(SshdOptions::default(), &["--lease-seconds", "15"]).await;
    let resets = usize::try_from(count("WRIT_CHAOS_RESETS", 15)).expect("a number");
    let runs = usize::try_from(count("WRIT_CHAOS_RUNS", 20)).expect("a number");
    let seed = seed();
    // A login takes about 6 KB and a probe 5 KB more. A claim needs both, a launch 27 KB more, and each later poll 12
    // KB.
    let cutter = Cutter::start(case.sshd.port(), 240_000, seed).await;
    let machine = json!({"port": cutter.port, "execution": {"mode": "Durable"}, "maxConcurrent": 4});
    case.apply_machine("web-1", machine).await;
    let mut random = Random(seed);
    let mut works = Vec::new();
    while cutter.resets() < resets || works.len() < runs {
        let batch: Vec<Work> =
            (0..4).map(|index| some_work(&mut random, &format!("r{}.{index}", works.len()))).collect();
        for work in &batch {
            case.execute(&work.id, &work.command()).await;
        }
        for work in &batch {
            let status = case.finished(&work.id).await;
            work::check(&case, work, &status);
        }
        works.extend(batch);
        if works.len() % 40 == 0 {
            say::note(format!("{} commands, {} of {resets} resets", works.len(), cutter.resets()));
        }
    }
    assert_eq!(work::started(&case.sshd).len(), works.len());
    cutter.be_good();
    nothing_is_left(&case, &works).await;
    assert!(cutter.open() <= 1, "{} connections are open", cutter.open());
}
