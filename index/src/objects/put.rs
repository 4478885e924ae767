//! Writing an object: a writer takes its bytes, a body has them stored, a commit names it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_formats::PartCuts;

use super::digests::{DigestHandle, Digested, DigestsWanted, Sums};
use super::ingest::{ChunkSink, Fringe, Ingest, IngestCounts};
use super::leases::Covered;
use super::{Objects, rule};
use crate::kv::Kv;
use crate::liveness::{COMMIT_CHUNKS_MAX, Fence, ManifestChunk, NewManifest};
use crate::names::{
    Bucket, Cause, Checksum, ChecksumKind, Chunking, Condition, Content, Etag, EtagKind, INLINE_LEN_MAX, NewContent,
    NewVersion, ObjectKey, ObjectVersion, Owner, ROW_CHUNKS_MAX, Written,
};
use crate::{Error, Result};

/// Takes the bytes of an object or a part. Dropped before its end, it leaves nothing that can be seen.
#[derive(Debug)]
pub struct ObjectWriter {
    open: Open,
    ingest: Ingest,
    sums: Place,
}

/// What an upload holds from its first byte to its commit.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) objects: Arc<Objects>,
    pub(super) bucket: Bucket,
    /// Taken before anything was looked up.
    pub(super) fence: Fence,
    pub(super) covered: Covered,
}

/// Where digests are worked out.
#[derive(Debug)]
enum Place {
    Here(Sums),
    There(DigestHandle),
}

impl Place {
    fn finish(self) -> Digested {
        match self {
            Self::Here(sums) => sums.finish(),
            Self::There(handle) => handle.finish(),
        }
    }
}

impl Open {
    pub(super) fn new(objects: &Arc<Objects>, bucket: &Bucket) -> Result<Self> {
        let covered = objects.leases.begin(&objects.names)?;
        let fence = Fence::now(objects.kv())?;
        let open = objects.uploads.fetch_add(1, Ordering::Relaxed);
        objects.begun.fetch_add(1, Ordering::Relaxed);
        let opened = Self {
            objects: Arc::clone(objects),
            bucket: bucket.clone(),
            fence,
            covered,
        };
        if open >= objects.options.uploads_max {
            return Err(Error::Busy { what: "uploads" });
        }
        Ok(opened)
    }

    pub(super) fn sink(&self) -> ChunkSink {
        self.objects.sink(&self.bucket)
    }

    /// Content of chunks that have all been found or put since the fence.
    pub(super) fn content(&self, chunks: &[ManifestChunk]) -> Result<NewContent> {
        let mut gathered = Gathered::new(self);
        gathered.push(chunks)?;
        Ok(gathered.finish()?.0)
    }

    /// A fence that has moved: all chunks of content are looked up again behind a new one.
    ///
    /// - `chunks`: those of content whose pages are not written yet; none: they are.
    /// - Errors: [`Error::ChunksMissing`].
    pub(super) fn settle_content(&self, content: &Content, chunks: &[ManifestChunk]) -> Result<Fence> {
        if !chunks.is_empty() || content.byte_len() == 0 {
            return self.settle(chunks);
        }
        let fence = Fence::now(self.objects.kv())?;
        let mut ids = Vec::new();
        self.objects.for_each_chunk(self.bucket.tenant(), content, |page| {
            ids.extend(self.objects.missing(self.bucket.record.settings.domain, page)?);
            Ok(())
        })?;
        if ids.is_empty() {
            return Ok(fence);
        }
        Err(Error::ChunksMissing { ids })
    }

    /// A fence that has moved: all chunks are looked up again behind a new one.
    ///
    /// Errors: [`Error::ChunksMissing`].
    pub(super) fn settle(&self, chunks: &[ManifestChunk]) -> Result<Fence> {
        let fence = Fence::now(self.objects.kv())?;
        let ids = self.objects.missing(self.bucket.record.settings.domain, chunks)?;
        if ids.is_empty() {
            return Ok(fence);
        }
        Err(Error::ChunksMissing { ids })
    }
}

