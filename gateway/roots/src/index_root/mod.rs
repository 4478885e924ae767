//! A folder of chunk indexes over HTTP: `GET`, `HEAD` and `PUT` of `/<name>`, `DELETE` where that is allowed, `POST` where the chunks
//! are known. A name may have folders.
//!
//! Invariants: a file under its name is a whole index that parsed and is durable; a refused or cut upload leaves nothing
//! but a `.tmp-` file, which goes when the request does. Names are opaque bytes and cannot lead out of the folder, by
//! `..`, by a link or by any other way ([`folder`] asks the kernel for it). Indexes are stored and served as sent.

mod folder;
mod name;

use std::fmt;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cairn_formats::{ChunkId, ChunkIndex, IndexError, PULL_INDEX_LEN_MAX};
use cairn_store::ChunkStore;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::Access;
use crate::chunk_root::ChunkRoot;
use crate::conditions::{self, Part};
use crate::reply::{Body, refuse, reply, text};
use crate::serve::Handler;
use crate::upload::{self, UploadError};
use crate::workers::Workers;

use folder::{Folder, FoundIndex, Temporary};
use name::IndexName;

pub use folder::IndexRootError;

/// Indexes up to this length are answered from memory, longer ones are streamed.
const WHOLE_LEN_MAX: u64 = 1 << 20;
/// An upload is written to its temporary file in pieces of at least this length.
const WRITE_LEN: usize = 1 << 20;
/// Ids asked of the store at once when chunks are required.
const ID_BATCH: usize = 4096;
/// Missing chunks that an answer names.
const MISSING_SHOWN_MAX: usize = 1000;

/// Which names an index root knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IndexNames {
    /// Those that end in `.caibx` or `.caidx`.
    #[default]
    Suffixed,
    /// Any, as desync's index-server has it.
    Any,
}

/// How an index root behaves.
#[derive(Clone, Debug)]
pub struct IndexRootOptions {
    /// Who may read and write.
    pub access: Access,
    /// Which names it knows.
    pub names: IndexNames,
    /// Most bytes of an index that is put.
    pub len_max: usize,
    /// An index is only taken when this store holds all its chunks.
    pub required_in: Option<Arc<dyn ChunkStore>>,
    /// Whoever keeps chunks because indexes name them; it says whether an index is taken.
    pub keeper: Option<Arc<dyn IndexKeeper>>,
    /// Whether those who may write may also take indexes away.
    pub deletes: bool,
    /// The root of the chunks that the indexes name: with it a `POST` is answered by the index and the chunks that its reader lacks.
    pub chunks: Option<Arc<ChunkRoot>>,
}

/// Keeps chunks because indexes of a root name them. Calls may block.
pub trait IndexKeeper: Send + Sync + fmt::Debug {
    /// Takes an index: from then on its chunks stay.
    ///
    /// - `name`: the index's, bytes without meaning.
    /// - `publish`: gives the index its name, durably, and says whether it did. Called once if at all, when the chunks are safe.
    fn put(&self, name: &[u8], index: &ChunkIndex, publish: &mut dyn FnMut() -> bool) -> Result<(), KeepError>;

    /// Takes an index away.
    ///
    /// - `remove`: takes the name away, durably, and says whether it did. Called once if at all.
    fn remove(&self, name: &[u8], remove: &mut dyn FnMut() -> bool) -> Result<(), KeepError>;
}

/// Why an index was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// These chunks of it are not in the store, or are about to go: they have to be sent first.
    #[error("{} of its chunks are not in the store", ids.len())]
    Missing {
        /// Which, each once.
        ids: Vec<ChunkId>,
    },
    /// It is not known.
    #[error("{0}")]
    Failed(String),
}

impl Default for IndexRootOptions {
    fn default() -> Self {
        Self {
            access: Access::default(),
            names: IndexNames::default(),
            len_max: 1 << 30,
            required_in: None,
            keeper: None,
            deletes: false,
            chunks: None,
        }
    }
}

/// A folder of indexes as an HTTP service.
#[derive(Debug)]
pub struct IndexRoot {
    folder: Arc<Folder>,
    options: IndexRootOptions,
    workers: Workers,
}

