//! Facts that changed after a connection was opened, and `writ machine check` for a machine behind a jump host.

use std::process::Command;

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use writ::api::{Machine, Phase, Reason};

use crate::case::Case;
use crate::lab::{LOOPBACK, Sshd, SshdOptions};
use crate::left_behind::claim_as_dead;
use crate::world::world;

/// Starts a machine `inner` behind the jump host `web-1`.
async fn put_behind(case: &Case, mode: &str) -> Sshd {
    let inner = Sshd::start(&world().reaper, &SshdOptions::default()).expect("another sshd");
    case.apply_secret("other-ssh", &inner.private_key().expect("a key")).await;
    case.apply_machine("web-1", json!({"allowJump": true})).await;
    let behind = json!({
        "port": inner.port(), "hostKeys": [inner.host_key().expect("a key")], "credentialsRef": {"name": "other-ssh"},
        "jumpHosts": [{"name": "web-1"}], "execution": {"mode": mode},
        "probe": {"timeoutSeconds": 3, "intervalSeconds": 0},
    });
    case.apply_machine("inner", behind).await;
    inner
}

fn on_inner() -> Value {
    json!({"command": "say hello", "machineRef": {"name": "inner"}})
}

/// The connection to the jump host must stay open while Writ checks the machine behind it.
#[tokio::test]
async fn a_machine_behind_a_jump_host_can_be_checked() {
    let case = Case::durable().await;
    let _inner = put_behind(&case, "Durable").await;
    case.execute_with("x", on_inner()).await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
    command.args(["machine", "check", "inner", "--namespace", &case.namespace]).args(LOOPBACK);
    let output = command.arg("--kubeconfig").arg(&case.kubeconfig).output().expect("writ runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Nothing reports that the connection to the jump host is dead. Writ must neither wait for it nor use it forever.
#[tokio::test]
async fn a_jump_host_that_fell_silent_is_connected_to_anew() {
    let case = Case::durable().await;
    let _inner = put_behind(&case, "Direct").await;
    case.execute_with("first", on_inner()).await;
    case.ends("first", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.sshd_logged("Accepted publickey"), 1);
    case.sshd.freeze();
    case.execute_with("second", on_inner()).await;
    case.until("second", "waiting for the machine", |status| status.reason == Some(Reason::MachineOffline)).await;
    case.sshd.thaw();
    case.ends("second", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.sshd_logged("Accepted publickey"), 2, "by another connection");
}

/// The stored host key decides, even if a connection that was verified by another key is open.
#[tokio::test]
async fn a_key_that_is_frozen_no_more_gets_no_command() {
    let case = Case::durable().await;
    let first_use = json!({"hostKeys": [], "hostKeyPolicy": "TrustOnFirstUse", "execution": {"mode": "Durable"}});
    case.apply_machine("web-1", first_use).await;
    case.execute("first", "say hello").await;
    case.ends("first", Phase::Succeeded, Reason::Completed).await;
    let machines: Api<Machine> = Api::namespaced(case.client.clone(), &case.namespace);
    let mut key = serde_json::to_value(machines.get("web-1").await.expect("it").status.expect("a status").host_keys)
        .expect("JSON")[0]
        .clone();
    assert_eq!(key["trust"], "FirstUse");
    // A user found out that the first key belonged to an attacker, and stores the correct key.
    key["fingerprint"] = json!("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let patch = Patch::Merge(json!({"status": {"hostKeys": [key]}}));
    machines.patch_status("web-1", &PatchParams::default(), &patch).await.expect("patched");
    case.execute("second", "say hello").await;
    let status = case.finished("second").await;
    assert_eq!((status.phase, status.reason), (Phase::LaunchFailed, Some(Reason::HostKeyMismatch)), "{status:?}");
}

/// The execution was claimed and never sent, and its holder died. The machine is suspended.
#[tokio::test]
async fn what_is_adopted_does_not_start_on_a_suspended_machine() {
    let mut case = Case::durable().await;
    case.apply_machine("web-1", json!({"execution": {"mode": "Durable"}})).await;
    case.execute_with("first", json!({"command": "sleep-long", "timeoutSeconds": 300})).await;
    let claimed = case.in_phase("first", Phase::Running).await;
    case.apply_machine("web-1", json!({"execution": {"mode": "Durable"}, "suspend": true})).await;
    case.execute("left", "say hello").await;
    let queued = case.in_phase("left", Phase::Queued).await;
    assert_eq!(queued.reason, Some(Reason::MachineSuspended));
    case.kill_writ();
    claim_as_dead(&case, "left", &claimed).await;
    case.start_writ();
    let status = case.ends("left", Phase::LaunchFailed, Reason::MachineSuspended).await;
    assert!(status.exit_code.is_none(), "it ran: {status:?}");
}
