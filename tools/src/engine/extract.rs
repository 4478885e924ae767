//! Rebuilding a blob: each chunk from the cheapest place that proves to hold it.
//!
//! Hot path. Workers take batches of neighbouring index items; a batch is one buffer, read, decoded and hashed in place and
//! written in as few calls as there are gaps. Keep out: a buffer per chunk, per-chunk writes, locks over I/O.
//!
//! Order of sources: zeros (a hole), what the target already holds (in place), seeds, what this run has already written, the
//! store. Nothing is written that was not hashed; a source that lies is passed over for the next one, the store's word is last.
//! A far store is asked for many chunks at a time, beside the work on near sources: its chunks are left to [`Deferred`].
//!
//! Invariants: without `in_place` the target's name changes only when everything is written; memory is a few batches, or what a
//! few calls to a far store fetch, plus four bytes per index item, which lie in a file when they are many.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use cairn_formats::{
    ChunkId, ChunkIndex, ChunkSpan, CutRule, Dialect, DigestAlgorithm, EncodedChunk, FeatureFlags, NullChunk,
};
use cairn_store::ChunkStore;

use super::batch::{BATCH_LEN_MAX, Batch, lock, read_full_at};
use super::buffer::BufferPool;
use super::deferred::Deferred;
use super::error::file;
use super::new_file::{name_file, new_file};
use super::position::PositionTable;
use super::{Error, IndexSpool, MakeOptions, Progress, Result, fetch, make, reflink};

/// Threads that fetch from a far store: while one decodes what it got, others wait for theirs.
const FETCHERS: usize = 3;

/// How a blob is rebuilt.
#[derive(Clone, Debug)]
pub(crate) struct ExtractOptions {
    /// Write into the target as it is (also the way to resume and to fill a device).
    pub(crate) in_place: bool,
    /// Sync the target before it gets its name. Devices are always synced.
    pub(crate) sync: bool,
    /// Try to share blocks with seeds.
    pub(crate) reflink: bool,
    /// Leave zeros out of new files.
    pub(crate) sparse: bool,
    /// Threads.
    pub(crate) workers: usize,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self {
            in_place: false,
            sync: false,
            reflink: true,
            sparse: true,
            workers: super::default_workers(),
        }
    }
}

/// A blob that may share chunks with the one wanted.
#[derive(Debug)]
pub(crate) struct Seed {
    index: ChunkIndex,
    positions: PositionTable,
    path: PathBuf,
    blob: File,
    can_share: AtomicBool,
    bad: AtomicU64,
}

impl Seed {
    /// Opens a seed. Nothing of the blob is read now: what is used is hashed when it is used.
    ///
    /// Errors: [`Error::File`] when the blob cannot be opened.
    pub(crate) fn open(index: ChunkIndex, blob: &Path) -> Result<Self> {
        let positions = PositionTable::build(&index).map_err(file(blob, "plan for"))?;
        let opened = File::open(blob).map_err(file(blob, "open the seed"))?;
        let can_share = AtomicBool::new(true);
        Ok(Self {
            index,
            positions,
            path: blob.to_owned(),
            blob: opened,
            can_share,
            bad: AtomicU64::new(0),
        })
    }

    /// Makes a seed of a file or device that has no index: reads it once and cuts it as `like` was cut.
    ///
    /// Errors: [`Error::File`] when it cannot be read.
    pub(crate) fn cut(blob: &Path, like: &ChunkIndex, progress: &Progress) -> Result<Self> {
        // Where desync could not have cut so, it was not desync.
        let dialect = like.flags().dialect();
        let dialect = CutRule::new(like.sizes(), dialect).map_or(Dialect::Casync, |_| dialect);
        let options = MakeOptions {
            sizes: like.sizes(),
            dialect,
            digest: like.digest_algorithm(),
            ..MakeOptions::default()
        };
        let mut opened = File::open(blob).map_err(file(blob, "open the seed"))?;
        let mut spool = IndexSpool::new(FeatureFlags::blob(options.digest), options.sizes)?;
        make(&mut opened, blob, None, &options, progress, &mut |id, len| {
            spool.push(id, len)
        })?;
        let index = ChunkIndex::parse(spool.finish()?).expect("an index as we write it");
        Self::open(index, blob)
    }

