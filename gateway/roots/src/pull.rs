//! Many chunks in one answer: `POST <root>/-/chunks`, and `POST` of an index (`formats/FORMATS.md`, "Many chunks at once").
//!
//! The request names ids; the answer has the stored frames in the order asked, read a window ahead of what the client takes. What a
//! window holds counts against one bound for all answers of the process, and an answer that nobody takes is cut, so that
//! neither many readers nor slow ones take the memory. Hot path: frames are sent as they were read, nothing is copied.
//! Not here: who may ask (the root), what is stored in which form.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{
    ChunkForm, ChunkId, ChunkIndex, EncodedChunk, Frame, IndexError, PROTOCOL_FRAME_LEN_MAX, PULL_CONTENT_TYPE,
    PULL_INDEX_LEN_MAX, PULL_REQUEST_LEN_MAX, index_frames, lacking, parse_pull_request, push_chunk_head,
};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::{Frame as BodyFrame, Incoming, SizeHint};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::reads::{Failure, Reads};
use crate::reply::{Body, reply, text};
use crate::upload::{self, UploadError};
use crate::workers::{AnswerMemory, Workers};
use crate::zero::zero_chunk;

/// Stored bytes read together: long enough for a store to read neighbours in one go.
const WINDOW_LEN: usize = 4 << 20;
/// Chunks of the first window, so that the answer begins at once.
const FIRST_CHUNKS: usize = 16;
/// Chunks of a window at most.
const WINDOW_CHUNKS_MAX: usize = 256;
/// What a chunk is taken to be long before one has been seen: the longest at default sizes.
const LIKELY_LEN: usize = 256 << 10;
/// What comes before chunks goes out in pieces of this size.
const FIRST_PIECE_LEN: usize = 256 << 10;
/// An answer of which nothing is taken for so long is cut.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Longest stored chunk that fits a frame.
const DATA_LEN_MAX: u64 = PROTOCOL_FRAME_LEN_MAX - 56;

/// ABORT's number for a chunk that could not be read.
const BROKEN: u64 = 5;
/// ABORT's number for a chunk too long for a frame.
const TOO_LONG: u64 = 27;

