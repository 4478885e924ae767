//! From options to connections: TLS, certificates, proxies.

use std::fs;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Identity};

use super::client::{HttpFault, setup};
use super::options::{HttpOptions, Proxy};

/// How long an unused connection is kept.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A client for `http` URLs; holds no certificates, so that it opens quickly and on systems without any.
pub(crate) fn plain(options: &HttpOptions) -> Result<Client, HttpFault> {
    if matches!(&options.proxy, Proxy::Url(url) if url.starts_with("https:")) {
        return tls(options);
    }
    builder(options)?
        .tls_certs_only([])
        .build()
        .map_err(|error| setup("the HTTP client does not start", error))
}

/// A client for `https` URLs. Reads the certificates that the options name.
pub(crate) fn tls(options: &HttpOptions) -> Result<Client, HttpFault> {
    let read = |path: &Path| fs::read(path).map_err(|error| setup(&format!("cannot read {}", path.display()), error));
    let mut builder = builder(options)?;
    if let Some(path) = &options.ca_cert {
        let roots = Certificate::from_pem_bundle(&read(path)?)
            .map_err(|error| setup(&format!("{}: not certificates in PEM form", path.display()), error))?;
        if roots.is_empty() {
            return Err(HttpFault::Setup {
                what: format!("{}: holds no certificate in PEM form", path.display()),
                source: None,
            });
        }
        builder = builder.tls_certs_only(roots);
    }
    match (&options.client_cert, &options.client_key) {
        (Some(cert), Some(key)) => {
            let mut pem = read(cert)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            let identity = Identity::from_pem(&pem).map_err(|error| {
                let what = format!(
                    "{} and {}: not a certificate and its key",
                    cert.display(),
                    key.display()
                );
                setup(&what, error)
            })?;
            builder = builder.identity(identity);
        }
        (None, None) => {}
        _ => {
            return Err(HttpFault::Setup {
                what: "a client certificate and its key are given together or not at all".to_owned(),
                source: None,
            });
        }
    }
    builder
        .tls_danger_accept_invalid_certs(options.trust_insecure)
        .build()
        .map_err(|error| {
            setup(
                "TLS does not start (name the authorities to trust if the system has none)",
                error,
            )
        })
}

fn builder(options: &HttpOptions) -> Result<ClientBuilder, HttpFault> {
    install_crypto();
    let builder = Client::builder()
        .user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .connect_timeout(options.connect_timeout)
        .tcp_keepalive(options.idle_timeout)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(options.concurrency.max(1));
    Ok(match &options.proxy {
        Proxy::Environment => builder,
        Proxy::Direct => builder.no_proxy(),
        Proxy::Url(url) => builder.proxy(
            reqwest::Proxy::all(url).map_err(|error| setup("the proxy's address is not a URL", error.without_url()))?,
        ),
    })
}

/// TLS needs one cipher provider per process; a program that has chosen one keeps it.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
