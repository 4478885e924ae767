//! Servers that fail, lie, cut and stall: what is tried again, what is told, and that nothing becomes "missing" by it.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use cairn_formats::{Chunk, ChunkForm, Level};
use cairn_store::{Authorization, ChunkStore, Cookie, Error, HttpOptions, Proxy, RateLimit};

use crate::servers::{Fault, answer};
use crate::{chunks, encoded, error_of, ids, open, quick, read, told};

fn body_of(chunk: &Chunk) -> Vec<u8> {
    chunk.encode(ChunkForm::Compressed, Level::DEFAULT).bytes().to_vec()
}

/// The errors of GET, HEAD and PUT from a server that always answers so, and how many requests each took.
fn always(wire: &'static [u8]) -> Vec<(Error, usize)> {
    let server = Fault::start(move |_, _| Some(wire.to_vec()));
    let store = open(&server.url(), quick());
    let one = chunks(1, 1);
    let counted = |act: &dyn Fn() -> Error| {
        let before = server.requests().len();
        (act(), server.requests().len() - before)
    };
    vec![
        counted(&|| error_of(&store)),
        counted(&|| store.has_many(&ids(&one)).unwrap_err()),
        counted(&|| store.put_many(&encoded(&one, ChunkForm::Compressed)).unwrap_err()),
    ]
}

#[test]
fn passing_failures_are_tried_again_and_then_told() {
    for wire in [
        &b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 Slow down\r\nConnection: close\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
        b"",
        b"HTTP/1.1 20",
        b"SSH-2.0-OpenSSH\r\n",
    ] {
        for (error, requests) in always(wire) {
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
            assert_eq!(requests, 3, "{}", told(&error));
        }
    }
}

