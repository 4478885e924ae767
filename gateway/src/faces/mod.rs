//! Objects as what casync and desync know: the chunk index of each at `/index/{bucket}/{key}.caibx`, and the chunks of a bucket's
//! dedup domain at `/store/{bucket}/`, both for reading and for writing.
//!
//! An index whose chunks are there makes the object, so what desync pushes here is an object of S3 at once, and what S3 clients
//! put is extracted from here. Invariants: nothing is for everybody: each request shows an access key or a token (`caller`), is
//! decided by `authorize`, and each handler takes the permit; a chunk is answered to those who may read its domain, never for its
//! name alone. Not here: roots of configured stores (`gateway/roots`), which win over a bucket of the same name; S3.

pub(crate) mod caller;
mod chunks;
mod indexes;

use std::sync::{Arc, PoisonError, RwLock};

use cairn_formats::PULL_PATH;
use cairn_identity::{Action, Permit, Principal, Resource, authorize};
use cairn_index::names::{Bucket, BucketName};
use cairn_index::{Objects, Tenant};
use cairn_roots::{Body, Workers, refuse};
use http::header::{ALLOW, AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

pub use caller::ServiceToken;

use crate::pool::{Pool, PoolOptions};
use crate::s3::error::{Code, S3Error, S3Result};
use caller::Caller;
use chunks::ChunkRoots;
use indexes::IndexName;

/// What the faces are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FacesOptions {
    /// Bytes of an index that is put, at most.
    pub index_len_max: usize,
    /// zstd level of chunks that come plain; those that come compressed stay as they are.
    pub frame_level: i32,
    /// Ids that one request for many chunks may name; 0: no such requests.
    pub pull_ids: usize,
    /// Work on the index and on objects.
    pub pool: PoolOptions,
}

/// Which face of a bucket is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// `/store/{bucket}/`.
    Chunks,
    /// `/index/{bucket}/`.
    Indexes,
}

/// What handlers work with.
#[derive(Debug)]
struct Core {
    objects: Arc<Objects>,
    options: FacesOptions,
    pool: Pool,
    workers: Workers,
    roots: ChunkRoots,
    tokens: RwLock<Arc<[ServiceToken]>>,
}

/// Buckets as chunk and index roots.
#[derive(Debug)]
pub struct Faces(Core);

/// Why a request is not answered as it hoped.
#[derive(Debug)]
enum Refused {
    /// As S3 would say it.
    S3(S3Error),
    /// In words of our own.
    Words(StatusCode, String),
}

/// Result of a step of a request.
type Answer<T> = Result<T, Refused>;

/// A request that was allowed. Its body has not been touched.
struct Ask {
    request: Request<Incoming>,
    bucket: Arc<Bucket>,
    /// Where in the path the bucket's own part begins, at a `/`.
    path_at: usize,
}

/// Who asks, and for what.
struct Admitted {
    caller: Caller,
    bucket: Arc<Bucket>,
}

impl Faces {
    /// Faces of these objects.
    ///
    /// - `workers`: bounds of bodies and of chunks, shared with the roots of configured stores.
    pub fn new(objects: Arc<Objects>, options: FacesOptions, workers: Workers) -> Self {
        Self(Core {
            objects,
            pool: Pool::new("faces", options.pool),
            roots: ChunkRoots::default(),
            options,
            workers,
            tokens: RwLock::new(Arc::new([])),
        })
    }

    /// From now on these tokens are taken, and no others.
    pub fn set_tokens(&self, tokens: Vec<ServiceToken>) {
        *self.0.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens.into();
    }

    /// Answers a request.
    ///
    /// - `path_at`: where in the path the part behind the bucket's name begins, at a `/`.
    pub async fn answer(&self, request: Request<Incoming>, face: Face, bucket: &str, path_at: usize) -> Response<Body> {
        let method = request.method().clone();
        let answered = match self.0.answer(request, face, bucket, path_at).await {
            Ok(response) => return response,
            Err(refused) => refused,
        };
        answered.reply(&method)
    }
}

