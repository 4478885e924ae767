//! Objects that are lists of chunks, and ranges of them read from packs.
//!
//! A list comes in pages of [`PAGE_LEN`] chunks, so that a range of a long object costs a binary search and a page or two; a
//! chunk index file serves as one ([`IndexedObject`]). Not here: stores other than packs, whose chunks are decoded whole anyway.

mod flights;
mod plan;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;

use cairn_formats::{ChunkIndex, ChunkSpan};

use crate::Result;

pub use read::{PlainCache, RangeOptions, RangeReads, RangeStream};

/// Chunks in a page, but for the last one, which may have fewer.
pub const PAGE_LEN: usize = 256;

/// The chunks of an object, in pages.
pub trait ObjectChunks: Send + Sync + fmt::Debug {
    /// Names the list: lists with one name have the same chunks in the same order.
    fn name(&self) -> [u8; 32];

    /// Bytes of the object.
    fn object_len(&self) -> u64;

    /// Number of pages.
    fn pages(&self) -> usize;

    /// Offset in the object at which a page begins. Grows with the page. Panics when `page >= pages()`.
    fn page_start(&self, page: usize) -> u64;

    /// The chunks of a page, in order, none of them empty, each beginning where the one before ends. Panics as
    /// [`ObjectChunks::page_start`].
    ///
    /// Errors: the page lies in a store that did not answer.
    fn page(&self, page: usize) -> Result<Vec<ChunkSpan>>;
}

/// A chunk index file as the list of an object.
#[derive(Clone, Debug)]
pub struct IndexedObject {
    index: ChunkIndex,
    name: [u8; 32],
}

impl IndexedObject {
    /// Reads the whole file once, to name the list.
    pub fn new(index: ChunkIndex) -> Self {
        let name = *blake3::hash(index.as_bytes()).as_bytes();
        Self { index, name }
    }
}

impl ObjectChunks for IndexedObject {
    fn name(&self) -> [u8; 32] {
        self.name
    }

    fn object_len(&self) -> u64 {
        self.index.blob_len()
    }

    fn pages(&self) -> usize {
        self.index.len().div_ceil(PAGE_LEN)
    }

    fn page_start(&self, page: usize) -> u64 {
        self.index.span(page * PAGE_LEN).range.start
    }

    fn page(&self, page: usize) -> Result<Vec<ChunkSpan>> {
        let first = page * PAGE_LEN;
        let end = (first + PAGE_LEN).min(self.index.len());
        Ok((first..end).map(|at| self.index.span(at)).collect())
    }
}