    /// The blob.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its index alone.
    pub(crate) fn into_index(self) -> ChunkIndex {
        self.index
    }

    /// Chunks that turned out not to be what the seed's index says.
    pub(crate) fn bad_chunks(&self) -> u64 {
        self.bad.load(Ordering::Relaxed)
    }

    /// Where the seed holds a chunk of this id and length.
    pub(super) fn find(&self, id: ChunkId, len: u64) -> Option<u64> {
        let range = self.index.span(self.positions.find(id, &self.index)?).range;
        (range.end - range.start == len).then_some(range.start)
    }
}

/// Where the bytes came from. All figures are plain bytes or chunks, repeats counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtractReport {
    /// Length of the blob.
    pub(crate) bytes: u64,
    /// Chunks of the blob.
    pub(crate) chunks: u64,
    /// Bytes left as holes or written as zeros.
    pub(crate) bytes_null: u64,
    /// Bytes that the target already held.
    pub(crate) bytes_in_place: u64,
    /// Bytes from seeds.
    pub(crate) bytes_seeds: u64,
    /// Of those, bytes whose blocks are shared.
    pub(crate) bytes_shared: u64,
    /// Bytes from places of the target written earlier in this run.
    pub(crate) bytes_self: u64,
    /// Bytes from the store.
    pub(crate) bytes_store: u64,
    /// Chunks asked of the store.
    pub(crate) chunks_store: u64,
    /// Chunks of seeds that were not what their index says.
    pub(crate) seed_chunks_bad: u64,
}

/// Rebuilds the blob of `index` at `target`.
///
/// - `seeds`: asked in order.
/// - Errors: the first that any worker met. Without `in_place` the target is then as it was; with it, a second run goes on.
pub(crate) fn extract(
    index: &ChunkIndex,
    target: &Path,
    store: &dyn ChunkStore,
    seeds: &[Seed],
    options: &ExtractOptions,
    progress: &Progress,
) -> Result<ExtractReport> {
    progress.set_total(index.blob_len());
    let existing = std::fs::metadata(target).ok();
    let device = existing.as_ref().is_some_and(|meta| meta.file_type().is_block_device());
    let special = existing.as_ref().is_some_and(|meta| !meta.is_file()) && !device;
    if special {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a block device");
        return Err(file(target, "extract to")(source));
    }
    if options.in_place || device {
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(target);
        let opened = opened.map_err(file(target, "open"))?;
        let held = if device {
            device_len(&opened, target, index)?
        } else {
            existing.map_or(0, |meta| meta.len())
        };
        if !device {
            opened
                .set_len(index.blob_len())
                .map_err(file(target, "set the length of"))?;
        }
        let run = Run::new(index, &opened, target, held, device, store, seeds, options, progress)?;
        let report = run.all()?;
        if device || options.sync {
            opened.sync_all().map_err(file(target, "sync"))?;
        }
        return Ok(report);
    }
    // The name that is replaced is the file's own, not that of a link to it.
    let target = &std::fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    let temporary = new_file(target, existing.map(|meta| meta.permissions()))?;
    temporary
        .as_file()
        .set_len(index.blob_len())
        .map_err(file(target, "set the length of"))?;
    if seeds.is_empty() {
        enough_space(index, target, temporary.as_file())?;
    }
    let run = Run::new(
        index,
        temporary.as_file(),
        target,
        0,
        false,
        store,
        seeds,
        options,
        progress,
    )?;
    let report = run.all()?;
    if options.sync {
        temporary.as_file().sync_all().map_err(file(target, "sync"))?;
    }
    name_file(temporary, target)?;
    Ok(report)
}

fn device_len(device: &File, path: &Path, index: &ChunkIndex) -> Result<u64> {
    let available = io::Seek::seek(&mut &*device, io::SeekFrom::End(0)).map_err(file(path, "measure"))?;
    if available < index.blob_len() {
        return Err(Error::Space {
            path: path.to_owned(),
            needed: index.blob_len(),
            available,
        });
    }
    Ok(available)
}

