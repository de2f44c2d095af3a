//! Any process of the launcher may be killed at any moment. This causes no second start and no wrong exit code. If
//! output is missing, the record reports it.

use std::time::Duration;

use writ::launcher::{Answer, ExitOutcome, Offsets};

use crate::machine::{Machine, everywhere, sh, uid};

/// Returns the supervisor and those of its descendants that are in its session. The command is in another session.
fn family(supervisor: &str) -> Vec<u32> {
    let mut parents = std::collections::HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = fields.split(' ').collect();
        if let (Some(Ok(parent)), Some(Ok(session))) =
            (fields.get(1).map(|field| field.parse::<u32>()), fields.get(3).map(|field| field.parse::<u32>()))
        {
            parents.insert(pid, (parent, session));
        }
    }
    let supervisor: u32 = supervisor.parse().unwrap();
    let Some((_, session)) = parents.get(&supervisor).copied() else { return Vec::new() };
    let mut found = vec![supervisor];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        at += 1;
        found.extend(parents.iter().filter(|(_, each)| **each == (parent, session)).map(|(pid, _)| *pid));
    }
    found
}

fn lines(count: usize) -> Vec<u8> {
    (1..=count).map(|number| format!("line {number}\n")).collect::<String>().into_bytes()
}

/// `WRIT_LAUNCHER_KILLS` is the number of kills for each kind of machine, default 12.
#[test]
fn a_process_of_the_launcher_that_is_killed_falsifies_nothing() {
    let kills = std::env::var("WRIT_LAUNCHER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let expected = lines(30);
        for round in 0..kills {
            let (uid, before) = (uid(), machine.ran().len());
            let script = "i=0; while [ $i -lt 30 ]; do i=$((i + 1)); echo line $i; sleep 0.03; done; exit 9";
            let command = machine.noted(script);
            let session = machine.start(&uid, &command);
            let start = loop {
                if let Some(start) =
                    machine.journal(&uid).lines().find_map(|line| line.strip_prefix("S ").map(str::to_owned))
                {
                    break start;
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            std::thread::sleep(Duration::from_millis(u64::from(rand(round)) * 13 % 1_100));
            // For an instant, the command itself is not in its own session yet.
            let (command_process, supervisor) = (start.split(' ').next().unwrap(), start.split(' ').nth(1).unwrap());
            let mut family = family(supervisor);
            family.retain(|process| process.to_string() != command_process);
            let victim = family.get(usize::try_from(rand(round + 77)).unwrap() % family.len().max(1)).copied();
            if let Some(victim) = victim {
                let _ = std::process::Command::new("kill").args(["-9", &victim.to_string()]).status();
            }
            drop(session);
            // The test attaches again until the answer is final.
            let said = loop {
                let said = machine.attach(&uid, Offsets::default()).finish();
                match said.answers.last() {
                    Some(Answer::Ended(_)) if said.complete => break said,
                    Some(Answer::Lost(_)) if said.complete => {
                        machine.stop(&uid);
                        break machine.attach(&uid, Offsets::default()).finish();
                    }
                    _ => std::thread::sleep(Duration::from_millis(20)),
                }
            };
            let ended = said.ended();
            let context = format!("{kind:?} {round} {victim:?} of {family:?}: {ended:?}\n{}", machine.journal(&uid));
            assert_eq!(machine.ran().len(), before + 1, "{context}");
            match ended.outcome {
                ExitOutcome::Exited(code) => assert_eq!(code, 9, "{context}"),
                ExitOutcome::Unknown => assert!(ended.stopped, "{context}"),
                ExitOutcome::Signalled(_) => assert!(ended.stopped, "{context}"),
            }
            assert!(expected.starts_with(&said.stdout), "{context}: {}", String::from_utf8_lossy(&said.stdout));
            assert!(said.stdout == expected || ended.output_incomplete() || ended.stopped, "{context}");
            assert!(matches!(machine.launch(&uid, &command).answer(), Answer::Ended(_)), "{context}");
            assert_eq!(machine.ran().len(), before + 1, "{context}: a second start");
        }
    });
}

/// Returns a number below 1000. The numbers are spread evenly and are the same in each run.
fn rand(round: u32) -> u32 {
    (round.wrapping_mul(2_654_435_761) >> 7) % 1_000
}

/// The supervisor itself limits the wait for the output.
#[test]
fn without_its_watchdog_an_execution_still_ends() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let mut decision = sh("echo out; sleep 1; setsid sleep 300 & exit 4");
        decision.output.drain_seconds = 1;
        let mut session = machine.start(&uid, &decision);
        session.until(|said| !said.stdout.is_empty());
        let journal = machine.journal(&uid);
        let start = journal.lines().find_map(|line| line.strip_prefix("S ")).expect("a start");
        // All shells except the supervisor: the watchdog and the follower.
        for pid in family(start.split(' ').nth(1).unwrap()).into_iter().skip(1) {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if !matches!(name.trim(), "cat" | "sleep") {
                let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
        }
        drop(session);
        let said = machine.attach(&uid, Offsets::default()).finish();
        let ended = said.ended();
        assert_eq!(ended.outcome, ExitOutcome::Exited(4), "{kind:?} {}", machine.journal(&uid));
        assert_eq!(said.stdout, b"out\n", "{kind:?}");
        for holder in &ended.holders {
            let _ = std::process::Command::new("kill").args(["-9", &holder.process.to_string()]).status();
        }
        assert_eq!(ended.holders.len(), 1, "{kind:?} {ended:?}");
    });
}
