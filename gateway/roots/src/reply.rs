//! What roots answer with: a body type and the headers that every answer carries.
//!
//! Uploaded bytes are hostile on our origin, so every answer says `nosniff` and `sandbox`. Hot path: no boxing, headers
//! are static but for the tag.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Response, StatusCode};
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;

/// Large files go out in pieces of this size, one in memory per request.
const PIECE_LEN: usize = 256 << 10;

/// Body of an answer: nothing, bytes in memory, a stretch of a file read piece by piece, or what another body gives.
#[derive(Debug)]
pub struct Body(Kind);

enum Kind {
    Empty,
    Whole(Bytes),
    File(FilePieces),
    Streamed(Pin<Box<dyn hyper::body::Body<Data = Bytes, Error = io::Error> + Send>>),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Whole(_) => "Whole",
            Self::File(_) => "File",
            Self::Streamed(_) => "Streamed",
        })
    }
}

#[derive(Debug)]
struct FilePieces {
    file: Arc<File>,
    at: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Body {
    /// No bytes.
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// What another body gives. An error in it ends the connection.
    pub fn streamed(body: impl hyper::body::Body<Data = Bytes, Error = io::Error> + Send + 'static) -> Self {
        Self(Kind::Streamed(Box::pin(body)))
    }

    /// Bytes `range` of a file, read as the client takes them. The file must not be rewritten in place meanwhile.
    pub(crate) fn file(file: Arc<File>, range: std::ops::Range<u64>) -> Self {
        Self(Kind::File(FilePieces {
            file,
            at: range.start,
            end: range.end,
            reading: None,
        }))
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() {
            Kind::Empty
        } else {
            Kind::Whole(bytes)
        })
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::File(pieces) => pieces.poll(cx),
            Kind::Streamed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Whole(_) => false,
            Kind::File(pieces) => pieces.at == pieces.end,
            Kind::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::File(pieces) => SizeHint::with_exact(pieces.end - pieces.at),
            Kind::Streamed(body) => body.size_hint(),
        }
    }
}

impl FilePieces {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.at == self.end {
            return Poll::Ready(None);
        }
        let (file, at, end) = (&self.file, self.at, self.end);
        let reading = self.reading.get_or_insert_with(|| {
            let file = Arc::clone(file);
            tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE_LEN.min(usize::try_from(end - at).unwrap_or(PIECE_LEN))];
                file.read_exact_at(&mut piece, at)?;
                Ok(Bytes::from(piece))
            })
        });
        let piece = ready!(Pin::new(reading).poll(cx)).map_err(io::Error::other);
        self.reading = None;
        Poll::Ready(Some(piece.flatten().map(|piece| {
            self.at += piece.len() as u64;
            Frame::data(piece)
        })))
    }
}

use std::future::Future as _;

/// An answer with the headers that all answers carry.
pub fn reply(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(8);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    response
}

/// A short word to people; never kept by caches.
///
/// Roots answer errors with it; a server's own pages (health, unknown paths) use it too.
pub fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    let mut message: String = message.into();
    message.push('\n');
    let mut response = reply(status, Body::from(message));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// [`text`] for a request that is refused before its body is read: the connection ends with it if there may be a body.
pub fn refuse(method: &Method, status: StatusCode, message: impl Into<String>) -> Response<Body> {
    let mut response = text(status, message);
    if *method != Method::GET && *method != Method::HEAD {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
