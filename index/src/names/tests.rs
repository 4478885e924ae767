//! Names on real engines.

use cairn_formats::{DigestAlgorithm, DomainId};

use super::*;
use crate::{Database, MemoryEngine};

fn names() -> Names {
    let kv = Arc::new(Database::new(Arc::new(MemoryEngine::new())));
    Names::with_surroundings(kv, Arc::new(FixedSurroundings::new(1_000_000, 7)))
}

fn me() -> Owner {
    Owner::new("me").unwrap()
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn inline(text: &str) -> NewVersion {
    let id = DigestAlgorithm::default().id(text.as_bytes());
    let content = NewContent::inline(DomainId::default(), id, text.as_bytes().to_vec()).unwrap();
    NewVersion::new(me(), content, Etag::opaque(&format!("tag-{text}")).unwrap())
}

fn bucket(names: &Names, versioning: Versioning) -> Bucket {
    let new = NewBucket {
        versioning,
        ..NewBucket::of(me())
    };
    let name = BucketName::new("bucket").unwrap();
    names.buckets(&Tenant::default()).create(&name, new).unwrap()
}

#[test]
fn an_object_is_read_as_it_was_put() {
    let names = names();
    let bucket = bucket(&names, Versioning::Unset);
    let objects = names.objects(&bucket);
    let mut new = inline("hello");
    new.record.headers.content_type = Some("text/plain".to_owned());
    new.record.metadata.push(("a".to_owned(), "b".to_owned()));
    let written = objects
        .put(&key("k"), &new, &Condition::Always, &Cause::default())
        .unwrap();
    assert!(written.version.id.is_null());
    assert_eq!(objects.current(&key("k")).unwrap(), written.version);
    let again = objects.put(&key("k"), &new, &Condition::Absent, &Cause::default());
    assert!(matches!(again, Err(crate::Error::Precondition { .. })), "{again:?}");
    let usage = names.buckets(&Tenant::default()).usage().unwrap();
    assert_eq!((usage.objects, usage.versions, usage.bytes), (1, 1, 5));
    let deleted = objects.delete(&key("k"), None, &me(), &Condition::Always, &Cause::default());
    assert!(matches!(deleted.unwrap(), Deleted::Version { .. }));
    assert_eq!(objects.get(&key("k")).unwrap(), Current::Nothing);
    assert_eq!(names.buckets(&Tenant::default()).usage().unwrap(), Usage::default());
    assert_eq!(names.outbox(&Tenant::default()).lag("c").unwrap(), 2);
}
