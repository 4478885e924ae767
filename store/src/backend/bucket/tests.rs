//! What holds for the buckets of every service, with real servers and with ones that fail, lie and stall.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use cairn_formats::{ChunkForm, ChunkId, StorableChunk};
use cairn_test_servers::{GsServer, S3Server};

use super::*;
use crate::contract::{ids_of, open};
use crate::{ChunkStoreExt as _, Error, IndexStore, MemberSpec, Proxy, Prune, RemoteKind, contract, open_remote};

/// Options for tests: no proxy from the environment, pauses too short to notice.
pub(super) fn quick() -> StoreOptions {
    StoreOptions {
        http: HttpOptions {
            proxy: Proxy::Direct,
            error_retry_base_interval: Duration::from_micros(1),
            ..HttpOptions::default()
        },
        ..StoreOptions::default()
    }
}

/// A bucket's URL at a server of each service, and how it is opened.
///
/// - `server`: `http://host:port`.
fn services(server: &str) -> [(String, StoreOptions); 2] {
    [
        (format!("s3+{server}/b/p"), s3::tests::quick()),
        ("gs://b/p".to_owned(), gs::tests::quick(server)),
    ]
}

/// Something of a place or object.
type Named<'a, T> = dyn Fn(&str) -> T + 'a;

/// Runs a test with a bucket of each service: the URL of a place in it, options, the file that an object is.
fn with_each(test: impl Fn(&Named<'_, String>, &StoreOptions, &Named<'_, PathBuf>)) {
    let server = S3Server::start();
    test(&|place| server.url(place), &s3::tests::quick(), &|key| {
        server.object(key)
    });
    let server = GsServer::start();
    let options = gs::tests::quick(&server.endpoint());
    test(&|place| server.url(place), &options, &|key| server.object(key));
}

#[test]
fn a_bucket_keeps_every_promise() {
    with_each(|url, options, object| {
        for place in ["", "a/prefix with blanks", "a/other/"] {
            contract::writable(&*open(&url(place), options.clone()));
        }
        let plain = StoreOptions {
            form: ChunkForm::Plain,
            ..options.clone()
        };
        contract::writable(&*open(&url("plain"), plain));
        let id = contract::chunks(1, ChunkForm::Plain)[0].id().to_string();
        assert!(object(&format!("plain/{}/{id}", &id[..4])).exists());
    });
}

#[test]
fn chunks_are_listed_and_deleted_and_nothing_else_is() {
    with_each(|url, options, _| list_and_delete(url, options));
}

/// - `url`: of a place in the bucket.
pub(super) fn list_and_delete(url: &dyn Fn(&str) -> String, options: &StoreOptions) {
    let store = open(&url("store"), options.clone());
    let mut all = put(&*store, 5);
    // The same chunk in its other form is one chunk.
    store.put_many(&contract::chunks(5, ChunkForm::Plain)).unwrap();
    all.extend(put(&*store, 6));
    all.sort();
    let index = IndexStore::open(&Location::parse(&url("store/x.caibx")).unwrap(), options).unwrap();
    index.put(Bytes::from_static(b"index")).unwrap();
    assert_eq!(ids_of(&*store), all);
    let member = MemberSpec {
        location: Location::parse(&url("store")).unwrap(),
        options: options.clone(),
    };
    let RemoteKind::Flat(files) = open_remote(&member).unwrap() else {
        panic!("it holds no packs");
    };
    let mut listed = Vec::new();
    files
        .for_each_file(&mut |chunk, len| {
            listed.push((chunk.id, chunk.form, len));
            Ok(())
        })
        .unwrap();
    for (id, form, len) in &listed {
        assert_eq!(store.stat(*id, *form).unwrap().unwrap().stored, Some((*form, *len)));
    }
    // Those of the fifth seed in both forms.
    assert_eq!(listed.len(), all.len() + contract::chunks(5, ChunkForm::Plain).len());
    let (gone, kept) = all.split_at(3);
    store.remove_many(gone).unwrap();
    store.remove_many(gone).unwrap();
    assert_eq!(ids_of(&*store), kept);
    assert_eq!(store.has_many(gone).unwrap(), vec![false; gone.len()]);
    assert_eq!(&index.get().unwrap()[..], b"index");
    assert!(ids_of(&*open(&url("elsewhere"), options.clone())).is_empty());
}

pub(super) fn put_and_read_an_index(url: &str, options: &StoreOptions) {
    let index = IndexStore::open(&Location::parse(url).unwrap(), options).unwrap();
    assert!(matches!(index.get(), Err(Error::NoIndex { .. })));
    index.put(Bytes::from_static(b"one")).unwrap();
    index.put(Bytes::from_static(b"another")).unwrap();
    assert_eq!(&index.get().unwrap()[..], b"another");
}

