//! Bodies that hold little, for when many read at once: a piece each, and the next one only when the last is with the system.
//!
//! The first answers read ahead (`s3/content.rs`); above a number that settings give, each further one has one piece in memory, the
//! smaller the more there are, and none is read while a slow reader has not taken the one before. So what all of them hold is bounded, however
//! many are slow and however slow they are.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use cairn_index::names::Content;
use cairn_index::{Objects, Tenant};
use cairn_roots::Body;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::pool::Pool;
use crate::s3::error::{Code, S3Result};

/// Bytes of a piece, at least and at most.
const PIECE_LEN: (usize, usize) = (16 << 10, 256 << 10);
/// What is left for pieces is given out in parts of this size.
const ROOM_SHARE: usize = 64;
/// Bytes that an answer which reads ahead may hold: what is sent, what is read next, and what was read with it.
const AHEAD_LEN: usize = 4 << 20;

/// The answers that are being read by clients.
#[derive(Debug, Default)]
pub(super) struct Readers(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    readers: AtomicUsize,
    /// Bytes of pieces on their way.
    pieces: AtomicUsize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Reader(Arc<Counts>);

/// How an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// A piece ahead of the client.
    Ahead,
    /// A piece at a time; those of all such answers have so many bytes together, and the least piece each.
    Lean(usize),
}

impl Readers {
    /// Whether one more would be read ahead.
    pub(super) fn are_few(&self, memory: usize) -> bool {
        self.0.readers.load(Ordering::Relaxed) < memory / 2 / AHEAD_LEN
    }

    /// Counts one more, and says how it is read.
    ///
    /// - `memory`: bytes that all of them may hold.
    pub(super) fn begin(&self, memory: usize) -> (Reader, Pace) {
        let before = self.0.readers.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!("cdn_readers").increment(1.0);
        let pace = match before < memory / 2 / AHEAD_LEN {
            true => Pace::Ahead,
            false => Pace::Lean(memory / 2),
        };
        (Reader(Arc::clone(&self.0)), pace)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("cdn_readers").decrement(1.0);
    }
}

impl Reader {
    /// Room for the next piece: a small part of what is left for all of them, so that many who come find some too.
    fn room(&self, budget: usize) -> Room {
        let held = self.0.pieces.load(Ordering::Relaxed);
        let (least, most) = PIECE_LEN;
        let len = (budget.saturating_sub(held) / ROOM_SHARE).clamp(least, most);
        self.0.pieces.fetch_add(len, Ordering::Relaxed);
        Room {
            counts: Arc::clone(&self.0),
            len,
        }
    }
}

/// Bytes that a piece may have, until it is dropped.
#[derive(Debug)]
struct Room {
    counts: Arc<Counts>,
    len: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counts.pieces.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// A body that counts as being read until it is dropped.
pub(super) struct CountedBody {
    pub(super) body: Body,
    pub(super) _reader: Reader,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whose bytes they are.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) objects: Arc<Objects>,
    pub(super) tenant: Tenant,
    pub(super) content: Content,
}

impl Source {
    /// Bytes of a range in memory of their own, so that nothing else stays for them.
    fn read(&self, range: Range<u64>) -> S3Result<Vec<u8>> {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(len);
        for piece in self.objects.read(&self.tenant, &self.content, range)? {
            bytes.extend_from_slice(&piece?);
        }
        if bytes.len() != len {
            tracing::error!(len, read = bytes.len(), "an object is shorter than its row says");
            return Err(Code::InternalError.into());
        }
        Ok(bytes)
    }
}

type Reading = Pin<Box<dyn Future<Output = S3Result<(Vec<u8>, Room)>> + Send>>;

/// Bytes of an object, a piece at a time.
pub(super) struct LeanBody {
    pool: Pool,
    source: Source,
    left: Range<u64>,
    /// Bytes of the pieces of all such answers.
    budget: usize,
    reading: Option<Reading>,
    gate: Arc<Gate>,
    reader: Reader,
}

/// Opens when the system has taken the piece that went out.
#[derive(Debug, Default)]
struct Gate(Mutex<GateState>);

#[derive(Debug, Default)]
struct GateState {
    /// A piece is on its way.
    closed: bool,
    waiting: Option<Waker>,
}

impl Gate {
    fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.closed {
            return Poll::Ready(());
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }

    fn open(&self) {
        let waiting = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.closed = false;
            state.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

/// A piece on its way: the gate is closed until it is dropped.
struct Piece {
    bytes: Vec<u8>,
    gate: Arc<Gate>,
    _room: Option<Room>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// Begins an answer: its first piece is read before the status goes out.
///
/// - `budget`: of [`Pace::Lean`].
/// - Errors: `InternalError` for chunks that are damaged or gone.
pub(super) async fn begin(
    pool: &Pool,
    source: Source,
    range: Range<u64>,
    budget: usize,
    reader: Reader,
) -> S3Result<Body> {
    let mut body = LeanBody {
        pool: pool.clone(),
        source,
        left: range,
        budget,
        reading: None,
        gate: Arc::default(),
        reader,
    };
    let (source, room) = (body.source.clone(), body.reader.room(budget));
    let next = body.next(&room);
    let first = pool.run(move || source.read(next)).await?;
    body.reading = Some(Box::pin(async move { Ok((first, room)) }));
    Ok(Body::streamed(body))
}

impl LeanBody {
    fn next(&self, room: &Room) -> Range<u64> {
        self.left.start..(self.left.start + room.len as u64).min(self.left.end)
    }

    fn read(&self) -> Reading {
        let (pool, source, room) = (self.pool.clone(), self.source.clone(), self.reader.room(self.budget));
        let next = self.next(&room);
        Box::pin(async move {
            let bytes = pool.run_patiently(move || source.read(next)).await?;
            Ok((bytes, room))
        })
    }
}

impl HttpBody for LeanBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.left.is_empty() {
            return Poll::Ready(None);
        }
        ready!(this.gate.poll_open(cx));
        if this.reading.is_none() {
            this.reading = Some(this.read());
        }
        let Some(reading) = &mut this.reading else {
            return Poll::Pending;
        };
        let done = ready!(reading.as_mut().poll(cx));
        this.reading = None;
        match done {
            Ok((bytes, room)) => {
                this.left.start += bytes.len() as u64;
                this.gate.close();
                let piece = Piece {
                    bytes,
                    gate: Arc::clone(&this.gate),
                    _room: Some(room),
                };
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
            }
            Err(error) => {
                this.left.start = this.left.end;
                Poll::Ready(Some(Err(io::Error::other(error.code.row().1))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.end - self.left.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: however many there are and in whatever order they came, their pieces have the budget together, and the least piece each.
    #[test]
    fn pieces_of_all_readers_have_one_bound() {
        let readers = Readers::default();
        let memory = 64 << 20;
        let first: Vec<_> = (0..8).map(|_| readers.begin(memory)).collect();
        assert!(first.iter().all(|(_, pace)| *pace == Pace::Ahead) && !readers.are_few(memory));
        let (ninth, pace) = readers.begin(memory);
        assert_eq!(pace, Pace::Lean(32 << 20));
        let room = ninth.room(32 << 20);
        assert_eq!(room.len, 256 << 10);
        let many: Vec<_> = (0..10_000).map(|_| readers.begin(memory).0).collect();
        let rooms: Vec<Room> = many.iter().map(|reader| reader.room(32 << 20)).collect();
        assert_eq!(rooms[9_000].len, 16 << 10);
        let held: usize = rooms.iter().map(|room| room.len).sum();
        assert!(held <= (32 << 20) + 10_000 * (16 << 10), "{held}");
        drop((rooms, room));
        assert_eq!(ninth.0.pieces.load(Ordering::Relaxed), 0);
        drop((many, ninth, first));
        assert_eq!(readers.begin(memory).1, Pace::Ahead);
    }

    /// Goal: no second piece is read while the first is on its way, and one is when it has gone.
    #[test]
    fn a_gate_is_closed_while_a_piece_is_on_its_way() {
        let gate = Arc::<Gate>::default();
        let cx = Context::from_waker(Waker::noop());
        assert!(gate.poll_open(&cx).is_ready());
        gate.close();
        let piece = Bytes::from_owner(Piece {
            bytes: vec![1, 2, 3],
            gate: Arc::clone(&gate),
            _room: None,
        });
        let rest = piece.slice(2..);
        drop(piece);
        assert!(gate.poll_open(&cx).is_pending());
        drop(rest);
        assert!(gate.poll_open(&cx).is_ready());
    }
}
