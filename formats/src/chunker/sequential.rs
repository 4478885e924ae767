//! The push form: one stream, in pieces of any size. Hot path.
//!
//! Only positions where a cut is allowed are hashed: the first `min - 48` bytes of a chunk are skipped. Between pushes the
//! last 48 bytes are kept and nothing else, as a window's hash needs no history.

use super::kernel::Kernel;
use super::rule::CutRule;
use super::sizes::{ChunkSizes, Dialect, WINDOW_LEN};

/// Finds the cuts of one stream, pushed in pieces of any size.
///
/// A push that ends inside a chunk costs one more window of 48 bytes, so pieces of some KiB or more are fast.
#[derive(Clone, Debug)]
pub struct Chunker {
    rule: CutRule,
    /// Last bytes of the open chunk, right-aligned; meaningful for as many as the chunk has.
    tail: [u8; WINDOW_LEN],
    /// Bytes of the open chunk so far; below max.
    len: usize,
}

impl From<CutRule> for Chunker {
    fn from(rule: CutRule) -> Self {
        Self {
            rule,
            tail: [0; WINDOW_LEN],
            len: 0,
        }
    }
}

impl Chunker {
    /// A chunker at the start of a stream.
    ///
    /// Total, also for sizes that the dialect's own tool refuses ([`ChunkSizes::check`], [`CutRule::new`]): a max below 48
    /// then cuts at max, and without a divisor every cut is at max.
    pub fn new(sizes: ChunkSizes, dialect: Dialect) -> Self {
        CutRule::unchecked(sizes, dialect).into()
    }

    /// The same chunker searching with another kernel, for tests and benches. Cuts do not change.
    #[must_use]
    pub fn with_kernel(mut self, kernel: Kernel) -> Self {
        self.rule = self.rule.with_kernel(kernel);
        self
    }

    /// Bytes of the open chunk so far: 0 right after a cut.
    pub fn open_len(&self) -> usize {
        self.len
    }

    /// Takes the next bytes of the stream and finds where the current chunk ends.
    ///
    /// - `input`: any number of bytes, 0 included.
    /// - Returns how many bytes of `input` belong to the chunk, or `None` when all do and it is still open. After a cut the
    ///   next call starts with the byte behind it.
    /// - Same stream, same cuts, however it is sliced; chunks are `min..=max` bytes, only the last may be shorter. Cannot fail.
    /// - Source: casync buzhash chunker, 48-byte window (`formats/FORMATS.md`, "Chunker").
    pub fn cut(&mut self, input: &[u8]) -> Option<usize> {
        // Offsets in `input` of the forced cut and of the first and last hash tests; all tests are at 1 or later.
        let max_cut = self.rule.sizes.max() - self.len;
        let from = self.rule.first_tested.saturating_sub(self.len).max(1);
        let to = input.len().min(max_cut);
        let found = if self.rule.is_hashed() && from <= to {
            self.search(input, from, to)
        } else {
            None
        };
        let cut = found.or((max_cut <= input.len()).then_some(max_cut));
        match cut {
            Some(_) => self.len = 0,
            None => self.keep(input),
        }
        cut
    }

    /// Smallest candidate in `from..=to` of `input`, behind the open chunk's tail.
    fn search(&self, input: &[u8], from: usize, to: usize) -> Option<usize> {
        let CutRule { kernel, test, .. } = &self.rule;
        if from < WINDOW_LEN {
            // Windows that start in an earlier push: tail and input side by side.
            let seam_to = to.min(WINDOW_LEN - 1);
            let mut seam = [0; 2 * WINDOW_LEN];
            seam[..WINDOW_LEN].copy_from_slice(&self.tail);
            seam[WINDOW_LEN..WINDOW_LEN + seam_to].copy_from_slice(&input[..seam_to]);
            let seam = &seam[..WINDOW_LEN + seam_to];
            if let Some(found) = kernel.first(test, seam, WINDOW_LEN + from, WINDOW_LEN + seam_to) {
                return Some(found - WINDOW_LEN);
            }
        }
        kernel.first(test, input, from.max(WINDOW_LEN), to)
    }

    /// Adds all of `input` to the open chunk.
    fn keep(&mut self, input: &[u8]) {
        self.len += input.len();
        if input.len() >= WINDOW_LEN {
            self.tail.copy_from_slice(&input[input.len() - WINDOW_LEN..]);
        } else {
            self.tail.rotate_left(input.len());
            self.tail[WINDOW_LEN - input.len()..].copy_from_slice(input);
        }
    }
}
