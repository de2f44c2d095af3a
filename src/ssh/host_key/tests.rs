use russh::keys::PrivateKey;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::Ed25519Keypair;

use super::*;

/// Current time in all tests of this file, in seconds since 1970.
const NOW: u64 = 1_800_000_000;
/// Key from `ssh-keygen -t rsa -b 1024`.
const SHORT_RSA: &str = include_str!("short_rsa.pub");
/// Key from `ssh-keygen -t rsa -b 2048`.
const RSA: &str = include_str!("rsa.pub");

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn line(key: &PrivateKey) -> String {
    key.public_key().to_openssh().unwrap()
}

fn fingerprint(key: &PrivateKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

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
    fn parse(&self) -> Result<HostKeyVerifier, HostKeyConfigError> {
        HostKeyVerifier::parse(HostKeyConfig {
            host_keys: &self.pins,
            authorities: &self.authorities,
            revoked: &self.revoked,
            first_use_keys: self.seen.clone(),
            first_use: self.first_use,
            name: "Web-1.example",
        })
    }

    fn verify(&self, shown: impl Into<PublicKeyOrCertificate>) -> Result<VerifiedHostKey, ConnectError> {
        self.parse().unwrap().verify(&shown.into(), NOW)
    }

    #[track_caller]
    fn accepts(&self, shown: impl Into<PublicKeyOrCertificate>, by: VerifiedBy) {
        assert_eq!(self.verify(shown).map(|proof| proof.by), Ok(by));
    }

    #[track_caller]
    fn refuses(&self, shown: impl Into<PublicKeyOrCertificate>, category: &str, text: &str) {
        let refusal = self.verify(shown).unwrap_err();
        assert_eq!(refusal.category(), category, "{refusal}");
        assert!(refusal.to_string().contains(text), "{refusal}");
    }
}

fn pins(keys: &[&PrivateKey]) -> Machine {
    Machine { pins: keys.iter().map(|key| line(key)).collect(), ..Machine::default() }
}

fn authorities(keys: &[&PrivateKey]) -> Machine {
    Machine { authorities: keys.iter().map(|key| line(key)).collect(), ..Machine::default() }
}

/// Returns a host certificate for key 1, signed by authority 9. `spoil` changes the certificate before it is signed.
fn certificate(spoil: impl FnOnce(&mut Builder)) -> Certificate {
    signed_by(&key(9), spoil)
}

fn signed_by(authority: &PrivateKey, spoil: impl FnOnce(&mut Builder)) -> Certificate {
    signed_as(CertType::Host, authority, spoil)
}

fn signed_as(kind: CertType, authority: &PrivateKey, spoil: impl FnOnce(&mut Builder)) -> Certificate {
    let mut builder = Builder::new([7; 32], key(1).public_key().clone(), NOW - 60, NOW + 60).unwrap();
    builder.cert_type(kind).unwrap();
    spoil(&mut builder);
    builder.sign(authority).unwrap()
}

fn named(names: &[&str]) -> impl FnOnce(&mut Builder) {
    move |builder| {
        for name in names {
            builder.valid_principal(*name).unwrap();
        }
    }
}

fn good() -> Certificate {
    certificate(named(&["web-1.example"]))
}

#[test]
fn only_the_very_key_that_is_pinned_is_accepted() {
    let machine = pins(&[&key(1), &key(2)]);
    machine.accepts(key(2).public_key().clone(), VerifiedBy::Pinned);
    let refusal = machine.verify(key(3).public_key().clone()).unwrap_err();
    let (one, two, three) = (fingerprint(&key(1)), fingerprint(&key(2)), fingerprint(&key(3)));
    assert!(
        refusal.to_string().starts_with(&format!("host key changed: expected {one}, {two}, got {three};")),
        "{refusal}"
    );
    assert!(refusal.to_string().contains("spec.hostKeys"));
}

#[test]
fn comments_and_blanks_do_not_count_and_the_proof_names_the_key() {
    let machine = Machine { pins: vec![format!(" {} root@web-1 \n", line(&key(1)))], ..Machine::default() };
    let proof = machine.verify(key(1).public_key().clone()).unwrap();
    assert_eq!(proof.algorithm, "ssh-ed25519");
    assert_eq!(proof.fingerprint, fingerprint(&key(1)));
}

#[test]
fn an_rsa_key_is_asked_for_by_sha2_only() {
    let machine = Machine { pins: vec![RSA.to_owned()], ..Machine::default() };
    let asked: Vec<String> = machine.parse().unwrap().key_types().iter().map(ToString::to_string).collect();
    assert_eq!(asked, ["rsa-sha2-512", "rsa-sha2-256"]);
    machine.accepts(PublicKey::from_openssh(RSA).unwrap(), VerifiedBy::Pinned);
}