#[test]
fn refusals_are_told_at_once() {
    for wire in [
        &b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 9\r\n\r\nnot yours"[..],
        b"HTTP/1.1 418 Teapot\r\nConnection: close\r\nContent-Length: 9\r\n\r\nnot yours",
        b"HTTP/1.1 206 Partial\r\nConnection: close\r\nContent-Length: 9\r\n\r\nnot yours",
        b"HTTP/1.1 202 Later\r\nConnection: close\r\nContent-Length: 9\r\n\r\nnot yours",
        b"HTTP/1.1 304 Same\r\nConnection: close\r\n\r\n",
    ] {
        for (error, requests) in always(wire) {
            assert!(matches!(error, Error::Refused { .. }), "{error:?}");
            assert_eq!(requests, 1, "{}", told(&error));
        }
    }
    for (error, requests) in
        always(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n")
    {
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(requests, 1, "{}", told(&error));
    }
}

#[test]
fn gone_is_missing_but_not_for_an_upload() {
    for wire in [
        &b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 410 Gone\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ] {
        let server = Fault::start(move |_, _| Some(wire.to_vec()));
        let store = open(&server.url(), quick());
        assert!(matches!(error_of(&store), Error::Missing { .. }));
        let put = store.put_many(&encoded(&chunks(1, 1), ChunkForm::Compressed));
        assert!(matches!(put, Err(Error::Refused { .. })));
    }
}

#[test]
fn bodies_cut_short_are_read_again_and_never_taken_for_whole() {
    let chunk = chunks(1, 1).remove(0);
    let body = body_of(&chunk);
    let half = body[..body.len() / 2].to_vec();
    let cut = move |number: usize| match number % 2 {
        0 => {
            let mut wire = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                half.len() * 2
            )
            .into_bytes();
            wire.extend_from_slice(&half);
            wire
        }
        _ => {
            let mut wire = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            wire.extend_from_slice(format!("{:x}\r\n", half.len()).as_bytes());
            wire.extend_from_slice(&half);
            wire.extend_from_slice(b"\r\n");
            wire
        }
    };
    let always_cut = cut.clone();
    let server = Fault::start(move |number, _| Some(always_cut(number)));
    let error = open(&server.url(), quick())
        .get_many(&[chunk.id()])
        .pop()
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 3);
    let server = Fault::start(move |number, _| match number {
        0 | 1 => Some(cut(number)),
        _ => answer("200 OK", "", &body),
    });
    read(&open(&server.url(), quick()), &[chunk]);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn bodies_beyond_the_bound_are_refused() {
    let announced = Fault::start(|_, _| {
        Some(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\nx".to_vec())
    });
    let error = error_of(&open(&announced.url(), quick()));
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(told(&error).contains("longer than the"), "{}", told(&error));
    // Without a length: 136 MiB in pieces of 1 MiB, more than any chunk has.
    let endless = Fault::start(|_, _| {
        let mut wire = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..136 {
            wire.extend_from_slice(b"100000\r\n");
            wire.resize(wire.len() + (1 << 20), b'x');
            wire.extend_from_slice(b"\r\n");
        }
        Some(wire)
    });
    let error = error_of(&open(&endless.url(), quick()));
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

#[test]
fn silence_ends_with_an_error() {
    let silent = Fault::start(|_, _| None);
    for options in [
        HttpOptions {
            timeout: Some(Duration::from_millis(20)),
            ..quick()
        },
        HttpOptions {
            timeout: None,
            idle_timeout: Duration::from_millis(20),
            connect_timeout: Duration::from_millis(20),
            ..quick()
        },
    ] {
        let error = error_of(&open(&silent.url(), options));
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert!(told(&error).contains("no answer within"), "{}", told(&error));
    }
}

#[test]
fn nobody_there_is_not_missing() {
    let error = error_of(&open(
        &format!("http://127.0.0.1:{}/", cairn_test_servers::free_port()),
        quick(),
    ));
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(told(&error).contains("after 3 tries"), "{}", told(&error));
}

#[test]
fn an_upload_is_sent_again_whole() {
    let chunk = chunks(1, 1);
    let server = Fault::start(|number, _| match number {
        0 => Some(Vec::new()),
        1 => answer("503 Busy", "", b""),
        _ => answer("201 Created", "", b""),
    });
    open(&server.url(), quick())
        .put_many(&encoded(&chunk, ChunkForm::Plain))
        .unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert!(
        requests
            .iter()
            .all(|request| request == &requests[0] && request.starts_with("PUT /"))
    );
}

#[test]
fn redirects_are_followed_without_taking_credentials_along() {
    let chunk = chunks(1, 1).remove(0);
    let body = body_of(&chunk);
    let target = Fault::start(move |_, request| match request.starts_with("GET") {
        true => answer("200 OK", "", &body),
        false => answer("200 OK", "", b""),
    });
    let moved = target.url();
    let server = Fault::start(move |number, request| {
        let path = request.split(' ').nth(1).unwrap();
        match number {
            0 => answer("302 Found", "Location: /elsewhere\r\n", b""),
            1 => answer("307 Moved", &format!("Location: {moved}x{path}\r\n"), b""),
            _ => answer("308 Moved", &format!("Location: {moved}put{path}\r\n"), b""),
        }
    });
    let options = HttpOptions {
        authorization: Some(Authorization::Bearer("t0ken".to_owned())),
        cookie: Some(Cookie("c00kie".to_owned())),
        ..quick()
    };
    let store = open(&server.url(), options);
    read(&store, std::slice::from_ref(&chunk));
    store.put_many(&encoded(&[chunk], ChunkForm::Plain)).unwrap();
    let asked = server.requests();
    assert_eq!(asked.len(), 3);
    assert!(
        asked
            .iter()
            .all(|request| request.contains("t0ken") && request.contains("c00kie"))
    );
    let reached = target.requests();
    assert_eq!(reached.len(), 2);
    assert!(reached[0].starts_with("GET /x/elsewhere "), "{}", reached[0]);
    assert!(reached[1].starts_with("PUT /put/"), "{}", reached[1]);
    assert!(
        reached
            .iter()
            .all(|request| !request.contains("t0ken") && !request.contains("c00kie"))
    );
}

#[test]
fn a_user_in_the_url_stays_with_its_server() {
    let chunk = chunks(1, 1).remove(0);
    let body = body_of(&chunk);
    let server = Fault::start(move |number, request| {
        let here = request
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| Some(line.strip_prefix("host: ")?.to_owned()));
        match number {
            0 => answer("302 Found", &format!("Location: http://{}/x\r\n", here.unwrap()), b""),
            _ => answer("200 OK", "", &body),
        }
    });
    read(&open(&server.url().replace("//", "//ann:pass@"), quick()), &[chunk]);
    let authorized = |request: &String| {
        request
            .to_ascii_lowercase()
            .contains("authorization: basic yw5uonbhc3m=")
    };
    assert!(server.requests().iter().all(authorized), "{:?}", server.requests());
}

#[test]
fn redirects_that_lose_an_upload_go_round_or_lead_nowhere_are_refused() {
    for headers in ["Location: /x\r\n", "", "Location: ftp://127.0.0.1/x\r\n"] {
        let server = Fault::start(move |_, _| answer("303 See Other", headers, b""));
        let store = open(&server.url(), quick());
        let error = error_of(&store);
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        let before = server.requests().len();
        let error = store.put_many(&encoded(&chunks(1, 1), ChunkForm::Plain)).unwrap_err();
        assert!(
            told(&error).contains("303 See Other does not carry an upload on"),
            "{}",
            told(&error)
        );
        assert_eq!(server.requests().len(), before + 1);
    }
}

#[test]
fn requests_go_through_the_proxy() {
    let chunk = chunks(1, 1).remove(0);
    let body = body_of(&chunk);
    let proxy = Fault::start(move |_, _| answer("200 OK", "", &body));
    let options = HttpOptions {
        proxy: Proxy::Url(proxy.url().replace("//", "//user:pass@")),
        ..quick()
    };
    assert!(!format!("{options:?}").contains("pass"));
    read(&open("http://store.invalid/base", options), &[chunk]);
    let request = &proxy.requests()[0];
    assert!(request.starts_with("GET http://store.invalid/base/"), "{request}");
    assert!(
        request.to_ascii_lowercase().contains("proxy-authorization: basic"),
        "{request}"
    );
}

#[test]
fn encodings_are_neither_asked_for_nor_undone() {
    let chunk = chunks(1, 1).remove(0);
    let body = body_of(&chunk);
    let server = Fault::start(move |_, _| answer("200 OK", "Content-Encoding: zstd\r\n", &body));
    read(&open(&server.url(), quick()), &[chunk]);
    assert!(
        server.requests()[0]
            .to_ascii_lowercase()
            .contains("accept-encoding: identity")
    );
}

/// Goal: a batch keeps as many requests in flight as allowed, and no more, however many threads call.
/// Method: the server answers a request only when four are there.
#[test]
fn as_many_requests_are_in_flight_as_allowed() {
    let barrier = Arc::new(Barrier::new(4));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, peak) = (now.clone(), most.clone());
    let server = Fault::start(move |_, _| {
        peak.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        barrier.wait();
        counted.fetch_sub(1, Ordering::SeqCst);
        answer("200 OK", "", b"")
    });
    let store = open(
        &server.url(),
        HttpOptions {
            concurrency: 4,
            ..quick()
        },
    );
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let store = &store;
            scope.spawn(move || assert_eq!(store.has_many(&ids(&chunks(seed, 10))).unwrap(), [true; 10]));
        }
    });
    assert_eq!(server.requests().len(), 20);
    assert_eq!(most.load(Ordering::SeqCst), 4);
}

