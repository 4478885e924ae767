//! What stops the engine's work; each names the file, the chunk or the offset.

use std::io;
use std::path::{Path, PathBuf};

use cairn_formats::{ChunkError, ChunkId};

use super::Cancelled;
use super::mount::MountFault;

/// Result of a piece of the engine's work.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why the work stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The user stopped it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The other end of casync's protocol is gone, or does not keep to it.
    #[error("the other end of the connection: {0}")]
    Remote(String),
    /// A store failed or does not have a chunk.
    #[error(transparent)]
    Store(#[from] cairn_store::Error),
    /// A file could not be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A stored chunk does not open.
    #[error("at byte {offset} of the blob: {source}")]
    Chunk {
        /// Where the chunk lies in the blob.
        offset: u64,
        /// What is wrong with it.
        source: ChunkError,
    },
    /// A file does not hold what an index says.
    #[error("{}: at byte {offset} the index names chunk {id}, the file holds {found}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Offset in the file.
        offset: u64,
        /// The chunk that the index names.
        id: ChunkId,
        /// What the file holds there.
        found: ChunkId,
    },
    /// A file ends too early or goes on too long for an index.
    #[error("{}: it has {found} bytes, its index describes {expected}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that the index describes.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// An archive breaks a rule of its format, or would.
    #[error(transparent)]
    Archive(#[from] cairn_formats::ArchiveError),
    /// A file lost bytes while it was read.
    #[error("{}: it lost its last {missing} bytes while it was read; try again when nobody writes to it", path.display())]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// Bytes that it had before.
        missing: u64,
    },
    /// A folder cannot be mounted on.
    #[error("{}: cannot mount: {fault}", path.display())]
    Mount {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        fault: MountFault,
    },
    /// A file that a mount keeps beside it is not what it should be.
    #[error("{}: {what}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What it is, or is not.
        what: &'static str,
    },
    /// A target cannot hold the blob.
    #[error("{}: needs {needed} bytes, only {available} are there; free some space or choose another place", path.display())]
    Space {
        /// The target.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        available: u64,
    },
}

/// Adapts an I/O error: `.map_err(file(path, "read"))`.
pub(crate) fn file(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File {
        path: path.to_owned(),
        action,
        source,
    }
}
