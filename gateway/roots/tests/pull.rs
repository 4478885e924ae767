//! Many chunks in one answer, by hand and through the tool's own client: what is answered, what is refused, and what the client does
//! with servers that do not keep their word.
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod client;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cairn_formats::{
    ChunkForm, ChunkId, ChunkIndex, ChunkSizes, DigestAlgorithm, EncodedChunk, FeatureFlags, Frame, IndexEncoder,
    PULL_CONTENT_TYPE, PULL_HEADER, PULL_IDS_MAX, PULL_INDEX_LEN_MAX, PULL_PATH, PullAnswer, PullIndexAnswer,
    PullIndexStep, PullStep, parse_pull_request, pull_request,
};
use cairn_roots::{
    Access, Body, ChunkRoot, ChunkRootOptions, Grant, Handler, IndexRoot, IndexRootOptions, Token, Upload,
    WorkerOptions, Workers, reply,
};
use cairn_store::{
    ChunkStore, FlatOptions, FlatStore, HttpLocation, HttpOptions, HttpStore, PackOptions, PackStore, SyncPolicy,
};
use client::{Answer, Sample, Server};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tempfile::TempDir;

fn options() -> ChunkRootOptions {
    ChunkRootOptions {
        access: Access {
            read: Grant::Anyone,
            write: Grant::Anyone,
        },
        ..ChunkRootOptions::default()
    }
}

fn root(folder: &TempDir, options: ChunkRootOptions) -> ChunkRoot {
    // Nobody looks at what a power cut would leave.
    let flat = FlatOptions {
        sync: SyncPolicy::None,
        ..FlatOptions::default()
    };
    let store = FlatStore::open(folder.path(), flat).unwrap();
    ChunkRoot::new(Arc::new(store), options, Workers::new(WorkerOptions::default()))
}

fn samples(count: u32) -> Vec<Sample> {
    (0..count)
        .map(|number| Sample::new(&number.to_le_bytes().repeat(500 + number as usize)))
        .collect()
}

fn id(sample: &Sample) -> ChunkId {
    sample.hex.parse().unwrap()
}

fn put(server: &Server, samples: &[Sample]) {
    for sample in samples {
        assert_eq!(server.status("PUT", &sample.frame_path(), &sample.frame), 200);
    }
}

fn ask(server: &Server, ids: &[ChunkId]) -> Answer {
    server.ask("POST", PULL_PATH, &[], &pull_request(ids))
}

/// The steps of a whole answer.
fn steps(ids: &[ChunkId], answer: &Answer) -> Vec<PullStep> {
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some(PULL_CONTENT_TYPE))
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let mut reader = PullAnswer::new(ids.to_vec());
    reader.push(Bytes::copy_from_slice(&answer.body));
    let mut steps = Vec::new();
    while let Some(step) = reader.next().unwrap() {
        steps.push(step);
    }
    assert!(reader.has_ended(), "cut after {} chunks", reader.answered());
    steps
}

#[test]
fn many_chunks_come_in_the_order_asked_and_those_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(root(&folder, options()));
    let samples = samples(300);
    put(&server, &samples);
    let missing = Sample::new(b"nobody put this");
    let zero = Sample::new(&[0; 256 << 10]);
    let mut asked: Vec<&Sample> = samples.iter().rev().collect();
    asked.extend([&missing, &samples[7], &samples[7], &zero]);
    let ids: Vec<ChunkId> = asked.iter().map(|sample| id(sample)).collect();
    let steps = steps(&ids, &ask(&server, &ids));
    assert_eq!(steps.len(), ids.len() + 1);
    for (sample, step) in asked.iter().zip(&steps) {
        match step {
            PullStep::Chunk(chunk) if sample.hex == zero.hex => {
                assert_eq!(
                    chunk.open(DigestAlgorithm::default(), 1 << 20).unwrap().plain(),
                    &zero.plain
                );
            }
            PullStep::Chunk(chunk) => {
                assert_eq!((chunk.id, chunk.form), (id(sample), ChunkForm::Compressed));
                assert_eq!(chunk.bytes, sample.frame, "the frame as it is stored");
            }
            PullStep::Missing(named) => assert_eq!(*named, id(&missing)),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(steps.last(), Some(PullStep::End)));
}

