//! What the pack store needs of the machine: files in one folder, a clock, random bytes.
//!
//! A trait, so that the simulator can run the engine on a disk that tears, loses and lies. A write that returned may be lost
//! until the file's `sync` returned, a name until `sync_names` did.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

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
    /// Fills the buffer if that can be done without waiting for a disk; `false` says nothing about the file.
    fn read_resident(&self, _offset: u64, _buffer: &mut [u8]) -> bool {
        false
    }
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
}

impl Folder {
    /// Opens a folder; `lock` is held in it against other writers.
    ///
    /// Errors: `WouldBlock` when somebody else has it open for writing.
    pub(super) fn open(path: &Path, lock: &str, read_only: bool) -> io::Result<Self> {
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
        Ok(Arc::new(FolderFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn HostFile>> {
        let file = File::options()
            .read(true)
            .write(!self.read_only)
            .open(self.path.join(name))?;
        Ok(Arc::new(FolderFile(file)))
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
struct FolderFile(File);

impl HostFile for FolderFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn read_resident(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let len = buffer.len();
        let read = preadv2(
            &self.0,
            &mut [io::IoSliceMut::new(buffer)],
            offset,
            ReadWriteFlags::NOWAIT,
        );
        read.is_ok_and(|read| read == len)
    }

    fn write_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let mut offset = offset;
        let mut slices: Vec<io::IoSlice<'_>> = pieces.iter().map(|piece| io::IoSlice::new(piece)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            // 1024 is what the kernel takes at once.
            let most = rest.len().min(1024);
            let written = match rustix::io::pwritev(&self.0, &rest[..most], offset) {
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

    fn hurry(&self, offset: u64, len: u64) {
        // SAFETY: the descriptor is open while `self` is; the call reads and writes no memory of ours.
        #[allow(unsafe_code)]
        unsafe {
            libc::sync_file_range(
                self.0.as_raw_fd(),
                offset as i64,
                len as i64,
                libc::SYNC_FILE_RANGE_WRITE,
            );
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
