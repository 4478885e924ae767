//! Memory that ranges are read into, used again: pages of memory that nobody had before cost more than the bytes read into them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers of one length, lent out and taken back; as many as were lent at a time stay, within a bound.
#[derive(Clone, Debug)]
pub struct ReadBuffers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    len: usize,
    free_max: usize,
    free: Mutex<Vec<Vec<u8>>>,
    lent: AtomicUsize,
}

impl ReadBuffers {
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

    /// Bytes that are lent out, in buffers of any length.
    pub fn lent(&self) -> usize {
        self.0.lent.load(Ordering::Relaxed)
    }

    /// Memory of `len` bytes, which may hold what was read before. What is much shorter than a buffer or longer has its own.
    pub(crate) fn lend(&self, len: usize) -> ReadBuffer {
        let shared = &self.0;
        let bytes = match (shared.len / 2..=shared.len).contains(&len) {
            true => self.pop().unwrap_or_else(|| vec![0; shared.len]),
            false => vec![0; len],
        };
        shared.lent.fetch_add(bytes.len(), Ordering::Relaxed);
        ReadBuffer {
            bytes,
            len,
            home: Arc::clone(shared),
        }
    }

    fn pop(&self) -> Option<Vec<u8>> {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// Memory that goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    bytes: Vec<u8>,
    len: usize,
    home: Arc<Shared>,
}

impl ReadBuffer {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// To be handed on in slices; it goes back with the last of them.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.home.lent.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        if self.bytes.len() != self.home.len {
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
        let buffers = ReadBuffers::new(100, 1);
        let mut lent = buffers.lend(80);
        lent.as_mut().fill(7);
        let bytes = lent.into_bytes();
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert_eq!((buffers.lent(), &slice[..]), (100, &[7; 10][..]));
        let (other, long, short) = (buffers.lend(100), buffers.lend(101), buffers.lend(3));
        assert_eq!(
            (long.as_ref().len(), short.as_ref().len(), buffers.lent()),
            (101, 3, 304)
        );
        drop((slice, other, long, short));
        assert_eq!(buffers.lent(), 0);
        assert_eq!(buffers.0.free.lock().unwrap().len(), 1, "one is kept, of its length");
    }
}