#[test]
fn only_what_could_be_accepted_is_asked_for() {
    let types = |machine: &Machine| {
        let trust = machine.parse().unwrap();
        (trust.key_types().len(), trust.certificate_types().len())
    };
    assert_eq!(types(&pins(&[&key(1), &key(2)])), (1, 0));
    assert_eq!(types(&authorities(&[&key(9)])), (0, 6));
    let first_use = Machine { first_use: true, ..Machine::default() };
    assert_eq!(types(&first_use), (6, 0));
    assert_eq!(first_use.parse().unwrap().key_types().first(), Some(&Algorithm::Ed25519));
    let seen = vec![("ssh-ed25519".to_owned(), fingerprint(&key(1)))];
    assert_eq!(types(&Machine { seen, first_use: true, ..Machine::default() }), (1, 0));
}

#[test]
fn what_is_revoked_wins_over_what_is_pinned() {
    for revoked in [line(&key(1)), fingerprint(&key(1))] {
        let machine = Machine { revoked: vec![revoked], ..pins(&[&key(1)]) };
        machine.refuses(key(1).public_key().clone(), "host_key_revoked", "spec.revokedHostKeys");
    }
    Machine { revoked: vec![line(&key(2))], ..pins(&[&key(1)]) }
        .accepts(key(1).public_key().clone(), VerifiedBy::Pinned);
}

#[test]
fn a_revoked_key_authority_or_certificate_is_refused_in_a_certificate() {
    let very = good().to_openssh().unwrap();
    for (revoked, what) in [
        (line(&key(1)), "in the certificate"),
        (fingerprint(&key(1)), "in the certificate"),
        (line(&key(9)), "the authority"),
        (fingerprint(&key(9)), "the authority"),
        (very.clone(), "the certificate for"),
        (format!("{very} with a comment"), "the certificate for"),
    ] {
        let machine = Machine { revoked: vec![revoked], ..authorities(&[&key(9)]) };
        machine.refuses(good(), "host_key_revoked", what);
        // Writ must not request the plain key now, because an accepted plain key would bypass the revocation.
        let refusal = machine.verify(good()).unwrap_err();
        assert!(!machine.parse().unwrap().may_fall_back_to_plain_key(&refusal));
    }
    // Another certificate for the same key is not revoked.
    let other = certificate(|builder| {
        builder.serial(2).unwrap().valid_principal("web-1.example").unwrap();
    });
    Machine { revoked: vec![very], ..authorities(&[&key(9)]) }.accepts(other, VerifiedBy::Authority);
}

#[test]
fn a_certificate_counts_by_its_authority_and_its_names() {
    let machine = authorities(&[&key(8), &key(9)]);
    machine.accepts(good(), VerifiedBy::Authority);
    assert_eq!(machine.verify(good()).unwrap().fingerprint, fingerprint(&key(1)));
    machine.accepts(certificate(named(&["db-1", "*.example"])), VerifiedBy::Authority);
    machine.accepts(certificate(named(&["web-?.example"])), VerifiedBy::Authority);
}

#[test]
fn a_certificate_that_says_something_else_is_refused() {
    let machine = authorities(&[&key(9)]);
    let refuses = |certificate: Certificate, text: &str| machine.refuses(certificate, "host_certificate_refused", text);
    refuses(signed_by(&key(7), named(&["web-1.example"])), &fingerprint(&key(7)));
    refuses(certificate(named(&["web-2.example", "web-1"])), "valid for web-2.example, web-1, not for web-1.example");
    refuses(certificate(named(&["WEB-1.EXAMPLE"])), "not for");
    refuses(certificate(|builder| assert!(builder.all_principals_valid().is_ok())), "names no host");
    refuses(signed_as(CertType::User, &key(9), named(&["web-1.example"])), "user certificate");
    refuses(
        certificate(|builder| {
            named(&["web-1.example"])(builder);
            builder.critical_option("force-command", "true").unwrap();
        }),
        "critical option force-command",
    );
}

#[test]
fn a_certificate_counts_in_its_time_only() {
    let trust = authorities(&[&key(9)]).parse().unwrap();
    let at = |now| trust.verify(&good().into(), now).map_err(|refusal| refusal.to_string());
    assert!(at(NOW - 60).is_ok());
    assert!(at(NOW + 59).is_ok());
    assert!(at(NOW - 61).unwrap_err().contains("not valid before 2027-"));
    assert!(at(NOW + 60).unwrap_err().contains("expired at 2027-"));
}

#[test]
fn a_certificate_that_was_changed_after_it_was_signed_is_made_up() {
    let bytes = good().to_bytes().unwrap();
    let at = bytes.windows(5).position(|window| window == b"web-1").unwrap();
    let mut forged = bytes.clone();
    forged[at + 4] = b'*';
    let forged = Certificate::from_bytes(&forged).unwrap();
    authorities(&[&key(9)]).refuses(forged, "host_certificate_refused", "forged");
}

#[test]
fn a_certificate_that_is_never_valid_is_not_accepted() {
    // The builder refuses a validity period that ends before it starts, so the test edits the bytes.
    let bytes = good().to_bytes().unwrap();
    let (after, before) = ((NOW - 60).to_be_bytes(), (NOW + 60).to_be_bytes());
    let at = bytes.windows(8).position(|window| window == after).unwrap();
    let mut swapped = bytes.clone();
    swapped[at..at + 8].copy_from_slice(&before);
    swapped[at + 8..at + 16].copy_from_slice(&after);
    let swapped = Certificate::from_bytes(&swapped).unwrap();
    assert!(authorities(&[&key(9)]).verify(swapped).is_err());
}

