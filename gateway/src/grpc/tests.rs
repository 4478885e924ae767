//! The door over real packs and rows, asked through the generated clients and tonic's codec, without a network.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{Level, compress_frame};
use cairn_index::names::{Bucket, BucketName, Names, NewBucket, Owner};
use cairn_index::{BlobHasher, Database, ObjectOptions, Objects, RocksEngine, RocksOptions, Tenant, open_schema};
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

/// A door with a bucket `main`, and the folder of it all.
struct World {
    _folder: TempDir,
    door: Arc<Grpc>,
    bucket: Bucket,
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
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut GrpcOptions)) -> Self {
        let folder = TempDir::new().unwrap();
        let engine = RocksEngine::open(&folder.path().join("index"), &RocksOptions::default()).unwrap();
        let engine = Arc::new(engine);
        let packs = folder.path().join("packs");
        let (packs, _) = PackEngine::open_folder(&packs, PackOptions::default(), engine.clone()).unwrap();
        let packs = Arc::new(packs);
        let kv = Arc::new(Database::logged(engine, packs.clone()));
        open_schema(kv.as_ref(), "the test").unwrap();
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
        let door = Grpc::new(objects, options);
        door.set_tokens(vec![
            token("all", true, true),
            token("writes", true, false),
            token("reads", false, false),
        ]);
        Self {
            _folder: folder,
            door: Arc::new(door),
            bucket,
        }
    }

    fn channel(&self, shown: &'static str) -> InterceptedService<Local, Shows> {
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
struct Shows(&'static str);

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
struct Local(Arc<Grpc>);

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

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_say_what_is_served_and_who_writes_results() {
    let world = World::new();
    for (shown, updates) in [("all", true), ("writes", false), ("reads", false)] {
        let mut client = CapabilitiesClient::new(world.channel(shown));
        let answer = client
            .get_capabilities(GetCapabilitiesRequest::default())
            .await
            .unwrap();
        let cache = answer.into_inner().cache_capabilities.unwrap();
        assert_eq!(cache.max_batch_total_size_bytes, (4 << 20) - (64 << 10));
        assert_eq!(cache.digest_functions[..2], [1, 9]);
        assert_eq!(cache.action_cache_update_capabilities.unwrap().update_enabled, updates);
    }
}

/// Goal: nothing is told or taken without a token that is for it.
#[tokio::test(flavor = "multi_thread")]
async fn callers_show_who_they_are_and_get_what_is_theirs() {
    let world = World::new();
    let ask = |instance: &str| FindMissingBlobsRequest {
        instance_name: instance.to_owned(),
        ..Default::default()
    };
    let cas = |shown| ContentAddressableStorageClient::new(world.channel(shown));
    for (shown, instance, code) in [
        ("", "", Code::Unauthenticated),
        ("wrong", "", Code::Unauthenticated),
        ("reads", "others", Code::PermissionDenied),
        ("reads", "nothing", Code::InvalidArgument),
        ("reads", "main/blobs", Code::InvalidArgument),
    ] {
        let refused = cas(shown).find_missing_blobs(ask(instance)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{shown} {instance}: {refused}");
    }
    for instance in ["", "main", "main/sub/instance"] {
        cas("reads").find_missing_blobs(ask(instance)).await.unwrap();
    }
    let refused = cas("reads")
        .batch_update_blobs(BatchUpdateBlobsRequest::default())
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let open = World::with(|options| options.anonymous = Some(token("nobody", false, false)));
    let mut nobody = ContentAddressableStorageClient::new(open.channel(""));
    nobody.find_missing_blobs(ask("")).await.unwrap();
    let refused = nobody.batch_update_blobs(BatchUpdateBlobsRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

/// Goal: what was put in a batch is there, reads back, plain and compressed, and each blob has its own status.
#[tokio::test(flavor = "multi_thread")]
async fn batches_put_and_read_blobs_each_with_its_own_status() {
    let world = World::new();
    let text = Bytes::from("the same line again and again\n".repeat(10_000));
    let blobs = [
        noise(1, 1),
        noise(2, 5000),
        noise(3, 300_000),
        text.clone(),
        Bytes::new(),
    ];
    let digests = world.put(&blobs).await;
    let absent = digest(b"absent");
    let asked: Vec<Digest> = digests
        .iter()
        .cloned()
        .chain([absent.clone(), absent.clone()])
        .collect();
    assert_eq!(world.missing(&asked).await, [absent.clone(), absent.clone()]);
    for zstd in [false, true] {
        let request = BatchReadBlobsRequest {
            digests: asked.clone(),
            acceptable_compressors: if zstd { vec![1] } else { Vec::new() },
            ..Default::default()
        };
        let answer = world.cas().batch_read_blobs(request).await.unwrap().into_inner();
        for (one, blob) in answer.responses.iter().zip(&blobs) {
            assert_eq!(one.status.as_ref().unwrap().code, 0);
            let plain = match one.compressor {
                0 => one.data.to_vec(),
                _ => super::zstd::decode(&one.data, blob.len()).unwrap(),
            };
            assert_eq!(plain, *blob);
            assert!(one.compressor == 0 || (zstd && one.data.len() < blob.len()));
        }
        assert_eq!(zstd, answer.responses[3].compressor == 1, "text shrinks");
        let status = answer.responses[5].status.as_ref().unwrap();
        assert_eq!(status.code, Code::NotFound as i32);
    }
    let other = noise(4, 100);
    let update = |digest: &Digest, data: Bytes, compressor: i32| batch_update_blobs_request::Request {
        digest: Some(digest.clone()),
        data,
        compressor,
    };
    let request = BatchUpdateBlobsRequest {
        requests: vec![
            update(&digest(&other), noise(5, 100), 0),
            update(&digest(&text), compress_frame(&text, Level::new(3)).into(), 1),
            update(&digest(&other), Bytes::from_static(b"no zstd"), 1),
            update(&digest(&other), other.clone(), 2),
            update(
                &Digest {
                    size_bytes: -1,
                    ..digest(&other)
                },
                other.clone(),
                0,
            ),
        ],
        ..Default::default()
    };
    let answer = world.cas().batch_update_blobs(request).await.unwrap().into_inner();
    let codes: Vec<i32> = answer
        .responses
        .iter()
        .map(|one| one.status.as_ref().unwrap().code)
        .collect();
    assert_eq!(codes, [3, 0, 3, 3, 3]);
    assert_eq!(world.missing(&[digest(&other)]).await.len(), 1);
    let too_much = BatchReadBlobsRequest {
        digests: vec![Digest {
            size_bytes: 17 << 20,
            ..absent
        }],
        ..Default::default()
    };
    let refused = world.cas().batch_read_blobs(too_much).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_function_names_blobs_of_its_own() {
    let world = World::new();
    let bytes = noise(6, 40_000);
    for function in BlobFunction::ALL {
        let own = message_of(&BlobHasher::digest(function, &bytes));
        let value = super::names::function_value(function) as i32;
        let ask = FindMissingBlobsRequest {
            blob_digests: vec![own.clone()],
            digest_function: value,
            ..Default::default()
        };
        let missing = world.cas().find_missing_blobs(ask.clone()).await.unwrap().into_inner();
        assert_eq!(missing.missing_blob_digests.len(), 1, "{function:?}");
        let request = BatchUpdateBlobsRequest {
            requests: vec![batch_update_blobs_request::Request {
                digest: Some(own.clone()),
                data: bytes.clone(),
                ..Default::default()
            }],
            digest_function: value,
            ..Default::default()
        };
        let answer = world.cas().batch_update_blobs(request).await.unwrap().into_inner();
        assert_eq!(answer.responses[0].status.as_ref().unwrap().code, 0);
        let named = if function == BlobFunction::Blake3 {
            "blake3/"
        } else {
            ""
        };
        let read = world.read(format!("blobs/{named}{}", path(&own)), 0, 0).await.unwrap();
        assert_eq!(read, bytes);
    }
}

/// Goal: any range of a blob is what it should be, plain and as frames.
#[tokio::test(flavor = "multi_thread")]
async fn streams_read_from_any_place_on() {
    let world = World::new();
    for blob in [
        noise(7, 3_000_000),
        noise(8, 3000),
        Bytes::from("line\n".repeat(300_000)),
    ] {
        let own = world.put(std::slice::from_ref(&blob)).await.remove(0);
        let len = blob.len() as i64;
        for (from, limit) in [
            (0, 0),
            (1, 0),
            (len / 2, 100),
            (len - 1, 0),
            (len, 0),
            (0, len + 5),
            (70_000.min(len), 1),
        ] {
            let to = if limit == 0 { len } else { len.min(from + limit) };
            let plain = world
                .read(format!("main/blobs/{}", path(&own)), from, limit)
                .await
                .unwrap();
            assert_eq!(plain, blob[from as usize..to as usize], "{from} {limit}");
            if limit == 0 {
                let name = format!("compressed-blobs/zstd/{}", path(&own));
                let frames = world.read(name, from, 0).await.unwrap();
                let plain = super::zstd::decode(&frames, (len - from) as usize).unwrap();
                assert_eq!(plain, blob[from as usize..], "{from}");
            }
        }
        let name = |form: &str| format!("{form}/{}", path(&own));
        for (name, from, limit, code) in [
            (name("blobs"), len + 1, 0, Code::OutOfRange),
            (name("blobs"), -1, 0, Code::OutOfRange),
            (name("blobs"), 0, -1, Code::InvalidArgument),
            (name("compressed-blobs/zstd"), 0, 1, Code::InvalidArgument),
            (name("compressed-blobs/deflate"), 0, 0, Code::InvalidArgument),
            (format!("blobs/{}", path(&digest(b"absent"))), 0, 0, Code::NotFound),
        ] {
            assert_eq!(
                world.read(name.clone(), from, limit).await.unwrap_err().code(),
                code,
                "{name}"
            );
        }
    }
    let empty = digest(b"");
    assert_eq!(world.read(format!("blobs/{}", path(&empty)), 0, 0).await.unwrap(), b"");
    assert_eq!(
        world
            .read(format!("compressed-blobs/zstd/{}", path(&empty)), 0, 0)
            .await
            .unwrap(),
        b""
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_names_another_resource_is_refused() {
    let world = World::new();
    let own = world.put(&[noise(9, 10)]).await.remove(0);
    for (named, works) in [
        (format!("blobs/{}", path(&own)), true),
        ("blobs/other".to_owned(), false),
    ] {
        let mut request = Request::new(ReadRequest {
            resource_name: format!("blobs/{}", path(&own)),
            ..Default::default()
        });
        let header = "build.bazel.remote.execution.v2.resource-name";
        request.metadata_mut().insert(header, named.parse().unwrap());
        assert_eq!(world.bytes().read(request).await.is_ok(), works);
    }
}

/// Goal: blobs of any size arrive through streams, cut anywhere, plain and compressed; what is there already ends its upload at once.
#[tokio::test(flavor = "multi_thread")]
async fn streams_write_plain_and_compressed() {
    let world = World::new();
    for (n, len) in [1, 4096, 1_500_000].into_iter().enumerate() {
        let plain = noise(20 + n as u64, len);
        let name = format!("main/uploads/u{n}/blobs/{}/metadata", path(&digest(&plain)));
        let sent = world.write(messages(&name, &plain, 0, 60_000)).await.unwrap();
        assert_eq!(sent, len as i64);
        let again = world.write(messages(&name, &plain[..1], 0, 1)).await.unwrap();
        assert_eq!(again, len as i64, "it is there");
        assert!(world.missing(&[digest(&plain)]).await.is_empty());

        let text = Bytes::from(format!("{n} line\n").repeat(len));
        let coded = [
            compress_frame(&text[..len / 2], Level::new(3)),
            compress_frame(&text[len / 2..], Level::new(3)),
        ]
        .concat();
        let name = format!("uploads/z{n}/compressed-blobs/zstd/{}", path(&digest(&text)));
        let sent = world.write(messages(&name, &coded, 0, 999)).await.unwrap();
        assert_eq!(sent, coded.len() as i64);
        assert_eq!(world.write(messages(&name, &coded, 0, 999)).await.unwrap(), -1);
        let read = world
            .read(format!("blobs/{}", path(&digest(&text))), 0, 0)
            .await
            .unwrap();
        assert_eq!(read, text);
    }
    let name = format!("uploads/e/blobs/{}", path(&digest(b"")));
    assert_eq!(world.write(messages(&name, b"", 0, 1)).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_not_its_digest_makes_nothing() {
    let world = World::new();
    let (right, wrong) = (noise(30, 100_000), noise(31, 100_000));
    let own = digest(&right);
    let text = compress_frame(&right, Level::new(3));
    let plain = |n| format!("uploads/w{n}/blobs/{}", path(&own));
    let zstd = |n| format!("uploads/w{n}/compressed-blobs/zstd/{}", path(&own));
    let mut moved = messages(&plain(3), &right, 0, 5000);
    moved[2].write_offset += 1;
    let mut renamed = messages(&plain(4), &right, 0, 5000);
    renamed[2].resource_name = plain(5);
    for sent in [
        messages(&plain(0), &wrong, 0, 5000),
        messages(&plain(1), &right[1..], 0, 5000),
        messages(&plain(2), &[&right[..], b"more"].concat(), 0, 5000),
        moved,
        renamed,
        messages(&plain(6), &right, 5, 5000),
        messages(&plain(7), &right, -1, 5000),
        messages(&zstd(8), &right, 0, 5000),
        messages(&zstd(9), &text[..text.len() - 1], 0, 5000),
        messages(&format!("blobs/{}", path(&own)), &right, 0, 5000),
        Vec::new(),
    ] {
        let refused = world.write(sent).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert_eq!(world.missing(&[own]).await.len(), 1);
}

/// Goal: an upload that stops goes on where it stopped, plain or compressed, and says where that is.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stops_goes_on_where_it_stopped() {
    let world = World::new();
    let plain = noise(40, 1_000_000);
    let name = format!("uploads/r/blobs/{}", path(&digest(&plain)));
    let status = || {
        let mut bytes = world.bytes();
        let resource_name = name.clone();
        async move {
            bytes
                .query_write_status(QueryWriteStatusRequest { resource_name })
                .await
        }
    };
    assert_eq!(status().await.unwrap_err().code(), Code::NotFound);
    let mut first = messages(&name, &plain[..400_000], 0, 30_000);
    first.last_mut().unwrap().finish_write = false;
    assert_eq!(world.write(first).await.unwrap(), 400_000);
    let told = status().await.unwrap().into_inner();
    assert_eq!((told.committed_size, told.complete), (400_000, false));
    let wrong = world.write(messages(&name, &plain[300_000..], 300_000, 30_000)).await;
    assert_eq!(wrong.unwrap_err().code(), Code::InvalidArgument);
    let rest = messages(&name, &plain[400_000..], 400_000, 30_000);
    assert_eq!(world.write(rest).await.unwrap(), 1_000_000);
    let told = status().await.unwrap().into_inner();
    assert_eq!((told.committed_size, told.complete), (1_000_000, true));
    let read = world
        .read(format!("blobs/{}", path(&digest(&plain))), 0, 0)
        .await
        .unwrap();
    assert_eq!(read, plain);

    let text = Bytes::from("compressed lines\n".repeat(50_000));
    let name = format!("uploads/r/compressed-blobs/zstd/{}", path(&digest(&text)));
    let half = compress_frame(&text[..text.len() / 2], Level::new(3));
    let mut first = messages(&name, &half, 0, 100);
    first.last_mut().unwrap().finish_write = false;
    let stopped = world.write(first).await.unwrap();
    assert_eq!(stopped, (text.len() / 2) as i64, "plain bytes");
    let rest = compress_frame(&text[text.len() / 2..], Level::new(3));
    world.write(messages(&name, &rest, stopped, 100)).await.unwrap();
    let read = world
        .read(format!("blobs/{}", path(&digest(&text))), 0, 0)
        .await
        .unwrap();
    assert_eq!(read, text);
}

/// Goal: uploads that wait are bounded; the one that has waited longest makes room.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_wait_make_room_for_new_ones() {
    let world = World::with(|options| options.uploads = 2);
    let blobs: Vec<Bytes> = (50..53).map(|seed| noise(seed, 100_000)).collect();
    let name = |n: usize| format!("uploads/{n}/blobs/{}", path(&digest(&blobs[n])));
    for (n, blob) in blobs.iter().enumerate() {
        let mut half = messages(&name(n), &blob[..50_000], 0, 10_000);
        half.last_mut().unwrap().finish_write = false;
        assert_eq!(world.write(half).await.unwrap(), 50_000);
    }
    let gone = world
        .write(messages(&name(0), &blobs[0][50_000..], 50_000, 10_000))
        .await;
    assert_eq!(gone.unwrap_err().code(), Code::InvalidArgument);
    for (n, blob) in blobs.iter().enumerate().skip(1) {
        let rest = messages(&name(n), &blob[50_000..], 50_000, 10_000);
        assert_eq!(world.write(rest).await.unwrap(), 100_000);
    }
}

fn folder(names: &[(&str, &Digest)]) -> Directory {
    let node = |(name, digest): &(&str, &Digest)| DirectoryNode {
        name: (*name).to_owned(),
        digest: Some((*digest).clone()),
    };
    Directory {
        directories: names.iter().map(node).collect(),
        ..Default::default()
    }
}

/// Goal: a tree comes in pages, each directory once, without those that are missing, and can be gone on with.
#[tokio::test(flavor = "multi_thread")]
async fn trees_come_in_pages_and_can_be_gone_on_with() {
    let world = World::with(|options| options.page = 3);
    let leaves: Vec<Bytes> = (0..7)
        .map(|n| {
            let leaf = Directory {
                symlinks: vec![SymlinkNode {
                    name: format!("{n}"),
                    target: "x".to_owned(),
                    ..Default::default()
                }],
                ..Default::default()
            };
            leaf.encode_to_vec().into()
        })
        .collect();
    let own = world.put(&leaves).await;
    let absent = digest(b"absent directory");
    let mut children: Vec<(String, &Digest)> = own
        .iter()
        .enumerate()
        .map(|(n, digest)| (format!("d{n}"), digest))
        .collect();
    children.push(("twice".to_owned(), &own[0]));
    children.push(("absent".to_owned(), &absent));
    let named: Vec<(&str, &Digest)> = children.iter().map(|(name, digest)| (name.as_str(), *digest)).collect();
    let root = Bytes::from(folder(&named).encode_to_vec());
    let root = world.put(&[root]).await.remove(0);
    let ask = |page_token: &str| GetTreeRequest {
        root_digest: Some(root.clone()),
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let mut pages = Vec::new();
    let mut stream = world.cas().get_tree(ask("")).await.unwrap().into_inner();
    while let Some(page) = stream.message().await.unwrap() {
        pages.push(page);
    }
    assert_eq!(pages.iter().map(|page| page.directories.len()).sum::<usize>(), 8);
    assert!(
        pages[..pages.len() - 1]
            .iter()
            .all(|page| !page.next_page_token.is_empty())
    );
    assert!(pages.last().unwrap().next_page_token.is_empty());
    let mut again = world
        .cas()
        .get_tree(ask(&pages[0].next_page_token))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        again.message().await.unwrap().unwrap().directories,
        pages[1].directories
    );
    let none = GetTreeRequest {
        root_digest: Some(absent),
        ..Default::default()
    };
    assert_eq!(world.cas().get_tree(none).await.unwrap_err().code(), Code::NotFound);
    let wrong = world.cas().get_tree(ask("three")).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    let no_directory = world.put(&[Bytes::from_static(b"\xff\xff\xff")]).await.remove(0);
    let wrong = GetTreeRequest {
        root_digest: Some(no_directory),
        ..Default::default()
    };
    assert_eq!(
        world.cas().get_tree(wrong).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

/// Goal: a result is taken from those who may, once its action is there, and answered as long as all that it names is.
#[tokio::test(flavor = "multi_thread")]
async fn results_are_answered_as_long_as_all_they_name_is_there() {
    let world = World::new();
    let command = Bytes::from(
        Command {
            arguments: vec!["true".to_owned()],
            ..Default::default()
        }
        .encode_to_vec(),
    );
    let action = Bytes::from(
        cairn_proto::execution::Action {
            command_digest: Some(digest(&command)),
            ..Default::default()
        }
        .encode_to_vec(),
    );
    let output = noise(60, 9000);
    let inner = noise(61, 100);
    let tree = Bytes::from(
        Tree {
            root: Some(Directory {
                files: vec![FileNode {
                    name: "inner".to_owned(),
                    digest: Some(digest(&inner)),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        }
        .encode_to_vec(),
    );
    let result = ActionResult {
        output_files: vec![OutputFile {
            path: "out".to_owned(),
            digest: Some(digest(&output)),
            ..Default::default()
        }],
        output_directories: vec![OutputDirectory {
            path: "dir".to_owned(),
            tree_digest: Some(digest(&tree)),
            ..Default::default()
        }],
        stdout_raw: Bytes::from("said\n".repeat(1000)),
        exit_code: 0,
        ..Default::default()
    };
    let update = |instance: &str| UpdateActionResultRequest {
        instance_name: instance.to_owned(),
        action_digest: Some(digest(&action)),
        action_result: Some(result.clone()),
        ..Default::default()
    };
    let get = |instance: &str| GetActionResultRequest {
        instance_name: instance.to_owned(),
        action_digest: Some(digest(&action)),
        inline_stdout: true,
        inline_output_files: vec!["out".to_owned()],
        ..Default::default()
    };
    let refused = world
        .actions("writes")
        .update_action_result(update(""))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let none = world.actions("reads").get_action_result(get("")).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);
    for part in [&action, &command] {
        let early = world.actions("all").update_action_result(update("")).await.unwrap_err();
        assert_eq!(early.code(), Code::FailedPrecondition);
        let status = cairn_proto::google::rpc::Status::decode(early.details()).unwrap();
        let detail = &status.details[0];
        let failure = cairn_proto::google::rpc::PreconditionFailure::decode(&detail.value[..]).unwrap();
        assert_eq!(failure.violations[0].subject, format!("blobs/{}", path(&digest(part))));
        world.put(std::slice::from_ref(part)).await;
    }
    let taken = world
        .actions("all")
        .update_action_result(update(""))
        .await
        .unwrap()
        .into_inner();
    assert!(
        taken.stdout_raw.is_empty() && taken.stdout_digest.is_some(),
        "what is long becomes a blob"
    );
    for part in [&output, &tree, &inner] {
        let incomplete = world.actions("reads").get_action_result(get("")).await.unwrap_err();
        assert_eq!(incomplete.code(), Code::NotFound);
        world.put(std::slice::from_ref(part)).await;
    }
    let found = world
        .actions("reads")
        .get_action_result(get(""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.stdout_raw, result.stdout_raw);
    assert_eq!(found.output_files[0].contents, output);
    let document = Bytes::from_static(b"{\"this\": \"is no Action\"}");
    world.put(std::slice::from_ref(&document)).await;
    let other = UpdateActionResultRequest {
        action_digest: Some(digest(&document)),
        ..update("")
    };
    world.actions("all").update_action_result(other).await.unwrap();
    let elsewhere = world
        .actions("reads")
        .get_action_result(get("main/other"))
        .await
        .unwrap_err();
    assert_eq!(elsewhere.code(), Code::NotFound, "results are of an instance");
    let blobs = world.door.objects().names().blobs(&world.bucket);
    let key = cairn_index::names::BlobKey::Content(BlobHasher::digest(BlobFunction::Sha256, &inner));
    blobs.delete(&key).unwrap();
    let incomplete = world.actions("reads").get_action_result(get("")).await.unwrap_err();
    assert_eq!(incomplete.code(), Code::NotFound);
}

/// Goal: a large blob is cut as the protocol says, its chunks are blobs that make it up, and nothing is stored for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_split_into_chunks_that_make_it_up() {
    let world = World::new();
    let blob = noise(80, 9_000_000);
    let own = world.put(&[blob.slice(..1_000_000)]).await.remove(0);
    let split = |own: &Digest| SplitBlobRequest {
        blob_digest: Some(own.clone()),
        ..Default::default()
    };
    let small = world.cas().split_blob(split(&own)).await.unwrap().into_inner();
    assert_eq!(small.chunk_digests, [own], "less than the largest chunk is not cut");
    let absent = world.cas().split_blob(split(&digest(b"absent"))).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    let own = digest(&blob);
    let name = format!("uploads/s/blobs/{}", path(&own));
    world.write(messages(&name, &blob, 0, 1 << 20)).await.unwrap();
    let answer = world.cas().split_blob(split(&own)).await.unwrap().into_inner();
    assert_eq!(answer.chunking_function, 1);
    let (avg, level) = (512 << 10, fastcdc::v2020::Normalization::Level2);
    let cuts = fastcdc::v2020::FastCDC::with_level_and_seed(&blob, avg / 4, avg, avg * 4, level, 0);
    let expected: Vec<Digest> = cuts
        .map(|cut| digest(&blob[cut.offset..cut.offset + cut.length]))
        .collect();
    assert!(expected.len() > 5);
    assert_eq!(answer.chunk_digests, expected);
    assert!(world.missing(&expected).await.is_empty());
    let mut read = Vec::new();
    for chunk in &expected {
        read.extend(world.read(format!("blobs/{}", path(chunk)), 0, 0).await.unwrap());
        let frames = world
            .read(format!("compressed-blobs/zstd/{}", path(chunk)), 5, 0)
            .await
            .unwrap();
        let plain = super::zstd::decode(&frames, chunk.size_bytes as usize - 5).unwrap();
        assert_eq!(plain, read[read.len() - plain.len()..]);
    }
    assert_eq!(read, blob);
    let again = world.cas().split_blob(split(&own)).await.unwrap().into_inner();
    assert_eq!(again, answer);
    let request = GetChunkMappingRequest {
        blob_digest: Some(own.clone()),
        ..Default::default()
    };
    let mut pages = world.cas().get_chunk_mapping(request).await.unwrap().into_inner();
    assert_eq!(pages.message().await.unwrap().unwrap().chunk_digests, expected);
}

/// Goal: a blob is put together of chunks that are there, if they are its bytes, in one message or in several.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_put_together_of_chunks() {
    let world = World::new();
    let blob = noise(81, 600_000);
    let parts = [
        blob.slice(..200_000),
        blob.slice(200_000..200_100),
        blob.slice(200_100..),
    ];
    let own = digest(&blob);
    let chunks: Vec<Digest> = parts.iter().map(|part| digest(part)).collect();
    let splice = |own: &Digest, chunks: &[Digest]| SpliceBlobRequest {
        blob_digest: Some(own.clone()),
        chunk_digests: chunks.to_vec(),
        ..Default::default()
    };
    let early = world.cas().splice_blob(splice(&own, &chunks)).await.unwrap_err();
    assert_eq!(early.code(), Code::NotFound);
    world.put(&parts).await;
    let reversed: Vec<Digest> = chunks.iter().rev().cloned().collect();
    for wrong in [splice(&own, &reversed), splice(&own, &chunks[1..]), splice(&own, &[])] {
        let refused = world.cas().splice_blob(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    for _ in 0..2 {
        let done = world
            .cas()
            .splice_blob(splice(&own, &chunks))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(done.blob_digest, Some(own.clone()), "again it is there");
    }
    assert_eq!(world.read(format!("blobs/{}", path(&own)), 0, 0).await.unwrap(), blob);
    for (chunk, part) in chunks.iter().zip(&parts) {
        assert_eq!(world.read(format!("blobs/{}", path(chunk)), 0, 0).await.unwrap(), *part);
    }
    let turned = [&parts[2][..], &parts[0][..]].concat();
    let first = RegisterChunkMappingRequest {
        blob_digest: Some(digest(&turned)),
        chunk_digests: vec![chunks[2].clone()],
        ..Default::default()
    };
    let second = RegisterChunkMappingRequest {
        chunk_digests: vec![chunks[0].clone()],
        ..Default::default()
    };
    let messages = futures_util::stream::iter([first, second]);
    let done = world.cas().register_chunk_mapping(messages).await.unwrap().into_inner();
    assert_eq!(done.blob_digest, Some(digest(&turned)));
    let read = world
        .read(format!("blobs/{}", path(&digest(&turned))), 0, 0)
        .await
        .unwrap();
    assert_eq!(read, turned);
}

/// Goal: what was pushed under an address and qualifiers is found by these, while all that it names is there and it has not expired.
#[tokio::test(flavor = "multi_thread")]
async fn assets_are_found_by_what_they_were_pushed_under() {
    use cairn_proto::asset::fetch_client::FetchClient;
    use cairn_proto::asset::push_client::PushClient;
    use cairn_proto::asset::*;
    let world = World::new();
    let (mut fetch, mut push) = (
        FetchClient::new(world.channel("reads")),
        PushClient::new(world.channel("all")),
    );
    let qualifier = |name: &str, value: &str| Qualifier {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let (blob, named) = (noise(90, 5000), noise(91, 50));
    let pushed = |expire_at| PushBlobRequest {
        uris: vec!["https://example.net/a".to_owned(), "urn:a".to_owned()],
        qualifiers: vec![qualifier("x", "1"), qualifier("y", "2")],
        blob_digest: Some(digest(&blob)),
        references_blobs: vec![digest(&named)],
        expire_at,
        ..Default::default()
    };
    let wanted = |uri: &str, qualifiers: Vec<Qualifier>| FetchBlobRequest {
        uris: vec!["urn:nothing".to_owned(), uri.to_owned()],
        qualifiers,
        ..Default::default()
    };
    let both = || vec![qualifier("y", "2"), qualifier("x", "1")];
    let early = push.push_blob(pushed(None)).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    world.put(&[blob.clone(), named.clone()]).await;
    push.push_blob(pushed(None)).await.unwrap();
    let found = fetch.fetch_blob(wanted("urn:a", both())).await.unwrap().into_inner();
    assert_eq!(found.blob_digest, Some(digest(&blob)));
    assert_eq!((&*found.uri, found.digest_function), ("urn:a", 1));
    let code =
        |answer: Result<tonic::Response<FetchBlobResponse>, Status>| answer.unwrap().into_inner().status.unwrap().code;
    let not_found = Code::NotFound as i32;
    assert_eq!(code(fetch.fetch_blob(wanted("urn:a", Vec::new())).await), not_found);
    assert_eq!(code(fetch.fetch_blob(wanted("urn:b", both())).await), not_found);
    let newer = FetchBlobRequest {
        oldest_content_accepted: Some(prost_types::Timestamp {
            seconds: i64::MAX / 2000,
            nanos: 0,
        }),
        ..wanted("urn:a", both())
    };
    assert_eq!(code(fetch.fetch_blob(newer).await), not_found);
    let of_directories = FetchDirectoryRequest {
        uris: vec!["urn:a".to_owned()],
        qualifiers: both(),
        ..Default::default()
    };
    let none = fetch
        .fetch_directory(of_directories.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(none.status.unwrap().code, not_found);
    let directory = PushDirectoryRequest {
        uris: vec!["urn:a".to_owned()],
        qualifiers: both(),
        root_directory_digest: Some(digest(&blob)),
        ..Default::default()
    };
    push.push_directory(directory).await.unwrap();
    let found = fetch.fetch_directory(of_directories).await.unwrap().into_inner();
    assert_eq!(found.root_directory_digest, Some(digest(&blob)));
    let past = prost_types::Timestamp { seconds: 1, nanos: 0 };
    push.push_blob(pushed(Some(past))).await.unwrap();
    assert_eq!(code(fetch.fetch_blob(wanted("urn:a", both())).await), not_found);
    push.push_blob(pushed(None)).await.unwrap();
    let key = cairn_index::names::BlobKey::Content(BlobHasher::digest(BlobFunction::Sha256, &named));
    world.door.objects().names().blobs(&world.bucket).delete(&key).unwrap();
    assert_eq!(
        code(fetch.fetch_blob(wanted("urn:a", both())).await),
        not_found,
        "what it names is gone"
    );
    let mut reads = PushClient::new(world.channel("reads"));
    assert_eq!(
        reads.push_blob(pushed(None)).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(
        push.push_blob(PushBlobRequest::default()).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_too_many_is_told_to_come_again() {
    let world = World::with(|options| options.calls = 1);
    let blob = noise(70, 5_000_000);
    let own = world.put(std::slice::from_ref(&blob)).await.remove(0);
    let request = ReadRequest {
        resource_name: format!("blobs/{}", path(&own)),
        ..Default::default()
    };
    let held = world.bytes().read(request.clone()).await.unwrap();
    let refused = world.bytes().read(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "the first is being read");
    drop(held);
    world.bytes().read(request).await.unwrap();
}

/// Goal: a call ends when its time is over, whatever its client does.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_call_is_kept() {
    let world = World::new();
    let stalled = futures_util::stream::pending::<WriteRequest>();
    let mut request = Request::new(stalled);
    request.set_timeout(Duration::from_millis(1));
    let refused = world.bytes().write(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded);
}
