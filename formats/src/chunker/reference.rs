//! The rule written down byte by byte, with a division, for the tests of the fast forms. Tests only.

use super::sizes::{ChunkSizes, Dialect, WINDOW_LEN};
use super::table::TABLE;

/// Hash of every window: item `p` is the hash of `data[p - 48..p]`, 0 for `p < 48`.
pub(super) fn hashes(data: &[u8]) -> Vec<u32> {
    let mut hash = 0u32;
    let mut hashes = vec![0; data.len() + 1];
    for (at, &byte) in data.iter().enumerate() {
        hash = hash.rotate_left(1) ^ TABLE[usize::from(byte)];
        if at >= WINDOW_LEN {
            hash ^= TABLE[usize::from(data[at - WINDOW_LEN])].rotate_left(48 % 32);
        }
        if at + 1 >= WINDOW_LEN {
            hashes[at + 1] = hash;
        }
    }
    hashes
}

/// All candidates, ascending.
pub(super) fn candidates(data: &[u8], sizes: ChunkSizes, dialect: Dialect) -> Vec<usize> {
    let divisor = sizes.discriminator(dialect);
    let hashes = hashes(data);
    (WINDOW_LEN..=data.len())
        .filter(|&end| divisor != 0 && hashes[end] % divisor == divisor - 1)
        .collect()
}

/// Ends of all chunks, the last included.
pub(super) fn cuts(data: &[u8], sizes: ChunkSizes, dialect: Dialect) -> Vec<usize> {
    let divisor = sizes.discriminator(dialect);
    let hashes = hashes(data);
    let mut ends = Vec::new();
    let mut start = 0;
    for (end, &hash) in hashes.iter().enumerate().skip(1) {
        let len = end - start;
        let tested = match dialect {
            Dialect::Casync => len >= sizes.min(),
            Dialect::Desync => len > sizes.min(),
        };
        let hit = !sizes.is_fixed()
            && tested
            && len >= WINDOW_LEN + usize::from(dialect == Dialect::Desync && sizes.min() < WINDOW_LEN)
            && divisor != 0
            && hash % divisor == divisor - 1;
        if hit || len == sizes.max() || end == data.len() {
            ends.push(end);
            start = end;
        }
    }
    ends
}
