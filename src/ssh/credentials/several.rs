//! Several keys of one Secret. Writ tries the keys in their order, so that a user can replace a key machine by machine.

use std::fmt;

use super::{Credentials, CredentialsError};

/// One key of a Secret, with its passphrase and its certificate. The type cannot be printed.
pub struct KeyEntry<'a> {
    /// Suffix of the names of the key's entries (`ssh-privatekey`, `ssh-certificate`): empty, or for example `-2`.
    pub suffix: &'static str,
    /// The private key.
    pub private_key: &'a [u8],
    /// Passphrase of the private key.
    pub passphrase: Option<&'a [u8]>,
    /// Certificate for the key.
    pub certificate: Option<&'a [u8]>,
}

/// Error of one key of a Secret.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct EntryError {
    /// Suffix of the names of the key's entries.
    pub suffix: &'static str,
    /// The error.
    pub error: CredentialsError,
}

impl fmt::Display for EntryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.error.to_string();
        if self.suffix.is_empty() {
            return formatter.write_str(&text);
        }
        let named = ["ssh-privatekey", "ssh-certificate"]
            .into_iter()
            .fold(text, |text, name| text.replace(name, &format!("{name}{}", self.suffix)));
        formatter.write_str(&named)
    }
}

impl Credentials {
    /// Reads the keys of a Secret. Skips these keys:
    ///
    /// - a key that an earlier entry holds with the same certificate
    /// - a key whose certificate is not valid now, if another key can be used
    ///
    /// # Errors
    /// The first error. If no key can be used, the first certificate that is not valid now is an error.
    ///
    /// # Caveats
    /// Blocks like [`Credentials::parse`].
    pub fn parse_all<'a>(entries: impl IntoIterator<Item = KeyEntry<'a>>) -> Result<Self, EntryError> {
        let mut usable: Vec<Self> = Vec::new();
        let mut untimely = None;
        for KeyEntry { suffix, private_key, passphrase, certificate } in entries {
            match Self::parse(private_key, passphrase, certificate) {
                Ok(key) if usable.iter().any(|other| other.is_same(&key)) => {}
                Ok(key) => usable.push(Self { suffix, ..key }),
                Err(
                    error @ (CredentialsError::CertificateExpired(_) | CredentialsError::CertificateNotYetValid(_)),
                ) => {
                    untimely.get_or_insert(EntryError { suffix, error });
                }
                Err(error) => return Err(EntryError { suffix, error }),
            }
        }
        let mut usable = usable.into_iter();
        match (usable.next(), untimely) {
            (Some(first), _) => Ok(Self { further: usable.collect(), ..first }),
            (None, Some(untimely)) => Err(untimely),
            (None, None) => Err(EntryError { suffix: "", error: CredentialsError::Unparsable }),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let certificate = |key: &Self| key.certificate.as_ref().map(|certificate| certificate.signature().to_owned());
        self.key.public_key().key_data() == other.key.public_key().key_data() && certificate(self) == certificate(other)
    }

    /// Returns all keys, in the order in which they are tried.
    pub fn in_order(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.further.iter())
    }

    /// Returns the name of the private key's entry in the Secret.
    pub fn entry(&self) -> String {
        format!("ssh-privatekey{}", self.suffix)
    }

    /// Returns the keys that are valid now, in their order. Returns an error if no key is valid now.
    pub(in crate::ssh) fn usable_now(&self) -> Result<Vec<&Self>, CredentialsError> {
        let usable: Vec<&Self> = self.in_order().filter(|key| key.check_now().is_ok()).collect();
        if usable.is_empty() {
            self.check_now()?;
        }
        Ok(usable)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ENCRYPTED, PKCS8};
    use super::*;

    fn entry<'a>(suffix: &'static str, key: &'a str, passphrase: Option<&'a str>) -> KeyEntry<'a> {
        let passphrase = passphrase.map(str::as_bytes);
        KeyEntry { suffix, private_key: key.as_bytes(), passphrase, certificate: None }
    }

    #[test]
    fn keys_are_tried_in_their_order_and_each_once() {
        let secret = Some("correct horse");
        let all = [entry("", PKCS8, secret), entry("-2", ENCRYPTED, secret), entry("-3", PKCS8, secret)];
        let credentials = Credentials::parse_all(all).unwrap();
        let entries: Vec<String> = credentials.in_order().map(Credentials::entry).collect();
        assert_eq!(entries, ["ssh-privatekey", "ssh-privatekey-2"]);
        let alone = Credentials::parse(PKCS8.as_bytes(), secret.map(str::as_bytes), None).unwrap();
        assert_eq!(credentials.fingerprint(), alone.fingerprint());
        assert_eq!(credentials.usable_now().unwrap().len(), 2);
    }

    #[test]
    fn a_key_that_cannot_be_used_is_named_by_its_entry() {
        let secret = Some("correct horse");
        let error = Credentials::parse_all([entry("", PKCS8, secret), entry("-2", "x", secret)]).unwrap_err();
        assert!(error.to_string().starts_with("ssh-privatekey-2 does not parse"), "{error}");
        let error = Credentials::parse_all([entry("", PKCS8, secret), entry("-3", ENCRYPTED, None)]).unwrap_err();
        assert!(error.to_string().starts_with("ssh-privatekey-3 is encrypted"), "{error}");
        let error = Credentials::parse_all([entry("", "x", None)]).unwrap_err();
        assert!(error.to_string().starts_with("ssh-privatekey does not parse"), "{error}");
        assert!(Credentials::parse_all([]).is_err());
    }
}
