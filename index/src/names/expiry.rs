//! Uploads that nobody has completed in time are given up: what they hold would never go otherwise.

use super::buckets::ListBuckets;
use super::event::Cause;
use super::listing::{List, Listed};
use super::uploads::More;
use super::{Bucket, ListedUpload, Names};
use crate::{Error, Result, Tenant};

/// Tenants, buckets and uploads read at once.
const AT_ONCE: usize = 200;

/// Gives up all uploads that began before a time, of all tenants. Returns how many.
///
/// - `before_ms`: milliseconds since 1970 UTC.
/// - `go_on`: asked before each; `false` ends it.
/// - Errors: those of the index; what was given up before stays so.
pub fn expire_uploads(names: &Names, before_ms: u64, mut go_on: impl FnMut() -> bool) -> Result<u64> {
    let mut expired = 0;
    let mut after: Option<Tenant> = None;
    loop {
        let page = names.tenants(after.as_ref(), AT_ONCE)?;
        for tenant in &page.tenants {
            for_each_bucket(names, tenant, |bucket| {
                expired += expire_in(names, bucket, before_ms, &mut go_on)?;
                Ok(())
            })?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(expired);
        }
    }
}

fn for_each_bucket(names: &Names, tenant: &Tenant, mut visit: impl FnMut(&Bucket) -> Result<()>) -> Result<()> {
    let mut after = None;
    loop {
        let list = ListBuckets {
            after: after.as_ref(),
            limit: AT_ONCE,
            ..ListBuckets::default()
        };
        let page = names.buckets(tenant).list(&list)?;
        page.buckets.iter().try_for_each(&mut visit)?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn expire_in(names: &Names, bucket: &Bucket, before_ms: u64, go_on: &mut impl FnMut() -> bool) -> Result<u64> {
    let uploads = names.uploads(bucket);
    let list = List {
        limit: AT_ONCE,
        ..List::default()
    };
    let (mut expired, mut last) = (0, None);
    loop {
        let after = last.as_ref().map(|upload: &ListedUpload| (&upload.key, upload.id));
        let (entries, more) = uploads.list(&list, after)?;
        for entry in entries {
            let Listed::Item(upload) = entry else { continue };
            if upload.id.initiated_ms() < before_ms {
                if !go_on() {
                    return Ok(expired);
                }
                match uploads.expire(&upload.key, upload.id, &Cause::of("scheduler")) {
                    Ok(()) => expired += 1,
                    // Somebody else ended it, or the bucket, this moment.
                    Err(Error::NoUpload { .. } | Error::NoBucket { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            last = Some(upload);
        }
        if more == More::No {
            return Ok(expired);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::names::{BucketName, FixedSurroundings, NewBucket, ObjectKey, Owner, Shard, UploadRecord};
    use crate::{Database, MemoryEngine};

    /// Goal: what is too old goes, of every tenant and bucket, with an event; what is not stays.
    #[test]
    fn uploads_that_are_too_old_are_given_up_with_an_event() {
        let kv = Arc::new(Database::new(Arc::new(MemoryEngine::new())));
        let surroundings = Arc::new(FixedSurroundings::new(1_000, 1));
        let names = Names::with_surroundings(kv, surroundings.clone());
        let owner = Owner::new("me").unwrap();
        let tenants = ["a", "b"].map(|name| Tenant::new(name).unwrap());
        let mut buckets = Vec::new();
        for tenant in &tenants {
            for bucket in ["one", "two"] {
                let name = BucketName::new(&format!("{}-{bucket}", tenant.as_str())).unwrap();
                let made = names.buckets(tenant).create(&name, NewBucket::of(owner.clone()));
                buckets.push(made.unwrap());
            }
        }
        let begin = |count: usize| {
            for bucket in &buckets {
                for number in 0..count {
                    let key = ObjectKey::new(format!("key {number}")).unwrap();
                    let record = UploadRecord::of(owner.clone());
                    names.uploads(bucket).begin(&key, record).unwrap();
                }
            }
        };
        begin(300);
        let between = names.now_ms() + 10;
        surroundings.set_now(between + 10);
        begin(3);
        assert_eq!(
            expire_uploads(&names, between, || false).unwrap(),
            0,
            "it was asked not to go on"
        );
        assert_eq!(expire_uploads(&names, between, || true).unwrap(), 4 * 300);
        assert_eq!(expire_uploads(&names, between, || true).unwrap(), 0);
        let list = List {
            limit: 1000,
            ..List::default()
        };
        for bucket in &buckets {
            assert_eq!(names.uploads(bucket).list(&list, None).unwrap().0.len(), 3);
        }
        let outbox = names.outbox(&tenants[0]);
        let mut events = 0;
        for shard in Shard::all() {
            let read = outbox.read(shard, 0, 10_000).unwrap();
            assert!(read.iter().all(|(_, event)| event.event_type == "upload.expired"));
            events += read.len();
        }
        assert_eq!(events, 2 * 300);
    }
}
