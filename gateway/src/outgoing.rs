//! The one policy of requests that the server sends of its own accord: whom it asks, where that may lie, how long it waits, how much it reads.
//!
//! A host has to be named, by schemes that are named; its addresses are looked up here and are refused where they are not of the public
//! network, unless settings name them; the connection goes to the addresses that were looked at, so that a second answer of the name server
//! changes nothing. No redirect is followed and no proxy of the environment used. Not here: what is sent, and trying again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cairn_identity::AddressRange;
use http::{HeaderMap, Method, StatusCode};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy as Redirects;
use reqwest::{Client, Url};

/// Time to be connected.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingPolicy {
    /// Hosts, by name or address, in lower case. None: nothing goes out.
    pub hosts: Vec<String>,
    /// Whether plain HTTP may be spoken.
    pub plain: bool,
    /// Addresses that are asked though they are not of the public network.
    pub private: Vec<AddressRange>,
    /// From the first byte sent to the last received.
    pub patience: Duration,
    /// Bytes of an answer that are read, at most.
    pub body_len_max: usize,
}

impl Default for OutgoingPolicy {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            plain: false,
            private: Vec::new(),
            patience: Duration::from_secs(10),
            body_len_max: 1 << 20,
        }
    }
}

/// Sends requests as the policy has it.
#[derive(Clone, Debug)]
pub struct Outgoing {
    policy: Arc<OutgoingPolicy>,
    plain: Client,
    tls: Client,
}

/// A request.
#[derive(Clone, Debug)]
pub struct OutgoingRequest {
    /// Its method.
    pub method: Method,
    /// Its whole address.
    pub url: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct OutgoingAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutgoingError {
    /// The policy does not have it; trying again does not help.
    #[error("{url} is not asked: {why}")]
    Refused {
        /// The address, without its query.
        url: String,
        /// What is against it.
        why: &'static str,
    },
    /// The answer is longer than what is read.
    #[error("{url} answers more than {most} bytes")]
    TooLong {
        /// The address, without its query.
        url: String,
        /// Bytes that are read.
        most: usize,
    },
    /// Nobody answered in time, or not as HTTP has it.
    #[error("{url} did not answer")]
    Failed {
        /// The address, without its query.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
}

impl Outgoing {
    /// Errors: the HTTP client does not start.
    pub fn new(policy: OutgoingPolicy) -> Result<Self, reqwest::Error> {
        // Idempotent: the server's other users of TLS have the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let policy = Arc::new(policy);
        let builder = || {
            Client::builder()
                .no_proxy()
                .redirect(Redirects::none())
                .connect_timeout(CONNECT_MAX)
                .timeout(policy.patience)
                .dns_resolver(LookUp(Arc::clone(&policy)))
        };
        Ok(Self {
            plain: builder().tls_certs_only([]).build()?,
            tls: builder().https_only(true).build()?,
            policy,
        })
    }

    /// Sends a request, and reads the answer whole.
    pub async fn send(&self, request: OutgoingRequest) -> Result<OutgoingAnswer, OutgoingError> {
        let mut answer = self.open(request, None).await?;
        let most = self.policy.body_len_max;
        let mut body = BytesMut::new();
        while let Some(piece) = answer.chunk().await? {
            if body.len() + piece.len() > most {
                return Err(OutgoingError::TooLong {
                    url: answer.shown,
                    most,
                });
            }
            body.extend_from_slice(&piece);
        }
        Ok(OutgoingAnswer {
            status: answer.status(),
            headers: std::mem::take(answer.answer.headers_mut()),
            body: body.freeze(),
        })
    }

    /// Sends a request; the answer's body is read as it comes, and has no bound here.
    ///
    /// - `patience`: in place of the policy's.
    pub async fn open(
        &self,
        request: OutgoingRequest,
        patience: Option<Duration>,
    ) -> Result<OpenAnswer, OutgoingError> {
        let url = self.policy.check(&request.url)?;
        let shown = shown(&url);
        let client = if url.scheme() == "https" {
            &self.tls
        } else {
            &self.plain
        };
        let sent = client
            .request(request.method, url)
            .headers(request.headers)
            .body(request.body)
            .timeout(patience.unwrap_or(self.policy.patience));
        match sent.send().await {
            Ok(answer) => Ok(OpenAnswer { answer, shown }),
            Err(source) => Err(failed(shown, source)),
        }
    }
}

fn failed(url: String, source: reqwest::Error) -> OutgoingError {
    OutgoingError::Failed {
        url,
        source: source.without_url(),
    }
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct OpenAnswer {
    answer: reqwest::Response,
    shown: String,
}

impl OpenAnswer {
    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.answer.status()
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        self.answer.headers()
    }

    /// Bytes of the body, where the answer says it.
    pub fn content_len(&self) -> Option<u64> {
        self.answer.content_length()
    }

    /// The next bytes of the body; `None` at its end.
    ///
    /// Errors: [`OutgoingError::Failed`], where it ends early, too.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, OutgoingError> {
        let piece = self.answer.chunk().await;
        piece.map_err(|source| failed(self.shown.clone(), source))
    }
}

impl OutgoingPolicy {
    /// Whether this address may be asked at all, as far as that can be told without looking its host up.
    ///
    /// Errors: [`OutgoingError::Refused`].
    pub fn allows(&self, url: &str) -> Result<(), OutgoingError> {
        self.check(url).map(|_| ())
    }

