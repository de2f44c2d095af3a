use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Key from `ssh-keygen -t ed25519 -a 4 -N 'correct horse'`.
pub const ENCRYPTED: &str = include_str!("encrypted");
/// Key from `ssh-keygen -t ed25519 -a 300 -N 'correct horse'`. 300 rounds exceed the maximum.
const SLOW: &str = include_str!("slow");
/// Keys with the same passphrase. `openssl genpkey -algorithm ed25519 -aes-256-cbc` made `PKCS8`, and `openssl pkcs8
/// -topk8 -scrypt` made `SCRYPT`.
pub const PKCS8: &str = include_str!("pkcs8.pem");
pub const SCRYPT: &str = include_str!("scrypt.pem");
const SHORT_RSA: &str = include_str!("short_rsa");

fn error(key: &str, passphrase: Option<&str>) -> CredentialsError {
    Credentials::parse(key.as_bytes(), passphrase.map(str::as_bytes), None).unwrap_err()
}

#[test]
fn an_encrypted_key_opens_with_its_passphrase_only() {
    for key in [ENCRYPTED, PKCS8] {
        for passphrase in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            assert!(Credentials::parse(key.as_bytes(), Some(passphrase.as_bytes()), None).is_ok());
        }
        assert_eq!(error(key, Some("correct")), CredentialsError::PassphraseWrong);
        assert_eq!(error(key, Some("")), CredentialsError::PassphraseMissing);
        assert_eq!(error(key, None), CredentialsError::PassphraseMissing);
    }
}

#[test]
fn a_key_whose_opening_would_take_long_is_not_opened() {
    let slow = error(SLOW, Some("correct horse"));
    assert_eq!(slow, CredentialsError::TooManyRounds { rounds: 300, function: "bcrypt", most: 256 });
    let said = slow.to_string();
    assert!(said.contains("300") && said.contains("256") && said.contains("ssh-keygen -p -a 16"), "{said}");
    assert_eq!(error(SCRYPT, Some("correct horse")), CredentialsError::Encryption);
}

#[test]
fn what_cannot_be_used_says_how_to_get_it_right_and_repeats_nothing() {
    assert_eq!(error(SHORT_RSA, None), CredentialsError::ShortRsa(1024));
    let sealed = |how: &str| {
        let label = "RSA PRIVATE KEY";
        format!("-----BEGIN {label}-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: {how}\n\nc2VjcmV0\n-----END {label}-----\n")
    };
    let pem = |label: &str| format!("-----BEGIN {label}-----\nc2VjcmV0\n-----END {label}-----\n");
    for (key, expected) in [
        (pem("RSA PRIVATE KEY"), CredentialsError::Unparsable),
        (pem("EC PRIVATE KEY"), CredentialsError::Unparsable),
        (pem("CERTIFICATE"), CredentialsError::Unparsable),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n".to_owned(), CredentialsError::Putty),
        ("ssh-ed25519 c2VjcmV0 deploy@example\n".to_owned(), CredentialsError::Public),
        ("# the key\nssh-rsa c2VjcmV0\n".to_owned(), CredentialsError::Public),
        (pem("PUBLIC KEY"), CredentialsError::Public),
        (pem("RSA PUBLIC KEY"), CredentialsError::Public),
        ("---- BEGIN SSH2 PUBLIC KEY ----\nc2VjcmV0\n".to_owned(), CredentialsError::Public),
        (STANDARD.encode(PKCS8), CredentialsError::EncodedTwice),
        (sealed("DES-EDE3-CBC,0011223344556677"), CredentialsError::Encryption),
        (sealed("AES-128-CBC"), CredentialsError::Unparsable),
        (sealed("AES-128-CBC,0g"), CredentialsError::Unparsable),
        (sealed("AES-128-CBC,00112233445566778899aabbccddeeff"), CredentialsError::PassphraseWrong),
        (pem("DSA PRIVATE KEY"), CredentialsError::Unsupported("ssh-dss".to_owned())),
        (pem("OPENSSH PRIVATE KEY"), CredentialsError::Unparsable),
        (pem("PRIVATE KEY"), CredentialsError::Unparsable),
        ("c2VjcmV0".to_owned(), CredentialsError::Unparsable),
        (String::new(), CredentialsError::Unparsable),
        (ENCRYPTED.lines().take(3).collect::<Vec<_>>().join("\n"), CredentialsError::Unparsable),
        (PKCS8.lines().take(2).collect::<Vec<_>>().join("\n"), CredentialsError::Unparsable),
    ] {
        let error = error(&key, Some("hunter2"));
        assert_eq!(error, expected, "{key}");
        for secret in ["c2VjcmV0", "hunter2"] {
            assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
        }
    }
    assert_eq!(Credentials::parse(&[0xff], None, None).unwrap_err(), CredentialsError::NotText);
}

#[test]
fn credentials_are_not_printed() {
    let credentials = Credentials::parse(ENCRYPTED.as_bytes(), Some(b"correct horse"), None).unwrap();
    assert_eq!(format!("{credentials:?}"), "Credentials(..)");
    assert!(credentials.fingerprint().starts_with("SHA256:"));
}

/// Users put the text of a key into a Secret in several forms. Writ reads the key from each form.
#[test]
fn what_stands_around_a_key_is_passed_over() {
    let parse = |text: &str| Credentials::parse(text.as_bytes(), Some(b"correct horse"), None);
    for key in [ENCRYPTED, PKCS8] {
        let right = parse(key).unwrap().fingerprint();
        let indented: String = key.lines().map(|line| format!("    {line}  \n")).collect();
        let spaced: String = key.lines().map(|line| format!("{line}\n\n")).collect();
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for text in [
            key.replace('\n', "\r\n"),
            key.trim_end().to_owned(),
            format!("\u{feff}{key}"),
            format!("Bag Attributes\n    friendlyName: web\n{key}"),
            format!("{key}ssh-ed25519 AAAA the public half\n"),
            format!("{parameters}{key}"),
            // If the file has two keys, the first key counts, as in OpenSSH.
            format!("{key}{SHORT_RSA}"),
            indented,
            spaced,
        ] {
            assert_eq!(parse(&text).unwrap().fingerprint(), right, "{text}");
        }
    }
}
