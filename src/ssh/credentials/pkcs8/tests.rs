use proptest::prelude::*;

use super::super::file::first_key;
use super::super::tests::{PKCS8, SCRYPT};
use super::super::{Credentials, CredentialsError};
use super::*;

/// Returns a key file of this directory. Files whose names start with the same word hold the same key. The passphrase
/// is `correct horse`.
///
/// - `ssh-keygen -m PKCS8` made rsa.pem and p256.pem.
/// - openssl 3.0 made the other files. `openssl pkcs8 -topk8` encrypted the PKCS#8 files.
macro_rules! key {
    ($name:literal) => {
        include_str!(concat!($name, ".pem"))
    };
}

const PASSPHRASE: &str = "correct horse";
/// Fingerprints, as `ssh-keygen -l` prints them.
const RSA_PRINT: &str = "SHA256:f/O7QhKKhVDPaMoJt5BbGb259zu2o4hc2158jU2qXvo";
const P256_PRINT: &str = "SHA256:i9iVgPjxXfS/EhifbyOJoks8S4ktaR2UD+C3txLrQ8s";
const ED25519_PRINT: &str = "SHA256:fAmR2bB/trw1nNnxOc4X2AXvPV6gbdXYuIBR8h2DG1A";

fn open(key: &str, passphrase: Option<&str>) -> Result<String, CredentialsError> {
    Credentials::parse(key.as_bytes(), passphrase.map(str::as_bytes), None).map(|key| key.fingerprint())
}

fn der(key: &str) -> Vec<u8> {
    first_key(key.as_bytes()).ok().unwrap().bytes.to_vec()
}

#[test]
fn each_form_of_a_key_has_the_fingerprint_of_the_key() {
    for (key, fingerprint) in [
        (key!("rsa"), RSA_PRINT),
        (key!("rsa_pkcs1"), RSA_PRINT),
        (key!("p256"), P256_PRINT),
        (key!("p256_sec1"), P256_PRINT),
        (key!("ed25519"), ED25519_PRINT),
    ] {
        assert_eq!(open(key, None), Ok(fingerprint.to_owned()), "{key}");
        assert_eq!(open(key, Some("not needed")), Ok(fingerprint.to_owned()), "{key}");
    }
    for (key, fingerprint) in [
        (key!("rsa_aes128"), RSA_PRINT),
        (key!("rsa_pkcs1_aes128"), RSA_PRINT),
        (key!("p256_aes192"), P256_PRINT),
        (key!("ed25519_600000"), ED25519_PRINT),
    ] {
        assert_eq!(open(key, Some(PASSPHRASE)), Ok(fingerprint.to_owned()), "{key}");
        assert_eq!(open(key, Some("correct")), Err(CredentialsError::PassphraseWrong), "{key}");
        assert_eq!(open(key, None), Err(CredentialsError::PassphraseMissing), "{key}");
    }
}

#[test]
fn a_key_that_is_encrypted_in_another_way_is_refused_for_that() {
    // These keys use HMAC with SHA-1, 3DES, PBES1 or scrypt. The error must not report a wrong passphrase, because the
    // passphrase is right.
    for key in [key!("ed25519_sha1"), key!("ed25519_des3"), key!("ed25519_pbes1"), SCRYPT] {
        assert_eq!(open(key, Some(PASSPHRASE)), Err(CredentialsError::Encryption), "{key}");
        assert_eq!(open(key, None), Err(CredentialsError::PassphraseMissing), "{key}");
    }
}

#[test]
fn a_key_of_another_type_is_refused_by_its_name() {
    for (key, name) in [
        (key!("dsa"), "DSA"),
        (key!("rsa_pss"), "RSA-PSS"),
        (key!("x25519"), "X25519"),
        (key!("ed448"), "Ed448"),
        (key!("ed448_aes256"), "Ed448"),
        (key!("secp256k1"), "ECDSA on secp256k1"),
    ] {
        assert_eq!(open(key, Some(PASSPHRASE)), Err(CredentialsError::Unsupported(name.to_owned())), "{key}");
    }
}

#[test]
fn a_key_with_too_many_rounds_is_not_opened() {
    let slow = CredentialsError::TooManyRounds { rounds: 1_000_001, function: "PBKDF2", most: 1_000_000 };
    assert_eq!(open(key!("ed25519_slow"), Some(PASSPHRASE)), Err(slow));
}

