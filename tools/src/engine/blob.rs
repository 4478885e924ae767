//! A blob that can be read anywhere: its index, a store, and a few decoded chunks kept in memory.
//!
//! Hot path of mounts and of lookups in archives. Reads of one batch of chunks are one call of the store; reads that follow
//! one another make threads of its own fetch what comes next. Keep out: the lock over I/O or copies, a chunk fetched twice
//! at a time.
//!
//! Invariants: nothing is handed out that was not proven by its id; at most [`BlobOptions::cache_len`] bytes of decoded
//! chunks are kept, and beside them only what reads in progress hold; the threads end with the blob.

#![allow(dead_code, reason = "archives and mounts, which come next, use all of it")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bytes::Bytes;
use cairn_formats::{ChunkId, ChunkIndex, EncodedChunk, FeatureFlags, NullChunk};
use cairn_store::ChunkStore;

use super::batch::lock;
use super::{Error, Result};

/// Chunks asked of the store in one call.
const BATCH_CHUNKS_MAX: usize = 64;
/// Sequential readers told apart; more push out the one that was quiet longest.
const READERS_MAX: usize = 16;
/// Batches that may wait for a readahead thread; further ones are forgotten, reading fetches them.
const QUEUE_MAX: usize = 64;
/// A read goes on an earlier one when it starts at most so many of its own lengths away from where that one ended: a kernel
/// that reads ahead has several requests on their way, and they come in any order.
const READ_LENS_APART_MAX: u64 = 4;

/// How much a blob keeps and fetches ahead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlobOptions {
    /// Decoded bytes kept.
    pub(crate) cache_len: u64,
    /// Bytes fetched ahead of a sequential reader at most; 0 for none.
    pub(crate) readahead_len: u64,
    /// Threads that fetch ahead.
    pub(crate) readahead_threads: usize,
}

impl Default for BlobOptions {
    fn default() -> Self {
        Self {
            cache_len: 64 << 20,
            readahead_len: 8 << 20,
            readahead_threads: 4,
        }
    }
}

impl BlobOptions {
    /// For a few lookups: nothing is fetched that was not asked for.
    pub(crate) fn lookup() -> Self {
        Self {
            cache_len: 16 << 20,
            readahead_len: 0,
            readahead_threads: 0,
        }
    }
}

/// A blob by its index and a store that has its chunks. Any number of threads may read it at once.
#[derive(Debug)]
pub(crate) struct IndexedBlob {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    index: ChunkIndex,
    null: NullChunk,
    /// As many as the null chunk has.
    zeros: Bytes,
    store: Arc<dyn ChunkStore>,
    options: BlobOptions,
    state: Mutex<State>,
    /// A chunk has come or failed.
    changed: Condvar,
    /// There is something to fetch ahead, or the end.
    queued: Condvar,
}

/// A chunk is known by its id and the length that the index gives: an index may lie about one of several items.
type Key = (ChunkId, u64);

#[derive(Debug, Default)]
struct State {
    chunks: HashMap<Key, Slot>,
    /// Ready chunks by when they were used last.
    by_use: BTreeMap<u64, Key>,
    clock: u64,
    held_len: u64,
    readers: Vec<Reader>,
    queue: VecDeque<Range<usize>>,
    stopped: bool,
}

#[derive(Debug)]
enum Slot {
    /// Some thread is fetching it.
    Coming,
    Ready {
        plain: Bytes,
        used: u64,
    },
}

/// A stream of reads that follow one another.
#[derive(Clone, Copy, Debug)]
struct Reader {
    /// Where the next read would start.
    next: u64,
    /// Items up to here were asked for ahead.
    ahead: usize,
    window: u64,
    used: u64,
}

impl IndexedBlob {
    /// A blob to read. Nothing is fetched now.
    pub(crate) fn new(index: ChunkIndex, store: Arc<dyn ChunkStore>, options: BlobOptions) -> Self {
        let null = NullChunk::of(&index);
        let shared = Arc::new(Shared {
            index,
            null,
            zeros: Bytes::from(vec![0; null.plain_len()]),
            store,
            options,
            state: Mutex::default(),
            changed: Condvar::new(),
            queued: Condvar::new(),
        });
        Self {
            shared,
            threads: Mutex::default(),
        }
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.shared.index.blob_len()
    }

