//! The transactional key-value engines, names and liveness: what exists, what it is made of, what may be deleted.
//!
//! Not here: chunks themselves (`store`), wire formats and status codes (`gateway`).

#[cfg(test)]
mod contract;
mod database;
mod error;
mod key;
mod kv;
mod memory;
mod record;
mod rocks;
mod schema;

pub use kv::{
    BATCH_LEN_MAX, Batch, Check, Commit, Conflict, KEY_LEN_MAX, Kv, Order, Page, Row, SCAN_LEN, SCAN_ROWS_MAX,
    VALUE_LEN_MAX, Version, View, ViewExt,
};

pub use database::{CommitLog, Database, Engine, GROUP_LEN};
pub use error::{BoxError, Error, Result};
pub use key::{Key, KeyRange, KeyReader, TENANT_LEN_MAX, Table, Tenant, show_key};
pub use memory::MemoryEngine;
pub use record::CommitRecord;
pub use rocks::{
    CHUNK_KEY_LEN, CHUNK_PLACE_LEN, ChunkKeyBytes, ChunkPlaceBytes, RocksChanges, RocksEngine, RocksLog, RocksOptions,
};
pub use schema::{SCHEMA, open_schema};