/// The chunks of content as they become known. Many are written in pages as they come, so that no more than
/// [`COMMIT_CHUNKS_MAX`] of them are held.
pub(super) struct Gathered<'a> {
    open: &'a Open,
    /// Those that are in no page yet.
    chunks: Vec<ManifestChunk>,
    manifest: Option<NewManifest<'a, dyn Kv + 'a>>,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(open: &'a Open) -> Self {
        Self {
            open,
            chunks: Vec::new(),
            manifest: None,
        }
    }

    /// Takes the next chunks, which have been found or put since the fence.
    pub(super) fn push(&mut self, chunks: &[ManifestChunk]) -> Result<()> {
        self.chunks.extend_from_slice(chunks);
        if self.chunks.len() <= COMMIT_CHUNKS_MAX {
            return Ok(());
        }
        let manifest = match &mut self.manifest {
            Some(manifest) => manifest,
            none => {
                let (objects, bucket) = (&self.open.objects, &self.open.bucket);
                let until = objects.now() + 2 * objects.options.lease.as_secs().max(3600);
                let (id, domain) = (objects.names.chance()?, bucket.record.settings.domain);
                none.insert(NewManifest::begin(objects.kv(), bucket.tenant(), id, domain, until)?)
            }
        };
        manifest.push(&self.chunks)?;
        self.chunks.clear();
        Ok(())
    }

    /// The content, and its chunks unless its pages are written.
    pub(super) fn finish(self) -> Result<(NewContent, Vec<ManifestChunk>)> {
        let Self { open, chunks, manifest } = self;
        let (domain, tenant) = (open.bucket.record.settings.domain, open.bucket.tenant());
        if let Some(mut manifest) = manifest {
            manifest.push(&chunks)?;
            manifest.finish()?;
            return Ok((NewContent::manifest(&manifest, open.fence), Vec::new()));
        }
        if chunks.len() <= ROW_CHUNKS_MAX {
            return Ok((NewContent::chunks(domain, chunks.clone(), open.fence)?, chunks));
        }
        let id = open.objects.names.chance()?;
        Ok((NewContent::pages(tenant, domain, id, &chunks, open.fence)?, chunks))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.objects.uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Objects {
    /// Begins to write an object of a bucket. The digests that the bucket's objects are to be found by are worked out besides.
    ///
    /// Errors: [`Error::Busy`]; those of the index.
    pub fn writer(self: &Arc<Self>, bucket: &Bucket, wanted: &DigestsWanted) -> Result<ObjectWriter> {
        let open = Open::new(self, bucket)?;
        let ingest = Ingest::new(open.sink(), rule(bucket)?);
        let sums = Sums::with_whole(wanted, &bucket.record.settings.digests);
        Ok(ObjectWriter::new(open, ingest, sums))
    }

    /// Begins to write a part, which becomes one by [`Body::put_part`].
    ///
    /// - `wanted`: MD5 among them where tags of parts are to be MD5s.
    /// - Errors: as [`Objects::writer`].
    pub fn part_writer(self: &Arc<Self>, bucket: &Bucket, wanted: &DigestsWanted) -> Result<ObjectWriter> {
        let open = Open::new(self, bucket)?;
        let ingest = Ingest::of_part(open.sink(), rule(bucket)?);
        Ok(ObjectWriter::new(open, ingest, Sums::new(wanted)))
    }

    /// A body of the same bytes as a version has, for a bucket of the same dedup domain by reference, for another by copying them.
    ///
    /// - `from`: the version's bucket.
    /// - Errors: [`Error::ChunksMissing`] when it has lost chunks; [`Error::NoObject`] for a delete marker.
    pub fn copy(self: &Arc<Self>, from: &Bucket, version: &ObjectVersion, to: &Bucket) -> Result<Body> {
        let record = version.object().ok_or_else(|| Error::NoObject {
            bucket: from.name().to_string(),
            key: String::new(),
        })?;
        let open = Open::new(self, to)?;
        let domain = to.record.settings.domain;
        let mut body = match &record.content {
            Content::Inline { id, bytes, domain: had }
                if *had == domain && bytes.len() <= to.record.settings.inline_len_max() =>
            {
                let content = NewContent::inline(domain, *id, bytes.clone())?;
                Body::of(open, content, Vec::new(), record.chunking)
            }
            content if content.domain() == domain && !matches!(content, Content::Inline { .. }) => {
                let chunks = self.chunks(from.tenant(), content)?;
                let ids = self.missing(domain, &chunks)?;
                if !ids.is_empty() {
                    return Err(Error::ChunksMissing { ids });
                }
                let content = open.content(&chunks)?;
                Body::of(open, content, chunks, record.chunking)
            }
            content => {
                drop(open);
                let mut writer = self.writer(to, &DigestsWanted::default())?;
                for piece in self.read(from.tenant(), content, 0..record.size)? {
                    writer.push(&piece?)?;
                }
                writer.finish()?
            }
        };
        body.digested.md5 = record.etag.md5();
        body.digested.sha256 = record.sha256.or(body.digested.sha256);
        body.digested.blake3 = record.blake3.or(body.digested.blake3);
        Ok(body)
    }
}

impl ObjectWriter {
    fn new(open: Open, ingest: Ingest, sums: Sums) -> Self {
        Self {
            ingest,
            sums: Place::Here(sums),
            open,
        }
    }

    /// Takes the next bytes. Stores what makes a block, and waits while the store or the digests are behind.
    ///
    /// Errors: those of the store and the index; then the upload has failed.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            // Asked each time: others come and go.
            let block_len = self.open.objects.block_len();
            let room = block_len.saturating_sub(self.ingest.unseen()).max(1);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.ingest.push(now, room);
            bytes = later;
            if self.ingest.unseen() >= block_len {
                self.put_block()?;
            }
        }
        Ok(())
    }

    fn put_block(&mut self) -> Result<()> {
        let block = self.ingest.take_block();
        if let Place::Here(sums) = &self.sums {
            // Nothing has been taken into them here.
            let handle = self.open.objects.digests.begin(sums.clone());
            self.sums = Place::There(handle);
        }
        if let Place::There(handle) = &self.sums {
            handle.push(block.fresh());
        }
        self.ingest.put_block(block)?;
        self.open.covered.renew(&self.open.objects.names)
    }

    /// The bytes have all come. They are stored now, and can be committed.
    ///
    /// Errors: as [`ObjectWriter::push`].
    pub fn finish(mut self) -> Result<Body> {
        let settings = &self.open.bucket.record.settings;
        let chunking = Chunking {
            kind: settings.dialect.into(),
            sizes: settings.chunk_sizes,
        };
        let (domain, inline_max) = (settings.domain, settings.inline_len_max());
        let here_max = self.open.objects.options.digest_here_len.max(INLINE_LEN_MAX);
        if let Some(whole) = self.ingest.whole().filter(|whole| whole.len() <= here_max)
            && let Place::Here(sums) = &mut self.sums
        {
            sums.update(whole);
            if whole.len() <= inline_max && !self.ingest.is_of_part() {
                let id = self.open.objects.options.digest.id(whole);
                let content = NewContent::inline(domain, id, whole.to_vec())?;
                let counts = self.ingest.counts();
                let mut body = Body::of(self.open, content, Vec::new(), chunking);
                (body.digested, body.counts) = (self.sums.finish(), counts);
                return Ok(body);
            }
            let block = self.ingest.take_block();
            self.ingest.put_block(block)?;
        } else if self.ingest.unseen() > 0 {
            self.put_block()?;
        }
        let ingested = self.ingest.finish()?;
        let content = self.open.content(&ingested.chunks)?;
        let mut body = Body::of(self.open, content, ingested.chunks, chunking);
        (body.digested, body.counts) = (self.sums.finish(), ingested.counts);
        body.part = ingested.fringe.map(|fringe| (ingested.cuts, fringe));
        Ok(body)
    }

    /// The bucket that it writes to.
    pub fn bucket(&self) -> &Bucket {
        &self.open.bucket
    }
}

