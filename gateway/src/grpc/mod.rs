//! The gRPC door, on the internal listener: the Remote Execution API's cache, as Bazel, moon, buildbox and others ask for it.
//!
//! Beside it are services of our own (`v1`). Blobs lie as chunks beside those of objects (`cairn_index`), an instance is a bucket. The way of a call: a place among the calls,
//! its deadline ([`Grpc::answer`]), tonic's codec, a service (`cas`, `byte_stream`, `action_cache`, `capabilities`), one job that finds out who asks, reads the
//! bucket, asks `authorize` and does the work with the permit (`Core::admitted`). Invariants: nothing of a blob is told or taken without that;
//! every message, page, upload and wait has a bound of [`GrpcOptions`]; errors become codes in `error` alone. Not here: how blobs are
//! kept, listeners.

mod action_cache;
mod asset;
mod byte_stream;
mod capabilities;
mod cas;
mod chunking;
mod error;
mod fetch;
mod names;
mod serve;
#[cfg(test)]
mod tests;
mod tree;
mod uploads;
mod v1;
mod zstd;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use cairn_identity::{Action, Permit, Principal, Resource, authorize};
use cairn_index::names::{BlobDigest, BlobFunction, Bucket, BucketName};
use cairn_index::{BlobHasher, Objects, Tenant};
use http::header::AUTHORIZATION;
use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};

use crate::admin::Admin;
use crate::faces::ServiceToken;
use crate::faces::caller::{self, Caller, Need};
use crate::pool::{Pool, PoolOptions};
use error::{Answer, Failed};

pub use fetch::FetchOptions;
pub use serve::Grpc;
pub use v1::SessionOptions;

/// Of the calls at once, one in so many may follow events, which never ends by itself.
const FOLLOWER_SHARE: usize = 8;

/// What the door is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcOptions {
    /// Buckets of instances by name; another instance is of the bucket that its first part names.
    pub instances: BTreeMap<String, String>,
    /// The bucket of the instance without a name; `None`: there is no such instance.
    pub default_bucket: Option<String>,
    /// For calls that show nothing: as whom they are taken. `None`: they are refused.
    pub anonymous: Option<ServiceToken>,
    /// Digest functions that are served, those that clients should prefer first.
    pub functions: Vec<BlobFunction>,
    /// Bytes of a message that is taken.
    pub message_len_max: usize,
    /// Bytes of blobs that clients are told to put into one call.
    pub batch_len: usize,
    /// Bytes of a blob; 0: no limit.
    pub blob_len_max: u64,
    /// Calls at once, those included whose answer is being read.
    pub calls: usize,
    /// Uploads that go on or wait to be gone on with.
    pub uploads: usize,
    /// For how long an upload waits to be gone on with.
    pub upload_kept: Duration,
    /// Sessions of chunk stores.
    pub sessions: SessionOptions,
    /// For how long a client may send nothing.
    pub idle: Duration,
    /// Directories of a tree that is listed, at most.
    pub tree_directories: usize,
    /// Directories in a page where the caller names no number, and at most.
    pub page: usize,
    /// Whether a result is taken only if its action and command are there.
    pub require_action: bool,
    /// What is fetched that nobody has pushed.
    pub fetch: FetchOptions,
    /// Its work.
    pub pool: PoolOptions,
    /// Its work that may take long: copies from one domain to another.
    pub slow_pool: PoolOptions,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            instances: BTreeMap::new(),
            default_bucket: None,
            anonymous: None,
            functions: BlobFunction::ALL.to_vec(),
            message_len_max: 16 << 20,
            batch_len: (4 << 20) - (64 << 10),
            blob_len_max: 0,
            calls: 4096,
            uploads: 1024,
            upload_kept: Duration::from_secs(600),
            sessions: SessionOptions::default(),
            idle: Duration::from_secs(60),
            tree_directories: 100_000,
            page: 1000,
            require_action: true,
            fetch: FetchOptions::default(),
            pool: PoolOptions::default(),
            slow_pool: crate::s3::S3Options::default().slow_pool,
        }
    }
}

/// What services work with.
#[derive(Debug)]
struct Core {
    objects: Arc<Objects>,
    options: GrpcOptions,
    pool: Pool,
    slow_pool: Pool,
    /// Those who follow events: one in [`FOLLOWER_SHARE`] of the calls.
    followers: Arc<Semaphore>,
    tokens: RwLock<Arc<[ServiceToken]>>,
    uploads: uploads::Uploads,
    sessions: v1::Sessions,
    /// Where the admin API is served. It knows who keeps the stores, and so this door: were it kept here, none of them would ever be closed.
    admin: OnceLock<Weak<Admin>>,
    fetches: fetch::Fetches,
}

/// What a call asks for, before anything is looked up.
#[derive(Clone, Debug)]
struct Ask {
    given: Option<Vec<u8>>,
    instance: String,
    action: Action,
}

/// A call that may.
#[derive(Debug)]
struct Admitted {
    bucket: Bucket,
    permit: Permit,
    instance: String,
}

