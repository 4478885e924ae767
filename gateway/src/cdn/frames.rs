//! An object as its chunks are stored, each a zstd frame: `Content-Encoding: zstd` without compressing anything.
//!
//! Invariants: a chunk goes out that has been proven by its id, here or within the last day; the bytes of this form may change while the
//! object does not (chunks are compressed anew at rest), so its tag is a weak one, it has no ranges, and its length is not told before.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cairn_formats::{ChunkForm, ChunkId, DigestAlgorithm, DomainId};
use cairn_index::names::{Bucket, Content};
use cairn_index::{ManifestChunk, Objects};
use cairn_roots::Body;
use cairn_store::{ChunkStore, VerifiedChunks};
use hyper::body::{Body as HttpBody, Frame};

use super::lean::Reader;
use crate::pool::Pool;
use crate::s3::error::{Code, S3Error, S3Result};

/// Chunks that are read in one job.
const CHUNKS_A_JOB: usize = 8;
/// For how long a chunk that was proven counts as proven.
const PROVEN_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What frames have been proven lately, for all answers.
#[derive(Debug)]
pub(super) struct Proven(VerifiedChunks);

impl Default for Proven {
    fn default() -> Self {
        Self(VerifiedChunks::new(PROVEN_FOR))
    }
}

impl Proven {
    /// One table for all domains: an id in each is told apart.
    fn name(domain: DomainId, id: ChunkId) -> ChunkId {
        let mut bytes = *id.as_bytes();
        for (byte, own) in bytes[11..].iter_mut().zip(domain.0.to_be_bytes()) {
            *byte ^= own;
        }
        ChunkId::from_bytes(bytes)
    }
}

/// The frames of an object that have not been read.
pub(super) struct Frames {
    store: Arc<dyn ChunkStore>,
    proven: Arc<Proven>,
    digest: DigestAlgorithm,
    domain: DomainId,
    chunks: std::vec::IntoIter<ManifestChunk>,
}

impl Frames {
    /// The frames of content that lies in chunks: what is within its row is no frame.
    ///
    /// Errors: those of the index.
    pub(super) fn of(objects: &Objects, proven: &Arc<Proven>, bucket: &Bucket, content: &Content) -> S3Result<Self> {
        Ok(Self {
            store: objects.chunk_store(bucket),
            proven: Arc::clone(proven),
            digest: objects.options().digest,
            domain: content.domain(),
            chunks: objects.chunks(bucket.tenant(), content)?.into_iter(),
        })
    }

    /// The next frames; none at the end.
    fn read(&mut self) -> S3Result<Vec<Bytes>> {
        let chunks: Vec<ManifestChunk> = self.chunks.by_ref().take(CHUNKS_A_JOB).collect();
        let ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id).collect();
        let mut frames = Vec::with_capacity(ids.len());
        for (chunk, stored) in chunks.iter().zip(self.store.get_many(&ids)) {
            let failed = |error: &dyn std::error::Error| {
                tracing::error!(
                    error = cairn_store::error_chain(error),
                    "a chunk of an object cannot be sent"
                );
                S3Error::from(Code::InternalError)
            };
            let stored = stored.map_err(|error| failed(&error))?;
            if stored.form != ChunkForm::Compressed {
                tracing::error!(chunk = %chunk.id, "a chunk of an object is no frame");
                return Err(Code::InternalError.into());
            }
            let name = Proven::name(self.domain, chunk.id);
            if !self.proven.0.is_fresh(name, ChunkForm::Compressed) {
                let len = usize::try_from(chunk.len).unwrap_or(usize::MAX);
                stored.open_exact(self.digest, len).map_err(|error| failed(&error))?;
                self.proven.0.remember(name, ChunkForm::Compressed);
            }
            frames.push(stored.bytes);
        }
        Ok(frames)
    }
}

type Reading = Pin<Box<dyn Future<Output = S3Result<(Frames, Vec<Bytes>)>> + Send>>;

/// Frames that are being read, as the client takes them.
struct FramesBody {
    pool: Pool,
    reading: Option<Reading>,
    _reader: Reader,
}

/// Begins an answer of frames: the first are read before the status goes out.
pub(super) async fn begin(pool: &Pool, mut frames: Frames, reader: Reader) -> S3Result<Body> {
    let (frames, first) = pool.run(move || frames.read().map(|first| (frames, first))).await?;
    let reading = async move { Ok::<_, S3Error>((frames, first)) };
    Ok(Body::streamed(FramesBody {
        pool: pool.clone(),
        reading: Some(Box::pin(reading)),
        _reader: reader,
    }))
}

impl HttpBody for FramesBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let Some(reading) = &mut this.reading else {
            return Poll::Ready(None);
        };
        let done = ready!(reading.as_mut().poll(cx));
        this.reading = None;
        match done {
            Ok((_, pieces)) if pieces.is_empty() => Poll::Ready(None),
            Ok((mut frames, pieces)) => {
                let pool = this.pool.clone();
                let next = async move {
                    pool.run_patiently(move || frames.read().map(|next| (frames, next)))
                        .await
                };
                this.reading = Some(Box::pin(next));
                Poll::Ready(Some(Ok(Frame::data(joined(pieces)))))
            }
            Err(error) => Poll::Ready(Some(Err(io::Error::other(error.code.row().1)))),
        }
    }
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.remove(0);
    }
    let mut bytes = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proven_in_one_domain_is_not_in_another() {
        let id = ChunkId::from_bytes([7; 32]);
        assert_ne!(Proven::name(DomainId(1), id), Proven::name(DomainId(2), id));
        assert_eq!(Proven::name(DomainId(0), id), id);
    }
}
