//! What is left behind and taken away later: parts of uploads that have ended, rows of buckets that are gone, what is remembered of
//! uploads that were completed long ago.
//!
//! A row says that there is something, from the commit on that ended the upload or the bucket, so a crash forgets nothing.

use std::num::NonZeroU32;

use super::blobs::{expire_blobs, remove_blobs_of};
use super::bucket::BucketId;
use super::content::Content;
use super::edit::READ_GRACE_S;
use super::ids::UploadId;
use super::uploads::{CompletedUpload, DONE_KEPT_MS, Part};
use super::{rows, rows::Counted};
use crate::bug::{Bug, is_planted};
use crate::kv::{Batch, Check, Commit, Kv, Order, View, ViewExt as _};
use crate::liveness::{for_each_tenant, retire};
use crate::{Error, Key, KeyReader, Result, Table, Tenant};

/// Rows taken away in one commit.
const SWEEP_ROWS: usize = 500;

/// Takes away what ended uploads and buckets have left, and blobs that nobody has used for long, of all tenants. Returns how many of
/// them it was done with.
///
/// - `now_ms`: milliseconds since 1970 UTC.
/// - `blob_days`: days without use after which a blob goes; `None`: none goes.
pub fn sweep_names(kv: &(impl Kv + ?Sized), now_ms: u64, blob_days: Option<NonZeroU32>) -> Result<usize> {
    let mut done = 0;
    for_each_tenant(kv, |tenant| {
        let gone = ids(kv, tenant, Table::BucketsGone, |reader| reader.u64())?;
        for id in gone {
            sweep_bucket(kv, tenant, id, now_ms)?;
            done += 1;
        }
        if let Some(days) = blob_days {
            done += expire_blobs(kv, tenant, now_ms, days.get())?;
        }
        let ended = ids(kv, tenant, Table::UploadsEnded, |reader| reader.fixed())?;
        for id in ended {
            sweep_upload(kv, tenant, &UploadId::from_bytes(id), now_ms)?;
            done += 1;
        }
        forget_completed(kv, tenant, now_ms)
    })?;
    Ok(done)
}

fn ids<T>(
    kv: &(impl View + ?Sized),
    tenant: &Tenant,
    table: Table,
    read: impl Fn(&mut KeyReader<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut ids = Vec::new();
    kv.for_each(Key::of(tenant, table).range(), |key, _| {
        ids.push(read(&mut KeyReader::of(&key, tenant, table)?)?);
        Ok::<_, Error>(())
    })?;
    Ok(ids)
}

/// Takes away the parts of an upload that has ended.
pub(super) fn sweep_upload(kv: &(impl Kv + ?Sized), tenant: &Tenant, id: &UploadId, now_ms: u64) -> Result<()> {
    if is_planted(Bug::KeptParts) {
        return Ok(());
    }
    loop {
        let page = kv.scan(&rows::parts(tenant, id).range(), Order::Forward, SWEEP_ROWS)?;
        let is_last = page.rest.is_none();
        let mut batch = Batch::new();
        for (key, row) in page.rows {
            let part = Part::decode(rows::read_part(tenant, &key)?, &row.value, row.version)?;
            // Another who sweeps may have been here: a manifest is given up once.
            batch.check(&key, Check::Version(row.version)).delete(&key);
            if let Content::Manifest(manifest) = part.content {
                retire(&mut batch, tenant, &manifest.id, now_ms / 1000 + READ_GRACE_S);
            }
        }
        if is_last {
            batch.delete(rows::upload_ended(tenant, id));
        }
        if let (Commit::Done(_), true) = (kv.commit(batch)?, is_last) {
            return Ok(());
        }
    }
}

/// Takes away what a bucket that is gone has left: it had no versions. Its blobs go, its uploads end, and are swept as such.
fn sweep_bucket(kv: &(impl Kv + ?Sized), tenant: &Tenant, id: BucketId, now_ms: u64) -> Result<()> {
    remove_blobs_of(kv, tenant, id, now_ms)?;
    let uploads = rows::in_bucket(tenant, Table::Uploads, id);
    for table in [Table::Uploads, Table::UploadsDone] {
        loop {
            let page = kv.scan(&rows::in_bucket(tenant, table, id).range(), Order::Forward, SWEEP_ROWS)?;
            let mut batch = Batch::new();
            for (key, row) in &page.rows {
                batch.check(key, Check::Version(row.version)).delete(key);
                if table == Table::Uploads {
                    let (_, upload) = rows::read_upload(key, &uploads)?;
                    batch.put(rows::upload_ended(tenant, &upload), Vec::new());
                }
            }
            if let (Commit::Done(_), None) = (kv.commit(batch)?, page.rest) {
                break;
            }
        }
    }
    let mut batch = Batch::new();
    for counted in [Counted::Objects, Counted::Versions, Counted::Bytes] {
        batch.delete(rows::usage(tenant, Some(id), counted));
    }
    batch.delete(rows::bucket_gone(tenant, id));
    match kv.commit(batch)? {
        Commit::Done(_) => Ok(()),
        Commit::Conflict(_) => unreachable!("a batch without checks has no conflict"),
    }
}

fn forget_completed(kv: &(impl Kv + ?Sized), tenant: &Tenant, now_ms: u64) -> Result<()> {
    let mut rest = Some(Key::of(tenant, Table::UploadsDone).range());
    while let Some(range) = rest {
        let page = kv.scan(&range, Order::Forward, SWEEP_ROWS)?;
        let mut batch = Batch::new();
        for (key, row) in page.rows {
            let (_, done) = CompletedUpload::decode(&row.value)?;
            if done.completed_ms.saturating_add(DONE_KEPT_MS) < now_ms {
                batch.delete(key);
            }
        }
        if !batch.is_empty() && matches!(kv.commit(batch)?, Commit::Conflict(_)) {
            unreachable!("a batch without checks has no conflict");
        }
        rest = page.rest;
    }
    Ok(())
}
