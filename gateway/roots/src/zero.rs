//! The chunk of nothing but zeros that every sparse file is full of, kept in memory in both forms.
//!
//! It has the largest chunk length at default sizes (256 KiB), because a run of zeros is only ever cut there.

use std::sync::LazyLock;

use bytes::Bytes;
use cairn_formats::{Chunk, ChunkForm, ChunkId, ChunkSizes, DigestAlgorithm, EncodedChunk, Level};

static ZEROS: LazyLock<[[EncodedChunk; 2]; 2]> = LazyLock::new(|| {
    let plain = Bytes::from(vec![0; ChunkSizes::DEFAULT.max()]);
    [DigestAlgorithm::Sha512_256, DigestAlgorithm::Sha256].map(|algorithm| {
        let chunk = Chunk::from_plain(algorithm, plain.clone());
        [ChunkForm::Compressed, ChunkForm::Plain].map(|form| EncodedChunk {
            id: chunk.id(),
            form,
            bytes: chunk.encode(form, Level::DEFAULT).bytes().clone(),
        })
    })
});

/// The zero chunk in this form, if `id` is its name under either digest.
pub(crate) fn zero_chunk(id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
    ZEROS
        .iter()
        .flatten()
        .find(|zero| zero.id == id && zero.form == form)
        .cloned()
}
