//! Reading ranges of objects from packs: an extent is one read, chunks in raw blocks are handed on without decoding.
//!
//! Every frame is checked against the sum of its place before a byte of it leaves, and against its id where that has not been
//! done lately. What does not fit (a pack that was compacted meanwhile, a flipped bit) is asked of the store once more, which
//! looks the chunk up anew, takes damaged ones out and answers with the error. One extent of a range is in memory at a time,
//! short enough to be in the processor's cache when it is handed on; the disk is told of the next ones. What had to be decoded may
//! be kept ([`PlainCache`]): it is proven, and is what the name says for ever. Who asks for an extent that another is reading waits for
//! that (`flights`). Hot path: keep out copies; only of the first and last
//! chunk of a range, where they are wanted in part, are bytes copied. No threads: who takes the pieces decides when the next are read.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{
    ChunkForm, ChunkId, DigestAlgorithm, DigestStream, EncodedChunk, decompress_frame, payload_crc, raw_pieces,
};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::ObjectChunks;
use super::flights::Flights;
use super::plan::{Page, Plan, Wanted};
use crate::pack::{ChunkKey, PackStore};
use crate::verified::VerifiedChunks;
use crate::{Buffers, ChunkStore as _, Error, Result};

/// Longer frames get memory of their own, which does not stay with the thread.
const KEPT_FRAME_LEN_MAX: usize = 1 << 20;

/// Half of what a core has of the second cache, so that what is read is still there when it is sent.
const EXTENT_LEN: u64 = 1 << 20;

/// Of that length.
const FREE_BUFFERS_MAX: usize = 32;

/// Bytes that all readers together have in hand before their extents become shorter ...
const LENT_MAX: usize = 64 << 20;

/// ... this.
const EXTENT_LEN_MIN: u64 = 64 << 10;

/// How ranges are read.
#[derive(Clone, Debug)]
pub struct RangeOptions {
    /// The digest that names the chunks.
    pub digest: DigestAlgorithm,
    /// Bytes between two wanted chunks that are read rather than beginning another read.
    pub gap: u64,
    /// Bytes of an extent, as they lie and plain, unless one chunk is longer. Fewer where many read at once.
    pub extent_len: u64,
    /// Extents behind the one that is read which the disk is told of.
    pub ahead: usize,
    /// What extents are read into; may be shared by the readers of all domains.
    pub buffers: Buffers,
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
            extent_len: EXTENT_LEN,
            ahead: 4,
            buffers: Buffers::new(EXTENT_LEN as usize, FREE_BUFFERS_MAX),
            pages: 1024,
            proven_for: Some(Duration::from_secs(24 * 60 * 60)),
            plain: None,
        }
    }
}

impl RangeOptions {
    /// Whether a chunk is read together with those before it, which are `plain_len` bytes.
    pub(super) fn join(&self, extent: &[Wanted], plain_len: u64, next: &Wanted) -> bool {
        let (Some(first), Some(last)) = (extent.first(), extent.last()) else {
            return true;
        };
        let (Some(first), Some(last), Some(place)) = (first.place, last.place, next.place) else {
            return false;
        };
        let extent_len = self.extent_len_now();
        let last_end = last.offset + u64::from(last.len);
        let end = place.offset + u64::from(place.len);
        place.pack == last.pack
            && (last_end..=last_end.saturating_add(self.gap)).contains(&place.offset)
            && end - first.offset <= extent_len
            && plain_len + next.bytes.len() as u64 <= extent_len
    }

    /// Many slow readers must not take the memory of all.
    fn extent_len_now(&self) -> u64 {
        match self.buffers.lent() <= LENT_MAX {
            true => self.extent_len,
            false => self.extent_len.min(EXTENT_LEN_MIN),
        }
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
    flights: Flights,
}

impl RangeReads {
    /// - `store`: the chunks' domain.
    pub fn new(store: PackStore, options: RangeOptions) -> Arc<Self> {
        Arc::new(Self {
            pages: Cache::new(options.pages),
            proven: options.proven_for.map(VerifiedChunks::new),
            decoded: AtomicU64::new(0),
            flights: Flights::default(),
            store,
            options,
        })
    }

    /// Bytes of an object; what lies behind its end is left out.
    pub fn read(self: &Arc<Self>, object: Arc<dyn ObjectChunks>, range: Range<u64>) -> RangeStream {
        RangeStream {
            plan: Plan::new(Arc::clone(self), object, range),
            reads: Arc::clone(self),
            planned: VecDeque::new(),
            ready: VecDeque::new(),
            chunks_read: 0,
            ended: false,
        }
    }

    /// How many chunks have been decoded: those that do not lie in raw blocks.
    pub fn decoded(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }

    /// Extents that somebody got from who was reading them already.
    pub fn shared(&self) -> u64 {
        self.flights.shared()
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

    /// Has the disk begin with what will be read soon.
    fn announce(&self, extent: &[Wanted]) {
        let places = extent
            .first()
            .zip(extent.last())
            .and_then(|(first, last)| first.place.zip(last.place));
        if let Some((first, last)) = places {
            let end = last.offset + u64::from(last.len);
            self.store.engine().announce(first.pack, first.offset..end);
        }
    }

    /// The wanted bytes of an extent's chunks, in order, and how many of these were not kept.
    fn extent(&self, extent: &[Wanted]) -> Result<(Vec<Bytes>, usize)> {
        let mut bytes = Vec::with_capacity(extent.len() + extent.len() / 2);
        let mut read = extent.len();
        let mut rest = extent;
        while let Some(first) = rest.first() {
            if let Some(plain) = self.kept(first) {
                bytes.push(plain);
                read -= 1;
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
        Ok((bytes, read))
    }

    /// Whole chunks that lie one behind the other.
    fn run(&self, chunks: &[Wanted], bytes: &mut Vec<Bytes>) -> Result<()> {
        let places: Vec<_> = chunks.iter().filter_map(|wanted| wanted.place).collect();
        let (Some(first), Some(last)) = (places.first(), places.last()) else {
            return Ok(());
        };
        let end = last.offset + u64::from(last.len);
        // What cannot be read together is asked for one by one.
        let engine = self.store.engine();
        let read = engine.read_extent(first.pack, first.offset..end, &self.options.buffers);
        let read = read.unwrap_or_default();
        let mut found: Vec<Option<Found>> = chunks
            .iter()
            .zip(&places)
            .map(|(wanted, place)| {
                let from = (place.offset - first.offset) as usize;
                let frame = from..from + place.len as usize;
                let is_right = payload_crc(read.get(frame.clone())?) == place.crc;
                is_right.then(|| self.open(wanted, read.slice(frame)))?
            })
            .collect();
        self.prove(chunks, &mut found);
        for (wanted, found) in chunks.iter().zip(found) {
            match found {
                Some(Found::Pieces(frame, pieces)) => bytes.extend(pieces.into_iter().map(|piece| frame.slice(piece))),
                Some(Found::Decoded(plain)) => bytes.push(self.keep(wanted, plain)),
                None => bytes.push(self.again(wanted)?),
            }
        }
        Ok(())
    }

    /// The plain bytes of a frame, if they have the length that the list says. They are not proven.
    fn open(&self, wanted: &Wanted, frame: Bytes) -> Option<Found> {
        if let Some(pieces) = raw_pieces(&frame) {
            return (len_of(&pieces) == wanted.plain_len).then_some(Found::Pieces(frame, pieces));
        }
        self.decoded.fetch_add(1, Ordering::Relaxed);
        let plain = decompress_frame(&frame, wanted.plain_len).ok()?;
        (plain.len() == wanted.plain_len).then(|| Found::Decoded(plain.into()))
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

    /// Takes out what is not what its id says; all that has to be hashed is hashed together.
    fn prove(&self, chunks: &[Wanted], found: &mut [Option<Found>]) {
        let is_to_prove = |n: &usize| found[*n].is_some() && !self.is_fresh(chunks[*n].id);
        let unproven: Vec<usize> = (0..chunks.len()).filter(is_to_prove).collect();
        let plains: Vec<Cow<'_, [u8]>> = unproven
            .iter()
            .filter_map(|&n| found[n].as_ref().map(Found::plain))
            .collect();
        let plains: Vec<&[u8]> = plains.iter().map(AsRef::as_ref).collect();
        let ids = self.options.digest.id_many(&plains);
        for (n, id) in unproven.into_iter().zip(ids) {
            match id == chunks[n].id {
                true => self.remember(id),
                false => found[n] = None,
            }
        }
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

/// A chunk whose frame's sum is right.
enum Found {
    /// In raw blocks: the frame, and where its plain bytes are.
    Pieces(Bytes, Vec<Range<usize>>),
    Decoded(Bytes),
}

impl Found {
    fn plain(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Decoded(plain) => Cow::Borrowed(plain),
            Self::Pieces(frame, pieces) => match &pieces[..] {
                [piece] => Cow::Borrowed(&frame[piece.clone()]),
                // Copying costs a tenth of hashing it alone.
                pieces => {
                    let parts: Vec<&[u8]> = pieces.iter().map(|piece| &frame[piece.clone()]).collect();
                    Cow::Owned(parts.concat())
                }
            },
        }
    }
}

fn len_of(pieces: &[Range<usize>]) -> usize {
    pieces.iter().map(Range::len).sum()
}

/// The bytes of a range, in pieces, in order. Ends behind the first error.
#[derive(Debug)]
pub struct RangeStream {
    plan: Plan,
    reads: Arc<RangeReads>,
    /// Extents that the disk was told of.
    planned: VecDeque<Vec<Wanted>>,
    ready: VecDeque<Bytes>,
    chunks_read: u64,
    ended: bool,
}

impl RangeStream {
    /// Chunks that were read from packs so far; those that were kept do not count.
    pub fn chunks_read(&self) -> u64 {
        self.chunks_read
    }

    /// The bytes of the next extent; none behind the last.
    fn extent(&mut self) -> Result<Option<Vec<Bytes>>> {
        let next = match self.planned.pop_front() {
            Some(extent) => Some(extent),
            None => self.plan.next()?,
        };
        let Some(extent) = next else {
            return Ok(None);
        };
        while self.planned.len() < self.reads.options.ahead {
            let Some(later) = self.plan.next()? else {
                break;
            };
            self.reads.announce(&later);
            self.planned.push_back(later);
        }
        let (reads, mut read) = (&self.reads, 0);
        let bytes = reads.flights.read(&extent, || {
            let (bytes, chunks) = reads.extent(&extent)?;
            read = chunks as u64;
            Ok(bytes)
        })?;
        self.chunks_read += read;
        Ok(Some(bytes))
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
