//! Text of the credential of a session: `namespace/name/key`. Pure.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::names::{is_label, is_name};

/// Minimum length of a key, in bytes. Everybody who may read sessions can try to guess the key of a digest, and 32
/// hexadecimal digits have 128 bits.
const MIN_KEY_BYTES: usize = 32;
/// Maximum length of a key, in bytes. A longer key is not more secure.
const MAX_KEY_BYTES: usize = 256;

/// Names of a session, and its key. Cannot be printed.
#[derive(Clone)]
pub struct SessionCredential {
    namespace: String,
    name: String,
    key: Zeroizing<String>,
}

impl fmt::Debug for SessionCredential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SessionCredential(..)")
    }
}

impl SessionCredential {
    /// Parses `namespace/name/key`. The key may contain `/`, as base64 does. Returns `None` for any other text, so that
    /// no text reaches the path of a request unless it is a name.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, rest) = text.split_once('/')?;
        let (name, key) = rest.split_once('/')?;
        let is_key =
            (MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|it| it.is_ascii_graphic());
        (is_label(namespace) && is_name(name) && is_key).then(|| Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: Zeroizing::new(key.to_owned()),
        })
    }

    /// Returns the namespace of the session.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns the name of the session.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the SHA-256 of the key, as `spec.keyDigest` has it.
    pub fn key_digest(&self) -> [u8; 32] {
        Sha256::digest(self.key.as_bytes()).into()
    }

    /// Returns the SHA-256 of the whole credential, under which caches keep it.
    pub fn digest(&self) -> [u8; 32] {
        // No name contains `/`, so no two credentials give the same text.
        let names = Sha256::new_with_prefix("session\0").chain_update(&self.namespace).chain_update("/");
        names.chain_update(&self.name).chain_update("/").chain_update(self.key.as_bytes()).finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_session_has_two_names_and_a_key() {
        for key in [KEY.to_owned(), "a/b+c=".repeat(6), "~".repeat(MAX_KEY_BYTES)] {
            let session = SessionCredential::parse(&format!("ops/jane-1.x/{key}")).unwrap();
            assert_eq!((session.namespace(), session.name(), session.key.as_str()), ("ops", "jane-1.x", key.as_str()));
        }
        // `printf %s 0123456789abcdef0123456789abcdef | sha256sum`, by an independent program.
        let session = SessionCredential::parse(&format!("ops/x/{KEY}")).unwrap();
        let digest: String = session.key_digest().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, "3eb1bd439947eb762998e566ccc2e099c791118b2f40579cc4f7da2b5061b7f9");
        assert_eq!(format!("{session:?}"), "SessionCredential(..)");
    }

    #[test]
    fn hostile_texts_are_no_session() {
        let long = "x".repeat(MAX_KEY_BYTES + 1);
        for text in [
            "",
            "/",
            "//",
            "ops/x",
            &format!("ops/{KEY}"),
            &format!("/x/{KEY}"),
            &format!("ops//{KEY}"),
            &format!("../x/{KEY}"),
            &format!("ops/../{KEY}"),
            &format!("ops/x?watch=1/{KEY}"),
            &format!("ops/x%2f/{KEY}"),
            &format!("OPS/x/{KEY}"),
            &format!("o.ps/x/{KEY}"),
            &format!("{}/x/{KEY}", "o".repeat(64)),
            &format!("ops/{}/{KEY}", "x".repeat(254)),
            &format!("ops/x/{}", &KEY[1..]),
            &format!("ops/x/{long}"),
            &format!("ops/x/{KEY} "),
            &format!("ops/x/{KEY}\n"),
            &format!("ops/x/{KEY}\0"),
            &format!("ops/x/{KEY}\u{e9}"),
        ] {
            assert!(SessionCredential::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn the_digest_for_caches_depends_on_each_part() {
        let of = |text: &str| SessionCredential::parse(text).unwrap().digest();
        let one = of(&format!("ops/x/{KEY}"));
        assert_eq!(one, of(&format!("ops/x/{KEY}")));
        for other in [format!("dev/x/{KEY}"), format!("ops/y/{KEY}"), format!("ops/x/{KEY}0")] {
            assert_ne!(one, of(&other), "{other}");
        }
    }
}