#[test]
fn names_in_a_certificate_are_told_in_printable_ascii_and_not_all_of_them() {
    let names: Vec<String> = (0..40).map(|number| format!("\u{1b}[31m{number}{}", "x".repeat(500))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let refusal = authorities(&[&key(9)]).verify(certificate(named(&names))).unwrap_err().to_string();
    assert!(refusal.chars().all(|character| matches!(character, ' '..='~')), "{refusal:?}");
    assert!(refusal.contains("32 more") && refusal.len() < 1000, "{refusal}");
}

#[test]
fn a_certificate_is_no_pin_and_a_pinned_key_is_no_authority() {
    // The key in the certificate is pinned, but the authority is unknown.
    let machine = Machine { authorities: vec![line(&key(8))], ..pins(&[&key(1)]) };
    machine.refuses(good(), "host_certificate_refused", "not in spec.hostKeyAuthorities");
    let refusal = machine.verify(good()).unwrap_err();
    assert!(machine.parse().unwrap().may_fall_back_to_plain_key(&refusal));
    assert!(!authorities(&[&key(8)]).parse().unwrap().may_fall_back_to_plain_key(&refusal));
    // The key of an authority is no host key. A host that shows this key is refused.
    authorities(&[&key(9)]).refuses(key(9).public_key().clone(), "host_key_mismatch", "host key changed");
}

#[test]
fn a_host_that_is_seen_for_the_first_time_is_told_to_the_caller_and_then_held_to_it() {
    let mut machine = Machine { first_use: true, ..Machine::default() };
    let new = ConnectError::HostKeyUnknown { algorithm: "ssh-ed25519".to_owned(), fingerprint: fingerprint(&key(1)) };
    assert_eq!(machine.verify(key(1).public_key().clone()), Err(new));
    machine.seen = vec![("ssh-ed25519".to_owned(), fingerprint(&key(1)))];
    machine.accepts(key(1).public_key().clone(), VerifiedBy::FirstUse);
    machine.refuses(key(2).public_key().clone(), "host_key_mismatch", "host key changed");
    machine.revoked = vec![line(&key(1))];
    machine.refuses(key(1).public_key().clone(), "host_key_revoked", "");
}

#[test]
fn a_short_rsa_key_is_never_new_nor_the_one_that_was_seen() {
    let short = PublicKey::from_openssh(SHORT_RSA).unwrap();
    let mut machine = Machine { first_use: true, ..Machine::default() };
    machine.refuses(short.clone(), "handshake", "too weak");
    machine.seen = vec![("ssh-rsa".to_owned(), short.fingerprint(HashAlg::Sha256).to_string())];
    machine.refuses(short, "handshake", "too weak");
}

#[test]
fn what_was_seen_does_not_count_where_keys_are_listed() {
    let seen = vec![("ssh-ed25519".to_owned(), fingerprint(&key(2)))];
    let machine = Machine { seen, first_use: true, ..pins(&[&key(1)]) };
    machine.refuses(key(2).public_key().clone(), "host_key_mismatch", "host key changed");
    machine.refuses(key(3).public_key().clone(), "host_key_mismatch", "host key changed");
}

#[test]
fn a_list_that_says_nothing_names_its_field_and_place() {
    let error = |machine: Machine| machine.parse().unwrap_err().to_string();
    let one = || line(&key(1));
    assert!(error(Machine::default()).contains("spec.hostKeys must have at least one key"));
    let bad = Machine { pins: vec![one(), "ssh-ed25519 AAAA".to_owned()], ..Machine::default() };
    assert!(error(bad).starts_with("spec.hostKeys[1] must be"));
    let short = Machine { pins: vec![SHORT_RSA.to_owned()], ..Machine::default() };
    assert!(error(short).starts_with("spec.hostKeys[0] must have at least 2048 bits; this RSA key has 1024"));
    let certified = Machine { authorities: vec![one(), good().to_openssh().unwrap()], ..Machine::default() };
    assert!(error(certified).starts_with("spec.hostKeyAuthorities[1] must be"));
    for revoked in ["", "x", "SHA256:short", "MD5:aa:bb", "ssh-ed25519-cert-v01@openssh.com AAAA"] {
        let machine = Machine { revoked: vec![one(), revoked.to_owned()], ..pins(&[&key(1)]) };
        assert!(error(machine).starts_with("spec.revokedHostKeys[1] must be"), "{revoked}");
    }
    for (algorithm, fingerprint) in [("ssh-dss", fingerprint(&key(1))), ("ssh-ed25519", "SHA256:x".to_owned())] {
        let machine =
            Machine { seen: vec![(algorithm.to_owned(), fingerprint)], first_use: true, ..Machine::default() };
        assert!(error(machine).starts_with("status.hostKeys[0] must have"), "{algorithm}");
    }
}

#[test]
fn a_plain_key_shown_where_only_authorities_are_known_is_refused() {
    authorities(&[&key(9)]).refuses(key(1).public_key().clone(), "host_key_mismatch", "");
}
