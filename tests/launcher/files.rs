//! The launcher's files on the machine: their lifetime, and the directories that the launcher refuses.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use writ::launcher::{self, Answer, ExitOutcome, LauncherFacts, Offsets, RequestRefusal, Uid};

use crate::lab::say;
use crate::machine::{Kind, Machine, everywhere, is_root, sh, uid};

fn acknowledge(machine: &Machine, uids: &[&Uid]) -> Answer {
    machine.ask(|nonce, facts| launcher::acknowledge(nonce, facts, uids))
}

fn leftovers(machine: &Machine, limit: u32) -> Vec<Uid> {
    match machine.ask(|nonce, facts| launcher::unacknowledged(nonce, facts, limit)) {
        Answer::Unacknowledged(uids) => uids,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_acknowledged_is_gone_and_never_runs_again() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let decision = machine.noted("echo out; echo err >&2; exit 2");
        let mut uids: Vec<Uid> = (0..3).map(|_| uid()).collect();
        uids.sort();
        for uid in &uids {
            machine.launch(uid, &decision);
        }
        assert_eq!(leftovers(&machine, 100), uids, "{kind:?}");
        assert_eq!(leftovers(&machine, 2).len(), 2);
        assert_eq!(acknowledge(&machine, &[&uids[0], &uids[1], &uid()]), Answer::Done);
        assert_eq!(leftovers(&machine, 100), uids[2..]);
        assert!(!machine.file(&uids[0], "o").exists() && !machine.file(&uids[0], "e").exists());
        let again = machine.launch(&uids[0], &decision);
        let ended = again.ended();
        assert_eq!(
            (ended.outcome, ended.output_removed, ended.lengths.stdout),
            (ExitOutcome::Exited(2), true, 0),
            "{kind:?}"
        );
        assert!(ended.started_by_other && !ended.output_incomplete() && again.stdout.is_empty());
        assert_eq!(machine.ran().len(), 3);
        // 501 UIDs do not fit into the command line.
        let many: Vec<Uid> = (0..500).map(|_| uid()).chain([uids[2].clone()]).collect();
        assert_eq!(acknowledge(&machine, &many.iter().collect::<Vec<_>>()), Answer::Done);
        assert!(leftovers(&machine, 100).is_empty());
        assert_eq!(acknowledge(&machine, &[]), Answer::Done);
    });
}

#[test]
fn what_still_runs_is_not_taken_away() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let mut session = machine.start(&uid, &sh("echo one; sleep 1; echo two"));
        session.until(|said| !said.stdout.is_empty());
        assert_eq!(acknowledge(&machine, &[&uid]), Answer::Done);
        assert_eq!(session.finish().stdout, b"one\ntwo\n");
        assert_eq!(leftovers(&machine, 100), [uid], "{kind:?}");
    });
}

#[test]
fn what_is_old_is_forgotten() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let (old, new) = (uid(), uid());
        for uid in [&old, &new] {
            machine.launch(uid, &sh("echo out"));
        }
        let long_ago = SystemTime::now() - Duration::from_secs(40 * 86_400);
        // The journal names another boot. With the current boot ID, the launcher would know that the journal cannot be
        // that old.
        let journal = machine.journal(&old).replacen(&machine.facts.boot_id, "00000000-0000-4000-8000-000000000000", 1);
        std::fs::write(machine.file(&old, "j"), journal).unwrap();
        for ending in ["j", "o", "e"] {
            std::fs::File::open(machine.file(&old, ending)).unwrap().set_modified(long_ago).unwrap();
        }
        let identity = Path::new(&machine.facts.directory).join("id");
        std::fs::File::open(&identity).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(machine.ask(|nonce, facts| launcher::prune(nonce, facts, 30)), Answer::Done);
        assert_eq!(machine.poll(&old), Answer::Absent, "{kind:?}");
        assert!(matches!(machine.poll(&new), Answer::Ended(_)) && identity.exists());
        assert!(!machine.file(&old, "o").exists());
    });
}

#[test]
fn the_directory_keeps_its_name_and_has_to_be_the_users_own() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let home = machine.home.path();
        let again = machine.probe(None);
        assert_eq!(
            LauncherFacts { uptime_centiseconds: 0, ..again },
            LauncherFacts { uptime_centiseconds: 0, ..machine.facts.clone() }
        );
        assert_eq!(again_reads_sh(&machine), matches!(kind, Kind::Dash | Kind::Busybox), "{kind:?}");
        let odd = home.join("it's \"odd\" $HOME \\ name");
        let facts = machine.probe(odd.to_str());
        assert_eq!(Path::new(&facts.directory), odd.canonicalize().unwrap());
        assert!(facts.directory_id != machine.facts.directory_id);
        let refused = |path: &Path| match machine.probed(path.to_str()).answer() {
            Answer::Refused(why) => why.clone(),
            other => panic!("{kind:?} {path:?} {other:?}"),
        };
        std::os::unix::fs::symlink(&odd, home.join("link")).unwrap();
        assert_eq!(refused(&home.join("link")), RequestRefusal::DirectoryUnsuitable);
        assert_eq!(refused(&home.join("link/")), RequestRefusal::DirectoryUnsuitable);
        std::fs::write(home.join("file"), "").unwrap();
        assert_eq!(refused(Path::new("/tmp")), RequestRefusal::DirectoryUnsuitable);
        // The refusal contains the error message of the machine.
        for path in [home.join("file"), "/proc/no-such/home".into()] {
            let said = refused(&path);
            let is_told = matches!(&said, RequestRefusal::Said(words) if words.starts_with("mkdir: ") && words.contains(" directory"));
            assert!(is_told, "{kind:?}: {said:?}");
        }
        assert_eq!(refused(&home.join("two\nlines")), RequestRefusal::DirectoryUnsuitable);
        assert!(!home.join("two\nlines").exists(), "{kind:?}");
    });
}

