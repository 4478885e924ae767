//! A bit per item, set and read by many threads at once.
//!
//! Bytes of it hold items 0 to 7, 8 to 15 and so on, the first in the lowest bit: the form of desync's state files.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits by number. A thread that sees a bit set sees what was written before it was set.
#[derive(Debug)]
pub(super) struct Bitmap {
    words: Vec<AtomicU64>,
    len: u64,
}

impl Bitmap {
    /// All clear.
    pub(super) fn new(len: u64) -> Self {
        let words = std::iter::repeat_with(AtomicU64::default).take(len.div_ceil(64) as usize);
        Self {
            words: words.collect(),
            len,
        }
    }

    /// How many bytes [`Bitmap::to_bytes`] gives.
    pub(super) fn bytes_len(len: u64) -> u64 {
        len.div_ceil(8)
    }

    /// From as many bytes as [`Bitmap::bytes_len`] says, else `None`. Bits past the end are dropped.
    pub(super) fn from_bytes(len: u64, bytes: &[u8]) -> Option<Self> {
        if bytes.len() as u64 != Self::bytes_len(len) {
            return None;
        }
        let bitmap = Self::new(len);
        for (word, eight) in bitmap.words.iter().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..eight.len()].copy_from_slice(eight);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        if let (Some(last), rest @ 1..) = (bitmap.words.last(), len % 64) {
            last.fetch_and((1 << rest) - 1, Ordering::Relaxed);
        }
        Some(bitmap)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let words = self.words.iter().map(|word| word.load(Ordering::Acquire).to_le_bytes());
        let mut bytes: Vec<u8> = words.flatten().collect();
        bytes.truncate(Self::bytes_len(self.len) as usize);
        bytes
    }

    /// Sets every bit.
    pub(super) fn set_all(&self) {
        (0..self.len).for_each(|at| self.set(at));
    }

    pub(super) fn get(&self, at: u64) -> bool {
        self.words[(at / 64) as usize].load(Ordering::Acquire) & 1 << (at % 64) != 0
    }

    pub(super) fn set(&self, at: u64) {
        self.words[(at / 64) as usize].fetch_or(1 << (at % 64), Ordering::Release);
    }

    pub(super) fn clear(&self, at: u64) {
        self.words[(at / 64) as usize].fetch_and(!(1 << (at % 64)), Ordering::Release);
    }

    /// How many are set.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        let ones = |word: &AtomicU64| u64::from(word.load(Ordering::Relaxed).count_ones());
        self.words.iter().map(ones).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_first_item_in_the_lowest_bit() {
        let bitmap = Bitmap::new(70);
        for at in [0, 9, 63, 64, 69] {
            bitmap.set(at);
        }
        bitmap.clear(63);
        let bytes = bitmap.to_bytes();
        assert_eq!(bytes, [1, 2, 0, 0, 0, 0, 0, 0, 0x21]);
        assert_eq!(bitmap.count(), 4);
        let again = Bitmap::from_bytes(70, &bytes).unwrap();
        assert!(again.get(69) && !again.get(63) && again.get(9));
        assert!(Bitmap::from_bytes(70, &bytes[1..]).is_none());
        let full = Bitmap::from_bytes(70, &[0xff; 9]).unwrap();
        assert_eq!(full.count(), 70);
        let all = Bitmap::new(70);
        all.set_all();
        assert_eq!(all.count(), 70);
    }
}
