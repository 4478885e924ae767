//! An object as the chunk index that casync makes of it, and an index as an object.
//!
//! The cut of an object is casync's, so its index is, byte for byte. An index that is put becomes an object by its chunks' names;
//! what it says of their lengths is compared with what they have, so that an index which lies makes no object. Not here: names of
//! files (`.caibx`, `.caidx`), archives.

use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{ChunkId, ChunkIndex, DigestAlgorithm, FeatureFlags, IndexEncoder};
use cairn_store::{ChunkKey, ChunkStore as _};

use super::ingest::IngestCounts;
use super::put::{Body, Open};
use super::{LOOK_UP_CHUNKS, Objects};
use crate::kv::Kv;
use crate::liveness::{ManifestChunk, manifest_page};
use crate::names::{Bucket, ChunkerKind, Chunking, Content, NewContent, ObjectRecord};
use crate::{Error, Result, Tenant};

/// Bytes of an index of no chunks, and of each chunk.
const EMPTY_LEN: u64 = 104;
const CHUNK_LEN: u64 = 40;

/// The index file of an object, piece by piece: a page of chunks in each.
#[derive(Debug)]
pub struct IndexPieces {
    kv: Arc<dyn Kv>,
    tenant: Tenant,
    content: Content,
    /// Goes with the last piece.
    encoder: Option<IndexEncoder>,
    /// What is still to be handed on of the piece before.
    piece: Vec<u8>,
    page: u32,
    len: u64,
}

impl IndexPieces {
    /// Bytes of the whole file.
    pub fn byte_len(&self) -> u64 {
        self.len
    }

    fn next_page(&mut self) -> Result<Option<Vec<ManifestChunk>>> {
        let page = self.page;
        self.page += 1;
        Ok(match &self.content {
            Content::Manifest(manifest) if page < manifest.pages() => {
                Some(manifest_page(self.kv.as_ref(), &self.tenant, manifest, page)?)
            }
            Content::Inline { id, bytes, .. } if page == 0 && !bytes.is_empty() => Some(vec![ManifestChunk {
                id: *id,
                // A row holds some KiB.
                len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            }]),
            Content::Chunks { chunks, .. } if page == 0 => Some(chunks.clone()),
            _ => None,
        })
    }

    fn piece(&mut self) -> Result<Option<Bytes>> {
        let Some(mut encoder) = self.encoder.take() else {
            return Ok(None);
        };
        let mut piece = std::mem::take(&mut self.piece);
        match self.next_page()? {
            None => encoder.finish(&mut piece),
            Some(chunks) => {
                for chunk in chunks {
                    if chunk.len == 0 {
                        return Err(Error::Malformed {
                            what: "list of an object's chunks",
                            reason: "a chunk in it is empty",
                        });
                    }
                    encoder.push(chunk.id, chunk.len as usize, &mut piece);
                }
                self.encoder = Some(encoder);
            }
        }
        Ok(Some(Bytes::from(piece)))
    }
}

impl Iterator for IndexPieces {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        self.piece().transpose()
    }
}

impl Objects {
    /// The index file of an object.
    ///
    /// - `flags`: `None`: those that whoever cut it gives the index of a blob.
    pub fn index_pieces(&self, tenant: &Tenant, record: &ObjectRecord, flags: Option<FeatureFlags>) -> IndexPieces {
        let flags = flags.unwrap_or_else(|| blob_flags(record.chunking.kind, self.options().digest));
        let mut piece = Vec::new();
        let encoder = IndexEncoder::start(flags, record.chunking.sizes, &mut piece);
        let chunks = match &record.content {
            Content::Inline { bytes, .. } => u64::from(!bytes.is_empty()),
            Content::Chunks { chunks, .. } => chunks.len() as u64,
            Content::Manifest(manifest) => manifest.chunks,
        };
        IndexPieces {
            kv: Arc::clone(self.names().kv()),
            tenant: tenant.clone(),
            content: record.content.clone(),
            encoder: Some(encoder),
            piece,
            page: 0,
            len: EMPTY_LEN + CHUNK_LEN * chunks,
        }
    }

    /// [`Objects::index_pieces`] in one: 40 bytes a chunk.
    pub fn index_file(&self, tenant: &Tenant, record: &ObjectRecord, flags: Option<FeatureFlags>) -> Result<Bytes> {
        let mut file = Vec::new();
        for piece in self.index_pieces(tenant, record, flags) {
            file.extend_from_slice(&piece?);
        }
        Ok(Bytes::from(file))
    }

    /// A body of the chunks that an index names, all of which have to be in the bucket's domain.
    ///
    /// - `kind`: whose cuts they are, as far as anybody knows.
    /// - Errors: [`Error::ChunksMissing`] with those that are not there; [`Error::ChunkLength`] for one that is longer or shorter
    ///   than the index says; [`Error::Malformed`] for an index of another digest.
    pub fn body_of_index(self: &Arc<Self>, bucket: &Bucket, index: &ChunkIndex, kind: ChunkerKind) -> Result<Body> {
        if index.digest_algorithm() != self.options().digest {
            return Err(Error::Malformed {
                what: "chunk index",
                reason: "its chunks are named by another digest than those of the store",
            });
        }
        let open = Open::new(self, bucket)?;
        let chunking = Chunking {
            kind,
            sizes: index.sizes(),
        };
        let chunk = |span: cairn_formats::ChunkSpan| ManifestChunk {
            id: span.id,
            // Chunks are at most CHUNK_LEN_MAX bytes.
            len: u32::try_from(span.range.end - span.range.start).unwrap_or(u32::MAX),
        };
        let chunks: Vec<ManifestChunk> = index.spans().map(chunk).collect();
        self.find_all(&open, &chunks)?;
        self.check_lens(bucket, &chunks)?;
        self.body_of_found(open, chunks, chunking)
    }

