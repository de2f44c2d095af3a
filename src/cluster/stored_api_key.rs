//! API keys as their Secrets store them: the digest of the key, the user for whom the gateway acts, and the expiry.
//! Pure: the time is an argument.
//!
//! # Guarantees
//! 1. The user and the groups are exactly the texts that the admission policy `writ-api-keys` has checked. The policy
//!    cannot parse JSON, so the groups have only one form.
//! 2. A key never acts for an identity that belongs to Kubernetes (`system:`).
//! 3. Digests are compared in constant time.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::UserInfo;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use subtle::ConstantTimeEq as _;

use crate::api::ApiKey;
use crate::api::api_key::{
    API_KEY_DIGEST_ENTRY, API_KEY_EXPIRES_ANNOTATION, API_KEY_GROUPS_ANNOTATION, API_KEY_LABEL, API_KEY_NAME_LABEL,
    API_KEY_RATE_ANNOTATION, API_KEY_TYPE, API_KEY_USER_ANNOTATION,
};

/// Maximum number of groups. The API server limits the cost of an admission policy to 28 checks of a right, and each
/// group needs one check.
pub const MAX_API_KEY_GROUPS: usize = 16;
/// Maximum lifetime of a key. The policy has the same bound. It is a day longer than the maximum of
/// `writ api-key create`, so that the clocks of two hosts may differ.
const MAX_LIFETIME: SignedDuration = SignedDuration::from_hours(366 * 24);
/// Maximum number of commands in 60 s that a key can permit. Writ keeps the time of each of these commands in memory.
const MAX_COMMANDS_PER_MINUTE: u32 = 600;
/// Maximum length of a user name in bytes, as in `spec.requestedBy`.
const MAX_USER_BYTES: usize = 1024;
/// Maximum length of a group in bytes, as in `spec.requestedBy`.
const MAX_GROUP_BYTES: usize = 256;
/// Maximum length of a label's value in Kubernetes, in bytes.
const MAX_NAME_BYTES: usize = 63;
/// Prefix of identities that belong to Kubernetes.
const SYSTEM: &str = "system:";
/// Group of every user that the API server has authenticated.
const AUTHENTICATED: &str = "system:authenticated";

/// The user and the limits of an API key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiKeyGrant {
    /// Name by which people list and revoke the key: a DNS label.
    pub name: String,
    /// User for whom the gateway acts.
    pub user: String,
    /// Groups of the user, without `system:authenticated`.
    pub groups: Vec<String>,
    /// Time from which the key is refused, in whole seconds.
    pub expires_at: Timestamp,
    /// Maximum number of commands in 60 s, 1 to 600. `None`: the gateway's own limit.
    pub commands_per_minute: Option<u32>,
}

/// An API key, as read from its Secret.
#[derive(Clone)]
pub struct StoredApiKey {
    /// User and limits.
    pub grant: ApiKeyGrant,
    /// Creation time of the Secret.
    pub created_at: Timestamp,
    /// UID of the Secret.
    pub uid: String,
    digest: [u8; 32],
}

/// Reason why a Secret is no API key. The message contains no value from the Secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{part} {rule}")]
pub struct StoredKeyError {
    part: &'static str,
    rule: &'static str,
}

const TYPE: &str = "the type";
const LABEL: &str = "the label writ.dev/api-key";
const CREATED: &str = "creationTimestamp";
const DIGEST: &str = "the entry digest";
const NAME: &str = "the name (label writ.dev/api-key-name)";
const USER: &str = "the user (annotation writ.dev/api-key-user)";
const GROUPS: &str = "the groups (annotation writ.dev/api-key-groups)";
const GROUP: &str = "each group (annotation writ.dev/api-key-groups)";
const EXPIRES: &str = "the expiry (annotation writ.dev/api-key-expires)";
const RATE: &str = "the number of commands (annotation writ.dev/api-key-commands-per-minute)";

/// Returns the error for a part that breaks a rule.
fn refuse(part: &'static str, rule: &'static str) -> StoredKeyError {
    StoredKeyError { part, rule }
}

fn require(is_met: bool, part: &'static str, rule: &'static str) -> Result<(), StoredKeyError> {
    if is_met { Ok(()) } else { Err(refuse(part, rule)) }
}