    /// The feature flags of the index.
    pub(crate) fn flags(&self) -> FeatureFlags {
        self.shared.index.flags()
    }

    /// The store that has the chunks.
    pub(crate) fn store(&self) -> &dyn ChunkStore {
        &*self.shared.store
    }

    /// The index.
    pub(crate) fn index(&self) -> &ChunkIndex {
        &self.shared.index
    }

    /// Fills `buffer` with the bytes from `offset` on; fewer only where the blob ends. Returns how many.
    ///
    /// Errors: the first chunk that is missing, unreachable, damaged, or of another length than the index says.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let end = offset.saturating_add(buffer.len() as u64).min(self.len());
        if offset >= end {
            return Ok(0);
        }
        self.plan_ahead(offset, end);
        self.fill(offset, &mut buffer[..(end - offset) as usize])
    }

    /// [`IndexedBlob::read_at`] of a range inside the blob; nothing is fetched ahead.
    fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let end = offset + buffer.len() as u64;
        let index = &self.shared.index;
        let first = index.find(offset).expect("the offset is inside the blob");
        let last = index.find(end - 1).expect("the end is inside the blob");
        let mut batch = first;
        while batch <= last {
            let items = batch..(batch + BATCH_CHUNKS_MAX).min(last + 1);
            batch = items.end;
            for (item, plain) in items.clone().zip(self.shared.chunks(items)?) {
                let span = index.span(item).range;
                let (from, to) = (span.start.max(offset), span.end.min(end));
                let source = &plain[(from - span.start) as usize..(to - span.start) as usize];
                buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
        Ok((end - offset) as usize)
    }

    /// The bytes from `offset` on, at most `len`; fewer only where the blob ends. Those of a single chunk are not copied.
    ///
    /// Errors: as [`IndexedBlob::read_at`].
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        let end = offset.saturating_add(len as u64).min(self.len());
        if offset < end {
            self.plan_ahead(offset, end);
        }
        self.peek(offset, len)
    }

    /// As [`IndexedBlob::read`], of a few bytes that nobody goes on from: nothing is fetched ahead.
    pub(crate) fn peek(&self, offset: u64, len: usize) -> Result<Bytes> {
        let end = offset.saturating_add(len as u64).min(self.len());
        if offset >= end {
            return Ok(Bytes::new());
        }
        let index = &self.shared.index;
        let first = index.find(offset).expect("the offset is inside the blob");
        let span = index.span(first).range;
        if span.end >= end {
            let plain = self.shared.chunk(first)?;
            return Ok(plain.slice((offset - span.start) as usize..(end - span.start) as usize));
        }
        let mut bytes = vec![0; (end - offset) as usize];
        self.fill(offset, &mut bytes)?;
        Ok(bytes.into())
    }

    /// The plain bytes of whole items, in order; the caller bounds how many. Counts as a read for what is fetched ahead.
    ///
    /// Errors: as [`IndexedBlob::read_at`].
    pub(crate) fn items(&self, items: Range<usize>) -> Result<Vec<Bytes>> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let index = &self.shared.index;
        let (start, end) = (index.span(items.start).range.start, index.span(items.end - 1).range.end);
        self.plan_ahead(start, end);
        self.shared.chunks(items)
    }

    /// Whether an item is a whole run of zeros, which no store is asked for.
    pub(crate) fn is_null(&self, item: usize) -> bool {
        self.shared.is_null(self.shared.key(item))
    }

    /// Notes a read and, where it goes on an earlier one, lets the threads fetch what comes next.
    fn plan_ahead(&self, offset: u64, end: u64) {
        let options = &self.shared.options;
        if options.readahead_len == 0 || options.readahead_threads == 0 {
            return;
        }
        let index = &self.shared.index;
        let next_item = index.find(end - 1).expect("the end is inside the blob") + 1;
        let mut state = lock(&self.shared.state);
        state.clock += 1;
        let used = state.clock;
        let apart_max = READ_LENS_APART_MAX * (end - offset);
        let goes_on = |reader: &&mut Reader| reader.next.abs_diff(offset) <= apart_max;
        let Some(reader) = state.readers.iter_mut().find(goes_on) else {
            let reader = Reader {
                next: end,
                ahead: next_item,
                window: 2 * index.sizes().max() as u64,
                used,
            };
            if state.readers.len() < READERS_MAX {
                state.readers.push(reader);
            } else if let Some(quiet) = state.readers.iter_mut().min_by_key(|reader| reader.used) {
                *quiet = reader;
            }
            return;
        };
        let end = end.max(reader.next);
        reader.next = end;
        reader.used = used;
        reader.window = (2 * reader.window).min(options.readahead_len);
        let from = reader.ahead.max(next_item);
        let target = end.saturating_add(reader.window).min(index.blob_len());
        let to = index.find(target).unwrap_or(index.len());
        // Asked for again when half the window is used up: batches, not single chunks.
        let fetched_to = if from == 0 { 0 } else { index.span(from - 1).range.end };
        if to <= from || target < index.blob_len() && fetched_to > end + reader.window / 2 {
            return;
        }
        reader.ahead = to;
        let parts = (to - from)
            .div_ceil(options.readahead_threads)
            .clamp(1, BATCH_CHUNKS_MAX);
        let mut start = from;
        while start < to && state.queue.len() < QUEUE_MAX {
            let part = start..(start + parts).min(to);
            start = part.end;
            state.queue.push_back(part);
        }
        drop(state);
        self.shared.queued.notify_all();
        let mut threads = lock(&self.threads);
        while threads.len() < options.readahead_threads {
            let shared = Arc::clone(&self.shared);
            threads.push(std::thread::spawn(move || shared.fetch_ahead()));
        }
    }
}

