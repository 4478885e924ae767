//! The work behind the verbs: cutting, storing, rebuilding and checking blobs.
//!
//! Threads and bounded channels, no async; knows nothing of arguments, terminals or JSON. A caller hands in stores and options,
//! watches a [`Progress`] and gets a report or an [`Error`].

mod progress;

pub use progress::{Cancelled, Progress};
