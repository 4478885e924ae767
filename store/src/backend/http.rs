//! Chunks behind any web server that has `<base>/<first 4 hex digits>/<64 hex digits>[.cacnk]`.
//!
//! Speaks to plain web servers, desync's chunk-server, `cairnd` and object stores' public faces: GET, HEAD and PUT. Chunks
//! are found in either form without configuration: the preferred form is asked for first, the other when that is definitely
//! not there, and the form that the server answers becomes the preferred one. A desync chunk-server answers 400 to the form
//! that it does not serve; that form is then not asked for again. Servers that say so are asked for many chunks at once (`pull`).
//!
//! Blocking outside; inside, requests run on one thread of the store's own, `concurrency` at a time over all callers.
//! An upload that the server acknowledged is the server's to keep, and may replace an equal chunk.
//! Not here: verifying what is read (the reader's), deleting, listing (plain web servers have neither).

pub(crate) mod client;
pub(crate) mod connect;
mod options;
mod pull;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cairn_formats::{CHUNK_LEN_MAX, ChunkForm, ChunkId, EncodedChunk, Level, StorableChunk};
use cairn_formats::{compress_frame, decompress_frame};
use url::Url;

pub(crate) use client::{Answer, Ask, HttpClient, HttpFault};
pub use options::{Authorization, Cookie, HttpOptions, Proxy};
pub use pull::PullOffers;

use super::remote::lost;
use super::remote::workers::Workers;
use crate::location::HttpLocation;
use crate::{ChunkStat, ChunkStore, Error, Result, Sealing, StoreName};

/// Longest compressed chunk taken from a server. Compressors lengthen what they cannot compress by less than a 128th.
const COMPRESSED_LEN_MAX: usize = CHUNK_LEN_MAX + CHUNK_LEN_MAX / 128 + 1024;

/// A chunk store behind HTTP.
pub struct HttpStore {
    shared: Arc<Shared>,
    workers: Workers,
}

struct Shared {
    name: StoreName,
    client: HttpClient,
    /// The base with a `/` at the end of its path.
    base: Url,
    /// Form in which new chunks are written.
    form: ChunkForm,
    sealing: Sealing,
    forms: FormMemory,
}

/// What the server has taught us about the forms that it serves.
struct FormMemory {
    /// Ask for the plain form first.
    plain_first: AtomicBool,
    /// The server refused the compressed (plain) form while it answered for the other.
    not_served: [AtomicBool; 2],
}

/// What a server said about one chunk.
enum Found {
    Missing,
    Here {
        form: ChunkForm,
        body: Bytes,
        len: Option<u64>,
    },
}

impl HttpStore {
    /// Prepares a client; the server is not asked for anything yet.
    ///
    /// - `form`: the form in which chunks are written, and asked for first.
    /// - Errors: [`Error::Refused`] when a certificate, key or proxy cannot be used.
    pub fn open(location: &HttpLocation, form: ChunkForm, options: HttpOptions) -> Result<Self> {
        Self::open_sealed(location, form, options, Sealing::default())
    }

    /// [`HttpStore::open`] of a store whose chunks are encrypted.
    pub fn open_sealed(
        location: &HttpLocation,
        form: ChunkForm,
        options: HttpOptions,
        sealing: Sealing,
    ) -> Result<Self> {
        let name = StoreName::new(location.to_string());
        let concurrency = options.concurrency;
        let client = HttpClient::new(location, options).map_err(|fault| failed(&name, "open", fault))?;
        let mut base = client.base().clone();
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                base,
                form,
                sealing,
                forms: FormMemory {
                    plain_first: AtomicBool::new(form == ChunkForm::Plain),
                    not_served: [AtomicBool::new(false), AtomicBool::new(false)],
                },
                name: name.clone(),
            }),
            workers: Workers::start(concurrency).map_err(|source| Error::Unavailable {
                store: name,
                action: "start its network thread",
                source: source.into(),
            })?,
        })
    }

    /// [`Workers::run_many`] of jobs that share the client.
    fn run_many<T, F>(
        &self,
        count: usize,
        job: impl Fn(Arc<Shared>, usize) -> F + Clone + Send + 'static,
        goes_on: impl FnMut(usize, T) -> bool,
    ) where
        T: Send + 'static,
        F: Future<Output = T> + Send,
    {
        let shared = self.shared.clone();
        self.workers
            .run_many(count, move |index| job(shared.clone(), index), goes_on);
    }
}

/// Answers to a call for many chunks as they come; `None`: not asked for yet.
type Chunks = Vec<Option<Result<EncodedChunk>>>;

