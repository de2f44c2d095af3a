//! Any number of launches of one execution start its command once or not at all.

use std::sync::Barrier;

use writ::launcher::{self, Answer, ExitOutcome, Launch, Offsets, RequestRefusal};

use crate::machine::{Kind, Machine, everywhere, nonce, uid};

/// `WRIT_LAUNCHER_RACES` is the number of races, default 4. `WRIT_LAUNCHER_RACERS` is the number of launches in each
/// race, default 24.
#[test]
fn of_many_launchers_one_starts_it_and_all_get_its_output() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let races = number("WRIT_LAUNCHER_RACES").unwrap_or(4);
    let launchers = number("WRIT_LAUNCHER_RACERS").unwrap_or(24);
    let ways = [(Kind::Dash, "0"), (Kind::Bash, "0"), (Kind::Busybox, "0"), (Kind::Dash, "0.5")];
    for (kind, pause) in ways.into_iter().cycle().take(races) {
        let machine = Machine::new(kind);
        let uid = uid();
        let decision = machine.noted(&format!("echo out $$; echo err >&2; sleep {pause}; exit 5"));
        let barrier = Barrier::new(launchers);
        let all: Vec<_> = std::thread::scope(|scope| {
            let racers = (0..launchers).map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    machine.launch(&uid, &decision)
                })
            });
            let racers: Vec<_> = racers.collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let ran = machine.ran();
        assert_eq!(ran.len(), 1, "{kind:?}");
        assert_eq!(all.iter().filter(|said| !said.ended().started_by_other).count(), 1, "{kind:?}");
        for said in all {
            assert_eq!(said.ended().outcome, ExitOutcome::Exited(5));
            assert_eq!(String::from_utf8(said.stdout).unwrap(), format!("out {}\n", ran[0]), "{kind:?}");
            assert_eq!(said.stderr, b"err\n");
        }
    }
}

#[test]
fn launching_again_gives_the_same_once_more() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let decision = machine.noted("echo out; exit 4");
        let first = machine.launch(&uid, &decision);
        let second = machine.launch(&uid, &decision);
        assert!(!first.ended().started_by_other && second.ended().started_by_other);
        assert_eq!((first.stdout, first.stderr), (second.stdout, second.stderr));
        assert_eq!(machine.ran().len(), 1);
    });
}

#[test]
fn too_late_or_after_a_start_of_the_machine_or_elsewhere_nothing_starts() {
    everywhere(|kind| {
        let mut machine = Machine::new(kind);
        let (uid, decision) = (uid(), machine.noted("true"));
        let refused = |machine: &Machine, boot_id: &str, not_after_centiseconds| {
            let nonce = nonce();
            let launch =
                Launch { uid: &uid, decision: &decision, boot_id, not_after_centiseconds, grace_centiseconds: 100 };
            match machine.session(&nonce, launcher::launch(&nonce, &machine.facts, &launch)).finish().answer() {
                Answer::Refused(why) => why.clone(),
                other => panic!("{other:?}"),
            }
        };
        let boot_id = machine.facts.boot_id.clone();
        assert_eq!(
            refused(&machine, &boot_id, machine.facts.uptime_centiseconds - 1),
            RequestRefusal::DeadlinePassed,
            "{kind:?}"
        );
        assert_eq!(refused(&machine, "another", u64::MAX), RequestRefusal::Rebooted, "{kind:?}");
        machine.facts.directory_id = "another".to_owned();
        assert_eq!(refused(&machine, &boot_id, u64::MAX), RequestRefusal::DirectoryUnsuitable, "{kind:?}");
        assert!(machine.ran().is_empty() && machine.journal(&uid).is_empty());
    });
}

