//! Parts of a stream, cut in whatever order they come, and joined to the cuts of the whole.
//!
//! Each part is cut as if a stream began with it ([`PartCutter`]), so that nothing of it has to wait. A chunk's end depends on the
//! chunk's own bytes only: two ways to cut that share one cut share all behind it. So behind a part's first certified cut its own
//! cuts are those of every whole it can be in, and joining ([`PartJoin`]) cuts anew only from the last cut of one part to the
//! first that falls on one of the next part's own: a *seam*. A seam depends on its two parts alone if the left one has a
//! certified cut (or is the first), so it can be cut as soon as both are there, whatever comes before and behind.
//!
//! No kind of data needs a rule of its own: where a seam finds no cut of the part's own (zeros, fixed sizes, sizes without
//! certified cuts, parts shorter than a chunk) it goes on through the part and into the next one. Parts may be dropped or replaced
//! up to the end: their seams are cut again. Not here: where bytes are kept meanwhile, what chunks are named.

use std::ops::Range;

use bytes::Bytes;

use super::parallel::CertifiedSearch;
use super::{Chunker, CutRule};

/// A part's own chunks: where they end, and which of the ends can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartCuts {
    /// Ends of the chunks, ascending; the last is the part's length.
    ends: Vec<u64>,
    /// Own cuts from here on are cuts of every whole.
    certified: Option<u64>,
    /// Whether the last end is a cut, and not only where the part ends.
    is_closed: bool,
}

impl PartCuts {
    /// What was kept of a [`PartCuts`].
    ///
    /// - `ends`: ascending, none of them 0. `None` if they are not, or `certified` is not one of them.
    pub fn new(ends: Vec<u64>, certified: Option<u64>, is_closed: bool) -> Option<Self> {
        let ascends = ends.first() != Some(&0) && ends.windows(2).all(|pair| pair[0] < pair[1]);
        let is_cut = certified.is_none_or(|cut| ends.binary_search(&cut).is_ok());
        (ascends && is_cut).then_some(Self {
            ends,
            certified,
            is_closed,
        })
    }

    /// Ends of the part's own chunks; the last is the part's length. None for a part of no bytes.
    pub fn ends(&self) -> &[u64] {
        &self.ends
    }

    /// The first own cut of which is certain that it, and all own cuts behind it, are cuts of every whole that has this part, but
    /// for what is behind the last cut. `None`: that depends on what comes before.
    pub fn certified(&self) -> Option<u64> {
        self.certified
    }

    /// Whether the last chunk ends with a cut; otherwise it goes on in the next part.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Bytes of the part.
    pub fn part_len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// How many own chunks end with a cut.
    fn closed(&self) -> usize {
        self.ends.len() - usize::from(!self.is_closed && !self.ends.is_empty())
    }
}

/// Cuts one part, pushed in pieces of any size, as if a stream began with it.
#[derive(Clone, Debug)]
pub struct PartCutter {
    chunker: Chunker,
    search: CertifiedSearch,
    len: u64,
    ends: Vec<u64>,
}

impl PartCutter {
    /// At the start of a part.
    pub fn new(rule: CutRule) -> Self {
        Self {
            chunker: rule.into(),
            search: CertifiedSearch::new(rule),
            len: 0,
            ends: Vec::new(),
        }
    }

    /// Takes the next bytes of the part, as [`Chunker::cut`] does: how many of them belong to the open chunk, `None` when all do.
    pub fn cut(&mut self, input: &[u8]) -> Option<usize> {
        let cut = self.chunker.cut(input);
        let taken = cut.unwrap_or(input.len());
        self.search.push(&input[..taken]);
        self.len += taken as u64;
        if cut.is_some() {
            self.ends.push(self.len);
        }
        cut
    }

    /// Bytes of the open chunk so far: 0 right after a cut.
    pub fn open_len(&self) -> usize {
        self.chunker.open_len()
    }

    /// [`PartCuts::certified`], if it was found yet. Cuts up to it have been answered.
    pub fn certified(&self) -> Option<u64> {
        self.search.found().filter(|cut| *cut <= self.len)
    }

    /// The part ends here, and with it its open chunk.
    pub fn finish(mut self) -> PartCuts {
        let is_closed = self.chunker.open_len() == 0;
        if !is_closed {
            self.ends.push(self.len);
        }
        // A cut at which the part's own chunking does not end a chunk would break the lemma; then nothing is relied on.
        let certified = self
            .search
            .found()
            .filter(|cut| self.ends.binary_search(cut).is_ok() && (is_closed || *cut < self.len));
        PartCuts {
            ends: self.ends,
            certified,
            is_closed,
        }
    }
}

