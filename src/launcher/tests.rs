use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::*;
use crate::api::execution_status::{ObjectRecord, OutputBounds};

fn decision(argv: &[&str]) -> DecisionRecord {
    DecisionRecord {
        whitelist: ObjectRecord { name: "web".to_owned(), uid: String::new(), generation: 1 },
        rule: "r".to_owned(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        action_type: "custom".to_owned(),
        run_as: None,
        working_directory: None,
        environment: BTreeMap::new(),
        timeout_seconds: 86_400,
        interactive: false,
        output: OutputBounds::default(),
        redact: Vec::new(),
        digest: String::new(),
        decided_time: MicroTime(Timestamp::UNIX_EPOCH),
    }
}

fn facts(reads_sh: bool) -> MachineFacts {
    MachineFacts {
        boot_id: "7a8a8b1f-5e0f-4b8e-8f0e-1a2b3c4d5e6f".to_owned(),
        uptime_centiseconds: 1,
        directory: "/var/lib/a-user-with-a-long-name/.local/state/writ".to_owned(),
        directory_id: "7a8a8b1f-5e0f-4b8e-8f0e-1a2b3c4d5e6f".to_owned(),
        reads_sh,
        ends_with_session: false,
    }
}

fn nonce() -> Nonce {
    Nonce::new("0123456789abcdef0123456789abcdef").unwrap()
}

fn uid() -> Uid {
    Uid::new("7a8a8b1f-5e0f-4b8e-8f0e-1a2b3c4d5e6f").unwrap()
}

fn launched(reads_sh: bool, decision: &DecisionRecord) -> ExecRequest {
    let facts = facts(reads_sh);
    let boot_id = &facts.boot_id;
    let launched = Launch { uid: &uid(), decision, boot_id, not_after_centiseconds: u64::MAX, grace_centiseconds: 500 };
    launch(&nonce(), &facts, &launched)
}

#[test]
fn every_request_fits_into_what_dropbear_takes() {
    for reads_sh in [true, false] {
        let facts = facts(reads_sh);
        let (nonce, uid) = (nonce(), uid());
        let many = vec![&uid; 1000];
        for request in [
            probe(&nonce, None),
            probe(&nonce, Some("/var/lib/writ/")),
            super::facts(&nonce),
            launched(reads_sh, &decision(&["/bin/systemctl", "restart", "nginx"])),
            launched(reads_sh, &decision(&["/bin/echo", &"x".repeat(100_000)])),
            attach(&nonce, &facts, &uid, Offsets { stdout: u64::MAX, stderr: u64::MAX }),
            poll(&nonce, &facts, &uid),
            stop(&nonce, &facts, &uid, u64::MAX),
            close(&nonce, &facts, &uid),
            acknowledge(&nonce, &facts, &many),
            reap(&nonce, &facts, 30),
            leftovers(&nonce, &facts, 100),
        ] {
            assert!(request.line.len() <= LONGEST_LINE, "{} bytes", request.line.len());
        }
    }
}

/// A launch that goes by standard input costs the machine a read for each byte.
#[test]
fn a_launch_of_a_usual_command_is_one_line() {
    let mut usual = decision(&["/usr/bin/systemctl", "restart", "nginx.service"]);
    usual.working_directory = Some("/srv/release".to_owned());
    usual.run_as = Some("deploy".to_owned());
    for reads_sh in [true, false] {
        let request = launched(reads_sh, &usual);
        println!("{} bytes", request.line.len());
        assert!(request.stdin.is_empty(), "no longer fits: {} bytes of arguments", request.stdin.len());
    }
}

#[test]
fn the_line_does_not_hold_the_mark_of_the_reply() {
    let line = launched(true, &decision(&["/bin/true"])).line;
    assert!(line.contains("WRIT:") && line.contains(&nonce().0) && !line.contains(&format!("WRIT:{}", nonce().0)));
}

#[test]
fn names_are_taken_only_in_their_form() {
    assert!(Nonce::new("0123456789abcdef0123456789abcdeF").is_none() && Nonce::new("0").is_none());
    for text in ["", "-a", "../x", "a/b", "a b", "a.j", "a\n", &"x".repeat(65)] {
        assert!(Uid::new(text).is_none(), "{text}");
    }
}

#[test]
fn a_word_with_a_byte_0_is_never_sent() {
    let request = launched(true, &decision(&["/bin/echo", "a\0b"]));
    assert!(!request.line.contains('\0') && !request.line.contains("/bin/echo") && request.stdin.is_empty());
}
