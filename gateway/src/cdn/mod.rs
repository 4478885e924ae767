//! The CDN's door: objects of buckets for caches and browsers, at `/cdn/{bucket}/{key}` of the public listener, for reading alone; and
//! by a digest of their bytes, at `/cdn/-/{algorithm}/{digest}` (`by_digest`).
//!
//! Who may: everybody, what a bucket's setting `public_read` shows; else whoever has a signed link (in the URL or in a cookie, `caller`), an
//! access key or a service's token. Invariants: nothing is answered without `authorize`, whose permit the handler takes; an answer says
//! itself for whom and how long it may be kept (`caching`), never longer than the right to read it; an object's other forms have other
//! tags. Not here: writing (S3), what a link is (`cairn_identity`), how caches in front are set up (`docs/cdn.md`).

mod by_digest;
mod caching;
mod caller;
mod cors;
mod frames;
mod get;
mod lean;
mod purge;
mod range;
mod several;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use cairn_identity::{AddressRange, LinkKey};
use cairn_index::Objects;
use cairn_index::names::{BucketName, ObjectDigest, ObjectKey, VersionId};
use cairn_roots::{Body, Peer, refuse, reply};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use crate::faces::ServiceToken;
use crate::pool::{Pool, PoolOptions};
use crate::s3::error::{Code, S3Error};
use crate::s3::uri::{self, Query};
use by_digest::Holder;
use caching::{Audience, Tags};
use caller::Admitted;
use cors::Cors;
use frames::Proven;
use lean::Readers;

pub use purge::{PurgeKind, PurgeTarget, Purger};

/// What paths of this door begin with.
pub const CDN_PATH: &str = "/cdn/";

/// What answers say, and what is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdnOptions {
    /// Seconds for which an answer stays fresh, where neither object nor bucket say.
    pub max_age: u32,
    /// As that, of playlists and manifests that may grow.
    pub live_max_age: u32,
    /// As that, of the answer that nothing is there.
    pub missing_max_age: u32,
    /// Seconds for which a cache may answer with what is no longer fresh while it asks.
    pub stale_while_revalidate: u32,
    /// Seconds for which it may where we do not answer.
    pub stale_if_error: u32,
    /// Ranges of a request; more is 416.
    pub ranges: usize,
    /// Bytes of objects that answers hold for their clients, all together.
    pub buffer_bytes: usize,
}

impl Default for CdnOptions {
    fn default() -> Self {
        Self {
            max_age: 300,
            live_max_age: 5,
            missing_max_age: 5,
            stale_while_revalidate: 30,
            stale_if_error: 86_400,
            ranges: 16,
            buffer_bytes: 256 << 20,
        }
    }
}

/// What may change while the door is open: exchanged as a whole, so that a request has one of them.
#[derive(Clone, Debug, Default)]
pub struct CdnSettings {
    /// What answers say.
    pub options: CdnOptions,
    /// Tokens of services.
    pub tokens: Vec<ServiceToken>,
    /// Keys of signed links, the old ones that still count among them.
    pub keys: Vec<LinkKey>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub proxies: Vec<AddressRange>,
}

/// The door.
#[derive(Debug)]
pub struct Cdn(Arc<Core>);

/// What handlers work with.
#[derive(Debug)]
struct Core {
    objects: Arc<Objects>,
    pool: Pool,
    settings: ArcSwap<CdnSettings>,
    readers: Readers,
    /// Made when a bucket first sends frames.
    proven: OnceLock<Arc<Proven>>,
}

/// A request, without its body.
#[derive(Debug)]
struct Ask {
    settings: Arc<CdnSettings>,
    method: Method,
    headers: HeaderMap,
    /// What the path names: a bucket, or `-`.
    bucket: String,
    /// What the path names: an object's key, or algorithm and digest; then the key of what was found.
    key: ObjectKey,
    /// Of a path that names one; then there is no version.
    digest: Option<ObjectDigest>,
    version: Option<VersionId>,
    query: Query,
    address: Option<IpAddr>,
    /// Seconds since 1970.
    now: u64,
    begun: Instant,
}

/// Why a request is not answered as it hoped.
#[derive(Debug)]
enum Refused {
    /// In words, which no cache keeps.
    Words(StatusCode, String),
    /// Who asks is not known.
    Unknown(&'static str),
    /// Nothing is there; with what caches are told of that.
    Missing(String),
    /// None of the ranges lies in an object of so many bytes.
    Range(u64),
    /// As S3 would say it.
    S3(S3Error),
}

/// Result of a step of a request.
type Answer<T> = Result<T, Refused>;

impl Cdn {
    /// The door to these objects.
    ///
    /// - `pool`: work on the index and on objects.
    pub fn new(objects: Arc<Objects>, pool: PoolOptions) -> Self {
        Self(Arc::new(Core {
            objects,
            pool: Pool::new("cdn", pool),
            settings: ArcSwap::default(),
            readers: Readers::default(),
            proven: OnceLock::new(),
        }))
    }

