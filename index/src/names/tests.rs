//! Names on real engines.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use cairn_formats::{DigestAlgorithm, DomainId};

use super::*;
use crate::{Database, Engine, KeyRange, MemoryEngine, Order, Page, Row, View};

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
    NewVersion::new(me(), content, Etag::of_md5(id.as_bytes().first_chunk().unwrap()))
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

/// Rows in memory that count what is read of them.
#[derive(Debug, Default)]
struct Counting {
    rows: MemoryEngine,
    scans: AtomicUsize,
    read: AtomicUsize,
}

impl Counting {
    /// Scans and rows of one piece of work.
    fn of<T>(&self, work: impl FnOnce() -> T) -> (T, usize, usize) {
        self.scans.store(0, Relaxed);
        self.read.store(0, Relaxed);
        let done = work();
        (done, self.scans.load(Relaxed), self.read.load(Relaxed))
    }
}

impl View for Counting {
    fn get_many(&self, keys: &[&[u8]]) -> crate::Result<Vec<Option<Row>>> {
        self.read.fetch_add(keys.len(), Relaxed);
        self.rows.get_many(keys)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> crate::Result<Page> {
        let page = self.rows.scan(range, order, limit)?;
        self.scans.fetch_add(1, Relaxed);
        self.read.fetch_add(page.rows.len(), Relaxed);
        Ok(page)
    }
}

/// A snapshot is counted where it was taken.
struct CountedSnapshot<'a> {
    rows: Box<dyn View + 'a>,
    counting: &'a Counting,
}

impl View for CountedSnapshot<'_> {
    fn get_many(&self, keys: &[&[u8]]) -> crate::Result<Vec<Option<Row>>> {
        self.counting.read.fetch_add(keys.len(), Relaxed);
        self.rows.get_many(keys)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> crate::Result<Page> {
        let page = self.rows.scan(range, order, limit)?;
        self.counting.scans.fetch_add(1, Relaxed);
        self.counting.read.fetch_add(page.rows.len(), Relaxed);
        Ok(page)
    }
}

impl Engine for Counting {
    fn version(&self) -> crate::Version {
        self.rows.version()
    }

    fn apply(&self, record: &crate::CommitRecord) -> crate::Result<()> {
        self.rows.apply(record)
    }

    fn snapshot(&self) -> crate::Result<Box<dyn View + '_>> {
        Ok(Box::new(CountedSnapshot {
            rows: self.rows.snapshot()?,
            counting: self,
        }))
    }
}

fn counted() -> (Names, Arc<Counting>) {
    let engine = Arc::new(Counting::default());
    let kv = Arc::new(Database::new(engine.clone()));
    (
        Names::with_surroundings(kv, Arc::new(FixedSurroundings::new(1, 1))),
        engine,
    )
}

fn put_many(objects: &Objects<'_>, keys: impl Iterator<Item = String>) {
    for key in keys {
        let mut new = inline("x");
        new.record.tags.push(("all".to_owned(), "yes".to_owned()));
        new.record
            .tags
            .push(("last".to_owned(), key[key.len() - 1..].to_owned()));
        let key = ObjectKey::new(key).unwrap();
        objects.put(&key, &new, &Condition::Always, &Cause::default()).unwrap();
    }
}

/// Goal: a page of a listing costs what it answers: one seek, one more for each common prefix, and no row below one but the first few.
#[test]
fn a_listing_costs_what_it_answers() {
    let (names, engine) = counted();
    let bucket = bucket(&names, Versioning::Unset);
    let objects = names.objects(&bucket);
    put_many(
        &objects,
        (0..6).flat_map(|folder| (0..500).map(move |n| format!("f{folder}/{n:04}"))),
    );
    let page = |prefix, delimiter, limit| {
        let list = List {
            prefix,
            delimiter,
            start: ListStart::Beginning,
            limit,
        };
        engine.of(|| objects.list(&list).unwrap())
    };
    let (flat, scans, read) = page("", "", 1000);
    assert_eq!((flat.entries.len(), scans, read), (1000, 1, 1001));
    let (folders, scans, read) = page("", "/", 1000);
    assert_eq!(folders.entries.len(), 6);
    assert!(scans <= 8 && read <= 8 * 16, "{scans} seeks, {read} rows");
    let (none, scans, read) = page("nothing", "/", 1000);
    assert_eq!((none.entries.len(), scans, read), (0, 1, 0));
    let ((), scans, read) = engine.of(|| _ = objects.current(&key("f0/0000")).unwrap());
    assert_eq!((scans, read), (0, 1), "an object is one row");
}

