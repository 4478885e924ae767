//! Any stream, however sliced: cut within the bounds, at the same places whole and in pieces.

#![no_main]

use cairn_formats::{ChunkSizes, Chunker, Dialect};
use libfuzzer_sys::fuzz_target;

/// Small enough that a short input has many cuts.
const SIZES: (u64, u64, u64) = (48, 160, 640);

fuzz_target!(|input: (bool, Vec<u8>, Vec<u8>)| {
    let (first, stream, slices) = input;
    let dialect = if first { Dialect::Casync } else { Dialect::Desync };
    let sizes = ChunkSizes::new(SIZES.0, SIZES.1, SIZES.2).expect("rising sizes");
    let whole = cuts(Chunker::new(sizes, dialect), [stream.as_slice()].into_iter());

    let mut rest = stream.as_slice();
    let mut pieces = Vec::new();
    for len in slices {
        let (piece, after) = rest.split_at(rest.len().min(len.into()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    assert_eq!(
        whole,
        cuts(Chunker::new(sizes, dialect), pieces.into_iter()),
        "slicing moved a cut"
    );

    let mut start = 0;
    for &end in &whole {
        assert!(
            (sizes.min()..=sizes.max()).contains(&(end - start)),
            "a chunk of {} bytes",
            end - start
        );
        start = end;
    }
    assert!(stream.len() - start < sizes.max(), "the rest should have been cut");
});

/// Ends of the closed chunks.
fn cuts<'a>(mut chunker: Chunker, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<usize> {
    let (mut ends, mut at) = (Vec::new(), 0);
    for mut piece in pieces {
        while let Some(len) = chunker.cut(piece) {
            at += len;
            ends.push(at);
            piece = &piece[len..];
        }
        at += piece.len();
    }
    ends
}
