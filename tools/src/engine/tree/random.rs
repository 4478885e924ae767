//! An archive that is read here and there: a file, or chunks of a store. For lookups, which need little of it.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cairn_formats::{ArchiveBytes, ArchiveLimits, ArchiveLookup, LookupError, Placed};

use crate::engine::error::file;
use crate::engine::{Error, IndexedBlob, Result};

/// Type of an archive's first record, at byte 8 (`formats/FORMATS.md`, ENTRY).
const ENTRY_TYPE: u64 = 0x1396_fabc_ea5b_bb51;

/// Where an archive's bytes are.
#[derive(Debug)]
pub(crate) enum ArchiveSource {
    /// A `.catar` file.
    File {
        /// It.
        file: File,
        /// Its name.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// Chunks, by a `.caidx`.
    Chunks(IndexedBlob),
}

impl ArchiveSource {
    /// Opens an archive file. Errors: it cannot be opened, or not be read anywhere (a pipe).
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let opened = File::open(&path).map_err(file(&path, "open"))?;
        let meta = opened.metadata().map_err(file(&path, "look at"))?;
        if !meta.is_file() {
            let error = std::io::Error::other("it is no file, and has to be read here and there");
            return Err(file(&path, "use")(error));
        }
        Ok(Self::File {
            file: opened,
            len: meta.len(),
            path,
        })
    }

    fn read_exact(&self, range: Range<u64>) -> Result<Bytes> {
        let len = (range.end - range.start) as usize;
        match self {
            Self::File { file: opened, path, .. } => {
                let mut bytes = vec![0; len];
                opened
                    .read_exact_at(&mut bytes, range.start)
                    .map_err(file(path, "read"))?;
                Ok(bytes.into())
            }
            // A copy: names and attributes may be kept for long, and would keep whole chunks.
            Self::Chunks(blob) => Ok(Bytes::copy_from_slice(&blob.peek(range.start, len)?)),
        }
    }

    /// The bytes of a range that somebody reads on and on: what comes next is fetched ahead.
    pub(crate) fn stream(&self, range: Range<u64>) -> Result<Bytes> {
        match self {
            Self::File { .. } => self.read_exact(range),
            Self::Chunks(blob) => blob.read(range.start, (range.end - range.start) as usize),
        }
    }

    /// Whether a file starts as an archive does, rather than as an index.
    pub(crate) fn is_archive(path: &Path) -> Result<bool> {
        let mut head = [0; 16];
        let read = File::open(path).and_then(|mut opened| opened.read_exact(&mut head));
        match read {
            Ok(()) => Ok(head[8..] == ENTRY_TYPE.to_le_bytes()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(file(path, "read")(error)),
        }
    }
}

impl ArchiveBytes for ArchiveSource {
    type Error = Error;

    fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Chunks(blob) => blob.len(),
        }
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.read_exact(range)
    }
}

impl From<LookupError<Error>> for Error {
    fn from(error: LookupError<Error>) -> Self {
        match error {
            LookupError::Archive(error) => error.into(),
            LookupError::Read(error) => error,
        }
    }
}

/// An archive whose entries are looked up.
pub(crate) type Lookup = ArchiveLookup<ArchiveSource>;

/// Reads an archive's root.
pub(crate) fn lookup(source: ArchiveSource) -> Result<Lookup> {
    Ok(ArchiveLookup::open(source, ArchiveLimits::default())?)
}

/// The entry at a path of names with `/` between them; empty names and `.` mean nothing. `None` where there is none.
pub(crate) fn find(lookup: &Lookup, path: &[u8]) -> Result<Option<Placed>> {
    let names = path.split(|&byte| byte == b'/');
    Ok(lookup.find(names.filter(|name| !name.is_empty() && *name != b"."))?)
}