    /// New requests have these settings.
    pub fn set(&self, settings: CdnSettings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// Answers a request of a path that begins with [`CDN_PATH`].
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body> {
        let begun = Instant::now();
        let (head, _) = request.into_parts();
        let method = head.method.clone();
        if method == Method::OPTIONS {
            return self.before(&head.headers, head.uri.path()).await;
        }
        if method != Method::GET && method != Method::HEAD {
            let words = "only GET, HEAD and OPTIONS are understood here; objects are written by S3";
            return Refused::Words(StatusCode::METHOD_NOT_ALLOWED, words.to_owned()).reply(&method);
        }
        let ask = match Ask::of(&self.0, head, begun) {
            Ok(ask) => ask,
            Err(refused) => return refused.reply(&method),
        };
        let core = Arc::clone(&self.0);
        // All of a request up to its first bytes is one job.
        let answered = self
            .0
            .pool
            .run_whole(async move { Ok::<_, Refused>(core.answer(ask).await) });
        match answered.await {
            Ok(response) => response,
            Err(refused) => refused.reply(&method),
        }
    }

    /// What a browser asks before it asks.
    async fn before(&self, headers: &HeaderMap, path: &str) -> Response<Body> {
        let mut response = reply(StatusCode::NO_CONTENT, Body::empty());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
        let Ok((bucket, key)) = split(path) else {
            return response;
        };
        if bucket == BY_DIGEST {
            if by_digest::parse(&key).is_ok() {
                Cors::everybody().say_before(headers, response.headers_mut());
            }
            return response;
        }
        let core = Arc::clone(&self.0);
        let found = self
            .0
            .pool
            .run(move || caller::bucket(&core.objects, &bucket).map_err(Refused::from));
        match found.await {
            Ok(Some(bucket)) => {
                let cors = Cors::of(&bucket.record.settings.delivery, headers);
                cors.say_before(headers, response.headers_mut());
                response
            }
            Ok(None) => response,
            Err(refused) => refused.reply(&Method::OPTIONS),
        }
    }
}

const METHODS: &str = "GET, HEAD, OPTIONS";

/// What stands in a path where others name a bucket; no bucket has this name.
const BY_DIGEST: &str = "-";

/// Bucket and key of a path; or [`BY_DIGEST`], and algorithm and digest.
fn split(path: &str) -> Answer<(String, String)> {
    let missing = || {
        let words = "the path is /cdn/{bucket}/{key} or /cdn/-/{algorithm}/{digest}";
        Refused::Words(StatusCode::NOT_FOUND, words.to_owned())
    };
    let (bucket, key) = path
        .strip_prefix(CDN_PATH)
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(missing)?;
    if bucket != BY_DIGEST {
        BucketName::new(bucket).map_err(|_| missing())?;
    }
    Ok((bucket.to_owned(), uri::decode(key)?))
}

impl Ask {
    fn of(core: &Core, head: http::request::Parts, begun: Instant) -> Answer<Self> {
        let (bucket, key) = split(head.uri.path())?;
        uri::check_key(&key)?;
        let query = Query::parse(head.uri.query())?;
        let digest = (bucket == BY_DIGEST).then(|| by_digest::parse(&key)).transpose()?;
        let version = query.get("versionId").filter(|_| digest.is_none());
        let version = version.map(crate::s3::request::version_id).transpose()?;
        let peer = head.extensions.get::<Peer>().map(|peer| peer.0);
        let settings = core.settings.load_full();
        Ok(Self {
            address: peer.map(|peer| caller::address(peer, &head.headers, &settings.proxies)),
            settings,
            method: head.method,
            headers: head.headers,
            bucket,
            key: ObjectKey::new(key)?,
            digest,
            version,
            query,
            now: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |now| now.as_secs()),
            begun,
        })
    }

