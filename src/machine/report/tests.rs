use super::*;
use crate::api::machine_status::SystemInfo;
use crate::api::{HostKeyPolicy, MachineSpec};
use crate::machine::{ProbeSchedule, next_probe};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn machine() -> Machine {
    let mut machine = Machine::new("web-1", MachineSpec::new("192.0.2.1", "deploy", "web-ssh"));
    machine.metadata.uid = Some("uid".to_owned());
    machine.metadata.generation = Some(3);
    machine
}

fn sight(second: i64, seen: ProbeResult) -> MachineObservation {
    MachineObservation { uid: Some("uid".to_owned()), generation: Some(3), at: at(second), result: seen }
}

/// Returns a schedule at `second` without failures and without waiting executions.
fn schedule<'a>(machine: &'a Machine, observation: Option<&'a MachineObservation>, second: i64) -> ProbeSchedule<'a> {
    ProbeSchedule {
        machine,
        observation,
        failures: 0,
        is_waited_for: false,
        needs_person: false,
        jitter: 0.5,
        now: at(second),
    }
}

fn key(fingerprint: &str, trust: KeyTrust) -> VerifiedKey {
    VerifiedKey { algorithm: "ssh-ed25519".to_owned(), fingerprint: fingerprint.to_owned(), trust }
}

fn login(refused: &[&str]) -> Box<LoginKey> {
    let entry = if refused.is_empty() { "ssh-privatekey" } else { "ssh-privatekey-2" };
    let refused = refused.iter().map(|refused| (*refused).to_owned()).collect();
    Box::new(LoginKey { entry: entry.to_owned(), fingerprint: "SHA256:used".to_owned(), refused })
}

fn online() -> ProbeResult {
    let system = SystemInfo { hostname: Some("web-1".to_owned()), ..SystemInfo::default() };
    ProbeResult::Online {
        latency: Duration::from_millis(12),
        key: key("SHA256:a", KeyTrust::Pinned),
        login: login(&[]),
        system: Some(system),
    }
}

fn problem(reason: Reason, message: &str) -> ProbeResult {
    ProbeResult::Failed(LaunchProblem { reason, message: message.to_owned() })
}

/// Returns the report of a process that has not written the status yet.
fn told(machine: &Machine, observation: &MachineObservation) -> Report {
    let observed = ReportInput {
        machine,
        observation: Some(observation),
        running: 0,
        queued: 0,
        is_recount: false,
        since_write: None,
        now: observation.at,
    };
    report(&observed)
}

/// Returns the Machine after its report was stored.
fn after(mut machine: Machine, seen: &MachineObservation) -> Machine {
    machine.status = Some(told(&machine, seen).status.expect("something to write"));
    machine
}

fn conditions_of(status: &MachineStatus) -> Vec<String> {
    status.conditions.iter().map(|each| format!("{}={}", each.type_, each.status)).collect()
}

#[test]
fn successful_login_is_online_with_system_info() {
    let report = told(&machine(), &sight(5, online()));
    let status = report.status.expect("a status");
    assert_eq!(status.phase, Some(MachinePhase::Online));
    assert_eq!(conditions_of(&status), ["Authenticated=True", "HostKeyVerified=True", "Reachable=True", "Ready=True"]);
    assert_eq!((status.latency_ms, status.observed_generation), (Some(12), Some(3)));
    assert_eq!(status.host_keys.len(), 1);
    assert_eq!(status.first_seen_time, status.last_seen_time);
    assert_eq!(report.event.map(|(reason, warning, _)| (reason, warning)), Some(("Online".to_owned(), false)));
}

#[test]
fn unchanged_observation_is_written_every_ten_minutes() {
    let machine = after(machine(), &sight(0, online()));
    let again = |second| told(&machine, &sight(second, online()));
    assert_eq!(again(300), Report { retry_after: Some(Duration::from_secs(300)), ..Report::default() });
    let late = again(600);
    assert_eq!(late.status.expect("a refresh").last_seen_time, Some(Time(at(600))));
    assert_eq!(late.event, None, "nothing new for people");
}