/// Goal: no request reads more than [`SEARCH_KEYS_MAX`] rows, whatever is asked, and pages find all there is, each once.
#[test]
fn a_search_reads_no_more_than_its_bound() {
    let (names, engine) = counted();
    let bucket = bucket(&names, Versioning::Unset);
    let objects = names.objects(&bucket);
    let count = 14_000;
    put_many(&objects, (0..count).map(|n| format!("{n:06}")));
    let all = |search: &Search| {
        let (mut found, mut pages, mut from) = (0, 0, None);
        loop {
            let (page, _, read) = engine.of(|| objects.search(search, from.as_ref(), 1000).unwrap());
            assert!(
                page.scanned <= SEARCH_KEYS_MAX && read <= page.scanned,
                "{read} rows, {}",
                page.scanned
            );
            (found, pages) = (found + page.objects.len(), pages + 1);
            let Some(next) = page.next else { return (found, pages) };
            from = Some(next);
        }
    };
    let tag = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let rare = Search {
        tags: tag("all", "yes"),
        metadata: tag("no", "such"),
        ..Search::default()
    };
    assert_eq!(all(&rare), (0, 1), "the narrowest range is empty");
    let wide = Search {
        tags: tag("all", "yes"),
        content_type: None,
        size: Some(2..=9),
        ..Search::default()
    };
    assert_eq!(all(&wide), (0, 1));
    let none_of_many = Search {
        tags: tag("all", "yes"),
        created_ms: Some(0..=u64::MAX),
        size: Some(0..=u64::MAX),
        owner: Some(me()),
        prefix: "0".to_owned(),
        ..Search::default()
    };
    assert_eq!(all(&none_of_many).0, count);
    let tenth = Search {
        tags: [tag("all", "yes"), tag("last", "7")].concat(),
        ..Search::default()
    };
    let (found, pages) = all(&tenth);
    assert_eq!(found, count / 10);
    assert!(pages > 2, "{pages}");
    let foreign = SearchPlace::from_bytes(&[0, 1, 2, 3]).unwrap();
    let searched = objects.search(&tenth, Some(&foreign), 10);
    assert!(matches!(searched, Err(crate::Error::BadPlace { .. })), "{searched:?}");
}

