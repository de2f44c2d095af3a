use pkcs8::ObjectIdentifier;
use proptest::prelude::*;
use russh::keys::ssh_key::{HashAlg, Kdf, Mpint};

use super::super::file::first_key;
use super::super::tests::ENCRYPTED;
use super::super::{Credentials, CredentialsError, pkcs8 as der};
use super::*;

/// Returns a key file of this directory. All files hold the same P-256 key, whose scalar has 31 bytes. The passphrase
/// is `correct horse`.
///
/// - `ssh-keygen -t ecdsa -b 256` made p256.
/// - `openssl pkcs8 -topk8` made p256_pkcs8_aes256.pem.
/// - `ssh-keygen -p` made the other files, with `-Z`, `-m PEM` and `-m PKCS8`.
macro_rules! key {
    ($name:literal) => {
        include_str!(concat!("p256", $name))
    };
}

const PASSPHRASE: &str = "correct horse";
/// Fingerprint of the key, as `ssh-keygen -l` prints it.
const PRINT: &str = "SHA256:O9hr1gpw3IpUoXRyEhoeWwczBbmy9kD6fKHp3hc1PB0";
/// Identifier and size in bytes of each curve.
const CURVES: [(&str, usize); 3] = [("1.2.840.10045.3.1.7", 32), ("1.3.132.0.34", 48), ("1.3.132.0.35", 66)];

fn open(key: &str, passphrase: Option<&str>) -> Result<Credentials, CredentialsError> {
    Credentials::parse(key.as_bytes(), passphrase.map(str::as_bytes), None)
}

fn bytes(key: &str) -> Vec<u8> {
    first_key(key.as_bytes()).ok().unwrap().bytes.to_vec()
}

/// Returns the key with this scalar. The SEC 1 form in `body` has no public key, so `parse` computes the public key.
fn key_with(curve: &str, scalar: &[u8]) -> PrivateKey {
    let field = |tag: u8, body: &[u8]| [&[tag, u8::try_from(body.len()).unwrap()][..], body].concat();
    let curve = ObjectIdentifier::new(curve).unwrap();
    let body = [field(2, &[1]), field(4, scalar), field(0xa0, &field(6, curve.as_bytes()))].concat();
    der::parse(&field(0x30, &body)).unwrap()
}

/// Returns the container that ssh-keygen writes for this key.
fn written(key: &PrivateKey, comment: &str) -> Vec<u8> {
    let (public, mut section) = (key.public_key().key_data(), vec![7; CHECKS]);
    public.encode(&mut section).unwrap();
    Mpint::from_positive_bytes(key.key_data().ecdsa().unwrap().private_key_bytes()).encode(&mut section).unwrap();
    comment.encode(&mut section).unwrap();
    let aligned = section.len().next_multiple_of(BLOCK);
    section.extend((1..).take(aligned - section.len()));
    plain(&public.encode_vec().unwrap(), &section).unwrap().to_vec()
}

#[test]
fn a_key_with_a_short_scalar_opens_in_each_form_and_signs() {
    for (key, passphrase) in [
        (key!(""), None),
        (key!("_encrypted"), Some(PASSPHRASE)),
        (key!("_gcm"), Some(PASSPHRASE)),
        (key!("_sec1.pem"), None),
        (key!("_sec1_aes128.pem"), Some(PASSPHRASE)),
        (key!("_pkcs8.pem"), None),
        (key!("_pkcs8_aes256.pem"), Some(PASSPHRASE)),
    ] {
        let credentials = open(key, passphrase).expect(key);
        assert_eq!(credentials.fingerprint(), PRINT, "{key}");
        let (public, key) = (credentials.key.public_key(), &credentials.key);
        assert_eq!(key.key_data().ecdsa().unwrap().private_key_bytes()[..2], [0, 0x13]);
        let signature = key.sign("test", HashAlg::Sha512, b"message").unwrap();
        assert!(public.verify("test", b"message", &signature).is_ok());
        assert!(public.verify("test", b"another message", &signature).is_err());
        // The padded key can be written and read again.
        assert_eq!(&PrivateKey::from_bytes(&key.to_bytes().unwrap()).unwrap(), key.as_ref());
    }
}

/// If this test fails, ssh-key pads scalars itself, and this module is no longer needed.
#[test]
fn ssh_key_itself_refuses_a_short_scalar() {
    assert!(PrivateKey::from_bytes(&bytes(key!(""))).is_err());
    let encrypted = PrivateKey::from_bytes(&bytes(key!("_encrypted"))).unwrap();
    assert!(encrypted.decrypt(PASSPHRASE).is_err());
}

#[test]
fn a_wrong_passphrase_is_still_named() {
    for key in [key!("_encrypted"), key!("_gcm")] {
        assert_eq!(open(key, Some("correct")).unwrap_err(), CredentialsError::PassphraseWrong);
        assert_eq!(open(key, None).unwrap_err(), CredentialsError::PassphraseMissing);
    }
}

