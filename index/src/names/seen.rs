//! Blobs of which somebody was told today that they are there: for these no row is read again on the same day.
//!
//! Whoever takes blobs of a tenant away writes a row in the same commit, and what was found before that row's version counts no more: that
//! is one row to be read for a question about thousands. Not here: that a blob is not there, which changes at any time.

use std::fmt;
use std::hash::{Hash, Hasher};

use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

use super::{BlobDigest, BlobKey, BucketId};
use crate::kv::Version;

/// Blobs that are remembered: about 32 MiB.
const SEEN_MAX: u64 = 1 << 18;

/// Blobs that there is room for at first.
const SEEN_AT_FIRST: usize = 4096;

/// What is remembered.
pub(super) struct Seen(Cache<Place, Moment>);

/// When a question was asked: taken before any blob's row is read for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Rows were used that day.
    pub(super) day: u32,
    /// Of the last removal of blobs; `None`: there was none.
    pub(super) removed: Option<Version>,
}

/// Whose blob it is.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    bucket: BucketId,
    digest: BlobDigest,
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, to: &mut H) {
        // Of a digest some bytes are as good as all.
        let mut start = [0; 8];
        start.copy_from_slice(&self.digest.hash()[..8]);
        to.write_u64(u64::from_be_bytes(start));
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").field("blobs", &self.0.len()).finish()
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self(Cache::with_weighter(SEEN_AT_FIRST, SEEN_MAX, UnitWeighter))
    }
}

impl Seen {
    /// Whether it was there on this day, and nothing was taken away since.
    pub(super) fn has(&self, bucket: BucketId, blob: &BlobKey, now: Moment) -> bool {
        place(bucket, blob).is_some_and(|place| self.0.get(&place) == Some(now))
    }

    /// Remembers that its row was read after that moment, and used that day.
    pub(super) fn note(&self, bucket: BucketId, blob: &BlobKey, asked: Moment) {
        if let Some(place) = place(bucket, blob) {
            self.0.insert(place, asked);
        }
    }
}

fn place(bucket: BucketId, blob: &BlobKey) -> Option<Place> {
    match blob {
        BlobKey::Content(digest) => Some(Place {
            bucket,
            digest: *digest,
        }),
        _ => None,
    }
}