/// Refuses at once what cannot fit: an index may name petabytes with a few repeated ids. A blob without holes gets its blocks
/// here, together: they lie together on the disk, and writing to them takes a twentieth less CPU (ext4).
fn enough_space(index: &ChunkIndex, path: &Path, on: &File) -> Result<()> {
    let null = NullChunk::of(index);
    let needed = index
        .spans()
        .filter(|span| !null.is(span))
        .map(|span| span.range.end - span.range.start)
        .sum();
    let statistics =
        rustix::fs::fstatvfs(on).map_err(|error| file(path, "measure the free space for")(error.into()))?;
    let available = statistics.f_bavail.saturating_mul(statistics.f_frsize);
    if needed > available {
        return Err(Error::Space {
            path: path.to_owned(),
            needed,
            available,
        });
    }
    if needed == index.blob_len() {
        // Not every file system can; then the blocks are found as they are written.
        let _ = rustix::fs::fallocate(on, rustix::fs::FallocateFlags::empty(), 0, needed);
    }
    Ok(())
}

/// What is known of one item of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not found yet.
    Wanted,
    /// In the buffer, to be hashed, then written.
    Guess(Source),
    /// In the buffer and proven, to be written.
    Proven,
    /// In the target already.
    There,
    /// Left for later.
    Deferred,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Target,
    Seed(usize),
    Itself,
}

/// One extraction, shared by its workers.
struct Run<'a> {
    index: &'a ChunkIndex,
    digest: DigestAlgorithm,
    null: NullChunk,
    target: &'a File,
    path: &'a Path,
    /// Bytes that the target held before; what lies beyond reads as zeros.
    held: u64,
    device: bool,
    store: &'a dyn ChunkStore,
    seeds: &'a [Seed],
    own: PositionTable,
    /// One bit per item: it is in the target, proven.
    written: Vec<AtomicU64>,
    options: &'a ExtractOptions,
    progress: &'a Progress,
    next: AtomicUsize,
    pool: BufferPool,
    /// What a far store is asked for; none where the store is near.
    deferred: Option<Deferred>,
    /// Workers that may still leave something there.
    workers_left: AtomicUsize,
    /// Items whose chunk another item before them waits for.
    repeats: Mutex<Vec<usize>>,
}

/// A worker that ends, in whatever way: with the last of them nothing more is deferred.
struct Leaving<'a>(&'a Run<'a>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.0.workers_left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(deferred) = &self.0.deferred
        {
            deferred.end();
        }
    }
}

impl<'a> Run<'a> {
    #[expect(clippy::too_many_arguments, reason = "called twice, from `extract` alone")]
    fn new(
        index: &'a ChunkIndex,
        target: &'a File,
        path: &'a Path,
        held: u64,
        device: bool,
        store: &'a dyn ChunkStore,
        seeds: &'a [Seed],
        options: &'a ExtractOptions,
        progress: &'a Progress,
    ) -> Result<Self> {
        Ok(Self {
            index,
            digest: index.digest_algorithm(),
            null: NullChunk::of(index),
            target,
            path,
            held,
            device,
            store,
            seeds,
            own: PositionTable::build(index).map_err(file(path, "plan for"))?,
            written: (0..index.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            options,
            progress,
            next: AtomicUsize::new(0),
            pool: BufferPool::default(),
            deferred: store.is_far().then(Deferred::default),
            workers_left: AtomicUsize::new(options.workers.max(1)),
            repeats: Mutex::default(),
        })
    }

    fn all(&self) -> Result<ExtractReport> {
        let total = Mutex::new(ExtractReport::default());
        let failure = Mutex::new(None);
        let part = |work: &dyn Fn(&mut ExtractReport) -> Result<()>| {
            let mut report = ExtractReport::default();
            let result = work(&mut report);
            lock(&total).add(&report);
            if let Err(error) = result {
                self.next.store(self.index.len(), Ordering::Relaxed);
                lock(&failure).get_or_insert(error);
                self.deferred.iter().for_each(Deferred::stop);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.options.workers.max(1) {
                scope.spawn(|| {
                    let _leaving = Leaving(self);
                    part(&|report| self.work(report));
                });
            }
            if let Some(deferred) = &self.deferred {
                for _ in 0..FETCHERS {
                    scope.spawn(|| part(&|report| self.fetch_deferred(deferred, report)));
                }
            }
        });
        if lock(&failure).is_none() {
            part(&|report| self.repeat(report));
        }
        if let Some(error) = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Err(error);
        }
        let mut report = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        report.seed_chunks_bad = self.seeds.iter().map(Seed::bad_chunks).sum();
        Ok(report)
    }

