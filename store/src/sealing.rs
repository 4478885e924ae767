//! Encryption at the border of a store: what lies in it is sealed, what comes out of it is not.
//!
//! desync's form: after compression, `nonce ‖ ciphertext ‖ tag`, under the chunk's name with the cipher's own ending
//! (`formats/FORMATS.md`, "Encryption"). Ids are over the plain bytes, so they and the indexes stay readable.

use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{ChunkCipher, EncodedChunk, NONCE_LEN};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::{Error, Result, StoreName};

/// How a store's chunks are sealed: with a cipher, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Sealing {
    cipher: Option<Arc<ChunkCipher>>,
    suffix: Arc<str>,
}

impl Sealing {
    /// Sealed with this cipher.
    pub fn with(cipher: ChunkCipher) -> Self {
        Self {
            suffix: cipher.suffix().into(),
            cipher: Some(Arc::new(cipher)),
        }
    }

    /// Whether chunks are sealed.
    pub fn is_on(&self) -> bool {
        self.cipher.is_some()
    }

    /// What follows the name of a chunk in its form; empty without a cipher.
    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    /// How many bytes longer a sealed chunk is; 0 without a cipher.
    pub fn overhead(&self) -> usize {
        self.cipher.as_ref().map_or(0, |cipher| cipher.overhead())
    }

    /// Length of a chunk before it was sealed, from the length of the sealed one.
    pub(crate) fn opened_len(&self, len: u64) -> u64 {
        len.saturating_sub(self.overhead() as u64)
    }

    /// The bytes to store or send. Errors: the system gives no random bytes.
    ///
    /// - `store`: whom an error names.
    pub fn seal(&self, store: &StoreName, bytes: &Bytes) -> Result<Bytes> {
        let Some(cipher) = &self.cipher else {
            return Ok(bytes.clone());
        };
        let mut nonce = [0; NONCE_LEN];
        let mut filled = 0;
        while filled < nonce.len() {
            filled += getrandom(&mut nonce[filled..], GetRandomFlags::empty()).map_err(|error| Error::Unavailable {
                store: store.clone(),
                action: "get random bytes to seal a chunk",
                source: std::io::Error::from(error).into(),
            })?;
        }
        Ok(Bytes::from(cipher.seal(&nonce, bytes)))
    }

    /// The chunk as it was before it was sealed. Errors: [`Error::Refused`] for another key or changed bytes.
    ///
    /// - `store`: whom an error names.
    pub fn open(&self, store: &StoreName, chunk: EncodedChunk) -> Result<EncodedChunk> {
        let Some(cipher) = &self.cipher else { return Ok(chunk) };
        match cipher.open(&chunk.bytes) {
            Ok(bytes) => Ok(EncodedChunk {
                bytes: Bytes::from(bytes),
                ..chunk
            }),
            Err(error) => Err(Error::Refused {
                store: store.clone(),
                action: "open an encrypted chunk",
                source: format!("chunk {}: {error}", chunk.id).into(),
            }),
        }
    }
}