impl Drop for IndexedBlob {
    fn drop(&mut self) {
        lock(&self.shared.state).stopped = true;
        self.shared.queued.notify_all();
        for thread in lock(&self.threads).drain(..) {
            // A panic there has been printed; there is nothing to undo.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn key(&self, item: usize) -> Key {
        let span = self.index.span(item);
        (span.id, span.range.end - span.range.start)
    }

    fn is_null(&self, key: Key) -> bool {
        key.0 == self.null.id() && key.1 == self.null.plain_len() as u64
    }

    /// [`Shared::chunks`] of one item, without its lists where the item is in memory.
    fn chunk(&self, item: usize) -> Result<Bytes> {
        let key = self.key(item);
        if self.is_null(key) {
            return Ok(self.zeros.clone());
        }
        if let Some(Some(plain)) = lock(&self.state).get(key) {
            return Ok(plain);
        }
        let mut chunks = self.chunks(item..item + 1)?;
        Ok(chunks.pop().expect("one answer per item"))
    }

    /// The plain bytes of some items, in order: from memory, from whoever is fetching them, else from the store in one call.
    fn chunks(&self, items: Range<usize>) -> Result<Vec<Bytes>> {
        let keys: Vec<Key> = items.clone().map(|item| self.key(item)).collect();
        let zeros = |key: &Key| self.is_null(*key).then(|| self.zeros.clone());
        let mut found: Vec<Option<Bytes>> = keys.iter().map(zeros).collect();
        loop {
            let mut mine = Vec::new();
            let mut waiting = false;
            let mut state = lock(&self.state);
            for (at, key) in keys.iter().enumerate() {
                if found[at].is_some() {
                    continue;
                }
                match state.get(*key) {
                    Some(Some(plain)) => found[at] = Some(plain),
                    Some(None) => waiting = true,
                    None => {
                        state.chunks.insert(*key, Slot::Coming);
                        mine.push(items.start + at);
                    }
                }
            }
            if !mine.is_empty() {
                drop(state);
                for (item, plain) in self.fetch(&mine)? {
                    let key = self.key(item);
                    for (slot, other) in found.iter_mut().zip(&keys) {
                        if *other == key {
                            *slot = Some(plain.clone());
                        }
                    }
                }
            } else if waiting {
                drop(wait(&self.changed, state));
            } else {
                return Ok(found.into_iter().flatten().collect());
            }
        }
    }

    /// Fetches and proves items whose slots this thread has marked as coming. On an error the marks of those that did not come
    /// are taken back, so that whoever waits for one tries for itself and meets its own error.
    fn fetch(&self, items: &[usize]) -> Result<Vec<(usize, Bytes)>> {
        let mut marks = Marks {
            shared: self,
            keys: items.iter().map(|&item| self.key(item)).collect(),
        };
        let ids: Vec<ChunkId> = marks.keys.iter().map(|key| key.0).collect();
        let answers: Vec<cairn_store::Result<EncodedChunk>> = self.store.get_many(&ids);
        let mut chunks = Vec::with_capacity(items.len());
        let mut failure: Option<Error> = None;
        let (mut got, mut encoded, mut lens) = (Vec::new(), Vec::new(), Vec::new());
        for ((&item, answer), key) in items.iter().zip(answers).zip(&marks.keys) {
            match answer {
                Ok(chunk) => {
                    got.push(item);
                    encoded.push(chunk);
                    lens.push(Some(key.1 as usize));
                }
                Err(error) => failure = failure.or(Some(error.into())),
            }
        }
        let opened = EncodedChunk::open_exact_many(&encoded, self.index.digest_algorithm(), &lens);
        for (item, opened) in got.into_iter().zip(opened) {
            match opened {
                Ok(chunk) => chunks.push((item, chunk.into_plain())),
                Err(source) => {
                    let offset = self.index.span(item).range.start;
                    failure = failure.or(Some(Error::Chunk { offset, source }));
                }
            }
        }
        let mut state = lock(&self.state);
        for (item, plain) in &chunks {
            let key = self.key(*item);
            state.put(key, plain.clone(), self.options.cache_len);
            marks.keys.retain(|mark| *mark != key);
        }
        drop(state);
        drop(marks);
        match failure {
            Some(error) => Err(error),
            None => Ok(chunks),
        }
    }

    /// The work of a readahead thread. Errors are left to the reader who comes to that place.
    fn fetch_ahead(&self) {
        let mut state = lock(&self.state);
        while !state.stopped {
            let Some(items) = state.queue.pop_front() else {
                state = wait(&self.queued, state);
                continue;
            };
            let mut mine = Vec::new();
            for item in items {
                let key = self.key(item);
                if self.is_null(key) {
                    continue;
                }
                if let std::collections::hash_map::Entry::Vacant(slot) = state.chunks.entry(key) {
                    slot.insert(Slot::Coming);
                    mine.push(item);
                }
            }
            drop(state);
            if !mine.is_empty() {
                let _ = self.fetch(&mine);
            }
            state = lock(&self.state);
        }
    }
}

fn wait<'a>(until: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    until.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Marks "coming" that are to be taken back, whatever happens.
struct Marks<'a> {
    shared: &'a Shared,
    keys: Vec<Key>,
}

