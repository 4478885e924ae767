//! A chunk in its three states: plain and proven, encoded and not looked at, encoded and proven.

use bytes::Bytes;

use crate::frame::is_one_frame;
use crate::{
    CHUNK_LEN_MAX, ChunkId, DigestAlgorithm, FrameError, Level, compress_frame, decompress_frame,
    decompress_frame_into, raw_frame,
};

/// Plain bytes known to hash to `id`. Only [`EncodedChunk::open`] and [`Chunk::from_plain`] build one: holding it is the proof.
#[derive(Clone, Debug)]
pub struct Chunk {
    id: ChunkId,
    plain: Bytes,
}

/// How the bytes of a stored chunk relate to its plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkForm {
    /// A compressed stream, file name ending `.cacnk`.
    Compressed,
    /// The plain bytes, file name without ending.
    Plain,
}

/// Bytes that a store holds under `id`. Nothing about them has been checked.
#[derive(Clone, Debug)]
pub struct EncodedChunk {
    /// The name it is stored under.
    pub id: ChunkId,
    /// How `bytes` are to be read.
    pub form: ChunkForm,
    /// The stored bytes.
    pub bytes: Bytes,
}

/// Encoded bytes proven to open to `id`: what a store takes.
#[derive(Clone, Debug)]
pub struct StorableChunk {
    encoded: EncodedChunk,
    plain_len: usize,
}

/// Why stored bytes are not the chunk that their name promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The bytes do not decode.
    #[error("chunk {id}: {source}")]
    Frame {
        /// The chunk's name.
        id: ChunkId,
        /// What is wrong with the frame.
        source: FrameError,
    },
    /// The stored bytes have another check sum than the store wrote down.
    #[error("chunk {id}: its stored bytes do not fit their check sum")]
    Checksum {
        /// The chunk's name.
        id: ChunkId,
    },
    /// The plain bytes have another digest.
    #[error("chunk {id}: its bytes have digest {found}")]
    Digest {
        /// The chunk's name.
        id: ChunkId,
        /// The digest found.
        found: ChunkId,
    },
    /// The chunk is shorter than an index says, or longer and known by how much.
    #[error("chunk {id}: it has {found} bytes, the index says {expected}")]
    Length {
        /// The chunk's name.
        id: ChunkId,
        /// Length by the index.
        expected: usize,
        /// Plain bytes found, or announced by its frame.
        found: u64,
    },
    /// The chunk is longer than an index says; it was decoded no further.
    #[error("chunk {id}: it has more than the {expected} bytes that the index says")]
    Longer {
        /// The chunk's name.
        id: ChunkId,
        /// Length by the index.
        expected: usize,
    },
}

impl ChunkError {
    /// The chunk's name.
    pub fn id(&self) -> ChunkId {
        match self {
            Self::Frame { id, .. }
            | Self::Checksum { id }
            | Self::Digest { id, .. }
            | Self::Length { id, .. }
            | Self::Longer { id, .. } => *id,
        }
    }
}

impl Chunk {
    /// Names plain bytes by their digest.
    pub fn from_plain(algorithm: DigestAlgorithm, plain: Bytes) -> Self {
        Self {
            id: algorithm.id(&plain),
            plain,
        }
    }

    /// Names many plain pieces at once, in order.
    pub fn from_plain_many(algorithm: DigestAlgorithm, plains: Vec<Bytes>) -> Vec<Self> {
        let slices: Vec<&[u8]> = plains.iter().map(|plain| &plain[..]).collect();
        let ids = algorithm.id_many(&slices);
        ids.into_iter()
            .zip(plains)
            .map(|(id, plain)| Self { id, plain })
            .collect()
    }

    /// The chunk's name.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// The plain bytes.
    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The plain bytes, without the name.
    pub fn into_plain(self) -> Bytes {
        self.plain
    }

    /// The chunk in the form in which a store keeps it.
    pub fn encode(&self, form: ChunkForm, level: Level) -> StorableChunk {
        let bytes = match form {
            ChunkForm::Compressed => Bytes::from(compress_frame(&self.plain, level)),
            ChunkForm::Plain => self.plain.clone(),
        };
        StorableChunk {
            encoded: EncodedChunk {
                id: self.id,
                form,
                bytes,
            },
            plain_len: self.plain.len(),
        }
    }
}

