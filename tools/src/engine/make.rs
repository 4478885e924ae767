//! One pass over an input: cut, name, ask the store what it has, compress and store the rest, hand on the index in order.
//!
//! Hot path. One thread reads and cuts blocks, workers do the rest of a block on warm data, the caller's thread puts the
//! results in order. Keep out: payload copies (chunks are slices of the block), per-chunk store calls, unbounded queues.
//!
//! Invariants: a chunk's bytes are read once; `on_chunk` sees chunks in stream order; at most `MakeOptions::window` blocks
//! are in flight; when [`make`] returns `Ok`, every chunk named to `on_chunk` is durable in the store.

use std::collections::{BTreeMap, HashSet};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cairn_formats::{Chunk, ChunkForm, ChunkId, ChunkIndex, ChunkSizes, Chunker, Dialect, DigestAlgorithm, Level};
use cairn_store::ChunkStore;
use crossbeam_channel as channel;

use super::buffer::BufferPool;
use super::error::file;
use super::{Error, Progress, Result};

/// Bytes read at a time: enough chunks to fill the digest's lanes, small enough to stay in cache.
const BLOCK_LEN: usize = 2 << 20;

/// How many ids of this run are remembered so that a chunk still on its way into the store is not compressed twice.
const RECENT_IDS_MAX: usize = 1 << 17;

/// How an input is cut and stored.
#[derive(Clone, Debug)]
pub(crate) struct MakeOptions {
    /// Smallest, average and largest chunk.
    pub(crate) sizes: ChunkSizes,
    /// Whose cut rule.
    pub(crate) dialect: Dialect,
    /// What names the chunks.
    pub(crate) digest: DigestAlgorithm,
    /// Form of new chunks.
    pub(crate) form: ChunkForm,
    /// Compression level of new chunks.
    pub(crate) level: Level,
    /// Threads that hash, compress and store.
    pub(crate) workers: usize,
}