    fn check(&self, text: &str) -> Result<Url, OutgoingError> {
        let refused = |url: String, why| Err(OutgoingError::Refused { url, why });
        let Ok(url) = Url::parse(text) else {
            return refused("what is no address".to_owned(), "it is no URL");
        };
        let shown = shown(&url);
        match url.scheme() {
            "https" => {}
            "http" if self.plain => {}
            "http" => return refused(shown, "plain HTTP is not allowed; set outgoing.plain = true"),
            _ => return refused(shown, "only https and http are spoken"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refused(shown, "it holds a user's name or password");
        }
        let host = url.host_str().unwrap_or("");
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if !self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) {
            return refused(shown, "its host is not in outgoing.hosts");
        }
        // Of a name the addresses are looked at when they are known.
        if let Ok(address) = host.parse::<IpAddr>()
            && !self.may_ask(address)
        {
            return refused(shown, PRIVATE);
        }
        Ok(url)
    }

    fn may_ask(&self, address: IpAddr) -> bool {
        is_public(address) || self.private.iter().any(|range| range.contains(address))
    }
}

const PRIVATE: &str = "its address is not of the public network, and not in outgoing.private";

/// Without query and fragment, which may hold secrets.
fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or(""), url.path())
}

/// Looks names up, and leaves out what may not be asked.
struct LookUp(Arc<OutgoingPolicy>);

impl Resolve for LookUp {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.0);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let asked: Vec<SocketAddr> = found.into_iter().filter(|found| policy.may_ask(found.ip())).collect();
            if asked.is_empty() {
                return Err(PRIVATE.into());
            }
            Ok(Box::new(asked.into_iter()) as Addrs)
        })
    }
}

