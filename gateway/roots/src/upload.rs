//! Request bodies: bounded before they are read, bounded while they are read, and given up when they stall.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::reply::{Body, refuse};
use crate::workers::{BodyMemory, Workers};

/// A body that sends nothing for so long is given up with 408.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Room taken for a body whose length is not announced, before it grows.
const FIRST_ROOM: usize = 1 << 20;

/// Why a body was not read to its end.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// More than the bound, 413.
    TooLarge { len_max: usize },
    /// No memory for it now, 503.
    Busy,
    /// The client stopped sending, 408.
    Stalled,
    /// The connection broke or the framing is wrong; nobody reads the answer.
    Cut(hyper::Error),
}

/// A body in memory and the room reserved for it, to be held until the bytes are gone.
#[derive(Debug)]
pub struct Upload {
    /// The bytes.
    pub bytes: Bytes,
    /// Their room.
    pub memory: BodyMemory,
}

impl Upload {
    /// Reads a whole body of at most `len_max` bytes, within the memory that `workers` has for bodies.
    ///
    /// Errors: the answer to give, 4xx or 503.
    pub async fn read(
        headers: &HeaderMap,
        body: Incoming,
        len_max: usize,
        workers: &Workers,
    ) -> Result<Self, Response<Body>> {
        read(headers, body, len_max, workers)
            .await
            .map_err(|error| error.reply())
    }
}

/// The announced length of a body, where there is one; over `len_max` it is refused unread.
pub(crate) fn announced(headers: &HeaderMap, len_max: usize) -> Result<Option<usize>, UploadError> {
    // hyper has refused a Content-Length that is no number.
    let Some(len) = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    match len.parse::<usize>() {
        Ok(len) if len <= len_max => Ok(Some(len)),
        _ => Err(UploadError::TooLarge { len_max }),
    }
}

/// The next bytes of a body, `None` at its end.
pub(crate) async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>, UploadError> {
    loop {
        let frame = match tokio::time::timeout(STALL_MAX, body.frame()).await {
            Err(_) => return Err(UploadError::Stalled),
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => frame.map_err(UploadError::Cut)?,
        };
        // Trailers carry nothing that we use.
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
}

/// Reads a whole body of at most `len_max` bytes.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Incoming,
    len_max: usize,
    workers: &Workers,
) -> Result<Upload, UploadError> {
    let announced = announced(headers, len_max)?;
    let mut memory = workers.body_memory(announced.unwrap_or(FIRST_ROOM)).await;
    let mut bytes = BytesMut::new();
    // Memory follows what has come in, not what was announced.
    while let Some(piece) = next_piece(&mut body).await? {
        if bytes.is_empty() {
            bytes.reserve(announced.unwrap_or(0).min(FIRST_ROOM));
        }
        let len = bytes.len() + piece.len();
        if len > len_max {
            return Err(UploadError::TooLarge { len_max });
        }
        if !memory.grow(len) {
            return Err(UploadError::Busy);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Upload {
        bytes: bytes.freeze(),
        memory,
    })
}

impl UploadError {
    pub(crate) fn reply(&self) -> Response<Body> {
        match self {
            Self::TooLarge { len_max } => refuse(
                &Method::PUT,
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than the {len_max} bytes allowed here"),
            ),
            Self::Busy => {
                let mut response = refuse(
                    &Method::PUT,
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many bodies at once; try again, with a Content-Length if you can",
                );
                response
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
            Self::Stalled => refuse(&Method::PUT, StatusCode::REQUEST_TIMEOUT, "the body stopped coming"),
            Self::Cut(error) => {
                tracing::debug!(%error, "a request body was cut");
                refuse(&Method::PUT, StatusCode::BAD_REQUEST, "the body ended early")
            }
        }
    }
}