/// Why an index that came in whole was not taken.
enum PutError {
    NotAnIndex(IndexError),
    MissingChunk(ChunkId),
    MissingChunks(Vec<ChunkId>),
    BadName(&'static str),
    Failed(String),
}

impl IndexRoot {
    /// A root on the folder `dir`, which must exist. Left-over temporary files of the last day are kept, older ones go.
    pub fn new(dir: &Path, options: IndexRootOptions, workers: Workers) -> Result<Self, IndexRootError> {
        Ok(Self {
            folder: Arc::new(Folder::open(dir)?),
            options,
            workers,
        })
    }

    /// Answers a request.
    ///
    /// - `path_at`: where in the URL's path the root's own part begins, at a `/`.
    pub async fn answer(&self, request: Request<Incoming>, path_at: usize) -> Response<Body> {
        let chunks = self
            .options
            .chunks
            .as_ref()
            .filter(|_| *request.method() == Method::POST);
        let access = &self.options.access;
        let allowed = if *request.method() == Method::DELETE && self.options.deletes {
            access.write.check(request.method(), request.headers())
        } else if chunks.is_some() {
            access.read.check(request.method(), request.headers())
        } else {
            access.check(&request)
        };
        if let Err(response) = allowed {
            return response;
        }
        let path = request.uri().path().get(path_at..).unwrap_or_default();
        let name = match IndexName::parse(path, self.options.names) {
            Ok(name) => name,
            Err(rule) => {
                return refuse(
                    request.method(),
                    StatusCode::BAD_REQUEST,
                    format!("not an index's path: {rule}"),
                );
            }
        };
        match *request.method() {
            Method::GET | Method::HEAD => self.get(&request, name).await,
            Method::POST => match chunks {
                Some(chunks) => self.cut(request, name, chunks).await,
                // `check` has refused it.
                None => failed(&name.to_string(), "a POST came where none is taken"),
            },
            _ if self.options.access.is_read_only() => refuse(
                request.method(),
                StatusCode::BAD_REQUEST,
                "this index root is read-only",
            ),
            Method::DELETE => self.delete(name).await,
            _ => self.put(request, name).await,
        }
    }

    async fn get(&self, request: &Request<Incoming>, name: IndexName) -> Response<Body> {
        let folder = Arc::clone(&self.folder);
        let shown = name.to_string();
        let found = self.workers.run(move || folder.find(&name)).await;
        let index = match found {
            Ok(Ok(Some(index))) => index,
            Ok(Ok(None)) => return text(StatusCode::NOT_FOUND, format!("index {shown} is not here")),
            Ok(Err(error)) => return failed(&shown, &error.to_string()),
            Err(error) => return failed(&shown, &error.to_string()),
        };
        let headers = request.headers();
        let response = if conditions::is_held(headers, &index.tag) {
            reply(StatusCode::NOT_MODIFIED, Body::empty())
        } else if request.method() == Method::HEAD {
            let mut response = reply(StatusCode::OK, Body::empty());
            response.headers_mut().insert(CONTENT_LENGTH, index.len.into());
            response
        } else {
            match self.stretch(headers, &index).await {
                Ok(response) => response,
                Err(error) => return failed(&shown, &error),
            }
        };
        with_headers(response, &index.tag)
    }

    /// The index, and those of its chunks that its reader lacks.
    async fn cut(&self, request: Request<Incoming>, name: IndexName, chunks: &ChunkRoot) -> Response<Body> {
        let folder = Arc::clone(&self.folder);
        let shown = name.to_string();
        let read = self.workers.run(move || {
            let Some(index) = folder.find(&name).map_err(|error| error.to_string())? else {
                return Ok(None);
            };
            let len = usize::try_from(index.len).unwrap_or(usize::MAX);
            if len > PULL_INDEX_LEN_MAX {
                return Ok(Some((index.tag, None)));
            }
            let mut bytes = vec![0; len];
            let read = index.file.read_exact_at(&mut bytes, 0);
            read.map_err(|error| error.to_string())?;
            Ok::<_, String>(Some((index.tag, Some(Bytes::from(bytes)))))
        });
        match read.await {
            Ok(Ok(Some((tag, Some(bytes))))) => {
                let mut response = chunks.answer_index(request, bytes).await;
                if response.status().is_success() {
                    insert_tag(&mut response, &tag);
                }
                response
            }
            Ok(Ok(Some((_, None)))) => refuse(
                request.method(),
                StatusCode::PAYLOAD_TOO_LARGE,
                "the index is longer than 16 MiB: get it, and ask for its chunks",
            ),
            Ok(Ok(None)) => refuse(
                request.method(),
                StatusCode::NOT_FOUND,
                format!("index {shown} is not here"),
            ),
            Ok(Err(error)) => failed(&shown, &error),
            Err(error) => failed(&shown, &error.to_string()),
        }
    }

