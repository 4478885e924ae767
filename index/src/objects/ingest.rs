//! Bytes in, chunks stored: cut, named together, looked up, and what is missing compressed and put, a block at a time.
//!
//! Memory: one block, and what the digests' thread has not taken yet. Chunks are durable with the commit that names them, not
//! before. Hot path: bytes are copied once, into their block.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cairn_formats::{
    Chunk, ChunkForm, ChunkId, CutRule, DigestAlgorithm, Level, PartCuts, PartCutter, StorableChunk, compress_frame,
};
use cairn_store::{Buffer, Buffers, ChunkStore as _, PackStore};

use crate::Result;
use crate::liveness::ManifestChunk;

/// Bytes of a part that are kept in memory for its seams; what is longer is read again.
const FRINGE_LEN_MAX: usize = 1 << 20;

/// A block of up to this many bytes grows as it needs.
const GROWS_LEN: usize = 64 << 10;

/// How chunks are stored when they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// At this level of zstd; those of which a sample does not shrink (media, archives, what is encrypted) in raw blocks.
    Level(i32),
    /// In raw blocks; they are compressed when the store has time.
    Deferred,
}

impl Compression {
    pub(super) fn encode(self, chunk: &Chunk) -> StorableChunk {
        match self {
            Self::Level(level) if is_worth_it(chunk.plain()) => chunk.encode(ChunkForm::Compressed, Level::new(level)),
            Self::Level(_) | Self::Deferred => chunk.encode_raw(),
        }
    }
}

/// Chunks up to this length are compressed without asking.
const PROBED_LEN_MIN: usize = 16 << 10;
/// Bytes that are tried, in two pieces from within a chunk.
const PROBE_LEN: usize = 4 << 10;

/// Whether a sample of a chunk shrinks by a hundredth at least.
fn is_worth_it(plain: &[u8]) -> bool {
    if plain.len() < PROBED_LEN_MIN {
        return true;
    }
    let (first, second) = (plain.len() / 4, plain.len() / 4 * 3);
    let sample = [&plain[first..][..PROBE_LEN / 2], &plain[second..][..PROBE_LEN / 2]].concat();
    compress_frame(&sample, Level::new(1)).len() < PROBE_LEN - PROBE_LEN / 100
}

/// What became of the bytes of an upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestCounts {
    /// Bytes that came.
    pub bytes: u64,
    /// Chunks that they were cut into.
    pub chunks: u64,
    /// Of those, chunks that were not there, and were put.
    pub new_chunks: u64,
    /// Plain bytes of those.
    pub new_bytes: u64,
    /// Bytes of their frames.
    pub stored_bytes: u64,
}

/// Where chunks go, and how.
#[derive(Clone, Debug)]
pub(super) struct ChunkSink {
    pub(super) store: PackStore,
    pub(super) algorithm: DigestAlgorithm,
    pub(super) compression: Compression,
    /// Bytes of frames that wait to be compressed, of all sinks together.
    pub(super) deferred: Arc<AtomicU64>,
    /// For blocks.
    pub(super) buffers: Buffers,
}

impl ChunkSink {
    /// Puts those of these chunks that are not there. Returns all of them, in order.
    pub(super) fn put(&self, plains: Vec<Bytes>, counts: &mut IngestCounts) -> Result<Vec<ManifestChunk>> {
        let chunks = Chunk::from_plain_many(self.algorithm, plains);
        let mut seen = HashSet::with_capacity(chunks.len());
        let once: Vec<&Chunk> = chunks.iter().filter(|chunk| seen.insert(chunk.id())).collect();
        let ids: Vec<ChunkId> = once.iter().map(|chunk| chunk.id()).collect();
        let there = self.store.has_many(&ids)?;
        let missing = once
            .into_iter()
            .zip(there)
            .filter_map(|(chunk, there)| (!there).then_some(chunk));
        let frames: Vec<StorableChunk> = missing.map(|chunk| self.compression.encode(chunk)).collect();
        self.store.put_many(&frames)?;
        let stored_bytes = frames.iter().map(|frame| frame.bytes().len() as u64).sum::<u64>();
        counts.chunks += chunks.len() as u64;
        counts.new_chunks += frames.len() as u64;
        counts.new_bytes += frames.iter().map(|frame| frame.plain_len() as u64).sum::<u64>();
        counts.stored_bytes += stored_bytes;
        if self.compression == Compression::Deferred {
            self.deferred.fetch_add(stored_bytes, Ordering::Relaxed);
        }
        let named = |chunk: &Chunk| ManifestChunk {
            id: chunk.id(),
            // Chunks are at most CHUNK_LEN_MAX bytes.
            len: u32::try_from(chunk.plain().len()).unwrap_or(u32::MAX),
        };
        Ok(chunks.iter().map(named).collect())
    }
}

/// Cuts bytes into chunks and stores them.
#[derive(Debug)]
pub(super) struct Ingest {
    sink: ChunkSink,
    cutter: PartCutter,
    /// The open chunk, and what has come since.
    block: Buffer,
    /// How much of the block has been looked at for cuts.
    searched: usize,
    chunks: Vec<ManifestChunk>,
    counts: IngestCounts,
    /// Of a part.
    fringe: Option<Fringe>,
    /// What comes now is behind the part's first certified cut.
    is_certified: bool,
}