    /// A header as text; what is not ASCII counts as not sent.
    fn header(&self, name: http::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Core {
    /// Answers within a job of the pool.
    async fn answer(self: &Arc<Self>, mut ask: Ask) -> Response<Body> {
        if let Some(digest) = ask.digest {
            return self.answer_digest(&mut ask, &digest).await;
        }
        let method = ask.method.clone();
        let tags = Tags::of(&ask.bucket, ask.key.as_str());
        let found = match caller::bucket(&self.objects, &ask.bucket) {
            Ok(found) => found,
            Err(error) => return Refused::from(error).reply(&method),
        };
        let delivery = found.as_ref().map(|bucket| &bucket.record.settings.delivery);
        let cors = delivery
            .map(|delivery| Cors::of(delivery, &ask.headers))
            .unwrap_or_default();
        let answered = match caller::admit(self, &ask, found) {
            Ok(Admitted {
                permit,
                bucket,
                audience,
            }) => get::get(self, permit, &ask, bucket, audience, &tags, None).await,
            Err(refused) => Err(refused),
        };
        let mut response = answered.unwrap_or_else(|refused| refused.reply(&method));
        // That nothing is there is kept too, and has to go when something comes.
        if response.status() == StatusCode::NOT_FOUND {
            tags.say(response.headers_mut());
        }
        cors.say(response.headers_mut());
        response
    }

    /// As [`Core::answer`], of a path that names a digest.
    async fn answer_digest(self: &Arc<Self>, ask: &mut Ask, digest: &ObjectDigest) -> Response<Body> {
        let held = match by_digest::admit(self, ask, digest) {
            Ok(held) => held,
            Err(refused) => return refused.reply(&ask.method),
        };
        let Holder {
            admitted: Admitted {
                permit,
                bucket,
                audience,
            },
            key,
            version,
        } = held;
        // What everybody reads is nobody's in particular.
        let (tags, cors) = match audience {
            Audience::Everybody => (Tags::of(BY_DIGEST, &digest.to_string()), Cors::everybody()),
            _ => (
                Tags::of(bucket.name().as_str(), key.as_str()),
                Cors::of(&bucket.record.settings.delivery, &ask.headers),
            ),
        };
        ask.key = key;
        let answered = get::get(self, permit, ask, bucket, audience, &tags, Some(version)).await;
        let mut response = answered.unwrap_or_else(|refused| refused.reply(&ask.method));
        cors.say(response.headers_mut());
        response
    }
}

impl From<S3Error> for Refused {
    fn from(error: S3Error) -> Self {
        Self::S3(error)
    }
}

impl From<Code> for Refused {
    fn from(code: Code) -> Self {
        Self::S3(code.into())
    }
}

impl From<cairn_index::Error> for Refused {
    fn from(error: cairn_index::Error) -> Self {
        Self::S3(error.into())
    }
}

impl From<crate::pool::JobLost> for Refused {
    fn from(lost: crate::pool::JobLost) -> Self {
        Self::S3(lost.into())
    }
}

impl Refused {
    /// The answer, for people. Errors are kept by no cache, but for what says itself that it may be.
    fn reply(self, method: &Method) -> Response<Body> {
        let (status, words) = match &self {
            Self::Words(status, words) => (*status, words.clone()),
            Self::Unknown(words) => (StatusCode::UNAUTHORIZED, (*words).to_owned()),
            Self::Missing(_) => (StatusCode::NOT_FOUND, "there is no such object".to_owned()),
            Self::Range(len) => (
                StatusCode::RANGE_NOT_SATISFIABLE,
                format!("these ranges cannot be answered of an object of {len} bytes"),
            ),
            Self::S3(error) => {
                let (_, code, message) = error.code.row();
                (error.status(), format!("{message} ({code})"))
            }
        };
        let mut response = refuse(method, status, words);
        let headers = response.headers_mut();
        match self {
            Self::Unknown(_) => {
                let scheme = HeaderValue::from_static("Bearer realm=\"cairn\", charset=\"UTF-8\"");
                headers.insert(WWW_AUTHENTICATE, scheme);
            }
            Self::Missing(control) => insert(headers, CACHE_CONTROL, control),
            Self::Range(len) => insert(headers, CONTENT_RANGE, format!("bytes */{len}")),
            _ => {}
        }
        match status {
            StatusCode::METHOD_NOT_ALLOWED => _ = headers.insert(ALLOW, HeaderValue::from_static(METHODS)),
            StatusCode::SERVICE_UNAVAILABLE => _ = headers.insert(RETRY_AFTER, HeaderValue::from_static("1")),
            _ => {}
        }
        response
    }
}

/// Sets a header to a word of ours or of the object's writer; what cannot be a header is left out.
fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: impl AsRef<str>) {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    /// Goal: nothing of a bucket can be reached without the decision.
    /// Method: as at the S3 door, a permit comes out of `authorize` alone, and each handler takes one.
    #[test]
    fn every_handler_takes_a_permit() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cdn/get.rs");
        let text = std::fs::read_to_string(path).unwrap();
        let handlers: Vec<&str> = text.split("\npub(super) async fn ").skip(1).collect();
        assert_eq!(handlers.len(), 1, "the search is broken");
        for function in handlers {
            let signature = function.split('{').next().unwrap();
            assert!(
                signature.contains("Permit"),
                "this handler takes no permit: {signature}"
            );
        }
    }
}
