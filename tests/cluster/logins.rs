//! Logging in: every kind of key, certificates, addresses, and machines behind machines.

use writ::ssh::{ConnectError, Connection, Credentials, CredentialsError, Event, LoginRefusal, connect};

use crate::keys::{DEADLINE, Keys, attempts, everywhere, log_in, options_with, pinned, start};
use crate::lab::{Sshd, SshdOptions};

/// A server that lets in these keys.
fn letting_in(keys: &Keys, names: &[&str]) -> Sshd {
    let authorized_keys = names.iter().map(|name| keys.line(name)).collect();
    start(&SshdOptions { authorized_keys, ..options_with(&[], &[]) })
}

/// What a command prints there.
async fn says(connection: &Connection, command: &str) -> String {
    let mut session = connection.open(DEADLINE).await.expect("a session");
    session.start(command).await.expect("sent");
    let mut said = Vec::new();
    loop {
        match session.next().await {
            Event::Stdout(bytes) => said.extend_from_slice(&bytes),
            Event::Closed => return String::from_utf8(said).expect("text"),
            Event::Lost => panic!("the connection is lost"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn every_kind_of_key_logs_in() {
    let keys = Keys::new();
    let kinds = [
        ("ed25519", "-t ed25519"),
        ("p256", "-t ecdsa -b 256"),
        ("p384", "-t ecdsa -b 384"),
        ("p521", "-t ecdsa -b 521"),
        ("rsa2048", "-t rsa -b 2048"),
        ("rsa3072", "-t rsa -b 3072"),
        ("rsa-pkcs8", "-t rsa -b 2048 -m PKCS8"),
        ("p256-pkcs8", "-t ecdsa -b 256 -m PKCS8"),
        ("p256-sec1", "-t ecdsa -b 256 -m PEM"),
    ];
    kinds.iter().for_each(|(name, kind)| drop(keys.make(name, kind)));
    let sshd = letting_in(&keys, &kinds.map(|(name, _)| name));
    for (name, _) in kinds {
        let credentials = Credentials::parse(&keys.private(name), None, None).expect(name);
        assert_eq!(credentials.fingerprint(), keys.fingerprint(name), "{name}");
        let before = sshd.log().expect("a log").len();
        let connection = connect(&pinned(&sshd), &credentials, &everywhere(), DEADLINE).await.expect(name);
        assert_eq!(says(&connection, "echo in").await, "in\n", "{name}");
        assert!(!connection.login_time().is_zero());
        let log = sshd.log().expect("a log")[before..].to_owned();
        assert!(!log.contains("Failed publickey"), "{name}: {log}");
        assert!(!name.starts_with("rsa") || log.contains("pkalg rsa-sha2-512"), "{name}: {log}");
    }
}
