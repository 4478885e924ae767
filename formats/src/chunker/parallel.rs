//! The parallel forms: candidates of blocks searched independently, the sweep over them, and certified cuts.
//!
//! Whether a position is a candidate depends on the 48 bytes before it and on nothing else, so blocks can be searched in any
//! order, each with the 47 bytes in front of it; the sweep then applies the rule to the candidates. Not here: threads.

use std::ops::ControlFlow;

use super::kernel::Hits;
use super::rule::CutRule;
use super::sizes::WINDOW_LEN;

/// Candidates of one block of a stream.
///
/// Bounded: a list of positions while they are sparse (as on all ordinary data), a bitmap of one bit a byte where they are
/// dense (short periods, or runs of a byte whose window is a candidate), so never more than 1/8 of the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Offset of the block in its stream.
    start: u64,
    len: usize,
    form: Form,
}

/// Item or bit `i` stands for the position that ends with byte `i` of the block.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Sparse(Vec<u32>),
    Dense(Vec<u64>),
}

impl CutRule {
    /// Candidates among the positions `start + 1 ..= start + len` of a stream, for the [`Sweep`].
    ///
    /// - `data`: the block, with the `pre_roll` bytes that stand before it in the stream in front. `pre_roll` is 47 (more does
    ///   not matter), or as many as there are where the stream begins.
    /// - `start`: offset of the block (without pre-roll) in the stream.
    /// - Pure: blocks may be searched in any order and by any thread. Blocks of a few MiB keep the data in the cache.
    pub fn candidates(&self, data: &[u8], pre_roll: usize, start: u64) -> Candidates {
        let mut candidates = Candidates {
            start,
            len: data.len() - pre_roll,
            form: Form::Sparse(Vec::new()),
        };
        if self.is_hashed() {
            let from = WINDOW_LEN.max(pre_roll + 1);
            let all = self.kernel.each(&self.test, data, from, data.len(), |hits| {
                match hits {
                    Hits::Word { from, bits } => candidates.add_word(from - pre_roll - 1, bits),
                    Hits::Run { from, to } => candidates.add_run(from - pre_roll - 1, to - pre_roll - 1),
                }
                ControlFlow::<()>::Continue(())
            });
            debug_assert!(all.is_continue());
        }
        candidates
    }

    /// First position in `data` that is a cut of every chunking of the stream that began at or before `data`'s byte 48.
    ///
    /// - `data`: any part of a stream; what came before may be unknown. `None` if no cut in it is certain.
    /// - Returns an offset in `data`: the start of a chunk, to go on from with a [`Chunker`](super::Chunker).
    ///
    /// Why it is certain: let `b < c` be candidates without another between and `m` the first tested length, `m <= c - b <= max
    /// - m`. Let `e` be the last cut at or before `b`. If `e = b`, `c` is the next cut. Else `b - e < m`, as otherwise there were
    /// a cut in `(e, b]`; so no candidate up to `b` is tested, and `m <= c - e < max`, so `c` is next. Positions before 48 are
    /// unknown, not free of candidates: `b` is one that was seen.
    pub fn first_certified_cut(&self, data: &[u8]) -> Option<usize> {
        let mut search = CertifiedSearch::new(*self);
        search.push(data);
        search.found().map(|cut| cut as usize)
    }

    /// Whether the sizes leave room for certified cuts: `max >= 2 * m`, `m` the first tested length, and not all sizes equal.
    /// Without, where a part's cuts lie is known only when all before it has been cut.
    pub fn certifies(&self) -> bool {
        self.is_hashed() && self.sizes.max() >= 2 * self.first_tested
    }
}

/// [`CutRule::first_certified_cut`] of bytes that come in pieces.
#[derive(Clone, Debug)]
pub(super) struct CertifiedSearch {
    rule: CutRule,
    /// The last bytes, as many as a window may need of them, right-aligned.
    tail: [u8; WINDOW_LEN - 1],
    /// Bytes so far.
    len: u64,
    /// The last candidate.
    before: Option<u64>,
    found: Option<u64>,
}