impl Chunk {
    /// The chunk as it is, in raw blocks, for whoever has no time to compress it now; one of a single byte value still becomes a
    /// few bytes.
    pub fn encode_raw(&self) -> StorableChunk {
        let is_run = self
            .plain
            .first()
            .is_some_and(|first| self.plain.iter().all(|byte| byte == first));
        if is_run {
            return self.encode(ChunkForm::Compressed, Level::DEFAULT);
        }
        StorableChunk {
            encoded: EncodedChunk {
                id: self.id,
                form: ChunkForm::Compressed,
                bytes: Bytes::from(raw_frame(&self.plain)),
            },
            plain_len: self.plain.len(),
        }
    }
}

impl EncodedChunk {
    /// Decodes and proves a chunk.
    ///
    /// - `plain_len_max`: the most plain bytes it may have; from the index, else [`crate::CHUNK_LEN_MAX`].
    /// - Errors: [`ChunkError::Frame`] when it does not decode within the bound, [`ChunkError::Digest`] when it is another chunk.
    pub fn open(&self, algorithm: DigestAlgorithm, plain_len_max: usize) -> Result<Chunk, ChunkError> {
        self.prove(algorithm, self.decode(plain_len_max)?)
    }

    /// [`EncodedChunk::open`] of a chunk whose length an index gives.
    ///
    /// Errors: as [`EncodedChunk::open`], and [`ChunkError::Length`] or [`ChunkError::Longer`] for a chunk of another length.
    pub fn open_exact(&self, algorithm: DigestAlgorithm, plain_len: usize) -> Result<Chunk, ChunkError> {
        self.prove(algorithm, self.decode_exact(plain_len)?)
    }

    /// [`EncodedChunk::open`] of many, hashed together; one answer per chunk, in order.
    pub fn open_many(
        chunks: &[Self],
        algorithm: DigestAlgorithm,
        plain_len_max: usize,
    ) -> Vec<Result<Chunk, ChunkError>> {
        Self::prove_many(
            chunks,
            algorithm,
            chunks.iter().map(|chunk| chunk.decode(plain_len_max)).collect(),
        )
    }

    /// [`EncodedChunk::open_exact`] of many, hashed together; one answer per chunk, in order.
    ///
    /// `plain_lens`: as many as `chunks`, each what an index says, or `None` where only [`crate::CHUNK_LEN_MAX`] holds.
    pub fn open_exact_many(
        chunks: &[Self],
        algorithm: DigestAlgorithm,
        plain_lens: &[Option<usize>],
    ) -> Vec<Result<Chunk, ChunkError>> {
        assert_eq!(chunks.len(), plain_lens.len(), "one length per chunk");
        let plains = chunks.iter().zip(plain_lens).map(|(chunk, plain_len)| match plain_len {
            Some(plain_len) => chunk.decode_exact(*plain_len),
            None => chunk.decode(CHUNK_LEN_MAX),
        });
        Self::prove_many(chunks, algorithm, plains.collect())
    }

    fn prove(&self, algorithm: DigestAlgorithm, plain: Bytes) -> Result<Chunk, ChunkError> {
        let found = algorithm.id(&plain);
        if found != self.id {
            return Err(ChunkError::Digest { id: self.id, found });
        }
        Ok(Chunk { id: found, plain })
    }

    fn prove_many(
        chunks: &[Self],
        algorithm: DigestAlgorithm,
        plains: Vec<Result<Bytes, ChunkError>>,
    ) -> Vec<Result<Chunk, ChunkError>> {
        let slices: Vec<&[u8]> = plains.iter().flatten().map(|plain| &plain[..]).collect();
        let mut found = algorithm.id_many(&slices).into_iter();
        chunks
            .iter()
            .zip(plains)
            .map(|(chunk, plain)| {
                let plain = plain?;
                let found = found.next().expect("one digest per decoded chunk");
                if found != chunk.id {
                    return Err(ChunkError::Digest { id: chunk.id, found });
                }
                Ok(Chunk { id: found, plain })
            })
            .collect()
    }

    /// Decodes and proves many chunks, each into a slot of exactly its length; one answer per chunk, in order.
    ///
    /// - `slots`: as many as `chunks`. After an error a slot's bytes mean nothing.
    /// - Errors: as [`EncodedChunk::open_exact`].
    pub fn open_into_many(
        chunks: &[Self],
        algorithm: DigestAlgorithm,
        slots: &mut [&mut [u8]],
    ) -> Vec<Result<(), ChunkError>> {
        assert_eq!(chunks.len(), slots.len(), "one slot per chunk");
        let mut results: Vec<_> = chunks
            .iter()
            .zip(slots.iter_mut())
            .map(|(chunk, slot)| chunk.decode_into(slot))
            .collect();
        let decoded: Vec<&[u8]> = results
            .iter()
            .zip(slots.iter())
            .filter(|(result, _)| result.is_ok())
            .map(|(_, slot)| &**slot)
            .collect();
        let mut found = algorithm.id_many(&decoded).into_iter();
        for (result, chunk) in results.iter_mut().zip(chunks).filter(|(result, _)| result.is_ok()) {
            let found = found.next().expect("one digest per decoded chunk");
            if found != chunk.id {
                *result = Err(ChunkError::Digest { id: chunk.id, found });
            }
        }
        results
    }