#[test]
fn a_root_says_that_it_takes_such_requests_unless_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(root(&folder, options()));
    let sample = Sample::new(b"some bytes");
    put(&server, std::slice::from_ref(&sample));
    let most = PULL_IDS_MAX.to_string();
    for (method, path) in [
        ("GET", sample.frame_path()),
        ("HEAD", sample.plain_path()),
        ("GET", Sample::new(b"other").frame_path()),
    ] {
        assert_eq!(
            server.ask(method, &path, &[], b"").header(PULL_HEADER),
            Some(&most[..]),
            "{method} {path}"
        );
    }
    let silent = Server::start(root(
        &folder,
        ChunkRootOptions {
            pull_ids: 0,
            ..options()
        },
    ));
    assert_eq!(
        silent.ask("GET", &sample.frame_path(), &[], b"").header(PULL_HEADER),
        None
    );
    assert_eq!(ask(&silent, &[id(&sample)]).status, 405);
    assert_eq!(server.status("GET", PULL_PATH, b""), 400, "it is only asked by POST");
}

#[test]
fn what_is_no_request_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(root(
        &folder,
        ChunkRootOptions {
            pull_ids: 100,
            ..options()
        },
    ));
    let ids = |count: usize| vec![ChunkId::from_bytes([7; 32]); count];
    assert_eq!(ask(&server, &ids(100)).status, 200);
    let refused = ask(&server, &ids(101));
    assert_eq!(refused.status, 413);
    assert!(refused.text().contains("101 ids"), "{}", refused.text());
    let post = |body: &[u8]| server.ask("POST", PULL_PATH, &[], body).status;
    assert_eq!(post(&pull_request(&ids(PULL_IDS_MAX + 1))), 413, "before it is read");
    assert_eq!(post(b"garbage"), 400);
    assert_eq!(post(&pull_request(&ids(3))[..70]), 400);
    let mut lying = pull_request(&ids(3)).to_vec();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(post(&lying), 400);
    let mut client = server.connect();
    client.send(format!("POST {PULL_PATH} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").as_bytes());
    assert_eq!(client.receive("POST").status, 400);
}

#[test]
fn readers_of_a_root_with_tokens_show_one() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = |token: &str| Grant::Tokens(vec![Token::new(token)]);
    let access = Access {
        read: tokens("reader"),
        write: tokens("writer"),
    };
    let server = Server::start(root(&folder, ChunkRootOptions { access, ..options() }));
    let request = pull_request(&[ChunkId::from_bytes([1; 32])]);
    let status = |headers: &[(&str, &str)]| server.ask("POST", PULL_PATH, headers, &request).status;
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&[("Authorization", "Bearer wrong")]), 401);
    assert_eq!(status(&[("Authorization", "Bearer reader")]), 200);
}

/// A damaged chunk ends the answer where it is: it is neither sent nor called missing, and what came before holds.
#[test]
fn a_damaged_chunk_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(root(&folder, options()));
    let samples = samples(30);
    put(&server, &samples);
    let damaged = &samples[20];
    std::fs::write(folder.path().join(&damaged.frame_path()[1..]), &samples[0].frame).unwrap();
    let ids: Vec<ChunkId> = samples.iter().map(id).collect();
    let steps = steps(&ids, &ask(&server, &ids));
    assert_eq!(steps.len(), 21);
    assert!(matches!(&steps[20], PullStep::GivenUp { id: at, .. } if *at == id(damaged)));
}

/// Goal: a client that goes away, or never reads, takes nothing with it.
/// Method: more clients than the memory of answers has windows for, which ask for much and leave; then one that is answered whole.
#[test]
fn clients_that_leave_give_their_memory_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(PackStore::open(folder.path(), PackOptions::default()).unwrap().0);
    let root = ChunkRoot::new(store, options(), Workers::new(WorkerOptions::default()));
    let server = Server::start(root);
    let noise: Vec<u8> = (0..8000_u64)
        .flat_map(|n| *DigestAlgorithm::Sha256.id(&n.to_le_bytes()).as_bytes())
        .collect();
    let sample = Sample::new(&noise);
    put(&server, std::slice::from_ref(&sample));
    let ids = vec![id(&sample); 2000];
    let request = pull_request(&ids);
    let head = format!(
        "POST {PULL_PATH} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
        request.len()
    );
    for _ in 0..100 {
        let mut client = server.connect();
        client.send(head.as_bytes());
        client.send(&request);
        drop(client);
    }
    assert_eq!(steps(&ids, &ask(&server, &ids)).len(), ids.len() + 1);
}