/// Goal: listings of several pages lose and repeat nothing.
#[test]
fn long_listings_go_on_behind_the_last_name() {
    with_each(|url, options, object| {
        let mut all: Vec<ChunkId> = (0..2100u32)
            .map(|number| cairn_formats::DigestAlgorithm::default().id(&number.to_le_bytes()))
            .collect();
        for id in &all {
            let hex = id.to_string();
            let path = object(&format!("many/{}/{hex}.cacnk", &hex[..4]));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        all.sort();
        let store = open(&url("many"), options.clone());
        assert_eq!(ids_of(&*store), all);
        store.remove_many(&all[1..]).unwrap();
        assert_eq!(ids_of(&*store), all[..1]);
    });
}

#[test]
fn an_index_is_an_object() {
    with_each(|url, options, object| {
        for name in ["x.caibx", "folder/with blanks/y.caidx"] {
            put_and_read_an_index(&url(name), options);
            assert_eq!(fs::read(object(name)).unwrap(), b"another");
        }
    });
}

fn put(store: &dyn Prune, seed: u64) -> Vec<ChunkId> {
    let chunks = contract::chunks(seed, ChunkForm::Compressed);
    store.put_many(&chunks).unwrap();
    let mut ids: Vec<ChunkId> = chunks.iter().map(StorableChunk::id).collect();
    ids.sort();
    ids
}

/// A server that gives the same bytes to every request; `None` gives nothing and keeps the connection. Counts requests.
///
/// - Returns `http://host:port` too.
pub(crate) fn always(wire: Option<&'static [u8]>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            // Heads are enough: bodies of these tests are short, and what is left of them is dropped with the connection.
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(read @ 1..) => request.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            counted.fetch_add(1, Ordering::SeqCst);
            match wire {
                Some(wire) => drop(stream.write_all(wire)),
                None => silent.push(stream),
            }
        }
    });
    (url, count)
}

#[test]
fn failing_servers_are_tried_again_and_then_told() {
    let one = ChunkId::from_bytes([1; 32]);
    for (wire, requests, cause) in [
        (&b"HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"[..], 3, "500"),
        (
            b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 58\r\n\r\n<Error><Code>SlowDown</Code><Message>later</Message></Error>",
            3,
            "SlowDown: later",
        ),
        (b"HTTP/1.1 503 Busy\r\nConnection: close\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n", 1, "503"),
        (b"HTTP/1.1 507 Full\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 1, "507"),
        // Half of what it announces.
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nLast-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\nETag: x\r\nContent-Length: 9\r\n\r\nhalf", 3, ""),
        (b"", 3, ""),
    ] {
        let (server, count) = always(Some(wire));
        for (url, options) in services(&server) {
            count.store(0, Ordering::SeqCst);
            let error = open(&url, options).get(one).unwrap_err();
            let text = error_chain(&error);
            assert!(matches!(error, Error::Unavailable { action: "read a chunk", .. }), "{error:?}");
            assert!(text.contains(cause), "{text}");
            assert_eq!(count.load(Ordering::SeqCst), requests, "{text}");
        }
    }
}

#[test]
fn what_another_try_cannot_change_is_told_at_once() {
    let one = ChunkId::from_bytes([1; 32]);
    // Without the right to list, 403 may mean that there is no FORMAT: the chunk itself is asked for.
    for (wire, cause, requests) in [
        (&b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"[..], "403", 2),
        (
            b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 39\r\n\r\n<Error><Code>NoSuchBucket</Code></Error>",
            "NoSuchBucket",
            1,
        ),
    ] {
        let (server, count) = always(Some(wire));
        for (url, options) in services(&server) {
            count.store(0, Ordering::SeqCst);
            let error = open(&url, options).get(one).unwrap_err();
            let text = error_chain(&error);
            assert!(matches!(error, Error::Refused { .. }), "{error:?}");
            assert!(text.contains(cause), "{text}");
            assert_eq!(count.load(Ordering::SeqCst), requests, "{text}");
        }
    }
}

/// A bucket that is not there is no missing chunk, although HEAD tells them apart by nothing.
#[test]
fn a_missing_bucket_is_not_a_missing_chunk() {
    let (server, _) = always(Some(
        b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 40\r\n\r\n<Error><Code>NoSuchBucket</Code></Error>",
    ));
    for (url, options) in services(&server) {
        let store = open(&url, options);
        let error = store.has(ChunkId::from_bytes([1; 32])).unwrap_err();
        assert!(error_chain(&error).contains("NoSuchBucket"), "{}", error_chain(&error));
        let error = store
            .put_many(&contract::chunks(1, ChunkForm::Compressed)[3..])
            .unwrap_err();
        assert!(
            matches!(error, Error::Refused { .. }) && error_chain(&error).contains("NoSuchBucket"),
            "{}",
            error_chain(&error)
        );
    }
}

/// Asserts that a server has heard so many requests: it may hear of the last one when its client has given up already.
pub(crate) fn assert_heard(count: &AtomicUsize, requests: usize) {
    let begun = Instant::now();
    while count.load(Ordering::SeqCst) < requests && begun.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    assert_eq!(count.load(Ordering::SeqCst), requests);
}

#[test]
fn silence_ends_in_time() {
    for service in 0..2 {
        let (server, count) = always(None);
        let (url, mut options) = services(&server)[service].clone();
        options.http.timeout = Some(Duration::from_millis(20));
        let store = open(&url, options);
        let text = error_chain(&store.has(ChunkId::from_bytes([1; 32])).unwrap_err());
        assert!(
            text.contains("no answer within 20ms") && text.contains("3 tries"),
            "{text}"
        );
        assert_heard(&count, 3);
        let error = store
            .put_many(&contract::chunks(1, ChunkForm::Compressed)[3..])
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::Unavailable {
                    action: "store a chunk",
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[test]
fn tokens_go_to_near_places_alone() {
    for url in [
        "http://127.0.0.1:80/x",
        "http://localhost:4443",
        "http://169.254.170.23/v1/credentials",
        "http://[fd00:ec2::23]/v1",
        "http://[::1]/",
        "https://example.org/",
    ] {
        assert!(is_near(url), "{url}");
    }
    for url in ["http://example.org/", "http://10.0.0.1/", "http://[fd00::1]/", "none"] {
        assert!(!is_near(url), "{url}");
    }
}
