//! Bodies of requests: what the headers promise of one, its bytes in batches, and whether the promise was kept.
//!
//! The async side only gathers bytes, a bounded batch at a time; decoding, digests and storing are done with the batch, in a
//! job. Invariants: nothing is read before the request was allowed (so `100 Continue` is not sent before it either); no body is held
//! whole but documents of at most [`DOCUMENT_LEN_MAX`]; what breaks its promise never becomes visible, because the caller
//! commits only after [`Arriving::finish`].

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use hyper::body::Body as HttpBody;

use crate::pool::Pool;
use crate::s3::bodies::{Bodies, Reading, SignedShare};
use crate::s3::checksum::{Algorithm, Announced, Hasher};
use crate::s3::chunked::ChunkedDecoder;
use crate::s3::error::{Code, S3Result};
use crate::s3::metadata::content_md5;
use crate::s3::range::number;
use crate::s3::signature::{ChunkSigner, Payload};

/// Bytes of an object or a part that come in one request.
pub(crate) const BODY_LEN_MAX: u64 = 5 << 30;
/// Bytes of a document.
pub(crate) const DOCUMENT_LEN_MAX: u64 = 2 << 20;

/// What headers promise of a body.
#[derive(Debug)]
pub(crate) struct Promise {
    /// Bytes of the content, decoded.
    pub(crate) len: u64,
    pub(crate) announced: Announced,
    sha256: Option<[u8; 32]>,
    md5: Option<[u8; 16]>,
    decoder: Option<ChunkedDecoder>,
}

impl Promise {
    /// Reads the headers of a request whose body is content.
    ///
    /// - `signer`: of a request that was signed.
    /// - Errors: `MissingContentLength`, `EntityTooLarge`, `InvalidDigest`, those of [`Announced::read`].
    pub(crate) fn read(headers: &HeaderMap, payload: Payload, signer: Option<ChunkSigner>) -> S3Result<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let chunked = !matches!(payload, Payload::Hashed(_) | Payload::Unsigned);
        let len = if chunked {
            text("x-amz-decoded-content-length")
        } else {
            text(CONTENT_LENGTH.as_str())
        };
        let len = len.and_then(number).ok_or(Code::MissingContentLength)?;
        if len > BODY_LEN_MAX {
            return Err(Code::EntityTooLarge
                .with("ProposedSize", len.to_string())
                .with("MaxSizeAllowed", BODY_LEN_MAX.to_string()));
        }
        let announced = Announced::read(headers)?;
        let trailers = text("x-amz-trailer").unwrap_or("");
        let decoder = match payload {
            Payload::Hashed(_) | Payload::Unsigned => None,
            Payload::SignedChunks { trailer } => Some(ChunkedDecoder::new(len, signer, trailer.then_some(trailers))),
            Payload::UnsignedChunks => Some(ChunkedDecoder::new(len, None, Some(trailers))),
        };
        if matches!(announced, Announced::Trailer(_)) && !decoder.as_ref().is_some_and(ChunkedDecoder::has_trailers) {
            return Err(Code::MalformedTrailer.into());
        }
        Ok(Self {
            len,
            announced,
            sha256: match payload {
                Payload::Hashed(sha256) => Some(sha256),
                _ => None,
            },
            md5: content_md5(headers)?,
            decoder,
        })
    }

    /// Whether there is something that the content can be checked with beyond its length.
    pub(crate) fn has_digest(&self) -> bool {
        self.md5.is_some() || matches!(self.announced, Announced::Value(..) | Announced::Trailer(_))
    }

    /// The check sums of the content that are to be worked out, each once: to be kept, and to be compared.
    pub(crate) fn wanted(&self, kept: Algorithm) -> Vec<Algorithm> {
        let compared = [self.announced.algorithm(), self.sha256.map(|_| Algorithm::Sha256)];
        let mut wanted = vec![kept];
        for algorithm in compared.into_iter().flatten() {
            if !wanted.contains(&algorithm) {
                wanted.push(algorithm);
            }
        }
        wanted
    }

    /// The MD5 that was promised.
    pub(crate) fn md5(&self) -> Option<[u8; 16]> {
        self.md5
    }

    /// Begins to take the body.
    ///
    /// - `bodies`: whose bound of signed chunks it is held to.
    pub(crate) fn arrive(self, bodies: &Arc<Bodies>) -> Arriving {
        Arriving {
            promise: self,
            received: 0,
            signed: bodies.signed(),
        }
    }
}

