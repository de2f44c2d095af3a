//! Common forms of private keys. The real ssh-keygen makes each key, and each key must log in.

use serde_json::json;
use writ::api::{Phase, Reason};
use writ::ssh::{ConnectError, Connection, Credentials, CredentialsError, connect};

use crate::case::Case;
use crate::keys::{DEADLINE, Keys, everywhere, options_with, pinned, start};
use crate::lab::{Sshd, SshdOptions};

/// Name of a form, and the options of ssh-keygen for it.
const FORMS: [(&str, &str); 9] = [
    ("rsa-pkcs1", "-t rsa -b 2048 -m PEM"),
    ("rsa-pkcs8", "-t rsa -b 2048 -m PKCS8"),
    ("rsa-openssh", "-t rsa -b 2048"),
    ("p256-sec1", "-t ecdsa -b 256 -m PEM"),
    ("p384-sec1", "-t ecdsa -b 384 -m PEM"),
    ("p521-sec1", "-t ecdsa -b 521 -m PEM"),
    ("p384-pkcs8", "-t ecdsa -b 384 -m PKCS8"),
    ("p521-pkcs8", "-t ecdsa -b 521 -m PKCS8"),
    ("ed25519-openssh", "-t ed25519"),
];

fn letting_in(keys: &Keys) -> Sshd {
    let authorized_keys = FORMS.iter().map(|(name, _)| keys.line(name)).collect();
    start(&SshdOptions { authorized_keys, ..options_with(&[], &[]) })
}

async fn enter(sshd: &Sshd, credentials: &Credentials) -> Result<Connection, ConnectError> {
    connect(&pinned(sshd), credentials, &everywhere(), DEADLINE).await
}

#[tokio::test]
async fn a_key_logs_in_in_every_form_that_openssh_opens() {
    let keys = Keys::new();
    FORMS.iter().for_each(|(name, kind)| drop(keys.make(name, kind)));
    let sshd = letting_in(&keys);
    for (name, _) in FORMS {
        let text = String::from_utf8(keys.private(name)).expect("a key is text");
        let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        for text in [text, windows] {
            let credentials = Credentials::parse(text.as_bytes(), None, None).expect(name);
            assert_eq!(credentials.fingerprint(), keys.fingerprint(name), "{name}");
            enter(&sshd, &credentials).await.expect(name);
        }
    }
}

#[tokio::test]
async fn an_encrypted_key_logs_in_in_every_form_and_is_told_from_one_that_does_not_parse() {
    let keys = Keys::new();
    FORMS.iter().for_each(|(name, kind)| drop(keys.make_encrypted(name, kind, "correct horse")));
    let sshd = letting_in(&keys);
    for (name, _) in FORMS {
        let text = String::from_utf8(keys.private(name)).expect("a key is text").replace('\n', "\r\n");
        let parse =
            |passphrase: Option<&'static str>| Credentials::parse(text.as_bytes(), passphrase.map(str::as_bytes), None);
        enter(&sshd, &parse(Some("correct horse\r\n")).expect(name)).await.expect(name);
        assert_eq!(parse(None).expect_err(name), CredentialsError::PassphraseMissing, "{name}");
        assert_eq!(parse(Some("battery staple")).expect_err(name), CredentialsError::PassphraseWrong, "{name}");
    }
}

#[tokio::test]
async fn the_key_that_a_cloud_hands_out_runs_commands_and_what_is_no_private_key_says_so() {
    let keys = Keys::new();
    keys.make("cloud", "-t rsa -b 2048 -m PEM");
    keys.make_encrypted("sealed", "-t rsa -b 2048 -m PEM", "correct horse");
    let authorized_keys = vec![keys.line("cloud"), keys.line("sealed")];
    let options = SshdOptions { authorized_keys, ..SshdOptions::default() };
    let case = Case::with(crate::world::world(), options, &[]).await;
    let text = |name: &str| String::from_utf8(keys.private(name)).expect("a key is text");
    let cloud = text("cloud").replace('\n', "\r\n");
    let public = keys.line("cloud");
    let good = [("cloud", json!({"ssh-privatekey": cloud}))];
    let bad = [
        ("sealed", json!({"ssh-privatekey": text("sealed")}), "put its passphrase into"),
        ("mistyped", json!({"ssh-privatekey": text("sealed"), "passphrase": "x"}), "passphrase does not open"),
        ("public", json!({"ssh-privatekey": public}), "is a public key"),
    ];
    let metadata = json!({"labels": {"writ.dev/credentials": "true"}});
    for (name, data) in good.iter().cloned().chain(bad.iter().map(|(name, data, _)| (*name, data.clone()))) {
        let secret = json!({"metadata": metadata, "type": "kubernetes.io/ssh-auth", "stringData": data});
        case.apply("v1", "Secret", name, secret).await;
        case.apply_machine(name, json!({"credentialsRef": {"name": name}})).await;
        case.execute_with(name, json!({"command": "say hello", "machineRef": {"name": name}})).await;
    }
    case.ends("cloud", Phase::Succeeded, Reason::Completed).await;
    for (name, _, remedy) in bad {
        let message =
            case.ends(name, Phase::LaunchFailed, Reason::CredentialsInvalid).await.message.unwrap_or_default();
        assert!(message.contains(remedy), "{name}: {message}");
    }
}
