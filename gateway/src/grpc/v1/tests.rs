//! Each call of `cairn.v1` through its generated client: done once as it should be, refused once; a test holds the list to the descriptors.

mod sessions;

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use cairn_formats::{Chunk, ChunkForm, DigestAlgorithm, Level};
use cairn_index::Tenant;
use cairn_index::names::BucketName;
use cairn_proto::DESCRIPTORS;
use cairn_proto::cairn::v1::admin_client::AdminClient;
use cairn_proto::cairn::v1::buckets_client::BucketsClient;
use cairn_proto::cairn::v1::chunk_store_client::ChunkStoreClient;
use cairn_proto::cairn::v1::events_client::EventsClient;
use cairn_proto::cairn::v1::index_client::IndexClient;
use cairn_proto::cairn::v1::objects_client::ObjectsClient;
use cairn_proto::cairn::v1::*;
use prost::Message as _;
use prost_types::Value;
use prost_types::value::Kind;
use tonic::{Code, Status};

use crate::grpc::SessionOptions;
use crate::grpc::tests::World;

/// Which calls were done, and which were refused with which code.
#[derive(Default)]
struct Seen {
    done: BTreeSet<&'static str>,
    refused: BTreeSet<&'static str>,
}

impl Seen {
    #[track_caller]
    fn done<T>(&mut self, call: &'static str, answer: Result<tonic::Response<T>, Status>) -> T {
        self.done.insert(call);
        match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) => panic!("{call}: {status}"),
        }
    }

    #[track_caller]
    fn refused<T>(&mut self, call: &'static str, answer: Result<T, Status>, code: Code) {
        self.refused.insert(call);
        match answer {
            Ok(_) => panic!("{call} was not refused"),
            Err(status) => assert_eq!(status.code(), code, "{call}: {status}"),
        }
    }

    /// All calls that are described, and no others, were both.
    fn check(&self, services: &[&str]) {
        self.check_where(|service, method| services.contains(&service) && !sessions::CALLS.contains(&method));
    }

    fn check_where(&self, wanted: impl Fn(&str, &str) -> bool) {
        let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let mut described = BTreeSet::new();
        for file in set.file.iter().filter(|file| file.package() == "cairn.v1") {
            for service in &file.service {
                let wanted = |method: &&_| wanted(service.name(), prost_types::MethodDescriptorProto::name(method));
                for method in service.method.iter().filter(wanted) {
                    described.insert(format!("{}/{}", service.name(), method.name()));
                }
            }
        }
        assert!(!described.is_empty());
        let strings = |seen: &BTreeSet<&str>| seen.iter().map(|&call| call.to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(strings(&self.done), described, "done");
        assert_eq!(strings(&self.refused), described, "refused");
    }
}

fn chunk(byte: u8, len: usize) -> Chunk {
    Chunk::from_plain(DigestAlgorithm::default(), vec![byte; len].into())
}

fn put_chunk(chunk: &Chunk, encoding: ChunkEncoding) -> PutChunksRequest {
    let form = match encoding {
        ChunkEncoding::Zstd => ChunkForm::Compressed,
        ChunkEncoding::Plain => ChunkForm::Plain,
    };
    PutChunksRequest {
        bucket: String::new(),
        id: Bytes::copy_from_slice(chunk.id().as_bytes()),
        encoding: encoding as i32,
        data: chunk.encode(form, Level::DEFAULT).bytes().clone(),
        ..Default::default()
    }
}

