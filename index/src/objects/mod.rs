//! The object path: bytes of objects to chunks and names, and back.
//!
//! A write goes: bytes are pushed to an [`ObjectWriter`] (cut, named, looked up, stored, all within a bounded block; digests of the
//! whole on a thread of their own), which becomes a [`Body`]; its commit names the chunks, behind the fence, in the row of a version
//! or a part (`names/`). Chunks and that commit share one sync, and only then is anyone
//! answered, but for buckets whose durability class says that they need not wait for it. A read goes: a version's
//! [`Content`], then an [`ObjectReader`] over the range.
//!
//! Invariants: a version that can be seen names only chunks that are durable when it is, or before; what fails or is dropped before its commit leaves nothing but
//! chunks for the collector; equal content costs rows only. Every call may block. Not here: the wire, who may do what, rows.

mod archive;
mod blobs;
#[cfg(test)]
mod blobs_tests;
mod chunks;
mod diff;
mod digests;
#[cfg(test)]
mod early_tests;
mod index_file;
mod ingest;
mod leases;
mod multipart;
mod put;
mod read;
#[cfg(test)]
mod rest_tests;
mod restore;
mod slices;
#[cfg(test)]
mod tests;
mod undigested;

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cairn_formats::{ChunkId, CutRule, DigestAlgorithm, DomainId};
use cairn_store::{Buffers, ChunkStore as _, PackEngine, PackStore, PlainCache, RangeOptions, RangeReads};

use crate::kv::Kv;
use crate::liveness::{ManifestChunk, manifest_page};
use crate::names::{Bucket, ChecksumAlgorithm, Content, Durability, Etag, Names};
use crate::{Error, Result, Tenant};

pub use archive::{ArchiveObject, LookedAt};
pub use blobs::{AnyBlobWriter, BlobFrames, BlobHasher, BlobWriter};
pub use diff::{ChunkSum, VersionsDiff};
pub use digests::{Digested, DigestsWanted};
pub use index_file::IndexPieces;
pub use ingest::{Compression, IngestCounts};
pub use leases::ChunkLease;
pub use multipart::{Completed, ListedPart};
pub use put::{Body, ObjectWriter};
pub use read::ObjectReader;
pub use undigested::{DigestCursor, DigestedAtRest};

use digests::Digests;
use ingest::ChunkSink;
use leases::Leases;

/// Blocks of uploads that are kept while nobody has them.
const BLOCKS_KEPT_MAX: usize = 16;
/// What a block begins with: what is behind the last cut of the one before, unless chunks are longer.
const OPEN_CHUNK_LEN: usize = 256 << 10;

/// Chunks looked up together.
const LOOK_UP_CHUNKS: usize = 4096;

/// How objects are stored and read.
#[derive(Clone, Debug)]
pub struct ObjectOptions {
    /// The digest that names chunks: that of the packs.
    pub digest: DigestAlgorithm,
    /// How chunks are stored when they come, in buckets that say nothing of it.
    pub compression: Compression,
    /// Bytes of blocks of all uploads together, half for those that are gathered, half for those that wait for their digests; more
    /// uploads have smaller blocks.
    pub buffer_len: usize,
    /// Bytes of an upload's block, at least and at most: what is cut, hashed and put together.
    pub block_len: (usize, usize),
    /// Uploads at a time; one more is refused with [`Error::Busy`].
    pub uploads_max: usize,
    /// Threads for digests of the whole.
    pub digest_threads: usize,
    /// Bodies up to this are digested by who pushes them: handing them over would take longer.
    pub digest_here_len: usize,
    /// For how long what an upload stored is kept while nothing is heard of it.
    pub lease: Duration,
    /// Bytes of a part of an upload, at least, but for the last.
    pub part_len_min: u64,
    /// Bytes of lists of chunks that uploads being completed hold in memory, all together; one that is alone may have more, another is
    /// refused with [`Error::Busy`].
    pub join_len: u64,
    /// How ranges are read. What is decoded is kept in `plain_len` bytes, whatever is said here.
    pub ranges: RangeOptions,
    /// Bytes of memory for plain chunks that had to be decoded; 0: none are kept.
    pub plain_len: u64,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self {
            digest: DigestAlgorithm::default(),
            compression: Compression::Level(1),
            buffer_len: 192 << 20,
            block_len: (64 << 10, 2 << 20),
            uploads_max: 4096,
            digest_threads: 1,
            digest_here_len: 64 << 10,
            lease: Duration::from_secs(10 * 60),
            part_len_min: 5 << 20,
            join_len: 512 << 20,
            ranges: RangeOptions::default(),
            plain_len: 0,
        }
    }
}

