//! Blobs on the path of objects: the same cuts, chunks and lease; rows of their own (`names/blobs.rs`), and their own digests.
//!
//! Invariant: bytes become a blob of a digest only after they were compared with it. Small blobs that come together share one lease,
//! one look-up of their chunks and few commits. What is read compressed is the stored frames, one behind the other: only of a chunk that is wanted
//! in part a new frame is made. Every call may block.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{Level, PartCutter, compress_frame, raw_frame};
use cairn_store::{ChunkStore as _, PackStore};
use sha2::Digest as _;

use super::ingest::IngestCounts;
use super::put::Open;
use super::{DigestsWanted, ObjectReader, ObjectWriter, Objects, rule};
use crate::liveness::{Manifest, ManifestChunk, manifest_page};
use crate::names::{Blob, BlobDigest, BlobFunction, BlobKey, Bucket, Content, NewBlob, NewContent};
use crate::{Error, Result, Tenant};

/// Plain bytes of chunks whose frames are read together.
const FRAMES_LEN: u64 = 1 << 20;

/// zstd level of what lies plain in a row and is wanted compressed.
const ROW_LEVEL: i32 = 1;

/// Works out the digest of a blob. Every function is its standard's, none is ours.
#[derive(Clone, Debug)]
pub struct BlobHasher(Hasher);

#[derive(Clone, Debug)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha1(sha1::Sha1),
    Md5(md5::Md5),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
    Blake3(Box<blake3::Hasher>),
}

impl BlobHasher {
    /// Of no bytes yet.
    pub fn new(function: BlobFunction) -> Self {
        Self(match function {
            BlobFunction::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            BlobFunction::Sha1 => Hasher::Sha1(sha1::Sha1::new()),
            BlobFunction::Md5 => Hasher::Md5(md5::Md5::new()),
            BlobFunction::Sha384 => Hasher::Sha384(sha2::Sha384::new()),
            BlobFunction::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
            BlobFunction::Blake3 => Hasher::Blake3(Box::default()),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::Sha1(hash) => hash.update(bytes),
            Hasher::Md5(hash) => hash.update(bytes),
            Hasher::Sha384(hash) => hash.update(bytes),
            Hasher::Sha512(hash) => hash.update(bytes),
            Hasher::Blake3(hash) => _ = hash.update(bytes),
        }
    }

    /// The digest of all bytes.
    pub fn finish(self) -> Vec<u8> {
        match self.0 {
            Hasher::Sha256(hash) => hash.finalize().to_vec(),
            Hasher::Sha1(hash) => hash.finalize().to_vec(),
            Hasher::Md5(hash) => hash.finalize().to_vec(),
            Hasher::Sha384(hash) => hash.finalize().to_vec(),
            Hasher::Sha512(hash) => hash.finalize().to_vec(),
            Hasher::Blake3(hash) => hash.finalize().as_bytes().to_vec(),
        }
    }

    /// The name of some bytes.
    pub fn digest(function: BlobFunction, bytes: &[u8]) -> BlobDigest {
        let mut hasher = Self::new(function);
        hasher.update(bytes);
        hasher.named(function, bytes.len() as u64)
    }

    fn named(self, function: BlobFunction, len: u64) -> BlobDigest {
        BlobDigest::new(function, &self.finish(), len).expect("a function's digests have its length")
    }
}

/// Takes the bytes of one blob whose digest is known. Dropped before its end, it leaves nothing that can be seen.
#[derive(Debug)]
pub struct BlobWriter {
    writer: AnyBlobWriter,
    digest: BlobDigest,
}

impl BlobWriter {
    /// Takes the next bytes.
    ///
    /// Errors: [`Error::WrongDigest`] as soon as there are more than the digest says; those of the store and the index.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.writer.len + bytes.len() as u64 > self.digest.size() {
            return Err(self.wrong());
        }
        self.writer.push(bytes)
    }

    /// Bytes that came.
    pub fn byte_len(&self) -> u64 {
        self.writer.len
    }

    /// What it will be.
    pub fn digest(&self) -> &BlobDigest {
        &self.digest
    }

    fn wrong(&self) -> Error {
        Error::WrongDigest {
            digest: self.digest.to_string(),
        }
    }

    /// The bytes have all come: they become the blob, durable when this returns, as its bucket is.
    ///
    /// Errors: [`Error::WrongDigest`]; those of the store and the index.
    pub fn finish(self) -> Result<()> {
        if self.writer.digest() != self.digest {
            return Err(self.wrong());
        }
        self.writer.finish().map(|_| ())
    }
}

/// Takes the bytes of one blob, whatever they are. Dropped before its end, it leaves nothing that can be seen.
#[derive(Debug)]
pub struct AnyBlobWriter {
    writer: ObjectWriter,
    hasher: BlobHasher,
    function: BlobFunction,
    len: u64,
}

