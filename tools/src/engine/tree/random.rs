//! An archive that is read here and there: a file, or chunks of a store. For lookups, which need little of it.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use cairn_formats::{ArchiveBytes, ArchiveLimits, ArchiveLookup, LookupError, Placed};

use crate::engine::error::file;
use crate::engine::{Error, IndexedBlob, Result};

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
            Self::Chunks(blob) => blob.read(range.start, len),
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
