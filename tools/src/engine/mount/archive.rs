//! The bytes of a mounted archive: a `.catar` file, or a blob by its index.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cairn_formats::ArchiveBytes;

use crate::engine::error::file;
use crate::engine::{Error, IndexedBlob, Result};

/// Type of an archive's first record, at byte 8 (`formats/FORMATS.md`, ENTRY).
const ENTRY_TYPE: u64 = 0x1396_fabc_ea5b_bb51;

/// An archive that can be read anywhere.
#[derive(Debug)]
pub(crate) enum MountedArchive {
    /// The archive itself.
    File {
        /// Where it is.
        path: PathBuf,
        /// Open for reading.
        file: File,
        /// Its length when it was opened.
        len: u64,
    },
    /// Its chunks.
    Blob(IndexedBlob),
}

impl MountedArchive {
    /// Whether a file starts as an archive does, rather than as an index.
    pub(crate) fn is_archive(path: &Path) -> Result<bool> {
        let mut head = [0; 16];
        let read = File::open(path).and_then(|mut opened| opened.read_exact(&mut head));
        match read {
            Ok(()) => Ok(head[8..] == ENTRY_TYPE.to_le_bytes()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(file(path, "read")(error)),
        }
    }

    /// An archive that lies in a file or on a device.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let opened = File::open(path).map_err(file(path, "open"))?;
        let len = rustix::fs::seek(&opened, rustix::fs::SeekFrom::End(0));
        let len = len.map_err(|error| file(path, "find the end of")(error.into()))?;
        Ok(Self::File {
            path: path.to_owned(),
            file: opened,
            len,
        })
    }

    /// The bytes of a range that somebody reads on and on: what comes next is fetched ahead.
    pub(super) fn stream(&self, range: Range<u64>) -> Result<Bytes> {
        match self {
            Self::File { .. } => self.read(range),
            Self::Blob(blob) => blob.read(range.start, (range.end - range.start) as usize),
        }
    }
}

impl ArchiveBytes for MountedArchive {
    type Error = Error;

    fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Blob(blob) => blob.len(),
        }
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let len = (range.end - range.start) as usize;
        match self {
            Self::File { path, file: opened, .. } => {
                let mut bytes = vec![0; len];
                opened
                    .read_exact_at(&mut bytes, range.start)
                    .map_err(file(path, "read"))?;
                Ok(bytes.into())
            }
            Self::Blob(blob) => blob.peek(range.start, len),
        }
    }
}
