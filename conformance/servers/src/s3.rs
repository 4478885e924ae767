//! An S3 server over a folder (`s3s-fs`), in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};

/// Whose buckets they are.
pub const ACCESS_KEY: &str = "CAIRNTESTKEY";
/// What proves it.
pub const SECRET_KEY: &str = "a-secret-of-the-tests";

/// An S3 server on a free port, with one bucket.
pub struct S3Server {
    address: SocketAddr,
    folder: TempDir,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// The one bucket.
    pub const BUCKET: &str = "chunks";

    /// Starts it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(Self::BUCKET)).unwrap();
        Self::start_in(folder)
    }

    /// Starts it with a bucket that shows this folder.
    pub fn start_showing(bucket: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(bucket, folder.path().join(Self::BUCKET)).unwrap();
        Self::start_in(folder)
    }

    fn start_in(folder: TempDir) -> Self {
        let mut service = S3ServiceBuilder::new(Buckets {
            root: folder.path().to_owned(),
            files: FileSystem::new(folder.path()).unwrap(),
        });
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
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
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            folder,
            runtime: Some(runtime),
        }
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
}

#[async_trait::async_trait]
impl S3 for Buckets {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        if self.root.join(&request.input.bucket).exists() {
            return self.files.put_object(request).await;
        }
        Err(s3_error!(NoSuchBucket))
    }

    async fn list_objects_v2(
        &self,
        mut request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        request.input.delimiter = request.input.delimiter.filter(|delimiter| !delimiter.is_empty());
        self.files.list_objects_v2(request).await
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.files.get_object(request).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.files.head_object(request).await
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.files.delete_object(request).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.files.delete_objects(request).await
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.files.create_multipart_upload(request).await
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.files.upload_part(request).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.files.complete_multipart_upload(request).await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.files.abort_multipart_upload(request).await
    }
}
