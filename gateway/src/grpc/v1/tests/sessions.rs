//! Sessions, what they end with, watching a bucket, and upkeep.

use std::time::Duration;

use cairn_formats::ChunkIndex;
use cairn_index::names::ObjectKey;
use cairn_index::{CollectControl, CollectOptions, Roots};

use super::*;

/// The calls of `ChunkStore` that are done and refused here, and not with the others.
pub(super) const CALLS: [&str; 5] = ["OpenSession", "Heartbeat", "CommitManifest", "AbortSession", "Watch"];

fn open() -> OpenSessionRequest {
    OpenSessionRequest {
        bucket: "main".to_owned(),
    }
}

fn heartbeat(session: &Bytes) -> HeartbeatRequest {
    HeartbeatRequest {
        bucket: "main".to_owned(),
        session: session.clone(),
    }
}

fn abort(session: &Bytes) -> AbortSessionRequest {
    AbortSessionRequest {
        bucket: "main".to_owned(),
        session: session.clone(),
    }
}

fn commit(session: &Bytes, key: &str, manifest: commit_manifest_request::Manifest) -> CommitManifestRequest {
    CommitManifestRequest {
        session: session.clone(),
        header: Some(header(key)),
        keep_session: true,
        manifest: Some(manifest),
    }
}

fn list(chunks: &[&Chunk], lengths: &[u32]) -> commit_manifest_request::Manifest {
    let ids: Vec<u8> = chunks.iter().flat_map(|chunk| *chunk.id().as_bytes()).collect();
    commit_manifest_request::Manifest::Chunks(ChunkList {
        ids: ids.into(),
        lengths: lengths.to_vec(),
    })
}

async fn put_one(world: &World, session: &Bytes, chunk: &Chunk) {
    let mut chunks = ChunkStoreClient::new(world.channel("all"));
    let message = PutChunksRequest {
        bucket: "main".to_owned(),
        session: session.clone(),
        ..put_chunk(chunk, ChunkEncoding::Zstd)
    };
    let acks = chunks.put_chunks(futures_util::stream::iter([message])).await.unwrap();
    assert_eq!(all(acks.into_inner()).await.unwrap()[0].stored, 1);
}

async fn has(world: &World, session: &Bytes, chunk: &Chunk) -> bool {
    let request = HasChunksRequest {
        bucket: "main".to_owned(),
        ids: Bytes::copy_from_slice(chunk.id().as_bytes()),
        session: session.clone(),
    };
    let mut chunks = ChunkStoreClient::new(world.channel("all"));
    chunks.has_chunks(request).await.unwrap().into_inner().present[0] == 1
}

async fn read(world: &World, key: &str) -> Vec<u8> {
    let request = GetObjectRequest {
        bucket: "main".to_owned(),
        key: key.to_owned(),
        ..Default::default()
    };
    let messages = ObjectsClient::new(world.channel("reads")).get_object(request).await;
    let messages = all(messages.unwrap().into_inner()).await.unwrap();
    let data = messages.into_iter().filter_map(|message| match message.part {
        Some(get_object_response::Part::Data(data)) => Some(data.to_vec()),
        _ => None,
    });
    data.flatten().collect()
}

/// Collects what nothing names and no lease covers, at once.
fn collect(world: &World) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let options = CollectOptions {
        roots: Roots::Rooted,
        now: now.unwrap().as_secs(),
        grace: Duration::ZERO,
        reserve: false,
        ..CollectOptions::default()
    };
    world.collector.collect(&options, &CollectControl::new()).unwrap();
}

