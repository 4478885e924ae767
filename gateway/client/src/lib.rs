//! A client of `cairnd` for programs that work beside it: the admin API ([`Admin`]). Blocking, one request at a time.
//!
//! Not here: stores of chunks (`cairn-store`), which speak to any server; where addresses and tokens come from (the program's).

mod admin;
mod error;

pub use admin::{Admin, Method, Parameters};
pub use error::{ClientError, FieldError};

use std::time::Duration;

use reqwest::{Client, Url};
use tokio::runtime::Runtime;

/// A server, and the means to ask it.
struct Server {
    base: Url,
    client: Client,
    runtime: Runtime,
}

impl Server {
    /// - `idle`: how long nothing of an answer may come.
    /// - Errors: [`ClientError::BadUrl`], [`ClientError::Start`].
    fn new(url: &str, idle: Duration) -> Result<Self, ClientError> {
        let base = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let base = base.ok_or_else(|| ClientError::BadUrl { url: url.to_owned() })?;
        // One that somebody has chosen is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().read_timeout(idle).build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            base,
            client: client.map_err(|source| ClientError::Start { source: source.into() })?,
            runtime: runtime.map_err(|source| ClientError::Start { source: source.into() })?,
        })
    }

    /// The address without what is secret in it.
    fn shown(&self) -> String {
        let mut shown = self.base.clone();
        // Neither fails on a URL that has a host.
        let _ = (shown.set_username(""), shown.set_password(None));
        shown.to_string()
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        ClientError::Unreachable {
            server: self.shown(),
            source: source.without_url(),
        }
    }
}
