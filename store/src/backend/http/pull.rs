//! Many chunks in one request, of servers that have said that they take such requests (`formats/FORMATS.md`, "Many chunks at once").
//!
//! A server says so in a header of any answer, so that nobody has to be asked; one that then does not keep its word is asked for
//! chunk after chunk from then on. An answer that breaks off is asked for again from where it broke. Not here: chunks one by one
//! (`http`), proving them (the reader's).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cairn_formats::{
    ChunkId, EncodedChunk, PULL_CONTENT_TYPE, PULL_HEADER, PULL_IDS_MAX, PULL_PATH, PullAnswer, PullStep, pull_request,
};
use reqwest::StatusCode;
use reqwest::header::{AGE, CONTENT_TYPE, HeaderMap, VIA};
use url::Url;

use super::client::{Budget, Failure, HttpClient, HttpFault, is_passing, not_done, of_tries};
use super::{Shared, ask_get, failed};
use crate::backend::remote::patience::{GivenUp, Next};
use crate::{Error, Result};

/// Chunks of one request: enough that what it costs is little beside them, so few that several requests share a link and its
/// latency.
pub(super) const REQUEST_IDS: usize = 256;
/// Chunks that are worth a request of their own kind.
pub(super) const WORTH: usize = 2;

/// What servers have said of requests for many chunks, for the clients that share it: an index server says it for the chunk
/// server of the same origin. Clones share.
#[derive(Clone, Debug, Default)]
pub struct PullOffers(Arc<Mutex<HashMap<String, Arc<AtomicUsize>>>>);

impl PullOffers {
    /// What the server of `url` offers.
    pub(super) fn of(&self, url: &Url) -> Offer {
        let origin = url.origin().ascii_serialization();
        let mut offers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Offer {
            ids: Arc::clone(offers.entry(origin).or_default()),
            withdrawn: AtomicBool::new(false),
        }
    }
}

/// What a server lets one client know of requests for many chunks.
#[derive(Debug)]
pub(super) struct Offer {
    /// Ids of a request; 0: nothing was said.
    ids: Arc<AtomicUsize>,
    /// It was not kept towards this client.
    withdrawn: AtomicBool,
}

impl Offer {
    /// Reads the headers of an answer of the server's own. What a cache passes on says nothing: it would have to be passed by.
    pub(super) fn note(&self, headers: &HeaderMap) {
        if headers.contains_key(AGE) || headers.contains_key(VIA) {
            return;
        }
        let ids = headers.get(PULL_HEADER).and_then(|value| value.to_str().ok());
        if let Some(ids) = ids.and_then(|ids| ids.parse::<usize>().ok()) {
            self.ids.store(ids.min(PULL_IDS_MAX), Ordering::Relaxed);
        }
    }

    /// Ids that a request may name; `None` where there are no such requests.
    pub(super) fn ids(&self) -> Option<usize> {
        let ids = self.ids.load(Ordering::Relaxed);
        (ids > 0 && !self.withdrawn.load(Ordering::Relaxed)).then_some(ids)
    }

    fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// All is answered.
    Whole,
    /// The server does not answer the next chunk so.
    GivenUp,
    /// It is no answer, or not to what was asked.
    NotTaken,
}

