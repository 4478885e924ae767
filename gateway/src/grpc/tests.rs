//! The door over real packs and rows, asked through the generated clients and tonic's codec, without a network.

mod assets;
mod blobs;
mod results;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{Level, compress_frame};
use cairn_index::names::{Bucket, BucketName, Names, NewBucket, Owner};
use cairn_index::{
    BlobHasher, Collector, Database, ObjectOptions, Objects, RocksEngine, RocksOptions, Tenant, open_schema,
};
use cairn_proto::execution::action_cache_client::ActionCacheClient;
use cairn_proto::execution::capabilities_client::CapabilitiesClient;
use cairn_proto::execution::content_addressable_storage_client::ContentAddressableStorageClient;
use cairn_proto::execution::*;
use cairn_proto::google::bytestream::byte_stream_client::ByteStreamClient;
use cairn_proto::google::bytestream::*;
use cairn_roots::Token;
use cairn_store::{PackEngine, PackOptions};
use prost::Message as _;
use tempfile::TempDir;
use tonic::body::Body;
use tonic::codegen::{InterceptedService, Service};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::{Code, Request, Status};

use super::names::message_of;
use super::*;
use crate::admin::{
    AdminOptions, Backup, BackupError, Backups, Upkeep, UpkeepError, UpkeepRun, UpkeepState, UpkeepTask,
};

/// A door with a bucket `main`, and the folder of it all.
pub(super) struct World {
    _folder: TempDir,
    pub(super) door: Arc<Grpc>,
    pub(super) collector: Collector<RocksEngine>,
    /// The door does not keep it.
    _admin: Arc<Admin>,
    bucket: Bucket,
}

/// Nobody takes any.
#[derive(Debug)]
struct NoBackups;

impl Backups for NoBackups {
    fn create(&self, _: &str) -> Result<Backup, BackupError> {
        Err(BackupError::Failed)
    }

    fn list(&self) -> Result<Vec<Backup>, BackupError> {
        Ok(Vec::new())
    }
}

/// What begins does not end.
#[derive(Debug, Default)]
struct Begun(Mutex<Vec<UpkeepTask>>);

impl Upkeep for Begun {
    fn start(&self, task: UpkeepTask) -> Result<UpkeepState, UpkeepError> {
        let mut begun = self.0.lock().unwrap();
        if begun.contains(&task) {
            return Err(UpkeepError::Running);
        }
        begun.push(task);
        drop(begun);
        Ok(self.state(task))
    }

    fn state(&self, task: UpkeepTask) -> UpkeepState {
        let run = UpkeepRun {
            begun_at: 1,
            ended_at: None,
            state: "waiting",
            counts: BTreeMap::from([("bytes", 0)]),
        };
        UpkeepState {
            running: self.0.lock().unwrap().contains(&task).then_some(run),
            last: None,
        }
    }
}

fn owner() -> Owner {
    Owner::new("me").unwrap()
}