/// Answers a request that may read.
///
/// - `ids_max`: ids that it may name.
pub(crate) async fn answer(
    request: Request<Incoming>,
    reads: &Reads,
    workers: &Workers,
    ids_max: usize,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let upload = match upload::read(&head.headers, body, PULL_REQUEST_LEN_MAX, workers).await {
        Ok(upload) => upload,
        Err(error) => return error.reply(),
    };
    let ids = match parse_pull_request(upload.bytes) {
        Ok(ids) if ids.len() <= ids_max => ids,
        Ok(ids) => {
            let words = format!(
                "{} ids are more than the {ids_max} that a request may name here",
                ids.len()
            );
            return text(StatusCode::PAYLOAD_TOO_LARGE, words);
        }
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let Some(memory) = workers.asked_memory(ids.len() * 32) else {
        return UploadError::Busy.reply();
    };
    drop(upload.memory);
    begin(reads, workers, Bytes::new(), ids, memory)
}

/// Answers a request for an index with what its reader lacks, who shows an index of what they have, or nothing.
///
/// - `index`: the file, [`PULL_INDEX_LEN_MAX`] bytes at most.
pub(crate) async fn answer_index(
    request: Request<Incoming>,
    index: Bytes,
    reads: &Reads,
    workers: &Workers,
    ids_max: usize,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let upload = match upload::read(&head.headers, body, PULL_INDEX_LEN_MAX, workers).await {
        Ok(upload) => upload,
        Err(error) => return error.reply(),
    };
    let file = index.clone();
    let compared = workers.run(move || {
        let _memory = upload.memory;
        let held = match upload.bytes.is_empty() {
            true => HashSet::new(),
            false => ChunkIndex::parse(upload.bytes)?.spans().map(|span| span.id).collect(),
        };
        Ok::<_, IndexError>(ChunkIndex::parse(index).map(|index| lacking(&index, &held, ids_max)))
    });
    let ids = match compared.await {
        Ok(Ok(Ok(ids))) => ids,
        Ok(Err(error)) => return text(StatusCode::BAD_REQUEST, format!("what was sent is {error}")),
        Ok(Ok(Err(error))) => {
            tracing::error!(%error, "a stored index is damaged");
            return text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error");
        }
        Err(error) => {
            tracing::error!(%error, "an index was not compared");
            return text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error");
        }
    };
    let Some(memory) = workers.asked_memory(ids.len() * 32) else {
        return UploadError::Busy.reply();
    };
    begin(reads, workers, index_frames(&file), ids, memory)
}

/// The answer with these chunks, behind `first`.
fn begin(reads: &Reads, workers: &Workers, first: Bytes, ids: Vec<ChunkId>, memory: AnswerMemory) -> Response<Body> {
    let (sender, pieces) = mpsc::channel(1);
    let job = Answering {
        reads: reads.clone(),
        workers: workers.clone(),
        first,
        ids,
        pieces: sender,
        _memory: memory,
    };
    let body = PulledBody {
        pieces,
        job: tokio::spawn(job.run()),
        is_whole: false,
    };
    let mut response = reply(StatusCode::OK, Body::streamed(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PULL_CONTENT_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// One answer that is being made.
struct Answering {
    reads: Reads,
    workers: Workers,
    /// Sent before the chunks.
    first: Bytes,
    ids: Vec<ChunkId>,
    pieces: mpsc::Sender<Piece>,
    _memory: AnswerMemory,
}

/// A part of the answer.
enum Piece {
    Bytes(Bytes),
    /// The answer is whole with what came before.
    Last(Bytes),
}

/// Chunks read together, and their memory.
struct Window {
    chunks: Vec<(ChunkId, Result<EncodedChunk, Failure>)>,
    _memory: AnswerMemory,
}

/// The client went away, or takes nothing.
struct Gone;

impl Answering {
    async fn run(self) {
        // Either way nobody is left to tell: the body ends early, and with it the connection.
        if let Err(Gone) = self.send_all().await {
            tracing::debug!("an answer with many chunks was not taken to its end");
        }
    }

    async fn send_all(&self) -> Result<(), Gone> {
        let (mut next, mut len_seen) = (0, LIKELY_LEN);
        if !self.first.is_empty() {
            let _memory = self.workers.answer_memory(self.first.len()).await;
            for at in (0..self.first.len()).step_by(FIRST_PIECE_LEN) {
                let end = self.first.len().min(at + FIRST_PIECE_LEN);
                self.put(Piece::Bytes(self.first.slice(at..end))).await?;
            }
        }
        if self.ids.is_empty() {
            return self.put(Piece::Last(frame(&Frame::Goodbye))).await;
        }
        let mut reading = Some(self.read(next, FIRST_CHUNKS, len_seen));
        while let Some(read) = reading.take() {
            let Ok(window) = read.await else { return Err(Gone) };
            next += window.chunks.len();
            let lens = window
                .chunks
                .iter()
                .flat_map(|(_, chunk)| chunk)
                .map(|chunk| chunk.bytes.len());
            len_seen = lens.max().unwrap_or(len_seen).max(len_seen / 2);
            if next < self.ids.len() {
                // Read while what was read is sent.
                let count = (WINDOW_LEN / len_seen.max(1)).clamp(1, WINDOW_CHUNKS_MAX);
                reading = Some(self.read(next, count, len_seen));
            }
            if self.send(&window).await? {
                return Ok(());
            }
        }
        self.put(Piece::Last(frame(&Frame::Goodbye))).await
    }

    /// Begins to read a window, as soon as there is memory for it.
    fn read(&self, first: usize, count: usize, len_seen: usize) -> JoinHandle<Window> {
        let (reads, workers) = (self.reads.clone(), self.workers.clone());
        let ids = self.ids[first..self.ids.len().min(first + count)].to_vec();
        tokio::spawn(async move {
            let memory = workers.answer_memory(ids.len() * len_seen).await;
            let wanted = ids.clone();
            let chunks = workers.run(move || get_many(&reads, &wanted)).await;
            let chunks = chunks.unwrap_or_else(|_| ids.iter().map(|_| Err(Failure::Store)).collect());
            Window {
                chunks: ids.into_iter().zip(chunks).collect(),
                _memory: memory,
            }
        })
    }

    /// Sends what was read; whether that ended the answer.
    async fn send(&self, window: &Window) -> Result<bool, Gone> {
        for (id, chunk) in &window.chunks {
            let abort = match chunk {
                Ok(chunk) if chunk.bytes.len() as u64 <= DATA_LEN_MAX && !chunk.bytes.is_empty() => {
                    count("sent");
                    let mut head = Vec::with_capacity(56);
                    push_chunk_head(*id, chunk.form == ChunkForm::Compressed, chunk.bytes.len(), &mut head);
                    self.put(Piece::Bytes(head.into())).await?;
                    self.put(Piece::Bytes(chunk.bytes.clone())).await?;
                    continue;
                }
                Err(Failure::Missing) => {
                    count("missing");
                    self.put(Piece::Bytes(frame(&Frame::Missing(*id)))).await?;
                    continue;
                }
                Ok(_) => (TOO_LONG, "the chunk does not fit a frame: ask for it alone"),
                Err(Failure::Store) => (BROKEN, "internal server error"),
            };
            count("given_up");
            let (code, reason) = (abort.0, abort.1.to_owned());
            self.put(Piece::Last(frame(&Frame::Abort { code, reason }))).await?;
            return Ok(true);
        }
        Ok(false)
    }

    async fn put(&self, piece: Piece) -> Result<(), Gone> {
        match tokio::time::timeout(STALL_MAX, self.pieces.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// Stored chunks, and the zero chunk whether it is stored or not. Blocks.
fn get_many(reads: &Reads, ids: &[ChunkId]) -> Vec<Result<EncodedChunk, Failure>> {
    let mut chunks = reads.get_many(ids);
    for (&id, chunk) in ids.iter().zip(&mut chunks) {
        if chunk.is_err()
            && let Some(zero) = zero_chunk(id, ChunkForm::Compressed)
        {
            *chunk = Ok(zero);
        }
    }
    chunks
}

fn frame(frame: &Frame) -> Bytes {
    let mut bytes = Vec::new();
    frame.push(&mut bytes);
    bytes.into()
}

fn count(result: &'static str) {
    metrics::counter!("pull_chunks_total", "result" => result).increment(1);
}

/// The answer as hyper takes it.
struct PulledBody {
    pieces: mpsc::Receiver<Piece>,
    job: JoinHandle<()>,
    is_whole: bool,
}

impl hyper::body::Body for PulledBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<BodyFrame<Bytes>>>> {
        if self.is_whole {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Bytes(bytes)) => Some(Ok(BodyFrame::data(bytes))),
            Some(Piece::Last(bytes)) => {
                self.is_whole = true;
                Some(Ok(BodyFrame::data(bytes)))
            }
            None => Some(Err(io::Error::other("the answer was given up"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_whole
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for PulledBody {
    fn drop(&mut self) {
        // A window that is being read is read to its end; its memory goes with it.
        self.job.abort();
    }
}