impl HttpClient {
    /// One try. Steps that came before it failed hold.
    async fn pull_once(
        &self,
        url: &Url,
        ids: &[ChunkId],
        take: &(dyn Fn(PullStep) + Sync),
    ) -> std::result::Result<Ended, Failure> {
        let mut budget = Budget::of(&self.options);
        let request = self
            .client_for(url)
            .map_err(Failure::final_)?
            .post(url.clone())
            .header(CONTENT_TYPE, PULL_CONTENT_TYPE)
            .body(pull_request(ids));
        let request = self.with_credentials(request, url).map_err(Failure::final_)?;
        let mut response = budget.wait(Some(budget.idle), request.send()).await?;
        let status = response.status();
        let is_ours = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value == PULL_CONTENT_TYPE);
        if status != StatusCode::OK || !is_ours {
            let not_known = matches!(
                status,
                StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED
            );
            if not_known || !is_passing(status) {
                return Ok(Ended::NotTaken);
            }
            return Err(not_done(response, &mut budget).await);
        }
        // The time for a whole request is meant for one chunk; this may take as long as it keeps coming.
        budget.left = None;
        budget.idle = self.options.idle_timeout;
        let mut answer = PullAnswer::new(ids.to_vec());
        let mut ended = None;
        while let Some(piece) = budget.wait(Some(budget.idle), response.chunk()).await? {
            self.pause_for(piece.len()).await;
            answer.push(piece);
            loop {
                match answer.next() {
                    Ok(Some(PullStep::End)) => ended = Some(Ended::Whole),
                    Ok(Some(PullStep::GivenUp { .. })) => ended = Some(Ended::GivenUp),
                    Ok(Some(step)) => take(step),
                    Ok(None) => break,
                    Err(_) => return Ok(Ended::NotTaken),
                }
            }
        }
        ended.ok_or_else(|| Failure {
            fault: HttpFault::Transport {
                tries: 1,
                source: "the answer ended early".into(),
            },
            next: Next::TryAgain {
                not_before: Duration::ZERO,
            },
        })
    }
}

impl Shared {
    /// Whether so many chunks are asked for together, and how many in one request.
    pub(super) fn pulls(&self, chunks: usize) -> Option<usize> {
        if chunks < WORTH || self.sealing.is_on() {
            return None;
        }
        self.client.offer.ids().map(|ids| ids.min(REQUEST_IDS))
    }

    /// Asks for chunks in one request, in more where an answer breaks off. `None`: to be asked for alone.
    pub(super) async fn pull(&self, ids: &[ChunkId]) -> Vec<Option<Result<EncodedChunk>>> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", self.base.path().trim_end_matches('/'), PULL_PATH));
        let mut answers: Vec<Option<Result<EncodedChunk>>> = Vec::with_capacity(ids.len());
        while answers.len() < ids.len() {
            let first = answers.len();
            let taken: Mutex<Vec<PullStep>> = Mutex::default();
            let lock = || taken.lock().unwrap_or_else(PoisonError::into_inner);
            let take = |step| lock().push(step);
            let patience = self.client.options.patience();
            let outcome = patience
                .insist(|| {
                    let rest = &ids[first + lock().len()..];
                    self.client.pull_once(&url, rest, &take)
                })
                .await;
            let taken = std::mem::take(&mut *lock());
            let has_moved = !taken.is_empty();
            answers.extend(taken.into_iter().map(|step| Some(self.pulled(step))));
            match outcome {
                Ok(Ended::Whole) => {}
                Ok(Ended::GivenUp) => {
                    if let Some(&id) = ids.get(answers.len()) {
                        let found = self.find(id, None, "read a chunk", ask_get).await;
                        answers.push(Some(self.read(id, found)));
                    }
                }
                Ok(Ended::NotTaken) => {
                    self.client.offer.withdraw();
                    break;
                }
                Err(GivenUp::Failed { .. }) if has_moved => {}
                Err(given_up) => {
                    // Those behind it would fail as well, each after as many tries.
                    let fault = of_tries(given_up);
                    answers.push(Some(Err(failed(&self.name, "read chunks", fault))));
                    let rest = ids.len().saturating_sub(answers.len());
                    answers.extend((0..rest).map(|_| Some(Err(self.lost("read chunks")))));
                }
            }
        }
        answers.resize_with(ids.len(), || None);
        answers
    }

    fn pulled(&self, step: PullStep) -> Result<EncodedChunk> {
        match step {
            PullStep::Chunk(chunk) => Ok(chunk),
            PullStep::Missing(id) => Err(Error::Missing {
                id,
                store: self.name.clone(),
            }),
            // Handled where they are read.
            PullStep::GivenUp { .. } | PullStep::End => Err(self.lost("read chunks")),
        }
    }
}