    fn work(&self, report: &mut ExtractReport) -> Result<()> {
        while let Some(items) = self.next_batch() {
            self.progress.check()?;
            let bytes = self.batch(items, report)?;
            self.progress.advance(bytes);
        }
        Ok(())
    }

    /// Fetches what was deferred, many chunks at a time, until nothing more is.
    fn fetch_deferred(&self, deferred: &Deferred, report: &mut ExtractReport) -> Result<()> {
        while let Some(items) = deferred.take() {
            self.progress.check()?;
            let spans: Vec<ChunkSpan> = items.iter().map(|&item| self.index.span(item)).collect();
            let ids: Vec<ChunkId> = spans.iter().map(|span| span.id).collect();
            let encoded = self.store.get_many(&ids).into_iter();
            let encoded = encoded.collect::<cairn_store::Result<Vec<EncodedChunk>>>()?;
            let mut first = 0;
            while first < items.len() {
                let (mut end, mut len) = (first, 0);
                while end < items.len() && (end == first || len + span_len(&spans[end]) <= BATCH_LEN_MAX) {
                    len += span_len(&spans[end]);
                    end += 1;
                }
                self.write_fetched(&items[first..end], &spans[first..end], &encoded[first..end], len)?;
                report.bytes_store += len;
                report.chunks_store += (end - first) as u64;
                self.progress.advance(len);
                first = end;
            }
        }
        Ok(())
    }

    /// Opens and writes some of what was fetched, hashed together, wherever in the blob each belongs.
    fn write_fetched(&self, items: &[usize], spans: &[ChunkSpan], encoded: &[EncodedChunk], len: u64) -> Result<()> {
        let mut buffer = self.pool.take(len as usize);
        let buffer = &mut buffer.bytes_mut()[..len as usize];
        let mut slots: Vec<&mut [u8]> = Vec::with_capacity(spans.len());
        let mut rest = &mut *buffer;
        for span in spans {
            let (slot, after) = rest.split_at_mut(span_len(span) as usize);
            slots.push(slot);
            rest = after;
        }
        let opened = EncodedChunk::open_into_many(encoded, self.digest, &mut slots);
        for (span, opened) in spans.iter().zip(opened) {
            opened.map_err(|source| Error::Chunk {
                offset: span.range.start,
                source,
            })?;
        }
        // Neighbours of the blob lie together in the buffer.
        let mut rest = &*buffer;
        for run in spans.chunk_by(|one, next| one.range.end == next.range.start) {
            let (start, end) = (run[0].range.start, run[run.len() - 1].range.end);
            let (bytes, after) = rest.split_at((end - start) as usize);
            self.target
                .write_all_at(bytes, start)
                .map_err(file(self.path, "write"))?;
            rest = after;
        }
        items.iter().for_each(|&item| self.set_written(item));
        Ok(())
    }

    /// Items whose chunk has come for another item.
    fn repeat(&self, report: &mut ExtractReport) -> Result<()> {
        let mut repeats = std::mem::take(&mut *lock(&self.repeats));
        repeats.sort_unstable();
        for run in repeats.chunk_by(|one, next| one + 1 == *next) {
            let (mut next, end) = (run[0], run[0] + run.len());
            while let Some(items) = fetch::batch_at(self.index, next, end) {
                self.progress.check()?;
                next = items.end;
                let batch = Batch::new(self.index, items);
                let len = (batch.end - batch.start) as usize;
                let mut buffer = self.pool.take(len);
                let buffer = &mut buffer.bytes_mut()[..len];
                let mut states = vec![State::Wanted; batch.spans.len()];
                self.guess_itself(&batch, buffer, &mut states);
                self.prove(&batch, buffer, &mut states, report);
                self.fetch(&batch, buffer, &mut states, report)?;
                self.write(&batch, buffer, &states, &[], report)?;
                (0..states.len()).for_each(|at| self.set_written(batch.first + at));
                self.progress.advance(len as u64);
            }
        }
        Ok(())
    }

