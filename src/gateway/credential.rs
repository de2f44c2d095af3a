//! Finds the credential in the headers of a request. Pure.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, SEC_WEBSOCKET_PROTOCOL};
use zeroize::Zeroizing;

use super::session_credential::SessionCredential;

/// Header with an API key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Header with a session: `namespace/name/key`.
const SESSION: HeaderName = HeaderName::from_static("x-writ-session");
/// Subprotocol that the server selects for WebSockets of browsers.
pub const SUBPROTOCOL: &str = "v1.writ.dev";
/// Prefix of the subprotocol with a browser's credential. The API server of Kubernetes has the same form.
const BEARER_SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
/// Prefix of an API key.
const API_KEY_PREFIX: &str = "writ_";
/// Prefix of a session in a place for all credentials. No bearer token contains `:` (RFC 6750, section 2.1).
const SESSION_PREFIX: &str = "writ-session:";
/// Maximum length of a credential, in bytes. Tokens with many claims take a few KiB.
const MAX_BYTES: usize = 16_384;

/// Credential of a request. Cannot be printed.
#[derive(Clone)]
pub enum Credential {
    /// Text of an API key.
    ApiKey(Zeroizing<String>),
    /// Bearer token.
    Token(Zeroizing<String>),
    /// Names and key of a session.
    Session(SessionCredential),
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ApiKey(_) => "ApiKey",
            Self::Token(_) => "Token",
            Self::Session(_) => "Session",
        })
    }
}

impl Credential {
    /// Returns the credential of a request. Returns `None` if there is none, if there are several, or if it is not
    /// well-formed. The query string and the path never have a credential, because proxies log them.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut found = Vec::new();
        for value in headers.get_all(&API_KEY) {
            found.push(Self::from_text(value.to_str().ok()?)?);
        }
        for value in headers.get_all(&SESSION) {
            found.push(Self::Session(SessionCredential::parse(value.to_str().ok()?.trim())?));
        }
        for value in headers.get_all(AUTHORIZATION) {
            let (scheme, text) = value.to_str().ok()?.split_once(' ')?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return None;
            }
            found.push(Self::from_text(text)?);
        }
        let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        for encoded in
            protocols.flat_map(|list| list.split(',')).filter_map(|one| one.trim().strip_prefix(BEARER_SUBPROTOCOL))
        {
            let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?);
            found.push(Self::from_text(std::str::from_utf8(&decoded).ok()?)?);
        }
        let only = found.pop()?;
        found.is_empty().then_some(only)
    }

    fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > MAX_BYTES || !is_visible {
            return None;
        }
        if let Some(session) = text.strip_prefix(SESSION_PREFIX) {
            return SessionCredential::parse(session).map(Self::Session);
        }
        let secret = Zeroizing::new(text.to_owned());
        Some(if text.starts_with(API_KEY_PREFIX) { Self::ApiKey(secret) } else { Self::Token(secret) })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn found(headers: &[(HeaderName, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        Credential::from_headers(&map).map(|credential| match &credential {
            Credential::ApiKey(text) => format!("{credential:?} {}", text.as_str()),
            Credential::Token(text) => format!("{credential:?} {}", text.as_str()),
            Credential::Session(session) => format!("{credential:?} {}/{}", session.namespace(), session.name()),
        })
    }

    #[test]
    fn one_credential_is_found_in_each_place() {
        let subprotocols = |text: &str| format!("{SUBPROTOCOL}, {BEARER_SUBPROTOCOL}{}", URL_SAFE_NO_PAD.encode(text));
        let (encoded, session) = (subprotocols("writ_a"), format!("ops/jane/{KEY}"));
        let encoded_session = subprotocols(&format!("{SESSION_PREFIX}{session}"));
        for (header, value, expected) in [
            (API_KEY, "writ_a", "ApiKey writ_a"),
            (AUTHORIZATION, "Bearer writ_a", "ApiKey writ_a"),
            (AUTHORIZATION, "bearer ey.a.b", "Token ey.a.b"),
            (SEC_WEBSOCKET_PROTOCOL, &encoded, "ApiKey writ_a"),
            (SESSION, &session, "Session ops/jane"),
            (SEC_WEBSOCKET_PROTOCOL, &encoded_session, "Session ops/jane"),
        ] {
            assert_eq!(found(&[(header, value)]).as_deref(), Some(expected));
        }
    }

    #[test]
    fn none_several_and_broken_credentials_are_no_credential() {
        let broken = format!("{BEARER_SUBPROTOCOL}***");
        let long = format!("Bearer {}", "x".repeat(MAX_BYTES + 1));
        let (session, huge) = (format!("ops/jane/{KEY}"), format!("ops/jane/{}", "x".repeat(MAX_BYTES)));
        let no_session = format!("{BEARER_SUBPROTOCOL}{}", URL_SAFE_NO_PAD.encode("writ-session:ops/jane"));
        let cases: [&[(HeaderName, &str)]; 14] = [
            &[],
            &[(AUTHORIZATION, "Bearer a"), (API_KEY, "writ_a")],
            &[(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer a")],
            &[(AUTHORIZATION, "Basic YTpi")],
            &[(AUTHORIZATION, "Bearer ")],
            &[(SEC_WEBSOCKET_PROTOCOL, &broken)],
            &[(AUTHORIZATION, &long)],
            &[(AUTHORIZATION, "Bearer a b")],
            &[(SESSION, &session), (AUTHORIZATION, "Bearer a")],
            &[(SESSION, &session), (SESSION, &session)],
            &[(SESSION, "")],
            &[(SESSION, KEY)],
            &[(SESSION, &huge)],
            &[(SEC_WEBSOCKET_PROTOCOL, &no_session)],
        ];
        for case in cases {
            assert_eq!(found(case), None, "{:?}", case.iter().map(|(name, _)| name).collect::<Vec<_>>());
        }
    }
}
