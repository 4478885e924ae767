//! Contents of files: written with holes for zeros, compared with what is there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::FallocateFlags;

/// Unit of holes: the block of most file systems.
const BLOCK_LEN: usize = 4096;
/// Bytes compared or copied at a time.
const PIECE_LEN: usize = 256 << 10;

/// Shortest piece that blocks are reserved for before it is written. Where files are written block by block without (ext4), a
/// reservation costs as much as the bookkeeping of some thirty blocks, and takes most of it away.
const RESERVED_LEN_MIN: usize = 128 << 10;

/// A file that is written from its beginning.
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    at: u64,
    sparse: bool,
    /// Whether blocks are reserved for what is about to be written.
    reserve: bool,
    /// Whether the last bytes were left out.
    hole: bool,
}

impl NewFile {
    /// - `sparse`: leave holes for zeros.
    /// - `reserve`: long pieces get their blocks before they are written; never what becomes a hole.
    pub(super) fn new(fd: OwnedFd, sparse: bool, reserve: bool) -> Self {
        Self {
            file: fd.into(),
            at: 0,
            sparse,
            reserve,
            hole: false,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Appends. Blocks of zeros become holes.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if !self.sparse {
            return self.put(bytes);
        }
        // Up to the next block's start, so that a hole covers whole blocks.
        while !bytes.is_empty() {
            let to_block = BLOCK_LEN - (self.at % BLOCK_LEN as u64) as usize;
            let mut len = to_block.min(bytes.len());
            if to_block == BLOCK_LEN && is_zero(&bytes[..len]) {
                self.at += len as u64;
                self.hole = true;
            } else {
                while len < bytes.len() && !is_zero(&bytes[len..bytes.len().min(len + BLOCK_LEN)]) {
                    len = bytes.len().min(len + BLOCK_LEN);
                }
                self.put(&bytes[..len])?;
            }
            bytes = &bytes[len..];
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.reserve && bytes.len() >= RESERVED_LEN_MIN {
            let how = FallocateFlags::empty();
            // Only to save work: writing tells why there is no room, if there is none.
            self.reserve = rustix::fs::fallocate(&self.file, how, self.at, bytes.len() as u64).is_ok();
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.hole = false;
        Ok(())
    }

    /// Appends the first `len` bytes of another file.
    pub(super) fn copy(&mut self, from: &OwnedFd, len: u64) -> io::Result<()> {
        let from = File::from(from.try_clone()?);
        let mut buffer = vec![0; PIECE_LEN];
        let mut copied = 0;
        while copied < len {
            let piece = &mut buffer[..PIECE_LEN.min((len - copied) as usize)];
            from.read_exact_at(piece, copied)?;
            self.write(piece)?;
            copied += piece.len() as u64;
        }
        Ok(())
    }

    /// Gives a file that ends in a hole its length.
    pub(super) fn finish(&mut self, len: u64) -> io::Result<()> {
        if self.hole { self.file.set_len(len) } else { Ok(()) }
    }
}

/// Whether all bytes are zero. Most blocks show in their first bytes that they are not.
fn is_zero(block: &[u8]) -> bool {
    let (first, rest) = block.split_at(block.len().min(16));
    first.iter().all(|&byte| byte == 0) && rest.iter().fold(0, |all, &byte| all | byte) == 0
}

/// Whether a file has these bytes at `offset`.
///
/// - `buffer`: room to read into, made here and used again: fresh memory costs the system more than reading does.
pub(super) fn is_same(fd: &OwnedFd, offset: u64, bytes: &[u8], buffer: &mut Vec<u8>) -> io::Result<bool> {
    if buffer.len() < PIECE_LEN.min(bytes.len()) {
        buffer.resize(PIECE_LEN, 0);
    }
    let mut at = offset;
    for piece in bytes.chunks(PIECE_LEN) {
        let mut filled = 0;
        while filled < piece.len() {
            match rustix::io::pread(fd, &mut buffer[filled..piece.len()], at + filled as u64) {
                Ok(0) => return Ok(false),
                Ok(len) => filled += len,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if &buffer[..piece.len()] != piece {
            return Ok(false);
        }
        at += piece.len() as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn zeros_become_holes_however_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut buffer = Vec::new();
        let mut bytes = vec![0_u8; 400_000];
        for at in [0, 5000, 70_000, 70_001, 200_000] {
            bytes[at] = 1;
        }
        bytes[210_000..350_000].fill(2);
        for (step, sparse, reserve) in [
            (1000, true, false),
            (4096, true, true),
            (100_000, true, true),
            (400_000, true, false),
            (400_000, true, true),
            (7777, false, false),
            (400_000, false, true),
        ] {
            let mut file = NewFile::new(File::create(&path).unwrap().into(), sparse, reserve);
            for piece in bytes.chunks(step) {
                file.write(piece).unwrap();
            }
            file.finish(bytes.len() as u64).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes, "{step}");
            let held = std::fs::metadata(&path).unwrap().blocks() * 512;
            if step >= 4096 {
                assert_eq!(held < 300_000, sparse, "{step}: {held}");
            }
            assert!(is_same(&File::open(&path).unwrap().into(), 100, &bytes[100..], &mut buffer).unwrap());
            assert!(!is_same(&File::open(&path).unwrap().into(), 99, &bytes[100..], &mut buffer).unwrap());
        }
    }
}