/// Goal: chunks that are put in a session outlive collections until a manifest names them, and what is missing is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_chunks_until_an_object_has_them() {
    let world = World::new();
    let mut seen = Seen::default();
    let mut chunks = ChunkStoreClient::new(world.channel("all"));
    let (early, late) = (chunk(1, 30_000), chunk(2, 40_000));
    let none = Bytes::new();
    put_one(&world, &none, &early).await;
    collect(&world);
    assert!(!has(&world, &none, &early).await, "nothing keeps it");

    let opened = seen.done("ChunkStore/OpenSession", chunks.open_session(open()).await);
    let session = opened.id.clone();
    assert_eq!((session.len(), opened.idle_seconds), (16, 600));
    assert!(opened.left_seconds >= opened.idle_seconds);
    put_one(&world, &session, &late).await;
    collect(&world);
    assert!(has(&world, &session, &late).await, "the session keeps it");
    let beat = seen.done("ChunkStore/Heartbeat", chunks.heartbeat(heartbeat(&session)).await);
    assert_eq!(beat.id, session);

    let both = [&early, &late, &early];
    let answer = chunks.commit_manifest(commit(&session, "made", list(&both, &[]))).await;
    let answer = seen.done("ChunkStore/CommitManifest", answer);
    assert_eq!((answer.object, answer.missing_count), (None, 1));
    assert_eq!(answer.missing[..], early.id().as_bytes()[..]);
    put_one(&world, &session, &early).await;
    let wrong = chunks
        .commit_manifest(commit(&session, "made", list(&both, &[30_000, 40_000, 29_999])))
        .await;
    seen.refused("ChunkStore/CommitManifest", wrong, Code::InvalidArgument);
    for lengths in [&[][..], &[30_000, 40_000, 30_000]] {
        let answer = chunks
            .commit_manifest(commit(&session, "made", list(&both, lengths)))
            .await;
        let object = answer.unwrap().into_inner().object.unwrap();
        assert_eq!((object.size, &*object.content_type), (100_000, "text/plain"));
    }
    collect(&world);
    let expected: Vec<u8> = both.iter().flat_map(|chunk| chunk.plain().to_vec()).collect();
    assert!(read(&world, "made").await == expected);

    // The same by its chunk index; and without `keep_session` the session ends with it.
    let objects = world.door.objects();
    let bucket = objects
        .names()
        .buckets(&Tenant::default())
        .get(&BucketName::new("main").unwrap())
        .unwrap();
    let version = objects
        .names()
        .objects(&bucket)
        .current(&ObjectKey::new("made").unwrap())
        .unwrap();
    let index = objects
        .index_file(bucket.tenant(), version.object().unwrap(), None)
        .unwrap();
    assert_eq!(ChunkIndex::parse(index.clone()).unwrap().blob_len(), 100_000);
    let by_index = commit_manifest_request::Manifest::Index(index);
    let last = CommitManifestRequest {
        keep_session: false,
        ..commit(&session, "again", by_index)
    };
    assert!(
        chunks
            .commit_manifest(last)
            .await
            .unwrap()
            .into_inner()
            .object
            .is_some()
    );
    assert!(read(&world, "again").await == expected);
    let junk = commit_manifest_request::Manifest::Index(Bytes::from_static(b"no index"));
    let refused = chunks.commit_manifest(commit(&none, "junk", junk)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    seen.refused(
        "ChunkStore/Heartbeat",
        chunks.heartbeat(heartbeat(&session)).await,
        Code::NotFound,
    );
    // Nothing is of what has no chunks, and of chunks that are empty there is no object.
    let answer = chunks.commit_manifest(commit(&none, "empty", list(&[], &[]))).await;
    assert_eq!(answer.unwrap().into_inner().object.unwrap().size, 0);

    let session = chunks.open_session(open()).await.unwrap().into_inner().id;
    seen.done("ChunkStore/AbortSession", chunks.abort_session(abort(&session)).await);
    let again = chunks.abort_session(abort(&session)).await;
    seen.refused("ChunkStore/AbortSession", again, Code::NotFound);
    let refused = ChunkStoreClient::new(world.channel("reads")).open_session(open()).await;
    seen.refused("ChunkStore/OpenSession", refused, Code::PermissionDenied);

    watch(&world, &mut seen).await;
    seen.check_where(|service, method| service == "ChunkStore" && CALLS.contains(&method));
}

