//! A host that does not prove its identity gets no authentication attempt. The tests check this in the log of the real
//! sshd.

use std::path::Path;

use writ::ssh::{ConnectError, Connection, HostKeyConfig, HostKeyVerifier, Target, VerifiedBy, scan};

use crate::impostor::Impostor;
use crate::keys::{
    DEADLINE, Keys, attempts, everywhere, log_in, options_with, pinned, pinned_by, start, start_with, target,
};
use crate::lab::{Sshd, SshdOptions};

/// Host key fields of a Machine with the address Web-1.example.
#[derive(Default)]
struct Machine {
    pins: Vec<String>,
    authorities: Vec<String>,
    revoked: Vec<String>,
    seen: Vec<(String, String)>,
    first_use: bool,
}

impl Machine {
    fn target(&self, sshd: &Sshd) -> Target {
        let parts = HostKeyConfig {
            host_keys: &self.pins,
            authorities: &self.authorities,
            revoked: &self.revoked,
            first_use_keys: self.seen.clone(),
            first_use: self.first_use,
            name: "Web-1.example",
        };
        target(sshd, parts)
    }

    async fn log_in(&self, sshd: &Sshd) -> Result<Connection, ConnectError> {
        log_in(sshd, &self.target(sshd)).await
    }

    /// Checks that Writ trusts the host, by this proof and with this fingerprint.
    async fn trusts(&self, sshd: &Sshd, by: VerifiedBy, fingerprint: &str) {
        let connection = self.log_in(sshd).await.expect("a connection");
        assert_eq!((connection.host_key().by, connection.fingerprint()), (by, fingerprint));
        assert_eq!(attempts(sshd), 2, "a question, and an answer with a signature");
    }

    /// Checks that Writ refuses the host with these words, and sends it no authentication request.
    async fn refuses(&self, sshd: &Sshd, category: &str, words: &[&str]) {
        let Err(refusal) = self.log_in(sshd).await else { panic!("it was logged in to") };
        let text = refusal.to_string();
        assert_eq!(refusal.category(), category, "{text}");
        for word in words {
            assert!(text.contains(word), "{word} is not in: {text}");
        }
        nothing_was_said(sshd);
    }
}

#[track_caller]
fn nothing_was_said(sshd: &Sshd) {
    let log = sshd.log().expect("a log");
    assert!(log.contains("Connection from"), "nobody came: {log}");
    for word in ["userauth-request", "Accepted", "Failed"] {
        assert!(!log.contains(word), "{word} is in: {log}");
    }
}

/// Returns the keys of a host, of an authority, and of another host.
fn host_and_authorities(kind: &str) -> Keys {
    let keys = Keys::new();
    keys.make("host", kind);
    keys.make("authority", "-t ed25519");
    keys.make("other", "-t ed25519");
    keys
}

/// Returns a server whose certificate was made with these options of ssh-keygen, and a Machine that trusts the
/// authority.
fn certified(options: &str) -> (Keys, Sshd, Machine) {
    let keys = host_and_authorities("-t ed25519");
    let certificate = keys.sign("authority", "host", "c", options);
    let sshd = start_with(&[&keys.path("host")], &[&certificate]);
    let machine = Machine { authorities: vec![keys.line("authority")], ..Machine::default() };
    (keys, sshd, machine)
}

#[tokio::test]
async fn every_type_of_pinned_key_proves_the_host() {
    for kind in ["-t ed25519", "-t ecdsa -b 256", "-t ecdsa -b 384", "-t ecdsa -b 521", "-t rsa -b 2048"] {
        let keys = host_and_authorities(kind);
        let sshd = start_with(&[&keys.path("host")], &[]);
        let machine = Machine { pins: vec![keys.line("other"), keys.line("host")], ..Machine::default() };
        machine.trusts(&sshd, VerifiedBy::Pinned, &keys.fingerprint("host")).await;
    }
}

#[tokio::test]
async fn of_several_keys_of_a_host_one_that_is_pinned_is_asked_for() {
    let keys = host_and_authorities("-t rsa -b 2048");
    let sshd = start_with(&[&keys.path("other"), &keys.path("host")], &[]);
    let machine = Machine { pins: vec![keys.line("host")], ..Machine::default() };
    machine.trusts(&sshd, VerifiedBy::Pinned, &keys.fingerprint("host")).await;
    let log = sshd.log().expect("a log");
    assert!(log.contains("kex: host key algorithm: rsa-sha2-512"), "{log}");
}

#[tokio::test]
async fn a_host_that_shows_another_key_of_the_pinned_type_is_told_nothing() {
    let keys = host_and_authorities("-t ed25519");
    let sshd = start_with(&[&keys.path("other")], &[]);
    let machine = Machine { pins: vec![keys.line("host")], ..Machine::default() };
    let changed = format!("expected {}, got {}", keys.fingerprint("host"), keys.fingerprint("other"));
    machine.refuses(&sshd, "host_key_mismatch", &["host key changed", &changed, "spec.hostKeys"]).await;
}