#[test]
fn significant_change_waits_ten_seconds_after_a_write() {
    let machine = after(machine(), &sight(0, online()));
    let sight = sight(4, problem(Reason::MachineOffline, "no route to host"));
    let observed = |since| ReportInput {
        machine: &machine,
        observation: Some(&sight),
        running: 0,
        queued: 0,
        is_recount: false,
        since_write: Some(Duration::from_secs(since)),
        now: at(4),
    };
    assert_eq!(report(&observed(4)), Report { retry_after: Some(Duration::from_secs(6)), ..Report::default() });
    let status = report(&observed(10)).status.expect("now");
    assert_eq!((status.phase, status.message.as_deref()), (Some(MachinePhase::Offline), Some("no route to host")));
    assert_eq!(status.last_seen_time, Some(Time(at(0))), "when it was last seen stays");
}

#[test]
fn the_conditions_say_how_far_it_came() {
    let seen = |reason| told(&machine(), &sight(0, problem(reason, "x"))).status.map(|status| conditions_of(&status));
    let is = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    assert_eq!(seen(Reason::MachineOffline), is(&["Reachable=False", "Ready=False"]));
    assert_eq!(
        seen(Reason::HostKeyMismatch),
        is(&["HostKeyVerified=False", "Reachable=True", "Ready=False", "Stalled=True"])
    );
    assert_eq!(
        seen(Reason::AuthenticationRefused),
        is(&["Authenticated=False", "HostKeyVerified=True", "Reachable=True", "Ready=False", "Stalled=True"])
    );
    assert_eq!(
        seen(Reason::LauncherUnsupported),
        is(&["Authenticated=True", "HostKeyVerified=True", "Reachable=True", "Ready=False", "Stalled=True"])
    );
    assert_eq!(seen(Reason::CredentialsNotFound), is(&["Ready=False", "Stalled=True"]));
}

#[test]
fn observation_of_another_generation_is_ignored() {
    let mut changed = after(machine(), &sight(0, online()));
    changed.metadata.generation = Some(4);
    assert_eq!(told(&changed, &sight(1, problem(Reason::MachineOffline, "x"))), Report::default());
    assert_eq!(next_probe(&schedule(&changed, Some(&sight(1, online())), 1)), Some(Duration::ZERO));
}

#[test]
fn a_suspended_machine_is_said_to_be_and_not_looked_at() {
    let mut machine = after(machine(), &sight(0, problem(Reason::HostKeyMismatch, "x")));
    machine.spec.suspend = true;
    let status = told(&machine, &sight(1, online())).status.expect("a status");
    assert_eq!(status.phase, Some(MachinePhase::Suspended));
    assert!(!conditions_of(&status).contains(&"Stalled=True".to_owned()));
    assert_eq!(next_probe(&ProbeSchedule { is_waited_for: true, ..schedule(&machine, None, 1) }), None);
}

#[test]
fn pinned_key_is_never_replaced() {
    let mut frozen = machine();
    frozen.spec.host_key_policy = HostKeyPolicy::TrustOnFirstUse;
    let first = ObservedHostKey {
        algorithm: "ssh-ed25519".to_owned(),
        fingerprint: "SHA256:first".to_owned(),
        trust: KeyTrust::FirstUse,
        first_seen_time: Time(at(0)),
    };
    frozen.status = Some(MachineStatus { host_keys: vec![first.clone()], ..MachineStatus::default() });
    for seen in ["SHA256:first", "SHA256:other"] {
        let key = key(seen, KeyTrust::FirstUse);
        let seen = sight(1, ProbeResult::Online { latency: Duration::ZERO, key, login: login(&[]), system: None });
        assert_eq!(told(&frozen, &seen).status.expect("a status").host_keys, vec![first.clone()]);
    }
    // A proved key of `hostKeys` replaces the key of the first use.
    let pinned = told(&frozen, &sight(2, online())).status.expect("a status").host_keys;
    assert_eq!(pinned.iter().map(|key| key.trust).collect::<Vec<_>>(), [KeyTrust::Pinned]);
}

