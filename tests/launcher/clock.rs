//! A clock that is unreadable, is empty or jumps. Such a clock ends no healthy command, and a time limit still holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use writ::launcher::{Answer, ExitOutcome, RequestRefusal};

use crate::machine::{Kind, Machine, everywhere, sh, uid};

/// File in place of /proc/uptime, as lxcfs provides it. A thread rewrites the file 20 times a second.
struct Clock {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Clock {
    /// Starts the clock. `text` returns the content of the file, or `None` for no file. Its arguments are the true
    /// uptime and the time since the start of the clock, both in seconds.
    fn start(machine: &mut Machine, text: Text) -> Self {
        let path = machine.home.path().join("uptime");
        machine.uptime = Some(path.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let started = Instant::now();
        set(&path, text(uptime(), 0.0));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                set(&path, text(uptime(), started.elapsed().as_secs_f64()));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("a thread").join().expect("an end");
    }
}

fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("/proc");
    text.split(' ').next().expect("a number").parse().expect("a number")
}

/// Replaces the file in one step. A reader never finds a part of the text, as with a file in /proc.
fn set(path: &PathBuf, text: Option<String>) {
    match text {
        Some(text) => {
            let beside = path.with_extension("new");
            std::fs::write(&beside, text).expect("a file");
            std::fs::rename(&beside, path).expect("a file");
        }
        None => {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn line(seconds: f64) -> Option<String> {
    Some(format!("{seconds:.2} {seconds:.2}\n"))
}

/// Function that returns the content of the file. Its arguments are the true uptime and the time since the start of the
/// clock, both in seconds.
type Text = fn(f64, f64) -> Option<String>;

/// Broken clocks. Most of them are wrong from 1 s to 3 s after their start.
const BROKEN: [(&str, Text); 6] = [
    ("gone", |now, since| if (1.0..3.0).contains(&since) { None } else { line(now) }),
    ("empty", |now, since| if (1.0..3.0).contains(&since) { Some(String::new()) } else { line(now) }),
    (
        "text",
        |now, since| if (1.0..3.0).contains(&since) { Some("Transport endpoint\n".to_owned()) } else { line(now) },
    ),
    ("far ahead", |now, since| line(if (1.0..3.0).contains(&since) { now + 1_000_000.0 } else { now })),
    ("anew", |now, since| line(if since < 1.0 { now } else { since })),
    ("flapping", |now, since| line(if ((since * 10.0) as u64).is_multiple_of(2) { now } else { now + 50_000.0 })),
];

#[test]
fn a_broken_clock_ends_no_healthy_command() {
    for (how, text) in BROKEN {
        everywhere(|kind| {
            let mut machine = Machine::new(kind);
            let _clock = Clock::start(&mut machine, text);
            let mut decision = sh("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done");
            decision.timeout_seconds = 30;
            let uid = uid();
            let mut launch = machine.launch(&uid, &decision);
            // The launcher refuses the start if the clock shows nothing, or a time after the deadline.
            while matches!(launch.answer(), Answer::Refused(RequestRefusal::DeadlinePassed | RequestRefusal::NoClock)) {
                assert_eq!(how, "flapping", "{kind:?}");
                launch = machine.launch(&uid, &decision);
            }
            let ended = launch.ended();
            assert_eq!((ended.outcome, ended.timed_out), (ExitOutcome::Exited(0), false), "{kind:?} {how}");
            assert_eq!(launch.stdout, b"1\n2\n3\n4\n5\n6\n7\n8\n", "{kind:?} {how}");
        });
    }
}

#[test]
fn a_limit_holds_whatever_the_clock_does() {
    for (how, text) in BROKEN {
        if how == "flapping" {
            continue;
        }
        let mut machine = Machine::new(Kind::Dash);
        let _clock = Clock::start(&mut machine, text);
        let mut decision = sh("echo begun; exec sleep 60");
        decision.timeout_seconds = 4;
        let started = Instant::now();
        let said = machine.run(&decision);
        let ended = said.ended();
        assert_eq!(
            (ended.outcome, ended.timed_out, ended.processes_left),
            (ExitOutcome::Signalled(15), true, Some(0)),
            "{how}"
        );
        assert!(started.elapsed() >= Duration::from_secs(4), "{how}: too early");
        assert!(started.elapsed() < Duration::from_secs(40), "{how}: it ended by itself");
    }
}

#[test]
fn a_machine_without_a_readable_clock_says_so() {
    everywhere(|kind| {
        let mut machine = Machine::new(kind);
        machine.uptime = Some(machine.home.path().join("uptime"));
        for text in
            [None, Some(""), Some("1234567\n"), Some("1.2.3 4\n"), Some("-1.00 1\n"), Some(".50 1\n"), Some("12.5\n")]
        {
            set(machine.uptime.as_ref().unwrap(), text.map(str::to_owned));
            assert_eq!(*machine.probed(None).answer(), Answer::Refused(RequestRefusal::NoClock), "{kind:?} {text:?}");
            let said = machine.run(&machine.noted("true"));
            assert_eq!(*said.answer(), Answer::Refused(RequestRefusal::NoClock), "{kind:?} {text:?}");
        }
        // The clock shows an earlier time than when the connection was opened. The launcher cannot know if the deadline
        // has passed.
        set(machine.uptime.as_ref().unwrap(), line(0.5));
        let said = machine.run(&machine.noted("true"));
        assert_eq!(*said.answer(), Answer::Refused(RequestRefusal::NoClock), "{kind:?}");
        assert!(machine.ran().is_empty(), "{kind:?}");
    });
}
