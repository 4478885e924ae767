//! All chunks of a dedup domain as a chunk store: those in packs, and those that objects hold within their rows.
//!
//! What is put goes to the packs. Invariant: chunks of other domains are not there, whatever is asked. A chunk in a row is told to
//! be there as long as the object is; who names it in an index has it put into the packs then (`index_file.rs`).

use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{ChunkForm, ChunkId, DomainId, EncodedChunk, StorableChunk};
use cairn_store::{ChunkKey, ChunkStat, ChunkStore, PackStore, StoreName};

use super::Objects;
use crate::Tenant;
use crate::names::{Bucket, Names};

/// A domain's chunks, for chunk roots.
#[derive(Debug)]
pub(super) struct DomainChunks {
    packs: PackStore,
    names: Names,
    tenant: Tenant,
    domain: DomainId,
}

impl Objects {
    /// The chunks of a bucket's dedup domain: its own and those of other buckets of the domain, and of no other domain.
    pub fn chunk_store(&self, bucket: &Bucket) -> Arc<dyn ChunkStore> {
        let domain = bucket.record.settings.domain;
        Arc::new(DomainChunks {
            packs: self.store(domain),
            names: self.names().clone(),
            tenant: bucket.tenant().clone(),
            domain,
        })
    }
}

impl DomainChunks {
    /// The bytes of a chunk in a row.
    fn inlined(&self, id: ChunkId) -> cairn_store::Result<Option<Bytes>> {
        let domain = self.domain;
        let found = self.names.inline_chunk(&self.tenant, &ChunkKey { domain, id });
        found.map_err(|source| cairn_store::Error::Unavailable {
            store: self.name().clone(),
            action: "look for a chunk in the rows of objects",
            source: source.into(),
        })
    }
}

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for DomainChunks {
    fn name(&self) -> &StoreName {
        self.packs.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> cairn_store::Result<Vec<bool>> {
        let mut there = self.packs.has_many(ids)?;
        for (there, &id) in there.iter_mut().zip(ids).filter(|(there, _)| !**there) {
            *there = self.inlined(id)?.is_some();
        }
        Ok(there)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<cairn_store::Result<EncodedChunk>> {
        let mut answers = self.packs.get_many(ids);
        for (answer, &id) in answers.iter_mut().zip(ids) {
            if !matches!(answer, Err(cairn_store::Error::Missing { .. })) {
                continue;
            }
            match self.inlined(id) {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    let form = ChunkForm::Plain;
                    *answer = Ok(EncodedChunk { id, form, bytes });
                }
                Err(error) => *answer = Err(error),
            }
        }
        answers
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> cairn_store::Result<()> {
        self.packs.put_many(chunks)
    }

    fn flush(&self) -> cairn_store::Result<()> {
        self.packs.flush()
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> cairn_store::Result<Option<ChunkStat>> {
        if let Some(stat) = self.packs.stat(id, form)? {
            return Ok(Some(stat));
        }
        let stored = self.inlined(id)?.map(|bytes| (ChunkForm::Plain, bytes.len() as u64));
        Ok(stored.map(|stored| ChunkStat { stored: Some(stored) }))
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        self.packs.get_resident(id, form)
    }

    fn is_far(&self) -> bool {
        false
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> cairn_store::Result<bool> {
        self.packs.set_aside(damaged)
    }
}
