//! A chunk store over HTTP, in the paths and statuses that casync and desync clients know (`docs/limits.md` has the bounds).
//!
//! `GET`, `HEAD` and `PUT` of `/<4 hex>/<64 hex>` (plain) and the same with `.cacnk` (compressed); both forms are served
//! from one store, whichever it holds; `POST` of `/-/chunks` asks for many ([`crate::pull`]). A sealed root ([`ChunkRoot::sealed`]) has the same paths with the cipher's ending and
//! sends and takes nothing in clear, however the store holds it. Invariants: what is stored has been verified and is durable before it is answered;
//! a refused or cut upload leaves nothing. Hot path: a chunk in the page cache is answered without leaving the thread.

use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{
    CHUNK_LEN_MAX, Chunk, ChunkError, ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, Level, PULL_HEADER,
    PULL_IDS_MAX, PULL_PATH, StorableChunk,
};
use cairn_store::{ChunkStore, Error, Sealing};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::Access;
use crate::conditions::{self, Part};
use crate::flights::Flights;
use crate::pull;
use crate::reads::{Failure, Reads, VerifyReads, cause_of, log_store_error};
use crate::reply::{Body, refuse, reply, text};
use crate::serve::Handler;
use crate::upload;
use crate::workers::Workers;
use crate::zero::zero_chunk;

/// Most bytes of a compressed chunk: what zstd may make of the longest chunk, with room for other writers' frames.
const COMPRESSED_LEN_MAX: usize = CHUNK_LEN_MAX + CHUNK_LEN_MAX / 128 + 4096;
/// A chunk stored plain and asked for compressed is compressed on the way out: quickly.
const TRANSCODE_LEVEL: i32 = 1;

/// How a chunk root behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRootOptions {
    /// The digest that names the store's chunks.
    pub digest: DigestAlgorithm,
    /// Who may read and write.
    pub access: Access,
    /// When chunks are checked on the way out.
    pub verify_reads: VerifyReads,
    /// Chunks that come plain are stored in frames of this level, for stores that hold nothing else; `None` stores them plain. A
    /// frame that comes is kept as it is, unless other readers would refuse it.
    pub frame_level: Option<Level>,
    /// Have the store say each time that a chunk is there: where chunks are collected, that is a promise that it has to know of.
    pub ask_for_heads: bool,
    /// Ids that one request for many chunks may name, [`cairn_formats::PULL_IDS_MAX`] at most; 0: no such requests.
    pub pull_ids: usize,
}

impl Default for ChunkRootOptions {
    fn default() -> Self {
        Self {
            digest: DigestAlgorithm::default(),
            access: Access::default(),
            verify_reads: VerifyReads::default(),
            frame_level: None,
            ask_for_heads: false,
            pull_ids: PULL_IDS_MAX,
        }
    }
}

/// A chunk store as an HTTP service.
#[derive(Debug)]
pub struct ChunkRoot {
    store: Arc<dyn ChunkStore>,
    options: ChunkRootOptions,
    workers: Workers,
    sealing: Sealing,
    reads: Reads,
    /// What says how many ids a request for many chunks may name.
    pull_ids: HeaderValue,
    flights: Flights<(ChunkId, ChunkForm), Result<EncodedChunk, Failure>>,
}

impl ChunkRoot {
    /// A root on `store`. Clones of one [`Workers`] share its bounds.
    pub fn new(store: Arc<dyn ChunkStore>, options: ChunkRootOptions, workers: Workers) -> Self {
        Self {
            reads: Reads::new(
                Arc::clone(&store),
                options.digest,
                options.verify_reads,
                workers.clone(),
            ),
            store,
            pull_ids: options.pull_ids.into(),
            options,
            workers,
            sealing: Sealing::default(),
            flights: Flights::new(),
        }
    }

    /// The same root with chunks encrypted on the wire: desync's `chunk-server --encryption`.
    pub fn sealed(self, sealing: Sealing) -> Self {
        Self { sealing, ..self }
    }

    /// The store that is served.
    pub fn store(&self) -> &Arc<dyn ChunkStore> {
        &self.store
    }

