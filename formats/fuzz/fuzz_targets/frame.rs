//! Any bytes as a stored chunk: refused, or at most the plain bytes that were allowed, and the same by both ways in.
//!
//! The fuzzer's limit on a single allocation (tools/fuzz) watches for a frame that takes memory by its own say-so.

#![no_main]

use cairn_formats::{decompress_frame, decompress_frame_into};
use libfuzzer_sys::fuzz_target;

/// The default largest chunk.
const PLAIN_LEN_MAX: usize = 256 * 1024;

fuzz_target!(|frame: &[u8]| {
    let mut slot = vec![0; PLAIN_LEN_MAX];
    match (
        decompress_frame(frame, PLAIN_LEN_MAX),
        decompress_frame_into(frame, &mut slot),
    ) {
        (Ok(plain), Ok(len)) => assert_eq!(plain, slot[..len], "both ways in read the same"),
        (Err(_), Err(_)) => {}
        (owned, into) => panic!("one way in refuses what the other reads: {owned:?} and {into:?}"),
    }
});
