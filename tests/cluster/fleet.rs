//! The status of Machines, and the executions that wait for a Machine. In these tests, machines, their keys and their
//! Machines change.

use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use writ::api::machine_status::KeyTrust;
use writ::api::{Machine, MachinePhase, MachineStatus, Phase, Reason};

use crate::case::{Case, sh};
use crate::lab::{Sshd, SshdOptions};
use crate::world::world;

/// Wait after Writ has found a fault. Executions that are created up to a second after that moment end like those from
/// before it. Creation times are whole seconds.
const AFTER_FAULT: Duration = Duration::from_millis(2500);

/// Maximum wait for a status. Probes of a failed machine are 10 s apart, and so are the writes of its status.
const PATIENCE: Duration = Duration::from_secs(90);

fn machines(case: &Case) -> Api<Machine> {
    Api::namespaced(case.client.clone(), &case.namespace)
}

/// Waits until the status of a Machine is current and fulfils `is_so`.
async fn seen(case: &Case, name: &str, is_so: impl Fn(&MachineStatus) -> bool) -> MachineStatus {
    let started = std::time::Instant::now();
    loop {
        let machine = machines(case).get(name).await.expect("a Machine");
        let generation = machine.metadata.generation;
        let status = machine.status.unwrap_or_default();
        if status.observed_generation == generation && is_so(&status) {
            return status;
        }
        assert!(started.elapsed() < PATIENCE, "{name} is {status:?}\n{}", case.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn in_phase(case: &Case, name: &str, phase: MachinePhase) -> MachineStatus {
    seen(case, name, |status| status.phase == Some(phase)).await
}

fn condition(status: &MachineStatus, type_: &str) -> (String, String, String) {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_);
    let found = found.unwrap_or_else(|| panic!("no condition {type_}: {status:?}"));
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

/// Starts a second machine, and stores its login key in the Secret `other-ssh` of the first case.
async fn another(case: &Case) -> Sshd {
    let sshd = Sshd::start(&world().reaper, &SshdOptions::default()).expect("another sshd");
    case.apply_secret("other-ssh", &sshd.private_key().expect("a key")).await;
    sshd
}

/// Applies a rule for commands that each print their own word. The word identifies a command in the ledger.
async fn apply_words(case: &Case) {
    let word = json!({"word": {"pattern": "[a-z][a-z0-9]*"}});
    let rule = json!({"name": "word", "match": "word {word}", "run": ["/bin/echo", "{word}"], "parameters": word});
    case.apply_whitelist("words", json!([rule])).await;
}

/// Starts a command that runs for 5 s.
async fn execute_a_while(case: &Case, name: &str) {
    case.apply_whitelist("while", json!([sh("a-while", "sleep 5; echo done")])).await;
    case.execute(name, "a-while").await;
    case.in_phase(name, Phase::Running).await;
}

fn looked_at() -> Value {
    json!({"intervalSeconds": 10})
}

fn attempts(sshd: &Sshd) -> usize {
    sshd.log().unwrap_or_default().matches("userauth-request").count()
}

#[tokio::test]
async fn a_machine_is_seen_online_and_says_what_it_is() {
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"probe": looked_at(), "execution": {"mode": "Durable"}})).await;
    let status = in_phase(&case, "web-1", MachinePhase::Online).await;
    for proved in ["Ready", "Reachable", "HostKeyVerified", "Authenticated"] {
        assert_eq!(condition(&status, proved).0, "True");
    }
    let key = status.host_keys.first().expect("a key");
    assert_eq!((key.algorithm.as_str(), key.trust), ("ssh-ed25519", KeyTrust::Pinned));
    assert!(key.fingerprint.starts_with("SHA256:") && status.latency_ms.is_some(), "{status:?}");
    let system = status.system.expect("what it says of itself");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    assert_eq!(system.kernel.as_deref(), Some(kernel.trim()));
    assert!(system.boot_id.is_some() && system.hostname.is_some() && system.os.is_some() && system.shell.is_some());
}

#[tokio::test]
async fn a_machine_that_goes_away_is_offline_and_online_again_when_it_is_back() {
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"probe": looked_at()})).await;
    let online = in_phase(&case, "web-1", MachinePhase::Online).await;
    case.sshd.stop();
    let offline = in_phase(&case, "web-1", MachinePhase::Offline).await;
    assert_eq!(condition(&offline, "Reachable").0, "False");
    assert!(offline.message.clone().unwrap_or_default().contains("refused"), "{offline:?}");
    assert_eq!(offline.first_seen_time, online.first_seen_time);
    case.sshd.restart().expect("sshd starts again");
    in_phase(&case, "web-1", MachinePhase::Online).await;
    assert!(case.events("Online").await >= 1 && case.events("MachineOffline").await >= 1);
}

