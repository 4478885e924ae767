//! Buckets of Google Cloud Storage (`gs://`), by the XML interface: where they are, and whose requests are sent.
//!
//! An object is put only where none is (`x-goog-if-generation-match: 0`) as a whole alone: uploads in parts know no conditions
//! there, so packs are sent whole. One request deletes one object.

mod credentials;

use std::time::Duration;

use object_store::gcp::GoogleCloudStorageBuilder;
use url::Url;

pub use credentials::{GsConfigured, GsCredentials, GsToken};

use super::service::{Connector, Words};
use super::{Client, is_near, tried_once};
use crate::backend::http::HttpOptions;
use crate::backend::remote::Fault;
use crate::location::GsLocation;

/// Where Google's buckets are.
const GOOGLE: &str = "https://storage.googleapis.com";
/// Google's own hosts, those of private networks among them.
const GOOGLES: &str = ".googleapis.com";
/// A token is asked for anew when it has so long to live: the machine itself has a new one by then.
const TOKEN_LEFT_MIN: Duration = Duration::from_secs(4 * 60);

/// What is said where something is missing.
const WORDS: Words = Words {
    secret: "a token of the credentials' owner",
    issuer: Some("accounts.google.com"),
    nobody: "no credentials were found: set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
};

/// How a bucket is opened; how its server is talked to is [`HttpOptions`]'.
#[derive(Clone, Debug, Default)]
pub struct GsOptions {
    /// Whose requests these are.
    pub credentials: GsCredentials,
    /// `http[s]://host[:port]` of the server, if it is not Google's.
    pub endpoint: Option<String>,
}

/// A client for one bucket; nothing is asked yet.
///
/// Errors: an address that is none, or to which a token must not be sent; a file of credentials that cannot be read.
pub(super) fn client(location: &GsLocation, options: &GsOptions, http: &HttpOptions) -> Result<Client, Fault> {
    let refused = |words: String| Fault::Refused(words.into());
    let endpoint = options.endpoint.as_deref().unwrap_or(GOOGLE).trim_end_matches('/');
    let url = Url::parse(endpoint).map_err(|error| refused(format!("{endpoint}: no address of a server: {error}")))?;
    let host = url.host_str().unwrap_or_default();
    if !matches!(url.scheme(), "http" | "https") || host.is_empty() || !url.username().is_empty() {
        return Err(refused(
            "the server's address has to be http[s]://host[:port]".to_owned(),
        ));
    }
    let credentials = match options.credentials.fits(host.ends_with(GOOGLES)) {
        true => &options.credentials,
        false => &GsCredentials::None,
    };
    let is_signed = *credentials != GsCredentials::None;
    if is_signed && !is_near(endpoint) {
        return Err(refused(format!(
            "{endpoint}: a token is sent over https or within this machine alone"
        )));
    }
    let connector = Connector::new(http, WORDS, credentials.metadata_url());
    let connector = connector
        .map_err(|fault| Fault::Refused(fault.into()))?
        .signed(is_signed);
    let builder = GoogleCloudStorageBuilder::new()
        .with_base_url(endpoint)
        .with_bucket_name(location.bucket())
        .with_retry(tried_once())
        .with_http_connector(connector.clone());
    let store = credentials.apply(builder, &connector).build();
    Ok(Client {
        objects: Box::new(store.map_err(|error| Fault::Refused(error.into()))?),
        parts: None,
        removed_together: 1,
    })
}

#[cfg(test)]
pub(crate) mod tests;