#[test]
fn counts_are_written_when_due_and_delay_nothing_else() {
    let machine = after(machine(), &sight(0, online()));
    let seen = sight(0, online());
    let counted = |is_recount, sight| {
        report(&ReportInput {
            machine: &machine,
            observation: sight,
            running: 2,
            queued: 5,
            is_recount,
            since_write: Some(Duration::ZERO),
            now: at(0),
        })
    };
    assert_eq!(counted(false, Some(&seen)), Report::default());
    // The counts are also written if there is no observation of the current generation.
    for sight in [Some(&seen), None] {
        let report = counted(true, sight);
        assert!(report.is_count && report.event.is_none());
        let status = report.status.expect("a count");
        assert_eq!((status.running, status.queued, status.phase), (Some(2), Some(5), Some(MachinePhase::Online)));
    }
}

#[test]
fn pauses_between_looks_grow_with_failures_and_stay_short_while_somebody_waits() {
    let machine = machine();
    let offline = sight(0, problem(Reason::MachineOffline, "x"));
    let pause = |failures, is_waited_for| {
        let schedule = ProbeSchedule { failures, is_waited_for, jitter: 0.0, ..schedule(&machine, Some(&offline), 0) };
        next_probe(&schedule).unwrap().as_secs()
    };
    assert_eq!([1, 2, 3, 4, 5, 6, 60].map(|failures| pause(failures, false)), [10, 20, 40, 80, 160, 300, 300]);
    assert_eq!([1, 2, 60].map(|failures| pause(failures, true)), [10, 10, 10]);
    let online = sight(0, online());
    let next = |jitter, now| {
        let schedule = ProbeSchedule { is_waited_for: true, jitter, ..schedule(&machine, Some(&online), now) };
        next_probe(&schedule).unwrap().as_secs()
    };
    assert_eq!((next(0.0, 0), next(1.0, 0), next(0.0, 299), next(0.0, 900)), (300, 270, 1, 0));
}

#[test]
fn text_of_a_machine_cannot_control_a_terminal() {
    let seen = sight(0, problem(Reason::LauncherUnsupported, "it says \u{1b}[2J\nboo"));
    let status = told(&machine(), &seen).status.expect("a status");
    assert_eq!(status.message.as_deref(), Some("it says  [2J boo"));
}

/// A user adds an authority to a Machine with a pinned key, and later removes the authority. The first key must still
/// be pinned, so that Writ pins no other key.
#[test]
fn a_frozen_key_outlives_an_authority() {
    let mut frozen = machine();
    frozen.spec.host_key_policy = HostKeyPolicy::TrustOnFirstUse;
    let first = ObservedHostKey {
        algorithm: "ssh-ed25519".to_owned(),
        fingerprint: "SHA256:first".to_owned(),
        trust: KeyTrust::FirstUse,
        first_seen_time: Time(at(0)),
    };
    frozen.status = Some(MachineStatus { host_keys: vec![first], ..MachineStatus::default() });
    let seen = ProbeResult::Online {
        latency: Duration::ZERO,
        key: key("SHA256:first", KeyTrust::Authority),
        login: login(&[]),
        system: None,
    };
    let kept = told(&frozen, &sight(1, seen)).status.expect("a status").host_keys;
    // `fleet::trust_on_first_use::pinned_keys` uses only keys whose trust is not `Authority`. At least one such key
    // must stay.
    assert!(kept.iter().any(|key| key.trust != KeyTrust::Authority), "{kept:?}");
}

#[test]
fn refused_key_is_reported_while_another_one_is_accepted() {
    let key = || key("SHA256:a", KeyTrust::Pinned);
    let seen = |refused: &[&str]| {
        sight(60, ProbeResult::Online { latency: Duration::ZERO, key: key(), login: login(refused), system: None })
    };
    let machine = machine();
    let said = |machine: &Machine, observation: &MachineObservation| told(machine, observation).status.unwrap();
    let during = said(&machine, &seen(&["SHA256:new"]));
    assert_eq!(during.phase, Some(MachinePhase::Online));
    let message = during.message.clone().unwrap();
    assert!(message.contains("ssh-privatekey-2") && message.contains("SHA256:new"), "{message}");
    assert_eq!(during.login_key.as_ref().unwrap().refused, ["SHA256:new"]);
    let mut rotated = machine.clone();
    rotated.status = Some(during);
    let after = said(&rotated, &seen(&[]));
    assert_eq!((after.message, after.login_key), (None, Some(*login(&[]))));
}