#[tokio::test]
async fn a_changed_host_key_ends_one_execution_and_the_rest_waits_until_a_person_has_pinned_it() {
    let case = Case::new().await;
    let other = another(&case).await;
    // The Machine pins a key that the machine does not have.
    let swapped = json!({"hostKeys": [other.host_key().expect("a key")], "maxConcurrent": 1});
    case.apply_machine("web-1", swapped.clone()).await;
    case.execute("first", "say hello").await;
    let first = case.ends("first", Phase::LaunchFailed, Reason::HostKeyMismatch).await;
    assert!(first.message.unwrap_or_default().contains("host key changed: expected SHA256:"));
    tokio::time::sleep(AFTER_FAULT).await;
    case.execute("second", "say hello").await;
    case.execute("third", "say hello").await;
    let waits = |status: &writ::api::CommandExecutionStatus| status.reason == Some(Reason::MachineMisconfigured);
    case.until("second", "waiting for a person", waits).await;
    case.until("third", "waiting for a person", waits).await;
    let status = in_phase(&case, "web-1", MachinePhase::Misconfigured).await;
    assert_eq!(condition(&status, "HostKeyVerified").0, "False");
    assert_eq!(condition(&status, "Stalled").1, "HostKeyMismatch");
    assert_eq!(attempts(&case.sshd), 0, "{:?}", case.sshd.log());
    assert!(case.events("HostKeyMismatch").await >= 1);
    case.apply_machine("web-1", json!({"maxConcurrent": 1})).await;
    for name in ["second", "third"] {
        case.ends(name, Phase::Succeeded, Reason::Completed).await;
    }
    in_phase(&case, "web-1", MachinePhase::Online).await;
}

#[tokio::test]
async fn the_first_key_is_frozen_and_another_one_is_an_attack_until_a_person_pins_it() {
    let case = Case::new().await;
    let tofu = json!({"hostKeys": [], "hostKeyPolicy": "TrustOnFirstUse"});
    case.apply_machine("web-1", tofu.clone()).await;
    case.execute("first", "say hello").await;
    case.ends("first", Phase::Succeeded, Reason::Completed).await;
    let frozen = seen(&case, "web-1", |status| !status.host_keys.is_empty()).await.host_keys;
    assert_eq!((frozen.len(), frozen[0].trust), (1, KeyTrust::FirstUse));
    // Another host answers at this address now.
    let other = another(&case).await;
    let mut moved = tofu.clone();
    moved["port"] = json!(other.port());
    moved["credentialsRef"] = json!({"name": "other-ssh"});
    case.apply_machine("web-1", moved.clone()).await;
    case.execute("second", "say hello").await;
    let second = case.ends("second", Phase::LaunchFailed, Reason::HostKeyMismatch).await;
    assert!(second.message.unwrap_or_default().contains(&frozen[0].fingerprint));
    let status = in_phase(&case, "web-1", MachinePhase::Misconfigured).await;
    assert_eq!(status.host_keys, frozen, "what is frozen stays");
    assert_eq!(attempts(&other), 0);
    assert!(case.events("HostKeyMismatch").await >= 1);
    // A person accepts the new key by pinning it or, as here, by clearing the list.
    let patch = Patch::Merge(json!({"status": {"hostKeys": null}}));
    machines(&case).patch_status("web-1", &PatchParams::default(), &patch).await.expect("a status");
    tokio::time::sleep(AFTER_FAULT).await;
    case.execute("third", "say hello").await;
    case.ends("third", Phase::Succeeded, Reason::Completed).await;
    let again = in_phase(&case, "web-1", MachinePhase::Online).await.host_keys;
    assert_ne!(again[0].fingerprint, frozen[0].fingerprint);
}