/// What a join has come to, and what its caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinStep {
    /// The next chunks of the whole are these own chunks of a part.
    Keep {
        /// Which part, counted from 0.
        part: usize,
        /// Which of its chunks; never empty.
        chunks: Range<usize>,
    },
    /// The next chunks of the whole are those of the seam before this part, which was cut before.
    Seam {
        /// The part on the seam's right.
        part: usize,
    },
    /// The plain bytes of this own chunk are wanted: [`PartJoin::push`] takes them.
    Read {
        /// Which part.
        part: usize,
        /// Which of its chunks.
        chunk: usize,
    },
    /// The next chunk of the whole is this many bytes of those that were pushed: the first that belong to no chunk yet.
    Chunk(usize),
    /// There is nothing more.
    Done,
}

/// Joins the own chunks of parts, in their order, to the chunks of the whole.
///
/// The caller asks for steps and does what they say; bytes that were pushed and belong to no chunk yet, it keeps: never more than
/// the longest chunk and one more.
///
/// ```
/// # use cairn_formats::{ChunkSizes, CutRule, Dialect, JoinStep, PartCutter, PartJoin};
/// # let rule = CutRule::new(ChunkSizes::new(64, 256, 1024)?, Dialect::Casync)?;
/// # let stream: Vec<u8> = (0..9000u64).map(|at| (at * at * 31 >> 7) as u8).collect();
/// let parts: Vec<&[u8]> = stream.chunks(3000).collect();
/// let cuts: Vec<_> = parts.iter().map(|part| {
///     let mut cutter = PartCutter::new(rule);
///     let mut rest = *part;
///     while let Some(len) = cutter.cut(rest) { rest = &rest[len..] }
///     cutter.finish()
/// }).collect();
/// let (mut join, mut lens) = (PartJoin::new(rule, &cuts, |_| None), Vec::new());
/// loop {
///     let own = |part: usize, chunk: usize| {
///         let ends = cuts[part].ends();
///         (if chunk == 0 { 0 } else { ends[chunk - 1] as usize })..ends[chunk] as usize
///     };
///     match join.step() {
///         JoinStep::Keep { part, chunks } => lens.extend(chunks.map(|chunk| own(part, chunk).len())),
///         JoinStep::Read { part, chunk } => join.push(parts[part][own(part, chunk)].to_vec().into()),
///         JoinStep::Chunk(len) => lens.push(len),
///         JoinStep::Seam { .. } => unreachable!("none was cut before"),
///         JoinStep::Done => break,
///     }
/// }
/// assert_eq!(lens.iter().sum::<usize>(), stream.len());
/// # Ok::<(), cairn_formats::ChunkSizesError>(())
/// ```
#[derive(Debug)]
pub struct PartJoin<'a, S> {
    parts: &'a [PartCuts],
    seams: S,
    chunker: Chunker,
    at: At,
    bytes_read: u64,
}

/// Where a join is.
#[derive(Debug)]
enum At {
    /// Own chunks of a part, from this one on, are the whole's.
    InStep { part: usize, from: usize },
    /// All own chunks of the part that end with a cut have been taken; its last one is open.
    Open { part: usize },
    /// A seam is being cut, and this is the next own chunk that it needs.
    Seam { part: usize, chunk: usize },
    /// The bytes of that chunk are there, from `done` on not yet looked at.
    Cutting {
        part: usize,
        chunk: usize,
        bytes: Bytes,
        done: usize,
    },
    /// No more chunk comes.
    Done,
}

impl<'a, S: FnMut(usize) -> Option<usize>> PartJoin<'a, S> {
    /// A join of parts in their order.
    ///
    /// - `rule`: that by which all of them were cut.
    /// - `seams`: for the part on a seam's right, which of its own chunks follows the seam, if that seam was cut before between
    ///   exactly these two parts. Asked only where the left part's own last cut is a cut of the whole, so that it is right.
    pub fn new(rule: CutRule, parts: &'a [PartCuts], seams: S) -> Self {
        Self {
            parts,
            seams,
            chunker: rule.into(),
            at: At::InStep { part: 0, from: 0 },
            bytes_read: 0,
        }
    }

    /// Only the seam between two parts, of which the left one's own last cut is taken for a cut of the whole. Steps are asked for
    /// until [`PartJoin::in_step`] answers, or they are done without: then the seam goes on behind the right part.
    pub fn seam(rule: CutRule, pair: &'a [PartCuts; 2], none: S) -> Self {
        let mut join = Self::new(rule, pair, none);
        join.at = if pair[0].closed() < pair[0].ends.len() {
            At::Open { part: 0 }
        } else {
            At::InStep { part: 1, from: 0 }
        };
        join
    }