impl ApiKeyGrant {
    /// Checks user, groups and limits. The lifetime is checked when the Secret is read, because it begins with the
    /// creation.
    ///
    /// # Errors
    /// The first part that breaks a rule.
    pub fn check(&self) -> Result<(), StoredKeyError> {
        require(is_api_key_name(&self.name), NAME, "must have 1 to 63 lower case letters, digits and `-`")?;
        check_identity(USER, &self.user)?;
        require(self.user.len() <= MAX_USER_BYTES, USER, "must have at most 1024 bytes")?;
        require(self.groups.len() <= MAX_API_KEY_GROUPS, GROUPS, "must have at most 16 entries")?;
        for group in &self.groups {
            check_identity(GROUP, group)?;
            require(group.len() <= MAX_GROUP_BYTES, GROUP, "must have at most 256 bytes")?;
            require(!group.contains(['"', '\\']), GROUP, "must not contain `\"` and `\\`")?;
        }
        let is_whole = self.expires_at.subsec_nanosecond() == 0;
        require(is_whole, EXPIRES, "must be a time in whole seconds")?;
        let is_bounded = self.commands_per_minute.is_none_or(|rate| (1..=MAX_COMMANDS_PER_MINUTE).contains(&rate));
        require(is_bounded, RATE, "must be 1 to 600")
    }

    /// Returns the Secret that stores a key with this grant. The Secret contains the digest of the key, not the key.
    pub fn to_secret(&self, key: &ApiKey) -> Secret {
        let labels = [(API_KEY_LABEL, "true"), (API_KEY_NAME_LABEL, self.name.as_str())];
        let (groups, expires) = (groups_text(&self.groups), self.expires_at.to_string());
        let rate = self.commands_per_minute.map(|rate| rate.to_string());
        let mut annotations = BTreeMap::from([
            (API_KEY_USER_ANNOTATION.to_owned(), self.user.clone()),
            (API_KEY_GROUPS_ANNOTATION.to_owned(), groups),
            (API_KEY_EXPIRES_ANNOTATION.to_owned(), expires),
        ]);
        annotations.extend(rate.map(|rate| (API_KEY_RATE_ANNOTATION.to_owned(), rate)));
        let digest = key.digest().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Secret {
            metadata: ObjectMeta {
                name: Some(key.secret_name()),
                labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            type_: Some(API_KEY_TYPE.to_owned()),
            data: Some(BTreeMap::from([(API_KEY_DIGEST_ENTRY.to_owned(), ByteString(digest.into_bytes()))])),
            immutable: Some(true),
            ..Secret::default()
        }
    }
}

impl StoredApiKey {
    /// Returns the key of a Secret.
    ///
    /// # Errors
    /// The Secret is no API key, or breaks a rule for API keys.
    pub fn from_secret(secret: &Secret) -> Result<Self, StoredKeyError> {
        let metadata = &secret.metadata;
        let find = |map: &'_ Option<BTreeMap<String, String>>, key: &str| map.as_ref()?.get(key).cloned();
        let annotation = |key, part| find(&metadata.annotations, key).ok_or(refuse(part, "must exist"));
        require(secret.type_.as_deref() == Some(API_KEY_TYPE), TYPE, "must be writ.dev/api-key")?;
        let label = find(&metadata.labels, API_KEY_LABEL);
        require(label.as_deref() == Some("true"), LABEL, "must be `true`")?;
        let grant = ApiKeyGrant {
            name: find(&metadata.labels, API_KEY_NAME_LABEL).ok_or(refuse(NAME, "must exist"))?,
            user: annotation(API_KEY_USER_ANNOTATION, USER)?,
            groups: parse_groups(&annotation(API_KEY_GROUPS_ANNOTATION, GROUPS)?)?,
            expires_at: parse_expiry(&annotation(API_KEY_EXPIRES_ANNOTATION, EXPIRES)?)?,
            commands_per_minute: match find(&metadata.annotations, API_KEY_RATE_ANNOTATION) {
                Some(text) => Some(parse_rate(&text)?),
                None => None,
            },
        };
        grant.check()?;
        let created_at = metadata.creation_timestamp.as_ref().ok_or(refuse(CREATED, "must exist"))?.0;
        let lifetime = grant.expires_at.duration_since(created_at);
        require(lifetime <= MAX_LIFETIME, EXPIRES, "must be at most 366 days after the creation")?;
        let entry = secret.data.as_ref().and_then(|data| data.get(API_KEY_DIGEST_ENTRY));
        let digest = entry.and_then(|entry| parse_digest(&entry.0));
        let digest = digest.ok_or(refuse(DIGEST, "must be a SHA-256 in lower case hexadecimal"))?;
        Ok(Self { grant, created_at, uid: metadata.uid.clone().unwrap_or_default(), digest })
    }

