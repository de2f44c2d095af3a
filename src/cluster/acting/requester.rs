//! Checks if Writ may act for a caller, and returns the impersonation headers of the caller. Pure.
//!
//! The API server trims header values and changes extra keys to lower case. A header could therefore name another
//! identity. For example, the group ` sre` would become `sre`. This module refuses:
//!
//! - callers that headers cannot name exactly
//! - identities that must not call Writ, for example members of `system:masters`, who have every right

use http::{HeaderName, HeaderValue};
use k8s_openapi::api::authentication::v1::UserInfo;

/// Maximum length of a user name in bytes, as in `spec.requestedBy`.
const MAX_USERNAME_BYTES: usize = 1024;
/// Maximum length of a UID or a group in bytes, as in `spec.requestedBy`.
const MAX_TEXT_BYTES: usize = 256;
/// Maximum number of groups, as in `spec.requestedBy`.
const MAX_GROUPS: usize = 512;
/// Maximum number of extra values that Writ forwards.
const MAX_EXTRA_VALUES: usize = 32;
/// Maximum length of all headers of one caller, in bytes. The API server's limit for all headers of a request is 1 MiB.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Writ does not forward keys of `extra` with this prefix. The API server's own authenticators set these keys to
/// describe a token, not the user.
const AUTHENTICATOR_KEYS: &str = "authentication.kubernetes.io/";
/// Key and value of `extra` that mark a call through Writ, for admission policies and for the audit log.
const VIA: (&str, &str) = ("writ.dev/via", "gateway");
/// Prefix of user names that belong to Kubernetes.
const SYSTEM: &str = "system:";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
const SERVICE_ACCOUNT_GROUP: &str = "system:serviceaccounts:";
/// Groups that Kubernetes never gives to a person.
const GROUPS_OF_NO_PERSON: [&str; 4] =
    ["system:nodes", "system:unauthenticated", "system:bootstrappers", "system:serviceaccounts"];

/// Reason why Writ does not act for a caller.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequesterError {
    /// A part of the identity is empty.
    #[error("{0} of the caller must not be empty")]
    Empty(&'static str),
    /// A part of the identity begins or ends with white space, or contains control characters. If a header contained
    /// this part, the API server would read a different text.
    #[error(
        "{part} {text:?} of the caller must not begin or end with white space, and must not contain control characters"
    )]
    Ambiguous {
        /// The part.
        part: &'static str,
        /// The text of this part.
        text: String,
    },
    /// A part of the identity is too long, or has too many entries.
    #[error("{part} of the caller must have at most {max} {unit}")]
    TooLarge {
        /// The part.
        part: &'static str,
        /// Maximum length or number.
        max: usize,
        /// Unit of the number, for the message.
        unit: &'static str,
    },
    /// The caller is in the group `system:masters`. The API server allows nobody to act for a member of this group.
    #[error("a member of the group system:masters must use kubectl: nobody can act for this group")]
    Masters,
    /// The user belongs to Kubernetes.
    #[error("user {0:?} must not be a system user, except a ServiceAccount")]
    SystemUser(String),
    /// The group belongs to Kubernetes.
    #[error("group {0:?} must not belong to this caller")]
    SystemGroup(String),
    /// The ServiceAccount belongs to Writ or to Kubernetes.
    #[error("Writ must not act for {0}: ServiceAccounts in its own namespace and in kube-system are no callers")]
    ProtectedServiceAccount(String),
    /// The caller is the identity of this process.
    #[error("Writ must not act for itself ({0})")]
    OwnIdentity(String),
    /// The caller has a key of `extra` that Writ may not forward. Writ cannot omit this key, because the key perhaps
    /// restricts the caller's rights.
    #[error(
        "extra key {0:?} of the caller must be listed as one that is forwarded: without it the caller may have more rights"
    )]
    UnknownExtraKey(String),
}