impl Default for MakeOptions {
    fn default() -> Self {
        Self {
            sizes: ChunkSizes::DEFAULT,
            dialect: Dialect::default(),
            digest: DigestAlgorithm::default(),
            form: ChunkForm::Compressed,
            level: Level::DEFAULT,
            workers: super::default_workers(),
        }
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MakeReport {
    /// Bytes read.
    pub(crate) bytes: u64,
    /// Chunks cut, repeats counted.
    pub(crate) chunks: u64,
    /// Chunks that this run stored.
    pub(crate) chunks_stored: u64,
    /// Plain bytes of those.
    pub(crate) bytes_stored_plain: u64,
    /// Encoded bytes of those.
    pub(crate) bytes_stored: u64,
}

/// Where a chunk's cuts come from.
enum Cuts<'a> {
    /// Content decides.
    Content(Box<Chunker>),
    /// An index decides, and its ids are checked.
    Index { index: &'a ChunkIndex, next: usize },
}

/// Whole chunks of the stream, in order.
struct Block {
    number: u64,
    /// Offset of the first chunk.
    offset: u64,
    chunks: Vec<Bytes>,
    /// With an index: position of the first chunk in it.
    first: usize,
}

/// A block whose chunks have names and, where there is a store, are in it.
struct Named {
    number: u64,
    chunks: Vec<(ChunkId, usize)>,
}

/// Cuts a stream and stores its chunks.
///
/// - `path`: what the stream is called in errors.
/// - `store`: where new chunks go; `None` names them only.
/// - `on_chunk`: gets each chunk's id and length in stream order.
/// - Errors: the first that any stage met; the store then holds no torn chunk, perhaps some whole ones.
pub(crate) fn make(
    input: &mut (dyn Read + Send),
    path: &Path,
    store: Option<&dyn ChunkStore>,
    options: &MakeOptions,
    progress: &Progress,
    on_chunk: &mut dyn FnMut(ChunkId, usize) -> Result<()>,
) -> Result<MakeReport> {
    let cuts = Cuts::Content(Box::new(Chunker::new(options.sizes, options.dialect)));
    run(
        input,
        path,
        cuts,
        options.sizes.max(),
        &|_| true,
        store,
        options,
        progress,
        on_chunk,
    )
}

/// Stores the chunks that an index names, read from the blob; the blob is checked against the index on the way.
///
/// - `wanted`: whether a chunk is to be stored; those that are not are checked all the same.
/// - Errors: [`Error::Mismatch`] or [`Error::Length`] when the blob is not what the index describes, else as [`make`].
pub(crate) fn chop(
    input: &mut (dyn Read + Send),
    path: &Path,
    index: &ChunkIndex,
    wanted: &(dyn Fn(ChunkId) -> bool + Sync),
    store: Option<&dyn ChunkStore>,
    options: &MakeOptions,
    progress: &Progress,
) -> Result<MakeReport> {
    let options = MakeOptions {
        digest: index.digest_algorithm(),
        ..options.clone()
    };
    let cuts = Cuts::Index { index, next: 0 };
    let report = run(
        input,
        path,
        cuts,
        index.sizes().max(),
        wanted,
        store,
        &options,
        progress,
        &mut |_, _| Ok(()),
    )?;
    if report.bytes != index.blob_len() {
        return Err(Error::Length {
            path: path.to_owned(),
            expected: index.blob_len(),
            found: report.bytes,
        });
    }
    Ok(report)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the two public forms above are what callers see"
)]
fn run(
    input: &mut (dyn Read + Send),
    path: &Path,
    cuts: Cuts<'_>,
    chunk_len_max: usize,
    wanted: &(dyn Fn(ChunkId) -> bool + Sync),
    store: Option<&dyn ChunkStore>,
    options: &MakeOptions,
    progress: &Progress,
    on_chunk: &mut dyn FnMut(ChunkId, usize) -> Result<()>,
) -> Result<MakeReport> {
    let workers = options.workers.max(1);
    let (block_sender, block_receiver) = channel::bounded::<Block>(1);
    let (named_sender, named_receiver) = channel::bounded::<Result<Named>>(workers);
    let index = match &cuts {
        Cuts::Content(_) => None,
        Cuts::Index { index, .. } => Some(*index),
    };
    let stage = Stage {
        path,
        store,
        options,
        wanted,
        index,
        recent: Mutex::new(HashSet::new()),
        stored: AtomicU64::new(0),
        stored_plain: AtomicU64::new(0),
        stored_encoded: AtomicU64::new(0),
    };
    let mut report = MakeReport::default();
    std::thread::scope(|scope| -> Result<()> {
        let failed = named_sender.clone();
        scope.spawn(move || {
            let mut reader = BlockReader {
                input,
                path,
                cuts,
                chunk_len_max,
                carry: Vec::new(),
                pool: BufferPool::default(),
            };
            if let Err(error) = reader.read_all(&block_sender, progress) {
                // The collector is gone only when it met an error first, which is the one to report.
                let _ = failed.send(Err(error));
            }
        });
        for _ in 0..workers {
            let (blocks, named, stage) = (block_receiver.clone(), named_sender.clone(), &stage);
            scope.spawn(move || {
                for block in blocks {
                    if named.send(stage.work(block)).is_err() {
                        return;
                    }
                }
            });
        }
        drop((block_receiver, named_sender));
        // Out-of-order results are ids only: at most a few blocks' worth, as many as there are workers and queue places.
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        for named in named_receiver {
            let named = named?;
            waiting.insert(named.number, named.chunks);
            while let Some(chunks) = waiting.remove(&next) {
                next += 1;
                let mut bytes = 0;
                for (id, len) in chunks {
                    on_chunk(id, len)?;
                    report.chunks += 1;
                    bytes += len as u64;
                }
                report.bytes += bytes;
                progress.advance(bytes);
            }
        }
        Ok(())
    })?;
    if let Some(store) = store {
        store.flush()?;
    }
    // Ctrl-C also ends the program at the other end of a pipe: what came before is no whole input.
    progress.check()?;
    report.chunks_stored = stage.stored.into_inner();
    report.bytes_stored_plain = stage.stored_plain.into_inner();
    report.bytes_stored = stage.stored_encoded.into_inner();
    Ok(report)
}

/// The reading side: fills blocks and cuts them.
struct BlockReader<'a> {
    input: &'a mut (dyn Read + Send),
    path: &'a Path,
    cuts: Cuts<'a>,
    chunk_len_max: usize,
    /// Bytes of the chunk still open at the end of the last block.
    carry: Vec<u8>,
    pool: BufferPool,
}

