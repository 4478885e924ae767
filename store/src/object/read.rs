//! Reading ranges of objects from packs: an extent is one read, chunks in raw blocks are handed on without decoding.
//!
//! Every frame is checked against the sum of its place before a byte of it leaves, and against its id where that has not been
//! done lately. What does not fit (a pack that was compacted meanwhile, a flipped bit) is asked of the store once more, which
//! looks the chunk up anew, takes damaged ones out and answers with the error. At most `window` extents are in memory at a
//! time. What had to be decoded may be kept ([`PlainCache`]): it is proven, and is what the name says for ever. Hot path: keep out copies; only of the first and last chunk of a range, where they are wanted in part, are bytes copied.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{
    ChunkForm, ChunkId, DigestAlgorithm, DigestStream, EncodedChunk, decompress_frame, payload_crc, raw_pieces,
};
use crossbeam_channel::{Receiver, Sender};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::ObjectChunks;
use super::plan::{Page, Plan, Wanted};
use crate::pack::{ChunkKey, PackStore};
use crate::verified::VerifiedChunks;
use crate::{ChunkStore as _, Error, Result};

/// Longer frames get memory of their own, which does not stay with the thread.
const KEPT_FRAME_LEN_MAX: usize = 1 << 20;

/// How ranges are read.
#[derive(Clone, Debug)]
pub struct RangeOptions {
    /// The digest that names the chunks.
    pub digest: DigestAlgorithm,
    /// Bytes between two wanted chunks that are read rather than beginning another read.
    pub gap: u64,
    /// Bytes of an extent, unless one chunk is longer.
    pub extent_len: u64,
    /// Extents that are read at a time.
    pub window: usize,
    /// Pages kept resolved, about 20 KiB each.
    pub pages: usize,
    /// How long a chunk that was proven by its id counts as proven; `None` to prove it each time.
    pub proven_for: Option<Duration>,
    /// Where chunks that were decoded are kept; may be shared by the readers of all domains.
    pub plain: Option<PlainCache>,
}

/// Plain bytes of chunks that had to be decoded, kept in memory: which of them, is decided by how often they are asked for.
#[derive(Clone, Debug)]
pub struct PlainCache(Arc<Cache<ChunkKey, Bytes, PlainLen>>);

#[derive(Clone, Debug)]
struct PlainLen;

/// Bytes that a kept chunk takes besides its own, about.
const ENTRY_COST: u64 = 128;

/// Mean bytes of a plain chunk, for the first size of the tables.
const PLAIN_LEN_MEAN: u64 = 64 << 10;

impl Weighter<ChunkKey, Bytes> for PlainLen {
    fn weight(&self, _key: &ChunkKey, plain: &Bytes) -> u64 {
        plain.len() as u64 + ENTRY_COST
    }
}

impl PlainCache {
    /// One that keeps at most `bytes_max` bytes, what its tables take included.
    pub fn new(bytes_max: u64) -> Self {
        let chunks = usize::try_from(bytes_max / PLAIN_LEN_MEAN).unwrap_or(usize::MAX);
        Self(Arc::new(Cache::with_weighter(chunks.max(1), bytes_max, PlainLen)))
    }

    /// Bytes kept now.
    pub fn bytes(&self) -> u64 {
        self.0.weight()
    }
}

impl Default for RangeOptions {
    fn default() -> Self {
        Self {
            digest: DigestAlgorithm::default(),
            gap: 256 << 10,
            extent_len: 8 << 20,
            window: 4,
            pages: 1024,
            proven_for: Some(Duration::from_secs(24 * 60 * 60)),
            plain: None,
        }
    }
}

impl RangeOptions {
    /// Whether a chunk is read together with those before it.
    pub(super) fn join(&self, extent: &[Wanted], next: &Wanted) -> bool {
        let (Some(first), Some(last)) = (extent.first(), extent.last()) else {
            return true;
        };
        let (Some(first), Some(last), Some(next)) = (first.place, last.place, next.place) else {
            return false;
        };
        let last_end = last.offset + u64::from(last.len);
        let end = next.offset + u64::from(next.len);
        next.pack == last.pack
            && (last_end..=last_end.saturating_add(self.gap)).contains(&next.offset)
            && end - first.offset <= self.extent_len
    }
}