async fn all<T>(mut messages: tonic::Streaming<T>) -> Result<Vec<T>, Status> {
    let mut got = Vec::new();
    while let Some(message) = messages.message().await? {
        got.push(message);
    }
    Ok(got)
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_put_found_and_read_many_in_a_call() {
    let world = World::new();
    let mut seen = Seen::default();
    let mut chunks = ChunkStoreClient::new(world.channel("all"));
    let mut reader = ChunkStoreClient::new(world.channel("reads"));
    let mine: Vec<Chunk> = (0..200).map(|byte| chunk(byte, 1000 + usize::from(byte))).collect();
    let mut puts: Vec<PutChunksRequest> = mine.iter().map(|chunk| put_chunk(chunk, ChunkEncoding::Zstd)).collect();
    puts[7] = put_chunk(&mine[7], ChunkEncoding::Plain);
    puts[0].bucket = "main".to_owned();
    let acks = chunks.put_chunks(futures_util::stream::iter(puts.clone())).await;
    let acks = all(seen.done("ChunkStore/PutChunks", acks)).await.unwrap();
    assert_eq!(acks.last().unwrap().stored, 200);
    assert!(acks.windows(2).all(|two| two[0].stored < two[1].stored));
    assert!(acks.iter().all(|ack| ack.durability() == Durability::Sync));
    let refused = reader.put_chunks(futures_util::stream::iter(puts.clone())).await;
    seen.refused("ChunkStore/PutChunks", refused, Code::PermissionDenied);
    // Those before one that is not what its id says are stored.
    puts[150].data = puts[3].data.clone();
    let other = chunk(250, 5);
    puts.push(put_chunk(&other, ChunkEncoding::Zstd));
    let broken = chunks
        .put_chunks(futures_util::stream::iter(puts))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(all(broken).await.unwrap_err().code(), Code::InvalidArgument);

    let ids: Vec<u8> = mine
        .iter()
        .chain([&other])
        .flat_map(|chunk| *chunk.id().as_bytes())
        .collect();
    let ids = Bytes::from(ids);
    let has = |bucket: &str, ids: Bytes| HasChunksRequest {
        bucket: bucket.to_owned(),
        ids,
        ..Default::default()
    };
    let present = seen
        .done(
            "ChunkStore/HasChunks",
            reader.has_chunks(has("main", ids.clone())).await,
        )
        .present;
    assert_eq!(present.len(), 26);
    assert_eq!((&present[..25], present[25]), (&[0xff; 25][..], 0));
    let refused = reader.has_chunks(has("main", ids.slice(1..))).await;
    seen.refused("ChunkStore/HasChunks", refused, Code::InvalidArgument);
    for (bucket, code) in [("nothing", Code::NotFound), ("others", Code::PermissionDenied)] {
        assert_eq!(
            reader.has_chunks(has(bucket, ids.clone())).await.unwrap_err().code(),
            code
        );
    }

    for plain in [false, true] {
        let get = GetChunksRequest {
            bucket: "main".to_owned(),
            ids: ids.clone(),
            plain,
        };
        let got = seen.done("ChunkStore/GetChunks", reader.get_chunks(get).await);
        let got = all(got).await.unwrap();
        assert_eq!(got.len(), 201);
        for (chunk, message) in mine.iter().zip(&got) {
            assert_eq!(message.id[..], chunk.id().as_bytes()[..]);
            let bytes = match message.encoding() {
                ChunkEncoding::Plain => message.data.to_vec(),
                ChunkEncoding::Zstd => cairn_formats::decompress_frame(&message.data, 1 << 20).unwrap(),
            };
            assert_eq!((&bytes[..], message.missing), (&chunk.plain()[..], false));
            assert!(!plain || message.encoding() == ChunkEncoding::Plain);
        }
        assert!(got[200].missing && got[200].data.is_empty());
    }
    let nobody = ChunkStoreClient::new(world.channel(""))
        .get_chunks(GetChunksRequest::default())
        .await;
    seen.refused("ChunkStore/GetChunks", nobody, Code::Unauthenticated);

    let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8 ^ (at >> 9) as u8).collect();
    put(&world, "a/b", &bytes).await.unwrap();
    let resolve = |offset: u64, length: u64| ResolveRangeRequest {
        bucket: "main".to_owned(),
        key: "a/b".to_owned(),
        offset,
        length,
        ..Default::default()
    };
    let extents = seen.done(
        "ChunkStore/ResolveRange",
        reader.resolve_range(resolve(100_000, 1000)).await,
    );
    let extents: Vec<_> = all(extents)
        .await
        .unwrap()
        .into_iter()
        .flat_map(|one| one.extents)
        .collect();
    assert!(!extents.is_empty() && extents[0].offset <= 100_000);
    let ids: Vec<u8> = extents.iter().flat_map(|extent| extent.id.to_vec()).collect();
    let get = GetChunksRequest {
        bucket: "main".to_owned(),
        ids: ids.into(),
        plain: true,
    };
    let got = all(reader.get_chunks(get).await.unwrap().into_inner()).await.unwrap();
    for (extent, chunk) in extents.iter().zip(got) {
        let start = extent.offset as usize;
        assert_eq!(chunk.data[..], bytes[start..start + extent.length as usize]);
    }
    let refused = reader.resolve_range(resolve(300_001, 0)).await;
    seen.refused("ChunkStore/ResolveRange", refused, Code::OutOfRange);
    seen.check(&["ChunkStore"]);
}