/// A key is encrypted with scrypt, but the salt contains the identifier of PBKDF2 with one round. A check that only
/// searches for this identifier would accept the key.
#[test]
fn the_cost_is_that_of_the_function_that_is_used() {
    const DECOY: [u8; 18] =
        [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c, 0x30, 0x05, 0x04, 0x00, 0x02, 0x01, 0x01];
    let text = |body: &[u8], tag: u8| {
        let mut der = vec![tag, u8::try_from(body.len()).unwrap()];
        der.extend_from_slice(body);
        der
    };
    let oid = |dotted: &str| {
        let oid: ObjectIdentifier = ObjectIdentifier::new_unwrap(dotted);
        text(oid.as_bytes(), 0x06)
    };
    // scrypt with N = 2^30 and r = 8 needs 1 TiB of memory.
    let cost = [&text(&DECOY, 0x04)[..], &[0x02, 0x04, 0x40, 0, 0, 0, 0x02, 0x01, 8, 0x02, 0x01, 1]].concat();
    let scrypt = text(&[oid("1.3.6.1.4.1.11591.4.11"), text(&cost, 0x30)].concat(), 0x30);
    let aes = text(&[oid("2.16.840.1.101.3.4.1.42"), text(&[0; 16], 0x04)].concat(), 0x30);
    let pbes2 = text(&[oid("1.2.840.113549.1.5.13"), text(&[scrypt, aes].concat(), 0x30)].concat(), 0x30);
    let body = [pbes2, text(&[0; 48], 0x04)].concat();
    let der = [&[0x30, 0x81, u8::try_from(body.len()).unwrap()][..], &body].concat();
    assert!(EncryptedPrivateKeyInfoRef::try_from(&der[..]).is_ok());
    assert_eq!(parse_encrypted(&der, b"x"), Err(CredentialsError::Encryption));
}

#[test]
fn a_key_that_is_cut_off_does_not_parse() {
    for key in [key!("p256"), key!("ed25519"), key!("p256_sec1"), key!("x25519")] {
        let whole = der(key);
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), Err(CredentialsError::Unparsable), "{end} of {key}");
        }
        assert_eq!(parse(&[&whole[..], &[0]].concat()), Err(CredentialsError::Unparsable));
    }
    for key in [PKCS8, SCRYPT, key!("ed25519_pbes1"), key!("ed25519_des3")] {
        let whole = der(key);
        for end in 0..whole.len() {
            assert_eq!(parse_encrypted(&whole[..end], b"correct horse"), Err(CredentialsError::Unparsable), "{end}");
        }
        let longer = [&whole[..], &[0]].concat();
        assert_eq!(parse_encrypted(&longer, b"correct horse"), Err(CredentialsError::Unparsable));
    }
    let whole = der(key!("rsa_pkcs1"));
    for end in (0..whole.len()).step_by(97) {
        assert_eq!(parse_rsa(&whole[..end]), Err(CredentialsError::Unparsable), "{end}");
    }
}

proptest! {
    /// A key with a few changed bytes is refused or is another key. Parsing never takes long and never panics.
    #[test]
    fn hostile_bytes_are_refused_or_a_key(
        which in 0usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let keys = [PKCS8, SCRYPT, key!("p256_aes192"), key!("ed25519_sha1"), key!("p256"), key!("ed25519")];
        let mut bytes = der(keys[which]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = parse(&bytes);
        let _ = parse_rsa(&bytes);
        if let Ok(sealed) = EncryptedPrivateKeyInfoRef::try_from(&bytes[..]) {
            // The test does not open keys with more than 4096 rounds, because each could take up to a second.
            let rounds = match sealed.encryption_algorithm.pbes2().map(|parameters| &parameters.kdf) {
                Some(Kdf::Pbkdf2(pbkdf2)) => pbkdf2.iteration_count,
                _ => 0,
            };
            prop_assert_eq!(check_cost(&sealed.encryption_algorithm).is_ok() && rounds > MAX_PBKDF2_ROUNDS, false);
            if rounds > 4096 && rounds <= MAX_PBKDF2_ROUNDS {
                return Ok(());
            }
        }
        let _ = parse_encrypted(&bytes, b"correct horse");
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(parse(&bytes).is_err());
        prop_assert!(parse_rsa(&bytes).is_err());
        prop_assert!(parse_encrypted(&bytes, b"x").is_err());
    }
}
