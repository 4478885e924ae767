//! Uploads of ByteStream that go on, and those that wait to be gone on with.
//!
//! An upload is found by its bucket and its name. One call at a time has it; when that ends before the upload does, it waits, with
//! what it has stored covered by the lease of all uploads, for so long or until its room is needed. A restart forgets it: who asks then is
//! told that there is none, and sends again what costs no room any more.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cairn_index::{BlobWriter, Error};
use tonic::Status;

use super::error::{Answer, busy};
use super::zstd::Decoder;

/// Bucket and name of an upload.
pub(super) type UploadKey = (u64, String);

/// Uploads by name.
pub(super) struct Uploads {
    max: usize,
    kept: Duration,
    slots: Mutex<HashMap<UploadKey, Slot>>,
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads")
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

struct Slot {
    upload: Arc<Mutex<Upload>>,
    /// Since when nobody has it; `None`: a call has.
    waits: Option<Instant>,
}

/// What has come of an upload.
#[derive(Debug)]
pub(super) struct Upload {
    /// `None` once it has failed or is done.
    writer: Option<BlobWriter>,
    decoder: Option<Decoder>,
}

/// An upload that a call has; let go, it waits.
pub(super) struct Held {
    uploads: Arc<super::Core>,
    key: UploadKey,
    pub(super) upload: Arc<Mutex<Upload>>,
    is_over: bool,
}

impl Uploads {
    pub(super) fn new(max: usize, kept: Duration) -> Self {
        Self {
            max,
            kept,
            slots: Mutex::default(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<UploadKey, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plain bytes that have come of an upload; `None`: there is none.
    pub(super) fn committed(&self, key: &UploadKey) -> Option<u64> {
        let upload = Arc::clone(&self.slots().get(key)?.upload);
        lock(&upload).byte_len()
    }

    /// Takes an upload that waits, at the place where it stopped.
    ///
    /// Errors: `INVALID_ARGUMENT` for another place or an upload that there is not.
    pub(super) fn resume(core: &Arc<super::Core>, key: UploadKey, offset: u64) -> Answer<Held> {
        let mut slots = core.uploads.slots();
        let none = || Status::invalid_argument("there is no upload of this name to be gone on with: begin at offset 0");
        let slot = slots.get_mut(&key).ok_or_else(none)?;
        if slot.waits.is_none() {
            return Err(busy("another call sends this upload").into());
        }
        let upload = Arc::clone(&slot.upload);
        let committed = lock(&upload).byte_len().ok_or_else(none)?;
        if committed != offset {
            return Err(Status::invalid_argument(format!(
                "the upload goes on at offset {committed}, and not at {offset}"
            ))
            .into());
        }
        slot.waits = None;
        Ok(Held {
            uploads: Arc::clone(core),
            key,
            upload,
            is_over: false,
        })
    }

    /// Begins an upload, in place of one of the same name that waits.
    ///
    /// - `open`: makes its writer; may block.
    /// - Errors: `UNAVAILABLE` where there are too many.
    pub(super) fn begin(
        core: &Arc<super::Core>,
        key: UploadKey,
        open: impl FnOnce() -> cairn_index::Result<BlobWriter>,
    ) -> Answer<Held> {
        let writer = open()?;
        let upload = Arc::new(Mutex::new(Upload {
            writer: Some(writer),
            decoder: None,
        }));
        let mut dropped = Vec::new();
        {
            let mut slots = core.uploads.slots();
            if slots.get(&key).is_some_and(|slot| slot.waits.is_none()) {
                return Err(busy("another call sends this upload").into());
            }
            dropped.extend(slots.remove(&key));
            let now = Instant::now();
            let is_old = |slot: &mut Slot| slot.waits.is_some_and(|since| now - since > core.uploads.kept);
            dropped.extend(slots.extract_if(|_, slot| is_old(slot)).map(|(_, slot)| slot));
            if slots.len() >= core.uploads.max {
                // Who has waited longest makes room.
                let waiting = slots.iter().filter_map(|(key, slot)| Some((slot.waits?, key)));
                let oldest = waiting.min().map(|(_, key)| key.clone());
                let oldest = oldest.ok_or_else(|| busy("too many uploads at a time"))?;
                dropped.extend(slots.remove(&oldest));
            }
            let slot = Slot {
                upload: Arc::clone(&upload),
                waits: None,
            };
            slots.insert(key.clone(), slot);
        }
        // Outside of the lock: letting a writer go takes time.
        drop(dropped);
        Ok(Held {
            uploads: Arc::clone(core),
            key,
            upload,
            is_over: false,
        })
    }
}

/// Nobody panics with it, and what it has would be as it was.
pub(super) fn lock(upload: &Mutex<Upload>) -> MutexGuard<'_, Upload> {
    upload.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upload {
    /// Plain bytes that have come.
    pub(super) fn byte_len(&self) -> Option<u64> {
        self.writer.as_ref().map(BlobWriter::byte_len)
    }

    /// What comes next is compressed, and begins with a frame.
    pub(super) fn begin_frames(&mut self) -> Answer<()> {
        self.decoder = Some(Decoder::new()?);
        Ok(())
    }

    /// What comes next is plain.
    pub(super) fn begin_plain(&mut self) {
        self.decoder = None;
    }

    /// Takes the next bytes, as they come over the wire. May block. What fails ends the upload.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Answer<()> {
        let Some(mut writer) = self.writer.take() else {
            return Err(ended());
        };
        match &mut self.decoder {
            None => writer.push(bytes)?,
            Some(decoder) => decoder.push(bytes, |plain| Ok(writer.push(plain)?))?,
        }
        self.writer = Some(writer);
        Ok(())
    }

    /// All bytes have come. May block.
    ///
    /// Errors: `INVALID_ARGUMENT` where they are not those of the digest.
    pub(super) fn finish(&mut self) -> Answer<()> {
        let writer = self.writer.take().ok_or_else(ended)?;
        if self.decoder.as_ref().is_some_and(|decoder| !decoder.is_at_end()) {
            return Err(Error::WrongDigest {
                digest: writer.digest().to_string(),
            }
            .into());
        }
        writer.finish()?;
        Ok(())
    }
}

fn ended() -> super::error::Failed {
    Status::aborted("the upload has failed: begin it anew").into()
}

impl Held {
    /// It has ended, one way or the other: nobody goes on with it.
    pub(super) fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut slots = self.uploads.uploads.slots();
        let Some(slot) = slots.get_mut(&self.key) else { return };
        if !self.is_over {
            slot.waits = Some(Instant::now());
            return;
        }
        let gone = slots.remove(&self.key);
        drop(slots);
        drop(gone);
    }
}