/// An index root on indexes of these samples: `old` of the first half, `new` of all.
fn index_root(folder: &TempDir, samples: &[Sample], pull_ids: usize) -> Server {
    let indexes = folder.path().join("indexes");
    std::fs::create_dir(&indexes).unwrap();
    for (name, samples) in [("old.caibx", &samples[..samples.len() / 2]), ("new.caibx", samples)] {
        std::fs::write(indexes.join(name), index(samples)).unwrap();
    }
    let chunks = root(folder, ChunkRootOptions { pull_ids, ..options() });
    let options = IndexRootOptions {
        chunks: Some(Arc::new(chunks)),
        ..IndexRootOptions::default()
    };
    let workers = Workers::new(WorkerOptions::default());
    Server::start(IndexRoot::new(&indexes, options, workers).unwrap())
}

fn index(samples: &[Sample]) -> Vec<u8> {
    let (mut file, flags) = (Vec::new(), FeatureFlags::blob(DigestAlgorithm::default()));
    let mut encoder = IndexEncoder::start(flags, ChunkSizes::DEFAULT, &mut file);
    for sample in samples {
        encoder.push(id(sample), sample.plain.len(), &mut file);
    }
    encoder.finish(&mut file);
    file
}

/// Goal: one round trip brings an index and those of its chunks that its reader lacks, and no others.
#[test]
fn an_index_comes_with_what_its_reader_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(100);
    put(&Server::start(root(&folder, options())), &samples[..99]);
    let server = index_root(&folder, &samples, 80);
    let post = |body: &[u8]| {
        let mut client = server.connect();
        client.send(
            format!(
                "POST /new.caibx HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )
            .as_bytes(),
        );
        client.send(body);
        client.receive("POST")
    };
    let tag = server
        .ask("GET", "/new.caibx", &[], b"")
        .header("etag")
        .map(str::to_owned);
    for (body, lacking) in [
        (index(&samples[..50]), &samples[50..]),
        (index(&samples), &samples[..0]),
        // As many as a root answers at once.
        (Vec::new(), &samples[..80]),
    ] {
        let answer = post(&body);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(PULL_CONTENT_TYPE))
        );
        assert_eq!(
            (answer.header(PULL_HEADER), answer.header("etag")),
            (Some("80"), tag.as_deref())
        );
        let held = match body.is_empty() {
            true => HashSet::new(),
            false => ChunkIndex::parse(body.into())
                .unwrap()
                .spans()
                .map(|span| span.id)
                .collect(),
        };
        let mut reader = PullIndexAnswer::new(held, 80);
        reader.push(answer.body.into());
        assert!(matches!(reader.next().unwrap(), Some(PullIndexStep::Index(index)) if index.len() == 100));
        for sample in lacking {
            match reader.next().unwrap() {
                Some(PullIndexStep::Chunk(PullStep::Chunk(chunk))) => assert_eq!(chunk.bytes, sample.frame),
                Some(PullIndexStep::Chunk(PullStep::Missing(named))) => assert_eq!(named, id(&samples[99])),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(
            reader.next().unwrap(),
            Some(PullIndexStep::Chunk(PullStep::End))
        ));
        assert!(reader.has_ended());
    }
    assert_eq!(post(b"no index at all").status, 400);
    assert_eq!(server.ask("POST", "/other.caibx", &[], &index(&samples)).status, 404);
    assert_eq!(server.ask("POST", "/../x.caibx", &[], &index(&samples)).status, 400);
    let len = PULL_INDEX_LEN_MAX + 1;
    let mut client = server.connect();
    client.send(format!("POST /new.caibx HTTP/1.1\r\nHost: test\r\nContent-Length: {len}\r\n\r\n").as_bytes());
    assert_eq!(client.receive("POST").status, 413);
    // Without requests for many, there are none for these.
    let other = tempfile::tempdir().unwrap();
    let silent = index_root(&other, &samples, 0);
    assert_eq!(silent.ask("POST", "/new.caibx", &[], &index(&samples)).status, 405);
}