/// Goal: what a tenant gives as ids, names, places and keys of its own finds nothing of another's.
#[test]
fn tenants_never_see_each_other() {
    let names = names();
    let [ours, theirs] = ["ours", "theirs"].map(|name| Tenant::new(name).unwrap());
    let make = |tenant: &Tenant, name: &str| {
        let new = NewBucket {
            versioning: Versioning::Enabled,
            ..NewBucket::of(me())
        };
        names
            .buckets(tenant)
            .create(&BucketName::new(name).unwrap(), new)
            .unwrap()
    };
    let (our, their) = (make(&ours, "our-bucket"), make(&theirs, "their-bucket"));
    let taken = names.buckets(&theirs).create(our.name(), NewBucket::of(me()));
    assert!(matches!(taken, Err(crate::Error::BucketTaken { .. })), "{taken:?}");
    assert_eq!(names.tenant_of_bucket(our.name()).unwrap(), Some(ours.clone()));
    let seen = names.buckets(&theirs).get(our.name());
    assert!(matches!(seen, Err(crate::Error::NoBucket { .. })), "{seen:?}");

    let objects = names.objects(&our);
    let mut ids = Vec::new();
    for n in 0..20 {
        let mut new = inline("secret");
        new.record.tags.push(("t".to_owned(), "v".to_owned()));
        let key = key(&format!("k{}", n % 4));
        let written = objects.put(&key, &new, &Condition::Always, &Cause::default()).unwrap();
        ids.push((key, written.version.id));
    }
    let upload = names.uploads(&our).begin(&key("k0"), UploadRecord::of(me())).unwrap();
    let access = names.create_access_key(&ours, &me()).unwrap();

    // A handle of ours with a name and an id that are not: what a mistake, or a guess, in a handler would come to.
    let mut forged = our.clone();
    forged.tenant = theirs.clone();
    for bucket in [&their, &forged] {
        let theirs_objects = names.objects(bucket);
        for (key, id) in &ids {
            assert_eq!(theirs_objects.get(key).unwrap(), Current::Nothing);
            let version = theirs_objects.version(key, *id);
            assert!(matches!(version, Err(crate::Error::NoVersion { .. })), "{version:?}");
        }
        let list = List {
            limit: 100,
            ..List::default()
        };
        assert_eq!(theirs_objects.list(&list).unwrap().entries, []);
        assert_eq!(
            theirs_objects
                .list_versions(&list, &VersionStart::default())
                .unwrap()
                .entries,
            []
        );
        let found = theirs_objects.search(&Search::default(), None, 100).unwrap();
        assert_eq!(found.objects, []);
        let place = objects.search(&Search::default(), None, 1).unwrap().next.unwrap();
        let found = theirs_objects.search(&Search::default(), Some(&place), 100);
        assert!(matches!(found, Err(crate::Error::BadPlace { .. })), "{found:?}");
        let uploads = names.uploads(bucket);
        assert!(matches!(
            uploads.get(&key("k0"), upload.id),
            Err(crate::Error::NoUpload { .. })
        ));
        assert_eq!(uploads.parts(&upload, None, 10).unwrap(), []);
        assert_eq!(uploads.list(&list, None).unwrap().0, []);
    }
    let chunk = cairn_store::ChunkKey {
        domain: DomainId::default(),
        id: DigestAlgorithm::default().id(b"secret"),
    };
    assert!(names.inline_chunk(&ours, &chunk).unwrap().is_some());
    assert_eq!(names.inline_chunk(&theirs, &chunk).unwrap(), None);
    assert_eq!(names.buckets(&theirs).usage().unwrap(), Usage::default());
    assert_eq!(names.outbox(&theirs).lag("c").unwrap(), 0);
    assert_eq!(names.access_keys(&theirs).unwrap(), []);
    assert!(!names.delete_access_key(&theirs, &access.id).unwrap());
    assert!(!names.set_access_key(&theirs, &access.id, KeyState::Disabled).unwrap());
    assert_eq!(names.access_keys(&ours).unwrap(), [access]);
    let domains = [&ours, &theirs, &Tenant::default()].map(|tenant| names.domain_of_tenant(tenant).unwrap());
    assert!(domains[0] != domains[1] && domains[2] == DomainId::default() && !domains[..2].contains(&domains[2]));
    assert_eq!(names.domain_of_tenant(&ours).unwrap(), domains[0]);
    assert!(!domains.contains(&names.new_domain().unwrap()));
}

/// Goal: of writers to one key each gets a version of its own, or is told that its condition does not hold; nothing is lost.
#[test]
fn writers_to_one_key_are_in_some_order() {
    let names = names();
    let bucket = bucket(&names, Versioning::Enabled);
    let won = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (names, bucket, won) = (&names, &bucket, &won);
            scope.spawn(move || {
                let objects = names.objects(bucket);
                for _ in 0..5 {
                    objects
                        .put(&key("many"), &inline("x"), &Condition::Always, &Cause::default())
                        .unwrap();
                }
                match objects.put(
                    &key("one"),
                    &inline(&n.to_string()),
                    &Condition::Absent,
                    &Cause::default(),
                ) {
                    Ok(_) => _ = won.fetch_add(1, Relaxed),
                    Err(error) => assert!(matches!(error, crate::Error::Precondition { .. }), "{error:?}"),
                }
            });
        }
    });
    assert_eq!(won.load(Relaxed), 1);
    let list = List {
        limit: 100,
        ..List::default()
    };
    let page = names
        .objects(&bucket)
        .list_versions(&list, &VersionStart::default())
        .unwrap();
    assert_eq!(page.entries.len(), 41);
}

/// Goal: a bucket that is being deleted while others write is either gone and empty, or there with what they wrote.
#[test]
fn a_bucket_is_deleted_empty_or_not_at_all() {
    for _ in 0..50 {
        let names = names();
        let bucket = bucket(&names, Versioning::Unset);
        let tenant = Tenant::default();
        let (wrote, deleted) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let objects = names.objects(&bucket);
                objects.put(&key("k"), &inline("x"), &Condition::Always, &Cause::default())
            });
            let deleter = scope.spawn(|| names.buckets(&tenant).delete(bucket.name()));
            (writer.join().unwrap(), deleter.join().unwrap())
        });
        match (&wrote, &deleted) {
            (Ok(_), Err(crate::Error::BucketNotEmpty { .. })) | (Err(crate::Error::NoBucket { .. }), Ok(())) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(names.buckets(&tenant).get(bucket.name()).is_ok(), wrote.is_ok());
    }
}

