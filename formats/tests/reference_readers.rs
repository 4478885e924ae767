//! casync and desync read the frames that are written by hand: raw blocks and runs, at every length where a header changes.

use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use cairn_formats::{
    Chunk, ChunkForm, ChunkSizes, DigestAlgorithm, FeatureFlags, IndexEncoder, Level, compress_frame, raw_frame,
};

const DIGEST: DigestAlgorithm = DigestAlgorithm::Sha512_256;

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program)
        .arg("extract")
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (`make test` installs it)"));
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Goal: a store of hand-written frames is one that both reference tools extract from.
/// Method: a blob of runs, noise and text pieces at border lengths, each piece one chunk, in both ways of writing it.
#[test]
fn casync_and_desync_extract_hand_written_frames() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reference_readers");
    let _ = fs::remove_dir_all(&folder);
    let store = folder.join("frames.castr");
    fs::create_dir_all(&store).unwrap();

    let mut random = fastrand::Rng::with_seed(1);
    let (mut blob, mut index) = (Vec::new(), Vec::new());
    let mut encoder = IndexEncoder::start(FeatureFlags::blob(DIGEST), ChunkSizes::DEFAULT, &mut index);
    let (mut raws, mut runs) = (0, 0);
    for len in [
        1, 2, 3, 255, 256, 257, 65_791, 65_792, 131_071, 131_072, 131_073, 196_608, 262_143, 262_144,
    ] {
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
        let text: Vec<u8> = b"raw blocks of text ".iter().copied().cycle().take(len).collect();
        for (plain, raw) in [
            (vec![0; len], false),
            (vec![b'a'; len], false),
            (noise, false),
            (text, true),
        ] {
            let frame = if raw {
                raw_frame(&plain)
            } else {
                compress_frame(&plain, Level::DEFAULT)
            };
            match frame.len() {
                short if short < 30 && len > 255 => runs += 1,
                long if long > plain.len() => raws += 1,
                _ => {}
            }
            let chunk = Chunk::from_plain(DIGEST, Bytes::from(plain));
            let id = chunk.id().to_string();
            fs::create_dir_all(store.join(&id[..4])).unwrap();
            fs::write(store.join(&id[..4]).join(format!("{id}.cacnk")), &frame).unwrap();
            encoder.push(chunk.id(), len, &mut index);
            blob.extend_from_slice(chunk.plain());
            let kept = cairn_formats::EncodedChunk {
                id: chunk.id(),
                form: ChunkForm::Compressed,
                bytes: frame.clone().into(),
            };
            assert_eq!(kept.verify(DIGEST, len).unwrap().bytes(), &frame);
        }
    }
    assert!(raws >= 28 && runs == 20, "{raws} raw frames, {runs} runs");
    encoder.finish(&mut index);
    let index_path = folder.join("frames.caibx");
    fs::write(&index_path, index).unwrap();

    let by_casync = folder.join("by-casync");
    let store_option = format!("--store={}", store.display());
    run("casync", &[Path::new(&store_option), &index_path, &by_casync]);
    assert!(fs::read(&by_casync).unwrap() == blob, "casync extracts other bytes");
    let by_desync = folder.join("by-desync");
    run("desync", &[Path::new("-s"), &store, &index_path, &by_desync]);
    assert!(fs::read(&by_desync).unwrap() == blob, "desync extracts other bytes");
}
