//! One namespace cannot delay another one.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::keys::Keys;

/// Number of executions in the greedy namespace.
const ATTEMPTS: usize = 20;
/// Options of ssh-keygen with the maximum number of rounds that Writ accepts.
const MOST_ROUNDS: &str = "-t ed25519 -a 256";

async fn apply_encrypted(case: &Case, name: &str, key: &str) {
    let metadata = json!({"labels": {"writ.dev/credentials": "true"}});
    let data = json!({"ssh-privatekey": key, "passphrase": "correct horse"});
    let secret = json!({"metadata": metadata, "type": "kubernetes.io/ssh-auth", "stringData": data});
    case.apply("v1", "Secret", name, secret).await;
}

/// Returns the machine's key, encrypted with the default number of rounds of ssh-keygen.
fn encrypted(case: &Case, folder: &Path) -> String {
    let file = folder.join("encrypted");
    std::fs::write(&file, case.sshd.private_key().expect("a key")).expect("a copy");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    let mut keygen = Command::new("ssh-keygen");
    let output = keygen.args(["-q", "-p", "-a", "16", "-P", "", "-N", "correct horse", "-f"]).arg(&file).output();
    assert!(output.expect("ssh-keygen runs").status.success());
    std::fs::read_to_string(file).expect("a key")
}

#[tokio::test]
async fn a_namespace_with_many_costly_keys_keeps_nobody_else_from_logging_in() {
    let (mut case, mut greedy) = (Case::new().await, Case::new().await);
    greedy.kill_writ();
    case.kill_writ();
    let keys = Keys::new();
    keys.make_encrypted("costly", MOST_ROUNDS, "correct horse");
    let costly = String::from_utf8(keys.private("costly")).expect("a key is text");
    // Each key is in its own Secret, so that Writ must decrypt each one.
    for index in 0..ATTEMPTS {
        let name = format!("costly-{index}");
        apply_encrypted(&greedy, &name, &costly).await;
        greedy.apply_machine(&name, json!({"credentialsRef": {"name": name}})).await;
        greedy.execute_with(&name, json!({"command": "say hello", "machineRef": {"name": name}})).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    apply_encrypted(&case, "web-ssh", &encrypted(&case, folder.path())).await;
    let served = greedy.namespace.clone();
    case.add_flags(&["--namespace", &served]);
    case.start_writ();
    case.writ_serves().await;
    // Waits until all executions of the greedy namespace need a decrypted key.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    for name in ["first", "second", "third"] {
        case.execute(name, "say hello").await;
        case.ends(name, Phase::Succeeded, Reason::Completed).await;
    }
    let mut opened = 0;
    for index in 0..ATTEMPTS {
        let execution = greedy.executions().get(&format!("costly-{index}")).await.expect("an execution");
        opened += usize::from(execution.status.is_some_and(|status| status.phase.is_finished()));
    }
    assert!(opened < ATTEMPTS, "it was waited for all of theirs");
}

#[tokio::test]
async fn a_key_that_takes_too_long_to_open_says_the_bound_and_the_remedy() {
    let case = Case::new().await;
    let keys = Keys::new();
    keys.make_encrypted("slow", "-t ed25519 -a 257", "correct horse");
    apply_encrypted(&case, "slow", &String::from_utf8(keys.private("slow")).expect("a key is text")).await;
    case.apply_machine("web-1", json!({"credentialsRef": {"name": "slow"}})).await;
    case.execute("x", "say hello").await;
    let message = case.ends("x", Phase::LaunchFailed, Reason::CredentialsInvalid).await.message.unwrap_or_default();
    for word in ["257", "256", "ssh-keygen -p -a 16", "Secret slow"] {
        assert!(message.contains(word), "{word}: {message}");
    }
}