    /// Returns true if the Secret stores this key. Takes the same time for each key.
    pub fn verify(&self, key: &ApiKey) -> bool {
        self.digest.ct_eq(&key.digest()).into()
    }

    /// Returns true if the key must be refused at this time.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.grant.expires_at
    }

    /// Returns true if the key was created after a time, so that an admission policy that is in force since then has
    /// checked the key.
    pub fn is_created_after(&self, since: Timestamp) -> bool {
        self.created_at > since
    }

    /// Returns the identity for which the gateway acts.
    pub fn user_info(&self) -> UserInfo {
        let groups = self.grant.groups.iter().cloned().chain([AUTHENTICATED.to_owned()]);
        UserInfo { username: Some(self.grant.user.clone()), groups: Some(groups.collect()), ..UserInfo::default() }
    }
}

impl fmt::Debug for StoredApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StoredApiKey({})", self.grant.name)
    }
}

/// Returns true if a text can be the name of an API key: a DNS label.
pub fn is_api_key_name(text: &str) -> bool {
    let is_edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= MAX_NAME_BYTES
        && text.bytes().all(|byte| is_edge(byte) || byte == b'-')
        && text.bytes().next().is_some_and(is_edge)
        && text.bytes().next_back().is_some_and(is_edge)
}

/// Refuses a user or group that is empty, that a header could not carry unchanged, or that belongs to Kubernetes.
fn check_identity(part: &'static str, text: &str) -> Result<(), StoredKeyError> {
    require(!text.is_empty(), part, "must not be empty")?;
    require(text.trim() == text, part, "must not begin or end with white space")?;
    require(!text.chars().any(char::is_control), part, "must not contain control characters")?;
    require(!text.starts_with(SYSTEM), part, "must not begin with `system:`")
}

/// Returns the groups as a JSON array without white space.
fn groups_text(groups: &[String]) -> String {
    serde_json::Value::from(groups).to_string()
}

/// Parses the groups. Refuses every JSON array except the text that [`groups_text`] writes, because the admission
/// policy reads only that form.
fn parse_groups(text: &str) -> Result<Vec<String>, StoredKeyError> {
    let error = refuse(GROUPS, "must be a JSON array of texts without white space between them, for example [\"sre\"]");
    let groups: Vec<String> = serde_json::from_str(text).map_err(|_| error)?;
    if groups_text(&groups) == text { Ok(groups) } else { Err(error) }
}

/// Parses the expiry. Refuses every form except `2026-11-21T10:00:00Z`, because the admission policy must read the same
/// time.
fn parse_expiry(text: &str) -> Result<Timestamp, StoredKeyError> {
    let error = refuse(EXPIRES, "must be a time in whole seconds, for example 2026-11-21T10:00:00Z");
    let time: Timestamp = text.parse().map_err(|_| error)?;
    if time.to_string() == text && text.len() == "2026-11-21T10:00:00Z".len() { Ok(time) } else { Err(error) }
}

fn parse_rate(text: &str) -> Result<u32, StoredKeyError> {
    let rate: Option<u32> = text.parse().ok();
    rate.filter(|rate| rate.to_string() == text).ok_or(refuse(RATE, "must be 1 to 600"))
}

/// Returns the digest from its 64 hexadecimal digits.
fn parse_digest(text: &[u8]) -> Option<[u8; 32]> {
    let nibble = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut digest = [0_u8; 32];
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = (nibble(high)? << 4) | nibble(low)?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests;
