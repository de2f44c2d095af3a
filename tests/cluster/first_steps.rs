//! The first steps of a new user: docs/guides/first-command.md. Also the manifests for limits and a freeze from
//! docs/guides/upgrade.md.

use std::path::Path;
use std::process::Output;

use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::lab::SshdOptions;
use crate::world::world;

fn guide() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/first-command.md")).expect("the guide")
}

/// Returns the fenced blocks of a language, in order.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

fn kubectl_in_shell(case: &Case, commands: &str) -> Output {
    let kubectl = case.world.control_plane.kubectl(crate::lab::User::Admin);
    let words: Vec<String> = std::iter::once(kubectl.get_program())
        .chain(kubectl.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    // Runs the commands as a person types them, in the namespace of this case and the directory with the manifests.
    let script = format!(
        "set -e\ncd '{}'\nkubectl() {{ {} \"$@\"; }}\n{}",
        case.sshd.home().display(),
        words.join(" "),
        commands.replace("-n ops", &format!("-n {}", case.namespace))
    );
    std::process::Command::new("sh").arg("-c").arg(script).output().expect("a shell")
}

#[tokio::test]
async fn the_guide_to_the_first_command_works_as_it_stands() {
    let case = Case::with(world(), SshdOptions::default(), &[]).await;
    let manifests = blocks(&guide(), "yaml");
    let [machine, whitelist, execution] = manifests.as_slice() else { panic!("{manifests:?}") };
    let host_key = case.sshd.host_key().expect("a host key");
    let machine: String = machine
        .lines()
        .map(|line| match line.trim_start() {
            "address: web-1.example" => format!("  address: 127.0.0.1\n  port: {}\n", case.sshd.port()),
            "user: deploy" => format!("  user: {}\n", case.sshd.user()),
            line_of_key if line_of_key.starts_with("- ssh-ed25519") => format!("    - {host_key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    // The Machine of the guide replaces the Machine of the case, which has the same name.
    case.world.kubectl_succeeds(&["delete", "machine", "web-1", "-n", &case.namespace]);
    let mut printed = String::new();
    for (file, text) in [("machine.yaml", &machine), ("whitelist.yaml", whitelist), ("execution.yaml", execution)] {
        std::fs::write(case.sshd.home().join(file), text).expect("a manifest");
        let console = blocks(&guide(), "console");
        let block = console.iter().find(|block| block.contains(&format!("apply -f {file}"))).expect("how to apply it");
        let output = kubectl_in_shell(&case, block);
        printed.push_str(&String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    }
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    assert!(printed.contains("condition met") && printed.contains(kernel.trim()), "{printed}");
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    path.to_str().expect("UTF-8").to_owned()
}

#[tokio::test]
async fn while_a_namespace_is_frozen_nothing_starts_and_what_waits_is_rejected() {
    let case = Case::new().await;
    case.execute("running", "sleep-eight").await;
    case.in_phase("running", Phase::Running).await;
    case.apply_machine("away", json!({"port": 1})).await;
    case.execute_with("waits", json!({"machineRef": {"name": "away"}, "command": "say hello"})).await;
    case.in_phase("waits", Phase::Queued).await;
    case.world.kubectl_succeeds(&["apply", "-n", &case.namespace, "-f", &example("freeze.yaml")]);
    case.execute("new", "say hello").await;
    for name in ["new", "waits"] {
        let status = case.ends(name, Phase::Rejected, Reason::Denied).await;
        assert!(status.message.unwrap_or_default().contains("change-freeze"), "{name}");
    }
    case.ends("running", Phase::Succeeded, Reason::Completed).await;
    case.world.kubectl_succeeds(&["delete", "-n", &case.namespace, "-f", &example("freeze.yaml")]);
    case.execute("after", "say hello").await;
    case.ends("after", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(case.ledger().len(), 2);
}

#[tokio::test]
async fn one_process_serves_several_namespaces_and_no_others() {
    let (mut first, mut second, other) = (Case::new().await, Case::new().await, Case::new().await);
    let mut other = other;
    for case in [&mut first, &mut second, &mut other] {
        case.kill_writ();
    }
    first.add_flags(&["--namespace", &second.namespace]);
    first.start_writ();
    first.writ_serves().await;
    other.execute("x", "say hello").await;
    for case in [&first, &second] {
        case.execute("x", "say hello").await;
        case.ends("x", Phase::Succeeded, Reason::Completed).await;
    }
    // A namespace that does not exist delays no other namespace. Writ has no rights in it, as in a deleted namespace.
    // This also holds for a process that has just started.
    first.kill_writ();
    first.add_flags(&["--namespace", "there-is-no-such-namespace"]);
    first.start_writ();
    first.writ_serves().await;
    // The process still receives changes in one namespace after the other one was quiet.
    second.apply_machine("late", json!({})).await;
    second.execute_with("y", json!({"machineRef": {"name": "late"}, "command": "say hello"})).await;
    second.ends("y", Phase::Succeeded, Reason::Completed).await;
    assert_eq!(other.executions().get("x").await.expect("it is there").phase(), Phase::Pending);
    assert_eq!((first.ledger().len(), second.ledger().len(), other.ledger().len()), (1, 2, 0));
}
