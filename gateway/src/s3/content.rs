//! Bodies of answers that are content: read in jobs, a bounded piece ahead of what the client takes.
//!
//! Invariants: the first piece is read before the status goes out, so that an object that cannot be read is an error and not a
//! broken answer; an answer that ends early ends the connection, so that nobody takes it for whole.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use cairn_roots::Body;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::pool::{Counted, Pool};
use crate::s3::error::{Code, S3Result};

/// Bytes read in one job, at least and at most: each costs a change of threads ...
const BATCH_LEN: (usize, usize) = (256 << 10, 2 << 20);
/// ... and in those of all answers together.
const BATCHES_LEN: usize = 64 << 20;

/// Content in pieces, in order, from whatever has it; ends behind the first error.
pub(crate) type Pieces = Box<dyn Iterator<Item = cairn_index::Result<Bytes>> + Send>;

type Reading = Pin<Box<dyn Future<Output = S3Result<(Option<Pieces>, Vec<Bytes>)>> + Send>>;

/// Content that is being read.
pub(crate) struct ContentBody {
    pool: Pool,
    /// Read and not taken.
    ready: VecDeque<Bytes>,
    /// At rest; `None`: it is at work, or at its end.
    reader: Option<Pieces>,
    reading: Option<Reading>,
    /// Bytes that the client is still to get.
    left: u64,
    counted: Counted,
}

impl ContentBody {
    /// Opens content and reads its first piece; what is short is read whole in that job.
    ///
    /// - `len`: bytes that the reader gives.
    /// - Errors: those of `open`; `InternalError` for chunks that are damaged or gone.
    pub(crate) async fn begin(
        pool: &Pool,
        open: impl FnOnce() -> S3Result<Pieces> + Send + 'static,
        len: u64,
    ) -> S3Result<Body> {
        let counted = pool.answer();
        let batch_len = batch_len(&counted);
        let (reader, pieces) = pool.run(move || read(open()?, batch_len)).await?;
        let read: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if read == len {
            return Ok(whole(pieces));
        }
        if reader.is_none() {
            tracing::error!(len, read, "an object is shorter than its row says");
            return Err(Code::InternalError.into());
        }
        Ok(Body::streamed(Self {
            pool: pool.clone(),
            ready: pieces.into(),
            reader,
            reading: None,
            left: len,
            counted,
        }))
    }

    fn read_ahead(&mut self) {
        if let Some(reader) = self.reader.take() {
            let (pool, batch_len) = (self.pool.clone(), batch_len(&self.counted));
            let reading = async move { pool.run_patiently(move || read(reader, batch_len)).await };
            self.reading = Some(Box::pin(reading));
        }
    }
}

fn whole(mut pieces: Vec<Bytes>) -> Body {
    if pieces.len() == 1 {
        return Body::from(pieces.remove(0));
    }
    let mut bytes = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
    Body::from(bytes.freeze())
}

fn batch_len(counted: &Counted) -> usize {
    (BATCHES_LEN / counted.count()).clamp(BATCH_LEN.0, BATCH_LEN.1)
}

/// Reads a batch; no reader comes back at the end.
fn read(mut reader: Pieces, batch_len: usize) -> S3Result<(Option<Pieces>, Vec<Bytes>)> {
    let (mut pieces, mut len) = (Vec::new(), 0);
    while len < batch_len {
        let Some(piece) = reader.next() else {
            return Ok((None, pieces));
        };
        let piece = piece?;
        len += piece.len();
        pieces.push(piece);
    }
    Ok((Some(reader), pieces))
}

impl HttpBody for ContentBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        loop {
            if this.left == 0 {
                return Poll::Ready(None);
            }
            if this.reading.is_none() {
                this.read_ahead();
            }
            if let Some(piece) = this.ready.pop_front() {
                // Never more than was promised.
                let len = usize::try_from(this.left).unwrap_or(usize::MAX).min(piece.len());
                this.left -= len as u64;
                return Poll::Ready(Some(Ok(Frame::data(piece.slice(..len)))));
            }
            let Some(reading) = &mut this.reading else {
                tracing::error!(left = this.left, "an object is shorter than its row says");
                this.left = 0;
                return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
            };
            let done = ready!(reading.as_mut().poll(cx));
            this.reading = None;
            match done {
                Ok((reader, pieces)) => {
                    this.reader = reader;
                    this.ready.extend(pieces);
                }
                Err(error) => {
                    this.left = 0;
                    return Poll::Ready(Some(Err(io::Error::other(error.code.row().1))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
