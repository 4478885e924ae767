//! The bytes of a mounted blob: what was written over what was kept over what the store has.

use bytes::Bytes;

use super::cor::CopyOnRead;
use super::cow::{Durability, Overlay};
use crate::engine::{IndexedBlob, Result};

/// A blob to read and, with an overlay, to write. Any number of threads may use it at once.
#[derive(Debug)]
pub(crate) struct BlobFile {
    base: Base,
    overlay: Option<Overlay>,
}

#[derive(Debug)]
enum Base {
    Store(IndexedBlob),
    Kept(CopyOnRead),
}

impl BlobFile {
    /// A blob straight from its store.
    pub(crate) fn from_store(blob: IndexedBlob, overlay: Option<Overlay>) -> Self {
        let base = Base::Store(blob);
        Self { base, overlay }
    }

    /// A blob with a file that keeps what was read.
    pub(crate) fn with_copies(copies: CopyOnRead, overlay: Option<Overlay>) -> Self {
        let base = Base::Kept(copies);
        Self { base, overlay }
    }

    /// Length in bytes. It never changes.
    pub(crate) fn len(&self) -> u64 {
        match &self.base {
            Base::Store(blob) => blob.len(),
            Base::Kept(copies) => copies.blob().len(),
        }
    }

    /// Whether there is an overlay to write to.
    pub(crate) fn is_writable(&self) -> bool {
        self.overlay.is_some()
    }

    /// The bytes from `offset` on, at most `len`; fewer only where the blob ends.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        match &self.overlay {
            None => self.read_base(offset, len),
            Some(overlay) => overlay.read(offset, len, |offset, len| self.read_base(offset, len)),
        }
    }

    fn read_base(&self, offset: u64, len: usize) -> Result<Bytes> {
        match &self.base {
            Base::Store(blob) => blob.read(offset, len),
            Base::Kept(copies) => copies.read(offset, len),
        }
    }

    /// Takes bytes; returns how many fit before the end. Without an overlay none does.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        match &self.overlay {
            None => Ok(0),
            Some(overlay) => overlay.write(offset, bytes, |offset, len| self.read_base(offset, len)),
        }
    }

    /// Makes what was written until now durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.overlay
            .as_ref()
            .map_or(Ok(()), |overlay| overlay.save(Durability::Synced))
    }

    /// Notes which blocks were written until now, so that a mount that is killed loses nothing.
    pub(super) fn note(&self) -> Result<()> {
        self.overlay
            .as_ref()
            .map_or(Ok(()), |overlay| overlay.save(Durability::Later))
    }

    /// Saves everything that another mount goes on from: the state of copies, what was written.
    ///
    /// Errors: the first of the two that failed; the other is saved all the same.
    pub(crate) fn save(&self) -> Result<()> {
        let state = match &self.base {
            Base::Store(_) => Ok(()),
            Base::Kept(copies) => copies.save(),
        };
        self.sync().and(state)
    }

    /// Saves the state of copies alone.
    pub(crate) fn save_state(&self) -> Result<()> {
        match &self.base {
            Base::Store(_) => Ok(()),
            Base::Kept(copies) => copies.save(),
        }
    }
}
