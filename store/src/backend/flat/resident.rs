//! Reads of chunk files that cannot wait for a disk: the path is looked up in the kernel's name cache alone
//! (`RESOLVE_CACHED`, Linux 5.12) and the bytes come from the page cache alone (`RWF_NOWAIT`).
//!
//! A server answers from its own threads with this and hands everything else to a thread that may wait. Hot path: one
//! open, one stat, one read; no path is allocated. Whatever does not fit (an older kernel, a file system without
//! `RWF_NOWAIT`, a partly cached file, no such file) is `None`, never an error: the waiting path says what is wrong.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;
use cairn_formats::{CHUNK_LEN_MAX, ChunkForm, ChunkId, EncodedChunk};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::{ReadWriteFlags, preadv2};

use super::path::ChunkPath;

/// Longer chunks are read by a thread that may wait: copying them would hold up other connections.
const RESIDENT_LEN_MAX: usize = 1 << 20;
const _: () = assert!(RESIDENT_LEN_MAX <= CHUNK_LEN_MAX);

/// Handle on a casync-layout chunk folder for reads that do not wait.
#[derive(Debug)]
pub(crate) struct ResidentReader {
    root: OwnedFd,
}

impl ResidentReader {
    /// Opens the folder.
    pub(crate) fn open(root: &Path) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: openat(CWD, root, flags, Mode::empty())?,
        })
    }

    /// The file of this chunk in this form, if all of it is in memory.
    pub(crate) fn get(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        let path = ChunkPath::new(id, form, "");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = openat2(&self.root, path.as_c_str(), flags, Mode::empty(), ResolveFlags::CACHED).ok()?;
        let stat = fstat(&file).ok()?;
        let len = usize::try_from(stat.st_size).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || len == 0 || len > RESIDENT_LEN_MAX {
            return None;
        }
        let mut bytes = vec![0; len];
        let read = preadv2(&file, &mut [IoSliceMut::new(&mut bytes)], 0, ReadWriteFlags::NOWAIT).ok()?;
        (read == len).then(|| EncodedChunk {
            id,
            form,
            bytes: Bytes::from(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_file_is_read_and_an_absent_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let id = ChunkId::from_bytes([0x5a; 32]);
        let path = folder.path().join("5a5a").join(format!("{id}.cacnk"));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"frame").unwrap();
        let reader = ResidentReader::open(folder.path()).unwrap();
        // On a file system without RWF_NOWAIT (tmpfs) the answer is None; wrong bytes are never an answer.
        if let Some(chunk) = reader.get(id, ChunkForm::Compressed) {
            assert_eq!(&chunk.bytes[..], b"frame");
        }
        assert!(reader.get(id, ChunkForm::Plain).is_none());
    }

    #[test]
    fn a_folder_or_a_device_in_place_of_a_chunk_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let id = ChunkId::from_bytes([0xab; 32]);
        let path = folder.path().join("abab").join(id.to_string());
        std::fs::create_dir_all(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path.with_extension("cacnk")).unwrap();
        let reader = ResidentReader::open(folder.path()).unwrap();
        assert!(reader.get(id, ChunkForm::Plain).is_none());
        assert!(reader.get(id, ChunkForm::Compressed).is_none());
    }
}