#[test]
fn what_was_closed_never_starts() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let (uid, decision) = (uid(), machine.noted("true"));
        assert_eq!(machine.poll(&uid), Answer::Absent);
        assert_eq!(machine.close(&uid), Answer::Tombstoned);
        assert_eq!(machine.close(&uid), Answer::Tombstoned);
        assert_eq!(*machine.launch(&uid, &decision).answer(), Answer::Tombstoned);
        assert_eq!(machine.poll(&uid), Answer::Tombstoned);
        assert_eq!(machine.stop(&uid), Answer::Tombstoned);
        assert!(machine.ran().is_empty(), "{kind:?}");
    });
}

#[test]
fn closing_what_has_started_changes_nothing() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let mut session = machine.start(&uid, &machine.noted("sleep 1; echo out"));
        session.until(|said| !said.answers.is_empty());
        assert!(matches!(machine.close(&uid), Answer::Running(running) if running.started_by_other), "{kind:?}");
        assert_eq!(session.finish().stdout, b"out\n");
        assert!(matches!(machine.close(&uid), Answer::Ended(ended) if ended.outcome == ExitOutcome::Exited(0)));
    });
}

/// Exactly one of the launch and the closing wins.
#[test]
fn a_race_of_launching_and_closing_has_one_winner() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        for _ in 0..20 {
            let (uid, before) = (uid(), machine.ran().len());
            let decision = machine.noted("true");
            let barrier = Barrier::new(2);
            let (launched, closed) = std::thread::scope(|scope| {
                let launched = scope.spawn(|| {
                    barrier.wait();
                    machine.launch(&uid, &decision).answer().clone()
                });
                barrier.wait();
                let closed = machine.close(&uid);
                (launched.join().unwrap(), closed)
            });
            match closed {
                Answer::Tombstoned => {
                    assert_eq!((launched, machine.ran().len()), (Answer::Tombstoned, before), "{kind:?}");
                }
                _ => assert!(matches!(launched, Answer::Ended(_)) && machine.ran().len() == before + 1, "{kind:?}"),
            }
        }
    });
}

/// A launcher that died between the fence and the start. The test writes the journal that such a launcher leaves.
#[test]
fn a_fence_without_a_start_is_settled_by_closing() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        for half in ["", "F 1", "F 1 BOOT 1 100 100 100 -\n", "F 1 BOOT 1 100 100 100 -\nS 12"] {
            let uid = uid();
            std::fs::write(machine.file(&uid, "j"), half.replace("BOOT", &machine.facts.boot_id)).unwrap();
            assert_eq!(machine.poll(&uid), Answer::Starting, "{kind:?} {half}");
            assert_eq!(*machine.launch(&uid, &machine.noted("true")).answer(), Answer::Starting);
            let closed = machine.close(&uid);
            // An incomplete start line may mean that the command started.
            let torn = half.ends_with("S 12") && matches!(closed, Answer::Lost(_));
            assert!(closed == Answer::Tombstoned || torn, "{kind:?} {half}: {closed:?}");
        }
        assert!(machine.ran().is_empty());
    });
}

#[test]
fn a_journal_from_before_a_start_of_the_machine_is_lost_or_ended() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let started = "F 1 another-boot 1 100 100 100 -\nS 1 1 1 5\n";
        let running = uid();
        std::fs::write(machine.file(&running, "j"), started).unwrap();
        std::fs::write(machine.file(&running, "o"), "some").unwrap();
        std::fs::write(machine.file(&running, "e"), "").unwrap();
        let said = machine.attach(&running, Offsets::default()).finish();
        assert!(matches!(said.answer(), Answer::Lost(lost) if lost.rebooted && lost.started_centiseconds == Some(5)));
        assert_eq!((said.stdout.as_slice(), said.complete), (&b"some"[..], true), "{kind:?}");
        assert!(matches!(machine.stop(&running), Answer::Lost(lost) if lost.rebooted));
        let ended = uid();
        std::fs::write(machine.file(&ended, "j"), format!("{started}E 3 - 0 0 7 - -\n")).unwrap();
        assert!(matches!(machine.poll(&ended), Answer::Ended(ended) if ended.outcome == ExitOutcome::Exited(3)));
    });
}