/// A caller for whom Writ may act.
#[derive(Clone, Debug)]
pub(super) struct CheckedRequester {
    pub name: String,
    pub is_service_account: bool,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Checks a caller that the API server has authenticated, and returns the headers of a call for this caller.
///
/// `own_name` is the user name of this process. `extra_keys` are the keys of a person's `extra` that Writ may forward.
pub(super) fn check(
    caller: &UserInfo,
    own_name: &str,
    extra_keys: &[String],
) -> Result<CheckedRequester, RequesterError> {
    let name = caller.username.clone().unwrap_or_default();
    let groups = caller.groups.as_deref().unwrap_or_default();
    check_text("the user name", &name, MAX_USERNAME_BYTES)?;
    if groups.len() > MAX_GROUPS {
        return Err(RequesterError::TooLarge { part: "the groups", max: MAX_GROUPS, unit: "entries" });
    }
    groups.iter().try_for_each(|group| check_text("a group", group, MAX_TEXT_BYTES))?;
    if groups.iter().any(|group| group == "system:masters") {
        return Err(RequesterError::Masters);
    }
    if name == own_name {
        return Err(RequesterError::OwnIdentity(name));
    }
    let account = service_account(&name);
    match account {
        Some((namespace, _)) => check_service_account(&name, namespace, groups, own_name)?,
        None if name.starts_with(SYSTEM) => return Err(RequesterError::SystemUser(name)),
        None => check_groups_of_person(groups)?,
    }
    let extra = forwarded_extra(caller, account.is_some(), extra_keys)?;
    let mut headers = Headers::default();
    headers.push("impersonate-user", &name)?;
    // For a ServiceAccount, the API server accepts only the header with the user name, and adds the groups itself.
    if account.is_none() {
        if let Some(uid) = caller.uid.as_deref().filter(|uid| !uid.is_empty()) {
            check_text("the UID", uid, MAX_TEXT_BYTES)?;
            headers.push("impersonate-uid", uid)?;
        }
        groups.iter().try_for_each(|group| headers.push("impersonate-group", group))?;
        for (key, value) in extra.into_iter().chain([VIA]) {
            headers.push(&format!("impersonate-extra-{}", escape_key(key)), value)?;
        }
    }
    let is_service_account = account.is_some();
    Ok(CheckedRequester { name, is_service_account, headers: headers.all })
}

/// Refuses an empty text, a text of more than `max` bytes, and a text that the API server would change in a header.
fn check_text(part: &'static str, text: &str, max: usize) -> Result<(), RequesterError> {
    if text.is_empty() {
        return Err(RequesterError::Empty(part));
    }
    if text.len() > max {
        return Err(RequesterError::TooLarge { part, max, unit: "bytes" });
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(RequesterError::Ambiguous { part, text: text.to_owned() });
    }
    Ok(())
}

/// Returns namespace and name if `user` is the well-formed user name of a ServiceAccount, else `None`.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    let is_edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = |text: &str, others: &[u8]| {
        let bytes = text.as_bytes();
        let are_allowed = bytes.iter().all(|byte| is_edge(*byte) || others.contains(byte));
        are_allowed && bytes.first().copied().is_some_and(is_edge) && bytes.last().copied().is_some_and(is_edge)
    };
    (is_name(namespace, b"-") && is_name(name, b"-.")).then_some((namespace, name))
}

fn check_service_account(name: &str, namespace: &str, groups: &[String], own_name: &str) -> Result<(), RequesterError> {
    let own_namespace = service_account(own_name).map(|(namespace, _)| namespace);
    if namespace == "kube-system" || Some(namespace) == own_namespace {
        return Err(RequesterError::ProtectedServiceAccount(name.to_owned()));
    }
    let is_foreign = |group: &&String| group.strip_prefix(SERVICE_ACCOUNT_GROUP).is_some_and(|of| of != namespace);
    groups.iter().find(is_foreign).map_or(Ok(()), |group| Err(RequesterError::SystemGroup(group.clone())))
}

fn check_groups_of_person(groups: &[String]) -> Result<(), RequesterError> {
    let is_refused =
        |group: &&String| GROUPS_OF_NO_PERSON.contains(&group.as_str()) || group.starts_with(SERVICE_ACCOUNT_GROUP);
    groups.iter().find(is_refused).map_or(Ok(()), |group| Err(RequesterError::SystemGroup(group.clone())))
}

/// Returns the extra values to forward. If Writ may not forward a key, refuses the caller, because the key perhaps
/// restricts the caller's rights.
fn forwarded_extra<'a>(
    caller: &'a UserInfo,
    is_service_account: bool,
    extra_keys: &[String],
) -> Result<Vec<(&'a str, &'a str)>, RequesterError> {
    let mut forwarded = Vec::new();
    for (key, values) in caller.extra.iter().flatten() {
        if key.starts_with(AUTHENTICATOR_KEYS) {
            continue;
        }
        // Upper-case letters are refused, because the API server changes keys to lower case. For example, `Scopes`
        // would become `scopes`.
        let is_known = extra_keys.contains(key) && !key.bytes().any(|byte| byte.is_ascii_uppercase());
        if is_service_account || !is_known || key == VIA.0 {
            return Err(RequesterError::UnknownExtraKey(key.chars().take(MAX_TEXT_BYTES).collect()));
        }
        for value in values {
            check_text("an extra value", value, MAX_USERNAME_BYTES)?;
            forwarded.push((key.as_str(), value.as_str()));
        }
    }
    if forwarded.len() > MAX_EXTRA_VALUES {
        return Err(RequesterError::TooLarge { part: "the extra values", max: MAX_EXTRA_VALUES, unit: "entries" });
    }
    Ok(forwarded)
}

/// Escapes an extra key for use in a header name (RFC 3986). The API server decodes the escapes.
fn escape_key(key: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") };
    key.bytes().map(escape).collect()
}

/// Headers of one caller, at most [`MAX_HEADER_BYTES`].
#[derive(Default)]
struct Headers {
    all: Vec<(HeaderName, HeaderValue)>,
    bytes: usize,
}

impl Headers {
    fn push(&mut self, name: &str, value: &str) -> Result<(), RequesterError> {
        self.bytes += name.len() + value.len();
        if self.bytes > MAX_HEADER_BYTES {
            return Err(RequesterError::TooLarge { part: "the identity", max: MAX_HEADER_BYTES, unit: "bytes" });
        }
        let ambiguous = || RequesterError::Ambiguous { part: "the identity", text: value.to_owned() };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| ambiguous())?;
        let mut value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| ambiguous())?;
        // Hides the value in debug output, because it can be a group of the caller.
        value.set_sensitive(true);
        self.all.push((name, value));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