impl HttpStore {
    /// Asks for each chunk that was not asked for.
    ///
    /// - `may_stop`: once the server says that it answers many in one request, what is left is left.
    fn get_each(&self, ids: &[ChunkId], chunks: &mut Chunks, may_stop: bool) {
        let open = open(chunks);
        let all = open.len();
        let mut left = all;
        let wanted: Arc<[ChunkId]> = open.iter().map(|&at| ids[at]).collect();
        self.run_many(
            all,
            move |shared, index| {
                let id = wanted[index];
                async move {
                    // Looked at here too: whoever takes the answers may be slower than they come.
                    if may_stop && shared.pulls(all).is_some() {
                        return None;
                    }
                    Some(shared.find(id, None, "read a chunk", ask_get).await)
                }
            },
            |index, found| {
                if let Some(found) = found {
                    let at = open[index];
                    chunks[at] = Some(self.shared.read(ids[at], found));
                    left -= 1;
                }
                !(may_stop && self.shared.pulls(left).is_some())
            },
        );
    }

    /// Asks for what was not asked for, many chunks in each request, where the server answers such requests.
    fn pull(&self, ids: &[ChunkId], chunks: &mut Chunks) {
        let open = open(chunks);
        let Some(most) = self.shared.pulls(open.len()) else {
            return;
        };
        let requests: Arc<[Vec<ChunkId>]> = open
            .chunks(most)
            .map(|some| some.iter().map(|&at| ids[at]).collect())
            .collect();
        self.run_many(
            requests.len(),
            move |shared, index| {
                let requests = requests.clone();
                async move { shared.pull(&requests[index]).await }
            },
            |index, answers: Chunks| {
                for (&at, answer) in open[index * most..].iter().zip(answers) {
                    chunks[at] = answer;
                }
                true
            },
        );
    }
}

impl ChunkStore for HttpStore {
    fn name(&self) -> &StoreName {
        &self.shared.name
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        // An answer that never came is not "no".
        let mut has: Vec<Option<bool>> = vec![None; ids.len()];
        let mut outcome = Ok(());
        let wanted: Arc<[ChunkId]> = ids.into();
        self.run_many(
            ids.len(),
            move |shared, index| {
                let id = wanted[index];
                async move { shared.find(id, None, "look for a chunk", |_| Ask::Head).await }
            },
            |index, found: Result<Found>| match found {
                Ok(found) => {
                    has[index] = Some(matches!(found, Found::Here { .. }));
                    true
                }
                Err(error) => {
                    keep_first(&mut outcome, error);
                    false
                }
            },
        );
        outcome?;
        has.into_iter()
            .map(|has| has.ok_or_else(|| self.shared.lost("look for a chunk")))
            .collect()
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let mut chunks: Chunks = ids.iter().map(|_| None).collect();
        if self.shared.pulls(ids.len()).is_none() {
            self.get_each(ids, &mut chunks, true);
        }
        self.pull(ids, &mut chunks);
        self.get_each(ids, &mut chunks, false);
        chunks
            .into_iter()
            .map(|chunk| chunk.unwrap_or_else(|| Err(self.shared.lost("read a chunk"))))
            .collect()
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        let mut stored = 0;
        let mut outcome = Ok(());
        let bodies: Arc<[StorableChunk]> = chunks.into();
        self.run_many(
            chunks.len(),
            move |shared, index| {
                let chunk = bodies[index].clone();
                async move { shared.put(&chunk).await }
            },
            |_, result| match result {
                Ok(()) => {
                    stored += 1;
                    true
                }
                Err(error) => {
                    keep_first(&mut outcome, error);
                    false
                }
            },
        );
        outcome?;
        if stored < chunks.len() {
            return Err(self.shared.lost("store a chunk"));
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        // Every put has waited for its answers.
        Ok(())
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        let mut answer = Err(self.shared.lost("look for a chunk"));
        self.run_many(
            1,
            move |shared, _| async move { shared.find(id, Some(form), "look for a chunk", |_| Ask::Head).await },
            |_, found| {
                answer = found;
                true
            },
        );
        Ok(match answer? {
            Found::Missing => None,
            Found::Here { form, len, .. } => Some(ChunkStat {
                stored: len.map(|len| (form, self.shared.sealing.opened_len(len))),
            }),
        })
    }

    fn get_resident(&self, _id: ChunkId, _form: ChunkForm) -> Option<EncodedChunk> {
        None
    }

    fn is_far(&self) -> bool {
        true
    }
}

impl Shared {
    /// Looks for a chunk in one form, then in the other. Missing only if every form that the server serves is.
    async fn find(
        &self,
        id: ChunkId,
        first: Option<ChunkForm>,
        action: &'static str,
        ask: fn(ChunkForm) -> Ask,
    ) -> Result<Found> {
        let first = first.unwrap_or_else(|| self.forms.first());
        let second = other(first);
        let mut refused = None;
        let mut missing = None;
        for form in [first, second] {
            if form == second && missing.is_some() && self.forms.is_not_served(second) {
                break;
            }
            let answer = self.client.ask(&self.url(id, form), &ask(form)).await;
            match answer.map_err(|fault| failed(&self.name, action, fault))? {
                Answer::Done { body, len } => {
                    self.forms.answered(form, refused.is_some());
                    return Ok(Found::Here { form, body, len });
                }
                Answer::Missing => missing = Some(form),
                Answer::BadRequest(fault) => refused = Some(fault),
            }
        }
        match (missing, refused) {
            (None, Some(fault)) => Err(failed(&self.name, action, fault)),
            (Some(form), Some(_)) => {
                self.forms.answered(form, true);
                Ok(Found::Missing)
            }
            (_, None) => Ok(Found::Missing),
        }
    }

