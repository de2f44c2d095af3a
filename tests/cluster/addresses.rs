//! Addresses of Machines: accepted forms, addresses that a Secret admits, and refused addresses.

use std::net::Ipv6Addr;
use std::process::Command;

use serde_json::{Value, json};
use writ::api::{Phase, Reason};
use writ::ssh::{AddressPolicy, Target};

use crate::case::Case;
use crate::keys::{DEADLINE, credentials, options_with, pinned, start};
use crate::lab::SshdOptions;
use crate::world::world;

#[tokio::test]
async fn an_address_may_have_whatever_form_ssh_takes() {
    let case = Case::new().await;
    let apply = async |address: &str| {
        let spec = json!({"address": address, "user": "deploy", "credentialsRef": {"name": "web-ssh"},
            "hostKeyPolicy": "TrustOnFirstUse", "probe": {"intervalSeconds": 0}});
        case.try_apply("writ.dev/v1alpha1", "Machine", "any", json!({"spec": spec})).await
    };
    for address in [
        "web-1",
        "web_1.example",
        "web-1.example.",
        "10.0.0.1",
        "2001:db8::1",
        "::1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "FE80::a:b%br-lan.100",
        "febf::1%7",
    ] {
        apply(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    }
    for address in [
        "",
        "web 1",
        "web-1%eth0",
        "10.0.0.1%eth0",
        "2001:db8::1%eth0",
        "fe80::1%",
        "fe80::1%a/b",
        "fe80::1%a b",
        "fe80::1%0123456789abcdef",
        "-web",
        "[::1]",
        "user@web",
        "web;id",
    ] {
        let error = apply(address).await.expect_err(address).to_string();
        assert!(error.contains("spec.address"), "{address}: {error}");
    }
}

#[tokio::test]
async fn a_pattern_of_numbers_is_held_against_what_a_name_resolves_to() {
    let case = Case::new().await;
    let secret = |patterns: &str| {
        json!({
            "type": "kubernetes.io/ssh-auth",
            "metadata": {"labels": {"writ.dev/credentials": "true"}, "annotations": {"writ.dev/addresses": patterns}},
            "stringData": {"ssh-privatekey": case.sshd.private_key().expect("a key")},
        })
    };
    let run = async |name: &str, patterns: &str, changes: Value| {
        case.apply("v1", "Secret", name, secret(patterns)).await;
        let mut spec = json!({"credentialsRef": {"name": name}, "address": "localhost"});
        changes.as_object().expect("an object").iter().for_each(|(field, value)| spec[field] = value.clone());
        case.apply_machine(name, spec).await;
        case.execute_with(name, json!({"command": "say hello", "machineRef": {"name": name}})).await;
    };
    run("other-net", "10.0.*", json!({})).await;
    run("other-range", "10.0.0.0/8, *.example.com", json!({})).await;
    run("labels", "*.localhost", json!({})).await;
    run("mistake", "127.0.0.1/8", json!({})).await;
    // The owner of a DNS name decides its addresses. So a numeric pattern must not match a name.
    run("number-name", "10.0.*", json!({"address": "10.0.evil.localhost"})).await;
    case.apply_machine("bastion", json!({"allowJump": true})).await;
    run("behind", "127.*", json!({"jumpHosts": [{"name": "bastion"}]})).await;
    for (name, word) in [
        ("other-net", "which resolves to"),
        ("other-range", "which resolves to"),
        ("labels", "does not list it"),
        ("mistake", "bits beyond its prefix"),
        ("behind", "list the name"),
    ] {
        let status = case.ends(name, Phase::LaunchFailed, Reason::CredentialsInvalid).await;
        let message = status.message.unwrap_or_default();
        assert!(message.contains(word), "{name}: {message}");
    }
    assert_eq!(case.sshd_logged("userauth-request"), 0, "nobody logs in");
    run("net", "127.*", json!({})).await;
    run("range", "127.0.0.0/8", json!({})).await;
    run("name", "LOCALHOST.", json!({})).await;
    run("behind-address", "127.*", json!({"jumpHosts": [{"name": "bastion"}], "address": "127.0.0.1"})).await;
    for name in ["net", "range", "name", "behind-address"] {
        case.ends(name, Phase::Succeeded, Reason::Completed).await;
    }
    assert!(case.executions().get("number-name").await.expect("it is there").claim().is_none());
}

#[tokio::test]
async fn a_range_of_the_cluster_is_not_connected_to() {
    // These tests allow all of 127.0.0.0/8. This flag takes precedence.
    let flags = ["--refuse-cidr", "127.0.0.2/31"];
    let case = Case::with(world(), SshdOptions::default(), &flags).await;
    case.apply_machine("web-1", json!({"address": "127.0.0.2"})).await;
    case.execute("x", "say hello").await;
    let message = case.ends("x", Phase::LaunchFailed, Reason::AddressRefused).await.message.unwrap_or_default();
    assert!(message.contains("--refuse-cidr"), "{message}");
    case.apply_machine("web-1", json!({"address": "127.0.0.1"})).await;
    case.execute("y", "say hello").await;
    case.ends("y", Phase::Succeeded, Reason::Completed).await;
}

/// A network interface with a link-local address. Dropping this value deletes the interface.
struct Zone(String);

impl Zone {
    /// Creates the interface. `None` if this host does not allow that.
    fn make() -> Option<Self> {
        let name = format!("wv{}", std::process::id() % 1_000_000);
        let ip = |words: &[&str]| Command::new("ip").args(words).output().is_ok_and(|output| output.status.success());
        let peer = format!("{name}p");
        if !ip(&["link", "add", &name, "type", "veth", "peer", "name", &peer]) {
            return None;
        }
        let zone = Self(name);
        let up = ip(&["link", "set", &zone.0, "up"])
            && ip(&["link", "set", &peer, "up"])
            && ip(&["-6", "addr", "add", "fe80::77/64", "dev", &zone.0, "nodad"]);
        up.then_some(zone)
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).output();
    }
}

