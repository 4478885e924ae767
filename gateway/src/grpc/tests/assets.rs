//! Assets: those that were pushed, and those that are fetched from a server of the test.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use cairn_proto::asset::fetch_client::FetchClient;
use cairn_proto::asset::push_client::PushClient;
use cairn_proto::asset::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::outgoing::{Outgoing, OutgoingPolicy};

fn qualifier(name: &str, value: &str) -> Qualifier {
    Qualifier {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn checksum(bytes: &[u8]) -> Qualifier {
    let digest = BlobHasher::digest(BlobFunction::Sha256, bytes);
    let text = base64::engine::general_purpose::STANDARD.encode(digest.hash());
    qualifier("checksum.sri", &format!("sha256-{text}"))
}

/// A server that answers each request with what a function makes of its head; nothing: it never answers.
struct Origin {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl Origin {
    async fn start(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let (counted, answer) = (Arc::clone(&requests), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (counted, answer) = (Arc::clone(&counted), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    match answer(&String::from_utf8_lossy(&head)) {
                        Some(bytes) => _ = stream.write_all(&bytes).await,
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { port, requests }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut answer = head.into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn head(status: &str, more: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

/// A door that fetches from this machine, and no more than 10 000 bytes.
fn fetching() -> World {
    let world = World::with(|options| {
        options.fetch.hosts = vec!["127.0.0.1".to_owned()];
        options.fetch.len_max = 10_000;
    });
    let policy = OutgoingPolicy {
        hosts: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        plain: true,
        private: vec!["127.0.0.0/8".parse().unwrap()],
        body_len_max: 1,
        ..OutgoingPolicy::default()
    };
    world.door.set_outgoing(Some(Outgoing::new(policy).unwrap()));
    world
}

async fn fetch(world: &World, shown: &'static str, uris: &[String], qualifiers: &[Qualifier]) -> FetchBlobResponse {
    try_fetch(world, shown, uris, qualifiers).await.unwrap()
}

async fn try_fetch(
    world: &World,
    shown: &'static str,
    uris: &[String],
    qualifiers: &[Qualifier],
) -> Result<FetchBlobResponse, Status> {
    let request = FetchBlobRequest {
        uris: uris.to_vec(),
        qualifiers: qualifiers.to_vec(),
        ..Default::default()
    };
    let answer = FetchClient::new(world.channel(shown)).fetch_blob(request).await?;
    Ok(answer.into_inner())
}

fn code(answer: &FetchBlobResponse) -> Code {
    Code::from_i32(answer.status.as_ref().unwrap().code)
}

/// Goal: what was pushed under an address and qualifiers is found by these, while all that it names is there and it has not expired.
#[tokio::test(flavor = "multi_thread")]
async fn assets_are_found_by_what_they_were_pushed_under() {
    let world = World::new();
    let (mut fetch, mut push) = (
        FetchClient::new(world.channel("reads")),
        PushClient::new(world.channel("all")),
    );
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

/// Goal: what has its checksum is fetched once, whoever asks and by whichever address; the blob is one like any other.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_pushed_is_fetched_once() {
    let world = fetching();
    let body = noise(1, 9000);
    let served = body.clone();
    let origin = Origin::start(move |_| Some(ok(&served))).await;
    let (uris, sums) = ([origin.url("a")], [checksum(&body)]);
    let none = fetch(&world, "reads", &uris, &sums).await;
    assert_eq!(
        (code(&none), origin.requests()),
        (Code::NotFound, 0),
        "who may not write"
    );
    let calls = (0..8).map(|_| fetch(&world, "all", &uris, &sums));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(code(&answer), Code::Ok, "{answer:?}");
        assert_eq!(answer.blob_digest, Some(digest(&body)));
        assert_eq!((&answer.uri, answer.digest_function), (&uris[0], 1));
    }
    assert_eq!(origin.requests(), 1);
    let name = format!("blobs/{}", path(&digest(&body)));
    assert_eq!(world.read(name, 0, 0).await.unwrap(), body);
    let mirror = fetch(&world, "reads", &["https://mirror.example.net/a".to_owned()], &sums).await;
    assert_eq!((code(&mirror), mirror.blob_digest), (Code::Ok, Some(digest(&body))));
    assert_eq!(origin.requests(), 1);
}

/// Goal: a blob that came by any way is found by its checksum, with or without an address, as caches ask that know no size.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_found_by_its_checksum() {
    let world = World::new();
    let (body, other) = (noise(1, 9000), noise(2, 10));
    for (sum, expected) in [(checksum(&body), Code::NotFound), (checksum(&other), Code::NotFound)] {
        assert_eq!(code(&fetch(&world, "reads", &[], &[sum]).await), expected);
    }
    world.put(std::slice::from_ref(&body)).await;
    for uris in [&[][..], &["https://example.net/a".to_owned()]] {
        let found = fetch(&world, "reads", uris, &[checksum(&body)]).await;
        assert_eq!((code(&found), found.blob_digest), (Code::Ok, Some(digest(&body))));
        assert_eq!(
            code(&fetch(&world, "reads", uris, &[checksum(&other)]).await),
            Code::NotFound
        );
    }
    for sums in [&[][..], &[qualifier("checksum.sri", "sha256-x")]] {
        let refused = try_fetch(&world, "reads", &[], sums).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_checksum_an_address_is_asked_each_time() {
    let world = fetching();
    let asked = AtomicUsize::new(0);
    let origin = Origin::start(move |_| Some(ok(format!("{}", asked.fetch_add(1, Ordering::SeqCst)).as_bytes()))).await;
    for said in ["0", "1"] {
        let answer = fetch(&world, "all", &[origin.url("latest")], &[]).await;
        assert_eq!(answer.blob_digest, Some(digest(said.as_bytes())));
    }
    let empty = Origin::start(|_| Some(ok(b""))).await;
    let answer = fetch(&world, "all", &[empty.url("")], &[checksum(b"")]).await;
    assert_eq!((code(&answer), answer.blob_digest), (Code::Ok, Some(digest(b""))));
}

/// Goal: nothing but what was asked for is kept, and why it was not is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_asset_is_told_and_nothing_kept() {
    let world = fetching();
    let origin = Origin::start(|request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        Some(match path {
            "/gone" => head("410 Gone", ""),
            "/private" => head("403 Forbidden", ""),
            "/broken" => head("500 Oops", ""),
            "/coded" => head("200 OK", "Content-Encoding: gzip\r\n"),
            "/long" => b"HTTP/1.1 200 OK\r\nContent-Length: 10001\r\n\r\n".to_vec(),
            "/endless" => {
                let mut answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
                answer.resize(answer.len() + 20_000, b'x');
                answer
            }
            "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nless".to_vec(),
            "/away" => head("302 Found", "Location: http://localhost:1/\r\n"),
            "/nowhere" => head("302 Found", ""),
            "/round" => head("302 Found", "Location: /round\r\n"),
            _ => ok(b"other bytes"),
        })
    })
    .await;
    for (path, expected) in [
        ("gone", Code::NotFound),
        ("private", Code::PermissionDenied),
        ("broken", Code::Unavailable),
        ("coded", Code::Aborted),
        ("long", Code::ResourceExhausted),
        ("endless", Code::ResourceExhausted),
        ("cut", Code::Unavailable),
        ("away", Code::PermissionDenied),
        ("nowhere", Code::Aborted),
        ("round", Code::Aborted),
        ("other", Code::Aborted),
    ] {
        let answer = fetch(&world, "all", &[origin.url(path)], &[checksum(b"the bytes")]).await;
        assert_eq!(
            (code(&answer), &*answer.uri),
            (expected, &*origin.url(path)),
            "{answer:?}"
        );
        assert_eq!(answer.blob_digest, None);
    }
    let missing = world.missing(&[digest(b"other bytes"), digest(b"less")]).await;
    assert_eq!(missing.len(), 2);
    let before = origin.requests();
    let other = format!("http://localhost:{}/x", origin.port);
    for uri in [&*other, "https://example.net/x", "http://10.0.0.1/"] {
        let answer = fetch(&world, "all", &[uri.to_owned()], &[]).await;
        assert_eq!(code(&answer), Code::PermissionDenied, "{uri}");
    }
    assert_eq!(origin.requests(), before);
    let unknown = try_fetch(&world, "all", &[origin.url("x")], &[qualifier("vcs.branch", "main")]).await;
    let unknown = unknown.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    let status = cairn_proto::google::rpc::Status::decode(unknown.details()).unwrap();
    let request = cairn_proto::google::rpc::BadRequest::decode(&status.details[0].value[..]).unwrap();
    let violation = &request.field_violations[0];
    assert_eq!(
        (&*violation.field, &*violation.description),
        ("qualifiers.name", "\"vcs.branch\" not supported")
    );
    let closed = World::new();
    assert_eq!(
        code(&fetch(&closed, "all", &[origin.url("x")], &[]).await),
        Code::NotFound
    );
    assert_eq!(origin.requests(), before);
}

/// Goal: headers go to the address that they are for, and not to where it leads.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_tried_in_order_each_with_its_headers() {
    let world = fetching();
    let last = Origin::start(|request| {
        let is_bare = !request.to_lowercase().contains("x-");
        Some(if is_bare { ok(b"here") } else { head("400 Bad", "") })
    })
    .await;
    let there = last.url("here");
    let first = Origin::start(move |request| {
        let has = |name: &str| request.to_lowercase().contains(name);
        Some(match (has("get /one"), has("x-all: 1"), has("x-second: 2")) {
            (true, true, false) => head("404 Not Found", ""),
            (false, true, true) => head("307 Temporary Redirect", &format!("Location: {there}\r\n")),
            _ => head("400 Bad", ""),
        })
    })
    .await;
    let uris = [first.url("one"), first.url("two")];
    let qualifiers = [
        qualifier("http_header:X-All", "1"),
        qualifier("http_header_url:1:X-Second", "2"),
    ];
    let answer = fetch(&world, "all", &uris, &qualifiers).await;
    assert_eq!((code(&answer), &answer.uri), (Code::Ok, &uris[1]), "{answer:?}");
    assert_eq!(answer.blob_digest, Some(digest(b"here")));
    assert_eq!((first.requests(), last.requests()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_never_answers_ends_with_the_callers_patience() {
    let world = fetching();
    let origin = Origin::start(|_| None).await;
    let request = |nanos| FetchBlobRequest {
        uris: vec![origin.url("x")],
        timeout: Some(prost_types::Duration { seconds: 0, nanos }),
        ..Default::default()
    };
    let mut client = FetchClient::new(world.channel("all"));
    let answer = client.fetch_blob(request(50_000_000)).await.unwrap().into_inner();
    assert_eq!(code(&answer), Code::DeadlineExceeded);
    assert_eq!(
        client.fetch_blob(request(0)).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}
