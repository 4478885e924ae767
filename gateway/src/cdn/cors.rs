//! Which pages of other origins may read, as their browsers ask (the Fetch standard, "CORS protocol"), and what of answers they see.

use cairn_index::names::Delivery;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

/// Seconds for which a browser need not ask again before it asks.
const PREFLIGHT_SECONDS: &str = "600";
const EXPOSED: &str = "Accept-Ranges, Content-Encoding, Content-Length, Content-Range, ETag, Server-Timing";
const ALLOWED: &str = "Authorization, If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Range";
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// What a bucket says to a request's origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cors {
    /// Goes into the answer.
    allowed: Option<HeaderValue>,
    /// The answer is another one to another origin.
    varies: bool,
}

impl Cors {
    /// Pages of all origins may.
    pub(super) fn everybody() -> Self {
        Self {
            allowed: Some(HeaderValue::from_static("*")),
            varies: false,
        }
    }

    pub(super) fn of(delivery: &Delivery, request: &HeaderMap) -> Self {
        let origins = &delivery.cors_origins;
        if origins.iter().any(|origin| origin == "*") {
            return Self::everybody();
        }
        let origin = request.get(ORIGIN).and_then(|origin| origin.to_str().ok());
        let known = origin.filter(|origin| origins.iter().any(|own| own == origin));
        Self {
            allowed: known.and_then(|origin| HeaderValue::from_str(origin).ok()),
            varies: !origins.is_empty(),
        }
    }

    /// Says so in an answer.
    pub(super) fn say(&self, headers: &mut HeaderMap) {
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(allowed) = &self.allowed else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        headers.insert(TIMING_ALLOW_ORIGIN, allowed.clone());
        if allowed != "*" {
            // Signed cookies are sent to those that are named, never to all.
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// Says so in the answer to a browser that asks first; `request` is its own.
    pub(super) fn say_before(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        if self.allowed.is_some() && request.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED));
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
        }
        self.say(headers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(origins: &[&str], origin: Option<&'static str>) -> HeaderMap {
        let delivery = Delivery {
            cors_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            ..Delivery::default()
        };
        let mut request = HeaderMap::new();
        if let Some(origin) = origin {
            request.insert(ORIGIN, HeaderValue::from_static(origin));
        }
        let mut headers = HeaderMap::new();
        Cors::of(&delivery, &request).say(&mut headers);
        headers
    }

    #[test]
    fn an_origin_is_allowed_if_it_is_named_and_all_are_by_a_star() {
        let headers = said(&["https://a.example"], Some("https://a.example"));
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(headers[VARY], "Origin");
        for origin in [
            Some("https://a.example.evil"),
            Some("http://a.example"),
            Some("null"),
            None,
        ] {
            let headers = said(&["https://a.example"], origin);
            assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "{origin:?}");
            assert_eq!(headers[VARY], "Origin", "a cache must not keep this one for others");
        }
        let headers = said(&["*"], Some("https://b.example"));
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS) && !headers.contains_key(VARY));
        assert_eq!(said(&[], Some("https://a.example")).len(), 0);
    }
}
