//! Any bytes as an index file: refused, or every promise of [`ChunkIndex`] holds and it encodes to the same bytes.

#![no_main]

use bytes::Bytes;
use cairn_formats::{ChunkIndex, IndexEncoder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(index) = ChunkIndex::parse(Bytes::copy_from_slice(file)) else {
        return;
    };
    let mut again = Vec::new();
    let mut encoder = IndexEncoder::start(index.flags(), index.sizes(), &mut again);
    let mut end = 0;
    for (at, span) in index.spans().enumerate() {
        let len = span.range.end - span.range.start;
        assert_eq!(span.range.start, end, "chunks follow each other");
        assert!(
            len > 0 && len <= index.sizes().max() as u64,
            "chunk {at} is within the bounds"
        );
        end = span.range.end;
        assert_eq!(
            (index.find(span.range.start), index.find(end - 1)),
            (Some(at), Some(at))
        );
        encoder.push(span.id, len as usize, &mut again);
    }
    encoder.finish(&mut again);
    assert_eq!(index.blob_len(), end);
    assert_eq!(index.find(end), None);
    assert_eq!(again, file, "encoding what was read gives the file back");
});
