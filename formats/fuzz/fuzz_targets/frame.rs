//! Any bytes as a stored chunk: refused, or at most the plain bytes that were allowed, and the same by both ways in.
//!
//! The fuzzer's limit on a single allocation (tools/fuzz) watches for a frame that takes memory by its own say-so.

#![no_main]

use cairn_formats::{ChunkForm, DigestAlgorithm, EncodedChunk, decompress_frame, decompress_frame_into};
use libfuzzer_sys::fuzz_target;

/// The default largest chunk.
const PLAIN_LEN_MAX: usize = 256 * 1024;

fuzz_target!(|frame: &[u8]| {
    let owned = decompress_frame(frame, PLAIN_LEN_MAX);
    let mut slot = vec![0; PLAIN_LEN_MAX];
    let into = decompress_frame_into(frame, &mut slot).map(|len| slot[..len].to_vec());
    assert_eq!(owned, into, "the slot's way in reads the same");
    let Ok(plain) = owned else { return };
    assert!(plain.capacity() <= PLAIN_LEN_MAX, "{} bytes taken", plain.capacity());
    // What a store keeps of it is one frame of sane length.
    let digest = DigestAlgorithm::Sha256;
    let chunk = EncodedChunk {
        id: digest.id(&plain),
        form: ChunkForm::Compressed,
        bytes: frame.to_vec().into(),
    };
    let kept = chunk.verify(digest, PLAIN_LEN_MAX).expect("it was just decoded");
    assert_eq!(kept.plain_len(), plain.len());
    assert!(kept.bytes().len() <= plain.len() + plain.len() / 64 + 100);
    assert_eq!(decompress_frame(kept.bytes(), plain.len()).as_deref(), Ok(&plain[..]));
});