impl Ask {
    /// Errors: what is no name of an instance.
    fn new(metadata: &MetadataMap, instance: &str, action: Action) -> Result<Self, Status> {
        names::check_instance(instance)?;
        // As bytes: what comes is not always text.
        let given = metadata
            .as_ref()
            .get(AUTHORIZATION)
            .map(|value| value.as_bytes().to_vec());
        Ok(Self {
            given,
            instance: instance.to_owned(),
            action,
        })
    }
}

impl Core {
    fn new(objects: Arc<Objects>, options: GrpcOptions) -> Self {
        Self {
            objects,
            pool: Pool::new("grpc", options.pool),
            slow_pool: Pool::new("grpc_slow", options.slow_pool),
            followers: Arc::new(Semaphore::new((options.calls / FOLLOWER_SHARE).max(1))),
            tokens: RwLock::new(Arc::new([])),
            uploads: uploads::Uploads::new(options.uploads, options.upload_kept),
            sessions: v1::Sessions::new(options.sessions),
            admin: OnceLock::new(),
            fetches: fetch::Fetches::new(options.fetch.clone()),
            options,
        }
    }

    fn tokens(&self) -> Arc<[ServiceToken]> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does the work of a call in one job, if its caller may.
    async fn admitted<T: Send + 'static>(
        self: &Arc<Self>,
        ask: Ask,
        work: impl FnOnce(&Arc<Self>, Admitted) -> Answer<T> + Send + 'static,
    ) -> Result<T, Status> {
        let core = Arc::clone(self);
        let job = move || {
            let admitted = core.admit(&ask)?;
            work(&core, admitted)
        };
        Ok(self.pool.run(job).await?)
    }

    /// Finds out who asks, reads the bucket, decides. May block.
    fn admit(&self, ask: &Ask) -> Answer<Admitted> {
        let caller = self.caller(ask.given.as_deref())?;
        let bucket = self.bucket(&caller, &ask.instance)?;
        let permit = decide(&caller, &bucket, ask.action)?;
        Ok(Admitted {
            bucket,
            permit,
            instance: ask.instance.clone(),
        })
    }

    /// The next message of a client, which may not pause for too long.
    async fn next<T>(&self, messages: &mut Streaming<T>) -> Result<Option<T>, Status> {
        match tokio::time::timeout(self.options.idle, messages.message()).await {
            Ok(message) => message,
            Err(_) => Err(error::silent()),
        }
    }

    fn caller(&self, given: Option<&[u8]>) -> Answer<Caller> {
        let unknown = |reason: &'static str, words: &str| {
            metrics::counter!("auth_failures_total", "reason" => reason).increment(1);
            Failed(Status::unauthenticated(words))
        };
        match (given, &self.options.anonymous) {
            (Some(given), _) => caller::identify(self.objects.names(), &self.tokens(), given)?
                .ok_or_else(|| unknown("wrong", "this authorization opens nothing here")),
            (None, Some(token)) => Ok(Caller::of_token(token)),
            (None, None) => Err(unknown(
                "missing",
                "show a token or an access key: metadata `authorization`, Bearer or Basic",
            )),
        }
    }

    /// The bucket of an instance, of the caller's tenant: another's is not there.
    fn bucket(&self, caller: &Caller, instance: &str) -> Answer<Bucket> {
        let named = self.options.instances.get(instance).map(String::as_str);
        let name = match (named, instance) {
            (Some(name), _) => name,
            (None, "") => self.options.default_bucket.as_deref().ok_or_else(|| {
                Status::invalid_argument("there is no instance without a name here: say which bucket it is")
            })?,
            (None, instance) => instance.split('/').next().unwrap_or_default(),
        };
        let none = || Status::invalid_argument("no bucket goes with this instance name");
        let name = BucketName::new(name).map_err(|_| none())?;
        let tenant = Tenant::new(&caller.user().tenant)?;
        Ok(self.objects.names().buckets(&tenant).get(&name)?)
    }

    /// Whether a digest is that of no bytes, which are always there and never kept.
    fn is_empty(digest: &BlobDigest) -> bool {
        digest.size() == 0 && *digest == BlobHasher::digest(digest.function(), b"")
    }

    /// Refuses a blob that is larger than any that is taken.
    fn check_len(&self, digest: &BlobDigest) -> Result<(), Status> {
        let max = self.options.blob_len_max;
        if max > 0 && digest.size() > max {
            return Err(Status::invalid_argument(format!(
                "a blob of {} bytes; the capabilities say {max} at most",
                digest.size()
            )));
        }
        Ok(())
    }
}

/// What of a token's rights an action takes.
fn need_of(action: Action) -> Need {
    match action {
        Action::PutBlob | Action::PutAsset | Action::FetchAsset => Need::Write,
        Action::PutActionResult => Need::WriteResults,
        _ => Need::Read,
    }
}

/// The one decision.
fn decide(caller: &Caller, bucket: &Bucket, action: Action) -> Answer<Permit> {
    let name = bucket.name().as_str();
    let denied = |words: &str| Failed(Status::new(Code::PermissionDenied, words));
    caller.check_need(name, need_of(action)).map_err(denied)?;
    let resource = Resource::Bucket {
        tenant: bucket.tenant().as_str(),
        owner: bucket.record.owner.as_str(),
        bucket: name,
    };
    let principal = Principal::User(Arc::clone(caller.user()));
    authorize(&principal, action, resource).map_err(|_| denied("access denied"))
}
