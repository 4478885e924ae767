//! An object as the chunk index that casync makes of it, and an index as an object.
//!
//! The cut of an object is casync's, so its index is, byte for byte. An index that is put becomes an object by its chunks' names
//! alone: what it says of their lengths is found out by who reads. Not here: names of files (`.caibx`, `.caidx`), archives.

use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{ChunkId, ChunkIndex, FeatureFlags, IndexEncoder};
use cairn_store::ChunkKey;

use super::Objects;
use super::ingest::IngestCounts;
use super::put::{Body, Open};
use crate::liveness::ManifestChunk;
use crate::names::{Bucket, ChunkerKind, Chunking, ObjectRecord};
use crate::{Error, Result, Tenant};

impl Objects {
    /// The index file of an object, handed over in pieces.
    ///
    /// - `flags`: `None`: those that casync gives the index of a blob.
    /// - Errors: those of the index, and of `take`.
    pub fn write_index(
        &self,
        tenant: &Tenant,
        record: &ObjectRecord,
        flags: Option<FeatureFlags>,
        mut take: impl FnMut(Bytes) -> Result<()>,
    ) -> Result<()> {
        let flags = flags.unwrap_or_else(|| FeatureFlags::blob(self.options().digest));
        let mut piece = Vec::new();
        let mut encoder = IndexEncoder::start(flags, record.chunking.sizes, &mut piece);
        self.for_each_chunk(tenant, &record.content, |page| {
            for chunk in page {
                if chunk.len == 0 {
                    return Err(Error::Malformed {
                        what: "list of an object's chunks",
                        reason: "a chunk in it is empty",
                    });
                }
                encoder.push(chunk.id, chunk.len as usize, &mut piece);
            }
            take(Bytes::from(std::mem::take(&mut piece)))
        })?;
        encoder.finish(&mut piece);
        take(Bytes::from(piece))
    }

    /// [`Objects::write_index`] in one piece: 40 bytes a chunk.
    pub fn index_file(&self, tenant: &Tenant, record: &ObjectRecord, flags: Option<FeatureFlags>) -> Result<Bytes> {
        let mut file = Vec::new();
        self.write_index(tenant, record, flags, |piece| {
            file.extend_from_slice(&piece);
            Ok(())
        })?;
        Ok(Bytes::from(file))
    }

    /// A body of the chunks that an index names, all of which have to be in the bucket's domain.
    ///
    /// - `kind`: whose cuts they are, as far as anybody knows.
    /// - Errors: [`Error::ChunksMissing`] with those that are not there; [`Error::Malformed`] for an index of another digest.
    pub fn body_of_index(self: &Arc<Self>, bucket: &Bucket, index: &ChunkIndex, kind: ChunkerKind) -> Result<Body> {
        if index.digest_algorithm() != self.options().digest {
            return Err(Error::Malformed {
                what: "chunk index",
                reason: "its chunks are named by another digest than those of the store",
            });
        }
        let open = Open::new(self, bucket)?;
        let chunk = |span: cairn_formats::ChunkSpan| ManifestChunk {
            id: span.id,
            // Chunks are at most CHUNK_LEN_MAX bytes.
            len: u32::try_from(span.range.end - span.range.start).unwrap_or(u32::MAX),
        };
        let chunks: Vec<ManifestChunk> = index.spans().map(chunk).collect();
        let ids = self.missing(bucket.record.settings.domain, &chunks)?;
        let ids = self.put_inlined(&open, ids)?;
        if !ids.is_empty() {
            return Err(Error::ChunksMissing { ids });
        }
        let content = open.content(&chunks)?;
        let chunking = Chunking {
            kind,
            sizes: index.sizes(),
        };
        Ok(Body::of(open, content, chunks, chunking))
    }

    /// Puts those of these chunks that objects hold within their rows: the objects may go at any time. Returns the others.
    fn put_inlined(&self, open: &Open, ids: Vec<ChunkId>) -> Result<Vec<ChunkId>> {
        let (bucket, sink) = (&open.bucket, open.sink());
        let mut rest = Vec::new();
        for id in ids {
            let domain = bucket.record.settings.domain;
            match self.names().inline_chunk(bucket.tenant(), &ChunkKey { domain, id })? {
                Some(bytes) if self.options().digest.id(&bytes) == id => {
                    sink.put(vec![bytes], &mut IngestCounts::default())?;
                }
                _ => rest.push(id),
            }
        }
        Ok(rest)
    }
}
