//! A store whose answers are looked at: bytes that are not the chunk of their name are an error, not an answer.
//!
//! For callers that pass stored bytes on without decoding them. Who decodes anyway ([`EncodedChunk::open`]) proves the chunk by
//! that and does not need this. Costs one decode and one digest a chunk, the digests of a batch together. Not here: what to do
//! about a damaged chunk; a [`crate::StoreChain`] around this reads it elsewhere.

use std::sync::Arc;

use cairn_formats::{ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, StorableChunk};

use crate::{ChunkStat, ChunkStore, Error, Result, StoreName};

/// A store that answers with proven chunks or [`Error::Corrupt`].
#[derive(Debug)]
pub struct VerifyStore {
    inner: Arc<dyn ChunkStore>,
    digest: DigestAlgorithm,
    plain_len_max: usize,
}

impl VerifyStore {
    /// Looks at what `inner` answers.
    ///
    /// - `digest`: what names the chunks.
    /// - `plain_len_max`: most plain bytes of a chunk; a longer one counts as damaged.
    pub fn new(inner: Arc<dyn ChunkStore>, digest: DigestAlgorithm, plain_len_max: usize) -> Self {
        Self {
            inner,
            digest,
            plain_len_max,
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for VerifyStore {
    fn name(&self) -> &StoreName {
        self.inner.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        self.inner.has_many(ids)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let mut answers = self.inner.get_many(ids);
        let got: Vec<EncodedChunk> = answers.iter().flatten().cloned().collect();
        let opened = EncodedChunk::open_many(&got, self.digest, self.plain_len_max);
        for (answer, opened) in answers.iter_mut().filter(|answer| answer.is_ok()).zip(opened) {
            if let Err(source) = opened {
                *answer = Err(Error::Corrupt {
                    store: self.name().clone(),
                    source,
                });
            }
        }
        answers
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.inner.put_many(chunks)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        self.inner.stat(id, form)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        let chunk = self.inner.get_resident(id, form)?;
        chunk.open(self.digest, self.plain_len_max).is_ok().then_some(chunk)
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        self.inner.set_aside(damaged)
    }
}