/// Objects of all buckets of a server.
#[derive(Debug)]
pub struct Objects {
    names: Names,
    packs: Arc<PackEngine>,
    options: ObjectOptions,
    digests: Digests,
    leases: Arc<Leases>,
    reads: Mutex<HashMap<DomainId, Arc<RangeReads>>>,
    uploads: AtomicUsize,
    /// Those that ever began.
    begun: AtomicU64,
    seam_bytes: AtomicU64,
    completion_bytes: AtomicU64,
    deferred: Arc<AtomicU64>,
    /// For blocks of uploads.
    buffers: Buffers,
    /// Bytes of lists of chunks that are being joined.
    joined: AtomicU64,
}

impl Objects {
    /// - `names`: rows on the engine whose log, or neighbour, the packs are.
    pub fn new(names: Names, packs: Arc<PackEngine>, mut options: ObjectOptions) -> Arc<Self> {
        options.ranges.plain = (options.plain_len > 0).then(|| PlainCache::new(options.plain_len));
        Arc::new(Self {
            digests: Digests::new(options.digest_threads, options.buffer_len / 2),
            leases: Arc::new(Leases::new(&names, Arc::clone(&packs), options.lease)),
            reads: Mutex::default(),
            uploads: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            seam_bytes: AtomicU64::new(0),
            completion_bytes: AtomicU64::new(0),
            deferred: Arc::default(),
            buffers: Buffers::new(options.block_len.1 + OPEN_CHUNK_LEN, BLOCKS_KEPT_MAX),
            joined: AtomicU64::new(0),
            names,
            packs,
            options,
        })
    }

    /// The names of objects.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// How it was opened.
    pub fn options(&self) -> &ObjectOptions {
        &self.options
    }

    /// Uploads that go on: writers that have neither become bodies nor been dropped.
    pub fn uploads(&self) -> usize {
        self.uploads.load(Ordering::Relaxed)
    }

