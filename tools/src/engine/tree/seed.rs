//! Seeds of a tree: old trees, files, devices that hold chunks of the one wanted, cut now, without an index of their own.
//!
//! A folder is cut as the archive that it would make; its records go to a temporary file, its files' bytes stay where they are.
//! Only the places of chunks that are wanted are kept.
//!
//! Invariants: a seed is not believed: what it gives is hashed, and what is not the chunk (a file changed since, or was just
//! replaced by the restoring itself) comes from the store behind.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cairn_formats::{ChunkForm, ChunkId, ChunkIndex, CutRule, Dialect, DigestAlgorithm, EncodedChunk, StorableChunk};
use cairn_store::{ChunkStat, ChunkStore, StoreName};
use rustix::fs::{Mode, OFlags};

use super::archive_reader::TreeSource as _;
use super::owner_shift::OwnerShift;
use super::walk::{FileSpan, TreeReader, WalkOptions};
use crate::engine::error::file;
use crate::engine::{BufferPool, MakeOptions, Progress, Result, make};

/// A store behind seeds that are asked first.
#[derive(Debug)]
pub(crate) struct SeedStore {
    base: Arc<dyn ChunkStore>,
    digest: DigestAlgorithm,
    shift: Option<OwnerShift>,
    wanted: HashSet<ChunkId>,
    seeds: Vec<SeedBytes>,
    places: HashMap<ChunkId, Place>,
    pool: BufferPool,
    chunks: AtomicU64,
    bytes: AtomicU64,
    bad: AtomicU64,
    fetched: AtomicU64,
}

/// What an update would take from where; each chunk counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeedPlan {
    /// Chunks that seeds have.
    pub(crate) chunks_seeds: u64,
    /// Their plain bytes.
    pub(crate) bytes_seeds: u64,
    /// Chunks that the store behind would be asked for.
    pub(crate) chunks_store: u64,
    /// Their plain bytes.
    pub(crate) bytes_store: u64,
}

/// What seeds were good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeedReport {
    /// Chunks taken from seeds.
    pub(crate) chunks: u64,
    /// Their plain bytes.
    pub(crate) bytes: u64,
    /// Chunks that a seed had when it was cut, and no longer when they were wanted.
    pub(crate) bad: u64,
    /// Chunks asked of the store behind.
    pub(crate) fetched: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    seed: u32,
    len: u32,
    offset: u64,
}

#[derive(Debug)]
enum SeedBytes {
    Blob(File),
    Tree {
        root: OwnedFd,
        records: File,
        files: Vec<FileSpan>,
        /// Bytes of files before each file.
        before: Vec<u64>,
    },
}

impl SeedStore {
    /// Seeds of the archive that `index` describes; none yet.
    ///
    /// - `shift`: how owners' numbers in seeds that are folders differ from the archive's.
    pub(crate) fn new(index: &ChunkIndex, base: Arc<dyn ChunkStore>, shift: Option<OwnerShift>) -> Self {
        Self {
            base,
            digest: index.digest_algorithm(),
            shift,
            wanted: index.spans().map(|span| span.id).collect(),
            seeds: Vec::new(),
            places: HashMap::new(),
            pool: BufferPool::default(),
            chunks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            bad: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
        }
    }

    /// Cuts a folder, file or device. Errors: it cannot be read.
    pub(crate) fn add(&mut self, path: &Path, index: &ChunkIndex, workers: usize, progress: &Progress) -> Result<()> {
        let meta = std::fs::metadata(path).map_err(file(path, "look at the seed"))?;
        // Where desync could not have cut so, it was not desync.
        let dialect = index.flags().dialect();
        let dialect = CutRule::new(index.sizes(), dialect).map_or(Dialect::Casync, |_| dialect);
        let options = MakeOptions {
            sizes: index.sizes(),
            dialect,
            digest: self.digest,
            workers,
            ..MakeOptions::default()
        };
        let seed = self.seeds.len() as u32;
        let (wanted, places) = (&self.wanted, &mut self.places);
        let mut offset = 0;
        let mut place = |id: ChunkId, len: usize| {
            if wanted.contains(&id) {
                let here = Place {
                    seed,
                    len: len as u32,
                    offset,
                };
                places.entry(id).or_insert(here);
            }
            offset += len as u64;
            Ok(())
        };
        if !meta.is_dir() {
            let blob = File::open(path).map_err(file(path, "open the seed"))?;
            let mut input = BufReader::with_capacity(0, &blob);
            make(&mut input, path, None, &options, progress, &mut place)?;
            self.seeds.push(SeedBytes::Blob(blob));
            return Ok(());
        }
        let walk = WalkOptions {
            flags: index.flags(),
            shift: self.shift,
        };
        let mut reader = TreeReader::open(path, &walk)?;
        let records = tempfile::tempfile().map_err(file(path, "make a temporary file for the records of"))?;
        let copy = records.try_clone().map_err(file(path, "keep the records of"))?;
        reader.remember(copy)?;
        let made = make(&mut reader, path, None, &options, progress, &mut place);
        made.map_err(|error| reader.take_failure().unwrap_or(error))?;
        let (root, files) = reader.into_files()?;
        let before = files.iter().scan(0, |sum, span| {
            let before = *sum;
            *sum += span.len;
            Some(before)
        });
        let before = before.collect();
        self.seeds.push(SeedBytes::Tree {
            root,
            records,
            files,
            before,
        });
        Ok(())
    }

