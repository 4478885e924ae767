//! A file written from its beginning, with blocks reserved ahead where that saves the system work.
//!
//! ext4 does the bookkeeping of a write block by block, and most of it is not needed for blocks that a file already has: writing
//! costs a fifth less then. Others do not gain by it, or lose (btrfs does not compress what was reserved).

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::FallocateFlags;

/// `EXT4_SUPER_MAGIC` of `linux/magic.h`.
const EXT: u64 = 0xef53;
/// Bytes written before anything is reserved; small files are not worth it.
const UNRESERVED_LEN: u64 = 1 << 20;
/// Bytes reserved at a time at most. Never more than were written already.
const STEP_LEN_MAX: u64 = 64 << 20;

/// Writes to an empty file. What is reserved and not used is given back by [`Reserving::finish`].
#[derive(Debug)]
pub(crate) struct Reserving<'a> {
    file: &'a mut File,
    written: u64,
    /// Where the reserved blocks end; 0 for none.
    reserved: u64,
    on: bool,
}

impl<'a> Reserving<'a> {
    /// - `file`: empty, at its beginning.
    pub(crate) fn new(file: &'a mut File) -> Self {
        let on = rustix::fs::fstatfs(&*file).is_ok_and(|stat| stat.f_type as u64 == EXT);
        Self {
            file,
            written: 0,
            reserved: 0,
            on,
        }
    }

    /// Gives the file the length that was written. Errors: the system's.
    pub(crate) fn finish(self) -> io::Result<()> {
        if self.reserved > self.written {
            self.file.set_len(self.written)?;
        }
        Ok(())
    }
}

impl Write for Reserving<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.written + bytes.len() as u64;
        if self.on && end > self.reserved && self.written >= UNRESERVED_LEN {
            let (from, step) = (self.reserved.max(self.written), self.written.min(STEP_LEN_MAX));
            // A disk too full for this may have room enough for the rest.
            self.on = rustix::fs::fallocate(&*self.file, FallocateFlags::empty(), from, step).is_ok();
            if self.on {
                self.reserved = from + step;
            }
        }
        let len = self.file.write(bytes)?;
        self.written += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_has_what_was_written_and_no_blocks_beyond() {
        let piece: Vec<u8> = (0..300_001_u32).map(|at| (at % 251) as u8).collect();
        for pieces in [0, 1, 4, 12, 30] {
            let mut file = tempfile::tempfile().unwrap();
            let mut output = Reserving::new(&mut file);
            for _ in 0..pieces {
                output.write_all(&piece).unwrap();
            }
            output.finish().unwrap();
            let meta = file.metadata().unwrap();
            assert_eq!(meta.len(), pieces * piece.len() as u64);
            assert!(
                meta.blocks() * 512 <= meta.len() + (64 << 10),
                "{pieces}: {}",
                meta.blocks()
            );
            let mut bytes = vec![0; meta.len() as usize];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
            assert!(bytes == piece.repeat(pieces as usize), "{pieces}");
        }
    }
}