    /// 200, 206 or 416 with the bytes asked for.
    async fn stretch(&self, headers: &HeaderMap, index: &FoundIndex) -> Result<Response<Body>, String> {
        let (status, range) = match conditions::part(headers, &index.tag, index.len) {
            Part::Whole => (StatusCode::OK, 0..index.len),
            Part::Range(range) => (StatusCode::PARTIAL_CONTENT, range),
            Part::Outside => {
                let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, "the range lies outside the index");
                insert_content_range(&mut response, &format!("bytes */{}", index.len));
                return Ok(response);
            }
        };
        let body = if range.end - range.start > WHOLE_LEN_MAX {
            Body::file(Arc::clone(&index.file), range.clone())
        } else {
            let (file, range) = (Arc::clone(&index.file), range.clone());
            let read = self.workers.run(move || {
                // At most WHOLE_LEN_MAX, see above.
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(&mut bytes, range.start).map(|()| bytes)
            });
            let bytes = read.await.map_err(|error| error.to_string())?;
            Body::from(bytes.map_err(|error| error.to_string())?)
        };
        let mut response = reply(status, body);
        if status == StatusCode::PARTIAL_CONTENT {
            let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, index.len);
            insert_content_range(&mut response, &shown);
        }
        Ok(response)
    }

    async fn put(&self, request: Request<Incoming>, name: IndexName) -> Response<Body> {
        let shown = name.to_string();
        let (head, body) = request.into_parts();
        let temporary = match self.receive(&head.headers, body).await {
            Ok(temporary) => temporary,
            Err(ReceiveError::Upload(error)) => return error.reply(),
            Err(ReceiveError::Failed(error)) => return failed(&shown, &error),
        };
        let (required_in, keeper) = (self.options.required_in.clone(), self.options.keeper.clone());
        let stored = self.workers.run(move || {
            let failed = |error: std::io::Error| PutError::Failed(error.to_string());
            let bytes = temporary.map().map_err(failed)?;
            let index = ChunkIndex::parse(bytes.clone()).map_err(PutError::NotAnIndex)?;
            if let Some(store) = required_in {
                require_chunks(&index, &*store)?;
            }
            let tag = folder::tag_of(&bytes);
            let Some(keeper) = keeper else {
                temporary.publish(&name)?;
                return Ok(tag);
            };
            let mut temporary = Some(temporary);
            let mut published = Ok(());
            let kept = keeper.put(name.as_bytes(), &index, &mut || {
                published = temporary.take().map_or(Ok(()), |temporary| temporary.publish(&name));
                published.is_ok()
            });
            published?;
            kept?;
            Ok(tag)
        });
        match stored.await {
            Ok(Ok(tag)) => {
                let mut response = reply(StatusCode::OK, Body::empty());
                insert_tag(&mut response, &tag);
                response
            }
            Ok(Err(PutError::NotAnIndex(error))) => text(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string()),
            Ok(Err(PutError::MissingChunk(id))) => text(
                StatusCode::CONFLICT,
                format!("the index names chunk {id}, which the store does not hold; put the chunks first"),
            ),
            Ok(Err(PutError::MissingChunks(ids))) => text(StatusCode::CONFLICT, missing_words(&ids)),
            Ok(Err(PutError::BadName(rule))) => text(StatusCode::BAD_REQUEST, format!("index {shown}: {rule}")),
            Ok(Err(PutError::Failed(error))) => failed(&shown, &error),
            Err(error) => failed(&shown, &error.to_string()),
        }
    }

    async fn delete(&self, name: IndexName) -> Response<Body> {
        let shown = name.to_string();
        let (folder, keeper) = (Arc::clone(&self.folder), self.options.keeper.clone());
        let removed = self.workers.run(move || {
            let Some(keeper) = keeper else {
                return folder.remove(&name);
            };
            let mut removed = Ok(false);
            let kept = keeper.remove(name.as_bytes(), &mut || {
                removed = folder.remove(&name);
                removed.is_ok()
            });
            let removed = removed?;
            kept?;
            Ok(removed)
        });
        match removed.await {
            Ok(Ok(true)) => reply(StatusCode::OK, Body::empty()),
            Ok(Ok(false)) => text(StatusCode::NOT_FOUND, format!("index {shown} is not here")),
            Ok(Err(PutError::BadName(rule))) => text(StatusCode::BAD_REQUEST, format!("index {shown}: {rule}")),
            Ok(Err(PutError::Failed(error))) => failed(&shown, &error),
            Ok(Err(_)) => failed(&shown, "it was not taken away"),
            Err(error) => failed(&shown, &error.to_string()),
        }
    }

    /// Writes a body to a temporary file. What is in memory at once is bounded, whatever the length of the index.
    async fn receive(&self, headers: &HeaderMap, mut body: Incoming) -> Result<Temporary, ReceiveError> {
        upload::announced(headers, self.options.len_max)?;
        let _memory = self.workers.body_memory(2 * WRITE_LEN).await;
        let mut temporary = None;
        let (mut pieces, mut held, mut len): (Vec<Bytes>, usize, usize) = (Vec::new(), 0, 0);
        loop {
            let piece = upload::next_piece(&mut body).await?;
            let ended = piece.is_none();
            if let Some(piece) = piece {
                len += piece.len();
                held += piece.len();
                if len > self.options.len_max {
                    return Err(ReceiveError::Upload(UploadError::TooLarge {
                        len_max: self.options.len_max,
                    }));
                }
                pieces.push(piece);
            }
            if held < WRITE_LEN && !ended {
                continue;
            }
            held = 0;
            let (written, batch) = (temporary.take(), std::mem::take(&mut pieces));
            let folder = Arc::clone(&self.folder);
            let written = self.workers.run(move || {
                let mut temporary = match written {
                    Some(temporary) => temporary,
                    None => Temporary::create(folder)?,
                };
                temporary.append(&batch)?;
                Ok::<_, std::io::Error>(temporary)
            });
            let written = written
                .await
                .map_err(|error| ReceiveError::Failed(error.to_string()))?
                .map_err(|error| ReceiveError::Failed(error.to_string()))?;
            if ended {
                return Ok(written);
            }
            temporary = Some(written);
        }
    }
}