/// Goal: a chunk that came by another door and is longer than a message may be is refused by its name, and given where it is short.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_longer_than_a_message_is_named() {
    let world = World::new();
    let chunk = chunk(0, 17 << 20);
    let (objects, main) = (world.door.objects(), BucketName::new("main").unwrap());
    let bucket = objects.names().buckets(&Tenant::default()).get(&main).unwrap();
    let stored = chunk.encode(ChunkForm::Compressed, Level::DEFAULT);
    objects.chunk_store(&bucket).put_many(&[stored]).unwrap();
    let mut reader = ChunkStoreClient::new(world.channel("reads"));
    let get = |plain| GetChunksRequest {
        bucket: "main".to_owned(),
        ids: Bytes::copy_from_slice(chunk.id().as_bytes()),
        plain,
    };
    let short = all(reader.get_chunks(get(false)).await.unwrap().into_inner())
        .await
        .unwrap();
    assert!(!short[0].missing && short[0].encoding() == ChunkEncoding::Zstd);
    let refused = all(reader.get_chunks(get(true)).await.unwrap().into_inner())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert!(refused.message().contains(&chunk.id().to_string()), "{refused}");
}

fn header(key: &str) -> put_object_request::Header {
    put_object_request::Header {
        bucket: "main".to_owned(),
        key: key.to_owned(),
        content_type: "text/plain".to_owned(),
        metadata: HashMap::from([("colour".to_owned(), "green".to_owned())]),
        tags: HashMap::from([("kind".to_owned(), "test".to_owned())]),
        ..Default::default()
    }
}

fn messages(header: put_object_request::Header, bytes: &[u8]) -> Vec<PutObjectRequest> {
    let header = put_object_request::Part::Header(header);
    let data = bytes
        .chunks(70_000)
        .map(|piece| put_object_request::Part::Data(Bytes::copy_from_slice(piece)));
    [header]
        .into_iter()
        .chain(data)
        .map(|part| PutObjectRequest { part: Some(part) })
        .collect()
}

