//! How HTTP servers are talked to: a plain struct with defaults. Reading it from flags, files or the environment is the
//! tool's and the server's.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::pull::PullOffers;
use crate::RateLimit;
use crate::backend::remote::patience::Patience;

/// Options of everything that speaks HTTP.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Requests in flight at most, over all callers of one store. 0 counts as 1.
    pub concurrency: usize,
    /// Longest time for one try of one request, body included, pauses for the rate limit not counted. `None`: no limit.
    pub timeout: Option<Duration>,
    /// Longest time to reach the server, name look-up and TLS included.
    pub connect_timeout: Duration,
    /// Longest time in which nothing of an answer arrives.
    pub idle_timeout: Duration,
    /// Tries of one request in all, as desync counts them. 0 counts as 1.
    pub error_retry: u32,
    /// Upper end of the first pause between tries; it doubles with every try, and the pause is a random part of it.
    pub error_retry_base_interval: Duration,
    /// PEM file with the certificate (chain) shown to the server. Needs `client_key`.
    pub client_cert: Option<PathBuf>,
    /// PEM file with the private key of `client_cert`.
    pub client_key: Option<PathBuf>,
    /// PEM file with the authorities to trust instead of the system's.
    pub ca_cert: Option<PathBuf>,
    /// Take any server certificate. What is read is still checked against its chunk ids; credentials are not safe.
    pub trust_insecure: bool,
    /// The `Authorization` header; goes before a user in the URL.
    pub authorization: Option<Authorization>,
    /// The value of the `Cookie` header.
    pub cookie: Option<Cookie>,
    /// The way to the server.
    pub proxy: Proxy,
    /// A limit on the bytes of bodies, shared with others.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// What servers say of requests for many chunks; stores and indexes that share it learn from each other.
    pub offers: PullOffers,
    /// Once this is set (by Ctrl-C), requests are given up, those that wait for an answer too.
    pub cancelled: Option<Arc<AtomicBool>>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            concurrency: 10,
            timeout: Some(Duration::from_secs(60)),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            error_retry: 3,
            error_retry_base_interval: Duration::from_millis(500),
            client_cert: None,
            client_key: None,
            ca_cert: None,
            trust_insecure: false,
            authorization: None,
            cookie: None,
            proxy: Proxy::Environment,
            rate_limit: None,
            offers: PullOffers::default(),
            cancelled: None,
        }
    }
}

impl HttpOptions {
    /// How often a request is tried.
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            tries: self.error_retry,
            base: self.error_retry_base_interval,
            cancelled: self.cancelled.clone(),
        }
    }
}

/// Credentials in the `Authorization` header. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    /// The whole value as it stands (desync's `http-auth`).
    Fixed(String),
    /// `Bearer` and this token.
    Bearer(String),
    /// `Basic` with this user and password.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed(_) => "Fixed(…)",
            Self::Bearer(_) => "Bearer(…)",
            Self::Basic { .. } => "Basic(…)",
        })
    }
}

/// The value of the `Cookie` header (desync's `http-cookie`). `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(pub String);

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(…)")
    }
}

/// The way to a server.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Proxy {
    /// As `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// Straight.
    Direct,
    /// Through this `http://`, `https://` or `socks5://` proxy, which may name a user and password.
    Url(String),
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "Environment",
            Self::Direct => "Direct",
            Self::Url(_) => "Url(…)",
        })
    }
}