    /// A body of chunks by their names, all of which have to be in the bucket's domain.
    ///
    /// - `lens`: plain bytes of each, in order; `None`: as many as it has.
    /// - Errors: [`Error::ChunksMissing`] with those that are not there; [`Error::ChunkLength`] for one of another length;
    ///   [`Error::Malformed`] for one that is empty, or longer than the bucket's chunks.
    pub fn body_of_chunks(self: &Arc<Self>, bucket: &Bucket, ids: &[ChunkId], lens: Option<&[u32]>) -> Result<Body> {
        let wrong = |reason| Error::Malformed {
            what: "list of an object's chunks",
            reason,
        };
        if lens.is_some_and(|lens| lens.len() != ids.len()) {
            return Err(wrong("it has not as many lengths as chunks"));
        }
        let open = Open::new(self, bucket)?;
        let settings = &bucket.record.settings;
        let chunking = Chunking {
            kind: settings.dialect.into(),
            sizes: settings.chunk_sizes,
        };
        let mut chunks: Vec<ManifestChunk> = ids.iter().map(|&id| ManifestChunk { id, len: 0 }).collect();
        self.find_all(&open, &chunks)?;
        match lens {
            Some(lens) => {
                chunks.iter_mut().zip(lens).for_each(|(chunk, &len)| chunk.len = len);
                self.check_lens(bucket, &chunks)?;
            }
            None => self.take_lens(bucket, &mut chunks)?,
        }
        if chunks.iter().any(|chunk| chunk.len == 0) {
            return Err(wrong("a chunk in it is empty"));
        }
        if chunks.iter().any(|chunk| chunk.len as usize > chunking.sizes.max()) {
            return Err(wrong(
                "a chunk in it is longer than the largest chunk size of the bucket",
            ));
        }
        self.body_of_found(open, chunks, chunking)
    }

    /// - `chunks`: have been found, and have the lengths that they say.
    fn body_of_found(&self, open: Open, chunks: Vec<ManifestChunk>, chunking: Chunking) -> Result<Body> {
        if chunks.is_empty() {
            let domain = open.bucket.record.settings.domain;
            let content = NewContent::inline(domain, self.options().digest.id(b""), Bytes::new())?;
            return Ok(Body::of(open, content, chunks, chunking));
        }
        let content = open.content(&chunks)?;
        Ok(Body::of(open, content, chunks, chunking))
    }

    /// Looks all chunks up; those that objects hold within their rows are put. Errors: [`Error::ChunksMissing`].
    fn find_all(&self, open: &Open, chunks: &[ManifestChunk]) -> Result<()> {
        let ids = self.missing(open.bucket.record.settings.domain, chunks)?;
        let ids = self.put_inlined(open, ids)?;
        match ids.is_empty() {
            true => Ok(()),
            false => Err(Error::ChunksMissing { ids }),
        }
    }

    /// Plain bytes of chunks; `None`: it has gone since it was found.
    fn plain_lens(&self, bucket: &Bucket, ids: &[ChunkId]) -> Result<Vec<Option<u32>>> {
        let store = self.store(bucket.record.settings.domain);
        let lens = store.plain_lens(ids)?;
        if !lens.contains(&None) {
            return Ok(lens);
        }
        // What lay in rows was put a moment ago, and waits to be written.
        store.flush()?;
        Ok(store.plain_lens(ids)?)
    }

    /// Gives each chunk the length that it has. Errors: [`Error::ChunksMissing`] for chunks that have gone since they were found.
    fn take_lens(&self, bucket: &Bucket, chunks: &mut [ManifestChunk]) -> Result<()> {
        let mut gone = Vec::new();
        for chunks in chunks.chunks_mut(LOOK_UP_CHUNKS) {
            let ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id).collect();
            let lens = self.plain_lens(bucket, &ids)?;
            for (chunk, len) in chunks.iter_mut().zip(lens) {
                match len {
                    Some(len) => chunk.len = len,
                    None => gone.push(chunk.id),
                }
            }
        }
        none_gone(gone)
    }

    /// Errors: [`Error::ChunkLength`]; [`Error::ChunksMissing`] for chunks that have gone since they were found.
    fn check_lens(&self, bucket: &Bucket, chunks: &[ManifestChunk]) -> Result<()> {
        let mut claims: Vec<(ChunkId, u32)> = chunks.iter().map(|chunk| (chunk.id, chunk.len)).collect();
        claims.sort_unstable();
        claims.dedup();
        let mut gone = Vec::new();
        for claims in claims.chunks(LOOK_UP_CHUNKS) {
            let ids: Vec<ChunkId> = claims.iter().map(|(id, _)| *id).collect();
            let lens = self.plain_lens(bucket, &ids)?;
            for (&(id, claimed), len) in claims.iter().zip(lens) {
                match len {
                    Some(len) if len == claimed => {}
                    Some(len) => return Err(Error::ChunkLength { id, claimed, len }),
                    None => gone.push(id),
                }
            }
        }
        none_gone(gone)
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

/// Errors: [`Error::ChunksMissing`].
fn none_gone(mut ids: Vec<ChunkId>) -> Result<()> {
    ids.sort_unstable();
    ids.dedup();
    match ids.is_empty() {
        true => Ok(()),
        false => Err(Error::ChunksMissing { ids }),
    }
}

/// What casync, or desync, writes in the index of a blob that it has cut.
fn blob_flags(kind: ChunkerKind, digest: DigestAlgorithm) -> FeatureFlags {
    match kind {
        ChunkerKind::Desync => FeatureFlags(FeatureFlags::EXCLUDE_NODUMP).with_digest(digest),
        _ => FeatureFlags::blob(digest),
    }
}