/// Watches a bucket: its events and no others, from a cursor on, which goes past the others, too.
async fn watch(world: &World, seen: &mut Seen) {
    let mut chunks = ChunkStoreClient::new(world.channel("reads"));
    let create = CreateBucketRequest {
        name: "second".to_owned(),
        owner: "me".to_owned(),
        ..Default::default()
    };
    BucketsClient::new(world.channel("admin"))
        .create_bucket(create)
        .await
        .unwrap();
    let second = put_object_request::Header {
        bucket: "second".to_owned(),
        ..header("hidden")
    };
    let mut objects = ObjectsClient::new(world.channel("all"));
    for part in ["a", "b"] {
        let header = put_object_request::Header {
            key: part.to_owned(),
            ..second.clone()
        };
        objects
            .put_object(futures_util::stream::iter(messages(header, b"x")))
            .await
            .unwrap();
    }
    let ask = |bucket: &str, cursor: &HashMap<u32, u64>, follow: bool| WatchRequest {
        bucket: bucket.to_owned(),
        cursor: cursor.clone(),
        follow,
    };
    let mut cursor = HashMap::new();
    let told = seen.done("ChunkStore/Watch", chunks.watch(ask("main", &cursor, false)).await);
    let told = all(told).await.unwrap();
    for one in &told {
        cursor.insert(one.shard, one.position);
        assert!(one.event.is_empty() || one.event.contains("\"main/"), "{}", one.event);
    }
    let keys = |told: &[SubscribeResponse]| {
        let ids = told.iter().filter(|one| !one.event.is_empty()).map(|one| {
            let event: serde_json::Value = serde_json::from_str(&one.event).unwrap();
            event["aggregate_id"].as_str().unwrap().to_owned()
        });
        ids.collect::<BTreeSet<String>>()
    };
    let expected = ["again", "empty", "made"].map(|key| format!("main/{key}"));
    assert_eq!(keys(&told), BTreeSet::from(expected));
    // The cursor is as far as that of who is told all.
    let whole = SubscribeRequest {
        cursor: cursor.clone(),
        ..Default::default()
    };
    let rest = EventsClient::new(world.channel("admin"))
        .subscribe(whole)
        .await
        .unwrap();
    assert!(all(rest.into_inner()).await.unwrap().is_empty());
    let mut following = chunks.watch(ask("main", &cursor, true)).await.unwrap().into_inner();
    put(world, "later", b"x").await.unwrap();
    let event = following.message().await.unwrap().unwrap();
    assert_eq!(keys(&[event]), BTreeSet::from(["main/later".to_owned()]));
    drop(following);
    let refused = chunks.watch(ask("others", &cursor, false)).await;
    seen.refused("ChunkStore/Watch", refused, Code::PermissionDenied);
    let far = HashMap::from([(16, 1)]);
    let refused = chunks.watch(ask("main", &far, false)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

/// Goal: sessions are so many and no more, and those that nobody names any more make room.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_bounded_and_end_by_themselves() {
    let world = World::with(|options| options.sessions.max = 1);
    let mut chunks = ChunkStoreClient::new(world.channel("all"));
    let first = chunks.open_session(open()).await.unwrap().into_inner().id;
    assert_eq!(chunks.open_session(open()).await.unwrap_err().code(), Code::Unavailable);
    chunks.abort_session(abort(&first)).await.unwrap();
    chunks.open_session(open()).await.unwrap();

    for change in [
        |options: &mut SessionOptions| options.idle = Duration::ZERO,
        |options: &mut SessionOptions| options.life = Duration::ZERO,
    ] {
        let world = World::with(|options| {
            options.sessions.max = 1;
            change(&mut options.sessions);
        });
        let mut chunks = ChunkStoreClient::new(world.channel("all"));
        let first = chunks.open_session(open()).await.unwrap().into_inner().id;
        let refused = chunks.heartbeat(heartbeat(&first)).await;
        assert_eq!(refused.unwrap_err().code(), Code::NotFound);
        chunks.open_session(open()).await.unwrap();
    }
}

/// Does and refuses the upkeep of [`AdminClient`].
pub(super) async fn upkeep(world: &World, seen: &mut Seen) {
    let mut admin = AdminClient::new(world.channel("admin"));
    let mut nobody = AdminClient::new(world.channel("all"));
    let got = seen.done(
        "Admin/GetCollection",
        admin.get_collection(GetCollectionRequest {}).await,
    );
    assert_eq!((got.running, got.last), (None, None));
    let begun = admin.start_collection(StartCollectionRequest {}).await;
    let begun = seen.done("Admin/StartCollection", begun).running.unwrap();
    assert_eq!(
        (&*begun.state, begun.begun_at.len(), &*begun.ended_at),
        ("waiting", 24, "")
    );
    let again = admin.start_collection(StartCollectionRequest {}).await;
    seen.refused("Admin/StartCollection", again, Code::Aborted);
    let refused = nobody.get_collection(GetCollectionRequest {}).await;
    seen.refused("Admin/GetCollection", refused, Code::Unauthenticated);
    let begun = seen.done("Admin/StartScrub", admin.start_scrub(StartScrubRequest {}).await);
    assert_eq!(begun.running.unwrap().counts["bytes"], 0);
    let refused = nobody.start_scrub(StartScrubRequest {}).await;
    seen.refused("Admin/StartScrub", refused, Code::Unauthenticated);
    let got = seen.done("Admin/GetScrub", admin.get_scrub(GetScrubRequest {}).await);
    assert!(got.running.is_some());
    let refused = nobody.get_scrub(GetScrubRequest {}).await;
    seen.refused("Admin/GetScrub", refused, Code::Unauthenticated);
}