/// Whether anybody's network may have this address: not this machine, a private, shared, link-local, documentation or reserved one
/// (IANA's special-purpose registries), nor one of these behind a prefix of IPv6 that carries IPv4.
fn is_public(address: IpAddr) -> bool {
    let address = match address.to_canonical() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => {
            let groups = address.segments();
            // Global unicast alone, without what is set aside in it.
            let is_unicast = groups[0] & 0xe000 == 0x2000;
            let is_special = groups[0] == 0x2001 && (groups[1] < 0x0200 || groups[1] == 0x0db8)
                || groups[0] == 0x2002
                || groups[0] == 0x3fff && groups[1] < 0x1000;
            return is_unicast && !is_special;
        }
    };
    let [first, second, third, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_broadcast()
        || first == 0
        || first == 100 && second & 0xc0 == 64
        || first == 192 && second == 0 && third == 0
        || first == 192 && second == 88 && third == 99
        || first == 198 && second & 0xfe == 18
        || first >= 224)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn policy(hosts: &[&str], private: &[&str]) -> OutgoingPolicy {
        OutgoingPolicy {
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            plain: true,
            private: private.iter().map(|range| range.parse().unwrap()).collect(),
            body_len_max: 1000,
            ..OutgoingPolicy::default()
        }
    }

    fn get(url: &str) -> OutgoingRequest {
        OutgoingRequest {
            method: Method::GET,
            url: url.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    #[test]
    fn addresses_of_no_public_network_are_known() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "2001:db8::1",
            "2002:a00:1::",
            "64:ff9b::a00:1",
            "2001::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_is_not_named_is_not_asked() {
        let named = policy(&["cdn.example.net", "10.0.0.1", "::1"], &[]);
        let refused = |policy: &OutgoingPolicy, url: &str| match policy.check(url).unwrap_err() {
            OutgoingError::Refused { why, .. } => why,
            other => panic!("{other}"),
        };
        assert!(named.check("https://cdn.example.net/x?y").is_ok());
        assert!(named.check("http://CDN.example.net:8080/").is_ok());
        for (url, word) in [
            ("https://other.example.net/", "outgoing.hosts"),
            ("https://cdn.example.net.evil/", "outgoing.hosts"),
            ("https://user@cdn.example.net/", "password"),
            ("ftp://cdn.example.net/", "https"),
            ("file:///etc/passwd", "https"),
            ("nonsense", "URL"),
            ("http://10.0.0.1/", "outgoing.private"),
            ("http://0x0a.0.0.1/", "outgoing.private"),
            ("http://[::1]/", "outgoing.private"),
        ] {
            assert!(refused(&named, url).contains(word), "{url}: {}", refused(&named, url));
        }
        let tls = OutgoingPolicy { plain: false, ..named };
        assert!(refused(&tls, "http://cdn.example.net/").contains("outgoing.plain"));
        assert!(policy(&["10.0.0.1"], &["10.0.0.0/8"]).check("http://10.0.0.1/").is_ok());
    }

    /// A server that answers each connection once with these bytes.
    async fn server(answer: Vec<u8>) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&answer).await;
            }
        });
        port
    }

    /// Goal: a name is judged by its addresses, whatever the list of hosts says of it.
    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_is_not_asked() {
        let port = server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()).await;
        let url = format!("http://localhost:{port}/");
        let closed = Outgoing::new(policy(&["localhost"], &[])).unwrap();
        assert!(matches!(
            closed.send(get(&url)).await.unwrap_err(),
            OutgoingError::Failed { .. }
        ));
        let open = Outgoing::new(policy(&["localhost"], &["127.0.0.0/8", "::1"])).unwrap();
        let answer = open.send(get(&url)).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"ok"[..]));
    }

    #[tokio::test]
    async fn redirects_are_not_followed_and_long_answers_not_read() {
        let to = b"HTTP/1.1 302 Found\r\nLocation: http://other/\r\nContent-Length: 0\r\n\r\n";
        let port = server(to.to_vec()).await;
        let open = Outgoing::new(policy(&["127.0.0.1"], &["127.0.0.1"])).unwrap();
        let answer = open.send(get(&format!("http://127.0.0.1:{port}/"))).await.unwrap();
        assert_eq!(answer.status, StatusCode::FOUND);
        let mut long = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n".to_vec();
        long.resize(long.len() + 5000, b'x');
        let port = server(long).await;
        let error = open.send(get(&format!("http://127.0.0.1:{port}/"))).await.unwrap_err();
        assert!(matches!(error, OutgoingError::TooLong { most: 1000, .. }), "{error}");
    }
}
