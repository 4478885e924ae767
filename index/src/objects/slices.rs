//! Blobs that are parts of others: of one copy of the bytes, named by their own digests.
//!
//! A slice names the chunks that it touches, what of the first is not its own, and its length, so it stands by itself: the blob that
//! it was cut from may go. What is put together of blobs is read, compared with its digest and stored as any other blob, which costs no
//! room for what is there; then the pieces become slices of it, so that their own first and last chunks are needed no more.

use std::ops::Range;
use std::sync::Arc;

use super::Objects;
use super::put::Open;
use crate::liveness::ManifestChunk;
use crate::names::{Blob, BlobDigest, BlobKey, Bucket, NewBlob};
use crate::{Error, Result};

/// Slices committed together.
const AT_ONCE: usize = 4096;

impl Objects {
    /// Makes parts of a blob blobs of their own, where they are none yet.
    ///
    /// - `parts`: digests and where in the blob their bytes are, ascending; compared by the caller.
    /// - Errors: [`Error::ChunksMissing`] for a blob that has lost chunks; those of the store and the index.
    pub fn slice_blob(
        self: &Arc<Self>,
        bucket: &Bucket,
        blob: &Blob,
        parts: &[(BlobDigest, Range<u64>)],
    ) -> Result<()> {
        self.put_slices(bucket, blob, parts, false)
    }

    /// Puts a blob together of others, and makes those parts of it.
    ///
    /// - `parts`: in order; a part may come again.
    /// - Errors: [`Error::WrongDigest`]; those of the store and the index.
    pub fn splice_blob(
        self: &Arc<Self>,
        bucket: &Bucket,
        digest: BlobDigest,
        parts: &[(BlobDigest, Blob)],
    ) -> Result<()> {
        let mut writer = self.blob_writer(bucket, digest)?;
        let (mut at, mut places) = (0, Vec::with_capacity(parts.len()));
        for (part, blob) in parts {
            for piece in self.read_blob(bucket.tenant(), blob, 0..blob.len)? {
                writer.push(&piece?)?;
            }
            places.push((*part, at..at + blob.len));
            at += blob.len;
        }
        writer.finish()?;
        let whole = self.names.blobs(bucket).get(&BlobKey::Content(digest))?;
        let Some(whole) = whole else { return Ok(()) };
        // A part of another content would only move from there to here.
        let own = places.into_iter().zip(parts);
        let own = own.filter(|(_, (_, blob))| blob.skip == 0 && blob.len == blob.content.byte_len());
        let own: Vec<_> = own.map(|(place, _)| place).collect();
        self.put_slices(bucket, &whole, &own, true)
    }

    /// - `again`: in place of what is there of the same digest.
    fn put_slices(
        self: &Arc<Self>,
        bucket: &Bucket,
        blob: &Blob,
        parts: &[(BlobDigest, Range<u64>)],
        again: bool,
    ) -> Result<()> {
        if matches!(blob.content, crate::names::Content::Inline { .. }) {
            // There are no chunks to be shared; nobody cuts so little.
            return Ok(());
        }
        let open = Open::new(self, bucket)?;
        let chunks = self.chunks(bucket.tenant(), &blob.content)?;
        let ids = self.missing(bucket.record.settings.domain, &chunks)?;
        if !ids.is_empty() {
            return Err(Error::ChunksMissing { ids });
        }
        let (mut ends, mut end) = (Vec::with_capacity(chunks.len()), 0);
        for chunk in &chunks {
            end += u64::from(chunk.len);
            ends.push(end);
        }
        for parts in parts.chunks(AT_ONCE) {
            let mut new = std::collections::BTreeMap::new();
            for (digest, place) in parts {
                let within = blob.skip + place.start..blob.skip + place.end;
                let (first, few) = covering(&chunks, &ends, &within);
                if few.is_empty() {
                    continue;
                }
                let slice = NewBlob {
                    content: open.content(few)?,
                    skip: within.start - first,
                    len: place.end - place.start,
                };
                new.insert(BlobKey::Content(*digest), slice);
            }
            let new: Vec<(BlobKey, NewBlob)> = new.into_iter().collect();
            if again {
                self.recommit_blobs(&open, &chunks, new)?;
            } else {
                self.commit_blobs(&open, &chunks, new)?;
            }
        }
        Ok(())
    }
}

/// Where the first chunk begins that a range touches, and the chunks that it touches.
///
/// - `ends`: of the chunks.
fn covering<'a>(chunks: &'a [ManifestChunk], ends: &[u64], range: &Range<u64>) -> (u64, &'a [ManifestChunk]) {
    if range.is_empty() {
        return (0, &[]);
    }
    let first = ends.partition_point(|end| *end <= range.start);
    let last = ends.partition_point(|end| *end < range.end);
    let begins = first.checked_sub(1).map_or(0, |before| ends[before]);
    (begins, chunks.get(first..=last).unwrap_or_default())
}
