//! `pull` and `push` as programs that other programs speak to: requests of all sorts, and what is no session.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use cairn_formats::{
    Chunk, ChunkForm, ChunkId, ChunkSizes, DigestAlgorithm, FeatureFlags, Frame, FrameDecoder, HelloFlags,
};
use cairn_formats::{IndexEncoder, Level};

/// A running end of the protocol.
struct End {
    child: Child,
    decoder: FrameDecoder,
}

impl End {
    fn start(arguments: &[&str], folder: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_cairn"))
            .current_dir(folder)
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self {
            child: child.expect("cairn is built"),
            decoder: FrameDecoder::new(),
        }
    }

    fn send(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.push(&mut bytes);
        self.send_bytes(&bytes);
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        // An end that has given up does not listen.
        let _ = self.child.stdin.as_mut().expect("piped").write_all(bytes);
    }

    /// The next frame, or `None` when it has left.
    fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next().expect("good frames") {
                return Some(frame);
            }
            let mut buffer = vec![0; 4096];
            match self.child.stdout.as_mut().expect("piped").read(&mut buffer) {
                Ok(0) => return None,
                Ok(len) => self.decoder.push(Bytes::from(buffer).slice(..len)),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Ends the input; exit code and words.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.child.stdin.take());
        while self.frame().is_some() {}
        let output = self.child.wait_with_output().expect("our own child");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

fn chunk(seed: u8) -> Chunk {
    Chunk::from_plain(
        DigestAlgorithm::default(),
        Bytes::from(vec![seed; 20_000 + usize::from(seed)]),
    )
}

/// A store with three chunks, and the index of a blob made of them and a repeat.
fn folder() -> (tempfile::TempDir, Vec<Chunk>, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let chunks: Vec<Chunk> = (1..4).map(chunk).collect();
    let store = folder.path().join("store");
    for chunk in &chunks {
        let name = chunk.id().to_string();
        fs::create_dir_all(store.join(&name[..4])).expect("a folder");
        let stored = chunk.encode(ChunkForm::Compressed, Level::DEFAULT);
        fs::write(store.join(&name[..4]).join(format!("{name}.cacnk")), stored.bytes()).expect("written");
    }
    let mut index = Vec::new();
    let sizes = ChunkSizes::new(16 << 10, 64 << 10, 256 << 10).expect("sizes");
    let mut encoder = IndexEncoder::start(FeatureFlags::blob(DigestAlgorithm::default()), sizes, &mut index);
    for chunk in chunks.iter().chain(&chunks[..1]) {
        encoder.push(chunk.id(), chunk.plain().len(), &mut index);
    }
    encoder.finish(&mut index);
    fs::write(folder.path().join("x.caibx"), &index).expect("written");
    (folder, chunks, index)
}

/// What casync wants when it makes to a far end.
const PUSH: u64 = HelloFlags::PUSH_CHUNKS | HelloFlags::PUSH_INDEX | HelloFlags::PUSH_INDEX_CHUNKS;

fn hello(flags: u64) -> Frame {
    Frame::Hello(HelloFlags(flags))
}

fn request(ids: Vec<ChunkId>) -> Frame {
    Frame::Request {
        high_priority: false,
        ids,
    }
}

/// casync gives an id once in a session and desync only the first of a request (casync issue 162).
#[test]
fn every_id_of_a_request_is_answered_in_order_and_again() {
    let (folder, chunks, index) = folder();
    let mut end = End::start(&["pull", "-", "-", "x.caibx", "store"], folder.path());
    end.send(&hello(HelloFlags::PULL_CHUNKS | HelloFlags::PULL_INDEX));
    let offered = HelloFlags::READABLE_STORE | HelloFlags::READABLE_INDEX;
    assert_eq!(end.frame(), Some(hello(offered)));
    let mut pulled = Vec::new();
    loop {
        match end.frame() {
            Some(Frame::Index(bytes)) => pulled.extend_from_slice(&bytes),
            Some(Frame::IndexEof) => break,
            frame => panic!("{frame:?}"),
        }
    }
    assert_eq!(pulled, index);
    let absent = ChunkId::from_bytes([9; 32]);
    let asked = [chunks[1].id(), absent, chunks[0].id(), chunks[1].id(), absent];
    for _ in 0..2 {
        end.send(&request(asked.to_vec()));
        for id in asked {
            match end.frame() {
                Some(Frame::Chunk { id: given, data, .. }) => assert!(given == id && id != absent && !data.is_empty()),
                Some(Frame::Missing(missing)) => assert!(missing == id && id == absent),
                frame => panic!("{frame:?}"),
            }
        }
    }
    assert_eq!(end.end(), (Some(0), String::new()));
}

#[test]
fn what_is_no_session_is_refused_with_a_reason_for_both_sides() {
    let (folder, chunks, _) = folder();
    let check = |send: &dyn Fn(&mut End), words: &str| {
        let mut end = End::start(&["pull", "-", "-", "-", "store"], folder.path());
        send(&mut end);
        drop(end.child.stdin.take());
        let mut last = None;
        while let Some(frame) = end.frame() {
            last = Some(frame);
        }
        let (code, said) = end.end();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(
            matches!(&last, Some(Frame::Abort { reason, .. }) if reason.contains(words)),
            "{last:?}"
        );
    };
    check(
        &|end| end.send(&hello(HelloFlags::PUSH_INDEX)),
        "wants what is not offered",
    );
    check(&|end| end.send(&request(vec![chunks[0].id()])), "no place here");
    check(&|end| end.send_bytes(&[0; 64]), "its size is not 16 bytes to 16 MiB");
    check(
        &|end| end.send_bytes(&u64::MAX.to_le_bytes().repeat(2)),
        "its size is not 16 bytes to 16 MiB",
    );
    check(
        &|end| {
            end.send(&hello(HelloFlags::PULL_CHUNKS));
            let mut bytes = Vec::new();
            request(vec![chunks[0].id()]).push(&mut bytes);
            end.send_bytes(&bytes[..40]);
        },
        "in the middle of a frame",
    );
    check(
        &|end| {
            end.send(&hello(HelloFlags::PULL_CHUNKS));
            end.send(&Frame::IndexEof);
        },
        "no place here",
    );
}

/// desync reads nothing but zstd frames.
#[test]
fn a_plain_store_gives_compressed_chunks() {
    let (folder, chunks, _) = folder();
    let stored = folder.path().join("plain");
    let name = chunks[0].id().to_string();
    fs::create_dir_all(stored.join(&name[..4])).expect("a folder");
    fs::write(stored.join(&name[..4]).join(&name), chunks[0].plain()).expect("written");
    let mut end = End::start(&["pull", "-", "-", "-", "plain"], folder.path());
    end.send(&hello(HelloFlags::PULL_CHUNKS));
    assert_eq!(end.frame(), Some(hello(HelloFlags::READABLE_STORE)));
    end.send(&request(vec![chunks[0].id()]));
    let Some(Frame::Chunk {
        compressed: true, data, ..
    }) = end.frame()
    else {
        panic!("a compressed chunk is expected");
    };
    let plain = cairn_formats::decompress_frame(&data, chunks[0].plain().len()).expect("a frame");
    assert_eq!(plain, *chunks[0].plain());
    assert_eq!(end.end(), (Some(0), String::new()));
}

/// The chunks that are there are not asked for; the index has its name when its chunks are durable; then goodbye.
#[test]
fn a_push_asks_for_what_is_missing_and_keeps_it() {
    let (folder, chunks, index) = folder();
    let gone = chunks[2].id().to_string();
    fs::remove_file(folder.path().join(format!("store/{}/{gone}.cacnk", &gone[..4]))).expect("removed");
    let mut end = End::start(&["push", "-", "-", "new.caibx", "store"], folder.path());
    end.send(&hello(PUSH));
    let offered = HelloFlags::WRITABLE_STORE | HelloFlags::WRITABLE_INDEX;
    assert_eq!(end.frame(), Some(hello(offered)));
    end.send(&Frame::Index(index.clone().into()));
    end.send(&Frame::IndexEof);
    assert_eq!(end.frame(), Some(request(vec![chunks[2].id()])));
    assert!(!folder.path().join("new.caibx").exists());
    end.send(&Frame::Chunk {
        id: chunks[2].id(),
        compressed: false,
        data: chunks[2].plain().clone(),
    });
    assert_eq!(end.frame(), Some(Frame::Goodbye));
    assert_eq!(fs::read(folder.path().join("new.caibx")).expect("an index"), index);
    assert_eq!(end.end(), (Some(0), String::new()));
    let verified = Command::new(env!("CARGO_BIN_EXE_cairn"))
        .current_dir(folder.path())
        .args(["extract", "-s", "store", "new.caibx", "out"])
        .status();
    assert!(verified.expect("cairn is built").success());
}

#[test]
fn a_push_of_wrong_bytes_keeps_nothing() {
    let (folder, chunks, index) = folder();
    let check = |answer: Option<Frame>, words: &str| {
        let mut end = End::start(&["push", "-", "-", "new.caibx", "empty"], folder.path());
        end.send(&hello(PUSH));
        end.frame();
        end.send(&Frame::Index(index.clone().into()));
        end.send(&Frame::IndexEof);
        assert!(matches!(end.frame(), Some(Frame::Request { .. })));
        if let Some(frame) = answer {
            end.send(&frame);
        }
        let (code, said) = end.end();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(!folder.path().join("new.caibx").exists());
        let kept = fs::read_dir(folder.path().join("empty")).expect("a store").count();
        assert_eq!(kept, 0);
    };
    let data = Bytes::from_static(b"not the chunk");
    let id = chunks[0].id();
    check(
        Some(Frame::Chunk {
            id,
            compressed: false,
            data: data.clone(),
        }),
        "a chunk pushed",
    );
    check(
        Some(Frame::Chunk {
            id,
            compressed: true,
            data: data.clone(),
        }),
        "a chunk pushed",
    );
    let stranger = ChunkId::from_bytes([3; 32]);
    check(
        Some(Frame::Chunk {
            id: stranger,
            compressed: false,
            data,
        }),
        "which was not asked for",
    );
    check(Some(Frame::Missing(id)), "of its own index");
    check(None, "left before it sent all chunks");
}

/// A right chunk under a wrong length: the index would tell readers of bytes that are not there.
#[test]
fn a_push_of_an_index_with_false_lengths_keeps_no_index() {
    let (folder, chunks, _) = folder();
    let mut index = Vec::new();
    let sizes = ChunkSizes::new(16 << 10, 64 << 10, 256 << 10).expect("sizes");
    let mut encoder = IndexEncoder::start(FeatureFlags::blob(DigestAlgorithm::default()), sizes, &mut index);
    encoder.push(chunks[0].id(), chunks[0].plain().len() + 1, &mut index);
    encoder.finish(&mut index);
    let mut end = End::start(&["push", "-", "-", "new.caibx", "empty"], folder.path());
    end.send(&hello(PUSH));
    end.frame();
    end.send(&Frame::Index(index.into()));
    end.send(&Frame::IndexEof);
    assert_eq!(end.frame(), Some(request(vec![chunks[0].id()])));
    end.send(&Frame::Chunk {
        id: chunks[0].id(),
        compressed: false,
        data: chunks[0].plain().clone(),
    });
    let (code, said) = end.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("its index says 20002 bytes"), "{said}");
    assert!(!folder.path().join("new.caibx").exists());
}