    /// Proves a chunk and keeps its bytes as they are when a store may hold them: plain, or exactly one zstd frame that is
    /// hardly longer than raw blocks. Any other body (several frames, skippable ones, gzip, xz) is encoded anew at
    /// [`Level::DEFAULT`], since casync's and desync's readers each refuse some of them.
    ///
    /// Errors: as [`EncodedChunk::open`].
    pub fn verify(self, algorithm: DigestAlgorithm, plain_len_max: usize) -> Result<StorableChunk, ChunkError> {
        self.verify_at(algorithm, plain_len_max, Level::DEFAULT)
    }

    /// [`EncodedChunk::verify`] with the level for a body that cannot be kept.
    pub fn verify_at(
        self,
        algorithm: DigestAlgorithm,
        plain_len_max: usize,
        level: Level,
    ) -> Result<StorableChunk, ChunkError> {
        let chunk = self.open(algorithm, plain_len_max)?;
        let plain_len = chunk.plain.len();
        if self.form == ChunkForm::Compressed && !is_one_frame(&self.bytes, plain_len) {
            return Ok(chunk.encode(self.form, level));
        }
        Ok(StorableChunk {
            plain_len,
            encoded: self,
        })
    }

    fn decode_into(&self, slot: &mut [u8]) -> Result<(), ChunkError> {
        let expected = slot.len();
        let found = match self.form {
            ChunkForm::Compressed => {
                decompress_frame_into(&self.bytes, slot).map_err(|source| self.misfit(expected, source))?
            }
            ChunkForm::Plain => {
                let len = self.bytes.len().min(slot.len());
                slot[..len].copy_from_slice(&self.bytes[..len]);
                self.bytes.len()
            }
        };
        self.check_len(expected, found)
    }

    fn decode_exact(&self, plain_len: usize) -> Result<Bytes, ChunkError> {
        let plain = match self.form {
            ChunkForm::Compressed => {
                let plain =
                    decompress_frame(&self.bytes, plain_len).map_err(|source| self.misfit(plain_len, source))?;
                Bytes::from(plain)
            }
            ChunkForm::Plain => self.bytes.clone(),
        };
        self.check_len(plain_len, plain.len())?;
        Ok(plain)
    }

    fn check_len(&self, expected: usize, found: usize) -> Result<(), ChunkError> {
        if found == expected {
            return Ok(());
        }
        Err(ChunkError::Length {
            id: self.id,
            expected,
            found: found as u64,
        })
    }

    /// What a body that does not decode into `expected` bytes is.
    fn misfit(&self, expected: usize, source: FrameError) -> ChunkError {
        let id = self.id;
        match source {
            FrameError::TooLong {
                announced: Some(found), ..
            } if found > expected as u64 => ChunkError::Length { id, expected, found },
            FrameError::TooLong { .. } => ChunkError::Longer { id, expected },
            source => ChunkError::Frame { id, source },
        }
    }

    fn decode(&self, plain_len_max: usize) -> Result<Bytes, ChunkError> {
        let frame = |source| ChunkError::Frame { id: self.id, source };
        match self.form {
            ChunkForm::Compressed => Ok(Bytes::from(
                decompress_frame(&self.bytes, plain_len_max).map_err(frame)?,
            )),
            ChunkForm::Plain if self.bytes.len() > plain_len_max => Err(frame(FrameError::TooLong {
                plain_len_max,
                announced: Some(self.bytes.len() as u64),
            })),
            ChunkForm::Plain => Ok(self.bytes.clone()),
        }
    }
}

impl StorableChunk {
    /// The chunk's name.
    pub fn id(&self) -> ChunkId {
        self.encoded.id
    }

    /// How the bytes are encoded.
    pub fn form(&self) -> ChunkForm {
        self.encoded.form
    }

    /// The bytes to store.
    pub fn bytes(&self) -> &Bytes {
        &self.encoded.bytes
    }

    /// Length of the plain bytes.
    pub fn plain_len(&self) -> usize {
        self.plain_len
    }
}
