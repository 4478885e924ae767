//! Read buffers that are used again: a fresh megabyte costs the kernel as much as hashing a good part of it.

use std::sync::{Arc, Mutex};

/// Buffers given back and ready for the next block.
#[derive(Debug, Clone, Default)]
pub(crate) struct BufferPool {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer on loan; dropping it gives it back. Its bytes keep whatever they held before.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: BufferPool,
}

impl BufferPool {
    /// A buffer of at least `len` bytes, with old content.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        let mut bytes = self.lock().pop().unwrap_or_default();
        if bytes.len() < len {
            bytes = vec![0; len];
        }
        Buffer {
            bytes,
            pool: self.clone(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Buffer {
    /// All of the buffer.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.lock().push(bytes);
    }
}
