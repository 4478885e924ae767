//! What the pack store needs of the machine: files in one folder, a clock, random bytes.
//!
//! A trait, so that the simulator can run the engine on a disk that tears, loses and lies. A write that returned may be lost
//! until the file's `sync` returned, a name until `sync_names` did.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::buffer::spare_capacity;
use rustix::fs::{FlockOperation, flock};
use rustix::io::{ReadWriteFlags, preadv2};

/// Files in one folder, a clock, random bytes.
pub trait Host: Send + Sync + fmt::Debug {
    /// Names of the files there.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new, empty file. Errors: one of the name is there.
    fn create(&self, name: &str) -> io::Result<Arc<dyn HostFile>>;
    /// A file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn HostFile>>;
    /// Takes a name away. Who has the file open can go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes created and removed names durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Time since some moment, never running backwards.
    fn now(&self) -> Duration;
    /// Seconds since 1970 UTC, as far as the machine knows.
    fn unix_seconds(&self) -> u64;
    /// Bytes that nobody can guess.
    fn random(&self) -> io::Result<[u8; 16]>;
}

/// An open file. Reads and writes at offsets may run side by side.
#[allow(clippy::len_without_is_empty)] // Nobody asks whether a file is empty.
pub trait HostFile: Send + Sync + fmt::Debug {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads up to the end of the buffer or of the file; returns how many bytes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Up to so many bytes, fewer where the file ends before.
    fn read_vec(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = self.read_at(offset, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
    /// Fills the buffer if that can be done without waiting for a disk; `false` says nothing about the file.
    fn read_resident(&self, _offset: u64, _buffer: &mut [u8]) -> bool {
        false
    }
    /// Says that these bytes will be read soon. No promise.
    fn announce(&self, _range: Range<u64>) {}
    /// Writes pieces one after the other.
    fn write_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()>;
    /// Asks for what was written to be on its way to the disk soon. No promise: a later `sync` has less to wait for.
    fn hurry(&self, _offset: u64, _len: u64) {}
    /// Cuts the file short.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes what was written durable. After an error nothing that was written since the last success may be relied on, even
    /// if a later call succeeds.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the machine, locked while this is open for writing.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    started: Instant,
    read_only: bool,
    lock: Option<File>,
    /// Memory for what is written past the page cache, aligned within; shared by all files, of which one is written at a time.
    staging: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Folder {
    /// Opens a folder; `lock` is held in it against other writers.
    ///
    /// - `direct`: long writes to new files go past the page cache, where the file system can do that.
    /// - Errors: `WouldBlock` when somebody else has it open for writing.
    pub(super) fn open(path: &Path, lock: &str, read_only: bool, direct: bool) -> io::Result<Self> {
        let lock = if read_only {
            None
        } else {
            let file = File::options().read(true).write(true).open(path.join(lock))?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            Some(file)
        };
        Ok(Self {
            path: path.to_owned(),
            started: Instant::now(),
            read_only,
            lock,
            staging: direct.then(Arc::default),
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing is not enough while a program that we have just started still shares the file.
        if let Some(lock) = &self.lock {
            let _ = flock(lock, FlockOperation::Unlock);
        }
    }
}

impl Host for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn HostFile>> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path.join(name))?;
        // Where that cannot be done it is none the worse.
        let direct = self.staging.as_ref().and_then(|staging| {
            let file = File::options()
                .write(true)
                .custom_flags(libc::O_DIRECT)
                .open(self.path.join(name))
                .ok()?;
            Some(Direct {
                file,
                staging: Arc::clone(staging),
                is_refused: AtomicBool::new(false),
            })
        });
        Ok(Arc::new(FolderFile { file, direct }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn HostFile>> {
        let file = File::options()
            .read(true)
            .write(!self.read_only)
            .open(self.path.join(name))?;
        Ok(Arc::new(FolderFile { file, direct: None }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn unix_seconds(&self) -> u64 {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        // Up to 256 bytes come whole.
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        Ok(bytes)
    }
}

#[derive(Debug)]
struct FolderFile {
    file: File,
    direct: Option<Direct>,
}

/// The same file, for writes past the page cache: what is written once, and read perhaps much later, costs a copy into pages that the
/// machine has to find first, and pushes out what is read often.
#[derive(Debug)]
struct Direct {
    file: File,
    staging: Arc<Mutex<Vec<u8>>>,
    /// The file system would not after all.
    is_refused: AtomicBool,
}

/// What offsets, lengths and memory have to be multiples of, whatever the disk.
const DIRECT_ALIGN: usize = 4096;
/// Shorter writes are not worth it.
const DIRECT_LEN_MIN: usize = 256 << 10;
/// Bytes of one write.
const STAGING_LEN: usize = 1 << 20;

impl Direct {
    /// Writes pieces whose bytes together begin and end at multiples of [`DIRECT_ALIGN`]. Returns how many bytes were written before
    /// the file system would not.
    fn write_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<usize> {
        let mut memory = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        memory.resize(STAGING_LEN + DIRECT_ALIGN, 0);
        let from = memory.as_ptr().align_offset(DIRECT_ALIGN);
        let staging = &mut memory[from..from + STAGING_LEN];
        let (mut done, mut filled) = (0, 0);
        let mut rest = pieces.iter().copied();
        let mut piece: &[u8] = &[];
        loop {
            if piece.is_empty() {
                match rest.next() {
                    Some(next) => piece = next,
                    None if filled == 0 => return Ok(done),
                    None => {}
                }
            }
            let (now, later) = piece.split_at(piece.len().min(STAGING_LEN - filled));
            staging[filled..filled + now.len()].copy_from_slice(now);
            (filled, piece) = (filled + now.len(), later);
            let is_last = piece.is_empty() && rest.len() == 0;
            if filled == STAGING_LEN || is_last && filled > 0 {
                match self.file.write_all_at(&staging[..filled], offset + done as u64) {
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                        self.is_refused.store(true, Ordering::Relaxed);
                        return Ok(done);
                    }
                    written => written?,
                }
                (done, filled) = (done + filled, 0);
            }
        }
    }
}

/// These bytes of pieces that lie one behind the other.
fn within<'a>(pieces: &[&'a [u8]], range: Range<usize>) -> Vec<&'a [u8]> {
    let mut start = 0;
    let part = |piece: &&'a [u8]| {
        let (from, to) = (range.start.max(start), range.end.min(start + piece.len()));
        let part = (from < to).then(|| &piece[from - start..to - start]);
        start += piece.len();
        part
    };
    pieces.iter().filter_map(part).collect()
}

impl HostFile for FolderFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Into memory that nobody has to clear first.
    fn read_vec(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            // Memory may be longer than was asked for.
            let wanted = len - bytes.len();
            let read = match wanted == bytes.capacity() - bytes.len() {
                true => rustix::io::pread(&self.file, spare_capacity(&mut bytes), at),
                false => {
                    let begun = bytes.len();
                    bytes.resize(len, 0);
                    let read = rustix::io::pread(&self.file, &mut bytes[begun..], at);
                    bytes.truncate(begun + read.unwrap_or(0));
                    read
                }
            };
            match read {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(bytes)
    }

    fn read_resident(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let len = buffer.len();
        let read = preadv2(
            &self.file,
            &mut [io::IoSliceMut::new(buffer)],
            offset,
            ReadWriteFlags::NOWAIT,
        );
        read.is_ok_and(|read| read == len)
    }

    fn announce(&self, range: Range<u64>) {
        let len = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
        // Whoever reads waits if the system does not care for it.
        let _ = rustix::fs::fadvise(&self.file, range.start, len, rustix::fs::Advice::WillNeed);
    }

    fn write_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        if let Some(direct) = self
            .direct
            .as_ref()
            .filter(|direct| !direct.is_refused.load(Ordering::Relaxed))
            && len >= DIRECT_LEN_MIN
        {
            let align = DIRECT_ALIGN as u64;
            let head = (offset.next_multiple_of(align) - offset) as usize;
            let body = ((offset + len as u64) / align * align - offset) as usize;
            // Blocks that are written in part go through the page cache, whole ones past it: no page is written both ways at once.
            self.write_cached(offset, &within(pieces, 0..head))?;
            let done = direct.write_at(offset + head as u64, &within(pieces, head..body))?;
            return self.write_cached(offset + (head + done) as u64, &within(pieces, head + done..len));
        }
        self.write_cached(offset, pieces)
    }

    fn hurry(&self, offset: u64, len: u64) {
        // SAFETY: the descriptor is open while `self` is; the call reads and writes no memory of ours.
        #[allow(unsafe_code)]
        unsafe {
            libc::sync_file_range(
                self.file.as_raw_fd(),
                offset as i64,
                len as i64,
                libc::SYNC_FILE_RANGE_WRITE,
            );
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl FolderFile {
    fn write_cached(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let mut offset = offset;
        let mut slices: Vec<io::IoSlice<'_>> = pieces.iter().map(|piece| io::IoSlice::new(piece)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            // 1024 is what the kernel takes at once.
            let most = rest.len().min(1024);
            let written = match rustix::io::pwritev(&self.file, &rest[..most], offset) {
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if written == 0 && rest.iter().any(|slice| !slice.is_empty()) {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            io::IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is written past the page cache, in pieces that begin and end anywhere, reads back, beside short writes.
    #[test]
    fn long_writes_of_any_shape_read_back() {
        let path = tempfile::tempdir().unwrap();
        fs::write(path.path().join("LOCK"), "").unwrap();
        let folder = Folder::open(path.path(), "LOCK", false, true).unwrap();
        let file = folder.create("file").unwrap();
        let mut random = fastrand::Rng::with_seed(4);
        let mut expected = Vec::new();
        for _ in 0..40 {
            let len = match random.u8(..4) {
                0 => random.usize(..10_000),
                1 => STAGING_LEN * 2 + DIRECT_ALIGN - expected.len() % DIRECT_ALIGN,
                _ => random.usize(..3 << 20),
            };
            let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
            let mut pieces = Vec::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(random.usize(1..=rest.len().min(400_000)));
                pieces.push(piece);
                rest = later;
            }
            file.write_at(expected.len() as u64, &pieces).unwrap();
            expected.extend_from_slice(&bytes);
        }
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), expected.len() as u64);
        let mut found = vec![0; expected.len()];
        assert_eq!(file.read_at(0, &mut found).unwrap(), expected.len());
        assert!(found == expected);
        for (from, len) in [(0, 1), (5, 1 << 20), (0, expected.len()), (expected.len() - 10, 100)] {
            let to = expected.len().min(from + len);
            assert!(file.read_vec(from as u64, len).unwrap() == expected[from..to]);
        }
    }
}
