//! Any bytes as a chunk: what we write, we read back.

#![no_main]

use cairn_formats::{Level, compress_frame, decompress_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (i32, Vec<u8>)| {
    let (level, plain) = input;
    // Higher levels only cost the fuzzer time.
    let frame = compress_frame(&plain, Level::new(level % 10));
    assert_eq!(decompress_frame(&frame, plain.len()).expect("our own frame"), plain);
    if !plain.is_empty() {
        decompress_frame(&frame, plain.len() - 1).expect_err("a frame longer than allowed is refused");
    }
});
