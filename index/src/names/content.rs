//! What a version or a part is made of: bytes in its row, a few chunks named in its row, or a manifest's pages.

use bytes::Bytes;
use cairn_formats::{ChunkId, ChunkSizes, Dialect, DomainId};

use super::fields::{Field, Fields, malformed, read};
use crate::kv::{Check, Kv, Version};
use crate::liveness::{Fence, Manifest, ManifestChunk, ManifestId, NewManifest, Rows, pages_in_commit};
use crate::{Error, KeyReader, Result, Tenant};

/// Bytes that a row holds itself, at most.
pub const INLINE_LEN_MAX: usize = 4 << 10;

/// Chunks that a row names itself, at most.
pub const ROW_CHUNKS_MAX: usize = 32;

/// What a version or a part is made of, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes, 0 to [`INLINE_LEN_MAX`], which are the chunk of this name in this domain (there is none of no bytes).
    Inline {
        /// The domain.
        domain: DomainId,
        /// The chunk's name, for chunk roots and indexes.
        id: ChunkId,
        /// The bytes.
        bytes: Bytes,
    },
    /// Chunks, up to [`ROW_CHUNKS_MAX`].
    Chunks {
        /// The domain.
        domain: DomainId,
        /// The chunks.
        chunks: Vec<ManifestChunk>,
    },
    /// Chunks in pages, as [`crate::manifest_page`] reads them. The manifest has no name, and [`Manifest::version`] says nothing.
    Manifest(Manifest),
}

impl Content {
    /// Bytes of it.
    pub fn byte_len(&self) -> u64 {
        match self {
            Self::Inline { bytes, .. } => bytes.len() as u64,
            Self::Chunks { chunks, .. } => chunks.iter().map(|chunk| u64::from(chunk.len)).sum(),
            Self::Manifest(manifest) => manifest.len,
        }
    }

    /// The domain of its chunks.
    pub fn domain(&self) -> DomainId {
        match self {
            Self::Inline { domain, .. } | Self::Chunks { domain, .. } => *domain,
            Self::Manifest(manifest) => manifest.domain,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        fields.number(DOMAIN, u64::from(self.domain().0));
        match self {
            Self::Inline { id, bytes, .. } => {
                fields.bytes(INLINE_ID, id.as_bytes()).bytes(INLINE, bytes);
            }
            Self::Chunks { chunks, .. } => {
                let mut list = Vec::with_capacity(chunks.len() * 36);
                for chunk in chunks {
                    list.extend_from_slice(chunk.id.as_bytes());
                    list.extend_from_slice(&chunk.len.to_be_bytes());
                }
                fields.bytes(CHUNKS, &list);
            }
            Self::Manifest(manifest) => {
                fields.bytes(MANIFEST, &manifest.id);
                fields.number(MANIFEST_CHUNKS, manifest.chunks);
                fields.number(MANIFEST_LEN, manifest.len);
            }
        }
        fields.into_value()
    }

    pub(super) fn decode(field: &Field<'_>) -> Result<Self> {
        const WHAT: &str = "content of a row";
        let mut domain = DomainId::default();
        let mut inline_id = None;
        let mut manifest = Manifest {
            id: [0; 16],
            domain,
            chunks: 0,
            len: 0,
            version: Version::default(),
        };
        let mut content = None;
        for field in read(field.bytes, WHAT)? {
            let field = field?;
            match field.tag {
                DOMAIN => domain = DomainId(field.small()?),
                INLINE_ID => inline_id = Some(ChunkId::from_bytes(field.fixed()?)),
                INLINE => {
                    content = Some(Self::Inline {
                        domain,
                        id: inline_id.ok_or(malformed(WHAT, "its bytes have no name"))?,
                        bytes: Bytes::copy_from_slice(field.bytes),
                    });
                }
                CHUNKS => {
                    let chunks = decode_chunks(field.bytes)?;
                    content = Some(Self::Chunks { domain, chunks });
                }
                MANIFEST => {
                    (manifest.id, manifest.domain) = (field.fixed()?, domain);
                    content = Some(Self::Manifest(manifest));
                }
                MANIFEST_CHUNKS => manifest.chunks = field.number()?,
                MANIFEST_LEN => manifest.len = field.number()?,
                _ => return Err(field.unknown()),
            }
        }
        match content.ok_or(malformed(WHAT, "there is none"))? {
            Self::Manifest(_) => Ok(Self::Manifest(manifest)),
            content => Ok(content),
        }
    }
}

const DOMAIN: u8 = 1;
const INLINE_ID: u8 = 2;
const INLINE: u8 = 3;
const CHUNKS: u8 = 4;
const MANIFEST: u8 = 5;
const MANIFEST_CHUNKS: u8 = 6;
const MANIFEST_LEN: u8 = 7;

fn decode_chunks(bytes: &[u8]) -> Result<Vec<ManifestChunk>> {
    let mut reader = KeyReader::new(bytes);
    let mut chunks = Vec::with_capacity(bytes.len() / 36);
    for _ in 0..bytes.len() / 36 {
        chunks.push(ManifestChunk {
            id: ChunkId::from_bytes(reader.fixed()?),
            len: reader.u32()?,
        });
    }
    reader.end()?;
    Ok(chunks)
}

/// Content that may be committed, with what its commit depends on: only these functions make it, so that none is forgotten.
#[derive(Clone, Debug)]
pub struct NewContent {
    pub(super) content: Content,
    /// Taken before all chunks were found to be there.
    pub(super) fence: Option<Fence>,
    /// The row that keeps a manifest's pages until then.
    pub(super) pending: Option<Check>,
    /// Rows that go into the same commit: pages of a manifest.
    pub(super) rows: Rows,
}

impl NewContent {
    /// Bytes that go into the row.
    ///
    /// - `id`: their name as a chunk.
    /// - Errors: [`Error::TooLarge`].
    pub fn inline(domain: DomainId, id: ChunkId, bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        within("inlined object", bytes.len(), INLINE_LEN_MAX)?;
        Ok(Self {
            content: Content::Inline { domain, id, bytes },
            fence: None,
            pending: None,
            rows: Vec::new(),
        })
    }