/// A body that is arriving.
#[derive(Debug)]
pub(crate) struct Arriving {
    pub(crate) promise: Promise,
    received: u64,
    signed: SignedShare,
}

/// What a body has to be compared with, now that all of it is here.
#[derive(Debug)]
pub(crate) struct Arrived {
    sha256: Option<[u8; 32]>,
    md5: Option<[u8; 16]>,
    checksum: Option<(Algorithm, Vec<u8>)>,
}

impl Arriving {
    /// Decodes the next bytes; `out` gets those of the content.
    ///
    /// Errors: those of [`ChunkedDecoder::push`]; `IncompleteBody` for more than was promised; `SlowDown` while all bodies together
    /// hold too much of signed chunks.
    pub(crate) fn decode(&mut self, bytes: Bytes, mut out: impl FnMut(Bytes)) -> S3Result<()> {
        let Self {
            promise,
            received,
            signed,
        } = self;
        let mut count = |bytes: Bytes| {
            *received += bytes.len() as u64;
            out(bytes);
        };
        match &mut promise.decoder {
            Some(decoder) => {
                decoder.push(bytes, count)?;
                signed.set(decoder.held_len())?;
            }
            None => count(bytes),
        }
        if self.received > self.promise.len {
            return Err(Code::IncompleteBody.into());
        }
        Ok(())
    }

    /// The body has ended. Errors: `IncompleteBody` unless it is as long as promised, those of [`ChunkedDecoder::finish`].
    pub(crate) fn finish(self) -> S3Result<Arrived> {
        let Self { promise, received, .. } = self;
        if received != promise.len {
            return Err(Code::IncompleteBody.into());
        }
        let trailers = match promise.decoder {
            Some(decoder) => decoder.finish()?,
            None => Vec::new(),
        };
        let checksum = match promise.announced {
            Announced::None | Announced::Wanted(_) => None,
            Announced::Value(algorithm, value) => Some((algorithm, value)),
            Announced::Trailer(algorithm) => {
                let (_, text) = trailers
                    .iter()
                    .find(|(name, _)| name == algorithm.header())
                    .ok_or(Code::MalformedTrailer)?;
                Some((algorithm, algorithm.parse_value(text)?))
            }
        };
        Ok(Arrived {
            sha256: promise.sha256,
            md5: promise.md5,
            checksum,
        })
    }
}

impl Arrived {
    /// Compares what was promised with what was worked out.
    ///
    /// - `md5`, `value_of`: of the content; `None` where it was not worked out, which fails what was promised of it.
    /// - Errors: `XAmzContentSHA256Mismatch`, `BadDigest`.
    pub(crate) fn compare(
        &self,
        md5: Option<[u8; 16]>,
        value_of: impl Fn(Algorithm) -> Option<Vec<u8>>,
    ) -> S3Result<()> {
        if let Some(sha256) = &self.sha256
            && value_of(Algorithm::Sha256).as_deref() != Some(sha256.as_slice())
        {
            return Err(Code::XAmzContentSha256Mismatch.into());
        }
        if self.md5.is_some() && self.md5 != md5 {
            return Err(Code::BadDigest.into());
        }
        if let Some((algorithm, value)) = &self.checksum
            && value_of(*algorithm).as_ref() != Some(value)
        {
            return Err(Code::BadChecksum.with("ChecksumAlgorithm", algorithm.name()));
        }
        Ok(())
    }

    /// Whether an MD5 was promised, so that it is needed whatever the ETag is.
    pub(crate) fn md5(&self) -> Option<[u8; 16]> {
        self.md5
    }
}

/// The bytes of a body as they come from the connection.
#[derive(Debug)]
pub(crate) struct Incoming<B> {
    body: Option<B>,
    bodies: Arc<Bodies>,
    /// From the first byte that is asked for to the last.
    reading: Option<Reading>,
}

/// Bytes for one job.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) pieces: Vec<Bytes>,
    /// There is nothing behind them.
    pub(crate) ended: bool,
}

impl<B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin> Incoming<B> {
    /// - `bodies`: what it shares memory with.
    pub(crate) fn new(body: B, bodies: &Arc<Bodies>) -> Self {
        Self {
            body: Some(body),
            bodies: Arc::clone(bodies),
            reading: None,
        }
    }