/// The bytes of an object, stored and not yet named. Dropped, it leaves chunks for the collector.
#[derive(Debug)]
pub struct Body {
    pub(super) open: Open,
    pub(super) content: NewContent,
    /// All chunks; none of what lies in a row.
    pub(super) chunks: Vec<ManifestChunk>,
    pub(super) chunking: Chunking,
    pub(super) digested: Digested,
    /// Of a part: its own cuts, and the bytes of its edges.
    pub(super) part: Option<(PartCuts, Fringe)>,
    counts: IngestCounts,
}

impl Body {
    pub(super) fn of(open: Open, content: NewContent, chunks: Vec<ManifestChunk>, chunking: Chunking) -> Self {
        Self {
            open,
            content,
            chunks,
            chunking,
            digested: Digested::default(),
            part: None,
            counts: IngestCounts::default(),
        }
    }

    /// Bytes of it.
    pub fn byte_len(&self) -> u64 {
        self.content.content().byte_len()
    }

    /// The digests that were wanted of it; of a copy what its source has of them, but for check sums.
    pub fn digested(&self) -> &Digested {
        &self.digested
    }

    /// What became of its bytes.
    pub fn counts(&self) -> &IngestCounts {
        &self.counts
    }

    /// The entity tag that an object of one part has by its bucket's settings.
    pub fn etag(&self) -> Result<Etag> {
        match (self.open.bucket.record.settings.etag, self.digested.md5) {
            (EtagKind::Md5, Some(md5)) => Ok(Etag::of_md5(&md5)),
            _ => self.open.objects.opaque_etag(),
        }
    }

    /// Has the body become a version. Durable when this returns, if its bucket is of that class ([`crate::names::Durability`]).
    ///
    /// - `describe`: adds headers, metadata, tags, parts to what is known of it: content, tag, check sums of the whole.
    /// - Errors: as [`crate::names::Objects::put`] but [`Error::FenceMoved`], which is settled here; [`Error::ChunksMissing`] when the
    ///   upload was slower than its lease and chunks have been collected meanwhile.
    pub fn put(
        self,
        key: &ObjectKey,
        owner: &Owner,
        describe: impl FnOnce(&mut NewVersion),
        condition: &Condition,
        cause: &Cause,
    ) -> Result<Written> {
        let mut version = NewVersion::new(owner.clone(), self.content.clone(), self.etag()?);
        version.record.chunking = self.chunking;
        for sum in &self.digested.checksums {
            let sum = Checksum::new(sum.algorithm().into(), ChecksumKind::FullObject, sum.as_bytes());
            version.record.checksums.extend(sum);
        }
        (version.record.sha256, version.record.blake3) = (self.digested.sha256, self.digested.blake3);
        describe(&mut version);
        let objects = self.open.objects.names().objects(&self.open.bucket);
        loop {
            match objects.put(key, &version, condition, cause) {
                Err(Error::FenceMoved) => version = version.with_fence(self.open.settle(&self.chunks)?),
                written => return written,
            }
        }
    }
}
