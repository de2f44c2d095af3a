use super::*;

use rcgen::{CertificateParams, KeyPair};

/// Directory with a certificate and a key.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        let (certificate, key) = new_pair();
        directory.write(&certificate, &key);
        directory
    }

    fn files(&self) -> TlsFiles {
        TlsFiles { certificate: self.0.path().join("tls.crt"), key: self.0.path().join("tls.key") }
    }

    fn write(&self, certificate: &str, key: &str) {
        std::fs::write(self.files().certificate, certificate).unwrap();
        std::fs::write(self.files().key, key).unwrap();
    }

    fn config(&self) -> Result<ServerConfig, TlsError> {
        read(&self.files()).and_then(|pair| pair.config(&self.files()))
    }
}

/// Returns a certificate and its key, in PEM form.
fn new_pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn a_certificate_with_its_key_is_usable() {
    let directory = Directory::new();
    let config = directory.config().unwrap();
    assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
}

#[test]
fn a_certificate_with_the_key_of_another_is_refused() {
    let directory = Directory::new();
    directory.write(&new_pair().0, &new_pair().1);
    let error = directory.config().unwrap_err().to_string();
    assert!(error.contains("tls.crt") && error.contains("not usable together"), "{error}");
}

#[test]
fn files_without_pem_are_refused_and_their_content_is_not_shown() {
    let (certificate, key) = new_pair();
    let secret = key.lines().nth(1).unwrap();
    let directory = Directory::new();
    for (certificate, key, flag) in [
        ("", key.as_str(), CERTIFICATE_FLAG),
        (key.as_str(), key.as_str(), CERTIFICATE_FLAG),
        (certificate.as_str(), "", KEY_FLAG),
        (certificate.as_str(), certificate.as_str(), KEY_FLAG),
        (certificate.as_str(), &format!("-----BEGIN {secret}"), KEY_FLAG),
        (certificate.as_str(), &format!("-----BEGIN PRIVATE KEY-----\n{secret}"), KEY_FLAG),
    ] {
        directory.write(certificate, key);
        let error = directory.config().unwrap_err();
        assert!(error.to_string().contains(flag), "{error}");
        assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
    }
}

#[test]
fn a_missing_or_huge_file_is_refused_with_its_flag() {
    let directory = Directory::new();
    std::fs::write(directory.files().certificate, vec![b'a'; MAX_FILE_BYTES + 1]).unwrap();
    assert!(matches!(directory.config(), Err(TlsError::TooLarge { .. })));
    let directory = Directory::new();
    std::fs::remove_file(directory.files().key).unwrap();
    let error = directory.config().unwrap_err().to_string();
    assert!(error.contains("tls.key") && error.contains(KEY_FLAG), "{error}");
}

#[test]
fn a_pair_counts_at_its_second_read_and_only_once() {
    let print = |number| Fingerprint::Contents([number; 32]);
    let mut changes = Changes { counted: print(1), candidate: None };
    assert!(!changes.should_count(&print(1)));
    // A certificate that is being replaced: new certificate with the old key, then both.
    assert!(!changes.should_count(&print(2)));
    assert!(!changes.should_count(&print(3)));
    assert!(changes.should_count(&print(3)));
    assert!(!changes.should_count(&print(3)));
    // A file that is missing for one read.
    assert!(!changes.should_count(&Fingerprint::Error("no such file".to_owned())));
    assert!(!changes.should_count(&print(3)));
    assert!(!changes.should_count(&Fingerprint::Error("no such file".to_owned())));
    assert!(changes.should_count(&Fingerprint::Error("no such file".to_owned())));
    assert!(!changes.should_count(&print(3)));
    assert!(changes.should_count(&print(3)));
}

#[test]
fn bytes_that_move_between_the_files_change_the_fingerprint() {
    let pair = |certificate: &str, key: &str| Pair {
        certificate: Zeroizing::new(certificate.as_bytes().to_vec()),
        key: Zeroizing::new(key.as_bytes().to_vec()),
    };
    assert_ne!(pair("ab", "c").fingerprint(), pair("a", "bc").fingerprint());
}
