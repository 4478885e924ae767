//! What the backends behind a network have in common: a thread for their connections, bounded parallelism, tries with
//! back-off, bodies of bounded length; and, for those that hold named files (buckets, SFTP), casync's layout over them (`store.rs`) or
//! packs (`packs/`).
//!
//! HTTP uses the first part alone: it has no listing, and its servers have habits of their own with the two forms.

pub(crate) mod body;
pub(crate) mod file;
pub(crate) mod packs;
pub(crate) mod patience;
pub(crate) mod store;
pub(crate) mod workers;

use std::time::Duration;

use bytes::Bytes;

use crate::{BoxError, Error, StoreName};
use body::Spool;
use patience::{Failure, GivenUp, Next};

/// What one try of one operation came to.
pub(crate) type Try<T> = Result<T, Failure<Fault>>;

/// Named files behind a network. Every operation is one try, within the backend's own time limits, and idempotent.
///
/// Names are relative to the store's place and use `/`. "Missing" (`None`) is only ever a definite answer.
pub(crate) trait Files: Send + Sync + 'static {
    /// How many names [`Files::remove`] takes at once, at least 1.
    fn removed_together(&self) -> usize;

    /// The bytes of a file, `len_max` at most.
    fn read(
        &self,
        name: &str,
        len_max: usize,
        spool: Option<&Spool>,
    ) -> impl Future<Output = Try<Option<Bytes>>> + Send;

    /// Its length in bytes.
    fn len(&self, name: &str) -> impl Future<Output = Try<Option<u64>>> + Send;

    /// Puts a file in place of what is there: seen whole or not at all.
    fn write(&self, name: &str, body: Bytes, content_type: &'static str) -> impl Future<Output = Try<()>> + Send;

    /// Deletes files; those that are not there are passed over.
    fn remove(&self, names: Vec<String>) -> impl Future<Output = Try<()>> + Send;

    /// Parts of the store that can be listed beside each other.
    fn parts(&self) -> impl Future<Output = Try<Vec<String>>> + Send;

    /// Files in a part, in order and behind `after`: some of them, or all.
    fn list(&self, part: &str, after: Option<&str>) -> impl Future<Output = Try<Page>> + Send;

    /// Deletes temporary files of a part that nobody has touched for `age`. Returns how many there were.
    fn remove_stale(&self, _part: &str, _age: Duration) -> impl Future<Output = Try<u64>> + Send {
        async { Ok(0) }
    }
}

/// Some files of a store.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Names from the store's place on, and lengths in bytes, in order.
    pub(crate) files: Vec<(String, u64)>,
    /// Where to go on, if there are more.
    pub(crate) more_after: Option<String>,
}

/// Why an operation failed: what the caller has to know to choose a variant of [`Error`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The far end, or our asking, must change before it can work.
    #[error("{0}")]
    Refused(BoxError),
    /// Another try may help, now or later.
    #[error("{0}")]
    Unavailable(BoxError),
    /// Somebody interrupted the work.
    #[error("given up: interrupted")]
    Cancelled,
}

impl Fault {
    /// Not worth another try, because it is refused.
    pub(crate) fn refused(source: impl Into<BoxError>) -> Failure<Self> {
        Failure {
            fault: Self::Refused(source.into()),
            next: Next::GiveUp,
        }
    }

    /// Not worth another try, although nobody refused: a full disk.
    pub(crate) fn lasting(source: impl Into<BoxError>) -> Failure<Self> {
        Failure {
            fault: Self::Unavailable(source.into()),
            next: Next::GiveUp,
        }
    }

    /// Worth another try.
    pub(crate) fn passing(source: impl Into<BoxError>) -> Failure<Self> {
        Failure {
            fault: Self::Unavailable(source.into()),
            next: Next::TryAgain {
                not_before: Duration::ZERO,
            },
        }
    }

    /// The store's error.
    pub(crate) fn into_error(self, store: &StoreName, action: &'static str) -> Error {
        let store = store.clone();
        match self {
            Self::Refused(source) => Error::Refused { store, action, source },
            Self::Unavailable(source) => Error::Unavailable { store, action, source },
            Self::Cancelled => Error::Unavailable {
                store,
                action,
                source: self.into(),
            },
        }
    }
}

/// A request that ended without an answer: its task panicked, or the runtime is going away.
pub(crate) fn lost(store: &StoreName, action: &'static str) -> Error {
    Error::Unavailable {
        store: store.clone(),
        action,
        source: "the request was dropped before it was answered".into(),
    }
}

/// A last failure, and how often it was tried.
#[derive(Debug, thiserror::Error)]
#[error("given up after {tries} tries")]
struct AfterTries {
    tries: u32,
    source: BoxError,
}

impl From<GivenUp<Fault>> for Fault {
    fn from(given_up: GivenUp<Self>) -> Self {
        match given_up {
            GivenUp::Cancelled => Self::Cancelled,
            GivenUp::Failed {
                fault: Self::Unavailable(source),
                tries: tries @ 2..,
            } => Self::Unavailable(AfterTries { tries, source }.into()),
            GivenUp::Failed { fault, .. } => fault,
        }
    }
}