impl CertifiedSearch {
    pub(super) fn new(rule: CutRule) -> Self {
        Self {
            rule,
            tail: [0; WINDOW_LEN - 1],
            len: 0,
            before: None,
            found: None,
        }
    }

    /// The first certified cut, if it was found yet.
    pub(super) fn found(&self) -> Option<u64> {
        self.found
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        const TAIL_LEN: usize = WINDOW_LEN - 1;
        if self.found.is_some() || !self.rule.certifies() {
            return;
        }
        let kept = TAIL_LEN.min(usize::try_from(self.len).unwrap_or(TAIL_LEN));
        if kept > 0 {
            // Windows that start in an earlier piece: tail and bytes side by side.
            let head = bytes.len().min(TAIL_LEN);
            let mut seam = [0; 2 * TAIL_LEN];
            seam[..kept].copy_from_slice(&self.tail[TAIL_LEN - kept..]);
            seam[kept..kept + head].copy_from_slice(&bytes[..head]);
            self.search(&seam[..kept + head], self.len - kept as u64);
        }
        if self.found.is_none() {
            self.search(bytes, self.len);
        }
        self.len += bytes.len() as u64;
        if bytes.len() >= TAIL_LEN {
            self.tail.copy_from_slice(&bytes[bytes.len() - TAIL_LEN..]);
        } else {
            self.tail.rotate_left(bytes.len());
            self.tail[TAIL_LEN - bytes.len()..].copy_from_slice(bytes);
        }
    }

    /// Looks at all whole windows in `data`, which begins at `start`.
    fn search(&mut self, data: &[u8], start: u64) {
        let CutRule {
            sizes,
            test,
            kernel,
            first_tested,
        } = self.rule;
        let gaps = first_tested as u64..=(sizes.max() - first_tested) as u64;
        let mut before = self.before;
        let found = kernel.each(&test, data, WINDOW_LEN, data.len(), |hits| {
            let (from, mut bits) = match hits {
                Hits::Word { from, bits } => (from, bits),
                Hits::Run { from, .. } => (from, 1),
            };
            while bits != 0 {
                let candidate = start + (from + bits.trailing_zeros() as usize) as u64;
                bits &= bits - 1;
                if before.is_some_and(|before| gaps.contains(&(candidate - before))) {
                    return ControlFlow::Break(candidate);
                }
                before = Some(candidate);
            }
            if let Hits::Run { to, .. } = hits {
                // Neighbours in a run are one byte apart, which is never enough.
                before = Some(start + to as u64);
            }
            ControlFlow::Continue(())
        });
        self.before = before;
        self.found = found.break_value();
    }
}

impl Candidates {
    /// Bytes of block for each item of a list at which list (4 bytes an item) and bitmap have the same size.
    const DENSE_FROM: usize = 32;

    /// Offset in the stream of the first byte behind the block.
    pub fn end(&self) -> u64 {
        self.start + self.len as u64
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        match &self.form {
            Form::Sparse(list) => list.len(),
            Form::Dense(words) => words.iter().map(|word| word.count_ones() as usize).sum(),
        }
    }

    /// Bytes of memory behind it.
    #[cfg(test)]
    pub(super) fn heap_len(&self) -> usize {
        match &self.form {
            Form::Sparse(list) => list.len() * 4,
            Form::Dense(words) => words.len() * 8,
        }
    }

    fn add_word(&mut self, from: usize, mut bits: u64) {
        while bits != 0 {
            let at = from + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            self.add_run(at, at);
        }
    }

    fn add_run(&mut self, from: usize, to: usize) {
        let room = self.len / Self::DENSE_FROM;
        match &mut self.form {
            Form::Sparse(list) if list.len() + (to - from) < room && self.len <= u32::MAX as usize => {
                list.extend(from as u32..=to as u32);
            }
            Form::Sparse(list) => {
                let mut words = vec![0; self.len.div_ceil(64)];
                for &mut at in list {
                    set_bits(&mut words, at as usize, at as usize);
                }
                set_bits(&mut words, from, to);
                self.form = Form::Dense(words);
            }
            Form::Dense(words) => set_bits(words, from, to),
        }
    }