    /// Answers a request.
    ///
    /// - `path_at`: where in the URL's path the root's own part begins, at a `/`.
    pub async fn answer(&self, request: Request<Incoming>, path_at: usize) -> Response<Body> {
        if self.takes_pulls() && is_pull(&request, path_at) {
            let access = &self.options.access.read;
            return match access.check(request.method(), request.headers()) {
                Ok(()) => pull::answer(request, &self.reads, &self.workers, self.options.pull_ids).await,
                Err(response) => response,
            };
        }
        if let Err(response) = self.options.access.check(&request) {
            return response;
        }
        let path = request.uri().path().get(path_at..).unwrap_or_default();
        let suffix = self.sealing.suffix();
        let Some((id, form)) = path.strip_suffix(suffix).and_then(parse_path) else {
            return refuse(
                request.method(),
                StatusCode::BAD_REQUEST,
                format!(
                    "not a chunk's path; expected /<4 hex digits>/<64 hex digits> with .cacnk{suffix} or {} behind",
                    if suffix.is_empty() { "nothing" } else { suffix },
                ),
            );
        };
        match *request.method() {
            Method::GET => match self.get_sealed(id, form).await {
                Ok(chunk) => self.chunk_reply(request.headers(), chunk),
                Err(failure) => self.refuse(failure, id),
            },
            Method::HEAD => match self.head(id, form).await {
                Ok(len) => {
                    let len = len.map(|len| len + self.sealing.overhead() as u64);
                    self.head_reply(request.headers(), id, form, len)
                }
                // A HEAD has no body, but its status is the GET's.
                Err(failure) => self.refuse(failure, id),
            },
            _ => self.put(request, id, form).await,
        }
    }

    /// Answers a request for an index of these chunks with what its reader lacks, who shows an index of what they have, or nothing.
    ///
    /// - `index`: the file, [`cairn_formats::PULL_INDEX_LEN_MAX`] bytes at most. The caller has decided that it may be read.
    pub async fn answer_index(&self, request: Request<Incoming>, index: Bytes) -> Response<Body> {
        if !self.takes_pulls() {
            return refuse(
                request.method(),
                StatusCode::METHOD_NOT_ALLOWED,
                "indexes are read by GET here",
            );
        }
        let access = &self.options.access.read;
        match access.check(request.method(), request.headers()) {
            Ok(()) => {
                let ids_max = self.options.pull_ids;
                let answer = pull::answer_index(request, index, &self.reads, &self.workers, ids_max).await;
                self.with_pulls(answer)
            }
            Err(response) => response,
        }
    }

    /// The chunk as it is sent. Each answer is sealed anew: shared reads end before.
    async fn get_sealed(&self, id: ChunkId, form: ChunkForm) -> Result<EncodedChunk, Failure> {
        let chunk = self.get(id, form).await?;
        if !self.sealing.is_on() {
            return Ok(chunk);
        }
        let (sealing, store) = (self.sealing.clone(), self.store.name().clone());
        self.workers
            .run(move || match sealing.seal(&store, &chunk.bytes) {
                Ok(bytes) => Ok(EncodedChunk { bytes, ..chunk }),
                Err(error) => Err(Failure::of(&error)),
            })
            .await
            .unwrap_or(Err(Failure::Store))
    }

    async fn get(&self, id: ChunkId, form: ChunkForm) -> Result<EncodedChunk, Failure> {
        if let Some(zero) = zero_chunk(id, form) {
            return Ok(zero);
        }
        if self.reads.is_trusted(id, form)
            && let Some(chunk) = self.store.get_resident(id, form)
        {
            return Ok(chunk);
        }
        self.flights
            .share((id, form), || async move {
                let reads = self.reads.clone();
                self.workers
                    .run(move || {
                        let stored = reads.store.get_many(&[id]).pop().expect("one answer per id");
                        let chunk = stored.map_err(|error| Failure::of(&error))?;
                        if chunk.form == form && reads.is_trusted(id, form) {
                            return Ok(chunk);
                        }
                        let opened = reads.open_many(std::slice::from_ref(&chunk)).pop();
                        let opened = opened.expect("one answer per chunk")?;
                        Ok(if chunk.form == form {
                            chunk
                        } else {
                            transcode(&opened, form)
                        })
                    })
                    .await
                    .unwrap_or(Err(Failure::Store))
            })
            .await
    }

    /// Length of the chunk in this form, where it can be told.
    async fn head(&self, id: ChunkId, form: ChunkForm) -> Result<Option<u64>, Failure> {
        if !self.options.ask_for_heads
            && let Some(chunk) = self.store.get_resident(id, form)
        {
            return Ok(Some(chunk.bytes.len() as u64));
        }
        let store = Arc::clone(&self.store);
        let stat = self
            .workers
            .run(move || store.stat(id, form).map_err(|error| Failure::of(&error)))
            .await
            .unwrap_or(Err(Failure::Store))?
            .ok_or(Failure::Missing)?;
        match stat.stored {
            Some((stored, len)) if stored == form => Ok(Some(len)),
            // The length in the other form is only known once it is made.
            Some(_) => Ok(Some(self.get(id, form).await?.bytes.len() as u64)),
            None => Ok(None),
        }
    }

