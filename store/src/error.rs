//! What can go wrong with a store; a variant per thing a caller does differently.

use cairn_formats::{ChunkError, ChunkId};

use crate::StoreName;

/// The cause underneath.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not in this store; another may hold it. Retrying does not help.
    #[error("chunk {id} is not in {store}")]
    Missing {
        /// The chunk.
        id: ChunkId,
        /// Where it was looked for.
        store: StoreName,
    },
    /// Nothing is at the place of this index. Retrying does not help.
    #[error("there is no index at {store}")]
    NoIndex {
        /// Where it was looked for.
        store: StoreName,
    },
    /// Stored bytes are not the chunk that their name promises. The caller quarantines it and reads elsewhere.
    #[error("{store} holds a damaged chunk")]
    Corrupt {
        /// Where it lies.
        store: StoreName,
        /// What is wrong, with the id.
        source: ChunkError,
    },
    /// The store does not take writes.
    #[error("{store} is read-only")]
    ReadOnly {
        /// The store.
        store: StoreName,
    },
    /// The backend did not answer or could not. Store operations are idempotent, so a retry is safe.
    #[error("{store} could not {action}")]
    Unavailable {
        /// The store.
        store: StoreName,
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: BoxError,
    },
    /// The backend refused: wrong credentials, no permission, a bad location. A retry does not help.
    #[error("{store} refused to {action}")]
    Refused {
        /// The store.
        store: StoreName,
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: BoxError,
    },
}

/// An error with its causes, each said once.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