/// Plain bytes of a part's first and last chunks: the seams to its neighbours are cut from them.
#[derive(Debug, Default)]
pub(super) struct Fringe {
    plain: HashMap<usize, Bytes>,
    len: usize,
}

impl Fringe {
    /// Keeps an own chunk, if there is room for it.
    pub(super) fn keep(&mut self, chunk: usize, plain: &[u8]) {
        if self.len + plain.len() <= FRINGE_LEN_MAX {
            self.len += plain.len();
            // A copy: what it is a piece of is longer.
            self.plain.insert(chunk, Bytes::copy_from_slice(plain));
        }
    }

    pub(super) fn into_plain(self) -> HashMap<usize, Bytes> {
        self.plain
    }
}

/// Bytes that have all been cut and put.
#[derive(Debug)]
pub(super) struct Ingested {
    pub(super) chunks: Vec<ManifestChunk>,
    pub(super) cuts: PartCuts,
    pub(super) counts: IngestCounts,
    pub(super) fringe: Option<Fringe>,
}

impl Ingest {
    /// One that keeps what the seams of a part are cut from.
    pub(super) fn of_part(sink: ChunkSink, rule: CutRule) -> Self {
        Self {
            fringe: Some(Fringe::default()),
            ..Self::new(sink, rule)
        }
    }

    pub(super) fn new(sink: ChunkSink, rule: CutRule) -> Self {
        Self {
            cutter: PartCutter::new(rule),
            block: sink.buffers.lend(0),
            sink,
            searched: 0,
            chunks: Vec::new(),
            counts: IngestCounts::default(),
            fringe: None,
            is_certified: false,
        }
    }

    /// What became of the bytes so far.
    pub(super) fn counts(&self) -> IngestCounts {
        self.counts
    }

    /// Whether it keeps what seams are cut from.
    pub(super) fn is_of_part(&self) -> bool {
        self.fringe.is_some()
    }

    /// Bytes of them that nobody has seen yet.
    pub(super) fn unseen(&self) -> usize {
        self.block.len() - self.searched
    }

    /// Takes the next bytes.
    ///
    /// - `room`: how many will come at most before the block is put.
    pub(super) fn push(&mut self, bytes: &[u8], room: usize) {
        self.counts.bytes += bytes.len() as u64;
        if self.block.len() + bytes.len() > GROWS_LEN {
            // What has grown past this becomes a whole block, which is not to have twice its memory.
            self.make_room(room.max(bytes.len()));
        }
        self.block.extend(bytes);
    }

    /// Room for `more` bytes.
    fn make_room(&mut self, more: usize) {
        let len = self.block.len() + more;
        if self.block.capacity() < len {
            let mut longer = self.sink.buffers.lend(len);
            longer.extend(self.block.as_ref());
            self.block = longer;
        }
    }

    /// The block so far; what follows goes into another.
    fn end_block(&mut self) -> Bytes {
        let next = self.sink.buffers.lend(0);
        std::mem::replace(&mut self.block, next).into_bytes()
    }

    /// All that came, if nothing was put yet.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        (self.counts.bytes == self.block.len() as u64 && self.searched == 0).then_some(self.block.as_ref())
    }

    /// What came, to be looked at by others, too, before it is cut.
    pub(super) fn take_block(&mut self) -> Block {
        Block {
            bytes: self.end_block(),
            seen: std::mem::take(&mut self.searched),
        }
    }

    /// Chunks that were put, for who does not want all of them together. Not of a part.
    pub(super) fn take_chunks(&mut self) -> Vec<ManifestChunk> {
        std::mem::take(&mut self.chunks)
    }

    /// Cuts a block and puts the chunks that have ended in it.
    pub(super) fn put_block(&mut self, block: Block) -> Result<()> {
        let Block { bytes, seen } = block;
        let (mut at, mut start) = (seen, 0);
        let mut plains = Vec::new();
        while let Some(len) = self.cutter.cut(&bytes[at..]) {
            at += len;
            let plain = bytes.slice(start..at);
            if let Some(fringe) = self.fringe.as_mut().filter(|_| !self.is_certified) {
                fringe.keep(self.chunks.len() + plains.len(), &plain);
                self.is_certified = self.cutter.certified().is_some();
            }
            plains.push(plain);
            start = at;
        }
        self.chunks.extend(self.sink.put(plains, &mut self.counts)?);
        self.block.extend(&bytes[start..]);
        self.searched = self.block.len();
        Ok(())
    }

    /// The end: what came last has been put, and the open chunk ends here.
    pub(super) fn finish(mut self) -> Result<Ingested> {
        debug_assert_eq!(self.unseen(), 0, "the last block has been put");
        if !self.block.is_empty() {
            let open = self.end_block();
            if let Some(fringe) = &mut self.fringe {
                fringe.keep(self.chunks.len(), &open);
            }
            self.chunks.extend(self.sink.put(vec![open], &mut self.counts)?);
        }
        Ok(Ingested {
            chunks: self.chunks,
            cuts: self.cutter.finish(),
            counts: self.counts,
            fringe: self.fringe,
        })
    }
}

/// Bytes that came together; the first of them may have been seen before.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Bytes,
    seen: usize,
}

impl Block {
    /// Those that were not.
    pub(super) fn fresh(&self) -> Bytes {
        self.bytes.slice(self.seen..)
    }
}