    /// What the seeds were good for until now.
    pub(crate) fn report(&self) -> SeedReport {
        SeedReport {
            chunks: self.chunks.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            bad: self.bad.load(Ordering::Relaxed),
            fetched: self.fetched.load(Ordering::Relaxed),
        }
    }

    /// What the archive of `index` would take from where.
    pub(crate) fn plan(&self, index: &ChunkIndex) -> SeedPlan {
        let mut plan = SeedPlan::default();
        let mut seen = HashSet::new();
        for span in index.spans().filter(|span| seen.insert(span.id)) {
            let len = span.range.end - span.range.start;
            let (chunks, bytes) = match self.places.contains_key(&span.id) {
                true => (&mut plan.chunks_seeds, &mut plan.bytes_seeds),
                false => (&mut plan.chunks_store, &mut plan.bytes_store),
            };
            *chunks += 1;
            *bytes += len;
        }
        plan
    }

    /// The plain bytes of those chunks that seeds have, proven.
    fn seeded(&self, ids: &[ChunkId]) -> Vec<Option<Bytes>> {
        let places: Vec<Option<&Place>> = ids.iter().map(|id| self.places.get(id)).collect();
        let len = places.iter().flatten().map(|place| place.len as usize).sum();
        if len == 0 {
            return vec![None; ids.len()];
        }
        // One buffer for all, used again: fresh memory for each chunk would cost the system more than reading it.
        let mut buffer = self.pool.take(len);
        let mut rest = &mut buffer.bytes_mut()[..len];
        let mut end = 0;
        let ranges: Vec<Option<Range<usize>>> = places
            .into_iter()
            .map(|place| {
                let place = place?;
                let (bytes, after) = std::mem::take(&mut rest).split_at_mut(place.len as usize);
                rest = after;
                end += bytes.len();
                let seed = &self.seeds[place.seed as usize];
                seed.read_exact_at(place.offset, bytes).ok()?;
                Some(end - bytes.len()..end)
            })
            .collect();
        let buffer = Bytes::from_owner(buffer);
        let mut read: Vec<Option<Bytes>> = ranges.into_iter().map(|range| Some(buffer.slice(range?))).collect();
        let slices: Vec<&[u8]> = read.iter().flatten().map(|bytes| &bytes[..]).collect();
        let mut found = self.digest.id_many(&slices).into_iter();
        for (id, bytes) in ids.iter().zip(&mut read) {
            let Some(plain) = bytes else { continue };
            if found.next() == Some(*id) {
                self.chunks.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(plain.len() as u64, Ordering::Relaxed);
            } else {
                self.bad.fetch_add(1, Ordering::Relaxed);
                *bytes = None;
            }
        }
        read
    }
}

impl SeedBytes {
    fn read_exact_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        let (root, records, files, before) = match self {
            Self::Blob(blob) => return blob.read_exact_at(buffer, offset),
            Self::Tree {
                root,
                records,
                files,
                before,
            } => (root, records, files, before),
        };
        let mut at = files.partition_point(|span| span.offset + span.len <= offset);
        while !buffer.is_empty() {
            let span = files.get(at);
            let in_file = span.filter(|span| offset >= span.offset);
            let end = match (in_file, span) {
                (Some(span), _) => span.offset + span.len,
                (None, Some(next)) => next.offset,
                (None, None) => u64::MAX,
            };
            let len = (end - offset).min(buffer.len() as u64) as usize;
            let (piece, rest) = buffer.split_at_mut(len);
            if let Some(span) = in_file {
                let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let opened = rustix::fs::openat(root, &span.path[..], how, Mode::empty())?;
                File::from(opened).read_exact_at(piece, offset - span.offset)?;
                at += usize::from(offset + len as u64 == end);
            } else {
                let payload = match before.get(at) {
                    Some(payload) => *payload,
                    None => files.last().map_or(0, |last| last.len + before[files.len() - 1]),
                };
                records.read_exact_at(piece, offset - payload)?;
            }
            offset += len as u64;
            buffer = rest;
        }
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods)]
impl ChunkStore for SeedStore {
    fn name(&self) -> &StoreName {
        self.base.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> cairn_store::Result<Vec<bool>> {
        self.base.has_many(ids)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<cairn_store::Result<EncodedChunk>> {
        let found = self.seeded(ids);
        let missing: Vec<ChunkId> = ids
            .iter()
            .zip(&found)
            .filter(|(_, bytes)| bytes.is_none())
            .map(|(id, _)| *id)
            .collect();
        self.fetched.fetch_add(missing.len() as u64, Ordering::Relaxed);
        let mut fetched = if missing.is_empty() {
            Vec::new()
        } else {
            self.base.get_many(&missing)
        }
        .into_iter();
        ids.iter()
            .zip(found)
            .filter_map(|(&id, bytes)| match bytes {
                Some(bytes) => Some(Ok(EncodedChunk {
                    id,
                    form: ChunkForm::Plain,
                    bytes,
                })),
                None => fetched.next(),
            })
            .collect()
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> cairn_store::Result<()> {
        self.base.put_many(chunks)
    }

    fn flush(&self) -> cairn_store::Result<()> {
        self.base.flush()
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> cairn_store::Result<Option<ChunkStat>> {
        self.base.stat(id, form)
    }

    fn is_far(&self) -> bool {
        self.base.is_far()
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> cairn_store::Result<bool> {
        self.base.set_aside(damaged)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        self.base.get_resident(id, form)
    }
}
