//! How much there is: objects, versions and logical bytes, of a bucket and of a tenant. Counters, added to by each commit.

use super::bucket::Bucket;
use super::buckets::Buckets;
use super::rows::{self, Counted};
use crate::kv::Row;
use crate::{Key, Result};

/// What is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects that are read when no version is named.
    pub objects: u64,
    /// All versions, delete markers included.
    pub versions: u64,
    /// Bytes of all versions, before chunks are shared and compressed.
    pub bytes: u64,
}

impl Buckets<'_> {
    /// What all buckets of the tenant hold.
    pub fn usage(&self) -> Result<Usage> {
        self.read_usage(None)
    }

    /// What a bucket holds.
    pub fn usage_of(&self, bucket: &Bucket) -> Result<Usage> {
        self.read_usage(Some(bucket.id))
    }

    fn read_usage(&self, id: Option<u64>) -> Result<Usage> {
        let counted = [Counted::Objects, Counted::Versions, Counted::Bytes];
        let keys = counted.map(|counted| rows::usage(self.tenant, id, counted));
        let found = self.names.kv.get_many(&keys.each_ref().map(Key::as_bytes))?;
        let mut counts = found.iter().map(|row| {
            let count = row.as_ref().and_then(Row::counter).unwrap_or(0);
            u64::try_from(count).unwrap_or(0)
        });
        let mut next = || counts.next().unwrap_or(0);
        Ok(Usage {
            objects: next(),
            versions: next(),
            bytes: next(),
        })
    }
}