    async fn put(&self, request: Request<Incoming>, id: ChunkId, form: ChunkForm) -> Response<Body> {
        if self.options.access.is_read_only() {
            return refuse(
                request.method(),
                StatusCode::BAD_REQUEST,
                "this chunk root is read-only",
            );
        }
        let len_max = match form {
            ChunkForm::Compressed => COMPRESSED_LEN_MAX,
            ChunkForm::Plain => CHUNK_LEN_MAX,
        } + self.sealing.overhead();
        let (head, body) = request.into_parts();
        let upload = match upload::read(&head.headers, body, len_max, &self.workers).await {
            Ok(upload) => upload,
            Err(error) => return error.reply(),
        };
        let (store, workers, digest) = (Arc::clone(&self.store), self.workers.clone(), self.options.digest);
        let (sealing, level) = (self.sealing.clone(), self.options.frame_level);
        let stored = self.workers.run(move || {
            let _memory = upload.memory;
            let chunk = EncodedChunk {
                id,
                form,
                bytes: upload.bytes,
            };
            let chunk = sealing.open(store.name(), chunk).map_err(PutError::Sealed)?;
            let chunk = verify(&chunk, digest, level, &workers).map_err(PutError::Bad)?;
            store
                .put_many(&[chunk])
                .and_then(|()| store.flush())
                .map_err(PutError::Store)
        });
        match stored.await {
            Ok(Ok(())) => reply(StatusCode::OK, Body::empty()),
            Ok(Err(PutError::Bad(error))) => text(StatusCode::BAD_REQUEST, error.to_string()),
            // The error itself names the store; its source says what is wrong with the chunk.
            Ok(Err(PutError::Sealed(error))) => text(StatusCode::BAD_REQUEST, cause_of(&error)),
            Ok(Err(PutError::Store(Error::ReadOnly { .. }))) => {
                text(StatusCode::BAD_REQUEST, "this chunk root is read-only")
            }
            Ok(Err(PutError::Store(error))) => {
                log_store_error(&error);
                server_error()
            }
            Err(error) => {
                tracing::error!(chunk = %id, %error, "a chunk was not stored");
                server_error()
            }
        }
    }

    fn chunk_reply(&self, headers: &HeaderMap, chunk: EncodedChunk) -> Response<Body> {
        let tag = Tag::new(chunk.id);
        if conditions::is_held(headers, tag.strong()) {
            return self.with_headers(reply(StatusCode::NOT_MODIFIED, Body::empty()), &tag, chunk.form);
        }
        let len = chunk.bytes.len();
        let part = if self.is_lasting(chunk.form) {
            conditions::part(headers, tag.strong(), len as u64)
        } else {
            Part::Whole
        };
        let response = match part {
            Part::Whole => reply(StatusCode::OK, Body::from(chunk.bytes)),
            Part::Range(range) => {
                let content_range = format!("bytes {}-{}/{len}", range.start, range.end - 1);
                // The range lies within the chunk, so it fits a usize.
                let bytes = chunk.bytes.slice(range.start as usize..range.end as usize);
                with_content_range(reply(StatusCode::PARTIAL_CONTENT, Body::from(bytes)), &content_range)
            }
            Part::Outside => with_content_range(
                text(StatusCode::RANGE_NOT_SATISFIABLE, "the range lies outside the chunk"),
                &format!("bytes */{len}"),
            ),
        };
        self.with_headers(response, &tag, chunk.form)
    }

    fn head_reply(&self, headers: &HeaderMap, id: ChunkId, form: ChunkForm, len: Option<u64>) -> Response<Body> {
        let tag = Tag::new(id);
        let mut response = if conditions::is_held(headers, tag.strong()) {
            reply(StatusCode::NOT_MODIFIED, Body::empty())
        } else {
            let mut response = reply(StatusCode::OK, Body::empty());
            if let Some(len) = len {
                response.headers_mut().insert(CONTENT_LENGTH, len.into());
            }
            response
        };
        response = self.with_headers(response, &tag, form);
        response
    }

    /// The answer where there is no chunk.
    fn refuse(&self, failure: Failure, id: ChunkId) -> Response<Body> {
        match failure {
            Failure::Missing => self.with_pulls(text(StatusCode::NOT_FOUND, format!("chunk {id} is not here"))),
            Failure::Store => server_error(),
        }
    }

    /// Whether many chunks may be asked for in one request. Sealed ones go out one by one.
    fn takes_pulls(&self) -> bool {
        self.options.pull_ids > 0 && !self.sealing.is_on()
    }

    /// Tells readers that they may ask for many chunks at once, where they may.
    fn with_pulls(&self, mut response: Response<Body>) -> Response<Body> {
        if self.takes_pulls() {
            let headers = response.headers_mut();
            headers.insert(HeaderName::from_static(PULL_HEADER), self.pull_ids.clone());
        }
        response
    }

    /// Whether every answer with this chunk has the same bytes. A compressed chunk may be another frame tomorrow and a sealed
    /// one has a nonce of its own: no stretch of one fits a stretch of another answer.
    fn is_lasting(&self, form: ChunkForm) -> bool {
        form == ChunkForm::Plain && !self.sealing.is_on()
    }

