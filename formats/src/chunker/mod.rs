//! Content-defined cuts as casync makes them: a 32-bit cyclic-polynomial hash (buzhash) over a 48-byte window.
//!
//! Invariants: the same stream gives the same cuts however it is sliced; a chunk's end depends on the chunk's own bytes only.
//! Source: casync's chunker, and desync's for dialect 2 (`formats/FORMATS.md`, "Chunker").
//!
//! # The rule
//!
//! With the table `T` (`table.rs`), `rol` a rotation of 32 bits to the left and `p` the end of a window (exclusive):
//!
//! ```text
//! H(p) = XOR of rol(T[b_j], p - 1 - j) over j in p-48 .. p-1          H(p+1) = rol(H(p), 1) ^ rol(T[leaving], 16) ^ T[entering]
//! candidate(p)  <=>  H(p) mod D == D - 1
//! D = trunc(avg / (1.33237515 - 1.42888852e-7 * avg)) in double precision; in dialect 1 then clamped to min..=max
//! chunk that starts at s ends at:  min(smallest candidate >= s + F, s + max, end of stream)
//! F = max(min, 48) in dialect 1,  max(min, 48) + 1 in dialect 2
//! ```
//!
//! - `min == avg == max`: every chunk is max bytes, nothing is hashed.
//! - The first `F - 48` bytes of a chunk never enter a tested hash, so they are skipped.
//! - min below 48: the first possible cut is at 48. max below 48: casync fails, [`CutRule::new`] refuses it, and
//!   [`Chunker::new`], which cannot fail, cuts at max.
//! - desync's dialect wants min of 48 or more; [`CutRule::new`] refuses less.
//! - An average of 9324556 or more makes D's denominator negative: `sizes.rs` says what each tool makes of it.
//! - A stream of length 0 has no chunks; a cut at the very end of a stream adds no empty chunk.
//!
//! # The forms
//!
//! - [`Chunker`]: sequential, pushed in pieces, skips what cannot hold a cut.
//! - [`CutRule::candidates`] and [`Sweep`]: exact and parallel. Blocks are searched anywhere, in any order; the sweep over the
//!   few positions found is the rule above, word for word.
//! - [`CutRule::first_certified_cut`]: a cut that every chunking has to share, whatever came before, so that parts of a stream
//!   can be cut before their neighbours are known.
//! - [`PartCutter`] and [`PartJoin`]: parts of a stream that come in any order, each cut on its own, then joined: only the seams
//!   between them are cut again.
//!
//! All give the same cuts, with every [`Kernel`].

mod cut_test;
mod kernel;
mod parallel;
mod parts;
#[cfg(test)]
mod parts_tests;
#[cfg(test)]
mod reference;
mod rule;
mod sequential;
mod sizes;
mod table;
#[cfg(test)]
mod tests;

pub use kernel::Kernel;
pub use parallel::{Candidates, Sweep};
pub use parts::{JoinStep, PartCuts, PartCutter, PartJoin};
pub use rule::CutRule;
pub use sequential::Chunker;
pub use sizes::{CHUNK_LEN_MAX, ChunkSizes, ChunkSizesError, Dialect};