/// How a server answers requests for many.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Well,
    /// With this status.
    Status(u16),
    /// It ends each answer after so many frames, without saying so.
    CutAfter(usize),
    /// The frames of other chunks.
    Swapped,
    /// With something else.
    Page,
    /// Well, but each answer has come through a cache.
    Cached,
}

/// A root in front of which something stands.
struct Between {
    root: ChunkRoot,
    store: FlatStore,
    workers: Workers,
    way: Way,
    pulls: Arc<AtomicUsize>,
    gets: Arc<AtomicUsize>,
}

impl Between {
    fn start(samples: &[Sample], way: Way) -> (TempDir, Server, Arc<AtomicUsize>, Arc<AtomicUsize>) {
        let folder = tempfile::tempdir().unwrap();
        let (pulls, gets) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let server = Server::start(Self {
            root: root(&folder, options()),
            store: FlatStore::open(folder.path(), FlatOptions::default()).unwrap(),
            workers: Workers::new(WorkerOptions::default()),
            way,
            pulls: pulls.clone(),
            gets: gets.clone(),
        });
        put(&server, samples);
        (folder, server, pulls, gets)
    }

    /// The frames of a right answer, but for its end.
    async fn frames(&self, request: Request<Incoming>) -> Vec<Frame> {
        let (head, body) = request.into_parts();
        let upload = Upload::read(&head.headers, body, 1 << 20, &self.workers).await.unwrap();
        let ids = parse_pull_request(upload.bytes).unwrap();
        let chunks = self.store.get_many(&ids).into_iter().zip(ids);
        let frames = chunks.map(|(chunk, id)| match chunk {
            Ok(EncodedChunk { id, form, bytes }) => Frame::Chunk {
                id,
                compressed: form == ChunkForm::Compressed,
                data: bytes,
            },
            Err(_) => Frame::Missing(id),
        });
        frames.collect()
    }
}

fn answer_of(frames: &[Frame]) -> Response<Body> {
    let mut body = Vec::new();
    frames.iter().for_each(|frame| frame.push(&mut body));
    let mut response = reply(StatusCode::OK, Body::from(body));
    response
        .headers_mut()
        .insert("content-type", PULL_CONTENT_TYPE.parse().unwrap());
    response
}

impl Handler for Between {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let counter = match *request.method() {
            Method::POST => &self.pulls,
            _ => &self.gets,
        };
        if *request.method() != Method::PUT {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let is_pull = *request.method() == Method::POST;
        let mut response = match self.way {
            Way::Status(status) if is_pull => reply(StatusCode::from_u16(status).unwrap(), Body::empty()),
            Way::CutAfter(count) if is_pull => {
                let frames = self.frames(request).await;
                if frames.len() <= count {
                    return answer_of(&[frames, vec![Frame::Goodbye]].concat());
                }
                answer_of(&frames[..count])
            }
            Way::Swapped if is_pull => {
                let mut frames = self.frames(request).await;
                frames.reverse();
                answer_of(&frames)
            }
            Way::Page if is_pull => reply(StatusCode::OK, Body::from("<html>welcome")),
            _ => self.root.answer(request, 0).await,
        };
        if self.way == Way::Cached {
            response.headers_mut().insert("age", "17".parse().unwrap());
        }
        response
    }
}

fn open(server: &Server) -> HttpStore {
    let location = HttpLocation::parse(&format!("http://{}/", server.address)).unwrap();
    let options = HttpOptions {
        error_retry: 2,
        error_retry_base_interval: std::time::Duration::ZERO,
        ..HttpOptions::default()
    };
    HttpStore::open(&location, ChunkForm::Compressed, options).unwrap()
}

/// Asks for all samples and one that is missing, and looks at each answer.
fn read_all(store: &HttpStore, samples: &[Sample]) {
    let mut ids: Vec<ChunkId> = samples.iter().map(id).collect();
    ids.push(ChunkId::from_bytes([9; 32]));
    let mut chunks = store.get_many(&ids);
    assert!(matches!(chunks.pop(), Some(Err(cairn_store::Error::Missing { id, .. })) if id == ids[samples.len()]));
    for (sample, chunk) in samples.iter().zip(chunks) {
        assert_eq!(chunk.unwrap().bytes, sample.frame);
    }
}