    fn read(&self, id: ChunkId, found: Result<Found>) -> Result<EncodedChunk> {
        match found? {
            Found::Here { form, body, .. } => self.sealing.open(&self.name, EncodedChunk { id, form, bytes: body }),
            Found::Missing => Err(Error::Missing {
                id,
                store: self.name.clone(),
            }),
        }
    }

    async fn put(&self, chunk: &StorableChunk) -> Result<()> {
        let action = "store a chunk";
        let form = match self.forms.is_not_served(self.form) {
            true => other(self.form),
            false => self.form,
        };
        let body = in_form(chunk, form).map_err(|source| Error::Corrupt {
            store: self.name.clone(),
            source,
        })?;
        let ask = Ask::Put {
            body: self.sealing.seal(&self.name, &body)?,
            content_type: content_type(form),
        };
        match self.client.ask(&self.url(chunk.id(), form), &ask).await {
            Ok(Answer::Done { .. }) => Ok(()),
            Ok(Answer::BadRequest(fault)) | Err(fault) => Err(failed(&self.name, action, fault)),
            // Not an answer to PUT.
            Ok(Answer::Missing) => Err(self.lost(action)),
        }
    }

    fn url(&self, id: ChunkId, form: ChunkForm) -> Url {
        let hex = id.to_string();
        let ending = match form {
            ChunkForm::Compressed => ".cacnk",
            ChunkForm::Plain => "",
        };
        let mut url = self.base.clone();
        url.set_path(&format!(
            "{}{}/{hex}{ending}{}",
            self.base.path(),
            &hex[..4],
            self.sealing.suffix()
        ));
        url
    }

    fn lost(&self, action: &'static str) -> Error {
        lost(&self.name, action)
    }
}

impl FormMemory {
    fn first(&self) -> ChunkForm {
        match self.plain_first.load(Ordering::Relaxed) {
            true => ChunkForm::Plain,
            false => ChunkForm::Compressed,
        }
    }

    fn is_not_served(&self, form: ChunkForm) -> bool {
        self.not_served[form as usize].load(Ordering::Relaxed)
    }

    /// The server answered for `form`; `alone`: and refused the other one.
    fn answered(&self, form: ChunkForm, alone: bool) {
        self.plain_first.store(form == ChunkForm::Plain, Ordering::Relaxed);
        self.not_served[form as usize].store(false, Ordering::Relaxed);
        if alone {
            self.not_served[other(form) as usize].store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for HttpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpStore")
            .field("name", &self.shared.name)
            .field("concurrency", &self.workers.concurrency())
            .finish_non_exhaustive()
    }
}

/// The store's error for a request that failed.
pub(crate) fn failed(store: &StoreName, action: &'static str, fault: HttpFault) -> Error {
    let store = store.clone();
    match fault {
        HttpFault::Status { status, .. }
            if status == reqwest::StatusCode::METHOD_NOT_ALLOWED && action.starts_with("store") =>
        {
            Error::ReadOnly { store }
        }
        fault if fault.is_refusal() => Error::Refused {
            store,
            action,
            source: fault.into(),
        },
        fault => Error::Unavailable {
            store,
            action,
            source: fault.into(),
        },
    }
}

/// Places of chunks that were not asked for.
fn open(chunks: &Chunks) -> Vec<usize> {
    (0..chunks.len()).filter(|&at| chunks[at].is_none()).collect()
}

fn ask_get(form: ChunkForm) -> Ask {
    Ask::Get {
        len_max: match form {
            ChunkForm::Compressed => COMPRESSED_LEN_MAX,
            ChunkForm::Plain => CHUNK_LEN_MAX,
        },
        spool: None,
    }
}

fn content_type(form: ChunkForm) -> &'static str {
    match form {
        ChunkForm::Compressed => "application/zstd",
        ChunkForm::Plain => "application/octet-stream",
    }
}

fn other(form: ChunkForm) -> ChunkForm {
    match form {
        ChunkForm::Compressed => ChunkForm::Plain,
        ChunkForm::Plain => ChunkForm::Compressed,
    }
}

/// The bytes of a chunk in the form that the store keeps.
fn in_form(chunk: &StorableChunk, form: ChunkForm) -> std::result::Result<Bytes, cairn_formats::ChunkError> {
    if chunk.form() == form {
        return Ok(chunk.bytes().clone());
    }
    match form {
        ChunkForm::Compressed => Ok(compress_frame(chunk.bytes(), Level::DEFAULT).into()),
        ChunkForm::Plain => decompress_frame(chunk.bytes(), chunk.plain_len())
            .map(Bytes::from)
            .map_err(|source| cairn_formats::ChunkError::Frame { id: chunk.id(), source }),
    }
}

fn keep_first(outcome: &mut Result<()>, error: Error) {
    if outcome.is_ok() {
        *outcome = Err(error);
    }
}