    /// Smallest candidate position in `from..=to` (stream offsets).
    pub(super) fn first(&self, from: u64, to: u64) -> Option<u64> {
        let from = usize::try_from(from.saturating_sub(self.start + 1)).ok()?;
        let item = match &self.form {
            Form::Sparse(list) => {
                let at = list.partition_point(|&item| (item as usize) < from);
                *list.get(at)? as usize
            }
            Form::Dense(words) => {
                let (word, bit) = (from / 64, from % 64);
                let head = words.get(word)? & (u64::MAX << bit);
                if head != 0 {
                    word * 64 + head.trailing_zeros() as usize
                } else {
                    let behind = words[word + 1..].iter().position(|&bits| bits != 0)?;
                    let word = word + 1 + behind;
                    word * 64 + words[word].trailing_zeros() as usize
                }
            }
        };
        Some(self.start + 1 + item as u64).filter(|&position| position <= to)
    }
}

/// Sets bits `from..=to`.
fn set_bits(words: &mut [u64], from: usize, to: usize) {
    let (first, last) = (from / 64, to / 64);
    let head = u64::MAX << (from % 64);
    let tail = u64::MAX >> (63 - to % 64);
    if first == last {
        words[first] |= head & tail;
    } else {
        words[first] |= head;
        words[first + 1..last].fill(u64::MAX);
        words[last] |= tail;
    }
}

/// Applies the cut rule to the candidates of a stream's blocks, in stream order.
///
/// ```
/// # use cairn_formats::{ChunkSizes, CutRule, Dialect, Sweep};
/// # let rule = CutRule::new(ChunkSizes::DEFAULT, Dialect::Casync)?;
/// # let stream = vec![1; 600_000];
/// let mut sweep = Sweep::new(rule);
/// let mut ends = Vec::new();
/// for (at, block) in stream.chunks(1 << 18).enumerate() {
///     let start = at << 18;
///     let pre_roll = start.min(47);
///     let candidates = rule.candidates(&stream[start - pre_roll..start + block.len()], pre_roll, start as u64);
///     while let Some(end) = sweep.cut(&candidates) {
///         ends.push(end);
///     }
/// }
/// ends.extend(sweep.finish());
/// assert_eq!(ends, [262_144, 524_288, 600_000]);
/// # Ok::<(), cairn_formats::ChunkSizesError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sweep {
    rule: CutRule,
    /// Start of the open chunk.
    chunk_start: u64,
    /// End of the blocks swept so far.
    swept: u64,
}

impl Sweep {
    /// At the start of a stream, offset 0.
    pub fn new(rule: CutRule) -> Self {
        Self {
            rule,
            chunk_start: 0,
            swept: 0,
        }
    }

    /// Start of the chunk that is still open: no earlier byte is needed any more.
    pub fn chunk_start(&self) -> u64 {
        self.chunk_start
    }

    /// The next cut inside a block, as a stream offset; `None` when the block is done and its successor is wanted.
    ///
    /// # Panics
    /// If the block neither is the one in work nor follows it without a gap.
    pub fn cut(&mut self, block: &Candidates) -> Option<u64> {
        assert!(
            block.start == self.swept || block.end() == self.swept,
            "a sweep takes the blocks of a stream in order"
        );
        let from = self.chunk_start + self.rule.first_tested as u64;
        let forced = self.chunk_start + self.rule.sizes.max() as u64;
        let to = forced.min(block.end());
        let found = block.first(from, to).or((forced <= block.end()).then_some(forced));
        match found {
            Some(end) => self.chunk_start = end,
            None => self.swept = block.end(),
        }
        found
    }

    /// The stream ends behind the last block: end of its last chunk, `None` if the last cut was there or the stream is empty.
    pub fn finish(self) -> Option<u64> {
        (self.chunk_start < self.swept).then_some(self.swept)
    }
}