#[test]
fn after_a_refused_upload_the_rest_of_the_batch_is_not_sent() {
    let server = Fault::start(|_, _| answer("403 Forbidden", "", b""));
    let options = HttpOptions {
        concurrency: 2,
        ..quick()
    };
    open(&server.url(), options)
        .put_many(&encoded(&chunks(1, 2000), ChunkForm::Plain))
        .unwrap_err();
    assert!(server.requests().len() < 2000, "{}", server.requests().len());
}

#[test]
fn a_rate_limit_slows_but_does_not_time_out() {
    let chunk = chunks(1, 1).remove(0);
    let body = body_of(&chunk);
    let len = body.len() as u64;
    let server = Fault::start(move |_, _| answer("200 OK", "", &body));
    let options = HttpOptions {
        // The body takes about a second, many times the time allowed for the network.
        rate_limit: Some(Arc::new(RateLimit::new(NonZeroU64::new(len).unwrap()))),
        timeout: Some(Duration::from_millis(500)),
        ..quick()
    };
    read(&open(&server.url(), options), &[chunk]);
}

/// Nothing here may panic or block where async code holds a store.
#[test]
fn a_store_can_be_dropped_and_used_inside_async_code() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let server = Fault::start(|_, _| answer("404 Not Found", "", b""));
        let store = open(&server.url(), quick());
        assert!(matches!(error_of(&store), Error::Missing { .. }));
        drop(store);
    });
}
