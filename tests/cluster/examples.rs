//! The manifests of `examples/` have the results that their comments describe. `make demo` shows the same to a person.

use std::path::PathBuf;

use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::Case;

#[tokio::test]
async fn the_examples_come_out_as_they_say() {
    let case = Case::new().await;
    // The rules of this Whitelist would match some requests of the examples.
    case.whitelists().delete("web", &kube::api::DeleteParams::default()).await.expect("deleted");
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJNsmMGyuGjmRPvGJyvHyfZ6oqbsZSEqf0lZTXGWv7z";
    case.apply_machine("web-2", json!({"hostKeys": [other]})).await;
    for name in ["whitelist", "say-hello", "exit-three", "not-listed", "wrong-host-key"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.yaml"));
        let path = path.to_str().expect("a UTF-8 path");
        // Applies each manifest twice, like a GitOps pipeline. The second time changes nothing.
        for _ in 0..2 {
            case.world.kubectl_succeeds(&["apply", "-n", &case.namespace, "-f", path]);
        }
    }
    let hello = case.ends("say-hello", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(hello.stdout.as_deref(), Some("Hello from a command that a rule allows.\n"));
    let three = case.ends("exit-three", Phase::Failed, Reason::NonZeroExitCode).await;
    assert_eq!((three.exit_code, three.stderr.as_deref()), (Some(3), Some("no space left on the disk\n")));
    case.ends("not-listed", Phase::Rejected, Reason::NoMatchingRule).await;
    case.ends("wrong-host-key", Phase::LaunchFailed, Reason::HostKeyMismatch).await;
    assert_eq!(case.ledger().len(), 2, "{:?}", case.ledger());
}

#[tokio::test]
async fn the_machine_template_is_accepted_once_it_is_filled_in() {
    let case = Case::new().await;
    let template = include_str!("../../examples/machine.yaml");
    let key = case.sshd.private_key().expect("a key").replace('\n', "\n    ");
    let filled = template
        .replace("<host name or IP address>", "web-1.example.org")
        .replace("<login user>", "writ")
        .replace("ssh-ed25519 <base64>", &case.sshd.host_key().expect("a host key"))
        .replace("<the content of web-1-key>", key.trim_end());
    let path = case.sshd.home().join("machine.yaml");
    std::fs::write(&path, filled).expect("a manifest");
    let path = path.to_str().expect("a UTF-8 path");
    case.world.kubectl_succeeds(&["apply", "--dry-run=server", "-n", &case.namespace, "-f", path]);
}