    /// The next bytes: a batch's worth, or all there is to the end.
    ///
    /// Errors: `RequestTimeout` when nothing comes for long, or too little for too long; `IncompleteBody` when the connection breaks.
    pub(crate) async fn batch(&mut self) -> S3Result<Batch> {
        let mut batch = Batch {
            pieces: Vec::new(),
            ended: true,
        };
        let mut len = 0;
        while let Some(body) = &mut self.body {
            let reading = self.reading.get_or_insert_with(|| self.bodies.begin());
            let frame = pin!(body.frame());
            let since = Instant::now();
            match tokio::time::timeout(reading.patience(), frame).await {
                Err(_) => return Err(Code::RequestTimeout.into()),
                Ok(None) => (self.body, self.reading) = (None, None),
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "a request body was cut");
                    return Err(Code::IncompleteBody.into());
                }
                // HTTP's own trailers carry nothing that we use.
                Ok(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    reading.came(bytes.len(), since.elapsed());
                    len += bytes.len();
                    batch.pieces.push(bytes);
                    if len >= reading.batch_len() {
                        batch.ended = body.is_end_stream();
                        return Ok(batch);
                    }
                    if body.is_end_stream() {
                        (self.body, self.reading) = (None, None);
                    }
                }
            }
        }
        Ok(batch)
    }
}

/// Takes a whole body through jobs: `take` gets each batch, `end` what it has come to, in the job of the last batch. The next
/// batch is gathered while a job runs.
pub(crate) async fn consume<B, S, T>(
    pool: &Pool,
    mut incoming: Incoming<B>,
    mut state: S,
    take: fn(&mut S, Vec<Bytes>) -> S3Result<()>,
    end: impl FnOnce(S) -> S3Result<T> + Send + 'static,
) -> S3Result<T>
where
    B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin,
    S: Send + 'static,
    T: Send + 'static,
{
    let mut batch = incoming.batch().await?;
    while !batch.ended {
        let pieces = batch.pieces;
        let job = pool.run_bytes(move || take(&mut state, pieces).map(|()| state));
        let (done, next) = tokio::join!(job, incoming.batch());
        (state, batch) = (done?, next?);
    }
    let job = move || {
        take(&mut state, batch.pieces)?;
        end(state)
    };
    pool.run(job).await
}