impl AnyBlobWriter {
    /// Takes the next bytes.
    ///
    /// Errors: those of the store and the index.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.len += bytes.len() as u64;
        self.hasher.update(bytes);
        self.writer.push(bytes)
    }

    /// The name of what has come.
    pub fn digest(&self) -> BlobDigest {
        self.hasher.clone().named(self.function, self.len)
    }

    /// The bytes have all come: they become the blob of this name, durable when this returns, as its bucket is.
    ///
    /// Errors: those of the store and the index.
    pub fn finish(self) -> Result<BlobDigest> {
        let digest = self.digest();
        let body = self.writer.finish()?;
        let mut blob = NewBlob::whole(body.content.clone());
        let key = BlobKey::Content(digest);
        loop {
            let names = body.open.objects.names();
            match names.blobs(&body.open.bucket).put_many(&[(key.clone(), blob.clone())]) {
                Err(Error::FenceMoved) => {
                    let fence = body.open.settle_content(blob.content.content(), &body.chunks)?;
                    blob.content = blob.content.with_fence(fence);
                }
                written => return written.map(|()| digest),
            }
        }
    }
}

impl Objects {
    /// Begins to write a blob.
    ///
    /// Errors: [`Error::Busy`]; those of the index.
    pub fn blob_writer(self: &Arc<Self>, bucket: &Bucket, digest: BlobDigest) -> Result<BlobWriter> {
        Ok(BlobWriter {
            writer: self.any_blob_writer(bucket, digest.function())?,
            digest,
        })
    }

    /// Begins to write a blob whose digest of a function nobody knows yet.
    ///
    /// Errors: [`Error::Busy`]; those of the index.
    pub fn any_blob_writer(self: &Arc<Self>, bucket: &Bucket, function: BlobFunction) -> Result<AnyBlobWriter> {
        Ok(AnyBlobWriter {
            writer: self.writer(bucket, &DigestsWanted::default())?,
            hasher: BlobHasher::new(function),
            function,
            len: 0,
        })
    }

    /// Writes blobs whose bytes are here, each key once; those by content have been compared with their digests.
    ///
    /// Errors: [`Error::Busy`]; those of the store and the index. Some may have been written.
    pub fn put_blobs(self: &Arc<Self>, bucket: &Bucket, blobs: &[(BlobKey, Bytes)]) -> Result<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        let open = Open::new(self, bucket)?;
        let settings = &bucket.record.settings;
        let (rule, inline_max) = (rule(bucket)?, settings.inline_len_max());
        // Chunks of all of them, and how many are whose.
        let (mut plains, mut counts) = (Vec::new(), Vec::with_capacity(blobs.len()));
        for (_, bytes) in blobs {
            let before = plains.len();
            if bytes.len() > inline_max {
                let (mut cutter, mut start) = (PartCutter::new(rule), 0);
                while let Some(len) = cutter.cut(&bytes[start..]) {
                    plains.push(bytes.slice(start..start + len));
                    start += len;
                }
                if start < bytes.len() {
                    plains.push(bytes.slice(start..));
                }
            }
            counts.push(plains.len() - before);
        }
        let chunks = open.sink().put(plains, &mut IngestCounts::default())?;
        let (mut new, mut rest) = (Vec::with_capacity(blobs.len()), &chunks[..]);
        for ((key, bytes), count) in blobs.iter().zip(counts) {
            let (own, later) = rest.split_at(count);
            rest = later;
            let content = match own {
                [] => NewContent::inline(settings.domain, self.options.digest.id(bytes), bytes.clone())?,
                own => open.content(own)?,
            };
            new.push((key.clone(), NewBlob::whole(content)));
        }
        self.commit_blobs(&open, &chunks, new)
    }

    /// Commits blobs whose chunks were found or put since the fence.
    ///
    /// - `chunks`: all of them.
    pub(super) fn commit_blobs(
        &self,
        open: &Open,
        chunks: &[ManifestChunk],
        new: Vec<(BlobKey, NewBlob)>,
    ) -> Result<()> {
        self.settle_blobs(open, chunks, new, |new| self.names.blobs(&open.bucket).put_many(new))
    }

    /// [`Objects::commit_blobs`] of those that are there already and lie better so.
    pub(super) fn recommit_blobs(
        &self,
        open: &Open,
        chunks: &[ManifestChunk],
        new: Vec<(BlobKey, NewBlob)>,
    ) -> Result<()> {
        self.settle_blobs(open, chunks, new, |new| self.names.blobs(&open.bucket).move_many(new))
    }

    fn settle_blobs(
        &self,
        open: &Open,
        chunks: &[ManifestChunk],
        mut new: Vec<(BlobKey, NewBlob)>,
        put: impl Fn(&[(BlobKey, NewBlob)]) -> Result<()>,
    ) -> Result<()> {
        loop {
            match put(&new) {
                Err(Error::FenceMoved) => {
                    let fence = open.settle(chunks)?;
                    for (_, blob) in &mut new {
                        blob.content = blob.content.clone().with_fence(fence);
                    }
                }
                written => return written,
            }
        }
    }

    /// Reads a range of a blob; what lies behind its end is left out.
    ///
    /// Errors: as [`Objects::read`].
    pub fn read_blob(&self, tenant: &Tenant, blob: &Blob, range: Range<u64>) -> Result<ObjectReader> {
        let within = within(blob, range);
        self.read(tenant, &blob.content, within)
    }

    /// All bytes of a blob, for those that are small.
    ///
    /// Errors: as [`Objects::read`], and [`Error::Malformed`] where there are fewer than its row says.
    pub fn blob_bytes(&self, tenant: &Tenant, blob: &Blob) -> Result<Bytes> {
        let mut reader = self.read_blob(tenant, blob, 0..blob.len)?;
        let first = reader.next().transpose()?.unwrap_or_default();
        let bytes = if first.len() as u64 == blob.len {
            first
        } else {
            let mut all = Vec::with_capacity(usize::try_from(blob.len).unwrap_or_default());
            all.extend_from_slice(&first);
            for piece in reader {
                all.extend_from_slice(&piece?);
            }
            Bytes::from(all)
        };
        if bytes.len() as u64 != blob.len {
            return Err(Error::Malformed {
                what: "content of a blob",
                reason: "it is shorter than its row says",
            });
        }
        Ok(bytes)
    }

    /// The bytes of a blob from an offset on as zstd frames, one behind the other: as they are stored.
    ///
    /// Errors: those of the index; of chunks that are damaged or gone, the frames answer them.
    pub fn blob_frames(&self, tenant: &Tenant, blob: &Blob, from: u64) -> Result<BlobFrames> {
        let range = within(blob, from..blob.len);
        let mut frames = BlobFrames {
            store: self.store(blob.content.domain()),
            names: self.names.clone(),
            tenant: tenant.clone(),
            algorithm: self.options.digest,
            range,
            at: 0,
            chunks: VecDeque::new(),
            manifest: None,
            page: 0,
            ready: VecDeque::new(),
        };
        match &blob.content {
            Content::Inline { bytes, .. } => {
                let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let wanted = &bytes[at(frames.range.start)..at(frames.range.end)];
                if !wanted.is_empty() {
                    frames
                        .ready
                        .push_back(compress_frame(wanted, Level::new(ROW_LEVEL)).into());
                }
            }
            Content::Chunks { chunks, .. } => frames.chunks.extend(chunks),
            Content::Manifest(manifest) => frames.manifest = Some(*manifest),
        }
        Ok(frames)
    }
}

