//! Chunks of a store as a root sends them: read, and checked against their ids when that has not been done lately.
//!
//! Invariants: what is answered is what the store holds, unchanged; a damaged chunk is logged, set aside, and never answered.
//! Everything here blocks, but for asking what is trusted.

use std::sync::Arc;
use std::time::Duration;

use cairn_formats::{Chunk, ChunkError, ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, FrameError};
use cairn_store::{ChunkStore, Error, VerifiedChunks};

use crate::workers::{ORDINARY_PLAIN_LEN_MAX, Workers};

/// Chunks opened and hashed together: as many as the widest kernel takes.
const OPENED_TOGETHER: usize = 8;

/// When chunks are checked against their ids on the way out. What is written is always checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyReads {
    /// Not at all: the store checks, or its files are trusted.
    Never,
    /// Unless they have been within this time (whole minutes): what a store on this machine's disk needs.
    After(Duration),
    /// Each time: what comes from somebody else's server.
    Always,
}

impl Default for VerifyReads {
    fn default() -> Self {
        Self::After(Duration::from_secs(24 * 60 * 60))
    }
}

/// Why a chunk was not had, to be shared by all who asked for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    Missing,
    /// The store's error; logged where it happened.
    Store,
}

impl Failure {
    pub(crate) fn of(error: &Error) -> Self {
        if let Error::Missing { .. } = error {
            Self::Missing
        } else {
            log_store_error(error);
            Self::Store
        }
    }
}

/// Reads of one store. Clones share what they know.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    pub(crate) store: Arc<dyn ChunkStore>,
    digest: DigestAlgorithm,
    verify: VerifyReads,
    verified: Option<Arc<VerifiedChunks>>,
    workers: Workers,
}

impl Reads {
    pub(crate) fn new(
        store: Arc<dyn ChunkStore>,
        digest: DigestAlgorithm,
        verify: VerifyReads,
        workers: Workers,
    ) -> Self {
        let verified = match verify {
            VerifyReads::After(age_max) => Some(Arc::new(VerifiedChunks::new(age_max))),
            VerifyReads::Never | VerifyReads::Always => None,
        };
        Self {
            store,
            digest,
            verify,
            verified,
            workers,
        }
    }

    /// Whether the stored chunk may be sent as it is.
    pub(crate) fn is_trusted(&self, id: ChunkId, form: ChunkForm) -> bool {
        match self.verify {
            VerifyReads::Never => true,
            VerifyReads::Always => false,
            VerifyReads::After(_) => self
                .verified
                .as_ref()
                .is_some_and(|verified| verified.is_fresh(id, form)),
        }
    }

    /// Chunks in the form in which they are stored, fit to be sent; one answer per id, in order.
    pub(crate) fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk, Failure>> {
        let stored = self.store.get_many(ids).into_iter();
        let mut chunks: Vec<Result<EncodedChunk, Failure>> =
            stored.map(|chunk| chunk.map_err(|error| Failure::of(&error))).collect();
        let (places, doubted): (Vec<usize>, Vec<EncodedChunk>) = chunks
            .iter()
            .enumerate()
            .filter_map(|(at, chunk)| Some((at, chunk.as_ref().ok()?.clone())))
            .filter(|(_, chunk)| !self.is_trusted(chunk.id, chunk.form))
            .unzip();
        // Some at a time: small frames may hold much.
        let opened = doubted.chunks(OPENED_TOGETHER).flat_map(|some| self.open_many(some));
        for (at, opened) in places.into_iter().zip(opened) {
            if let Err(failure) = opened {
                chunks[at] = Err(failure);
            }
        }
        chunks
    }

    /// Stored chunks opened, hashed together; one answer per chunk, in order. Damaged ones are set aside.
    pub(crate) fn open_many(&self, chunks: &[EncodedChunk]) -> Vec<Result<Chunk, Failure>> {
        let opened = EncodedChunk::open_many(chunks, self.digest, ORDINARY_PLAIN_LEN_MAX);
        let opened = chunks.iter().zip(opened).map(|(chunk, opened)| match opened {
            // Long ones by turns.
            Err(ChunkError::Frame {
                source: FrameError::TooLong { .. },
                ..
            }) => (chunk, self.open(chunk)),
            opened => (chunk, opened),
        });
        let checked = opened.map(|(chunk, opened)| match opened {
            Ok(opened) => {
                if let Some(verified) = &self.verified {
                    verified.remember(chunk.id, chunk.form);
                }
                Ok(opened)
            }
            Err(error) => {
                let cause = cause_of(&error);
                tracing::error!(chunk = %chunk.id, store = %self.store.name(), %error, cause, "a stored chunk is damaged");
                metrics::counter!("store_errors_total", "backend" => "root", "op" => "verify", "class" => "corrupt")
                    .increment(1);
                self.set_aside(chunk);
                Err(Failure::Store)
            }
        });
        checked.collect()
    }

    fn open(&self, chunk: &EncodedChunk) -> Result<Chunk, ChunkError> {
        self.workers
            .open_bounded(|plain_len_max| chunk.open(self.digest, plain_len_max))
    }

    /// Has a damaged chunk moved aside, so that whoever has it can put it again: a put leaves alone what is there.
    fn set_aside(&self, chunk: &EncodedChunk) {
        let other = match self.digest {
            DigestAlgorithm::Sha512_256 => DigestAlgorithm::Sha256,
            DigestAlgorithm::Sha256 => DigestAlgorithm::Sha512_256,
        };
        // A sound chunk of the other digest is a wrong setting of ours: nothing may be moved for that.
        if self
            .workers
            .open_bounded(|plain_len_max| chunk.open(other, plain_len_max))
            .is_ok()
        {
            return;
        }
        match self.store.set_aside(chunk) {
            Ok(true) => tracing::warn!(chunk = %chunk.id, "the damaged chunk was set aside: it can be stored again"),
            Ok(false) => {}
            Err(error) => log_store_error(&error),
        }
    }
}

pub(crate) fn cause_of(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

pub(crate) fn log_store_error(error: &Error) {
    let cause = cause_of(error);
    tracing::error!(%error, cause, "the store failed");
}