#[test]
fn a_machine_says_what_it_is_and_leaves_nothing_behind() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let before = std::fs::read_dir(machine.home.path()).unwrap().count();
        let nonce = crate::machine::nonce();
        let said = machine.session(&nonce, launcher::system_info(&nonce)).finish();
        let Answer::SystemInfo(described) = said.answer() else { panic!("{kind:?} {:?}", said.answer()) };
        let uname = |flag| String::from_utf8(Command::new("uname").arg(flag).output().unwrap().stdout).unwrap();
        assert_eq!(described.hostname, uname("-n").trim());
        assert_eq!(described.architecture, uname("-m").trim());
        assert_eq!(described.kernel, uname("-r").trim());
        assert_eq!(described.boot_id, machine.facts.boot_id);
        assert!(!described.os.is_empty() && !described.os.contains('"'), "{described:?}");
        assert_eq!(std::fs::read_dir(machine.home.path()).unwrap().count(), before);
    });
}

fn again_reads_sh(machine: &Machine) -> bool {
    machine.probe(None).login_shell_is_posix
}

#[test]
fn in_an_odd_directory_all_is_as_elsewhere() {
    everywhere(|kind| {
        let mut machine = Machine::new(kind);
        let odd = machine.home.path().join("it's \"odd\" $HOME \\ name");
        machine.facts = machine.probe(odd.to_str());
        let uid = uid();
        assert_eq!(machine.launch(&uid, &sh("echo out; sleep 0.5")).stdout, b"out\n", "{kind:?}");
        assert_eq!(machine.attach(&uid, Offsets::default()).finish().stdout, b"out\n");
        assert_eq!(leftovers(&machine, 9), std::slice::from_ref(&uid));
        assert_eq!(acknowledge(&machine, &[&uid]), Answer::Done);
        assert!(leftovers(&machine, 9).is_empty());
    });
}

#[test]
fn a_directory_that_cannot_be_written_starts_nothing() {
    everywhere(|kind| {
        let machine = Machine::not_as_root(kind);
        let set = |mode| {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(&machine.facts.directory, permissions).unwrap();
        };
        set(0o500);
        let said = machine.run(&machine.noted("true"));
        assert_eq!(*said.answer(), Answer::Refused(RequestRefusal::NotWritable), "{kind:?}");
        assert!(machine.ran().is_empty());
        set(0o700);
    });
}

/// Small file system, unmounted on drop.
pub struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    pub fn mount(path: &'a Path) -> Self {
        std::fs::create_dir(path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k,mode=700", "none"]).arg(path).status();
        assert!(mounted.unwrap().success());
        Self(path)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_starts_nothing_and_output_that_did_not_fit_is_said_to_be_missing() {
    if !is_root() {
        say::note("this needs root, for a small disk: passed over");
        return;
    }
    everywhere(|kind| {
        let mut machine = Machine::new(kind);
        let path = machine.home.path().join("disk");
        let _disk = Disk::mount(&path);
        machine.facts = machine.probe(path.to_str());

        let said = machine.run(&sh("head -c 1000000 /dev/zero; exit 5"));
        let ended = said.ended();
        assert_eq!((ended.outcome, ended.output_incomplete()), (ExitOutcome::Exited(5), true), "{kind:?}");
        assert_eq!(said.stdout.len() as u64, ended.lengths.stdout);

        let late = uid();
        let said = machine.launch(&late, &machine.noted("true"));
        assert_eq!(*said.answer(), Answer::Refused(RequestRefusal::DiskFull), "{kind:?}");
        // This execution does not start later either, when the disk has space again.
        let outputs = leftovers(&machine, 9);
        assert_eq!(acknowledge(&machine, &outputs.iter().collect::<Vec<_>>()), Answer::Done);
        assert_eq!(*machine.launch(&late, &machine.noted("true")).answer(), Answer::Starting);
        assert_eq!(machine.close(&late), Answer::Tombstoned);
        assert!(machine.ran().is_empty());
        let said = machine.run(&sh("head -c 8192 /dev/zero"));
        assert!(!said.ended().output_incomplete() && said.stdout.len() == 8192, "{kind:?}");
    });
}
