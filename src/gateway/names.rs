//! Names in the API: `command_id`, Machines, namespaces, and the names of new executions. Pure.

use jiff::Timestamp;
use ulid::Ulid;

use super::error::ApiError;

/// Prefix of the names of executions without an Idempotency-Key.
const RUN_PREFIX: &str = "run-";
/// Prefix of the names of executions with an Idempotency-Key.
const KEY_PREFIX: &str = "key-";
/// Characters of the suffix of generated names, as the API server has them (`k8s.io/apimachinery/pkg/util/rand`).
const SUFFIX_CHARACTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of the suffix of generated names.
const SUFFIX_LENGTH: usize = 5;

/// Id of a command in the API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommandId {
    /// `namespace:name`.
    Name {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// UID.
    Uid(String),
}

impl CommandId {
    /// Parses an id.
    ///
    /// # Errors
    /// The text is neither `NAMESPACE:NAME` nor a UID.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if is_uid(text) {
            return Ok(Self::Uid(text.to_owned()));
        }
        match text.split_once(':') {
            Some((namespace, name)) if is_label(namespace) && is_name(name) => {
                Ok(Self::Name { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(ApiError::malformed("command_id must be NAMESPACE:NAME or a UID")),
        }
    }
}

/// Returns the id of an execution.
pub fn command_id(namespace: &str, name: &str) -> String {
    format!("{namespace}:{name}")
}

/// Checks the parameter `namespace`.
///
/// # Errors
/// The text is no name of a namespace.
pub fn check_namespace(text: &str) -> Result<(), ApiError> {
    if is_label(text) {
        return Ok(());
    }
    Err(ApiError::malformed("namespace must have lower case letters, digits and `-` only, at most 63 characters"))
}

/// Returns true if the text has the form of a UID (RFC 9562).
pub fn is_uid(text: &str) -> bool {
    let is_group = |(group, length): (&str, usize)| {
        group.len() == length && group.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    text.split('-').count() == 5 && text.split('-').zip([8, 4, 4, 4, 12]).all(is_group)
}

/// Returns true if the text can be the name of an object.
pub fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| !part.is_empty() && is_part(part))
}

/// Returns true if the text can be the name of a namespace or of a rule.
pub fn is_label(text: &str) -> bool {
    !text.is_empty() && text.len() <= 63 && is_part(text)
}

fn is_part(text: &str) -> bool {
    let is_edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    is_edge(text.bytes().next())
        && is_edge(text.bytes().last())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Name of a new execution.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewName {
    /// Name.
    pub name: String,
    /// Value for `metadata.generateName`. Set if the name never comes again, so that Writ keeps no receipt of it.
    pub generate_name: Option<String>,
}

impl NewName {
    /// Returns a name that never comes again: `run-`, a ULID, and a suffix as the API server generates it. `random`
    /// has 128 random bits.
    pub fn unique(now: Timestamp, random: u128) -> Self {
        let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let ulid = Ulid::from_parts(milliseconds, random).to_string().to_ascii_lowercase();
        let prefix = format!("{RUN_PREFIX}{ulid}");
        // The ULID takes the low 80 bits. The suffix takes bits that the ULID does not have.
        let mut rest = random >> 80;
        let mut name = prefix.clone();
        for _ in 0..SUFFIX_LENGTH {
            let index = usize::try_from(rest % 27).unwrap_or_default();
            name.push(char::from(SUFFIX_CHARACTERS.get(index).copied().unwrap_or(b'x')));
            rest /= 27;
        }
        Self { name, generate_name: Some(prefix) }
    }

    /// Returns the name for a key: the same for the same user, namespace and key.
    pub fn of_key(user: &str, namespace: &str, key: &str) -> Self {
        use sha2::{Digest as _, Sha256};
        // Lengths separate the parts, so that no two triples give the same text.
        let text = format!("{}:{user}{}:{namespace}{}:{key}", user.len(), namespace.len(), key.len());
        let digest = Sha256::digest(text.as_bytes());
        let hexadecimal: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self { name: format!("{KEY_PREFIX}{hexadecimal}"), generate_name: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_or_uids_and_nothing_that_could_change_a_path() {
        let uid = "0a1b2c3d-0000-4000-8000-0123456789ab";
        assert_eq!(CommandId::parse(uid).unwrap(), CommandId::Uid(uid.to_owned()));
        let name = CommandId::Name { namespace: "ops".to_owned(), name: "run-1.x".to_owned() };
        assert_eq!(CommandId::parse("ops:run-1.x").unwrap(), name);
        for text in ["", "ops", ":x", "ops:", "ops:x/status", "ops:..", "Ops:x", "o.ps:x", "ops:x:y", "ops:%2e", "a:-b"]
        {
            assert!(CommandId::parse(text).is_err(), "{text}");
        }
        assert!(!is_uid("0a1b2c3d-0000-4000-8000-0123456789abc") && !is_uid("0A1B2C3D-0000-4000-8000-0123456789ab"));
    }

    #[test]
    fn a_unique_name_counts_as_generated_and_sorts_by_time() {
        let at = |milliseconds: i64| Timestamp::from_millisecond(milliseconds).unwrap();
        let (first, second) = (NewName::unique(at(1_000), u128::MAX), NewName::unique(at(2_000), 7));
        assert!(first.name < second.name, "{} {}", first.name, second.name);
        let prefix = first.generate_name.clone().unwrap();
        assert!(first.name.starts_with(&prefix) && first.name.len() == prefix.len() + SUFFIX_LENGTH);
        assert!(is_name(&first.name) && prefix.len() <= 58, "{first:?}");
        assert_ne!(NewName::unique(at(1_000), 7).name, NewName::unique(at(1_000), 8).name);
    }

    #[test]
    fn the_name_of_a_key_depends_on_user_namespace_and_key() {
        let of = |user: &str, namespace: &str, key: &str| NewName::of_key(user, namespace, key).name;
        assert_eq!(of("jane", "ops", "k"), of("jane", "ops", "k"));
        assert_eq!(of("jane", "ops", "k").len(), 4 + 32);
        let others = [of("joe", "ops", "k"), of("jane", "dev", "k"), of("jane", "ops", "l"), of("jan", "eops", "k")];
        assert!(others.iter().all(|other| *other != of("jane", "ops", "k")));
    }
}