async fn put(world: &World, key: &str, bytes: &[u8]) -> Result<Object, Status> {
    let mut objects = ObjectsClient::new(world.channel("all"));
    let messages = messages(header(key), bytes);
    let answer = objects.put_object(futures_util::stream::iter(messages)).await?;
    Ok(answer.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_put_read_listed_copied_and_deleted() {
    let world = World::new();
    let mut seen = Seen::default();
    let mut objects = ObjectsClient::new(world.channel("all"));
    let mut reader = ObjectsClient::new(world.channel("reads"));
    let bytes: Vec<u8> = (0..500_000_u32).map(|at| ((at * 7) >> 3) as u8).collect();
    let answer = objects
        .put_object(futures_util::stream::iter(messages(header("a/one"), &bytes)))
        .await;
    let one = seen.done("Objects/PutObject", answer);
    assert_eq!(
        (one.size, &*one.content_type, &*one.metadata["colour"]),
        (500_000, "text/plain", "green")
    );
    let absent = put_object_request::Header {
        if_absent: true,
        ..header("a/one")
    };
    let refused = objects
        .put_object(futures_util::stream::iter(messages(absent, b"x")))
        .await;
    seen.refused("Objects/PutObject", refused, Code::FailedPrecondition);
    let refused = reader
        .put_object(futures_util::stream::iter(messages(header("b"), b"x")))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let headless = messages(header("b"), b"x").split_off(1);
    let refused = objects.put_object(futures_util::stream::iter(headless)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    put(&world, "a/two", b"").await.unwrap();

    let head = |key: &str, version_id: &str| HeadObjectRequest {
        bucket: "main".to_owned(),
        key: key.to_owned(),
        version_id: version_id.to_owned(),
    };
    let found = seen.done("Objects/HeadObject", reader.head_object(head("a/one", "")).await);
    assert_eq!(found, one);
    seen.refused(
        "Objects/HeadObject",
        reader.head_object(head("a/nothing", "")).await,
        Code::NotFound,
    );
    assert_eq!(
        reader.head_object(head("a/one", "x")).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let get = |offset: u64, length: u64| GetObjectRequest {
        bucket: "main".to_owned(),
        key: "a/one".to_owned(),
        offset,
        length,
        ..Default::default()
    };
    for (offset, length, expected) in [
        (0, 0, &bytes[..]),
        (400_000, 0, &bytes[400_000..]),
        (1, 100_000, &bytes[1..100_001]),
        (500_000, 5, &[]),
    ] {
        let messages = all(seen.done("Objects/GetObject", reader.get_object(get(offset, length)).await))
            .await
            .unwrap();
        let (first, rest) = messages.split_first().unwrap();
        assert_eq!(first.part, Some(get_object_response::Part::Object(one.clone())));
        let got = rest.iter().flat_map(|message| match &message.part {
            Some(get_object_response::Part::Data(data)) => data.to_vec(),
            other => panic!("{other:?}"),
        });
        assert!(got.collect::<Vec<u8>>() == expected, "{offset} {length}");
    }
    seen.refused(
        "Objects/GetObject",
        reader.get_object(get(500_001, 0)).await,
        Code::OutOfRange,
    );

    let copy = |from: &str, bucket: &str| CopyObjectRequest {
        from_bucket: "main".to_owned(),
        from_key: from.to_owned(),
        bucket: bucket.to_owned(),
        key: "b".to_owned(),
        ..Default::default()
    };
    let copied = seen.done("Objects/CopyObject", objects.copy_object(copy("a/one", "main")).await);
    assert_eq!(
        (copied.size, &copied.metadata, &*copied.key),
        (one.size, &one.metadata, "b")
    );
    seen.refused(
        "Objects/CopyObject",
        objects.copy_object(copy("a/one", "others")).await,
        Code::PermissionDenied,
    );
    assert_eq!(
        objects.copy_object(copy("x", "main")).await.unwrap_err().code(),
        Code::NotFound
    );

    let list = |delimiter: &str, page_size: u32, page_token: String| ListObjectsRequest {
        bucket: "main".to_owned(),
        delimiter: delimiter.to_owned(),
        page_size,
        page_token,
        ..Default::default()
    };
    let page = seen.done(
        "Objects/ListObjects",
        reader.list_objects(list("/", 0, String::new())).await,
    );
    assert_eq!(
        (&page.prefixes[..], page.objects.len(), &*page.next_page_token),
        (&["a/".to_owned()][..], 1, "")
    );
    let first = reader
        .list_objects(list("", 2, String::new()))
        .await
        .unwrap()
        .into_inner();
    let second = reader
        .list_objects(list("", 2, first.next_page_token))
        .await
        .unwrap()
        .into_inner();
    let keys: Vec<&str> = first
        .objects
        .iter()
        .chain(&second.objects)
        .map(|object| &*object.key)
        .collect();
    assert_eq!((keys, &*second.next_page_token), (vec!["a/one", "a/two", "b"], ""));
    let refused = reader.list_objects(list("", 1001, String::new())).await;
    seen.refused("Objects/ListObjects", refused, Code::InvalidArgument);
    let refused = reader.list_objects(list("", 1, "junk".to_owned())).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);

    let delete = |bucket: &str, key: &str| DeleteObjectRequest {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        ..Default::default()
    };
    let deleted = seen.done("Objects/DeleteObject", objects.delete_object(delete("main", "b")).await);
    assert!(deleted.deleted && !deleted.marker_put);
    assert!(
        !objects
            .delete_object(delete("main", "b"))
            .await
            .unwrap()
            .into_inner()
            .deleted
    );
    seen.refused(
        "Objects/DeleteObject",
        reader.delete_object(delete("main", "a/one")).await,
        Code::PermissionDenied,
    );

    let versions = |page_token: &str| ListVersionsRequest {
        bucket: "main".to_owned(),
        page_size: 1,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let page = seen.done("Objects/ListVersions", reader.list_versions(versions("")).await);
    assert_eq!(page.versions, [one]);
    let page = reader
        .list_versions(versions(&page.next_page_token))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((&*page.versions[0].key, &*page.next_page_token), ("a/two", ""));
    seen.refused(
        "Objects/ListVersions",
        reader.list_versions(versions("junk")).await,
        Code::InvalidArgument,
    );
    seen.check(&["Objects"]);
}

/// An upload that ends early puts nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_whose_stream_breaks_leaves_what_was_there() {
    let world = World::new();
    put(&world, "key", b"before").await.unwrap();
    let mut objects = ObjectsClient::new(world.channel("all"));
    let mut parts = messages(header("key"), &[1; 200_000]);
    parts.push(PutObjectRequest { part: None });
    let broken = objects.put_object(futures_util::stream::iter(parts)).await;
    assert_eq!(broken.unwrap_err().code(), Code::InvalidArgument);
    let head = HeadObjectRequest {
        bucket: "main".to_owned(),
        key: "key".to_owned(),
        ..Default::default()
    };
    assert_eq!(objects.head_object(head).await.unwrap().into_inner().size, 6);
}

fn settings(name: &str, kind: Kind) -> Option<prost_types::Struct> {
    let value = Value { kind: Some(kind) };
    Some(prost_types::Struct {
        fields: [(name.to_owned(), value)].into(),
    })
}

/// Goal: the admin services do what the admin API does, for its token alone, and say the same of what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_is_the_same_over_grpc() {
    let world = World::new();
    let mut seen = Seen::default();
    let mut buckets = BucketsClient::new(world.channel("admin"));
    let create = |name: &str, kind: Kind| CreateBucketRequest {
        name: name.to_owned(),
        owner: "anna".to_owned(),
        settings: settings("quota_bytes", kind),
        ..Default::default()
    };
    let made = buckets.create_bucket(create("made", Kind::NumberValue(1e6))).await;
    let made = seen.done("Buckets/CreateBucket", made);
    assert_eq!((&*made.name, &*made.owner, &*made.tenant), ("made", "anna", "default"));
    let again = buckets.create_bucket(create("made", Kind::NumberValue(1e6))).await;
    seen.refused("Buckets/CreateBucket", again, Code::AlreadyExists);
    let wrong = buckets
        .create_bucket(create("wrong", Kind::StringValue("many".to_owned())))
        .await;
    assert_eq!(wrong.unwrap_err().code(), Code::InvalidArgument);

    let get = |name: &str| GetBucketRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    put(&world, "x", b"12345").await.unwrap();
    let main = seen.done("Buckets/GetBucket", buckets.get_bucket(get("main")).await);
    assert_eq!(main.usage.unwrap().bytes, 5);
    seen.refused(
        "Buckets/GetBucket",
        buckets.get_bucket(get("a/b")).await,
        Code::InvalidArgument,
    );
    assert_eq!(
        buckets.get_bucket(get("nothing")).await.unwrap_err().code(),
        Code::NotFound
    );

    let list = |page_token: &str| ListBucketsRequest {
        page_size: 2,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let page = seen.done("Buckets/ListBuckets", buckets.list_buckets(list("")).await);
    let rest = buckets
        .list_buckets(list(&page.next_page_token))
        .await
        .unwrap()
        .into_inner();
    let names: Vec<&str> = page
        .buckets
        .iter()
        .chain(&rest.buckets)
        .map(|bucket| &*bucket.name)
        .collect();
    assert_eq!((names, &*rest.next_page_token), (vec!["made", "main", "others"], ""));
    seen.refused(
        "Buckets/ListBuckets",
        buckets.list_buckets(list("!")).await,
        Code::InvalidArgument,
    );

    let change = |name: &str, kind: Kind| ChangeBucketRequest {
        name: name.to_owned(),
        settings: settings("quota_bytes", kind),
        ..Default::default()
    };
    let changed = buckets.change_bucket(change("made", Kind::NumberValue(2e6))).await;
    let changed = seen.done("Buckets/ChangeBucket", changed).settings.unwrap();
    assert_eq!(changed.fields["quota_bytes"].kind, Some(Kind::NumberValue(2e6)));
    let refused = buckets.change_bucket(change("made", Kind::NumberValue(0.5))).await;
    seen.refused("Buckets/ChangeBucket", refused, Code::InvalidArgument);

    let delete = |name: &str| DeleteBucketRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    seen.done("Buckets/DeleteBucket", buckets.delete_bucket(delete("made")).await);
    seen.refused(
        "Buckets/DeleteBucket",
        buckets.delete_bucket(delete("main")).await,
        Code::FailedPrecondition,
    );

    let mut index = IndexClient::new(world.channel("admin"));
    let search = |kind: &str| SearchRequest {
        tags: HashMap::from([("kind".to_owned(), kind.to_owned())]),
        size_max: Some(100),
        ..Default::default()
    };
    let found = seen.done("Index/Search", index.search(search("test")).await);
    assert_eq!(found.objects.len(), 1);
    let object = &found.objects[0];
    assert_eq!(
        (&*object.bucket, &*object.key, object.size, &*object.metadata["colour"]),
        ("main", "x", 5, "green")
    );
    assert!(
        index
            .search(search("other"))
            .await
            .unwrap()
            .into_inner()
            .objects
            .is_empty()
    );
    let wrong = SearchRequest {
        created_from: "yesterday".to_owned(),
        ..search("test")
    };
    seen.refused("Index/Search", index.search(wrong).await, Code::InvalidArgument);

    let mut admin = AdminClient::new(world.channel("admin"));
    let stats = seen.done("Admin/GetStats", admin.get_stats(GetStatsRequest::default()).await);
    assert_eq!((stats.objects, stats.bytes), (1, 5));
    let nobody = GetStatsRequest {
        tenant: "nobody".to_owned(),
    };
    seen.refused("Admin/GetStats", admin.get_stats(nobody).await, Code::NotFound);
    let create = |owner: &str| CreateKeyRequest {
        owner: owner.to_owned(),
        ..Default::default()
    };
    let key = seen.done("Admin/CreateKey", admin.create_key(create("anna")).await);
    assert!(key.enabled && !key.secret.is_empty());
    seen.refused(
        "Admin/CreateKey",
        admin.create_key(create("")).await,
        Code::InvalidArgument,
    );
    let keys = seen.done("Admin/ListKeys", admin.list_keys(ListKeysRequest::default()).await);
    assert!(keys.keys.iter().any(|one| one.id == key.id && one.secret.is_empty()));
    let far = ListKeysRequest {
        page_size: 201,
        ..Default::default()
    };
    seen.refused("Admin/ListKeys", admin.list_keys(far).await, Code::InvalidArgument);
    let change = |id: &str| ChangeKeyRequest {
        id: id.to_owned(),
        enabled: false,
        ..Default::default()
    };
    assert!(
        !seen
            .done("Admin/ChangeKey", admin.change_key(change(&key.id)).await)
            .enabled
    );
    seen.refused(
        "Admin/ChangeKey",
        admin.change_key(change("AKNOTHERE")).await,
        Code::NotFound,
    );
    let delete = |id: &str| DeleteKeyRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    seen.done("Admin/DeleteKey", admin.delete_key(delete(&key.id)).await);
    seen.refused(
        "Admin/DeleteKey",
        admin.delete_key(delete(&key.id)).await,
        Code::NotFound,
    );
    sessions::upkeep(&world, &mut seen).await;
    seen.check(&["Buckets", "Index", "Admin"]);

    // Tokens of buckets open nothing of it.
    for shown in ["", "all"] {
        let mut admin = AdminClient::new(world.channel(shown));
        let refused = admin.get_stats(GetStatsRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
}

/// Goal: a subscriber is told each event once, in the order of its shard, and goes on behind its cursor.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_from_a_cursor_on() {
    let world = World::new();
    let mut seen = Seen::default();
    let mut events = EventsClient::new(world.channel("admin"));
    for key in ["a", "b", "c"] {
        put(&world, key, b"bytes").await.unwrap();
    }
    let subscribe = |cursor: &HashMap<u32, u64>, follow: bool| SubscribeRequest {
        cursor: cursor.clone(),
        follow,
        ..Default::default()
    };
    let mut cursor = HashMap::new();
    let told = all(seen.done("Events/Subscribe", events.subscribe(subscribe(&cursor, false)).await))
        .await
        .unwrap();
    let created = |told: &[SubscribeResponse]| {
        let events = told
            .iter()
            .map(|one| serde_json::from_str::<serde_json::Value>(&one.event).unwrap());
        events
            .filter(|event| event["event_type"] == "object.created" || event.to_string().contains("object.created"))
            .count()
    };
    assert_eq!(created(&told), 3);
    for event in &told {
        let last = cursor.insert(event.shard, event.position);
        assert!(last.is_none_or(|last| last < event.position));
    }
    assert!(
        all(events.subscribe(subscribe(&cursor, false)).await.unwrap().into_inner())
            .await
            .unwrap()
            .is_empty()
    );
    // A follower hears of what happens later.
    let mut following = events.subscribe(subscribe(&cursor, true)).await.unwrap().into_inner();
    put(&world, "d", b"bytes").await.unwrap();
    let event = following.message().await.unwrap().unwrap();
    assert_eq!(created(&[event]), 1);
    // A server that leaves ends it, and no call that ends by itself.
    world.door.leave();
    assert_eq!(following.message().await.unwrap_err().code(), Code::Unavailable);
    put(&world, "e", b"bytes").await.unwrap();
    let refused = events.subscribe(subscribe(&HashMap::from([(16, 0)]), false)).await;
    seen.refused("Events/Subscribe", refused, Code::InvalidArgument);
    let refused = EventsClient::new(world.channel("all"))
        .subscribe(subscribe(&cursor, false))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    seen.check(&["Events"]);
}