#[tokio::test]
async fn a_host_that_has_only_keys_of_other_types_is_told_nothing() {
    let keys = host_and_authorities("-t ecdsa -b 256");
    let sshd = start_with(&[&keys.path("host")], &[]);
    let machine = Machine { pins: vec![keys.line("other")], ..Machine::default() };
    let expected = format!("expected {}", keys.fingerprint("other"));
    machine.refuses(&sshd, "host_key_mismatch", &[&expected, "it has ecdsa-sha2-nistp256"]).await;
}

/// The server in the middle answers at the address of the right host, and has all of its keys except the private ones.
#[tokio::test]
async fn a_man_in_the_middle_is_told_nothing() {
    let (right, between) = (start(&SshdOptions::default()), start(&SshdOptions::default()));
    let Err(refusal) = log_in(&right, &Target { port: between.port(), ..pinned(&right) }).await else {
        panic!("it was logged in to")
    };
    assert_eq!(refusal.category(), "host_key_mismatch");
    nothing_was_said(&between);
    assert_eq!(attempts(&right), 0);
}

#[tokio::test]
async fn a_revoked_key_is_told_nothing_though_it_is_pinned() {
    let keys = host_and_authorities("-t ed25519");
    let sshd = start_with(&[&keys.path("host")], &[]);
    for revoked in [keys.line("host"), keys.fingerprint("host")] {
        let machine = Machine { pins: vec![keys.line("host")], revoked: vec![revoked], ..Machine::default() };
        machine.refuses(&sshd, "host_key_revoked", &["spec.revokedHostKeys", &keys.fingerprint("host")]).await;
    }
}

#[tokio::test]
async fn a_certificate_of_an_authority_proves_the_host() {
    for kind in ["-t ed25519", "-t ecdsa -b 384", "-t rsa -b 2048"] {
        for authority in ["-t ed25519", "-t ecdsa -b 256", "-t rsa -b 2048"] {
            let keys = Keys::new();
            keys.make("host", kind);
            keys.make("authority", authority);
            let certificate = keys.sign("authority", "host", "c", "-h -n db-1,web-1.example -V -1h:+1h");
            let sshd = start_with(&[&keys.path("host")], &[&certificate]);
            let machine = Machine { authorities: vec![keys.line("authority")], ..Machine::default() };
            machine.trusts(&sshd, VerifiedBy::Authority, &keys.fingerprint("host")).await;
        }
    }
}

#[tokio::test]
async fn a_certificate_may_name_hosts_by_a_pattern_and_be_valid_forever() {
    let (keys, sshd, machine) = certified("-h -n web-?.*");
    machine.trusts(&sshd, VerifiedBy::Authority, &keys.fingerprint("host")).await;
}