#[tokio::test]
async fn what_waits_for_a_suspended_machine_starts_in_its_order_when_it_is_back() {
    let mut case = Case::new().await;
    case.apply_machine("web-1", json!({"suspend": true, "maxConcurrent": 1, "probe": looked_at()})).await;
    in_phase(&case, "web-1", MachinePhase::Suspended).await;
    apply_words(&case).await;
    for index in 0..4 {
        case.execute(&format!("x{index}"), &format!("word word{index}")).await;
        // Creation times are whole seconds, so each execution needs its own second.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    case.execute_with("short", json!({"command": "say hello", "startingDeadlineSeconds": 3})).await;
    case.execute_with("now", json!({"command": "say hello", "startingDeadlineSeconds": 0})).await;
    case.ends("now", Phase::Expired, Reason::MachineSuspended).await;
    case.ends("short", Phase::Expired, Reason::MachineSuspended).await;
    for index in 0..4 {
        let status = case.in_phase(&format!("x{index}"), Phase::Queued).await;
        assert_eq!(status.reason, Some(Reason::MachineSuspended));
    }
    assert_eq!(case.sshd_logged("Connection from"), 0, "nothing connects");
    // The executions and their order survive a restart.
    case.kill_writ();
    case.start_writ();
    case.writ_serves().await;
    case.apply_machine("web-1", json!({"suspend": false, "maxConcurrent": 1})).await;
    for index in 0..4 {
        case.ends(&format!("x{index}"), Phase::Succeeded, Reason::Completed).await;
    }
    let said: Vec<String> = (0..4).map(|index| format!("word{index}")).collect();
    let ledger = case.ledger();
    let order: Vec<&String> =
        ledger.iter().filter_map(|line| said.iter().find(|word| line.contains(word.as_str()))).collect();
    assert_eq!(order, said.iter().collect::<Vec<_>>(), "{ledger:?}");
}

#[tokio::test]
async fn a_secret_that_rotates_is_used_at_once_and_what_runs_goes_on() {
    let case = Case::durable().await;
    execute_a_while(&case, "long").await;
    let other = another(&case).await;
    // A key that the machine does not accept.
    case.apply_secret("web-ssh", &other.private_key().expect("a key")).await;
    case.execute_with("refused", json!({"command": "say hello"})).await;
    case.ends("refused", Phase::LaunchFailed, Reason::AuthenticationRefused).await;
    case.apply_secret("web-ssh", &case.sshd.private_key().expect("a key")).await;
    case.ends("long", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn a_secret_is_used_only_where_its_annotations_say() {
    let case = Case::new().await;
    let secret = |annotations: Value| {
        json!({
            "type": "kubernetes.io/ssh-auth",
            "metadata": {"labels": {"writ.dev/credentials": "true"}, "annotations": annotations},
            "stringData": {"ssh-privatekey": case.sshd.private_key().expect("a key")},
        })
    };
    for (name, annotations, field) in [
        ("addresses", json!({"writ.dev/addresses": "10.0.0.*, *.example.com"}), "spec.address 127.0.0.1"),
        ("users", json!({"writ.dev/users": "root,deploy"}), "spec.user"),
        ("nothing", json!({"writ.dev/users": ""}), "spec.user"),
    ] {
        case.apply("v1", "Secret", name, secret(annotations)).await;
        case.apply_machine("web-1", json!({"credentialsRef": {"name": name}})).await;
        case.execute(name, "say hello").await;
        let status = case.ends(name, Phase::LaunchFailed, Reason::CredentialsInvalid).await;
        assert!(status.message.unwrap_or_default().contains(field), "{name}");
    }
    assert_eq!(case.sshd_logged("Connection from"), 0, "nothing connects");
    let fits = json!({"writ.dev/addresses": "127.*", "writ.dev/users": format!("root,{}", case.sshd.user())});
    case.apply("v1", "Secret", "fits", secret(fits)).await;
    case.apply_machine("web-1", json!({"credentialsRef": {"name": "fits"}})).await;
    case.execute("fits", "say hello").await;
    case.ends("fits", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn addresses_that_may_not_be_connected_to_are_not() {
    let case = Case::with(world(), SshdOptions::default(), &["--deny-cidr", "127.0.0.1"]).await;
    case.apply_machine("web-1", json!({"probe": looked_at()})).await;
    case.execute("x", "say hello").await;
    let status = case.ends("x", Phase::LaunchFailed, Reason::AddressRefused).await;
    let message = status.message.unwrap_or_default();
    assert!(message.contains("127.0.0.1") && message.contains("--deny-cidr"), "{message}");
    in_phase(&case, "web-1", MachinePhase::Misconfigured).await;
    assert_eq!(case.sshd_logged("Connection from"), 0, "nothing connects");
    // The name resolves to the same address, which Writ refuses too.
    case.apply_machine("web-1", json!({"address": "localhost"})).await;
    case.execute("y", "say hello").await;
    case.ends("y", Phase::LaunchFailed, Reason::AddressRefused).await;
    assert_eq!(case.sshd_logged("Connection from"), 0, "nothing connects");
}

#[tokio::test]
async fn machines_are_reached_through_others_that_let_it_happen() {
    let case = Case::new().await;
    let inner = another(&case).await;
    let behind = |jumps: &[&str]| {
        let jumps: Vec<Value> = jumps.iter().map(|name| json!({"name": name})).collect();
        json!({
            "port": inner.port(), "hostKeys": [inner.host_key().expect("a key")],
            "credentialsRef": {"name": "other-ssh"}, "jumpHosts": jumps, "execution": {"mode": "Durable"},
        })
    };
    let on_inner = || json!({"command": "say hello", "machineRef": {"name": "inner"}});
    case.apply_machine("inner", behind(&["web-1"])).await;
    case.execute_with("closed", on_inner()).await;
    let status = case.ends("closed", Phase::LaunchFailed, Reason::MachineInvalid).await;
    assert!(status.message.unwrap_or_default().contains("allowJump"));
    case.apply_machine("web-1", json!({"allowJump": true})).await;
    case.execute_with("open", on_inner()).await;
    let status = case.ends("open", Phase::Succeeded, Reason::Completed).await;
    let address = status.machine.expect("a record").address;
    assert!(address.starts_with(&format!("127.0.0.1:{} via ", inner.port())), "{address}");
    // A chain of jump hosts must not contain a machine twice.
    case.apply_machine("web-1", json!({"allowJump": true, "jumpHosts": [{"name": "inner"}]})).await;
    case.execute_with("circle", on_inner()).await;
    let status = case.ends("circle", Phase::LaunchFailed, Reason::MachineInvalid).await;
    assert!(status.message.unwrap_or_default().contains("circle"));
    // An execution waits for a jump host that does not exist yet.
    case.apply_machine("inner", behind(&["web-1", "later"])).await;
    case.apply_machine("web-1", json!({"allowJump": true})).await;
    case.execute_with("later", on_inner()).await;
    let status = case.in_phase("later", Phase::Queued).await;
    assert!(status.message.unwrap_or_default().contains("the jump host later is no Machine"));
    case.apply_machine("later", json!({"allowJump": true})).await;
    case.ends("later", Phase::Succeeded, Reason::Completed).await;
    // Writ logs in neither to a jump host with another key nor to the machines behind it.
    // This pause lets Writ send its acknowledgements first, because they may need a login.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, before_inner) = (attempts(&case.sshd), attempts(&inner));
    let wrong = json!({"allowJump": true, "hostKeys": [inner.host_key().expect("a key")]});
    case.apply_machine("web-1", wrong).await;
    case.execute_with("wrong", on_inner()).await;
    let status = case.ends("wrong", Phase::LaunchFailed, Reason::HostKeyMismatch).await;
    assert!(status.message.unwrap_or_default().starts_with("jump host web-1: host key changed"));
    assert_eq!((attempts(&case.sshd), attempts(&inner)), (before, before_inner));
}

#[tokio::test]
async fn a_machine_that_is_deleted_while_executions_wait_rejects_them_and_what_runs_is_recorded() {
    let case = Case::durable().await;
    case.apply_machine("web-1", json!({"execution": {"mode": "Durable"}, "maxConcurrent": 1})).await;
    execute_a_while(&case, "runs").await;
    case.execute("waits", "say hello").await;
    case.in_phase("waits", Phase::Queued).await;
    machines(&case).delete("web-1", &DeleteParams::default()).await.expect("deleted");
    case.ends("waits", Phase::Rejected, Reason::MachineNotFound).await;
    case.ends("runs", Phase::Succeeded, Reason::Completed).await;
}

#[tokio::test]
async fn two_machines_of_one_address_run_each_what_is_theirs_once() {
    let case = Case::durable().await;
    case.apply_machine("twin", json!({"execution": {"mode": "Durable"}})).await;
    apply_words(&case).await;
    for index in 0..6 {
        let machine = if index % 2 == 0 { "web-1" } else { "twin" };
        case.execute_with(
            &format!("x{index}"),
            json!({"command": format!("word twin{index}"), "machineRef": {"name": machine}}),
        )
        .await;
    }
    for index in 0..6 {
        case.ends(&format!("x{index}"), Phase::Succeeded, Reason::Completed).await;
    }
    for index in 0..6 {
        let word = format!("twin{index}");
        assert_eq!(case.ledger().iter().filter(|line| line.contains(&word)).count(), 1);
    }
}

#[tokio::test]
async fn a_field_of_a_later_version_keeps_a_machine_from_being_connected_to() {
    let case = Case::new().await;
    case.apply_machine("web-1", json!({"revokedCertificates": ["x"], "probe": looked_at()})).await;
    case.execute("x", "say hello").await;
    let status = case.ends("x", Phase::Rejected, Reason::MachineInvalid).await;
    assert!(status.message.unwrap_or_default().contains("spec.revokedCertificates"));
    in_phase(&case, "web-1", MachinePhase::Misconfigured).await;
    assert_eq!(case.sshd_logged("Connection from"), 0, "nothing connects");
}