    fn set_written(&self, item: usize) {
        self.written[item / 64].fetch_or(1 << (item % 64), Ordering::Release);
    }

    fn next_batch(&self) -> Option<Range<usize>> {
        let mut batch = None;
        let _ = self.next.try_update(Ordering::Relaxed, Ordering::Relaxed, |first| {
            batch = fetch::batch_at(self.index, first, self.index.len());
            batch.as_ref().map(|items| items.end)
        });
        batch
    }

    fn batch(&self, items: Range<usize>, report: &mut ExtractReport) -> Result<u64> {
        let batch = Batch::new(self.index, items);
        let len = (batch.end - batch.start) as usize;
        let mut buffer = self.pool.take(len);
        let buffer = &mut buffer.bytes_mut()[..len];
        let mut states = vec![State::Wanted; batch.spans.len()];
        report.bytes += len as u64;
        report.chunks += batch.spans.len() as u64;

        self.zeros(&batch, &mut states, report)?;
        if batch.start < self.held {
            self.guess_target(&batch, buffer, &mut states)?;
            self.prove(&batch, buffer, &mut states, report);
        }
        let mut shared = Vec::new();
        if !self.seeds.is_empty()
            || batch
                .spans
                .iter()
                .any(|span| self.earlier(span.id, batch.first).is_some())
        {
            self.guess_seeds(&batch, buffer, &mut states, &mut shared);
            self.guess_itself(&batch, buffer, &mut states);
            self.prove(&batch, buffer, &mut states, report);
        }
        match &self.deferred {
            Some(deferred) => self.defer(deferred, &batch, &mut states),
            None => self.fetch(&batch, buffer, &mut states, report)?,
        }
        self.write(&batch, buffer, &states, &shared, report)?;
        let mut done = 0;
        for at in (0..batch.spans.len()).filter(|&at| states[at] != State::Deferred) {
            self.set_written(batch.first + at);
            done += batch.len(at);
        }
        Ok(done)
    }

    /// Leaves what is wanted to those who fetch, each chunk once; its repeats are had from the target then.
    fn defer(&self, deferred: &Deferred, batch: &Batch, states: &mut [State]) {
        let mut items = Vec::new();
        for (at, state) in states.iter_mut().enumerate() {
            if *state != State::Wanted {
                continue;
            }
            *state = State::Deferred;
            let item = batch.first + at;
            match self.own.find(batch.spans[at].id, self.index) {
                Some(first) if first < item => lock(&self.repeats).push(item),
                _ => items.push((item, batch.len(at))),
            }
        }
        if !items.is_empty() {
            deferred.push(&items);
        }
    }