fn token(secret: &str, writable: bool, action_cache: bool) -> ServiceToken {
    ServiceToken {
        secret: Token::new(secret),
        tenant: Tenant::default(),
        owner: owner(),
        buckets: Vec::new(),
        writable,
        action_cache,
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut GrpcOptions)) -> Self {
        let folder = TempDir::new().unwrap();
        let engine = RocksEngine::open(&folder.path().join("index"), &RocksOptions::default()).unwrap();
        let engine = Arc::new(engine);
        let packs = folder.path().join("packs");
        let (packs, _) = PackEngine::open_folder(&packs, PackOptions::default(), engine.clone()).unwrap();
        let packs = Arc::new(packs);
        let kv = Arc::new(Database::logged(engine, packs.clone()));
        open_schema(kv.as_ref(), "the test").unwrap();
        // Before anyone writes.
        let collector = Collector::new(Arc::clone(&kv), Arc::clone(&packs), Duration::ZERO).unwrap();
        let objects = Objects::new(Names::new(kv), packs, ObjectOptions::default());
        let make = |name: &str, owner: Owner| {
            let name = BucketName::new(name).unwrap();
            let made = objects
                .names()
                .buckets(&Tenant::default())
                .create(&name, NewBucket::of(owner));
            made.unwrap()
        };
        let bucket = make("main", owner());
        make("others", Owner::new("other").unwrap());
        let mut options = GrpcOptions {
            default_bucket: Some("main".to_owned()),
            ..GrpcOptions::default()
        };
        change(&mut options);
        let admin = AdminOptions {
            token: Token::new("admin"),
            region: "here".to_owned(),
            pool: PoolOptions::default(),
            backups: Arc::new(NoBackups),
            upkeep: Arc::new(Begun::default()),
        };
        let admin = Arc::new(Admin::new(Arc::clone(&objects), admin));
        let door = Grpc::new(objects, options);
        door.set_admin(&admin);
        door.set_tokens(vec![
            token("all", true, true),
            token("writes", true, false),
            token("reads", false, false),
        ]);
        Self {
            _folder: folder,
            door: Arc::new(door),
            collector,
            _admin: admin,
            bucket,
        }
    }

    pub(super) fn channel(&self, shown: &'static str) -> InterceptedService<Local, Shows> {
        InterceptedService::new(Local(Arc::clone(&self.door)), Shows(shown))
    }

    fn cas(&self) -> ContentAddressableStorageClient<InterceptedService<Local, Shows>> {
        ContentAddressableStorageClient::new(self.channel("all")).max_decoding_message_size(32 << 20)
    }

    fn bytes(&self) -> ByteStreamClient<InterceptedService<Local, Shows>> {
        ByteStreamClient::new(self.channel("all"))
    }

    fn actions(&self, shown: &'static str) -> ActionCacheClient<InterceptedService<Local, Shows>> {
        ActionCacheClient::new(self.channel(shown))
    }

    async fn put(&self, blobs: &[Bytes]) -> Vec<Digest> {
        let requests = blobs.iter().map(|bytes| batch_update_blobs_request::Request {
            digest: Some(digest(bytes)),
            data: bytes.clone(),
            ..Default::default()
        });
        let request = BatchUpdateBlobsRequest {
            requests: requests.collect(),
            ..Default::default()
        };
        let answer = self.cas().batch_update_blobs(request).await.unwrap().into_inner();
        assert!(
            answer
                .responses
                .iter()
                .all(|one| one.status.as_ref().unwrap().code == 0),
            "{answer:?}"
        );
        blobs.iter().map(|bytes| digest(bytes)).collect()
    }

    async fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        let request = FindMissingBlobsRequest {
            blob_digests: digests.to_vec(),
            ..Default::default()
        };
        let answer = self.cas().find_missing_blobs(request).await;
        answer.unwrap().into_inner().missing_blob_digests
    }

    async fn read(&self, name: String, offset: i64, limit: i64) -> Result<Vec<u8>, Status> {
        let request = ReadRequest {
            resource_name: name,
            read_offset: offset,
            read_limit: limit,
        };
        let mut messages = self.bytes().read(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = messages.message().await? {
            bytes.extend_from_slice(&message.data);
        }
        Ok(bytes)
    }

    async fn write(&self, messages: Vec<WriteRequest>) -> Result<i64, Status> {
        let messages = futures_util::stream::iter(messages);
        Ok(self.bytes().write(messages).await?.into_inner().committed_size)
    }
}

#[derive(Clone)]
pub(super) struct Shows(&'static str);

impl Interceptor for Shows {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !self.0.is_empty() {
            let shown: MetadataValue<_> = format!("Bearer {}", self.0).parse().unwrap();
            request.metadata_mut().insert("authorization", shown);
        }
        Ok(request)
    }
}

#[derive(Clone)]
pub(super) struct Local(Arc<Grpc>);

impl Service<http::Request<Body>> for Local {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let door = Arc::clone(&self.0);
        Box::pin(async move { Ok(door.call(request).await) })
    }
}

fn noise(seed: u64, len: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

fn digest(bytes: &[u8]) -> Digest {
    message_of(&BlobHasher::digest(BlobFunction::Sha256, bytes))
}

fn path(digest: &Digest) -> String {
    format!("{}/{}", digest.hash, digest.size_bytes)
}

/// Messages of a write that cut bytes at every `len`.
fn messages(name: &str, bytes: &[u8], first: i64, len: usize) -> Vec<WriteRequest> {
    let count = bytes.len().div_ceil(len).max(1);
    (0..count)
        .map(|n| {
            let data = &bytes[n * len..bytes.len().min((n + 1) * len)];
            WriteRequest {
                resource_name: if n == 0 { name.to_owned() } else { String::new() },
                write_offset: first + (n * len) as i64,
                finish_write: n + 1 == count,
                data: Bytes::copy_from_slice(data),
            }
        })
        .collect()
}
