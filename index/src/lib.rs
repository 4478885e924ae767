//! The transactional key-value engines, names and liveness: what exists, what it is made of, what may be deleted.
//!
//! Not here: chunks themselves (`store`), wire formats and status codes (`gateway`).

mod error;
mod key;

pub use error::{BoxError, Error, Result};
pub use key::{Key, KeyRange, KeyReader, TENANT_LEN_MAX, Table, Tenant, show_key};

#[cfg(test)]
mod tests {
    /// The library that tools/rocksdb made has what we ask of it: both compressions.
    #[test]
    fn rocksdb_is_linked_with_its_compressions() {
        let folder = tempfile::tempdir().unwrap();
        for (name, compression) in [
            ("lz4", rocksdb::DBCompressionType::Lz4),
            ("zstd", rocksdb::DBCompressionType::Zstd),
        ] {
            let mut options = rocksdb::Options::default();
            options.create_if_missing(true);
            options.set_compression_type(compression);
            let db = rocksdb::DB::open(&options, folder.path().join(name)).unwrap();
            db.put(b"key", [7; 5000]).unwrap();
            db.flush().unwrap();
            assert_eq!(db.get(b"key").unwrap().unwrap(), [7; 5000]);
        }
    }
}