    fn with_headers(&self, mut response: Response<Body>, tag: &Tag, form: ChunkForm) -> Response<Body> {
        if response.status().is_client_error() {
            return response;
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let cache = if self.options.access.read.is_open() {
            "public, max-age=31536000, immutable"
        } else {
            "private, max-age=31536000, immutable"
        };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
        let tag = if self.is_lasting(form) {
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            tag.strong()
        } else {
            tag.weak()
        };
        headers.insert(
            ETAG,
            HeaderValue::from_str(tag).expect("hex digits in quotes are a header value"),
        );
        self.with_pulls(response)
    }
}

impl Handler for ChunkRoot {
    /// The root as desync's chunk-server has it: chunk paths begin at the URL's root.
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        self.answer(request, 0).await
    }
}

enum PutError {
    Bad(ChunkError),
    /// It does not decrypt.
    Sealed(Error),
    Store(Error),
}

/// The client learns no more than this; the log has the chain.
fn server_error() -> Response<Body> {
    text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error")
}

fn with_content_range(mut response: Response<Body>, range: &str) -> Response<Body> {
    let range = HeaderValue::from_str(range).expect("digits are a header value");
    response.headers_mut().insert(CONTENT_RANGE, range);
    response
}

fn verify(
    chunk: &EncodedChunk,
    digest: DigestAlgorithm,
    level: Option<Level>,
    workers: &Workers,
) -> Result<StorableChunk, ChunkError> {
    workers.open_bounded(|plain_len_max| match level {
        // Raw blocks where it would hardly shrink.
        Some(level) if chunk.form == ChunkForm::Plain => {
            let chunk = chunk.open(digest, plain_len_max)?;
            Ok(chunk.encode(ChunkForm::Compressed, level))
        }
        level => {
            let level = level.unwrap_or(Level::DEFAULT);
            chunk.clone().verify_at(digest, plain_len_max, level)
        }
    })
}

/// The chunk in a form in which it is not stored.
fn transcode(chunk: &Chunk, form: ChunkForm) -> EncodedChunk {
    EncodedChunk {
        id: chunk.id(),
        form,
        bytes: chunk.encode(form, Level::new(TRANSCODE_LEVEL)).bytes().clone(),
    }
}

fn is_pull(request: &Request<Incoming>, path_at: usize) -> bool {
    *request.method() == Method::POST && request.uri().path().get(path_at..) == Some(PULL_PATH)
}

/// `/<4 hex>/<64 hex>[.cacnk]`. Digits may be of either case if both places agree, as desync has it.
fn parse_path(path: &str) -> Option<(ChunkId, ChunkForm)> {
    let bytes = path.as_bytes();
    let (name, form) = match bytes.len() {
        70 => (bytes, ChunkForm::Plain),
        76 => (bytes.strip_suffix(b".cacnk")?, ChunkForm::Compressed),
        _ => return None,
    };
    if name[0] != b'/' || name[5] != b'/' || name[1..5] != name[6..10] {
        return None;
    }
    let mut hex: [u8; 64] = name[6..].try_into().ok()?;
    hex.make_ascii_lowercase();
    let id = std::str::from_utf8(&hex).ok()?.parse().ok()?;
    Some((id, form))
}

/// `W/"<id>"`, which holds the strong tag too.
struct Tag([u8; 68]);

impl Tag {
    fn new(id: ChunkId) -> Self {
        let mut tag = [b'"'; 68];
        tag[..2].copy_from_slice(b"W/");
        tag[3..67].copy_from_slice(&id.to_hex());
        Self(tag)
    }

    fn weak(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }

    fn strong(&self) -> &str {
        &self.weak()[2..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let hex = "AB12".to_owned() + &"cd".repeat(30);
        let id = hex.to_lowercase().parse().unwrap();
        let check = |path: String, expected| assert_eq!(parse_path(&path), expected, "{path}");
        check(format!("/AB12/{hex}"), Some((id, ChunkForm::Plain)));
        check(format!("/AB12/{hex}.cacnk"), Some((id, ChunkForm::Compressed)));
        check(format!("/ab12/{}", hex.to_lowercase()), Some((id, ChunkForm::Plain)));
        check(format!("/ab12/{hex}"), None);
        check(format!("/AB13/{hex}"), None);
        check(format!("/AB12/{hex}.CACNK"), None);
        check(format!("/AB12/{hex}.xz"), None);
        check(format!("/AB12/{}", &hex[1..]), None);
        check(format!("//AB12/{hex}"), None);
        check(format!("/AB12/AB12{}", "zz".repeat(30)), None);
        check(format!("/../{hex}"), None);
        check(String::new(), None);
    }
}