#[tokio::test]
async fn a_certificate_that_does_not_count_is_told_nothing() {
    for (options, word) in [
        ("-h -n web-2.example,db-1", "valid for web-2.example, db-1, not for web-1.example"),
        ("-h", "names no host"),
        ("-h -n web-1.example -V 20200101:20210101", "expired at 20"),
        ("-h -n web-1.example -V +1h:+2h", "not valid before 20"),
        ("-h -n web-1.example -O critical:writ@example=1", "critical option writ@example"),
    ] {
        let (_keys, sshd, machine) = certified(options);
        machine.refuses(&sshd, "host_certificate_refused", &["host certificate refused", word]).await;
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_told_nothing() {
    let (keys, sshd, machine) = certified("-h -n web-1.example");
    let machine = Machine { authorities: vec![keys.line("other")], ..machine };
    let words = [&*keys.fingerprint("authority"), "spec.hostKeyAuthorities"];
    machine.refuses(&sshd, "host_certificate_refused", &words).await;
}

#[tokio::test]
async fn what_is_revoked_of_a_certificate_is_told_nothing() {
    let (keys, sshd, machine) = certified("-h -n web-1.example");
    let very = std::fs::read_to_string(keys.path("c-cert.pub")).expect("a certificate");
    for (revoked, word) in [
        (very, "the certificate for the key"),
        (keys.line("host"), "in the certificate"),
        (keys.fingerprint("host"), "in the certificate"),
        (keys.line("authority"), "the authority"),
        (keys.fingerprint("authority"), "the authority"),
    ] {
        // The pin of the plain key does not overrule the revocation.
        let revoked = vec![revoked];
        let machine = Machine {
            revoked,
            pins: vec![keys.line("host")],
            authorities: machine.authorities.clone(),
            ..Machine::default()
        };
        machine.refuses(&sshd, "host_key_revoked", &[word, "spec.revokedHostKeys"]).await;
    }
}

#[tokio::test]
async fn a_host_without_a_certificate_is_told_nothing_where_only_authorities_are_known() {
    let keys = host_and_authorities("-t ed25519");
    let sshd = start_with(&[&keys.path("host")], &[]);
    let machine = Machine { authorities: vec![keys.line("authority")], ..Machine::default() };
    machine.refuses(&sshd, "host_certificate_refused", &["has no certificate", "ssh-ed25519", "HostCertificate"]).await;
}

/// A server with a certificate shows the certificate instead of its key.
#[tokio::test]
async fn a_pinned_key_proves_a_host_whose_certificate_does_not_count() {
    for options in ["-h -n web-2.example", "-h -n web-1.example -V 20200101:20210101"] {
        let (keys, sshd, machine) = certified(options);
        let machine = Machine { pins: vec![keys.line("host")], ..machine };
        machine.trusts(&sshd, VerifiedBy::Pinned, &keys.fingerprint("host")).await;
    }
    let (keys, sshd, machine) = certified("-h -n web-2.example");
    let machine = Machine { pins: vec![keys.line("other")], ..machine };
    machine.refuses(&sshd, "host_certificate_refused", &["web-2.example"]).await;
}

#[tokio::test]
async fn a_host_is_known_by_its_first_key_only_after_that_was_kept() {
    let keys = host_and_authorities("-t ecdsa -b 256");
    let sshd = start_with(&[&keys.path("host"), &keys.path("other")], &[]);
    let mut machine = Machine { first_use: true, ..Machine::default() };
    let Err(ConnectError::HostKeyUnknown { algorithm, fingerprint }) = machine.log_in(&sshd).await else {
        panic!("it was not told as new")
    };
    // Writ asks for an ed25519 key first, independent of the host's order.
    assert_eq!((&*algorithm, &*fingerprint), ("ssh-ed25519", &*keys.fingerprint("other")));
    nothing_was_said(&sshd);
    machine.seen = vec![(algorithm, fingerprint.clone())];
    machine.trusts(&sshd, VerifiedBy::FirstUse, &fingerprint).await;
}

#[tokio::test]
async fn a_host_that_shows_another_key_than_the_first_is_told_nothing() {
    let keys = host_and_authorities("-t ed25519");
    keys.make("swapped", "-t ecdsa -b 256");
    let seen = vec![("ssh-ed25519".to_owned(), keys.fingerprint("host"))];
    let machine = Machine { first_use: true, seen, ..Machine::default() };
    let words = ["host key changed", &keys.fingerprint("host")];
    machine.refuses(&start_with(&[&keys.path("other")], &[]), "host_key_mismatch", &words).await;
    machine.refuses(&start_with(&[&keys.path("swapped")], &[]), "host_key_mismatch", &words).await;
}

/// OpenSSH's own server refuses to show a user certificate.
#[tokio::test]
async fn a_user_certificate_shown_as_a_host_certificate_is_told_nothing() {
    let keys = host_and_authorities("-t ed25519");
    let certificate = keys.sign("authority", "host", "c", "-n web-1.example");
    let server = Impostor::start(&keys.private("host"), &certificate).await;
    let machine = Machine { authorities: vec![keys.line("authority")], ..Machine::default() };
    let parts = HostKeyConfig { authorities: &machine.authorities, name: "web-1.example", ..HostKeyConfig::default() };
    let trust = HostKeyVerifier::parse(parts).expect("something to trust");
    let refusal = server.log_in(trust).await;
    assert_eq!(refusal.category(), "host_certificate_refused");
    assert!(refusal.to_string().contains("a user certificate"), "{refusal}");
    assert_eq!(server.attempts(), 0);
}

#[tokio::test]
async fn a_certificate_signed_with_sha1_is_told_nothing() {
    let keys = Keys::new();
    keys.make("host", "-t ed25519");
    keys.make("authority", "-t rsa -b 2048");
    let certificate = keys.sign("authority", "host", "c", "-t ssh-rsa -h -n web-1.example");
    let server = Impostor::start(&keys.private("host"), &certificate).await;
    let authorities = [keys.line("authority")];
    let parts = HostKeyConfig { authorities: &authorities, name: "web-1.example", ..HostKeyConfig::default() };
    let refusal = server.log_in(HostKeyVerifier::parse(parts).expect("something to trust")).await;
    assert!(refusal.to_string().contains("SHA-1"), "{refusal}");
    assert_eq!(server.attempts(), 0);
}

#[tokio::test]
async fn a_scan_shows_every_key_and_says_nothing() {
    let keys = Keys::new();
    let kinds = [
        ("ssh-ed25519", "-t ed25519"),
        ("ecdsa-sha2-nistp256", "-t ecdsa -b 256"),
        ("ecdsa-sha2-nistp521", "-t ecdsa -b 521"),
        ("ssh-rsa", "-t rsa -b 2048"),
    ];
    let paths = kinds.map(|(name, kind)| keys.make(name, kind));
    let sshd = start(&options_with(&paths.each_ref().map(Path::new), &[]));
    let found = scan("127.0.0.1", sshd.port(), &everywhere(), DEADLINE).await.expect("its keys");
    let expected: Vec<_> = kinds.map(|(name, _)| (name.to_owned(), keys.line(name), keys.fingerprint(name))).to_vec();
    let found: Vec<_> = found.into_iter().map(|key| (key.algorithm, key.line, key.fingerprint)).collect();
    assert_eq!(found, expected);
    nothing_was_said(&sshd);
    // A Machine accepts the printed lines.
    let lines: Vec<String> = found.into_iter().map(|(_, line, _)| line).collect();
    assert!(log_in(&sshd, &pinned_by(&sshd, &lines)).await.is_ok());
}