    /// Uploads that ever began: as long as this stays as it is, and [`Objects::uploads`] is 0, nobody writes.
    pub fn uploads_begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Bytes of parts read again for seams while parts came.
    pub fn seam_bytes(&self) -> u64 {
        self.seam_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of parts read again when uploads were completed.
    pub fn completion_bytes(&self) -> u64 {
        self.completion_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of frames stored since the start that wait to be compressed ([`Compression::Deferred`]), less those told of to
    /// [`Objects::settle_deferred`].
    pub fn deferred_bytes(&self) -> u64 {
        self.deferred.load(Ordering::Relaxed)
    }

    /// So many of the bytes that waited to be compressed have been.
    pub fn settle_deferred(&self, bytes: u64) {
        let less = |now: u64| Some(now.saturating_sub(bytes));
        let _ = self.deferred.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Memory that plain chunks take which are kept, bytes.
    pub fn plain_bytes(&self) -> u64 {
        self.options.ranges.plain.as_ref().map_or(0, PlainCache::bytes)
    }

    /// Reads a range of content; what lies behind its end is left out.
    ///
    /// Errors: those of the index. Of chunks that are damaged or gone, the reader answers them.
    pub fn read(&self, tenant: &Tenant, content: &Content, range: Range<u64>) -> Result<ObjectReader> {
        let reads = self.reads(content.domain());
        read::open(self.names.kv(), &reads, self.options.digest, tenant, content, range)
    }

    /// All chunks of content, in order. An inlined object is one.
    pub fn chunks(&self, tenant: &Tenant, content: &Content) -> Result<Vec<ManifestChunk>> {
        let mut chunks = Vec::new();
        self.for_each_chunk(tenant, content, |page| {
            chunks.extend_from_slice(page);
            Ok(())
        })?;
        Ok(chunks)
    }

    /// Visits the chunks of content page by page, until an error, which is returned.
    pub fn for_each_chunk(
        &self,
        tenant: &Tenant,
        content: &Content,
        mut visit: impl FnMut(&[ManifestChunk]) -> Result<()>,
    ) -> Result<()> {
        match content {
            Content::Inline { bytes, .. } if bytes.is_empty() => Ok(()),
            Content::Inline { id, bytes, .. } => visit(&[ManifestChunk {
                id: *id,
                // A row holds some KiB.
                len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            }]),
            Content::Chunks { chunks, .. } => visit(chunks),
            Content::Manifest(manifest) => {
                (0..manifest.pages()).try_for_each(|page| visit(&manifest_page(self.kv(), tenant, manifest, page)?))
            }
        }
    }

    /// Visits the chunks of content that a range touches, with where each begins, until `visit` says that it is enough. Reads of a
    /// manifest the pages that have them.
    pub fn for_each_chunk_in(
        &self,
        tenant: &Tenant,
        content: &Content,
        range: Range<u64>,
        mut visit: impl FnMut(u64, &ManifestChunk) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut visit_page = |mut start: u64, page: &[ManifestChunk]| {
            for chunk in page {
                let end = start + u64::from(chunk.len);
                if start >= range.end {
                    return ControlFlow::Break(());
                }
                if end > range.start {
                    visit(start, chunk)?;
                }
                start = end;
            }
            ControlFlow::Continue(())
        };
        let Content::Manifest(manifest) = content else {
            return self.for_each_chunk(tenant, content, |page| {
                // There is one.
                let _ = visit_page(0, page);
                Ok(())
            });
        };
        for (row, start) in read::rows_from(self.kv(), tenant, manifest, range.start)? {
            if visit_page(start, &manifest_page(self.kv(), tenant, manifest, row)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn kv(&self) -> &dyn Kv {
        self.names.kv().as_ref()
    }

    fn store(&self, domain: DomainId) -> PackStore {
        PackStore::new(Arc::clone(&self.packs), domain)
    }

    fn sink(&self, bucket: &Bucket) -> ChunkSink {
        let settings = &bucket.record.settings;
        let store = self.store(settings.domain);
        ChunkSink {
            // Its chunks are durable with what names them, or after it.
            store: match settings.durability {
                Durability::Sync => store,
                Durability::Batch | Durability::Volatile => store.relaxed(),
            },
            algorithm: self.options.digest,
            compression: settings.level.map_or(self.options.compression, Compression::Level),
            deferred: Arc::clone(&self.deferred),
            buffers: self.buffers.clone(),
        }
    }

    fn reads(&self, domain: DomainId) -> Arc<RangeReads> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || RangeReads::new(self.store(domain), self.options.ranges.clone());
        Arc::clone(reads.entry(domain).or_insert_with(open))
    }

    /// Chunks that are not there, or condemned; each once.
    fn missing(&self, domain: DomainId, chunks: &[ManifestChunk]) -> Result<Vec<ChunkId>> {
        let store = self.store(domain);
        let mut ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let look_up = |ids: &[ChunkId]| -> Result<Vec<ChunkId>> {
            let mut missing = Vec::new();
            for ids in ids.chunks(LOOK_UP_CHUNKS) {
                let there = store.has_many(ids)?;
                missing.extend(ids.iter().zip(there).filter_map(|(id, there)| (!there).then_some(*id)));
            }
            Ok(missing)
        };
        let missing = look_up(&ids)?;
        if missing.is_empty() {
            return Ok(missing);
        }
        // What was put here and waits to be written is not found yet.
        store.flush()?;
        look_up(&missing)
    }

    /// Bytes that a block of an upload takes now.
    fn block_len(&self) -> usize {
        let (least, most) = self.options.block_len;
        (self.options.buffer_len / 2 / self.uploads().max(1)).clamp(least, most.max(least))
    }
}

impl Objects {
    /// Seconds since 1970 UTC.
    fn now(&self) -> u64 {
        self.names.now_ms() / 1000
    }

    /// A tag that says nothing of the bytes. No MD5 looks like it.
    fn opaque_etag(&self) -> Result<Etag> {
        let chance: [u8; 16] = self.names.chance()?;
        Etag::opaque(&format!("{:032x}-o", u128::from_be_bytes(chance)))
    }
}

impl From<ChecksumAlgorithm> for cairn_formats::ChecksumAlgorithm {
    fn from(algorithm: ChecksumAlgorithm) -> Self {
        match algorithm {
            ChecksumAlgorithm::Crc32 => Self::Crc32,
            ChecksumAlgorithm::Crc32c => Self::Crc32c,
            ChecksumAlgorithm::Crc64Nvme => Self::Crc64Nvme,
            ChecksumAlgorithm::Sha1 => Self::Sha1,
            ChecksumAlgorithm::Sha256 => Self::Sha256,
        }
    }
}

impl From<cairn_formats::ChecksumAlgorithm> for ChecksumAlgorithm {
    fn from(algorithm: cairn_formats::ChecksumAlgorithm) -> Self {
        match algorithm {
            cairn_formats::ChecksumAlgorithm::Crc32 => Self::Crc32,
            cairn_formats::ChecksumAlgorithm::Crc32c => Self::Crc32c,
            cairn_formats::ChecksumAlgorithm::Crc64Nvme => Self::Crc64Nvme,
            cairn_formats::ChecksumAlgorithm::Sha1 => Self::Sha1,
            cairn_formats::ChecksumAlgorithm::Sha256 => Self::Sha256,
        }
    }
}

/// The rule by which a bucket's objects are cut.
fn rule(bucket: &Bucket) -> Result<CutRule> {
    let settings = &bucket.record.settings;
    CutRule::new(settings.chunk_sizes, settings.dialect).map_err(|_| Error::Malformed {
        what: "settings of a bucket",
        reason: "nobody can cut by its chunk sizes",
    })
}
