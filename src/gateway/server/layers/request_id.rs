//! IDs of requests, which connect an answer with the log lines about it.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// Header with the ID of a request.
pub(super) const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of a client's ID. It fits common forms, such as UUIDs and the IDs of traces and proxies.
const MAX_LENGTH: usize = 64;

/// ID of a request. The extensions of each request contain it. A client can choose the ID, so it is not unique.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Returns the ID that the client sent, or a new one if the client sent none, several, or one with other characters
    /// than `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`.
    pub(super) fn for_request(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all(REQUEST_ID_HEADER).iter();
        let id = match (sent.next(), sent.next()) {
            (Some(id), None) => id.to_str().ok().filter(|id| is_usable(id)),
            _ => None,
        };
        Self(id.map_or_else(|| uuid::Uuid::new_v4().simple().to_string().into(), Arc::from))
    }

    /// Returns the ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the ID as the value of a header.
    pub(super) fn to_header(&self) -> HeaderValue {
        // All characters of an ID are valid in a header.
        HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static("invalid"))
    }
}

fn is_usable(id: &str) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sent: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(REQUEST_ID_HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        RequestId::for_request(&headers).as_str().to_owned()
    }

    #[test]
    fn a_plain_id_of_the_client_is_kept() {
        let longest = "a".repeat(MAX_LENGTH);
        for sent in ["1", "0af7651916cd43dd8448eb211c80319c", "A-b_c.9", longest.as_str()] {
            assert_eq!(id(&[sent.as_bytes()]), sent);
        }
    }

    #[test]
    fn any_other_id_of_the_client_is_replaced() {
        let long = "a".repeat(MAX_LENGTH + 1);
        let many: [&[&[u8]]; 8] =
            [&[], &[b""], &[b"a b"], &[b"a\tb"], &[b"a;b"], &[b"caf\xc3\xa9"], &[long.as_bytes()], &[b"a", b"b"]];
        for sent in many {
            let id = id(sent);
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        }
        assert_ne!(id(&[]), id(&[]));
    }
}
