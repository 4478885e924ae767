//! Names: buckets, objects and their versions, uploads, access keys, events, and what is counted and searched of them.
//!
//! One typed repository for each, all on the [`Kv`] trait; keys of rows are made in `rows.rs` and nowhere else. Each call is one
//! commit, with checks on all that it was decided by; what others changed meanwhile is read again and decided anew. A repository is
//! made for a tenant or for a bucket of one, so that no call can name another tenant's rows.
//!
//! Invariants: a key has a row in `Objects` if and only if its newest version is an object, one in `Markers` if and only if that is a
//! delete marker; all other versions are in `Versions`; at most one version of a key is named `null`. A version's chunks are named by
//! its row from the commit on that wrote it, and each commit that names chunks carries the fence (`liveness/`). Counters, search
//! rows and the event of a change are in the change's own commit. Not here: chunks, digests, the wire.

mod access_keys;
mod blob_key;
mod blobs;
mod bucket;
mod buckets;
mod content;
mod delivery;
mod domains;
#[cfg(test)]
mod durable_tests;
mod edit;
mod etag;
mod event;
mod expiry;
mod fields;
mod ids;
mod listing;
#[cfg(test)]
mod model_tests;
mod name;
mod objects;
mod outbox;
mod roots;
mod rows;
mod search;
mod search_tenant;
mod seen;
mod surroundings;
mod sweep;
#[cfg(test)]
mod tenant_tests;
mod tenants;
#[cfg(test)]
mod tests;
mod uploads;
mod usage;
mod version;
mod whole_digest;

use std::sync::Arc;

pub use access_keys::{AccessKey, AccessKeyId, AccessKeyPage, AccessSecret, FirstKey, KeyState};
pub use blob_key::{BlobDigest, BlobFunction, BlobKey};
pub use blobs::{Blob, Blobs, NewBlob};
pub use bucket::{Bucket, BucketId, BucketRecord, BucketSettings, Durability, EtagKind, Switch, Versioning};
pub use buckets::{BucketPage, Buckets, ListBuckets, NewBucket};
pub use content::{ChunkerKind, Chunking, Content, INLINE_LEN_MAX, NewContent, ROW_CHUNKS_MAX};
pub use delivery::{DELIVERY_LIST_MAX, DELIVERY_WORD_LEN_MAX, Delivery};
pub use etag::{Checksum, ChecksumAlgorithm, ChecksumKind, ETAG_LEN_MAX, Etag};
pub use event::{Cause, Event, EventId};
pub use expiry::expire_uploads;
pub use ids::{PART_NUMBER_MAX, PartNumber, UploadId, VersionId, VersionOrder};
pub use listing::{List, ListPage, ListStart, Listed, ListedObject, ListedVersion, VersionStart};
pub use name::{BucketName, OBJECT_KEY_LEN_MAX, OWNER_LEN_MAX, ObjectKey, Owner};
pub use objects::{Condition, Current, Deleted, Objects, Written};
pub use outbox::{Outbox, OutboxBound, Segment, Shard};
pub use search::{SEARCH_KEYS_MAX, SEARCH_LIMIT_MAX, SEARCH_PAIRS_MAX, Search, SearchPage, SearchPlace};
pub use search_tenant::{FoundObject, TenantSearchPage, TenantSearchPlace};
pub use surroundings::{FixedSurroundings, Surroundings, SystemSurroundings};
pub use sweep::sweep_names;
pub use tenants::TenantPage;
pub use uploads::{
    CompletedUpload, DONE_KEPT_MS, ListedUpload, More, NewPart, PART_STATE_LEN_MAX, Part, PartChange, PartsChanged,
    SEAM_CHUNKS_MAX, Upload, UploadRecord, Uploads,
};
pub use usage::Usage;
pub use version::{
    HEADERS_LEN_MAX, Headers, METADATA_LEN_MAX, NewVersion, ObjectRecord, ObjectVersion, PART_PAGE_LEN, PartRecord,
    Parts, ROW_PARTS_MAX, StorageClass, TAGS_MAX, VersionKind,
};
pub(crate) use whole_digest::Undigested;
pub use whole_digest::{DigestFunction, DigestHolder, ObjectDigest};

pub(crate) use roots::{Root, any_blobs, any_names, for_each_root};
#[cfg(test)]
pub(crate) use whole_digest::check_digests;
pub(crate) use whole_digest::{any_wanted_digests, clear_digests, fill_digests};

use crate::kv::Kv;
use crate::{Result, Tenant};
use seen::Seen;

/// How often a call decides anew because others changed what it was decided by.
const TRIES_MAX: u32 = 100;

/// All names of a server.
#[derive(Clone, Debug)]
pub struct Names {
    kv: Arc<dyn Kv>,
    surroundings: Arc<dyn Surroundings>,
    seen: Arc<Seen>,
}

impl Names {
    /// Names in these rows.
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        Self::with_surroundings(kv, Arc::new(SystemSurroundings))
    }

    /// [`Names::new`] with another clock and source of chance.
    pub fn with_surroundings(kv: Arc<dyn Kv>, surroundings: Arc<dyn Surroundings>) -> Self {
        Self {
            kv,
            surroundings,
            seen: Arc::default(),
        }
    }

    /// The rows.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    /// The buckets of a tenant.
    pub fn buckets<'a>(&'a self, tenant: &'a Tenant) -> Buckets<'a> {
        Buckets { names: self, tenant }
    }

    /// The objects of a bucket.
    pub fn objects<'a>(&'a self, bucket: &'a Bucket) -> Objects<'a> {
        Objects { names: self, bucket }
    }

    /// Milliseconds since 1970 UTC.
    pub(crate) fn now_ms(&self) -> u64 {
        self.surroundings.now_ms()
    }

    /// Bytes that nobody can guess.
    pub(crate) fn chance<const N: usize>(&self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.surroundings.fill(&mut bytes)?;
        Ok(bytes)
    }
}
