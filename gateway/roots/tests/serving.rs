//! The loop around the roots: equal reads in flight, shutdown with requests in flight, bounds of a connection.
//!
//! A real flat store behind a gate: reads wait until the test opens it, so "in flight" is a state, not a matter of time.
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod client;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use cairn_formats::{ChunkId, EncodedChunk, StorableChunk};
use cairn_roots::{Access, ChunkRoot, ChunkRootOptions, Grant, ServeOptions, WorkerOptions, Workers};
use cairn_store::{ChunkStore, FlatOptions, FlatStore, Result, StoreName};
use client::{Sample, Server};

#[derive(Debug)]
struct Gated {
    inner: FlatStore,
    reads: AtomicUsize,
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gated {
    fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    /// Waits until so many reads stand at the gate.
    fn wait_for(&self, waiting: usize) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.1 < waiting).unwrap());
    }
}

impl ChunkStore for Gated {
    fn name(&self) -> &StoreName {
        self.inner.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        self.inner.has_many(ids)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        // A test that failed does not open the gate, and would wait for its server for ever.
        drop(
            self.changed
                .wait_timeout_while(state, client::HANG, |state| !state.0)
                .unwrap(),
        );
        self.inner.get_many(ids)
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.inner.put_many(chunks)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
}

fn start(options: ServeOptions) -> (tempfile::TempDir, Arc<Gated>, Server) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Gated {
        inner: FlatStore::open(folder.path(), FlatOptions::default()).unwrap(),
        reads: AtomicUsize::new(0),
        state: Mutex::new((false, 0)),
        changed: Condvar::new(),
    });
    let root_options = ChunkRootOptions {
        access: Access {
            read: Grant::Anyone,
            write: Grant::Anyone,
        },
        ..ChunkRootOptions::default()
    };
    let root = ChunkRoot::new(
        Arc::clone(&store) as Arc<dyn ChunkStore>,
        root_options,
        Workers::new(WorkerOptions::default()),
    );
    (folder, store, Server::start_with(root, options, 1))
}

/// Goal: equal reads in flight are one read of the store.
/// Method: twenty connections ask while the gate is shut. The server has one thread; each connection sends its GET behind
/// a request that is answered at once, so when all of those answers and one more round trip are in, the thread has seen
/// every GET.
#[test]
fn equal_reads_in_flight_are_one() {
    let (_folder, store, server) = start(ServeOptions::default());
    let sample = Sample::new(b"some bytes");
    assert_eq!(server.status("PUT", &sample.frame_path(), &sample.frame), 200);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        let get = format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", sample.frame_path());
        client.send(format!("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n{get}").as_bytes());
    }
    for client in &mut clients {
        assert_eq!(client.receive("HEAD").status, 400);
    }
    assert_eq!(server.status("HEAD", "/", b""), 400);
    store.wait_for(1);
    store.open();
    for client in &mut clients {
        let answer = client.receive("GET");
        assert_eq!((answer.status, &answer.body), (200, &sample.frame));
    }
    assert_eq!(store.reads.load(Ordering::Relaxed), 1);
}

#[test]
fn requests_in_flight_end_before_the_server_does() {
    let (_folder, store, server) = start(ServeOptions::default());
    let sample = Sample::new(b"some bytes");
    assert_eq!(server.status("PUT", &sample.frame_path(), &sample.frame), 200);
    let (mut busy, mut idle) = (server.connect(), server.connect());
    assert_eq!(idle.ask("HEAD", &sample.frame_path(), &[], b"").status, 200);
    busy.send(format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", sample.frame_path()).as_bytes());
    store.wait_for(1);
    server.trigger.begin();
    assert!(idle.is_closed(), "an idle connection is closed");
    assert!(!server.serving.is_finished());
    store.open();
    let answer = busy.receive("GET");
    assert_eq!((answer.status, &answer.body), (200, &sample.frame));
    assert!(busy.is_closed());
    server.runtime.block_on(server.serving).unwrap();
    assert!(
        std::net::TcpStream::connect(server.address).is_err(),
        "nobody listens any more"
    );
}

#[test]
fn heads_are_bounded() {
    let (_folder, _store, server) = start(ServeOptions {
        header_bytes: 4096,
        headers: 20,
        ..ServeOptions::default()
    });
    let sample = Sample::new(b"some bytes");
    let long = "x".repeat(5000);
    assert_eq!(
        server
            .ask("HEAD", &sample.frame_path(), &[("X-Long", &long)], b"")
            .status,
        431
    );
    assert_eq!(
        server
            .ask("HEAD", &sample.frame_path(), &[("X-Many", "x"); 30], b"")
            .status,
        431
    );
    let mut client = server.connect();
    client.send(b"this is not HTTP\r\n\r\n");
    assert_eq!(client.receive("GET").status, 400);
    assert!(client.is_closed());
    let mut client = server.connect();
    client.send(b"PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(
        client.try_receive("PUT").is_none_or(|answer| answer.status == 400),
        "smuggling"
    );
}

#[test]
fn connections_beyond_the_limit_wait_their_turn() {
    let (_folder, _store, server) = start(ServeOptions {
        connections: 1,
        ..ServeOptions::default()
    });
    let path = Sample::new(b"some bytes").frame_path();
    let mut first = server.connect();
    assert_eq!(first.ask("HEAD", &path, &[], b"").status, 404);
    let mut second = server.connect();
    second.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
    assert_eq!(first.ask("HEAD", &path, &[], b"").status, 404);
    drop(first);
    assert_eq!(second.receive("HEAD").status, 404);
}

/// The head of a chunk that is longer than any may be: it is refused before it is read.
fn put_of_too_much() -> String {
    let path = Sample::new(b"some bytes").frame_path();
    format!("PUT {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000000\r\n\r\n")
}

/// Goal: a client that is refused while it sends can send on, more than sockets hold, and reads why.
#[test]
fn who_is_refused_while_sending_reads_why() {
    let (_folder, _store, server) = start(ServeOptions {
        linger: client::HANG,
        ..ServeOptions::default()
    });
    let mut client = server.connect();
    client.send(put_of_too_much().as_bytes());
    client.send(&vec![0; 32 << 20]);
    assert_eq!(client.receive("PUT").status, 413);
    assert!(client.is_closed());
}

/// Goal: a server that ends does not wait for clients whose connections it has ended.
/// Method: who sees the end of the server's side is one that the server still listens to.
#[test]
fn nobody_who_was_refused_holds_up_a_shutdown() {
    let hours = Duration::from_secs(24 * 60 * 60);
    let (_folder, _store, server) = start(ServeOptions {
        linger: hours,
        drain: hours,
        ..ServeOptions::default()
    });
    let mut client = server.connect();
    client.send(put_of_too_much().as_bytes());
    assert_eq!(client.receive("PUT").status, 413);
    assert!(client.is_closed());
    server.trigger.begin();
    server.runtime.block_on(server.serving).unwrap();
}

/// Goal: a client that is refused and never stops sending is cut.
#[test]
fn who_never_stops_sending_is_cut() {
    let (_folder, _store, server) = start(ServeOptions {
        linger: Duration::from_millis(50),
        ..ServeOptions::default()
    });
    let mut client = server.connect();
    client.send(put_of_too_much().as_bytes());
    assert_eq!(client.receive("PUT").status, 413);
    let piece = vec![0; 64 << 10];
    while client.try_send(&piece) {}
    assert!(client.is_closed());
}