/// A whole document, checked against its promise.
///
/// Errors: `MalformedXML` for more than [`DOCUMENT_LEN_MAX`], and those of a body that breaks its promise.
pub(crate) async fn document<B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin>(
    promise: Promise,
    mut incoming: Incoming<B>,
) -> S3Result<Bytes> {
    if promise.len > DOCUMENT_LEN_MAX {
        return Err(Code::MalformedXml.into());
    }
    let kept = promise.announced.algorithm().unwrap_or(Algorithm::Crc32);
    let mut hashers: Vec<(Algorithm, Hasher)> = promise
        .wanted(kept)
        .into_iter()
        .map(|algorithm| (algorithm, Hasher::new(algorithm)))
        .collect();
    let mut arriving = promise.arrive(&incoming.bodies);
    let mut document = Vec::new();
    loop {
        let batch = incoming.batch().await?;
        for piece in batch.pieces {
            arriving.decode(piece, |bytes| document.extend_from_slice(&bytes))?;
        }
        if batch.ended {
            break;
        }
    }
    let arrived = arriving.finish()?;
    hashers.iter_mut().for_each(|(_, hasher)| hasher.update(&document));
    let values: Vec<(Algorithm, Vec<u8>)> = hashers
        .into_iter()
        .map(|(algorithm, hasher)| (algorithm, hasher.finish()))
        .collect();
    let md5 = arrived.md5().map(|_| {
        use md5::Digest as _;
        md5::Md5::digest(&document).into()
    });
    arrived.compare(md5, |algorithm| {
        let found = values.iter().find(|(own, _)| *own == algorithm);
        found.map(|(_, value)| value.clone())
    })?;
    Ok(document.into())
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;
    use crate::pool::PoolOptions;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        pairs.collect()
    }

    async fn read(pairs: &[(&'static str, &str)], payload: Payload, body: &'static str) -> Result<String, Code> {
        let read = async {
            let promise = Promise::read(&headers(pairs), payload, None)?;
            let body = Full::new(Bytes::from_static(body.as_bytes()));
            document(promise, Incoming::new(body, &Arc::default())).await
        };
        let bytes = read.await.map_err(|error: crate::s3::error::S3Error| error.code)?;
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    const HELLO_SHA256: [u8; 32] = [
        0x2c, 0xf2, 0x4d, 0xba, 0x5f, 0xb0, 0xa3, 0x0e, 0x26, 0xe8, 0x3b, 0x2a, 0xc5, 0xb9, 0xe2, 0x9e, 0x1b, 0x16,
        0x1e, 0x5c, 0x1f, 0xa7, 0x42, 0x5e, 0x73, 0x04, 0x33, 0x62, 0x93, 0x8b, 0x98, 0x24,
    ];

    #[tokio::test]
    async fn a_body_that_keeps_its_promise_is_taken() {
        let unsigned = Payload::Unsigned;
        assert_eq!(
            read(&[("content-length", "5")], unsigned, "hello").await.unwrap(),
            "hello"
        );
        let hashed = Payload::Hashed(HELLO_SHA256);
        let md5 = ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==");
        assert_eq!(
            read(&[("content-length", "5"), md5], hashed, "hello").await.unwrap(),
            "hello"
        );
        let chunked = [
            ("x-amz-decoded-content-length", "5"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ];
        let body = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
        assert_eq!(read(&chunked, Payload::UnsignedChunks, body).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_body_that_breaks_its_promise_is_refused() {
        let five = ("content-length", "5");
        let hashed = Payload::Hashed(HELLO_SHA256);
        for (pairs, payload, body, code) in [
            (&[five][..], hashed, "hellO", Code::XAmzContentSha256Mismatch),
            (&[five], Payload::Unsigned, "hell", Code::IncompleteBody),
            (&[five], Payload::Unsigned, "hello!", Code::IncompleteBody),
            (
                &[five, ("content-md5", "XrY7u+Ae7tCTyyK7j1rNww==")],
                Payload::Unsigned,
                "hello",
                Code::BadDigest,
            ),
            (
                &[five, ("content-md5", "x")],
                Payload::Unsigned,
                "hello",
                Code::InvalidDigest,
            ),
            (
                &[five, ("x-amz-checksum-crc32", "AAAAAA==")],
                Payload::Unsigned,
                "hello",
                Code::BadChecksum,
            ),
            (&[], Payload::Unsigned, "hello", Code::MissingContentLength),
            (&[five], Payload::UnsignedChunks, "hello", Code::MissingContentLength),
            (
                &[("content-length", "5368709121")],
                Payload::Unsigned,
                "",
                Code::EntityTooLarge,
            ),
            (
                &[("content-length", "2097153")],
                Payload::Unsigned,
                "",
                Code::MalformedXml,
            ),
            (
                &[five, ("x-amz-trailer", "x-amz-checksum-crc32")],
                Payload::Unsigned,
                "hello",
                Code::MalformedTrailer,
            ),
            (
                &[
                    ("x-amz-decoded-content-length", "5"),
                    ("x-amz-trailer", "x-amz-checksum-crc32"),
                ],
                Payload::UnsignedChunks,
                "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
                Code::BadChecksum,
            ),
            (
                &[
                    ("x-amz-decoded-content-length", "5"),
                    ("x-amz-trailer", "x-amz-checksum-crc32"),
                ],
                Payload::UnsignedChunks,
                "5\r\nhello\r\n",
                Code::IncompleteBody,
            ),
        ] {
            assert_eq!(read(pairs, payload, body).await, Err(code), "{pairs:?} {body:?}");
        }
    }

    /// Goal: a large body goes through in batches, in order, and ends once.
    #[tokio::test]
    async fn batches_come_in_order_and_end_once() {
        let frames = (0..100_u8).map(|number| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![number; 40_000]))));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let pool = Pool::new("ordinary", PoolOptions::default());
        type State = (Vec<u8>, usize);
        let take = |state: &mut State, pieces: Vec<Bytes>| {
            pieces.iter().for_each(|piece| state.0.extend_from_slice(piece));
            state.1 += 1;
            Ok(())
        };
        let (bytes, batches) = consume(&pool, Incoming::new(body, &Arc::default()), (Vec::new(), 0), take, Ok)
            .await
            .unwrap();
        let expected: Vec<u8> = (0..100_u8).flat_map(|number| vec![number; 40_000]).collect();
        assert!(bytes == expected);
        assert!((3..=5).contains(&batches), "{batches} batches");
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_incomplete_and_reaches_no_end() {
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"hello"))),
            Err(std::io::Error::other("gone")),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let pool = Pool::new("ordinary", PoolOptions::default());
        let end = |(): ()| -> S3Result<()> { panic!("it must not end") };
        let result = consume(&pool, Incoming::new(body, &Arc::default()), (), |_, _| Ok(()), end).await;
        assert_eq!(result.unwrap_err().code, Code::IncompleteBody);
    }
}
