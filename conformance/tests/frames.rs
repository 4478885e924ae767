//! The frames that we write by hand, runs of one byte and raw blocks, are what they should be and are read by casync, desync and zstd.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cairn_conformance::support::{args, cairn, casync, chunk_files, desync, ok};

/// How a block holds its bytes (RFC 8878, 3.1.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Raw,
    Run,
    Compressed,
}

/// The blocks of a frame with content size and without checksum, which is what we write.
fn blocks(frame: &[u8]) -> Vec<Block> {
    assert_eq!(frame[..4], [0x28, 0xb5, 0x2f, 0xfd], "a zstd frame");
    assert_eq!(frame[4] & 0x3f, 0x20, "single segment, no checksum, no dictionary");
    let mut at = 5 + [1, 2, 4, 8][usize::from(frame[4] >> 6)];
    let mut kinds = Vec::new();
    loop {
        let header = u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], 0]);
        let len = (header >> 3) as usize;
        let (kind, stored) = match header >> 1 & 3 {
            0 => (Block::Raw, len),
            1 => (Block::Run, 1),
            2 => (Block::Compressed, len),
            _ => panic!("a block of the reserved type"),
        };
        kinds.push(kind);
        at += 3 + stored;
        if header & 1 != 0 {
            assert_eq!(at, frame.len(), "nothing behind the last block");
            return kinds;
        }
    }
}

/// `name`, what it holds, and the kind of block that each of its chunks ends with.
fn blobs() -> Vec<(&'static str, Vec<u8>, Block)> {
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(3_000_000).collect();
    let text: Vec<u8> = (0..200_000)
        .flat_map(|n: u32| format!("line {n}\n").into_bytes())
        .collect();
    vec![
        // 262144 bytes a chunk, so two blocks, and a rest.
        ("zeros", vec![0; 1_000_000], Block::Run),
        ("letters", vec![b'x'; 600_001], Block::Run),
        ("one", vec![7], Block::Raw),
        ("few", noise[..20_000].to_vec(), Block::Raw),
        ("noise", noise, Block::Raw),
        ("text", text, Block::Compressed),
    ]
}

#[test]
fn every_kind_of_frame_is_read_by_casync_desync_and_zstd() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    for (name, bytes, kind) in blobs() {
        let (store, index) = (path(&format!("{name}.castr")), path(&format!("{name}.caibx")));
        fs::write(path(name), &bytes).expect("a file");
        fs::create_dir(&store).expect("a folder");
        ok(cairn().args(args!["make", "-s", store, index, path(name)]));
        for (chunk, frame) in chunk_files(&store) {
            let blocks = blocks(&frame);
            assert_eq!(blocks.last(), Some(&kind), "{name}: {chunk}");
            assert!(kind != Block::Raw || blocks.iter().all(|&block| block == Block::Raw));
            assert!(kind != Block::Run || frame.len() < 32, "{name}: {chunk}");
            zstd_reads(&frame);
        }
        let casync_store = format!("--store={}", store.display());
        check(
            &bytes,
            casync().args(args!["extract", casync_store, index, path("out")]),
            &path("out"),
        );
        check(
            &bytes,
            desync().args(args!["extract", "-s", store, index, path("out")]),
            &path("out"),
        );
        ok(desync().args(args!["verify", "-s", store]));
    }
}

/// Runs an extraction and compares.
#[track_caller]
fn check(bytes: &[u8], extract: &mut Command, out: &Path) {
    ok(extract);
    assert!(fs::read(out).expect("an output") == bytes, "{extract:?}");
    fs::remove_file(out).expect("the output");
}

fn zstd_reads(frame: &[u8]) {
    let mut zstd = Command::new("zstd")
        .args(["-t", "-q"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("zstd is installed by `tools/bootstrap test`");
    let mut stdin = zstd.stdin.take().expect("it is piped");
    stdin.write_all(frame).expect("zstd reads");
    drop(stdin);
    assert!(zstd.wait().expect("our own child").success());
}
