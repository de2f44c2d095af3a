//! Measures the rate of 1 GiB of output over a WebSocket of the gateway. The comparison is the same command in the same
//! `writ serve` without a client of the gateway.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::follow::execute;
use crate::gateway::GatedSite;
use crate::measure::{Row, Target, cpu, forget_most_memory, median, memory};
use crate::site::sshd;
use crate::world::World;

const BYTES: u64 = 1 << 30;
const TURNS: usize = 3;
/// Line of the output.
const LINE: &str = "0123456789012345678901234567890123456789012345678901234567890123456789";
/// Start of each message with output.
const STDOUT: &[u8] = br#"{"type":"stdout","#;

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd(world);
    let run = json!(["/bin/sh", "-c", format!("yes {LINE} | head -c {BYTES}")]);
    let rules = json!([
        {"name": "lines", "match": "lines", "run": run, "output": {"maximumBytes": BYTES * 2}},
        {"name": "some", "match": "some", "run": ["/usr/bin/head", "-c", "100000", "/dev/zero"]},
    ]);
    let gated = GatedSite::new(world, &sshd, rules).await;
    let writ = gated.site.writ();
    let mut watch = gated.site.watch().await;
    execute(&gated.site, &mut watch, "warm-up", "some").await;
    let (mut rates, mut bare_rates, mut extra) = (Vec::new(), Vec::new(), 0.0_f64);
    for turn in 0..TURNS {
        let spent = cpu(writ);
        bare_rates.push(rate(execute(&gated.site, &mut watch, &format!("x{turn}"), "lines").await));
        let bare = cpu(writ) - spent;
        let before = memory(writ, "VmRSS");
        forget_most_memory(writ);
        let spent = cpu(writ);
        rates.push(rate(streamed(&gated).await));
        extra = extra.max(memory(writ, "VmHWM") - before);
        let with = cpu(writ) - spent;
        eprintln!(
            "    without: {:.0} MB/s ({bare:.2?} of CPU); through the gateway: {:.0} MB/s ({with:.2?} of CPU), \
             {extra:.1} MiB more",
            bare_rates[turn], rates[turn]
        );
    }
    let ratios: Vec<f64> = rates.iter().zip(&bare_rates).map(|(rate, bare)| rate / bare).collect();
    let shown = |rates: &[f64]| format!("{:.0} MB/s", median(rates));
    let what = "1 GiB of output over a WebSocket against the same without a client";
    vec![
        Row::ratio(what, shown(&rates), shown(&bare_rates), median(&ratios), Target::AtLeast(0.8)),
        Row::ratio("(memory for that)", format!("{extra:.1} MiB"), String::new(), extra, Target::None),
    ]
}

fn rate(time: Duration) -> f64 {
    BYTES as f64 / 1e6 / time.as_secs_f64()
}

/// Runs the command over a WebSocket. Returns the time from the request to the last message.
async fn streamed(gated: &GatedSite<'_>) -> Duration {
    let started = Instant::now();
    let (mut socket, _) = gated.start("lines").await;
    let (mut last, mut received) = (Vec::new(), 0_u64);
    while let Some(message) = socket.next().await {
        // Only the other messages are kept, so that the client costs little.
        if message.starts_with(STDOUT) {
            received += message.len() as u64;
        } else {
            last = message.to_vec();
        }
    }
    let taken = started.elapsed();
    assert_eq!(String::from_utf8_lossy(&last), r#"{"type":"exit","data":0}"#);
    assert!(received > BYTES, "only {received} bytes in messages");
    taken
}
