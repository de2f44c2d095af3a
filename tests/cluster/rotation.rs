//! A key is rotated as docs/guides/machines.md describes. At every moment the machine accepts one of the keys.

use serde_json::json;
use writ::api::{MachinePhase, Phase, Reason};

use crate::case::Case;
use crate::keys::Keys;

/// Returns the commands of one step of the guide.
fn guide(step: usize) -> String {
    let guide =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/machines.md")).expect("the guide");
    let section =
        guide.split("\n## Rotate a key\n").nth(1).expect("a section").split("\n## ").next().expect("its text");
    let block = section.split("```console\n").nth(step).expect("a block").split("```").next().expect("its text");
    let commands = block.lines().map(str::trim).filter_map(|line| line.strip_prefix("$ ").or(line.strip_prefix("> ")));
    commands.collect::<Vec<_>>().join("\n")
}

fn in_shell(case: &Case, folder: &std::path::Path, commands: &str) {
    let kubectl = case.world.control_plane.kubectl(crate::lab::User::Admin);
    let words: Vec<String> = std::iter::once(kubectl.get_program())
        .chain(kubectl.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let script = format!("set -e\nkubectl() {{ {} -n '{}' \"$@\"; }}\n{commands}", words.join(" "), case.namespace);
    let output = std::process::Command::new("sh").arg("-c").arg(script).current_dir(folder).output().expect("a shell");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn says(case: &Case, what: &str, is: impl Fn(&writ::api::MachineStatus) -> bool) -> writ::api::MachineStatus {
    let machines: kube::Api<writ::api::Machine> = kube::Api::namespaced(case.client.clone(), &case.namespace);
    let started = std::time::Instant::now();
    loop {
        let status = machines.get("web-1").await.expect("a Machine").status.unwrap_or_default();
        if is(&status) {
            return status;
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "{what}: {status:?}\n{}", case.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_key_is_rotated_without_a_gap_and_the_machine_says_which_one_it_takes() {
    let case = Case::new().await;
    let keys = Keys::new();
    let folder = case.folder();
    // The test creates the guide's new key itself, so that the test knows the fingerprint.
    keys.make("new", "-t ed25519");
    std::fs::write(folder.join("writ-key"), case.sshd.private_key().expect("a key")).expect("a file");
    std::fs::write(folder.join("writ-key-new"), keys.private("new")).expect("a file");
    let add: String =
        guide(1).lines().filter(|line| !line.starts_with("ssh-keygen")).map(|line| format!("{line}\n")).collect();
    in_shell(&case, folder, &add);
    // The machine does not accept the new key yet.
    case.execute("during", "say hello").await;
    case.ends("during", Phase::Succeeded, Reason::Completed).await;
    let status =
        says(&case, "the old key", |status| status.login_key.as_ref().is_some_and(|key| !key.refused.is_empty())).await;
    let login = status.login_key.expect("a key");
    assert_eq!((login.entry.as_str(), login.refused), ("ssh-privatekey-2", vec![keys.fingerprint("new")]));
    assert_eq!(status.phase, Some(MachinePhase::Online));
    assert!(status.message.is_some_and(|message| message.contains("refused the keys before it")));
    let wide = case.world.kubectl_succeeds(&["get", "machines", "-n", &case.namespace, "-o", "wide"]);
    assert!(wide.contains("LOGIN-KEY") && wide.contains(&login.fingerprint), "{wide}");

    // The status reports the counts of running and queued commands a moment after they change.
    case.execute("runs", "sleep-long").await;
    says(&case, "one runs", |status| (status.running, status.queued) == (Some(1), Some(0))).await;
    case.change_spec("runs", json!({"cancelRequested": true})).await.expect("cancelled");
    says(&case, "none runs", |status| (status.running, status.queued) == (Some(0), Some(0))).await;

    case.sshd.authorize(&keys.line("new")).expect("another line");
    case.execute("both", "say hello").await;
    case.ends("both", Phase::Succeeded, Reason::Completed).await;
    let status =
        says(&case, "the new key", |status| status.login_key.as_ref().is_some_and(|key| key.refused.is_empty())).await;
    assert_eq!(status.login_key.map(|key| key.fingerprint), Some(keys.fingerprint("new")));
    in_shell(&case, folder, &guide(3));
    case.execute("after", "say hello").await;
    case.ends("after", Phase::Succeeded, Reason::Completed).await;
    case.execute("again", "say hello").await;
    case.ends("again", Phase::Succeeded, Reason::Completed).await;

    // If the machine refuses all keys, the message names every key that Writ tried.
    keys.make("other", "-t ed25519");
    keys.make("another", "-t ed25519");
    let text = |name: &str| String::from_utf8(keys.private(name)).expect("a key is text");
    let data = json!({"ssh-privatekey": text("other"), "ssh-privatekey-3": text("another")});
    let metadata = json!({"labels": {"writ.dev/credentials": "true"}});
    let secret = json!({"metadata": metadata, "type": "kubernetes.io/ssh-auth", "stringData": data});
    case.apply("v1", "Secret", "strange", secret).await;
    case.apply_machine("web-1", json!({"credentialsRef": {"name": "strange"}})).await;
    case.execute("refused", "say hello").await;
    let message =
        case.ends("refused", Phase::LaunchFailed, Reason::AuthenticationRefused).await.message.unwrap_or_default();
    assert!(
        message.contains(&keys.fingerprint("other")) && message.contains(&keys.fingerprint("another")),
        "{message}"
    );
}
