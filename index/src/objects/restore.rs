//! An old version made the newest again: by reference, as a new version with all that is said of the old one.

use std::sync::Arc;

use super::Objects;
use crate::names::{Bucket, Cause, Condition, NewVersion, ObjectKey, PART_NUMBER_MAX, VersionId, Written};
use crate::{Error, Result};

impl Objects {
    /// Puts what a version holds as a new version of its key: bytes, tag, check sums, parts, headers, metadata, tags and owner are
    /// those of the old one, which stays. Durable as the bucket is when this returns.
    ///
    /// - `condition`: on what the key has now.
    /// - Errors: [`Error::NoVersion`]; [`Error::NoObject`] for a delete marker; as [`super::Body::put`].
    pub fn restore(
        self: &Arc<Self>,
        bucket: &Bucket,
        key: &ObjectKey,
        id: VersionId,
        condition: &Condition,
        cause: &Cause,
    ) -> Result<Written> {
        let names = self.names().objects(bucket);
        let version = names.version(key, id)?;
        let old = version.object().ok_or_else(|| Error::NoObject {
            bucket: bucket.name().to_string(),
            key: key.to_string(),
        })?;
        let parts = names.parts(&version, 0, usize::from(PART_NUMBER_MAX))?;
        let body = self.copy(bucket, &version, bucket)?;
        let describe = |new: &mut NewVersion| {
            new.set_parts(parts);
            let record = &mut new.record;
            record.etag = old.etag.clone();
            record.headers = old.headers.clone();
            record.metadata = old.metadata.clone();
            record.tags = old.tags.clone();
            record.checksums = old.checksums.clone();
            record.storage_class = old.storage_class;
            record.schema = old.schema;
        };
        body.put(key, &version.owner, describe, condition, cause)
    }
}
