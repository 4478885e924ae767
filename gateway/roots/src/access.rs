//! Who may read and write a root: nobody, anybody, or the holder of a token.
//!
//! A token is taken as a bearer token and as the whole `Authorization` value, the way desync's configuration sends it.
//! Comparison takes the same time whatever differs.

use std::fmt;

use http::header::{ALLOW, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use subtle::{Choice, ConstantTimeEq as _};

use crate::reply::{Body, refuse};

/// A shared secret. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<[u8]>);

/// What a request has to show for one kind of access.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Grant {
    /// Nothing: anybody may.
    #[default]
    Anyone,
    /// One of these tokens.
    Tokens(Vec<Token>),
    /// Nobody may.
    Nobody,
    /// Whoever calls the root has decided; nothing more is asked.
    Decided,
}

/// Who may read and who may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// GET and HEAD.
    pub read: Grant,
    /// PUT. [`Grant::Nobody`] makes the root read-only.
    pub write: Grant,
}

impl Default for Access {
    /// Anybody reads, nobody writes.
    fn default() -> Self {
        Self {
            read: Grant::Anyone,
            write: Grant::Nobody,
        }
    }
}

impl Access {
    /// Whether nobody may write.
    pub fn is_read_only(&self) -> bool {
        self.write == Grant::Nobody
    }

    /// `Ok` when this request may go on; else the 405 or 401 to answer. A read-only root asks writers for what readers
    /// show, and leaves the refusal of the write itself to the caller.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), Response<Body>> {
        let grant = match *request.method() {
            Method::GET | Method::HEAD => &self.read,
            Method::PUT if self.is_read_only() => &self.read,
            Method::PUT => &self.write,
            _ => {
                let mut response = refuse(
                    request.method(),
                    StatusCode::METHOD_NOT_ALLOWED,
                    "only GET, HEAD and PUT are understood here",
                );
                response
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static("GET, HEAD, PUT"));
                return Err(response);
            }
        };
        grant.check(request.method(), request.headers())
    }
}

impl Token {
    /// A token as configured: the part after `Bearer`, or a whole `Authorization` value. Empty tokens open nothing.
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        Self(secret.as_ref().into())
    }

    /// Whether an `Authorization` value shows it. Takes the same time whatever differs.
    pub fn is_shown_by(&self, authorization: &[u8]) -> bool {
        self.opens(authorization).into()
    }

    /// Whether it is this word. Takes the same time whatever differs.
    pub fn is(&self, word: &[u8]) -> bool {
        bool::from(self.0.ct_eq(word)) && !self.0.is_empty()
    }

    fn opens(&self, authorization: &[u8]) -> Choice {
        let bearer = match authorization.split_at_checked(7) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"Bearer ") => rest.trim_ascii(),
            _ => &[],
        };
        let given = self.0.ct_eq(authorization) | self.0.ct_eq(bearer);
        given & Choice::from(u8::from(!self.0.is_empty()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Grant {
    /// `Ok` when these headers show what is asked for; else the 401 to answer.
    pub(crate) fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Response<Body>> {
        let Self::Tokens(tokens) = self else { return Ok(()) };
        let Some(given) = headers.get(AUTHORIZATION) else {
            return Err(unauthorized(method, "missing", "this needs an authorization header"));
        };
        let opened = tokens
            .iter()
            .fold(Choice::from(0), |opened, token| opened | token.opens(given.as_bytes()));
        if bool::from(opened) {
            Ok(())
        } else {
            Err(unauthorized(method, "wrong", "this authorization opens nothing here"))
        }
    }

    /// Whether these headers show what is asked for, for doors that have their own words for a refusal.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        self.check(&Method::GET, headers).is_ok()
    }

    /// Whether anybody may.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Anyone)
    }
}

fn unauthorized(method: &Method, reason: &'static str, message: &'static str) -> Response<Body> {
    metrics::counter!("auth_failures_total", "reason" => reason).increment(1);
    let mut response = refuse(method, StatusCode::UNAUTHORIZED, message);
    response.headers_mut().insert(
        WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer realm=\"cairn\", charset=\"UTF-8\""),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens(token: &str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        Grant::Tokens(vec![Token::new("other"), Token::new(token)])
            .check(&Method::GET, &headers)
            .is_ok()
    }

    #[test]
    fn a_token_opens_as_bearer_and_as_whole_value_and_nothing_else_does() {
        assert!(opens("secret", "Bearer secret"));
        assert!(opens("secret", "bearer  secret"));
        assert!(opens("Basic dTpw", "Basic dTpw"));
        assert!(!opens("secret", "Bearer secre"));
        assert!(!opens("secret", "Bearer secrett"));
        assert!(!opens("", "Bearer "));
        assert!(!opens("", ""));
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", Grant::Tokens(vec![Token::new("hunter2")])).contains("hunter2"));
    }
}
