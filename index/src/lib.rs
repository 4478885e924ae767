//! The transactional key-value engines, names and liveness: what exists, what it is made of, what may be deleted.
//!
//! Not here: chunks themselves (`store`), wire formats and status codes (`gateway`).

mod backup;
mod bug;
mod collector;
#[cfg(test)]
mod contract;
mod database;
mod error;
mod key;
mod kv;
mod liveness;
mod memory;
pub mod names;
mod objects;
mod record;
mod rocks;
mod schema;
mod sealed;
#[cfg(test)]
mod sealed_tests;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod small_disk;

pub use kv::{
    BATCH_LEN_MAX, Batch, Check, Commit, Conflict, KEY_LEN_MAX, Kv, Order, Page, Row, SCAN_LEN, SCAN_ROWS_MAX,
    VALUE_LEN_MAX, Version, View, ViewExt,
};

pub use backup::{BACKUP_INDEX, BACKUP_PACKS, BackupReport, backup};
pub use collector::{
    Amount, CollectControl, CollectOptions, CollectReport, CollectStage, CollectTimes, Collector, Recompress, Roots,
    squeeze,
};
pub use database::{CommitLog, Database, Engine, Frozen, GROUP_LEN};
pub use error::{BoxError, Error, Result};
pub use key::{Key, KeyRange, KeyReader, TENANT_LEN_MAX, Table, Tenant, show_key};
pub use liveness::{
    COMMIT_CHUNKS_MAX, ChunkAt, Fence, Lease, MANIFEST_PAGE_CHUNKS, MANIFEST_STARTS_EVERY, MARKS_MAX, Manifest,
    ManifestChunk, ManifestId, NewManifest, Published, Settled, condemn, condemned, drop_manifest, end_lease,
    for_each_condemned, for_each_manifest, hold_lease, leases, manifest, manifest_page, manifest_starts,
    manifests_named, pardon, sweep_all_manifests, sweep_manifests, swept,
};
pub use memory::MemoryEngine;
pub use objects::{
    AnyBlobWriter, ArchiveObject, BlobFrames, BlobHasher, BlobWriter, Body, ChunkLease, ChunkSum, Completed,
    Compression, DigestCursor, Digested, DigestedAtRest, DigestsWanted, IndexPieces, IngestCounts, ListedPart,
    LookedAt, ObjectOptions, ObjectReader, ObjectWriter, Objects, VersionsDiff,
};
pub use record::CommitRecord;
pub use rocks::{BlockReads, PlacesMemory, RocksEngine, RocksLog, RocksOptions, RocksState};
pub use schema::{SCHEMA, SchemaRun, SchemaStep, check_schema, migrate_schema, open_schema, schema as schema_of};
pub use sealed::{SnapshotPolicy, SnapshotReport, write_snapshot};