impl Core {
    fn tokens(&self) -> Arc<[ServiceToken]> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        face: Face,
        bucket: &str,
        path_at: usize,
    ) -> Answer<Response<Body>> {
        let path = request.uri().path().get(path_at..).unwrap_or("");
        let Some(change) = change_of(request.method(), face, path) else {
            return Err(Refused::method());
        };
        let Admitted { caller, bucket } = self.admit(&request, bucket).await?;
        let name = match face {
            Face::Chunks => None,
            Face::Indexes => Some(IndexName::parse(request.uri().path().get(path_at..).unwrap_or(""))?),
        };
        let permit = decide(&caller, &bucket, change, name.as_ref())?;
        let pulls = *request.method() == Method::POST;
        if pulls && name.is_some() {
            // Its chunks, too: each of the two has to be allowed.
            let _chunks = decide(&caller, &bucket, change, None)?;
        }
        let ask = Ask {
            request,
            bucket,
            path_at,
        };
        match (name, change) {
            (None, _) => chunks::answer(self, permit, ask).await,
            (Some(name), Change::None) if pulls => indexes::cut(self, permit, ask, name).await,
            (Some(name), Change::None) => indexes::get(self, permit, ask, name).await,
            (Some(name), Change::Put) => indexes::put(self, permit, ask, name).await,
        }
    }

    /// Finds out who asks, and reads the bucket.
    async fn admit(&self, request: &Request<Incoming>, name: &str) -> Answer<Admitted> {
        let Some(given) = request.headers().get(AUTHORIZATION) else {
            return Err(Refused::unknown("missing", UNKNOWN));
        };
        let given = given.as_bytes().to_vec();
        let (names, tokens, name) = (self.objects.names().clone(), self.tokens(), name.to_owned());
        let found = self.pool.run(move || -> S3Result<Answer<Admitted>> {
            let Some(caller) = caller::identify(&names, &tokens, &given)? else {
                return Ok(Err(Refused::unknown("wrong", "this authorization opens nothing here")));
            };
            let Ok(name) = BucketName::new(&name) else {
                return Ok(Err(Code::NoSuchBucket.into()));
            };
            // Of the caller's tenant: another's bucket is not there.
            let tenant = Tenant::new(&caller.user().tenant)?;
            let bucket = Arc::new(names.buckets(&tenant).get(&name)?);
            Ok(Ok(Admitted { caller, bucket }))
        });
        found.await?
    }
}

/// What is told those who show nothing, whether there is such a bucket or not.
const UNKNOWN: &str = "no store of this name is configured, and of a bucket each request needs an authorization: an access key and \
                       its secret (Basic), or a token (Bearer)";

/// Whether a request changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Put,
}

fn change_of(method: &Method, face: Face, path: &str) -> Option<Change> {
    match *method {
        Method::GET | Method::HEAD => Some(Change::None),
        Method::PUT => Some(Change::Put),
        // Asks for many chunks, or for an index and its chunks.
        Method::POST if face == Face::Indexes || path == PULL_PATH => Some(Change::None),
        _ => None,
    }
}

/// The one decision.
fn decide(caller: &Caller, bucket: &Bucket, change: Change, name: Option<&IndexName>) -> Answer<Permit> {
    let (tenant, owner) = (bucket.tenant().as_str(), bucket.record.owner.as_str());
    let bucket_name = bucket.name().as_str();
    caller.check_scope(bucket_name, change == Change::Put)?;
    let (action, resource) = match (name, change) {
        (None, change) => {
            let action = match change {
                Change::None => Action::GetChunk,
                Change::Put => Action::PutChunk,
            };
            let resource = Resource::Bucket {
                tenant,
                owner,
                bucket: bucket_name,
            };
            (action, resource)
        }
        (Some(name), change) => {
            let action = match change {
                Change::None => Action::GetObject,
                Change::Put => Action::PutObject,
            };
            let resource = Resource::Object {
                tenant,
                owner,
                bucket: bucket_name,
                key: name.object().as_str(),
            };
            (action, resource)
        }
    };
    let principal = Principal::User(Arc::clone(caller.user()));
    authorize(&principal, action, resource).map_err(|_| Code::AccessDenied.into())
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

impl Refused {
    fn words(status: StatusCode, words: impl Into<String>) -> Self {
        Self::Words(status, words.into())
    }

    fn method() -> Self {
        Self::words(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET, HEAD and PUT are understood here",
        )
    }

    /// Nobody that is known here.
    fn unknown(reason: &'static str, words: &str) -> Self {
        metrics::counter!("auth_failures_total", "reason" => reason).increment(1);
        Self::words(StatusCode::UNAUTHORIZED, words)
    }

    /// The answer, for people: clients of these paths look at the status alone.
    fn reply(self, method: &Method) -> Response<Body> {
        let (status, words) = match self {
            Self::Words(status, words) => (status, words),
            Self::S3(error) => {
                let (_, code, message) = error.code.row();
                (error.status(), format!("{message} ({code})"))
            }
        };
        let mut response = refuse(method, status, words);
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                for scheme in ["Basic", "Bearer"] {
                    let value = format!("{scheme} realm=\"cairn\", charset=\"UTF-8\"");
                    if let Ok(value) = HeaderValue::try_from(value) {
                        headers.append(WWW_AUTHENTICATE, value);
                    }
                }
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, PUT"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    /// Goal: nothing of a bucket can be reached without the decision.
    /// Method: as at the S3 door, a permit comes out of `authorize` alone, and each handler takes one.
    #[test]
    fn every_handler_takes_a_permit() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/faces");
        let mut handlers = 0;
        for name in ["chunks.rs", "indexes.rs"] {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            for function in text.split("\npub(super) async fn ").skip(1) {
                let signature = function.split('{').next().unwrap();
                handlers += 1;
                assert!(
                    signature.contains("Permit"),
                    "{name}: this handler takes no permit: {signature}"
                );
            }
        }
        assert_eq!(handlers, 4, "the search is broken");
    }
}
