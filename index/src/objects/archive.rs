//! The bytes of an archive for who reads here and there in it: those of an object, or those of the chunks that an object names which
//! is an index.
//!
//! Lookups jump about and read a few bytes at a time, so what they read comes in blocks, the last of which are kept; the bytes of a
//! file inside are read as those of an object are. Nothing is unpacked, and nothing is written. Not here: what the bytes mean
//! (`cairn_formats::ArchiveLookup`).

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use cairn_formats::{ArchiveBytes, ChunkIndex};
use cairn_store::{IndexedObject, ObjectChunks, RangeReads};

use super::Objects;
use super::read::ObjectReader;
use crate::names::{Bucket, Content, ObjectRecord};
use crate::{Error, Result, Tenant};

/// Bytes read at once for a lookup.
const BLOCK_LEN: u64 = 64 << 10;
/// Blocks that are kept.
const BLOCKS_KEPT: usize = 32;
/// Longer reads are not cut into blocks.
const BLOCKED_LEN_MAX: u64 = 2 * BLOCK_LEN;

/// An archive's bytes, anywhere.
pub struct ArchiveObject {
    objects: Arc<Objects>,
    tenant: Tenant,
    place: Place,
    len: u64,
    /// Blocks by number, the one used last behind.
    blocks: Mutex<VecDeque<(u64, Bytes)>>,
    bytes_looked_at: AtomicU64,
    chunks_looked_at: AtomicU64,
}

/// What lookups in an archive have had read; what readers of its files read does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookedAt {
    /// Bytes of the archive.
    pub bytes: u64,
    /// Chunks read from packs for these.
    pub chunks: u64,
}

enum Place {
    /// In an object.
    Whole(Content),
    /// In the chunks that an index names.
    Indexed(Arc<RangeReads>, Arc<dyn ObjectChunks>),
}

impl fmt::Debug for ArchiveObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveObject").field("len", &self.len).finish()
    }
}

impl Objects {
    /// An object as an archive: its own bytes.
    pub fn archive(self: &Arc<Self>, bucket: &Bucket, record: &ObjectRecord) -> ArchiveObject {
        ArchiveObject::new(self, bucket, Place::Whole(record.content.clone()), record.size)
    }

    /// An object that is the index of an archive, whose chunks are in the bucket's domain.
    ///
    /// - `len_max`: bytes of an index that is read, which stays in memory.
    /// - Errors: [`Error::TooLarge`]; [`Error::Malformed`] for what is no index, or one of another digest. Chunks that are missing are
    ///   found out by who reads them.
    pub fn indexed_archive(
        self: &Arc<Self>,
        bucket: &Bucket,
        record: &ObjectRecord,
        len_max: usize,
    ) -> Result<ArchiveObject> {
        let malformed = |reason| Error::Malformed { what: INDEX, reason };
        let len = usize::try_from(record.size).unwrap_or(usize::MAX);
        if len > len_max {
            return Err(Error::TooLarge {
                what: INDEX,
                len,
                max: len_max,
            });
        }
        let mut file = BytesMut::with_capacity(len);
        for piece in self.read(bucket.tenant(), &record.content, 0..record.size)? {
            file.extend_from_slice(&piece?);
        }
        let index = ChunkIndex::parse(file.freeze()).map_err(|error| malformed(error.rule))?;
        if index.digest_algorithm() != self.options().digest {
            return Err(malformed(
                "its chunks are named by another digest than those of the store",
            ));
        }
        let (len, reads) = (index.blob_len(), self.reads(bucket.record.settings.domain));
        let place = Place::Indexed(reads, Arc::new(IndexedObject::new(index)));
        Ok(ArchiveObject::new(self, bucket, place, len))
    }
}

/// What [`Objects::indexed_archive`] reads, in its errors.
const INDEX: &str = "index of an archive";

impl ArchiveObject {
    fn new(objects: &Arc<Objects>, bucket: &Bucket, place: Place, len: u64) -> Self {
        Self {
            objects: Arc::clone(objects),
            tenant: bucket.tenant().clone(),
            place,
            len,
            blocks: Mutex::default(),
            bytes_looked_at: AtomicU64::new(0),
            chunks_looked_at: AtomicU64::new(0),
        }
    }

    /// Bytes of it in order, as those of an object are read.
    ///
    /// Errors: those of the index. Of chunks that are damaged or gone, the reader answers them.
    pub fn reader(&self, range: Range<u64>) -> Result<ObjectReader> {
        match &self.place {
            Place::Whole(content) => self.objects.read(&self.tenant, content, range),
            Place::Indexed(reads, list) => Ok(ObjectReader::of_chunks(reads.read(Arc::clone(list), range))),
        }
    }

    /// What lookups have had read since this was asked last.
    pub fn take_looked_at(&self) -> LookedAt {
        LookedAt {
            bytes: self.bytes_looked_at.swap(0, Ordering::Relaxed),
            chunks: self.chunks_looked_at.swap(0, Ordering::Relaxed),
        }
    }

    fn read_now(&self, range: Range<u64>) -> Result<Bytes> {
        let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::new();
        let mut reader = self.reader(range)?;
        for piece in &mut reader {
            bytes.extend_from_slice(&piece?);
        }
        self.chunks_looked_at.fetch_add(reader.chunks_read(), Ordering::Relaxed);
        if bytes.len() != wanted {
            return Err(Error::Malformed {
                what: "archive",
                reason: "it is shorter than its list of chunks says",
            });
        }
        self.bytes_looked_at.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.freeze())
    }

    fn block(&self, number: u64) -> Result<Bytes> {
        let kept = || self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut blocks = kept();
            if let Some(at) = blocks.iter().position(|(own, _)| *own == number)
                && let Some(block) = blocks.remove(at)
            {
                let bytes = block.1.clone();
                blocks.push_back(block);
                return Ok(bytes);
            }
        }
        // Others may read it too meanwhile; that is no harm.
        let start = number * BLOCK_LEN;
        let bytes = self.read_now(start..self.len.min(start + BLOCK_LEN))?;
        let mut blocks = kept();
        if blocks.len() >= BLOCKS_KEPT {
            blocks.pop_front();
        }
        blocks.push_back((number, bytes.clone()));
        Ok(bytes)
    }
}

impl ArchiveBytes for ArchiveObject {
    type Error = Error;

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let Range { start, end } = range;
        if end - start > BLOCKED_LEN_MAX {
            return self.read_now(start..end);
        }
        let (first, last) = (start / BLOCK_LEN, end.saturating_sub(1).max(start) / BLOCK_LEN);
        let within = |number: u64, bytes: &Bytes| {
            let at = |offset: u64| {
                let offset = offset.saturating_sub(number * BLOCK_LEN);
                usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len())
            };
            bytes.slice(at(start)..at(end))
        };
        if start == end {
            return Ok(Bytes::new());
        }
        if first == last {
            return Ok(within(first, &self.block(first)?));
        }
        let mut joined = BytesMut::new();
        for number in first..=last {
            joined.extend_from_slice(&within(number, &self.block(number)?));
        }
        Ok(joined.freeze())
    }
}