/// Reads ranges of objects whose chunks are in a pack store.
#[derive(Debug)]
pub struct RangeReads {
    store: PackStore,
    options: RangeOptions,
    pages: Cache<([u8; 32], usize), Arc<Page>>,
    proven: Option<VerifiedChunks>,
    decoded: AtomicU64,
}

impl RangeReads {
    /// - `store`: the chunks' domain.
    pub fn new(store: PackStore, options: RangeOptions) -> Arc<Self> {
        Arc::new(Self {
            pages: Cache::new(options.pages),
            proven: options.proven_for.map(VerifiedChunks::new),
            decoded: AtomicU64::new(0),
            store,
            options,
        })
    }

    /// Bytes of an object; what lies behind its end is left out.
    pub fn read(self: &Arc<Self>, object: Arc<dyn ObjectChunks>, range: Range<u64>) -> RangeStream {
        RangeStream {
            plan: Plan::new(Arc::clone(self), object, range),
            reads: Arc::clone(self),
            ready: VecDeque::new(),
            coming: VecDeque::new(),
            readers: None,
            ended: false,
        }
    }

    /// How many chunks have been decoded: those that do not lie in raw blocks.
    pub fn decoded(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }

    pub(super) fn store(&self) -> &PackStore {
        &self.store
    }

    pub(super) fn options(&self) -> &RangeOptions {
        &self.options
    }

    pub(super) fn resolve(&self, object: &dyn ObjectChunks, page: usize) -> Result<Arc<Page>> {
        let key = (object.name(), page);
        let generation = self.store.engine().generation();
        if let Some(page) = self.pages.get(&key).filter(|page| page.generation == generation) {
            return Ok(page);
        }
        let resolved = Arc::new(Page::look_up(self, object, page)?);
        self.pages.insert(key, Arc::clone(&resolved));
        Ok(resolved)
    }

    /// The wanted bytes of an extent's chunks, in order.
    fn extent(&self, extent: &[Wanted]) -> Result<Vec<Bytes>> {
        let mut bytes = Vec::with_capacity(extent.len() + extent.len() / 2);
        let mut rest = extent;
        while let Some(first) = rest.first() {
            if let Some(plain) = self.kept(first) {
                bytes.push(plain);
                rest = &rest[1..];
                continue;
            }
            let is_to_read = |wanted: &&Wanted| wanted.is_whole() && !self.is_kept(wanted.id);
            let whole = rest.iter().take_while(is_to_read).count();
            let (some, behind) = rest.split_at(whole.max(1));
            rest = behind;
            match first.place {
                None => bytes.push(self.again(first)?),
                Some(_) if whole == 0 => bytes.push(self.part(first)?),
                Some(_) => self.run(some, &mut bytes)?,
            }
        }
        Ok(bytes)
    }

    /// Whole chunks that lie one behind the other.
    fn run(&self, chunks: &[Wanted], bytes: &mut Vec<Bytes>) -> Result<()> {
        let places: Vec<_> = chunks.iter().filter_map(|wanted| wanted.place).collect();
        let (Some(first), Some(last)) = (places.first(), places.last()) else {
            return Ok(());
        };
        let end = last.offset + u64::from(last.len);
        // What cannot be read together is asked for one by one.
        let read = self.store.engine().read_extent(first.pack, first.offset..end);
        let read = read.unwrap_or_default();
        let frames: Vec<Option<Frame>> = chunks
            .iter()
            .zip(&places)
            .map(|(wanted, place)| {
                let from = (place.offset - first.offset) as usize;
                let frame = read.get(from..from + place.len as usize)?;
                if payload_crc(frame) != place.crc {
                    return None;
                }
                Some(Frame {
                    pieces: raw_pieces(frame).filter(|pieces| len_of(pieces) == wanted.plain_len),
                    bytes: read.slice(from..from + place.len as usize),
                })
            })
            .collect();
        let proven = self.prove(chunks, &frames);
        for ((wanted, frame), proven) in chunks.iter().zip(frames).zip(proven) {
            match frame {
                Some(Frame {
                    pieces: Some(pieces),
                    bytes: frame,
                }) if proven => {
                    bytes.extend(pieces.into_iter().map(|piece| frame.slice(piece)));
                }
                Some(Frame {
                    pieces: None,
                    bytes: frame,
                }) => bytes.push(self.decode(wanted, frame)?),
                _ => bytes.push(self.again(wanted)?),
            }
        }
        Ok(())
    }

