use super::*;

const AGE: Duration = Duration::from_secs(60);
const OLD: Duration = Duration::from_secs(100_000);
const FRESH: Duration = Duration::from_secs(20);
/// What the claim recorded, and what the same host shows.
const RECORDED: MachineShown<'static> = MachineShown {
    address: "10.0.0.1:22",
    host_key_fingerprint: "SHA256:a",
    boot_id: "boot",
    uptime: OLD,
    directory: "/home/a",
    directory_id: "word",
};

fn place(shown: &MachineShown<'_>) -> Place {
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
    assert_eq!(place(&RECORDED), Place::Same);
    let shared = Place::Elsewhere { same_folder: true };
    assert_eq!(place(&MachineShown { address: "10.0.0.2:22", ..RECORDED }), shared);
    // Another port may lead to another machine behind the same address.
    assert_eq!(place(&MachineShown { address: "10.0.0.1:23", ..RECORDED }), shared);
    assert_eq!(place(&MachineShown { directory: "/home/b", ..RECORDED }), Place::OtherFolder);
    assert_eq!(place(&MachineShown { directory_id: "other", ..RECORDED }), Place::OtherFolder);
}

#[test]
fn a_reboot_is_another_boot_of_the_same_host() {
    let later = MachineShown { boot_id: "later", ..RECORDED };
    assert_eq!(place(&later), Place::Rebooted);
    // With another address after it.
    let moved = MachineShown { address: "10.0.0.2:22", ..later.clone() };
    assert_eq!(place(&MachineShown { uptime: FRESH, ..moved.clone() }), Place::Rebooted);
    // It was up before the claim was made: a clone.
    assert_eq!(place(&moved), Place::Elsewhere { same_folder: true });
    let other_key = MachineShown { host_key_fingerprint: "SHA256:b", uptime: FRESH, ..later.clone() };
    assert_eq!(place(&other_key), Place::Elsewhere { same_folder: true });
    // With a folder that did not outlive it.
    let emptied = MachineShown { directory_id: "other", ..later };
    assert_eq!(place(&MachineShown { uptime: FRESH, ..emptied.clone() }), Place::OtherFolder);
    assert_eq!(place(&emptied), Place::Elsewhere { same_folder: false });
}

const PLACES: [Place; 5] = [
    Place::Same,
    Place::Rebooted,
    Place::OtherFolder,
    Place::Elsewhere { same_folder: true },
    Place::Elsewhere { same_folder: false },
];

const JOURNALS: [Journal; 7] = [
    Journal::Absent,
    Journal::Running,
    Journal::Ended,
    Journal::Closed,
    Journal::Starting,
    Journal::Lost { rebooted: false },
    Journal::Lost { rebooted: true },
];

#[test]
fn it_is_launched_only_where_nothing_has_begun_on_the_very_machine_and_it_may_start() {
    for place in PLACES {
        for journal in &JOURNALS {
            for has_run in [false, true] {
                for may_start in [Ok(()), Err(problem())] {
                    let launches = next(place, journal, has_run, may_start.clone()) == Next::Launch;
                    let may = (place, journal, has_run, may_start) == (Place::Same, &Journal::Absent, false, Ok(()));
                    assert_eq!(launches, may, "{place:?} {journal:?} {has_run}");
                }
            }
        }
    }
}

#[test]
fn no_other_host_ends_the_search_but_by_what_is_recorded_in_the_same_folder() {
    for same_folder in [false, true] {
        for journal in &JOURNALS {
            for has_run in [false, true] {
                let next = next(Place::Elsewhere { same_folder }, journal, has_run, Ok(()));
                let is_recorded = same_folder && matches!(journal, Journal::Running | Journal::Ended | Journal::Closed);
                assert_eq!(next != Next::LookOn, is_recorded, "{same_folder} {journal:?}: {next:?}");
                assert!(!matches!(next, Next::Conclude(Ending::Unknown { reason: Reason::Rebooted, .. })));
            }
        }
    }
}

#[test]
fn what_may_not_start_any_more_is_closed_before_it_is_said_so() {
    assert_eq!(next(Place::Same, &Journal::Absent, false, Err(problem())), Next::Close(problem()));
    let concluded = next(Place::Same, &Journal::Closed, false, Err(problem()));
    assert_eq!(concluded, Next::Conclude(Ending::Refused(problem())));
}

#[test]
fn what_is_recorded_is_read_also_after_a_reboot_and_what_is_not_is_unknown() {
    assert_eq!(next(Place::Rebooted, &Journal::Ended, true, Ok(())), Next::Follow);
    for (place, journal, has_run, expected) in [
        (Place::Rebooted, Journal::Lost { rebooted: true }, true, Reason::Rebooted),
        (Place::Same, Journal::Lost { rebooted: true }, true, Reason::Rebooted),
        (Place::Rebooted, Journal::Starting, false, Reason::Rebooted),
        (Place::Rebooted, Journal::Absent, false, Reason::Rebooted),
        (Place::Same, Journal::Lost { rebooted: false }, true, Reason::RecordLost),
        (Place::Same, Journal::Absent, true, Reason::RecordLost),
        (Place::Same, Journal::Starting, true, Reason::RecordLost),
        (Place::Same, Journal::Closed, true, Reason::RecordLost),
        (Place::OtherFolder, Journal::Ended, true, Reason::MachineChanged),
    ] {
        match next(place, &journal, has_run, Ok(())) {
            Next::Conclude(Ending::Unknown { reason, .. }) => assert_eq!(reason, expected),
            other => panic!("{place:?} {journal:?}: {other:?}"),
        }
    }
}