/// A range of a blob as one of its content.
fn within(blob: &Blob, range: Range<u64>) -> Range<u64> {
    let end = blob.skip + range.end.min(blob.len);
    (blob.skip + range.start).min(end)..end
}

/// Frames of a blob, in order. Ends behind the first error.
#[derive(Debug)]
pub struct BlobFrames {
    store: PackStore,
    names: crate::names::Names,
    tenant: Tenant,
    algorithm: cairn_formats::DigestAlgorithm,
    /// What is wanted of the content.
    range: Range<u64>,
    /// Where in the content the next chunk begins.
    at: u64,
    chunks: VecDeque<ManifestChunk>,
    manifest: Option<Manifest>,
    /// The next page of the manifest.
    page: u32,
    ready: VecDeque<Bytes>,
}

impl Iterator for BlobFrames {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(Ok(frame));
            }
            match self.read_on() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    (self.manifest, self.range.end) = (None, 0);
                    self.chunks.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl BlobFrames {
    /// Reads the next frames; `false` at the end.
    fn read_on(&mut self) -> Result<bool> {
        let mut batch = Vec::new();
        let mut len = 0;
        while len < FRAMES_LEN && self.at < self.range.end {
            let Some(chunk) = self.next_chunk()? else { break };
            let span = self.at..self.at + u64::from(chunk.len);
            self.at = span.end;
            if span.end > self.range.start {
                len += u64::from(chunk.len);
                batch.push((chunk, span));
            }
        }
        if batch.is_empty() {
            return Ok(false);
        }
        let ids: Vec<_> = batch.iter().map(|(chunk, _)| chunk.id).collect();
        for ((chunk, span), stored) in batch.into_iter().zip(self.store.get_many(&ids)) {
            let stored = stored?;
            let wanted = span.start.max(self.range.start)..span.end.min(self.range.end);
            if wanted == span {
                self.ready.push_back(stored.bytes);
                continue;
            }
            let opened = stored.open_exact(self.algorithm, chunk.len as usize);
            let opened = opened.map_err(|source| cairn_store::Error::Corrupt {
                store: self.store.name().clone(),
                source,
            })?;
            // Within a chunk, whose length is an u32.
            let part = (wanted.start - span.start) as usize..(wanted.end - span.start) as usize;
            self.ready.push_back(raw_frame(&opened.plain()[part]).into());
        }
        Ok(true)
    }

    fn next_chunk(&mut self) -> Result<Option<ManifestChunk>> {
        loop {
            if let Some(chunk) = self.chunks.pop_front() {
                return Ok(Some(chunk));
            }
            let Some(manifest) = self.manifest.filter(|manifest| self.page < manifest.pages()) else {
                return Ok(None);
            };
            self.chunks = manifest_page(self.names.kv().as_ref(), &self.tenant, &manifest, self.page)?.into();
            self.page += 1;
        }
    }
}
