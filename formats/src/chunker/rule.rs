//! The cut rule of one size triple and dialect: everything that all forms of the chunker share.

use super::cut_test::CutTest;
use super::kernel::Kernel;
use super::sizes::{ChunkSizes, ChunkSizesError, Dialect};

/// Where cuts may be: sizes, dialect and the kernel that searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutRule {
    pub(super) sizes: ChunkSizes,
    pub(super) test: CutTest,
    pub(super) kernel: Kernel,
    /// Chunk length at which the hash is tested first; at least 48.
    pub(super) first_tested: usize,
}

impl CutRule {
    /// The rule of `sizes` in `dialect`, or an error where the dialect's own tool has none ([`ChunkSizes::check`]).
    pub fn new(sizes: ChunkSizes, dialect: Dialect) -> Result<Self, ChunkSizesError> {
        sizes.check(dialect)?;
        Ok(Self::unchecked(sizes, dialect))
    }

    /// As [`CutRule::new`], for any sizes: a max below the window cuts at max, a missing divisor never cuts before max.
    pub(super) fn unchecked(sizes: ChunkSizes, dialect: Dialect) -> Self {
        Self {
            sizes,
            test: CutTest::new(sizes.discriminator(dialect)),
            kernel: Kernel::best(),
            first_tested: sizes.first_tested(dialect),
        }
    }

    /// The same rule searched by another kernel, for tests and benches. Cuts do not change.
    #[must_use]
    pub fn with_kernel(self, kernel: Kernel) -> Self {
        Self { kernel, ..self }
    }

    /// The sizes it was made from.
    pub fn sizes(&self) -> ChunkSizes {
        self.sizes
    }

    /// Whether a chunk that reaches `len` bytes can be cut by its hash there.
    pub(super) fn is_hashed(&self) -> bool {
        !self.sizes.is_fixed() && self.first_tested <= self.sizes.max()
    }
}