/// Goal: who dies between the two steps of deleting a bucket leaves nothing that hinders others.
#[test]
fn a_deletion_left_half_way_is_ended_by_who_comes() {
    for is_empty in [true, false] {
        let names = names();
        let mut bucket = bucket(&names, Versioning::Unset);
        let objects = names.objects(&bucket);
        if !is_empty {
            objects
                .put(&key("k"), &inline("x"), &Condition::Always, &Cause::default())
                .unwrap();
        }
        let old = bucket.clone();
        bucket.state = bucket::BucketState::Deleting;
        let mut batch = crate::Batch::new();
        batch.put(rows::bucket(&bucket.tenant, &bucket.name), bucket.encode());
        assert!(matches!(names.kv().commit(batch).unwrap(), crate::Commit::Done(_)));
        let put = names
            .objects(&old)
            .put(&key("n"), &inline("y"), &Condition::Always, &Cause::default());
        match is_empty {
            true => assert!(matches!(put, Err(crate::Error::NoBucket { .. })), "{put:?}"),
            false => _ = put.unwrap(),
        }
        let again = names.buckets(&old.tenant).create(&old.name, NewBucket::of(me()));
        match is_empty {
            true => assert_ne!(again.unwrap().id, old.id),
            false => assert!(matches!(again, Err(crate::Error::BucketExists { .. })), "{again:?}"),
        }
    }
}

#[test]
fn buckets_are_listed_by_page() {
    let names = names();
    let (tenant, other) = (Tenant::default(), Owner::new("other").unwrap());
    for n in 0..9 {
        let owner = if n % 3 == 0 { other.clone() } else { me() };
        let name = BucketName::new(&format!("bucket-{n}")).unwrap();
        names.buckets(&tenant).create(&name, NewBucket::of(owner)).unwrap();
    }
    let list = |owner, after, limit, prefix| {
        let list = ListBuckets {
            prefix,
            owner,
            after,
            limit,
        };
        let page = names.buckets(&tenant).list(&list).unwrap();
        let found: Vec<String> = page.buckets.iter().map(|bucket| bucket.name().to_string()).collect();
        (found, page.next)
    };
    let (found, next) = list(None, None, 4, "");
    assert_eq!(found, ["bucket-0", "bucket-1", "bucket-2", "bucket-3"]);
    let (found, next) = list(None, next.as_ref(), 5, "");
    assert_eq!((found.len(), next), (5, None));
    let (found, next) = list(Some(&other), None, 2, "bucket-");
    assert_eq!(found, ["bucket-0", "bucket-3"]);
    assert_eq!(
        list(Some(&other), next.as_ref(), 2, "bucket-"),
        (vec!["bucket-6".to_owned()], None)
    );
    assert_eq!(list(None, None, 9, "nothing"), (vec![], None));
    let same = names
        .buckets(&tenant)
        .create(&BucketName::new("bucket-1").unwrap(), NewBucket::of(me()));
    assert!(matches!(same, Err(crate::Error::BucketExists { .. })), "{same:?}");
}

fn part(number: u64, text: &str) -> NewPart {
    let content = inline(text).proof;
    NewPart {
        number: PartNumber::new(number).unwrap(),
        md5: [number as u8; 16],
        checksum: None,
        size: text.len() as u64,
        content,
        state: bytes::Bytes::from_static(b"state"),
    }
}

