//! GatewaySession: a credential for the gateway that a person makes with kubectl. Pure.

#![allow(clippy::duplicated_attributes, reason = "clippy takes the keys of each printcolumn for one attribute")]

use std::time::Duration;

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command_execution::Requester;
use super::unknown_fields::UnknownFields;

/// Minimum of `spec.expirationSeconds`, in seconds. A shorter session could expire before its first call.
pub const MIN_SESSION_SECONDS: u32 = 60;
/// Maximum and default of `spec.expirationSeconds`, in seconds. A session outlives a lost login by at most this time.
pub const MAX_SESSION_SECONDS: u32 = 3600;
/// Algorithm in front of the digest in `spec.keyDigest`.
const DIGEST_PREFIX: &str = "sha256:";

/// Session of a person at the gateway. Anyone who has the key of the session acts as its creator, until the session
/// expires or is deleted. To make a session, create a random key, and then this object with the digest of the key. To
/// end the session, delete the object. Writ deletes expired sessions.
#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "writ.dev",
    version = "v1alpha1",
    kind = "GatewaySession",
    plural = "gatewaysessions",
    shortname = "gwsession",
    category = "writ",
    namespaced,
    derive = "PartialEq",
    doc = "Session of a person at the gateway: anyone who has its key acts as its creator, until the session expires or is deleted.",
    printcolumn(name = "User", type_ = "string", json_path = ".spec.requestedBy.username"),
    printcolumn(
        name = "Expires",
        type_ = "integer",
        json_path = ".spec.expirationSeconds",
        description = "Lifetime in seconds, from the creation (spec.expirationSeconds)."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
#[serde(rename_all = "camelCase")]
pub struct GatewaySessionSpec {
    /// Digest of the key: `sha256:`, then the SHA-256 of the key in lower case hexadecimal, 71 characters in all. The
    /// key stays with its creator. It has 32 to 256 printable ASCII characters and no white space. Make it with
    /// `openssl rand -hex 32`, because everybody who may read this object can try to guess a weak key. Cannot be
    /// changed.
    #[schemars(length(min = 71, max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub key_digest: String,

    /// Lifetime of the session, in seconds from its creation, 60 to 3600. Default 3600. The gateway notices the end
    /// within 10 s. Cannot be changed.
    #[serde(default = "default_expiration_seconds")]
    #[schemars(range(min = 60, max = 3600))]
    pub expiration_seconds: u32,

    /// Creator of the session, as authenticated by the API server. The gateway acts as this user. Leave the field out:
    /// the admission policies of the API server write it, and refuse every other user. On Kubernetes 1.31 to 1.35,
    /// write the output of `kubectl auth whoami` here. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<Requester>,

    /// Fields that this version does not know. The gateway refuses a session that has some, because a field of a later
    /// version perhaps limits the session.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

fn default_expiration_seconds() -> u32 {
    MAX_SESSION_SECONDS
}

impl GatewaySession {
    /// Returns the time from which the session counts as expired, by the API server's clock. Returns `None` if the
    /// object has no creation time.
    pub fn expires_at(&self) -> Option<Timestamp> {
        session_expiry(self.metadata.creation_timestamp.as_ref()?.0, self.spec.expiration_seconds)
    }

    /// Returns the stored digest of the key. Returns `None` if it is not well-formed.
    pub fn key_digest(&self) -> Option<[u8; 32]> {
        let digits = self.spec.key_digest.strip_prefix(DIGEST_PREFIX)?.as_bytes();
        let nibble = |byte: &u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut digest = [0_u8; 32];
        if digits.len() != 2 * digest.len() {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = (nibble(high)? << 4) | nibble(low)?;
        }
        Some(digest)
    }
}

/// Returns the time from which a session counts as expired. A lifetime outside the bounds of the CRD counts as the
/// nearest bound. Returns `None` if the time cannot be represented.
pub fn session_expiry(created: Timestamp, seconds: u32) -> Option<Timestamp> {
    let seconds = seconds.clamp(MIN_SESSION_SECONDS, MAX_SESSION_SECONDS);
    created.checked_add(Duration::from_secs(u64::from(seconds))).ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn session(spec: serde_json::Value) -> GatewaySession {
        let object = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "GatewaySession", "metadata": {}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_session_expires_at_its_lifetime_and_never_later_than_the_maximum() {
        let created: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        for (seconds, expected) in
            [(90, "2026-11-21T10:01:30Z"), (3600, "2026-11-21T11:00:00Z"), (u32::MAX, "2026-11-21T11:00:00Z")]
        {
            let mut session = session(json!({"keyDigest": "x", "expirationSeconds": seconds}));
            assert_eq!(session.expires_at(), None, "without a creation time");
            session.metadata.creation_timestamp = Some(Time(created));
            assert_eq!(session.expires_at(), Some(expected.parse().unwrap()));
        }
        assert_eq!(session(json!({"keyDigest": "x"})).spec.expiration_seconds, MAX_SESSION_SECONDS);
        assert_eq!(session_expiry(Timestamp::MAX, 60), None);
    }

    #[test]
    fn only_a_well_formed_digest_is_a_digest() {
        let of = |digest: &str| session(json!({"keyDigest": digest})).key_digest();
        let digits = format!("0a{}", "ff".repeat(31));
        assert_eq!(of(&format!("sha256:{digits}")).map(|digest| (digest[0], digest[31])), Some((10, 255)));
        let upper = digits.to_uppercase();
        let wrong = ["", "sha256:", &digits, &format!("sha256:{upper}"), &format!("sha512:{digits}")];
        for digest in wrong.into_iter().chain([format!("sha256:{digits}0").as_str()]) {
            assert_eq!(of(digest), None, "{digest}");
        }
    }

    #[test]
    fn fields_of_a_later_version_are_kept() {
        let session = session(json!({"keyDigest": "x", "limit": {"verbs": ["get"]}}));
        assert_eq!(session.spec.unknown_fields.keys().collect::<Vec<_>>(), ["limit"]);
        assert_eq!(serde_json::to_value(&session).unwrap()["spec"]["limit"]["verbs"], json!(["get"]));
    }
}
