//! Several hosts behind one DNS name. If another host does not know a command, this proves nothing about the host that
//! received it.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::json;
use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::durable::{ends_right, execute, work_of};
use crate::lab::{Sshd, SshdOptions};
use crate::work;

const NAME: &str = "web.test";

/// Two hosts behind one name, each with its own boot id. The first host is the case's own. `start` returns `None`
/// without root.
struct Two {
    case: Case,
    other: Sshd,
}

impl Two {
    async fn start(share_home: bool, flags: &[&str]) -> Option<Self> {
        if !crate::lab::openssh::is_root() {
            crate::lab::say::note("this needs root, for boot ids and names of the machines' own: passed over");
            return None;
        }
        let at = |last: u8| Some(IpAddr::from([127, 0, 0, last]));
        let options = SshdOptions { own_boot_id: true, listen_address: at(3), ..SshdOptions::default() };
        let mut case = Case::durable_with(options, &[&["--lease-seconds", "3"], flags].concat()).await;
        let options = SshdOptions {
            own_boot_id: true,
            listen_address: at(4),
            port: Some(case.sshd.port()),
            authorized_keys: vec![public_key(&case.sshd)],
            ..SshdOptions::default()
        };
        let other = Sshd::start(&case.world.reaper, &options).expect("another sshd");
        let hosts = case.folder().join("hosts");
        let lines = format!("127.0.0.1 localhost\n127.0.0.3 {NAME}\n127.0.0.4 {NAME}\n");
        std::fs::write(&hosts, lines).expect("a list of hosts");
        std::fs::set_permissions(&hosts, std::fs::Permissions::from_mode(0o644)).expect("a mode");
        case.hosts = Some(hosts);
        case.kill_writ();
        case.start_writ();
        let host_keys = [&case.sshd, &other].map(|sshd| sshd.host_key().expect("a host key"));
        let mut execution = json!({"mode": "Durable"});
        if share_home {
            execution["directory"] = json!(case.sshd.home().join("shared"));
        }
        let machine = json!({"address": NAME, "hostKeys": host_keys, "execution": execution, "maxConcurrent": 16});
        case.apply_machine("web-1", machine).await;
        Some(Self { case, other })
    }

    /// Starts a command on the first host, then stops that host. The command sleeps for `seconds_of_piece` after each
    /// of its 4 pieces of output.
    async fn run_and_lose(&self, seconds_of_piece: &str) -> work::Work {
        let work = work_of("x", 10_000, seconds_of_piece, 3);
        execute(&self.case, &work).await;
        let status = self.case.in_phase("x", Phase::Running).await;
        let address = status.machine.expect("a machine").address;
        assert_eq!(address, format!("127.0.0.3:{}", self.case.sshd.port()), "the first address of the name");
        self.case.sshd.stop();
        work
    }

    /// Waits until Writ has logged in to the other host.
    async fn other_was_asked(&self) {
        for _ in 0..300 {
            if self.other.log().unwrap_or_default().contains("Accepted publickey") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the other host was not asked:\n{}", self.case.log());
    }

    async fn comes_back(&self, work: &work::Work) {
        self.other_was_asked().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let phase = self.case.executions().get("x").await.expect("it is there").phase();
        assert_eq!(phase, Phase::Running, "{}", self.case.log());
        self.case.sshd.restart().expect("the first host starts again");
        let status = ends_right(&self.case, work).await;
        assert_eq!((status.phase, status.exit_code), (Phase::Failed, Some(3)));
        assert_eq!(work::started(&self.case.sshd).len(), 1);
    }
}

fn public_key(sshd: &Sshd) -> String {
    let key = russh::keys::decode_secret_key(&sshd.private_key().expect("a key"), None).expect("a key");
    key.public_key().to_openssh().expect("a public key")
}

#[tokio::test]
async fn a_command_is_looked_for_on_its_own_host_where_another_one_shares_the_home() {
    let Some(two) = Two::start(true, &[]).await else { return };
    let work = two.run_and_lose("3").await;
    two.comes_back(&work).await;
}

#[tokio::test]
async fn a_command_is_looked_for_on_its_own_host_where_another_one_has_another_home() {
    let Some(two) = Two::start(false, &[]).await else { return };
    let work = two.run_and_lose("3").await;
    two.comes_back(&work).await;
}

/// A record in a home that hosts share is valid, no matter which host reads it.
#[tokio::test]
async fn the_end_in_a_shared_home_is_read_by_way_of_another_host() {
    let Some(two) = Two::start(true, &[]).await else { return };
    let work = two.run_and_lose("1.5").await;
    ends_right(&two.case, &work).await;
}

#[tokio::test]
async fn a_host_that_does_not_come_back_is_not_called_booted_and_the_record_says_that_another_one_answers() {
    let Some(two) = Two::start(false, &["--unreachable-seconds", "1"]).await else { return };
    let spec = json!({"command": work_of("x", 10, "9", 0).command(), "timeoutSeconds": 3});
    two.case.execute_with("x", spec).await;
    two.case.in_phase("x", Phase::Running).await;
    two.case.sshd.stop();
    let status = two.case.ends("x", Phase::OutcomeUnknown, Reason::MachineChanged).await;
    let message = status.message.expect("a message");
    assert!(message.contains("another host answers under this name: 127.0.0.4:"), "{message}");
    assert_eq!((status.exit_code, status.signal), (None, None));
}
