//! Origins of web pages that may call the gateway. Pure.
//!
//! Credentials of the gateway are headers, which a browser never adds by itself. So the origin is a second defence.

use http::HeaderMap;
use http::header::{HeaderValue, ORIGIN};

/// An origin that is not usable.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "origin {origin:?} is not usable: {problem}; write https://HOST or https://HOST:PORT \
     (--gateway-allowed-origin)"
)]
pub struct OriginError {
    origin: String,
    problem: &'static str,
}

/// Origins of web pages that may call the gateway, and the check of a request.
#[derive(Clone, Debug, Default)]
pub struct OriginPolicy {
    /// Origins as browsers write them: lower case, without the default port.
    allowed: Vec<String>,
    has_tls: bool,
}

impl OriginPolicy {
    /// Creates the policy from the configured origins. `has_tls` is true if clients use TLS, to the server or to a proxy
    /// in front of it.
    ///
    /// # Errors
    /// An origin is not of the form `https://HOST` or `https://HOST:PORT`. `http` is also possible. Wildcards are not.
    pub fn from_list(allowed: &[String], has_tls: bool) -> Result<Self, OriginError> {
        let allowed = allowed.iter().map(|origin| normalize(origin)).collect::<Result<_, _>>()?;
        Ok(Self { allowed, has_tls })
    }

    /// Returns true if no origin is configured.
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty()
    }

    /// Returns true if a request for a WebSocket may be served. `host` is the host of the request, from the header
    /// `Host`.
    ///
    /// A request without an origin comes from a program and is allowed. A web page is allowed if its origin is the
    /// gateway's own, or if it is configured.
    pub fn is_allowed_origin(&self, headers: &HeaderMap, host: Option<&str>) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(origin), None) => self.is_configured(origin) || self.is_own(origin, host),
            (Some(_), Some(_)) => false,
        }
    }

    /// Returns the origin of a request if it is configured.
    pub(super) fn configured(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none());
        origin.filter(|origin| self.is_configured(origin)).cloned()
    }

    fn is_configured(&self, origin: &HeaderValue) -> bool {
        self.allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }

    fn is_own(&self, origin: &HeaderValue, host: Option<&str>) -> bool {
        let scheme = if self.has_tls { "https" } else { "http" };
        let (Ok(origin), Some(host)) = (origin.to_str(), host) else { return false };
        let own = normalize(&format!("{scheme}://{host}"));
        own.is_ok_and(|own| normalize(origin).is_ok_and(|origin| origin == own))
    }
}

/// Returns an origin as browsers write it: lower case, without the default port.
fn normalize(origin: &str) -> Result<String, OriginError> {
    let error = |problem| OriginError { origin: origin.to_owned(), problem };
    let lower = origin.to_ascii_lowercase();
    let (scheme, host) = lower.split_once("://").ok_or_else(|| error("it has no scheme"))?;
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return Err(error("its scheme is neither https nor http")),
    };
    let host = host.strip_suffix(default_port).unwrap_or(host);
    let is_host_character = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host_character) {
        return Err(error("its host is empty, or contains a path, a user, a wildcard or another character"));
    }
    Ok(format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origins: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    fn policy(allowed: &[&str], has_tls: bool) -> OriginPolicy {
        let allowed: Vec<String> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
        OriginPolicy::from_list(&allowed, has_tls).unwrap()
    }

    #[test]
    fn a_websocket_is_for_programs_own_pages_and_configured_pages() {
        let policy = policy(&["https://Console.example:443", "http://localhost:5173"], true);
        let cases: [(&[&str], Option<&str>, bool); 20] = [
            (&[], Some("writ.example"), true),
            (&[], None, true),
            (&["https://writ.example"], Some("writ.example"), true),
            (&["https://writ.example"], Some("WRIT.example:443"), true),
            (&["https://writ.example:8443"], Some("writ.example:8443"), true),
            (&["https://console.example"], Some("writ.example"), true),
            (&["https://console.example"], None, true),
            (&["http://localhost:5173"], Some("writ.example"), true),
            (&["http://writ.example"], Some("writ.example"), false),
            (&["https://writ.example:8443"], Some("writ.example"), false),
            (&["https://writ.example.evil.example"], Some("writ.example"), false),
            (&["https://evil.example"], Some("writ.example"), false),
            (&["https://evil.example"], None, false),
            (&["null"], Some("writ.example"), false),
            (&["null"], Some("null"), false),
            (&[""], Some(""), false),
            (&["https://"], Some(""), false),
            (&["https://console.example/"], Some("writ.example"), false),
            (&["https://console.example", "https://evil.example"], Some("writ.example"), false),
            (&["https://a@writ.example"], Some("a@writ.example"), false),
        ];
        for (origins, host, is_allowed) in cases {
            assert_eq!(policy.is_allowed_origin(&headers(origins), host), is_allowed, "{origins:?} {host:?}");
        }
    }

    #[test]
    fn without_tls_the_own_origin_is_plain_http() {
        let policy = policy(&[], false);
        assert!(policy.is_empty());
        assert!(policy.is_allowed_origin(&headers(&["http://127.0.0.1:8080"]), Some("127.0.0.1:8080")));
        assert!(policy.is_allowed_origin(&headers(&["http://[::1]:8080"]), Some("[::1]:8080")));
        assert!(!policy.is_allowed_origin(&headers(&["https://127.0.0.1:8080"]), Some("127.0.0.1:8080")));
    }

    #[test]
    fn an_origin_that_is_no_origin_is_refused_by_name() {
        for origin in
            ["*", "null", "", "console.example", "https://", "https://a/", "https://*.a", "ftp://a", "https://u@a"]
        {
            let error = OriginPolicy::from_list(&[origin.to_owned()], true).unwrap_err().to_string();
            assert!(error.contains(&format!("{origin:?}")) && error.contains("--gateway-allowed-origin"), "{error}");
        }
    }
}