impl Drop for Marks<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        for key in &self.keys {
            if matches!(state.chunks.get(key), Some(Slot::Coming)) {
                state.chunks.remove(key);
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl State {
    /// `Some(None)` for a chunk that is on its way.
    fn get(&mut self, key: Key) -> Option<Option<Bytes>> {
        match self.chunks.get_mut(&key)? {
            Slot::Coming => Some(None),
            Slot::Ready { plain, used } => {
                self.clock += 1;
                self.by_use.remove(used);
                *used = self.clock;
                self.by_use.insert(self.clock, key);
                Some(Some(plain.clone()))
            }
        }
    }

    fn put(&mut self, key: Key, plain: Bytes, cache_len: u64) {
        self.clock += 1;
        let used = self.clock;
        self.held_len += plain.len() as u64;
        self.by_use.insert(used, key);
        if let Some(Slot::Ready { plain, used }) = self.chunks.insert(key, Slot::Ready { plain, used }) {
            self.held_len -= plain.len() as u64;
            self.by_use.remove(&used);
        }
        while self.held_len > cache_len
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            if let Some(Slot::Ready { plain, .. }) = self.chunks.remove(&oldest) {
                self.held_len -= plain.len() as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_formats::{Chunk, ChunkForm, ChunkSizes, DigestAlgorithm, IndexEncoder, Level};
    use cairn_store::{FlatOptions, FlatStore};

    use super::*;

    const DIGEST: DigestAlgorithm = DigestAlgorithm::Sha512_256;

    /// A store, an index and the bytes of a blob of 300 chunks, some of them equal.
    fn stored(folder: &std::path::Path) -> (ChunkIndex, Arc<FlatStore>, Vec<u8>) {
        let store = FlatStore::open(folder, FlatOptions::default()).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut index = Vec::new();
        let mut encoder = IndexEncoder::start(FeatureFlags::blob(DIGEST), ChunkSizes::DEFAULT, &mut index);
        let mut bytes = Vec::new();
        for number in 0..300 {
            let len = if number % 10 == 3 { 5000 } else { random.usize(1..9000) };
            let plain: Vec<u8> = if number % 10 == 3 {
                vec![3; len]
            } else {
                std::iter::repeat_with(|| random.u8(..)).take(len).collect()
            };
            let chunk = Chunk::from_plain(DIGEST, Bytes::from(plain));
            store
                .put_many(&[chunk.encode(ChunkForm::Compressed, Level::DEFAULT)])
                .unwrap();
            encoder.push(chunk.id(), len, &mut index);
            bytes.extend_from_slice(chunk.plain());
        }
        store.flush().unwrap();
        encoder.finish(&mut index);
        (ChunkIndex::parse(index.into()).unwrap(), Arc::new(store), bytes)
    }

    #[test]
    fn any_range_is_read_by_many_threads_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (index, store, bytes) = stored(folder.path());
        for options in [
            BlobOptions::default(),
            BlobOptions::lookup(),
            BlobOptions {
                cache_len: 20_000,
                readahead_len: 100_000,
                readahead_threads: 2,
            },
        ] {
            let blob = IndexedBlob::new(index.clone(), store.clone(), options);
            assert_eq!(blob.len(), bytes.len() as u64);
            std::thread::scope(|scope| {
                for seed in 0..4 {
                    let (blob, bytes) = (&blob, &bytes);
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(seed);
                        let mut offset = 0;
                        for _ in 0..200 {
                            if random.bool() {
                                offset = random.usize(..bytes.len() + 10);
                            }
                            let mut buffer = vec![0; random.usize(..40_000)];
                            let read = blob.read_at(offset as u64, &mut buffer).unwrap();
                            let expected = &bytes[offset.min(bytes.len())..(offset + buffer.len()).min(bytes.len())];
                            assert!(&buffer[..read] == expected, "{offset} {}", buffer.len());
                            offset += read;
                        }
                    });
                }
            });
            let state = lock(&blob.shared.state);
            assert!(state.held_len <= options.cache_len);
        }
    }

    #[test]
    fn a_missing_chunk_is_named_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let (index, _, bytes) = stored(folder.path());
        let empty = tempfile::tempdir().unwrap();
        let store = FlatStore::open(empty.path(), FlatOptions::default()).unwrap();
        let blob = IndexedBlob::new(index.clone(), Arc::new(store), BlobOptions::default());
        for offset in [0, 0, bytes.len() as u64 / 2] {
            let id = index.span(index.find(offset).unwrap()).id;
            let error = blob.read_at(offset, &mut [0; 10]).unwrap_err();
            assert!(error.to_string().contains(&id.to_string()), "{error}");
        }
    }
}