#[tokio::test]
async fn a_link_local_address_is_reached_in_its_zone() {
    let Some(zone) = Zone::make() else {
        eprintln!("no network interface can be made here (root, CAP_NET_ADMIN and `ip`), so it is not tried");
        return;
    };
    let sshd = start(&SshdOptions { listen_address: Some(Ipv6Addr::UNSPECIFIED.into()), ..options_with(&[], &[]) });
    let address = format!("fe80::77%{}", zone.0);
    let connect = async |address: &str, allowed: &str| {
        let network = AddressPolicy::new(vec![allowed.parse().expect("a range")], Vec::new(), Vec::new());
        let target = Target { address: address.to_owned(), ..pinned(&sshd) };
        writ::ssh::connect(&target, &credentials(&sshd), &network, DEADLINE).await
    };
    let there = connect(&address, "fe80::/10").await.expect("a connection");
    assert_eq!(there.peer(), format!("[{address}]:{}", sshd.port()));
    for (address, allowed, word) in [
        (address.as_str(), "::/0", "--allow-cidr"),
        ("fe80::77", "fe80::/10", "fe80::1%INTERFACE"),
        ("fe80::77%no-such-zone", "fe80::/10", "no-such-zone"),
    ] {
        let Err(refusal) = connect(address, allowed).await else { panic!("{address} was connected to") };
        assert!(refusal.to_string().contains(word), "{refusal}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_recorded_is_refused_once_and_says_the_bound() {
    let case = Case::new().await;
    // A short path that is a link to a long path.
    let home = case.sshd.home();
    let deep = (0..6).fold(home.join("deep"), |path, _| path.join("d".repeat(200)));
    std::fs::create_dir_all(&deep).expect("folders");
    std::fs::set_permissions(&deep, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("a mode");
    let short = tempfile::Builder::new().prefix("writ").tempdir_in("/var/tmp").expect("a folder");
    std::fs::set_permissions(short.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    std::os::unix::fs::symlink(&deep, short.path().join("s")).expect("a link");
    let directory = short.path().join("s/writ").display().to_string();
    case.apply_machine("web-1", json!({"execution": {"mode": "Durable", "directory": directory}})).await;
    case.execute("x", "say hello").await;
    let message = case.ends("x", Phase::LaunchFailed, Reason::LauncherUnsupported).await.message.unwrap_or_default();
    assert!(message.contains("1024") && message.contains("spec.execution.directory"), "{message}");
}
