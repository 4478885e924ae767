//! Buckets of S3: where they are, and whose requests are sent.

mod credentials;
mod roles;

use object_store::aws::AmazonS3Builder;

pub use credentials::{S3Configured, S3Credentials, S3Keys};
pub use roles::{S3Role, S3RoleSource};

use super::service::{Connector, Words};
use super::{Client, tried_once};
use crate::backend::http::HttpOptions;
use crate::backend::remote::Fault;
use crate::location::{S3Location, S3Lookup};

/// Where Amazon's buckets are if nobody says; other servers mostly do not care.
const REGION: &str = "us-east-1";
/// Objects of one DeleteObjects request (S3's own limit).
const REMOVED_TOGETHER: usize = 1000;

/// What is said where something is missing.
const WORDS: Words = Words {
    secret: "the keys of the machine's or container's role",
    issuer: None,
    nobody: "no keys were given: set S3_ACCESS_KEY and S3_SECRET_KEY, or s3-credentials",
};

/// How a bucket is opened; how its server is talked to is [`HttpOptions`]'.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// Whose requests these are.
    pub credentials: S3Credentials,
    /// The bucket's region; without one, the host name's if it is Amazon's, else `us-east-1`.
    pub region: Option<String>,
}

/// A client for one bucket; nothing is asked yet.
pub(super) fn client(location: &S3Location, options: &S3Options, http: &HttpOptions) -> Result<Client, Fault> {
    let endpoint = location.endpoint();
    let host = endpoint.host_str().unwrap_or_default();
    let in_host = match location.lookup() {
        S3Lookup::Dns => true,
        S3Lookup::Path => false,
        // A dotted bucket name does not fit a wildcard certificate.
        S3Lookup::Auto => host.ends_with(".amazonaws.com") && !location.bucket().contains('.'),
    };
    let server = match in_host {
        true => location
            .server()
            .replacen("://", &format!("://{}.", location.bucket()), 1),
        false => location.server(),
    };
    let region = options.region.as_deref().or_else(|| region_of(host)).unwrap_or(REGION);
    let connector = Connector::new(http, WORDS, options.credentials.metadata_url());
    let connector = connector.map_err(|fault| Fault::Refused(fault.into()))?;
    let builder = AmazonS3Builder::new()
        .with_endpoint(server)
        .with_bucket_name(location.bucket())
        .with_virtual_hosted_style_request(in_host)
        .with_region(region)
        .with_allow_http(endpoint.scheme() == "http")
        .with_retry(tried_once())
        .with_http_connector(connector.signed(options.credentials.sign_for(host)));
    let builder = options.credentials.apply(builder, host);
    let builder = builder.map_err(|what| Fault::Refused(what.into()))?;
    let store = builder.build().map_err(|error| Fault::Refused(error.into()))?;
    Ok(Client {
        objects: Box::new(store.clone()),
        parts: Some(Box::new(store)),
        removed_together: REMOVED_TOGETHER,
    })
}

/// The region in one of Amazon's host names: `s3.eu-west-1.amazonaws.com`, older ones with a dash.
fn region_of(host: &str) -> Option<&str> {
    let name = host.strip_suffix(".amazonaws.com")?.strip_prefix("s3")?;
    let name = name.strip_prefix(".dualstack").unwrap_or(name);
    Some(name.trim_start_matches(['.', '-'])).filter(|region| !region.is_empty() && !region.contains('.'))
}

#[cfg(test)]
pub(crate) mod tests;