    /// Of a seam: the own chunk of the right part that follows it, as many as it has when that is none, once it is cut.
    pub fn in_step(&self) -> Option<usize> {
        match self.at {
            At::InStep { part: 1, from } => Some(from),
            At::InStep { part: 2, .. } => Some(self.parts[1].ends.len()),
            _ => None,
        }
    }

    /// Bytes of parts that were wanted again so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The next step. After [`JoinStep::Read`], [`PartJoin::push`] is to be called first.
    pub fn step(&mut self) -> JoinStep {
        loop {
            match std::mem::replace(&mut self.at, At::Done) {
                At::InStep { part, from } => {
                    if let Some(step) = self.keep(part, from) {
                        return step;
                    }
                }
                At::Open { part } => {
                    if let Some(next) = self.next_with_bytes(part) {
                        if let Some(from) = (self.seams)(next) {
                            self.at = At::InStep { part: next, from };
                            return JoinStep::Seam { part: next };
                        }
                        let chunk = self.parts[part].ends.len() - 1;
                        self.at = At::Seam { part, chunk };
                    } else {
                        // The end of the whole ends the chunk, too.
                        let last = self.parts[part].ends.len() - 1;
                        return JoinStep::Keep {
                            part,
                            chunks: last..last + 1,
                        };
                    }
                }
                At::Seam { part, chunk } => {
                    let own = &self.parts[part].ends;
                    if chunk < own.len() {
                        let start = if chunk == 0 { 0 } else { own[chunk - 1] };
                        self.bytes_read += own[chunk] - start;
                        self.at = At::Seam { part, chunk };
                        return JoinStep::Read { part, chunk };
                    }
                    if let Some(next) = self.next_with_bytes(part) {
                        self.at = At::Seam { part: next, chunk: 0 };
                    } else if self.chunker.open_len() > 0 {
                        return JoinStep::Chunk(self.chunker.open_len());
                    }
                }
                At::Cutting {
                    part,
                    chunk,
                    bytes,
                    done,
                } => {
                    let Some(len) = self.cut_on(part, chunk, bytes, done) else {
                        continue;
                    };
                    return JoinStep::Chunk(len);
                }
                At::Done => return JoinStep::Done,
            }
        }
    }

    /// Takes the bytes that the last step asked for.
    ///
    /// # Panics
    /// If none were asked for, or they are not as many as the chunk has.
    pub fn push(&mut self, bytes: Bytes) {
        let At::Seam { part, chunk } = self.at else {
            panic!("no bytes were asked for");
        };
        let own = &self.parts[part].ends;
        let start = if chunk == 0 { 0 } else { own[chunk - 1] };
        assert_eq!(bytes.len() as u64, own[chunk] - start, "a chunk has its own length");
        self.at = At::Cutting {
            part,
            chunk,
            bytes,
            done: 0,
        };
    }

    /// The next part that is not empty.
    fn next_with_bytes(&self, part: usize) -> Option<usize> {
        (part + 1..self.parts.len()).find(|&next| !self.parts[next].ends.is_empty())
    }

    fn keep(&mut self, part: usize, from: usize) -> Option<JoinStep> {
        let own = self.parts.get(part)?;
        let closed = own.closed();
        // A seam may end where the part does, with a cut that is not the part's own.
        self.at = if closed.max(from) == own.ends.len() {
            At::InStep {
                part: part + 1,
                from: 0,
            }
        } else {
            At::Open { part }
        };
        (from < closed).then_some(JoinStep::Keep {
            part,
            chunks: from..closed,
        })
    }

    /// Goes on cutting an own chunk's bytes. `None`: there is no cut in them, or no more.
    fn cut_on(&mut self, part: usize, chunk: usize, bytes: Bytes, done: usize) -> Option<usize> {
        let open = self.chunker.open_len();
        let Some(len) = self.chunker.cut(&bytes[done..]) else {
            self.at = At::Seam { part, chunk: chunk + 1 };
            return None;
        };
        self.at = if done + len < bytes.len() {
            At::Cutting {
                part,
                chunk,
                bytes,
                done: done + len,
            }
        } else if chunk + 1 < self.parts[part].ends.len() {
            // A cut of both: so are all that follow.
            At::InStep { part, from: chunk + 1 }
        } else {
            At::InStep {
                part: part + 1,
                from: 0,
            }
        };
        Some(open + len)
    }
}
