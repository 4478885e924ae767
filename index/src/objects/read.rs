//! Bytes of objects: those in rows, and ranges of chunks in packs.
//!
//! Every byte is checked before it leaves: chunks as `cairn_store::RangeReads` says, bytes of a row against the name of the chunk
//! that they are. A reader holds the version that it was opened on, while others overwrite or delete it: its list is read as it
//! goes, and stays for as long as the grace of what was deleted.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{ChunkSpan, DigestAlgorithm};
use cairn_store::{ObjectChunks, RangeReads, RangeStream};

use crate::kv::Kv;
use crate::liveness::{
    MANIFEST_PAGE_CHUNKS, MANIFEST_STARTS_EVERY, Manifest, ManifestChunk, manifest_page, manifest_starts,
};
use crate::names::Content;
use crate::{Error, Result, Tenant};

/// Reads bytes of an object, in pieces, in order. Ends behind the first error.
#[derive(Debug)]
pub struct ObjectReader(Source);

#[derive(Debug)]
enum Source {
    Row(Option<Bytes>),
    Chunks(Box<RangeStream>),
}

impl Iterator for ObjectReader {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        match &mut self.0 {
            Source::Row(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()).map(Ok),
            Source::Chunks(stream) => stream.next().map(|piece| piece.map_err(Error::from)),
        }
    }
}

impl ObjectReader {
    /// A reader of chunks that no row names.
    pub(super) fn of_chunks(stream: RangeStream) -> Self {
        Self(Source::Chunks(Box::new(stream)))
    }

    /// Chunks that were read from packs so far; none for what lies in a row, or was kept.
    pub fn chunks_read(&self) -> u64 {
        match &self.0 {
            Source::Row(_) => 0,
            Source::Chunks(stream) => stream.chunks_read(),
        }
    }
}

/// A reader of a range of content; what lies behind its end is left out.
///
/// Errors: those of the index; [`cairn_store::Error::Corrupt`] for bytes of a row that are not their chunk.
pub(super) fn open(
    kv: &Arc<dyn Kv>,
    reads: &Arc<RangeReads>,
    algorithm: DigestAlgorithm,
    tenant: &Tenant,
    content: &Content,
    range: Range<u64>,
) -> Result<ObjectReader> {
    let list: Arc<dyn ObjectChunks> = match content {
        Content::Inline { id, bytes, .. } => {
            let found = algorithm.id(bytes);
            if !bytes.is_empty() && found != *id {
                return Err(Error::Malformed {
                    what: "object in a row",
                    reason: "its bytes are not those of its name",
                });
            }
            let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let (from, to) = (at(range.start), at(range.end));
            return Ok(ObjectReader(Source::Row(Some(bytes.slice(from..to.max(from))))));
        }
        Content::Chunks { chunks, .. } => Arc::new(RowChunks::new(algorithm, chunks)),
        Content::Manifest(manifest) => Arc::new(ManifestPages {
            starts: manifest_starts(kv.as_ref(), tenant, manifest)?,
            kv: Arc::clone(kv),
            tenant: tenant.clone(),
            manifest: *manifest,
        }),
    };
    Ok(ObjectReader(Source::Chunks(Box::new(reads.read(list, range)))))
}

/// Chunks that a row names.
#[derive(Debug)]
struct RowChunks {
    name: [u8; 32],
    spans: Vec<ChunkSpan>,
}

impl RowChunks {
    fn new(algorithm: DigestAlgorithm, chunks: &[ManifestChunk]) -> Self {
        let mut list = Vec::with_capacity(chunks.len() * 36);
        for chunk in chunks {
            list.extend_from_slice(chunk.id.as_bytes());
            list.extend_from_slice(&chunk.len.to_be_bytes());
        }
        Self {
            name: *algorithm.id(&list).as_bytes(),
            spans: spans(chunks, 0),
        }
    }
}

fn spans(chunks: &[ManifestChunk], mut start: u64) -> Vec<ChunkSpan> {
    let span = |chunk: &ManifestChunk| {
        let end = start + u64::from(chunk.len);
        let range = start..end;
        start = end;
        ChunkSpan { id: chunk.id, range }
    };
    chunks.iter().map(span).collect()
}

impl ObjectChunks for RowChunks {
    fn name(&self) -> [u8; 32] {
        self.name
    }

    fn object_len(&self) -> u64 {
        self.spans.last().map_or(0, |span| span.range.end)
    }

    fn pages(&self) -> usize {
        usize::from(!self.spans.is_empty())
    }

    fn page_start(&self, page: usize) -> u64 {
        assert_eq!(page, 0, "a row has one page");
        0
    }

    fn page(&self, page: usize) -> cairn_store::Result<Vec<ChunkSpan>> {
        assert_eq!(page, 0, "a row has one page");
        Ok(self.spans.clone())
    }
}

/// Pages of starts in a row of a manifest.
const IN_ROW: usize = MANIFEST_PAGE_CHUNKS / MANIFEST_STARTS_EVERY;

/// The rows of a manifest from the one that has a byte on, with where each begins.
pub(super) fn rows_from(
    kv: &dyn Kv,
    tenant: &Tenant,
    manifest: &Manifest,
    offset: u64,
) -> Result<impl Iterator<Item = (u32, u64)> + use<>> {
    let starts = manifest_starts(kv, tenant, manifest)?;
    let rows: Vec<(u32, u64)> = (0..).zip(starts.into_iter().step_by(IN_ROW)).collect();
    let first = rows.partition_point(|(_, start)| *start <= offset).saturating_sub(1);
    Ok(rows.into_iter().skip(first))
}

/// Chunks of a manifest, as many a page here as there are between two starts.
struct ManifestPages {
    kv: Arc<dyn Kv>,
    tenant: Tenant,
    manifest: Manifest,
    starts: Vec<u64>,
}

impl fmt::Debug for ManifestPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManifestPages").field(&self.manifest).finish()
    }
}

impl ObjectChunks for ManifestPages {
    fn name(&self) -> [u8; 32] {
        let mut name = [0; 32];
        name[..16].copy_from_slice(&self.manifest.id);
        name
    }

    fn object_len(&self) -> u64 {
        self.manifest.len
    }

    fn pages(&self) -> usize {
        self.starts.len()
    }

    fn page_start(&self, page: usize) -> u64 {
        self.starts[page]
    }

    fn page(&self, page: usize) -> cairn_store::Result<Vec<ChunkSpan>> {
        let failed = |source: Error| cairn_store::Error::Unavailable {
            store: cairn_store::StoreName::new("the index"),
            action: "read the list of an object's chunks",
            source: source.into(),
        };
        let row = u32::try_from(page / IN_ROW).unwrap_or(u32::MAX);
        let chunks = manifest_page(self.kv.as_ref(), &self.tenant, &self.manifest, row).map_err(failed)?;
        let from = (page % IN_ROW * MANIFEST_STARTS_EVERY).min(chunks.len());
        let to = (from + MANIFEST_STARTS_EVERY).min(chunks.len());
        Ok(spans(&chunks[from..to], self.starts[page]))
    }
}
