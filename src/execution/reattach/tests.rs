use super::*;

const AGE: Duration = Duration::from_secs(60);
const OLD: Duration = Duration::from_secs(100_000);
const FRESH: Duration = Duration::from_secs(20);
/// A machine as the claim records it. A connection to the same host observes the same values.
const RECORDED: ObservedMachine<'static> = ObservedMachine {
    address: "10.0.0.1:22",
    host_key_fingerprint: "SHA256:a",
    boot_id: "boot",
    uptime: OLD,
    directory: "/home/a",
    directory_id: "word",
};

fn place(shown: &ObservedMachine<'_>) -> MachineMatch {
    let machine = MachineRecord {
        name: "web-1".to_owned(),
        uid: "u".to_owned(),
        generation: 1,
        address: RECORDED.address.to_owned(),
        user: "deploy".to_owned(),
        host_key_fingerprint: RECORDED.host_key_fingerprint.to_owned(),
    };
    let remote = RemoteRecord {
        directory: RECORDED.directory.to_owned(),
        directory_id: RECORDED.directory_id.to_owned(),
        boot_id: RECORDED.boot_id.to_owned(),
        not_after_uptime_ms: 0,
    };
    compare(&machine, &remote, shown, AGE)
}

fn problem() -> LaunchProblem {
    LaunchProblem { reason: Reason::PolicyChanged, message: "no".to_owned() }
}

#[test]
fn a_place_is_the_same_only_where_folder_boot_and_address_are() {
    assert_eq!(place(&RECORDED), MachineMatch::Exact);
    let shared = MachineMatch::Different { same_directory: true };
    assert_eq!(place(&ObservedMachine { address: "10.0.0.2:22", ..RECORDED }), shared);
    // Another port can lead to another machine behind the same address.
    assert_eq!(place(&ObservedMachine { address: "10.0.0.1:23", ..RECORDED }), shared);
    assert_eq!(place(&ObservedMachine { directory: "/home/b", ..RECORDED }), MachineMatch::OtherDirectory);
    assert_eq!(place(&ObservedMachine { directory_id: "other", ..RECORDED }), MachineMatch::OtherDirectory);
}

#[test]
fn a_reboot_is_another_boot_of_the_same_host() {
    let later = ObservedMachine { boot_id: "later", ..RECORDED };
    assert_eq!(place(&later), MachineMatch::Rebooted);
    // The host has another address after the reboot, but is still the same host.
    let moved = ObservedMachine { address: "10.0.0.2:22", ..later.clone() };
    assert_eq!(place(&ObservedMachine { uptime: FRESH, ..moved.clone() }), MachineMatch::Rebooted);
    // The host has been up since before the claim, so it did not reboot after the claim: it is a clone.
    assert_eq!(place(&moved), MachineMatch::Different { same_directory: true });
    let other_key = ObservedMachine { host_key_fingerprint: "SHA256:b", uptime: FRESH, ..later.clone() };
    assert_eq!(place(&other_key), MachineMatch::Different { same_directory: true });
    // If the directory did not survive the reboot, the journal is gone.
    let emptied = ObservedMachine { directory_id: "other", ..later };
    assert_eq!(place(&ObservedMachine { uptime: FRESH, ..emptied.clone() }), MachineMatch::OtherDirectory);
    assert_eq!(place(&emptied), MachineMatch::Different { same_directory: false });
}

const PLACES: [MachineMatch; 5] = [
    MachineMatch::Exact,
    MachineMatch::Rebooted,
    MachineMatch::OtherDirectory,
    MachineMatch::Different { same_directory: true },
    MachineMatch::Different { same_directory: false },
];

const JOURNALS: [Journal; 7] = [
    Journal::Absent,
    Journal::Running,
    Journal::Ended,
    Journal::Tombstoned,
    Journal::Starting,
    Journal::Lost { rebooted: false },
    Journal::Lost { rebooted: true },
];

#[test]
fn launch_only_on_the_same_machine_without_a_journal() {
    for place in PLACES {
        for journal in &JOURNALS {
            for start_confirmed in [false, true] {
                for may_start in [Ok(()), Err(problem())] {
                    let launches =
                        next_step(place, journal, start_confirmed, may_start.clone()) == ReattachStep::Launch;
                    let may = (place, journal, start_confirmed, may_start)
                        == (MachineMatch::Exact, &Journal::Absent, false, Ok(()));
                    assert_eq!(launches, may, "{place:?} {journal:?} {start_confirmed}");
                }
            }
        }
    }
}

#[test]
fn other_host_counts_only_with_a_journal_in_the_same_directory() {
    for same_directory in [false, true] {
        for journal in &JOURNALS {
            for start_confirmed in [false, true] {
                let next = next_step(MachineMatch::Different { same_directory }, journal, start_confirmed, Ok(()));
                let is_recorded =
                    same_directory && matches!(journal, Journal::Running | Journal::Ended | Journal::Tombstoned);
                assert_eq!(next != ReattachStep::Retry, is_recorded, "{same_directory} {journal:?}: {next:?}");
                assert!(!matches!(next, ReattachStep::Conclude(Termination::Unknown { reason: Reason::Rebooted, .. })));
            }
        }
    }
}

#[test]
fn forbidden_start_closes_the_fence_first() {
    assert_eq!(next_step(MachineMatch::Exact, &Journal::Absent, false, Err(problem())), ReattachStep::Close(problem()));
    let concluded = next_step(MachineMatch::Exact, &Journal::Tombstoned, false, Err(problem()));
    assert_eq!(concluded, ReattachStep::Conclude(Termination::Refused(problem())));
}

#[test]
fn journal_is_read_after_a_reboot_and_a_missing_end_is_unknown() {
    assert_eq!(next_step(MachineMatch::Rebooted, &Journal::Ended, true, Ok(())), ReattachStep::Follow);
    for (place, journal, start_confirmed, expected) in [
        (MachineMatch::Rebooted, Journal::Lost { rebooted: true }, true, Reason::Rebooted),
        (MachineMatch::Exact, Journal::Lost { rebooted: true }, true, Reason::Rebooted),
        (MachineMatch::Rebooted, Journal::Starting, false, Reason::Rebooted),
        (MachineMatch::Rebooted, Journal::Absent, false, Reason::Rebooted),
        (MachineMatch::Exact, Journal::Lost { rebooted: false }, true, Reason::RecordLost),
        (MachineMatch::Exact, Journal::Absent, true, Reason::RecordLost),
        (MachineMatch::Exact, Journal::Starting, true, Reason::RecordLost),
        (MachineMatch::Exact, Journal::Tombstoned, true, Reason::RecordLost),
        (MachineMatch::OtherDirectory, Journal::Ended, true, Reason::MachineChanged),
    ] {
        match next_step(place, &journal, start_confirmed, Ok(())) {
            ReattachStep::Conclude(Termination::Unknown { reason, .. }) => assert_eq!(reason, expected),
            other => panic!("{place:?} {journal:?}: {other:?}"),
        }
    }
}
