use super::*;

/// Made with `ssh-keygen -t ed25519 -a 4 -N 'correct horse'`.
const ENCRYPTED: &str = include_str!("encrypted");
/// Made with `ssh-keygen -t ed25519 -a 300 -N ''correct horse'`.
const SLOW: &str = include_str!("slow");
/// Made with `openssl genpkey -algorithm ed25519 -aes-256-cbc`, and with `openssl pkcs8 -topk8 -scrypt`.
const PKCS8: &str = include_str!("pkcs8.pem");
const SCRYPT: &str = include_str!("scrypt.pem");
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
    assert_eq!(error(SLOW, Some("correct horse")), CredentialsError::Encryption);
    assert_eq!(error(SCRYPT, Some("correct horse")), CredentialsError::Encryption);
    let mut der = PBKDF2.to_vec();
    der.extend([0x30, 0x0c, 0x04, 0x02, 1, 2, 0x02, 0x04, 0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(pbkdf2_rounds(&der), Some(0x7fff_ffff));
    for end in 0..der.len() {
        assert_eq!(pbkdf2_rounds(&der[..end]), None);
    }
}

#[test]
fn what_cannot_be_used_says_how_to_get_it_right_and_repeats_nothing() {
    assert_eq!(error(SHORT_RSA, None), CredentialsError::ShortRsa(1024));
    let pem = |label: &str| format!("-----BEGIN {label}-----\nc2VjcmV0\n-----END {label}-----\n");
    for (key, expected) in [
        (pem("RSA PRIVATE KEY"), CredentialsError::OldForm),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n".to_owned(), CredentialsError::OldForm),
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