impl BlockReader<'_> {
    /// Reads to the end of the stream. A receiver that has gone away ends it quietly: somebody else reports why.
    fn read_all(&mut self, blocks: &channel::Sender<Block>, progress: &Progress) -> Result<()> {
        let (mut number, mut offset, mut first) = (0, 0, 0);
        loop {
            progress.check()?;
            // Room for the open chunk and a whole further one: a block always holds at least one cut.
            let len = (BLOCK_LEN + self.carry.len()).max(2 * self.chunk_len_max);
            let mut buffer = self.pool.take(len);
            let bytes = &mut buffer.bytes_mut()[..len];
            let carried = self.carry.len();
            bytes[..carried].copy_from_slice(&self.carry);
            let filled = carried + self.fill(&mut bytes[carried..])?;
            let end_of_input = filled < len;
            let buffer = Bytes::from_owner(buffer);
            let chunks = self.cut(&buffer, carried, filled, end_of_input);
            let cut: usize = chunks.iter().map(Bytes::len).sum();
            self.carry.clear();
            self.carry.extend_from_slice(&buffer[cut..filled]);
            let count = chunks.len();
            if count > 0
                && blocks
                    .send(Block {
                        number,
                        offset,
                        chunks,
                        first,
                    })
                    .is_err()
            {
                return Ok(());
            }
            number += u64::from(count > 0);
            offset += cut as u64;
            first += count;
            // Content-defined cuts take all of a stream; an index may end before the blob or name more than there is.
            let rest = self.carry.len() as u64;
            if let Cuts::Index { index, next } = &self.cuts
                && rest > 0
                && (end_of_input || *next == index.len())
            {
                let (path, expected) = (self.path.to_owned(), index.blob_len());
                return Err(Error::Length {
                    path,
                    expected,
                    found: offset + rest,
                });
            }
            if end_of_input {
                return Ok(());
            }
        }
    }

    fn fill(&mut self, mut room: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while !room.is_empty() {
            match self.input.read(room) {
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    room = &mut room[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(file(self.path, "read")(error)),
            }
        }
        Ok(filled)
    }

    /// The whole chunks in `buffer[..filled]`, of which the first `carried` bytes were looked at before.
    fn cut(&mut self, buffer: &Bytes, carried: usize, filled: usize, end_of_input: bool) -> Vec<Bytes> {
        let mut chunks = Vec::with_capacity(BLOCK_LEN >> 14);
        let mut start = 0;
        match &mut self.cuts {
            Cuts::Content(chunker) => {
                let mut seen = carried;
                while let Some(len) = chunker.cut(&buffer[seen..filled]) {
                    seen += len;
                    chunks.push(buffer.slice(start..seen));
                    start = seen;
                }
                if end_of_input && start < filled {
                    chunks.push(buffer.slice(start..filled));
                }
            }
            Cuts::Index { index, next } => {
                while *next < index.len() {
                    let span = index.span(*next).range;
                    let len = (span.end - span.start) as usize;
                    if filled - start < len {
                        break;
                    }
                    chunks.push(buffer.slice(start..start + len));
                    start += len;
                    *next += 1;
                }
            }
        }
        chunks
    }
}

/// What the workers share.
struct Stage<'a> {
    path: &'a Path,
    store: Option<&'a dyn ChunkStore>,
    options: &'a MakeOptions,
    wanted: &'a (dyn Fn(ChunkId) -> bool + Sync),
    index: Option<&'a ChunkIndex>,
    /// Ids that this run has seen lately and that are in the store or on their way into it.
    recent: Mutex<HashSet<ChunkId>>,
    stored: AtomicU64,
    stored_plain: AtomicU64,
    stored_encoded: AtomicU64,
}

impl Stage<'_> {
    fn work(&self, block: Block) -> Result<Named> {
        let chunks = Chunk::from_plain_many(self.options.digest, block.chunks);
        if let Some(index) = self.index {
            self.check(&chunks, index, block.first, block.offset)?;
        }
        let named = chunks.iter().map(|chunk| (chunk.id(), chunk.plain().len())).collect();
        if let Some(store) = self.store {
            self.store_new(store, chunks)?;
        }
        Ok(Named {
            number: block.number,
            chunks: named,
        })
    }

    fn check(&self, chunks: &[Chunk], index: &ChunkIndex, first: usize, mut offset: u64) -> Result<()> {
        for (at, chunk) in chunks.iter().enumerate() {
            let span = index.span(first + at);
            if span.id != chunk.id() {
                let path: PathBuf = self.path.to_owned();
                return Err(Error::Mismatch {
                    path,
                    offset,
                    id: span.id,
                    found: chunk.id(),
                });
            }
            offset += chunk.plain().len() as u64;
        }
        Ok(())
    }

    /// Dedup before compression: ask for the whole block at once, encode only what is missing.
    fn store_new(&self, store: &dyn ChunkStore, mut chunks: Vec<Chunk>) -> Result<()> {
        {
            let mut recent = self.recent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if recent.len() > RECENT_IDS_MAX {
                recent.clear();
            }
            chunks.retain(|chunk| (self.wanted)(chunk.id()) && recent.insert(chunk.id()));
        }
        let ids: Vec<ChunkId> = chunks.iter().map(Chunk::id).collect();
        let mut present = store.has_many(&ids)?.into_iter();
        chunks.retain(|_| !present.next().unwrap_or(false));
        let encoded: Vec<_> = chunks
            .iter()
            .map(|chunk| chunk.encode(self.options.form, self.options.level))
            .collect();
        drop(chunks);
        store.put_many(&encoded)?;
        self.stored.fetch_add(encoded.len() as u64, Ordering::Relaxed);
        let plain: usize = encoded.iter().map(cairn_formats::StorableChunk::plain_len).sum();
        let bytes: usize = encoded.iter().map(|chunk| chunk.bytes().len()).sum();
        self.stored_plain.fetch_add(plain as u64, Ordering::Relaxed);
        self.stored_encoded.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }
}
