//! Private keys and passphrases exist only in the Secret and, for a moment, in the memory of `writ serve`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::lab::{ControlPlaneOptions, SshdOptions};
use crate::world::World;

const PASSPHRASE: &str = "canary-passphrase-4fe19414";
const GARBAGE: &str = "canary-garbage-4fe19414-this-is-no-key";

/// Starts a control plane that encrypts Secrets before etcd stores them. If etcd's files contain the text of a Secret,
/// the text comes from another object.
fn world_with_encrypted_secrets() -> Arc<World> {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let file = folder.join("encryption.json");
    let key = STANDARD.encode([7_u8; 32]);
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"aescbc": {"keys": [{"name": "key", "secret": key}]}}]}],
    });
    std::fs::write(&file, config.to_string()).expect("a configuration");
    let world = World::start_with(ControlPlaneOptions {
        unsafe_no_fsync: true,
        api_server_flags: vec![format!("--encryption-provider-config={}", file.display())],
    });
    std::fs::remove_dir_all(folder).expect("it is read at the start");
    world
}

/// Returns the machine's key, encrypted with the passphrase.
fn encrypted_key(case: &Case) -> String {
    let file = case.sshd.home().join("encrypted");
    std::fs::write(&file, case.sshd.private_key().expect("a key")).expect("a copy");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).expect("a mode");
    let mut keygen = Command::new("ssh-keygen");
    let keygen = keygen.args(["-q", "-p", "-P", "", "-N", PASSPHRASE, "-f"]).arg(&file);
    assert!(keygen.output().expect("ssh-keygen").status.success());
    let text = std::fs::read_to_string(&file).expect("a key");
    std::fs::remove_file(file).expect("a file");
    text
}

/// Returns the forms in which a secret text could occur: plain, in base64 as in a Secret, in hexadecimal, and as Rust
/// and Go print bytes.
fn shapes(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let listed = |separator: &str| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(separator);
    // The last 4 characters depend on the bytes that follow the text.
    let encoded = STANDARD.encode(text);
    let encoded = encoded[..encoded.len().saturating_sub(4)].to_owned();
    let hexadecimal = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    vec![text.to_owned(), encoded, hexadecimal, listed(", "), listed(" ")]
}

/// Returns the lines of a key that identify it. The first two lines are the same for every key of a type.
fn lines_of(key: &str) -> Vec<&str> {
    let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).collect();
    lines.into_iter().skip(2).filter(|line| line.len() >= 20).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// Returns the content of a file. ASCII text stays unchanged, and the test searches only for ASCII.
fn text_of(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).expect("a file of etcd")).into_owned()
}

async fn apply_secret(case: &Case, name: &str, data: serde_json::Value) {
    let secret = json!({
        "type": "kubernetes.io/ssh-auth",
        "metadata": {"labels": {"writ.dev/credentials": "true"}},
        "stringData": data,
    });
    case.apply("v1", "Secret", name, secret).await;
    case.apply_machine("web-1", json!({"execution": {"mode": "Durable"}, "credentialsRef": {"name": name}})).await;
}

#[tokio::test]
async fn no_part_of_a_secret_is_in_a_log_an_event_a_status_or_elsewhere_in_etcd() {
    let world = world_with_encrypted_secrets();
    let mut case = Case::with(world.clone(), SshdOptions::default(), &[]).await;
    case.kill_writ();
    case.log_level = "trace".to_owned();
    case.start_writ();
    let encrypted = encrypted_key(&case);
    let plain = case.sshd.private_key().expect("a key");

    apply_secret(&case, "good", json!({"ssh-privatekey": encrypted, "passphrase": PASSPHRASE})).await;
    case.execute("good", "say hello").await;
    case.ends("good", Phase::Succeeded, Reason::Completed).await;
    for (name, data) in [
        ("locked", json!({"ssh-privatekey": encrypted})),
        ("mistyped", json!({"ssh-privatekey": encrypted, "passphrase": format!("{PASSPHRASE}x")})),
        ("garbage", json!({"ssh-privatekey": GARBAGE})),
        ("half", json!({"ssh-privatekey": &plain[..plain.len() / 2]})),
        ("certificate", json!({"ssh-privatekey": plain, "ssh-certificate": GARBAGE})),
    ] {
        apply_secret(&case, name, data).await;
        case.execute(name, "say hello").await;
        case.ends(name, Phase::LaunchFailed, Reason::CredentialsInvalid).await;
    }
    apply_secret(&case, "plain", json!({"ssh-privatekey": plain})).await;
    case.execute("plain", "say hello").await;
    case.ends("plain", Phase::Succeeded, Reason::Completed).await;

    let mut canaries: Vec<String> = [PASSPHRASE, GARBAGE].iter().flat_map(|text| shapes(text)).collect();
    canaries.extend([&encrypted, &plain].iter().flat_map(|key| lines_of(key)).flat_map(shapes));
    let log = case.whole_log();
    assert!(log.contains("TRACE"), "the log is as loud as it can be");
    let objects = world.kubectl_succeeds(&[
        "get",
        "machines,commandexecutions,whitelists,leases,events,configmaps",
        "-A",
        "-o",
        "yaml",
    ]);
    assert!(objects.contains("CredentialsInvalid"));
    let mut places = vec![("the log".to_owned(), log), ("objects and events".to_owned(), objects)];
    let etcd = files_below(&world.control_plane.folder().join("etcd"));
    places.extend(etcd.iter().map(|file| (file.display().to_string(), text_of(file))));
    assert!(places.iter().any(|(_, text)| text.contains("CredentialsInvalid") && text.contains("/registry/")));
    assert!(places.iter().any(|(_, text)| text.contains("k8s:enc:aescbc")), "etcd has Secrets encrypted");
    for (place, text) in &places {
        for canary in &canaries {
            assert!(!text.contains(canary), "{canary} is in {place}");
        }
    }
}
