//! Readers that take nothing: many of them hold little memory, and nobody else waits for them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;

/// Readers of the usual run, and of the full one (`CAIRN_FULL=1`).
const READERS: (usize, usize) = (1_000, 10_000);
/// Bytes that the server may take for all objects that it sends, by its setting, ...
const BUFFER: usize = 64 << 20;
/// ... for a connection besides: its task, its request, the least piece on its way ...
const CONNECTION: usize = 48 << 10;
/// ... and for the jobs that read, however many readers there are: 64 MiB in hand before what they read at once becomes shorter, and a
/// frame of up to 1 MiB that each of 64 threads keeps.
const THREADS: usize = 128 << 20;

/// Anonymous memory of a process, bytes.
fn memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() << 10
}

/// Goal: a crowd that asks and takes nothing costs a bounded piece of memory each, and a reader beside them is served.
#[test]
fn readers_that_take_nothing_hold_little_memory() {
    let full = std::env::var_os("CAIRN_FULL").is_some();
    let readers = if full { READERS.1 } else { READERS.0 };
    let connections = (readers + 1000).to_string();
    let ground = Ground::start_with(&[
        ("CAIRN_LIMITS__CONNECTIONS", &connections),
        ("CAIRN_CDN__BUFFER_BYTES", &BUFFER.to_string()),
    ]);
    let bytes = input(3, 16 * MIB);
    ground.put("pub/k", &bytes);
    assert!(ground.get("/cdn/abc/pub/k", &[]).body == bytes);
    let before = memory(ground.door.pid());
    let mut slow = Vec::with_capacity(readers);
    for n in 0..readers {
        let mut stream = TcpStream::connect(("127.0.0.1", ground.door.public)).unwrap();
        // Different places, so that nothing is shared by chance.
        let from = n * 1024 % (8 * MIB);
        let request = format!("GET /cdn/abc/pub/k HTTP/1.1\r\nHost: x\r\nRange: bytes={from}-\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        slow.push(stream);
    }
    // Each has begun: its status has come.
    for stream in &mut slow {
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 206");
    }
    let held = memory(ground.door.pid()).saturating_sub(before);
    eprintln!(
        "{readers} readers that take nothing: {held} bytes, {} each",
        held / readers
    );
    assert!(
        held <= BUFFER + THREADS + readers * CONNECTION,
        "{held} bytes for {readers} readers"
    );
    assert_eq!(ground.door.metric("cdn_readers"), readers as u64);
    assert!(
        ground.get("/cdn/abc/pub/k", &[]).body == bytes,
        "one beside them is served"
    );
    // And what they get when they take it is right.
    let mut stream = slow.pop().unwrap();
    let from = (readers - 1) * 1024 % (8 * MIB);
    let mut answer = Vec::new();
    let mut piece = vec![0; 1 << 16];
    let whole = |answer: &[u8]| {
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        head.is_some_and(|head| answer.len() >= head + 4 + bytes.len() - from)
    };
    while !whole(&answer) {
        let len = stream.read(&mut piece).unwrap();
        assert!(len > 0, "it ends early");
        answer.extend_from_slice(&piece[..len]);
    }
    assert!(answer.ends_with(&bytes[from..]));
}