    /// Zero chunks of full length: nothing to do in a new file, a hole or zeros elsewhere.
    fn zeros(&self, batch: &Batch, states: &mut [State], report: &mut ExtractReport) -> Result<()> {
        for (span, state) in batch.spans.iter().zip(states) {
            if !self.null.is(span) {
                continue;
            }
            let len = span.range.end - span.range.start;
            if span.range.start < self.held {
                self.zero(span.range.start, len)
                    .map_err(file(self.path, "write zeros to"))?;
            } else if !self.options.sparse {
                let zeros = vec![0; len as usize];
                self.target
                    .write_all_at(&zeros, span.range.start)
                    .map_err(file(self.path, "write"))?;
            }
            *state = State::There;
            report.bytes_null += len;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        use rustix::fs::FallocateFlags;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // On a device a hole means discard, which need not read back as zeros.
        if !self.device && self.options.sparse && rustix::fs::fallocate(self.target, flags, offset, len).is_ok() {
            return Ok(());
        }
        self.target.write_all_at(&vec![0; len as usize], offset)
    }

    fn guess_target(&self, batch: &Batch, buffer: &mut [u8], states: &mut [State]) -> Result<()> {
        let read = read_full_at(self.target, buffer, batch.start).map_err(file(self.path, "read"))?;
        for (span, state) in batch.spans.iter().zip(states) {
            if *state == State::Wanted && span.range.end - batch.start <= read as u64 && span.range.start < self.held {
                *state = State::Guess(Source::Target);
            }
        }
        Ok(())
    }

    /// Reads from seeds what they promise. A seed that cannot be read is no seed.
    fn guess_seeds(&self, batch: &Batch, buffer: &mut [u8], states: &mut [State], shared: &mut Vec<Range<u64>>) {
        for (number, seed) in self.seeds.iter().enumerate() {
            let mut at = 0;
            while at < states.len() {
                let found = (states[at] == State::Wanted)
                    .then(|| seed.find(batch.spans[at].id, batch.len(at)))
                    .flatten();
                let Some(source) = found else {
                    at += 1;
                    continue;
                };
                // The longest run of neighbours that are neighbours in the seed too: one read, one clone.
                let mut end = at + 1;
                while end < states.len()
                    && states[end] == State::Wanted
                    && seed.find(batch.spans[end].id, batch.len(end))
                        == Some(source + batch.spans[end].range.start - batch.spans[at].range.start)
                {
                    end += 1;
                }
                let range = batch.spans[at].range.start..batch.spans[end - 1].range.end;
                let inner = self.share(seed, source, &range);
                let slice = &mut buffer[(range.start - batch.start) as usize..(range.end - batch.start) as usize];
                if read_run(seed, source, self.target, &range, inner.as_ref(), slice).is_ok() {
                    states[at..end].fill(State::Guess(Source::Seed(number)));
                    shared.extend(inner);
                }
                at = end;
            }
        }
    }

    /// Shares the whole blocks of a run with a seed; what was shared, in offsets of the blob.
    fn share(&self, seed: &Seed, source: u64, range: &Range<u64>) -> Option<Range<u64>> {
        const BLOCK: u64 = reflink::BLOCK_LEN;
        if !self.options.reflink || !seed.can_share.load(Ordering::Relaxed) || source % BLOCK != range.start % BLOCK {
            return None;
        }
        let inner = range.start.next_multiple_of(BLOCK)..range.end / BLOCK * BLOCK;
        if inner.is_empty() {
            return None;
        }
        let from = source + (inner.start - range.start);
        match reflink::clone_range(&seed.blob, from, self.target, inner.start, inner.end - inner.start) {
            Ok(()) => Some(inner),
            Err(_) => {
                seed.can_share.store(false, Ordering::Relaxed);
                None
            }
        }
    }

    /// Reads from the target what this run wrote there under the same id.
    fn guess_itself(&self, batch: &Batch, buffer: &mut [u8], states: &mut [State]) {
        for (at, state) in states.iter_mut().enumerate() {
            if *state != State::Wanted {
                continue;
            }
            let Some(range) = self.earlier(batch.spans[at].id, batch.first) else {
                continue;
            };
            if range.end - range.start == batch.len(at)
                && self
                    .target
                    .read_exact_at(&mut buffer[batch.slice(at)], range.start)
                    .is_ok()
            {
                *state = State::Guess(Source::Itself);
            }
        }
    }

    /// Where the target already holds a chunk, written before the batch that starts at item `first`.
    fn earlier(&self, id: ChunkId, first: usize) -> Option<Range<u64>> {
        let position = self.own.find(id, self.index).filter(|&position| position < first)?;
        let written = self.written[position / 64].load(Ordering::Acquire) >> (position % 64) & 1 == 1;
        written.then(|| self.index.span(position).range)
    }

    /// Hashes every guess together and sorts the true from the false.
    fn prove(&self, batch: &Batch, buffer: &[u8], states: &mut [State], report: &mut ExtractReport) {
        let guesses: Vec<usize> = (0..states.len())
            .filter(|&at| matches!(states[at], State::Guess(_)))
            .collect();
        let slices: Vec<&[u8]> = guesses.iter().map(|&at| &buffer[batch.slice(at)]).collect();
        for (at, found) in guesses.into_iter().zip(self.digest.id_many(&slices)) {
            let State::Guess(source) = states[at] else { continue };
            let right = found == batch.spans[at].id;
            states[at] = match source {
                _ if !right => State::Wanted,
                Source::Target => State::There,
                Source::Seed(_) | Source::Itself => State::Proven,
            };
            match source {
                Source::Seed(number) if !right => {
                    self.seeds[number].bad.fetch_add(1, Ordering::Relaxed);
                }
                _ if !right => {}
                Source::Target => report.bytes_in_place += batch.len(at),
                Source::Seed(_) => report.bytes_seeds += batch.len(at),
                Source::Itself => report.bytes_self += batch.len(at),
            }
        }
    }

    fn fetch(&self, batch: &Batch, buffer: &mut [u8], states: &mut [State], report: &mut ExtractReport) -> Result<()> {
        let wanted: Vec<usize> = (0..states.len()).filter(|&at| states[at] == State::Wanted).collect();
        fetch::fetch(self.store, self.digest, batch, &wanted, buffer)?;
        for at in wanted {
            states[at] = State::Proven;
            report.bytes_store += batch.len(at);
            report.chunks_store += 1;
        }
        Ok(())
    }

    /// Writes what is proven, neighbours together, but for what is shared already.
    fn write(
        &self,
        batch: &Batch,
        buffer: &[u8],
        states: &[State],
        shared: &[Range<u64>],
        report: &mut ExtractReport,
    ) -> Result<()> {
        let mut at = 0;
        while at < states.len() {
            if states[at] != State::Proven {
                at += 1;
                continue;
            }
            let first = at;
            while at < states.len() && states[at] == State::Proven {
                at += 1;
            }
            let mut start = batch.spans[first].range.start;
            let end = batch.spans[at - 1].range.end;
            // A shared block may belong to a guess that was wrong; then its right bytes are in the buffer and are written.
            for block in shared {
                if block.start >= end || block.end <= start {
                    continue;
                }
                let whole = self.still_shared(batch, buffer, block.start.max(start)..block.end.min(end));
                if !whole {
                    continue;
                }
                self.write_range(batch, buffer, start..block.start.max(start))?;
                report.bytes_shared += block.end.min(end) - block.start.max(start);
                start = block.end.min(end);
            }
            self.write_range(batch, buffer, start..end)?;
        }
        Ok(())
    }

    /// Whether the target holds the buffer's bytes in a shared range: what was shared was read back and hashed, unless a chunk
    /// of it was then fetched elsewhere.
    fn still_shared(&self, batch: &Batch, buffer: &[u8], range: Range<u64>) -> bool {
        let mut held = vec![0; (range.end - range.start) as usize];
        let expected = &buffer[(range.start - batch.start) as usize..(range.end - batch.start) as usize];
        self.target.read_exact_at(&mut held, range.start).is_ok() && held == expected
    }

    fn write_range(&self, batch: &Batch, buffer: &[u8], range: Range<u64>) -> Result<()> {
        let slice = &buffer[(range.start - batch.start) as usize..(range.end - batch.start) as usize];
        self.target
            .write_all_at(slice, range.start)
            .map_err(file(self.path, "write"))
    }
}

fn span_len(span: &ChunkSpan) -> u64 {
    span.range.end - span.range.start
}

/// Reads a run of a seed: shared blocks from the target (so that what is hashed is what stays), the rest from the seed.
fn read_run(
    seed: &Seed,
    source: u64,
    target: &File,
    range: &Range<u64>,
    shared: Option<&Range<u64>>,
    buffer: &mut [u8],
) -> io::Result<()> {
    let Some(inner) = shared else {
        return seed.blob.read_exact_at(buffer, source);
    };
    let (before, after) = ((inner.start - range.start) as usize, (inner.end - range.start) as usize);
    seed.blob.read_exact_at(&mut buffer[..before], source)?;
    target.read_exact_at(&mut buffer[before..after], inner.start)?;
    seed.blob.read_exact_at(&mut buffer[after..], source + after as u64)
}

impl ExtractReport {
    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.chunks += other.chunks;
        self.bytes_null += other.bytes_null;
        self.bytes_in_place += other.bytes_in_place;
        self.bytes_seeds += other.bytes_seeds;
        self.bytes_shared += other.bytes_shared;
        self.bytes_self += other.bytes_self;
        self.bytes_store += other.bytes_store;
        self.chunks_store += other.chunks_store;
    }
}
