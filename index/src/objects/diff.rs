//! What two versions share: chunks and their bytes, each counted once.
//!
//! Lists of chunks are read page by page, as often as it takes to compare them in a bounded piece of memory: the ids are split by
//! their first bytes, and each pass keeps those of one part.

use std::collections::HashMap;

use cairn_formats::ChunkId;

use super::Objects;
use crate::liveness::ManifestChunk;
use crate::names::{Bucket, Content, ObjectVersion};
use crate::{Error, Result, Tenant};

/// Different chunks that are held in memory at once, about.
const CHUNKS_AT_ONCE: u64 = 1 << 20;

/// Parts into which ids can be split: by their first two bytes.
const PARTS_MAX: u64 = 1 << 16;

/// Chunks, each counted once, and their plain bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkSum {
    /// How many.
    pub chunks: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl ChunkSum {
    fn add(&mut self, len: u32) {
        self.chunks += 1;
        self.bytes += u64::from(len);
    }
}

/// How two versions differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionsDiff {
    /// Chunks of the lists of each, repeated ones as often as they are there; the bytes are those of the versions.
    pub listed: [ChunkSum; 2],
    /// Chunks that both have.
    pub shared: ChunkSum,
    /// Chunks that only one has.
    pub only: [ChunkSum; 2],
}

/// Which of the two has a chunk.
#[derive(Clone, Copy, Debug)]
struct Held {
    len: u32,
    by: [bool; 2],
}

impl Objects {
    /// How two versions differ, of whatever buckets of a tenant. What lies in a row is one chunk.
    ///
    /// - Errors: [`Error::NoObject`] for a delete marker; those of the index.
    pub fn diff(&self, first: (&Bucket, &ObjectVersion), second: (&Bucket, &ObjectVersion)) -> Result<VersionsDiff> {
        self.diff_within(first, second, CHUNKS_AT_ONCE)
    }

    pub(super) fn diff_within(
        &self,
        first: (&Bucket, &ObjectVersion),
        second: (&Bucket, &ObjectVersion),
        chunks_at_once: u64,
    ) -> Result<VersionsDiff> {
        let sides = [content_of(first)?, content_of(second)?];
        let mut diff = VersionsDiff::default();
        for (listed, (tenant, content)) in diff.listed.iter_mut().zip(sides) {
            self.for_each_chunk(tenant, content, |page| {
                page.iter().for_each(|chunk| listed.add(chunk.len));
                Ok(())
            })?;
        }
        let chunks: u64 = diff.listed.iter().map(|listed| listed.chunks).sum();
        let passes = chunks.div_ceil(chunks_at_once.max(1)).clamp(1, PARTS_MAX);
        for pass in 0..passes {
            let mut held: HashMap<ChunkId, Held> = HashMap::new();
            for (side, (tenant, content)) in sides.into_iter().enumerate() {
                self.for_each_chunk(tenant, content, |page| {
                    let of_pass = page.iter().filter(|chunk| part_of(&chunk.id, passes) == pass);
                    for ManifestChunk { id, len } in of_pass {
                        let by = [false; 2];
                        held.entry(*id).or_insert(Held { len: *len, by }).by[side] = true;
                    }
                    Ok(())
                })?;
            }
            for Held { len, by } in held.into_values() {
                match by {
                    [true, true] => diff.shared.add(len),
                    [true, false] => diff.only[0].add(len),
                    _ => diff.only[1].add(len),
                }
            }
        }
        Ok(diff)
    }
}

fn content_of<'a>((bucket, version): (&'a Bucket, &'a ObjectVersion)) -> Result<(&'a Tenant, &'a Content)> {
    let object = version.object().ok_or_else(|| Error::NoObject {
        bucket: bucket.name().to_string(),
        key: String::new(),
    })?;
    Ok((bucket.tenant(), &object.content))
}

/// In which of so many passes a chunk is looked at.
fn part_of(id: &ChunkId, passes: u64) -> u64 {
    let [first, second, ..] = *id.as_bytes();
    u64::from(u16::from_be_bytes([first, second])) * passes / PARTS_MAX
}