enum ReceiveError {
    Upload(UploadError),
    Failed(String),
}

impl From<UploadError> for ReceiveError {
    fn from(error: UploadError) -> Self {
        Self::Upload(error)
    }
}

impl Handler for IndexRoot {
    /// The root as desync's index-server has it: names begin at the URL's root.
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        self.answer(request, 0).await
    }
}

impl From<KeepError> for PutError {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Missing { ids } => Self::MissingChunks(ids),
            KeepError::Failed(error) => Self::Failed(error),
        }
    }
}

/// What is told of chunks that an index names and that are not there. Names the first of them, for programs as well as for people:
/// one a line.
pub fn missing_words(ids: &[ChunkId]) -> String {
    let mut words = format!(
        "the index names {} chunks that the store does not hold; put the chunks first, then the index again:\n",
        ids.len()
    );
    for id in ids.iter().take(MISSING_SHOWN_MAX) {
        words += &format!("{id}\n");
    }
    words
}

fn require_chunks(index: &ChunkIndex, store: &dyn ChunkStore) -> Result<(), PutError> {
    let mut spans = index.spans();
    loop {
        let ids: Vec<ChunkId> = spans.by_ref().take(ID_BATCH).map(|span| span.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let there = store
            .has_many(&ids)
            .map_err(|error| PutError::Failed(error.to_string()))?;
        if let Some(at) = there.iter().position(|there| !there) {
            return Err(PutError::MissingChunk(ids[at]));
        }
    }
}

fn with_headers(mut response: Response<Body>, tag: &str) -> Response<Body> {
    if response.status().is_client_error() {
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    insert_tag(&mut response, tag);
    response
}

fn insert_tag(response: &mut Response<Body>, tag: &str) {
    let tag = HeaderValue::from_str(tag).expect("hex digits in quotes are a header value");
    response.headers_mut().insert(ETAG, tag);
}

fn insert_content_range(response: &mut Response<Body>, range: &str) {
    let range = HeaderValue::from_str(range).expect("digits are a header value");
    response.headers_mut().insert(CONTENT_RANGE, range);
}

/// The client learns no more than this; the log has the reason.
fn failed(name: &str, error: &str) -> Response<Body> {
    tracing::error!(index = name, error, "the index root failed");
    text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error")
}
