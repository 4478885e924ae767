//! Memory for bytes on their way, used again: pages of memory that nobody had before cost more than the bytes that go into them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers of one length, lent out and taken back; as many as were lent at a time stay, within a bound.
#[derive(Clone, Debug)]
pub struct Buffers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    len: usize,
    free_max: usize,
    free: Mutex<Vec<Vec<u8>>>,
    lent: AtomicUsize,
}

impl Buffers {
    /// - `len`: bytes of a buffer.
    /// - `free_max`: buffers that are kept while nobody has them.
    pub fn new(len: usize, free_max: usize) -> Self {
        Self(Arc::new(Shared {
            len,
            free_max,
            free: Mutex::default(),
            lent: AtomicUsize::new(0),
        }))
    }

    /// Bytes that were lent, in buffers of any length.
    pub fn lent(&self) -> usize {
        self.0.lent.load(Ordering::Relaxed)
    }

    /// Empty memory for `len` bytes. What is much shorter than a buffer or longer has its own.
    pub fn lend(&self, len: usize) -> Buffer {
        let shared = &self.0;
        let kept = (shared.len / 2..=shared.len).contains(&len);
        let bytes = match kept {
            true => self.pop().unwrap_or_else(|| Vec::with_capacity(shared.len)),
            false => Vec::with_capacity(len),
        };
        let lent = if kept { shared.len } else { len };
        shared.lent.fetch_add(lent, Ordering::Relaxed);
        Buffer {
            bytes,
            len: 0,
            lent,
            home: Arc::clone(shared),
        }
    }

    fn pop(&self) -> Option<Vec<u8>> {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// Memory that goes back when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    /// Behind `len` is what was there before, so that it need not be cleared.
    bytes: Vec<u8>,
    len: usize,
    lent: usize,
    home: Arc<Shared>,
}

impl Buffer {
    /// The first `len` bytes, to be written over: they may be of who had it before.
    pub(crate) fn space(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        self.len = len;
        &mut self.bytes[..len]
    }

    /// Adds bytes at the end.
    pub fn extend(&mut self, more: &[u8]) {
        let over = more.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + over].copy_from_slice(&more[..over]);
        self.bytes.extend_from_slice(&more[over..]);
        self.len += more.len();
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes it can hold without asking for more memory.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// To be handed on in slices; it goes back with the last of them.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.lent.fetch_sub(self.lent, Ordering::Relaxed);
        // What grew is not kept, and so is not what never was of that length.
        if self.lent != self.home.len || self.bytes.capacity() > 2 * self.home.len {
            return;
        }
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.home.free_max {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_slice() {
        let buffers = Buffers::new(100, 1);
        let mut lent = buffers.lend(80);
        lent.space(80).fill(7);
        let bytes = lent.into_bytes();
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert_eq!((buffers.lent(), &slice[..]), (100, &[7; 10][..]));
        let (other, long, short) = (buffers.lend(100), buffers.lend(101), buffers.lend(3));
        assert_eq!(
            (long.capacity() >= 101, short.is_empty(), buffers.lent()),
            (true, true, 304)
        );
        drop((slice, other, long, short));
        assert_eq!(buffers.lent(), 0);
        assert_eq!(buffers.0.free.lock().unwrap().len(), 1, "one is kept, of its length");
    }

    /// What somebody had before is never seen, whatever is added in which pieces.
    #[test]
    fn a_buffer_holds_what_was_added_and_nothing_else() {
        let buffers = Buffers::new(64, 4);
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let mut buffer = buffers.lend(40);
            let mut expected = Vec::new();
            assert!(buffer.is_empty());
            for _ in 0..random.usize(..6) {
                let piece: Vec<u8> = (0..random.usize(..20)).map(|_| random.u8(..)).collect();
                buffer.extend(&piece);
                expected.extend_from_slice(&piece);
            }
            assert_eq!((buffer.as_ref(), buffer.len()), (&expected[..], expected.len()));
        }
    }
}