/// Goal: a server that takes such requests is asked hardly more often than it would be for a few chunks.
/// Method: all requests are counted: ten GETs at most before its first answer is read, 256 chunks in each request from then on.
#[test]
fn the_client_asks_for_many_at_once_where_it_may() {
    let samples = samples(600);
    let (_folder, server, pulls, gets) = Between::start(&samples, Way::Well);
    let store = open(&server);
    read_all(&store, &samples);
    let first = (pulls.load(Ordering::Relaxed), gets.load(Ordering::Relaxed));
    assert_eq!(first.0, 3);
    assert!((1..=20).contains(&first.1), "{} GETs before", first.1);
    read_all(&store, &samples);
    assert_eq!(pulls.load(Ordering::Relaxed), 6);
    assert_eq!(gets.load(Ordering::Relaxed), first.1, "it knows the server by now");
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again_from_there() {
    let samples = samples(200);
    let (_folder, server, pulls, gets) = Between::start(&samples, Way::CutAfter(50));
    let store = open(&server);
    read_all(&store, &samples);
    read_all(&store, &samples);
    assert!(gets.load(Ordering::Relaxed) <= 20);
    assert!(
        (8..=11).contains(&pulls.load(Ordering::Relaxed)),
        "{}",
        pulls.load(Ordering::Relaxed)
    );
}

#[test]
fn a_server_that_does_not_keep_its_word_is_asked_chunk_after_chunk() {
    let samples = samples(100);
    for way in [
        Way::Status(403),
        Way::Status(404),
        Way::Status(405),
        Way::Status(413),
        Way::Status(501),
        Way::Swapped,
        Way::Page,
    ] {
        let (_folder, server, pulls, gets) = Between::start(&samples, way);
        let store = open(&server);
        read_all(&store, &samples);
        read_all(&store, &samples);
        assert_eq!(pulls.load(Ordering::Relaxed), 1, "asked so once");
        // Two for the one that is missing: it may be there in either form.
        assert_eq!(gets.load(Ordering::Relaxed), 2 * (samples.len() + 2));
    }
}

#[test]
fn a_server_that_fails_is_an_error_and_not_a_missing_chunk() {
    let samples = samples(100);
    let (_folder, server, ..) = Between::start(&samples, Way::Status(500));
    let ids: Vec<ChunkId> = samples.iter().map(id).collect();
    let chunks = open(&server).get_many(&ids);
    assert!(chunks.iter().any(Result::is_err));
    for chunk in chunks {
        assert!(!matches!(chunk, Err(cairn_store::Error::Missing { .. })));
    }
}

/// Behind a cache each chunk is a file that it may have: requests for many would pass it by.
#[test]
fn behind_a_cache_chunks_are_asked_for_alone() {
    let samples = samples(100);
    let (_folder, server, pulls, gets) = Between::start(&samples, Way::Cached);
    read_all(&open(&server), &samples);
    assert_eq!(pulls.load(Ordering::Relaxed), 0);
    assert_eq!(gets.load(Ordering::Relaxed), samples.len() + 2);
}

/// What one chunk's trouble is worth: a request of its own, and one more for the rest.
#[test]
fn a_damaged_chunk_costs_the_others_nothing() {
    let samples = samples(100);
    let (folder, server, ..) = Between::start(&samples, Way::Well);
    let store = open(&server);
    read_all(&store, &samples);
    std::fs::write(folder.path().join(&samples[60].frame_path()[1..]), b"garbage").unwrap();
    // What was found right a moment ago is not looked at again: another server does.
    let again = Server::start(root(&folder, options()));
    let ids: Vec<ChunkId> = samples.iter().map(id).collect();
    for (at, chunk) in open(&again).get_many(&ids).into_iter().enumerate() {
        match chunk {
            Ok(chunk) => assert_eq!(chunk.bytes, samples[at].frame),
            Err(error) => {
                assert_eq!(at, 60, "{error}");
                assert!(!matches!(error, cairn_store::Error::Missing { .. }));
            }
        }
    }
}
