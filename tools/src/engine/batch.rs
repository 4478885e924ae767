//! Neighbouring chunks of a blob, as the engine's workers take them, and reading them from a file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;

use cairn_formats::ChunkIndex;

/// Plain bytes of a batch, unless one chunk alone is longer.
pub(super) const BATCH_LEN_MAX: u64 = 2 << 20;

/// Neighbouring items of an index.
pub(super) struct Batch {
    /// Position of the first item.
    pub(super) first: usize,
    /// The items.
    pub(super) spans: Vec<cairn_formats::ChunkSpan>,
    /// Where they begin in the blob.
    pub(super) start: u64,
    /// Where they end.
    pub(super) end: u64,
}

impl Batch {
    /// Copies the items; `items` is not empty.
    pub(super) fn new(index: &ChunkIndex, items: Range<usize>) -> Self {
        let first = items.start;
        let spans: Vec<_> = items.map(|item| index.span(item)).collect();
        let (start, end) = (spans[0].range.start, spans[spans.len() - 1].range.end);
        Self {
            first,
            spans,
            start,
            end,
        }
    }

    /// Length of chunk `at`.
    pub(super) fn len(&self, at: usize) -> u64 {
        self.spans[at].range.end - self.spans[at].range.start
    }

    /// Chunk `at` in the batch's buffer.
    pub(super) fn slice(&self, at: usize) -> Range<usize> {
        (self.spans[at].range.start - self.start) as usize..(self.spans[at].range.end - self.start) as usize
    }
}

/// Reads until the buffer is full or the file ends; how much was read.
pub(super) fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