#[test]
fn only_the_scalar_and_the_filling_change() {
    let short = bytes(key!(""));
    let padded = pad(&short).unwrap();
    // The padding adds one byte to the scalar, and seven bytes to the empty filling.
    assert_eq!(padded.len(), short.len() + 8);
    assert_eq!(*padded, *PrivateKey::from_bytes(&padded).unwrap().to_bytes().unwrap());
    assert_eq!(parse(&short).unwrap().comment().as_str_lossy(), "a comment");
    // A padded container needs no padding.
    assert_eq!(pad(&padded), None);
    assert!(parse(&padded).is_ok());
}

#[test]
fn a_container_that_is_cut_off_or_too_long_does_not_parse() {
    let whole = bytes(key!(""));
    for end in 0..whole.len() {
        assert!(parse(&whole[..end]).is_err(), "{end}");
    }
    assert!(parse(&[&whole[..], &[0]].concat()).is_err());
    let encrypted = bytes(key!("_gcm"));
    let key = parse(&encrypted).unwrap();
    assert!(decrypt(&key, &encrypted, PASSPHRASE.as_bytes()).is_some());
    assert!(decrypt(&key, &encrypted[..TAG - 1], PASSPHRASE.as_bytes()).is_none());
}

#[test]
fn a_scalar_of_zero_and_a_wrong_filling_are_refused() {
    let public = key_with(CURVES[0].0, &[1; 32]).public_key().key_data().encode_vec().unwrap();
    let scalar_and_comment = |scalar: &[u8], filling: &[u8]| {
        let mut section = [&[7; CHECKS][..], &public].concat();
        scalar.encode(&mut section).unwrap();
        section.extend([0; 4]);
        section.extend(filling);
        parse(&plain(&public, &section).unwrap())
    };
    // A section with a scalar of 30 bytes has 150 bytes. The filling `[1, 2]` extends the section to 152 bytes, a
    // multiple of 8.
    assert!(scalar_and_comment(&[1; 30], &[1, 2]).is_ok());
    assert!(scalar_and_comment(&[1; 30], &[1, 1]).is_err());
    assert!(scalar_and_comment(&[1; 30], &[2, 3]).is_err());
    assert!(scalar_and_comment(&[1; 24], &[1; 1000]).is_err());
    assert!(scalar_and_comment(&[], &[]).is_err());
}

proptest! {
    /// Writ reads a scalar without its 1 to 31 leading zero bytes, on each curve. The random length of the comment
    /// varies the number of filling bytes at the end of the section.
    #[test]
    fn each_scalar_is_read_as_it_was_written(
        which in 0usize..3,
        random in prop::array::uniform32(any::<u8>()),
        zeros in 1usize..32,
        comment in "[a-z]{0,20}",
    ) {
        let (curve, size) = CURVES[which];
        let mut scalar = [&[0x55; 34][..], &random].concat().split_off(66 - size);
        scalar[..zeros].fill(0);
        scalar[size - 1] |= 1;
        let key = key_with(curve, &scalar);
        let container = written(&key, &comment);
        let read = parse(&container).unwrap();
        prop_assert_eq!(read.key_data(), key.key_data());
        prop_assert_eq!(read.comment().as_str_lossy(), comment);
        let length = Mpint::from_positive_bytes(&scalar).as_bytes().len();
        match pad(&container) {
            None => prop_assert!(length >= MIN_SCALAR),
            Some(padded) => {
                prop_assert!(length < MIN_SCALAR);
                let ours = PrivateKey::from_bytes(&padded).unwrap();
                prop_assert_eq!(ours, read);
            }
        }
    }

    /// A container with a few changed bytes is refused or is another key. Parsing never panics.
    #[test]
    fn hostile_bytes_are_refused_or_a_key(
        which in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        // To open an encrypted key takes long, so half of the cases change the key that is not encrypted.
        let mut bytes = bytes([key!(""), key!(""), ENCRYPTED, key!("_gcm")][which]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let Ok(key) = parse(&bytes) else { return Ok(()) };
        if matches!(key.kdf(), Kdf::Bcrypt { rounds: 0..=4, .. }) {
            let _ = decrypt(&key, &bytes, b"correct horse");
        }
    }

    #[test]
    fn any_bytes_are_refused(head in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let container = if head { [PLAIN, &bytes].concat() } else { bytes.clone() };
        prop_assert_eq!(pad(&container), None);
        prop_assert!(parse(&container).is_err());
        prop_assert_eq!(pad_section(&bytes), None);
        let ecdsa = [&bytes[..], b"\0\0\0\x13ecdsa-sha2-nistp256", &bytes].concat();
        let _ = pad_section(&ecdsa);
    }
}