#[test]
fn an_upload_is_sent_in_parts_and_completed_once() {
    let names = names();
    let bucket = bucket(&names, Versioning::Enabled);
    let uploads = names.uploads(&bucket);
    let mut record = UploadRecord::of(me());
    record.headers.content_type = Some("a/b".to_owned());
    record.tags.push(("t".to_owned(), "v".to_owned()));
    record.checksum = Some((ChecksumAlgorithm::Crc32c, ChecksumKind::Composite));
    let upload = uploads.begin(&key("k"), record.clone()).unwrap();
    assert_eq!(uploads.get(&key("k"), upload.id).unwrap(), upload);
    for number in [3, 1, 2, 1] {
        let written = uploads
            .put_part(&upload, &part(number, &format!("part {number}")))
            .unwrap();
        assert_eq!(uploads.part(&upload, written.number).unwrap().as_ref(), Some(&written));
    }
    let parts = uploads.parts(&upload, None, 100).unwrap();
    assert_eq!(
        parts.iter().map(|part| part.number.get()).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let behind = uploads.parts(&upload, PartNumber::new(1), 1).unwrap();
    assert_eq!(behind[..], parts[1..2]);
    // A seam whose part was sent again is not cut.
    let change = PartChange {
        number: parts[0].number,
        row: parts[0].row,
        seam: Vec::new(),
        state: bytes::Bytes::from_static(b"seam"),
    };
    let fence = crate::Fence::now(names.kv().as_ref()).unwrap();
    uploads.put_part(&upload, &part(1, "again")).unwrap();
    let changed = uploads
        .change_parts(&upload, std::slice::from_ref(&change), &fence)
        .unwrap();
    assert_eq!(changed, PartsChanged::Stale);
    let row = uploads.part(&upload, change.number).unwrap().unwrap().row;
    let changed = uploads
        .change_parts(&upload, &[PartChange { row, ..change }], &fence)
        .unwrap();
    assert_eq!(changed, PartsChanged::Done);
    let first = uploads.part(&upload, PartNumber::new(1).unwrap()).unwrap().unwrap();
    assert_eq!(first.state.as_ref(), b"seam");

    let mut whole = inline("whole");
    whole.set_parts(
        (1..=1000)
            .map(|n| PartRecord {
                number: n,
                ..parts[0].record()
            })
            .collect(),
    );
    let written = uploads
        .complete(&upload, &whole, &Condition::Always, &Cause::default())
        .unwrap();
    let objects = names.objects(&bucket);
    let current = objects.current(&key("k")).unwrap();
    assert_eq!(current, written.version);
    let listed = objects.parts(&current, 510, 5).unwrap();
    assert_eq!(
        listed.iter().map(|part| part.number).collect::<Vec<_>>(),
        [511, 512, 513, 514, 515]
    );
    assert_eq!(objects.parts(&current, 998, 9).unwrap().len(), 2);
    assert_eq!(current.object().unwrap().parts.count(), 1000);
    let done = uploads.completed(&key("k"), upload.id).unwrap().unwrap();
    assert_eq!(
        (done.version, uploads.completed(&key("x"), upload.id).unwrap()),
        (current.id, None)
    );
    let ended = [
        uploads
            .complete(&upload, &whole, &Condition::Always, &Cause::default())
            .map(drop),
        uploads.put_part(&upload, &part(9, "late")).map(drop),
        uploads.abort(&key("k"), upload.id),
        uploads.get(&key("k"), upload.id).map(drop),
        uploads.change_parts(&upload, &[], &fence).map(drop),
    ];
    for ended in ended {
        assert!(matches!(ended, Err(crate::Error::NoUpload { .. })), "{ended:?}");
    }
    assert_eq!(uploads.parts(&upload, None, 9).unwrap(), []);
    sweep_names(names.kv().as_ref(), 1_000_000 + DONE_KEPT_MS + 1, None).unwrap();
    assert_eq!(
        uploads.completed(&key("k"), upload.id).unwrap(),
        None,
        "forgotten in time"
    );
}

#[test]
fn uploads_are_listed_by_key_and_time_and_go_with_their_bucket() {
    let names = names();
    let bucket = bucket(&names, Versioning::Unset);
    let uploads = names.uploads(&bucket);
    let mut begun = Vec::new();
    for text in ["a", "a", "b/1", "b/2", "c"] {
        let upload = uploads.begin(&key(text), UploadRecord::of(me())).unwrap();
        uploads.put_part(&upload, &part(1, "x")).unwrap();
        begun.push((text, upload.id));
    }
    begun.sort();
    let list = List {
        delimiter: "/",
        limit: 3,
        ..List::default()
    };
    let (entries, more) = uploads.list(&list, None).unwrap();
    let shown: Vec<String> = entries
        .iter()
        .map(|entry| match entry {
            Listed::Item(upload) => format!("{} {}", upload.key, upload.id),
            Listed::Prefix(prefix) => prefix.clone(),
        })
        .collect();
    let [a, b, ..] = &begun[..] else { panic!() };
    assert_eq!(shown, [format!("a {}", a.1), format!("a {}", b.1), "b/".to_owned()]);
    assert_eq!(more, More::Yes);
    let (entries, more) = uploads
        .list(
            &List {
                limit: 9,
                ..List::default()
            },
            Some((&key("a"), a.1)),
        )
        .unwrap();
    assert_eq!((entries.len(), more), (4, More::No));
    names.buckets(&Tenant::default()).delete(bucket.name()).unwrap();
    sweep_names(names.kv().as_ref(), 0, None).unwrap();
    for table in [
        crate::Table::Uploads,
        crate::Table::Parts,
        crate::Table::UploadsEnded,
        crate::Table::BucketsGone,
    ] {
        let range = crate::Key::of(&Tenant::default(), table).range();
        assert_eq!(
            names.kv().scan(&range, Order::Forward, 9).unwrap().rows,
            [],
            "{table:?}"
        );
    }
    let late = uploads.begin(&key("a"), UploadRecord::of(me()));
    assert!(matches!(late, Err(crate::Error::NoBucket { .. })), "{late:?}");
}

/// Goal: events leave when they are too old or too many, oldest first, only after the sink has them; who comes late is told.
#[test]
fn the_outbox_is_bounded_and_loses_nothing() {
    let clock = Arc::new(FixedSurroundings::new(1_000, 5));
    let kv = Arc::new(Database::new(Arc::new(MemoryEngine::new())));
    let names = Names::with_surroundings(kv, clock.clone());
    let bucket = bucket(&names, Versioning::Unset);
    let objects = names.objects(&bucket);
    let tenant = Tenant::default();
    put_many(&objects, (0..200).map(|n| format!("old {n}")));
    clock.set_now(100_000);
    put_many(&objects, (0..300).map(|n| format!("new {n}")));
    let outbox = names.outbox(&tenant);
    assert_eq!(outbox.lag("c").unwrap(), 500);
    let bound = OutboxBound {
        age_ms: 50_000,
        events: 250,
    };
    let failed = outbox.seal(&bound, &mut |_| Err(crate::Error::Stopped));
    assert!(matches!(failed, Err(crate::Error::Stopped)));
    let mut lines = Vec::new();
    let sealed = outbox.seal(&bound, &mut |segment| {
        let text = String::from_utf8(segment.lines.clone()).unwrap();
        assert_eq!(text.lines().count() as u64, segment.last - segment.first + 1);
        lines.extend(text.lines().map(str::to_owned));
        Ok(())
    });
    assert_eq!((sealed.unwrap(), lines.len()), (250, 250));
    assert_eq!(lines.iter().filter(|line| line.contains("\"old ")).count(), 200);
    let event: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(
        (&event["event_type"], &event["source"]),
        (&"object.created".into(), &"api".into())
    );
    let mut left = 0;
    for shard in Shard::all() {
        let sealed = outbox.sealed(shard).unwrap();
        if sealed > 0 {
            let early = outbox.read(shard, 0, 10);
            assert!(matches!(early, Err(crate::Error::EventsGone { .. })), "{early:?}");
        }
        let events = outbox.read(shard, sealed, 1000).unwrap();
        left += events.len();
        assert!(
            events
                .iter()
                .map(|(position, _)| *position)
                .eq(sealed + 1..=outbox.end(shard).unwrap())
        );
        outbox.advance("c", shard, outbox.end(shard).unwrap()).unwrap();
    }
    assert_eq!((left, outbox.lag("c").unwrap()), (250, 0));
    assert!(outbox.advance("", Shard::all().next().unwrap(), 1).is_err());
}

#[test]
fn quotas_are_held() {
    let names = names();
    let bucket = bucket(&names, Versioning::Unset);
    let buckets = names.buckets(&bucket.tenant);
    let limited = buckets.update(bucket.name(), |record| {
        record.settings.quota_bytes = Some(10);
        record.settings.quota_objects = Some(2);
        Ok(())
    });
    limited.unwrap();
    let objects = names.objects(&bucket);
    let put = |name: &str, text: &str| objects.put(&key(name), &inline(text), &Condition::Always, &Cause::default());
    // The handle is older than the quota: the commit finds out.
    put("a", "12345").unwrap();
    put("a", "1234567").unwrap();
    assert!(matches!(
        put("b", "1234"),
        Err(crate::Error::OverQuota {
            what: "bytes",
            quota: 10,
            ..
        })
    ));
    put("b", "1").unwrap();
    assert!(matches!(
        put("c", "1"),
        Err(crate::Error::OverQuota {
            what: "objects",
            quota: 2,
            ..
        })
    ));
}

#[test]
fn the_first_access_key_is_made_once_and_secrets_are_not_shown() {
    let names = names();
    let tenant = Tenant::default();
    let FirstKey::Made(first) = names.first_access_key(&tenant, &me()).unwrap() else {
        panic!("there was one");
    };
    assert_eq!(names.first_access_key(&tenant, &me()).unwrap(), FirstKey::There);
    assert_eq!(names.access_key(&first.id).unwrap().as_ref(), Some(&first));
    assert!(!format!("{first:?}").contains(first.secret.reveal()));
    assert_eq!((first.id.as_str().len(), first.secret.reveal().len()), (20, 40));
    assert!(!names.put_access_key(&first).unwrap(), "its id is taken");
    assert!(names.set_access_key(&tenant, &first.id, KeyState::Disabled).unwrap());
    assert_eq!(names.access_keys(&tenant).unwrap()[0].state, KeyState::Disabled);
    assert!(names.delete_access_key(&tenant, &first.id).unwrap());
    assert_eq!(
        (
            names.access_key(&first.id).unwrap(),
            names.access_keys(&tenant).unwrap()
        ),
        (None, vec![])
    );
}

/// Goal: the longest of everything, full of bytes that keys have to escape, fits into rows and their keys.
#[test]
fn the_longest_of_everything_fits() {
    let names = names();
    let bucket = bucket(&names, Versioning::Enabled);
    let objects = names.objects(&bucket);
    let longest = key(&"\0".repeat(OBJECT_KEY_LEN_MAX));
    let mut new = inline(&"x".repeat(INLINE_LEN_MAX));
    new.record.headers.content_type = Some("\0".repeat(HEADERS_LEN_MAX));
    new.record.metadata = vec![("\0".repeat(METADATA_LEN_MAX / 2), "\0".repeat(METADATA_LEN_MAX / 2))];
    new.record.tags = (0..10)
        .map(|n| (format!("{n}{}", "é".repeat(127)), "é".repeat(256)))
        .collect();
    let id = ChecksumAlgorithm::Sha256;
    let sum = Checksum::new(id, ChecksumKind::Composite, &[1; 32]).unwrap();
    new.record.checksums = vec![sum.clone(); 5];
    let part = PartRecord {
        number: 1,
        size: u64::MAX,
        md5: [2; 16],
        checksum: Some(sum),
    };
    new.set_parts(vec![part.clone(); ROW_PARTS_MAX]);
    let first = objects
        .put(&longest, &new, &Condition::Always, &Cause::default())
        .unwrap();
    new.set_parts(vec![part; usize::from(PART_NUMBER_MAX)]);
    let second = objects
        .put(&longest, &new, &Condition::Always, &Cause::default())
        .unwrap();
    for written in [first, second] {
        assert_eq!(objects.version(&longest, written.version.id).unwrap(), written.version);
        let deleted = objects.delete(
            &longest,
            Some(written.version.id),
            &me(),
            &Condition::Always,
            &Cause::default(),
        );
        assert!(matches!(deleted.unwrap(), Deleted::Version { .. }));
    }
    new.record.metadata[0].1.push('x');
    let put = objects.put(&longest, &new, &Condition::Always, &Cause::default());
    assert!(matches!(put, Err(crate::Error::TooLarge { .. })), "{put:?}");
}

/// Goal: a handle from before versions were kept does not answer that there was nothing to delete: a marker is put. Found by the model.
#[test]
fn deleting_nothing_is_decided_by_what_the_bucket_keeps_now() {
    let names = names();
    let old = bucket(&names, Versioning::Unset);
    let kept = names.buckets(&old.tenant).update(&old.name, |record| {
        record.versioning = Versioning::Enabled;
        Ok(())
    });
    kept.unwrap();
    let deleted = names
        .objects(&old)
        .delete(&key("k"), None, &me(), &Condition::Always, &Cause::default());
    assert!(matches!(deleted.unwrap(), Deleted::MarkerPut(_)));
}
