//! Any text as a chunk's name: refused, or shown again as it was.

#![no_main]

use cairn_formats::ChunkId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<ChunkId>() {
        assert_eq!(id.to_string(), text);
    }
});
