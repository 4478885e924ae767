//! An S3 server over a folder (`s3s-fs`), in this process. It counts requests, and fails when it is told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};

/// Whose buckets they are.
pub const ACCESS_KEY: &str = "CAIRNTESTKEY";
/// What proves it.
pub const SECRET_KEY: &str = "a-secret-of-the-tests";

/// What stands in front of the service, if it speaks otherwise.
pub(crate) type Door = fn(S3Service, Request<Body>) -> Answer;

/// An answer on its way.
pub(crate) type Answer = BoxFuture<'static, Result<Response<Body>, HttpError>>;

fn ask_for_keys(service: &mut S3ServiceBuilder) -> Option<Door> {
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    None
}

/// An S3 server on a free port, with one bucket.
pub struct S3Server {
    address: SocketAddr,
    folder: TempDir,
    runtime: Option<Runtime>,
    ledger: Arc<Ledger>,
}

/// What a request comes to instead of its answer.
#[derive(Clone, Debug)]
pub enum S3Trouble {
    /// This code of S3's, `InternalError`, and nothing is done.
    Answer(&'static str),
    /// All goes well: for those before the one that does not.
    None,
    /// Nothing is done or answered.
    Silence,
    /// It is done, and answered with 500.
    Lost,
}

#[derive(Debug, Default)]
struct Ledger {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Operation, how often, what.
    troubles: Mutex<Vec<(&'static str, usize, S3Trouble)>>,
}

impl Ledger {
    /// Counts a request. Returns whether its answer is to be lost.
    async fn enter(&self, operation: &'static str) -> S3Result<bool> {
        *self.counts.lock().unwrap().entry(operation).or_default() += 1;
        let trouble = {
            let mut troubles = self.troubles.lock().unwrap();
            let found = troubles.iter_mut().find(|(of, left, _)| *of == operation && *left > 0);
            found.map(|(_, left, trouble)| {
                *left -= 1;
                trouble.clone()
            })
        };
        match trouble {
            None | Some(S3Trouble::None) => Ok(false),
            Some(S3Trouble::Lost) => Ok(true),
            Some(S3Trouble::Silence) => std::future::pending().await,
            Some(S3Trouble::Answer(code)) => {
                let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap();
                Err(S3Error::with_message(code, "the test wants it so"))
            }
        }
    }
}

/// An error that is answered once all has been heard: a client that still sends would see its connection break instead.
async fn after(body: Option<StreamingBlob>, error: S3Error) -> S3Error {
    if let Some(mut body) = body {
        while let Some(Ok(_)) = body.next().await {}
    }
    error
}

fn unless_lost<T>(answer: S3Result<T>, lost: bool) -> S3Result<T> {
    if lost { Err(s3_error!(InternalError)) } else { answer }
}

impl S3Server {
    /// The one bucket.
    pub const BUCKET: &str = "chunks";

    /// Starts it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(Self::BUCKET)).unwrap();
        Self::start_in(folder, ask_for_keys)
    }

    /// Starts it with a bucket that shows this folder.
    pub fn start_showing(bucket: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(bucket, folder.path().join(Self::BUCKET)).unwrap();
        Self::start_in(folder, ask_for_keys)
    }

    /// - `door`: says who is let in, and what stands in front of the service.
    pub(crate) fn start_in(folder: TempDir, door: impl FnOnce(&mut S3ServiceBuilder) -> Option<Door>) -> Self {
        let ledger = Arc::new(Ledger::default());
        let mut service = S3ServiceBuilder::new(Buckets {
            root: folder.path().to_owned(),
            files: FileSystem::new(folder.path()).unwrap(),
            ledger: ledger.clone(),
        });
        let door = door(&mut service);
        let service = service.build();
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    // A client that leaves is none of the server's business.
                    let _ = Builder::new(TokioExecutor::new())
                        .serve_connection(
                            TokioIo::new(stream),
                            service_fn(move |request: Request<Incoming>| {
                                let (service, request) = (service.clone(), request.map(Body::from));
                                async move {
                                    match door {
                                        None => service.call(request).await,
                                        Some(door) => door(service, request).await,
                                    }
                                }
                            }),
                        )
                        .await;
                });
            }
        });
        Self {
            address,
            folder,
            runtime: Some(runtime),
            ledger,
        }
    }

    /// Requests so far, by operation.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.ledger.counts.lock().unwrap().clone()
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.counts().values().sum()
    }

    /// The next `times` requests of an operation (`put_object`) come to this.
    pub fn fail(&self, operation: &'static str, times: usize, trouble: S3Trouble) {
        self.ledger.troubles.lock().unwrap().push((operation, times, trouble));
    }

    /// From now on all goes well.
    pub fn heal(&self) {
        self.ledger.troubles.lock().unwrap().clear();
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `s3+http://…/BUCKET/place`.
    pub fn url(&self, place: &str) -> String {
        format!("s3+http://{}/{}/{place}", self.address, Self::BUCKET)
    }

    /// The file that an object is at the server.
    pub fn object(&self, key: &str) -> PathBuf {
        self.bucket().join(key)
    }

    /// The folder that the bucket is at the server.
    pub fn bucket(&self) -> PathBuf {
        self.root().join(Self::BUCKET)
    }

    /// The folder of all buckets.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// `s3s-fs` where it differs from S3: it makes a bucket that is put to, and takes an empty delimiter (desync's) for one.
struct Buckets {
    root: PathBuf,
    files: FileSystem,
    ledger: Arc<Ledger>,
}

#[async_trait::async_trait]
impl S3 for Buckets {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let mut request = request;
        let lost = match self.ledger.enter("put_object").await {
            Ok(lost) => lost,
            Err(error) => return Err(after(request.input.body.take(), error).await),
        };
        if self.root.join(&request.input.bucket).exists() {
            return unless_lost(self.files.put_object(request).await, lost);
        }
        Err(s3_error!(NoSuchBucket))
    }

    async fn list_objects_v2(
        &self,
        mut request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let lost = self.ledger.enter("list_objects_v2").await?;
        request.input.delimiter = request.input.delimiter.filter(|delimiter| !delimiter.is_empty());
        unless_lost(self.files.list_objects_v2(request).await, lost)
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let lost = self.ledger.enter("get_object").await?;
        unless_lost(self.files.get_object(request).await, lost)
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let lost = self.ledger.enter("head_object").await?;
        unless_lost(self.files.head_object(request).await, lost)
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let lost = self.ledger.enter("delete_object").await?;
        unless_lost(self.files.delete_object(request).await, lost)
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let lost = self.ledger.enter("delete_objects").await?;
        unless_lost(self.files.delete_objects(request).await, lost)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let lost = self.ledger.enter("create_multipart_upload").await?;
        unless_lost(self.files.create_multipart_upload(request).await, lost)
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let mut request = request;
        let lost = match self.ledger.enter("upload_part").await {
            Ok(lost) => lost,
            Err(error) => return Err(after(request.input.body.take(), error).await),
        };
        unless_lost(self.files.upload_part(request).await, lost)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let lost = self.ledger.enter("complete_multipart_upload").await?;
        unless_lost(self.files.complete_multipart_upload(request).await, lost)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let lost = self.ledger.enter("abort_multipart_upload").await?;
        unless_lost(self.files.abort_multipart_upload(request).await, lost)
    }
}