    /// A chunk of which only a part is wanted: its frame goes through memory that stays with the thread.
    fn part(&self, wanted: &Wanted) -> Result<Bytes> {
        thread_local! {
            static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let Some(place) = wanted.place else {
            return self.again(wanted);
        };
        FRAME.with_borrow_mut(|kept| {
            let mut own = Vec::new();
            let len = place.len as usize;
            let frame = if len <= KEPT_FRAME_LEN_MAX { kept } else { &mut own };
            if frame.len() < len {
                frame.resize(len, 0);
            }
            let frame = &mut frame[..len];
            let is_read = self.store.engine().read_exact(place.pack, place.offset, frame);
            if !is_read || payload_crc(frame) != place.crc {
                return self.again(wanted);
            }
            let Some(pieces) = raw_pieces(frame).filter(|pieces| len_of(pieces) == wanted.plain_len) else {
                return self.decode(wanted, Bytes::copy_from_slice(frame));
            };
            if !self.is_fresh(wanted.id) && !self.is_its_chunk(wanted.id, frame, &pieces) {
                return self.again(wanted);
            }
            let mut bytes = Vec::with_capacity(wanted.bytes.len());
            let mut at = 0;
            for piece in pieces {
                let from = wanted.bytes.start.clamp(at, at + piece.len()) - at;
                let to = wanted.bytes.end.clamp(at, at + piece.len()) - at;
                at += piece.len();
                bytes.extend_from_slice(&frame[piece][from..to]);
            }
            Ok(Bytes::from(bytes))
        })
    }

    /// Which of the chunks in raw blocks are what their ids say, hashed together where that can be.
    fn prove(&self, chunks: &[Wanted], frames: &[Option<Frame>]) -> Vec<bool> {
        let mut proven = vec![true; chunks.len()];
        let mut together = Vec::new();
        for (n, (wanted, frame)) in chunks.iter().zip(frames).enumerate() {
            let Some(Frame {
                pieces: Some(pieces),
                bytes,
            }) = frame
            else {
                continue;
            };
            if self.is_fresh(wanted.id) {
                continue;
            }
            match &pieces[..] {
                [piece] => together.push((n, &bytes[piece.clone()])),
                pieces => proven[n] = self.is_its_chunk(wanted.id, bytes, pieces),
            }
        }
        let plains: Vec<&[u8]> = together.iter().map(|(_, plain)| *plain).collect();
        for ((n, _), id) in together.iter().zip(self.options.digest.id_many(&plains)) {
            proven[*n] = id == chunks[*n].id;
            if proven[*n] {
                self.remember(id);
            }
        }
        proven
    }

    fn is_its_chunk(&self, id: ChunkId, frame: &[u8], pieces: &[Range<usize>]) -> bool {
        let mut digest = DigestStream::new(self.options.digest);
        pieces.iter().for_each(|piece| digest.update(&frame[piece.clone()]));
        let is_its = digest.finish() == *id.as_bytes();
        if is_its {
            self.remember(id);
        }
        is_its
    }

    /// The wanted bytes of a chunk that has to be decoded.
    fn decode(&self, wanted: &Wanted, frame: Bytes) -> Result<Bytes> {
        let encoded = EncodedChunk {
            id: wanted.id,
            form: ChunkForm::Compressed,
            bytes: frame,
        };
        self.decoded.fetch_add(1, Ordering::Relaxed);
        if self.is_fresh(wanted.id)
            && let Ok(plain) = decompress_frame(&encoded.bytes, wanted.plain_len)
            && plain.len() == wanted.plain_len
        {
            return Ok(self.keep(wanted, Bytes::from(plain)));
        }
        let opened = encoded.open_exact(self.options.digest, wanted.plain_len);
        let chunk = opened.map_err(|source| Error::Corrupt {
            store: self.store.name().clone(),
            source,
        })?;
        self.remember(wanted.id);
        Ok(self.keep(wanted, chunk.into_plain()))
    }

    fn key(&self, id: ChunkId) -> ChunkKey {
        let domain = self.store.domain();
        ChunkKey { domain, id }
    }

    /// The wanted bytes of a chunk that is kept.
    fn kept(&self, wanted: &Wanted) -> Option<Bytes> {
        let plain = self.options.plain.as_ref()?.0.get(&self.key(wanted.id))?;
        (plain.len() == wanted.plain_len).then(|| plain.slice(wanted.bytes.clone()))
    }

    fn is_kept(&self, id: ChunkId) -> bool {
        let plain = self.options.plain.as_ref();
        plain.is_some_and(|plain| plain.0.peek(&self.key(id)).is_some())
    }

    /// Keeps a chunk that was decoded and is proven. Returns its wanted bytes.
    fn keep(&self, wanted: &Wanted, plain: Bytes) -> Bytes {
        if let Some(cache) = &self.options.plain {
            cache.0.insert(self.key(wanted.id), plain.clone());
        }
        plain.slice(wanted.bytes.clone())
    }

    /// As the store has it now: looked up anew, proven.
    fn again(&self, wanted: &Wanted) -> Result<Bytes> {
        let mut stored = self.store.get_many(&[wanted.id]);
        self.decode(wanted, stored.pop().expect("one answer per id")?.bytes)
    }

    fn is_fresh(&self, id: ChunkId) -> bool {
        let is_fresh = |proven: &VerifiedChunks| proven.is_fresh(id, ChunkForm::Compressed);
        self.proven.as_ref().is_some_and(is_fresh)
    }

    fn remember(&self, id: ChunkId) {
        if let Some(proven) = &self.proven {
            proven.remember(id, ChunkForm::Compressed);
        }
    }
}

/// A frame whose sum is right.
struct Frame {
    bytes: Bytes,
    /// Where its plain bytes are, if they are there as they are.
    pieces: Option<Vec<Range<usize>>>,
}

fn len_of(pieces: &[Range<usize>]) -> usize {
    pieces.iter().map(Range::len).sum()
}

/// The bytes of a range, in pieces, in order. Ends behind the first error.
#[derive(Debug)]
pub struct RangeStream {
    plan: Plan,
    reads: Arc<RangeReads>,
    ready: VecDeque<Bytes>,
    coming: VecDeque<Receiver<Result<Vec<Bytes>>>>,
    readers: Option<Readers>,
    ended: bool,
}

/// Threads that read extents ahead of who takes them; they end with the stream.
#[derive(Debug)]
struct Readers {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

type Job = (Vec<Wanted>, Sender<Result<Vec<Bytes>>>);

impl RangeStream {
    /// The bytes of the next extent; none behind the last.
    fn extent(&mut self) -> Result<Option<Vec<Bytes>>> {
        while self.coming.len() < self.reads.options.window.max(1) {
            let Some(extent) = self.plan.next()? else {
                break;
            };
            if self.readers.is_none() && self.reads.options.window > 1 {
                // Most ranges are one extent, which needs nobody's help.
                let Some(second) = self.plan.next()? else {
                    return self.reads.extent(&extent).map(Some);
                };
                self.start();
                self.send(extent);
                self.send(second);
                continue;
            }
            if self.readers.is_none() {
                return self.reads.extent(&extent).map(Some);
            }
            self.send(extent);
        }
        match self.coming.pop_front() {
            None => Ok(None),
            Some(answer) => answer.recv().expect("a reader answers each job").map(Some),
        }
    }

    fn start(&mut self) {
        let (jobs, taken) = crossbeam_channel::bounded::<Job>(self.reads.options.window);
        let read = |_| {
            let (reads, taken) = (Arc::clone(&self.reads), taken.clone());
            std::thread::spawn(move || {
                for (extent, answer) in taken {
                    // Who asked may be gone.
                    let _ = answer.send(reads.extent(&extent));
                }
            })
        };
        self.readers = Some(Readers {
            threads: (0..self.reads.options.window).map(read).collect(),
            jobs: Some(jobs),
        });
    }

    fn send(&mut self, extent: Vec<Wanted>) {
        let (answer, coming) = crossbeam_channel::bounded(1);
        if let Some(jobs) = self.readers.as_ref().and_then(|readers| readers.jobs.as_ref()) {
            jobs.send((extent, answer))
                .expect("the readers live as long as the stream");
            self.coming.push_back(coming);
        }
    }
}

impl Iterator for RangeStream {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(Ok(bytes));
            }
            if self.ended {
                return None;
            }
            match self.extent() {
                Ok(Some(bytes)) => self.ready.extend(bytes),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