    /// Chunks that are all there.
    ///
    /// - `fence`: taken before they were looked up or sent, as `liveness/` says.
    /// - Errors: [`Error::TooLarge`].
    pub fn chunks(domain: DomainId, chunks: Vec<ManifestChunk>, fence: Fence) -> Result<Self> {
        within("list of chunks", chunks.len(), ROW_CHUNKS_MAX)?;
        Ok(Self {
            content: Content::Chunks { domain, chunks },
            fence: Some(fence),
            pending: None,
            rows: Vec::new(),
        })
    }

    /// The pages of a manifest that has been finished, whose chunks are all there.
    ///
    /// - `fence`: as in [`NewContent::chunks`].
    pub fn manifest<K: Kv + ?Sized>(manifest: &NewManifest<'_, K>, fence: Fence) -> Self {
        let (manifest, pending) = manifest.finished();
        Self {
            content: Content::Manifest(manifest),
            fence: Some(fence),
            pending: Some(pending),
            rows: Vec::new(),
        }
    }

    /// The chunks of a manifest, which are all there; its pages are written by the commit itself.
    ///
    /// - `chunks`: at most [`crate::COMMIT_CHUNKS_MAX`]. `id`: at random.
    /// - `fence`: as in [`NewContent::chunks`].
    /// - Errors: [`Error::TooLarge`].
    pub fn pages(
        tenant: &Tenant,
        domain: DomainId,
        id: ManifestId,
        chunks: &[ManifestChunk],
        fence: Fence,
    ) -> Result<Self> {
        let (manifest, rows) = pages_in_commit(tenant, id, domain, chunks)?;
        Ok(Self {
            content: Content::Manifest(manifest),
            fence: Some(fence),
            pending: None,
            rows,
        })
    }

    /// What it is.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The same, after all of its chunks were looked up again behind a later fence.
    pub fn with_fence(mut self, fence: Fence) -> Self {
        self.fence = self.fence.map(|_| fence);
        self
    }
}

pub(super) fn within(what: &'static str, len: usize, max: usize) -> Result<()> {
    if len > max {
        return Err(Error::TooLarge { what, len, max });
    }
    Ok(())
}

/// How content was cut. The numbers are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum ChunkerKind {
    /// Not at all.
    #[default]
    Whole = 0,
    /// casync 2's rule.
    Casync = 1,
    /// That of desync up to v1.1.0.
    Desync = 2,
    /// FastCDC.
    FastCdc = 3,
    /// By the parts that a document has.
    Component = 4,
}

impl From<Dialect> for ChunkerKind {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Casync => Self::Casync,
            Dialect::Desync => Self::Desync,
        }
    }
}

/// How content was cut, and by which sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunking {
    /// The rule.
    pub kind: ChunkerKind,
    /// The sizes that it was told.
    pub sizes: ChunkSizes,
}

impl Default for Chunking {
    fn default() -> Self {
        Self {
            kind: ChunkerKind::default(),
            sizes: ChunkSizes::DEFAULT,
        }
    }
}

impl Chunking {
    pub(super) fn encode(&self) -> [u8; 13] {
        let mut bytes = [self.kind as u8; 13];
        bytes[1..].copy_from_slice(&encode_sizes(&self.sizes));
        bytes
    }

    pub(super) fn decode(field: &Field<'_>) -> Result<Self> {
        let bytes: [u8; 13] = field.fixed()?;
        let kinds = [
            ChunkerKind::Whole,
            ChunkerKind::Casync,
            ChunkerKind::Desync,
            ChunkerKind::FastCdc,
            ChunkerKind::Component,
        ];
        let kind = kinds.into_iter().find(|kind| *kind as u8 == bytes[0]);
        Ok(Self {
            kind: kind.ok_or_else(|| field.malformed("its chunker is of a later release"))?,
            sizes: decode_sizes(&bytes[1..])?,
        })
    }
}

pub(super) fn encode_sizes(sizes: &ChunkSizes) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (place, size) in bytes.chunks_exact_mut(4).zip([sizes.min(), sizes.avg(), sizes.max()]) {
        // Chunks are at most CHUNK_LEN_MAX bytes.
        place.copy_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
    }
    bytes
}

pub(super) fn decode_sizes(bytes: &[u8]) -> Result<ChunkSizes> {
    let mut reader = KeyReader::new(bytes);
    let mut size = || reader.u32().map(u64::from);
    let (min, avg, max) = (size()?, size()?, size()?);
    reader.end()?;
    ChunkSizes::new(min, avg, max).map_err(|_| malformed("chunk sizes", "they do not fit together"))
}
