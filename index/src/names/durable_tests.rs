//! Names over RocksDB and real packs: a lost index, a backup taken while it is written, and the collector.

use std::path::Path;
use std::time::Duration;

use cairn_formats::{Chunk, ChunkForm, ChunkId, DigestAlgorithm, DomainId, Level, StorableChunk};
use cairn_store::{ChunkStore as _, Locations, LogPosition, PackEngine, PackOptions, PackStore};

use super::*;
use crate::liveness::{Fence, ManifestChunk, NewManifest, manifest_page};
use crate::{
    BACKUP_INDEX, BACKUP_PACKS, CollectControl, CollectOptions, CollectReport, Collector, Database, Engine as _, Error,
    RocksEngine, RocksOptions, Roots, SnapshotPolicy, backup, write_snapshot,
};

/// Objects of a run that nobody asked more of (`OBJECTS=n`).
const OBJECTS: u64 = 3000;

const CHUNK_LEN: usize = 5000;

struct Store {
    kv: Arc<Database<RocksEngine>>,
    packs: Arc<PackEngine>,
    chunks: PackStore,
    collector: Collector<RocksEngine>,
    names: Names,
    clock: Arc<FixedSurroundings>,
    tenant: Tenant,
}

fn open(folder: &Path) -> Store {
    let engine = Arc::new(RocksEngine::open(&folder.join("index"), &RocksOptions::default()).unwrap());
    let options = PackOptions {
        pack_len: 256 << 10,
        ..PackOptions::default()
    };
    let locations = Arc::clone(&engine) as Arc<dyn Locations>;
    let (packs, report) = PackEngine::open_folder(&folder.join("packs"), options, locations).unwrap();
    assert_eq!(report.suspects, []);
    let packs = Arc::new(packs);
    let kv = Arc::new(Database::logged(engine, packs.clone()));
    let clock = Arc::new(FixedSurroundings::new(1_000_000_000, 11));
    Store {
        collector: Collector::new(kv.clone(), packs.clone(), Duration::ZERO).unwrap(),
        chunks: PackStore::new(packs.clone(), DomainId::default()),
        names: Names::with_surroundings(kv.clone(), clock.clone()),
        clock,
        kv,
        packs,
        tenant: Tenant::default(),
    }
}

fn owner() -> Owner {
    Owner::new("me").unwrap()
}

fn key(n: u64) -> ObjectKey {
    ObjectKey::new(format!("folder {}/object {n}", n % 17)).unwrap()
}

fn chunk(n: u64) -> StorableChunk {
    let mut random = fastrand::Rng::with_seed(n);
    let plain: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(CHUNK_LEN).collect();
    Chunk::from_plain(DigestAlgorithm::default(), plain.into()).encode(ChunkForm::Compressed, Level::DEFAULT)
}

fn inline(text: &str) -> NewVersion {
    let id = DigestAlgorithm::default().id(text.as_bytes());
    let content = NewContent::inline(DomainId::default(), id, text.as_bytes().to_vec()).unwrap();
    NewVersion::new(owner(), content, Etag::opaque("tag").unwrap())
}

impl Store {
    fn bucket(&self, name: &str, versioning: Versioning) -> Bucket {
        let new = NewBucket {
            versioning,
            ..NewBucket::of(owner())
        };
        let name = BucketName::new(name).unwrap();
        self.names.buckets(&self.tenant).create(&name, new).unwrap()
    }

    fn find(&self, name: &str) -> Bucket {
        let name = BucketName::new(name).unwrap();
        self.names.buckets(&self.tenant).get(&name).unwrap()
    }

    fn put(&self, bucket: &Bucket, key: &ObjectKey, new: &NewVersion) -> crate::Result<Written> {
        let objects = self.names.objects(bucket);
        objects.put(key, new, &Condition::Always, &Cause::default())
    }

    fn delete(&self, bucket: &Bucket, key: &ObjectKey, id: Option<VersionId>) -> Deleted {
        let objects = self.names.objects(bucket);
        let deleted = objects.delete(key, id, &owner(), &Condition::Always, &Cause::default());
        deleted.unwrap()
    }

    /// Overwrites, deletes, tags and settings, over and over.
    fn work(&self, numbers: std::ops::Range<u64>) {
        let mut random = fastrand::Rng::with_seed(numbers.start);
        let kept = self.find("kept");
        let plain = self.find("plain");
        for n in numbers {
            let bucket = if random.bool() { &kept } else { &plain };
            let key = key(random.u64(..=n));
            match random.u32(..10) {
                0..6 => _ = self.put(bucket, &key, &inline(&format!("text {n}"))).unwrap(),
                6 | 7 => _ = self.delete(bucket, &key, None),
                8 => {
                    let tags = vec![("n".to_owned(), n.to_string())];
                    let objects = self.names.objects(bucket);
                    let tagged = objects.update(&key, None, &Cause::default(), |object| object.tags = tags.clone());
                    assert!(matches!(tagged, Ok(_) | Err(Error::NoObject { .. })), "{tagged:?}");
                }
                _ => {
                    let buckets = self.names.buckets(&self.tenant);
                    let set = buckets.update(bucket.name(), |record| {
                        record.settings.quota_objects = Some(1_000_000 + n);
                        Ok(())
                    });
                    set.unwrap();
                }
            }
        }
    }

    /// All that can be listed.
    fn all(&self) -> Vec<String> {
        let buckets = self.names.buckets(&self.tenant);
        let list = ListBuckets {
            limit: 1000,
            ..ListBuckets::default()
        };
        let mut all = vec![format!("{:?}", buckets.usage().unwrap())];
        for bucket in buckets.list(&list).unwrap().buckets {
            all.push(format!("{bucket:?} {:?}", buckets.usage_of(&bucket).unwrap()));
            let objects = self.names.objects(&bucket);
            let list = List {
                limit: 1000,
                ..List::default()
            };
            let mut from = VersionStart::default();
            loop {
                let page = objects.list_versions(&list, &from).unwrap();
                all.extend(page.entries.iter().map(|entry| format!("{entry:?}")));
                let Some(next) = page.next else { break };
                from = next;
            }
            let search = Search {
                tags: vec![("n".to_owned(), "77".to_owned())],
                ..Search::default()
            };
            all.push(format!("{:?}", objects.search(&search, None, 1000).unwrap().objects));
        }
        let outbox = self.names.outbox(&self.tenant);
        all.extend(Shard::all().map(|shard| format!("{:?}", outbox.end(shard).unwrap())));
        all
    }

    fn collect(&self) -> CollectReport {
        let options = CollectOptions {
            roots: Roots::Rooted,
            now: self.clock.now_ms() / 1000,
            grace: Duration::ZERO,
            reserve: false,
            commits_kept_from: LogPosition {
                pack: u32::MAX,
                offset: 0,
            },
            snapshots: SnapshotPolicy::default(),
            ..CollectOptions::default()
        };
        self.collector.collect(&options, &CollectControl::new()).unwrap()
    }

    fn send(&self, numbers: &[u64]) -> (Fence, Vec<ManifestChunk>) {
        let fence = Fence::now(self.kv.as_ref()).unwrap();
        let chunks: Vec<StorableChunk> = numbers.iter().map(|n| chunk(*n)).collect();
        self.chunks.put_many(&chunks).unwrap();
        self.chunks.flush().unwrap();
        let named = |chunk: &StorableChunk| ManifestChunk {
            id: chunk.id(),
            len: CHUNK_LEN as u32,
        };
        (fence, chunks.iter().map(named).collect())
    }

    fn in_row(&self, numbers: &[u64]) -> NewContent {
        let (fence, chunks) = self.send(numbers);
        NewContent::chunks(DomainId::default(), chunks, fence).unwrap()
    }

    fn in_pages(&self, numbers: &[u64]) -> NewContent {
        let (fence, chunks) = self.send(numbers);
        let id: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
        let until = self.clock.now_ms() / 1000 + 60;
        let mut new = NewManifest::begin(self.kv.as_ref(), &self.tenant, id, DomainId::default(), until).unwrap();
        new.push(&chunks).unwrap();
        new.finish().unwrap();
        NewContent::manifest(&new, fence)
    }

    fn there(&self, numbers: &[u64]) -> Vec<bool> {
        let ids: Vec<ChunkId> = numbers.iter().map(|n| chunk(*n).id()).collect();
        self.chunks.has_many(&ids).unwrap()
    }

    fn version(&self, content: NewContent) -> NewVersion {
        NewVersion::new(owner(), content, Etag::opaque("tag").unwrap())
    }
}

fn objects_wanted() -> u64 {
    let wanted = std::env::var("OBJECTS").ok();
    wanted.map_or(OBJECTS, |wanted| wanted.parse().expect("a number of objects"))
}

/// Goal: an index that was lost comes back from the packs with all names: overwrites, deletes, tags, settings, counters, events;
/// from commits alone, and from a snapshot with commits behind it.
#[test]
fn a_lost_index_comes_back_with_all_names() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.bucket("kept", Versioning::Enabled);
    store.bucket("plain", Versioning::Unset);
    drop(store);
    let wanted = objects_wanted();
    for part in 0..2 {
        let store = open(folder.path());
        store.work(part * wanted / 2..(part + 1) * wanted / 2);
        let before = store.all();
        assert!(before.len() as u64 > (part + 1) * wanted / 8, "{}", before.len());
        drop(store);
        std::fs::remove_dir_all(folder.path().join("index")).unwrap();
        let began = std::time::Instant::now();
        let store = open(folder.path());
        println!("{} names made again in {:.1?}", before.len(), began.elapsed());
        assert_eq!(store.all(), before);
        let written = write_snapshot(store.kv.engine().as_ref(), &store.packs, &mut |_| Ok(()));
        assert!(written.unwrap().is_some());
    }
}

/// Goal: a backup taken while others write opens as the store at one moment, with all that was acknowledged before it began.
#[test]
fn a_backup_under_load_restores_to_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.bucket("kept", Versioning::Enabled);
    let plain = store.bucket("plain", Versioning::Unset);
    store.work(0..300);
    let before = store.all();
    let quiet = folder.path().join("quiet");
    let report = backup(&store.kv, &store.packs, &folder.path().join("packs"), &quiet).unwrap();
    assert!(report.packs > 0 && report.version == store.kv.engine().version());
    assert!(
        backup(&store.kv, &store.packs, &folder.path().join("packs"), &quiet).is_err(),
        "it is there"
    );
    let busy = folder.path().join("busy");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (300..).take_while(|_| !stop.load(std::sync::atomic::Ordering::Relaxed)) {
                // Each commit has both, or none.
                store.put(&plain, &key(n), &inline(&format!("busy {n}"))).unwrap();
                store
                    .put(&plain, &key(n % 7), &store.version(store.in_row(&[n])))
                    .unwrap();
                if n % 50 == 0 {
                    store.collect();
                }
            }
        });
        std::thread::scope(|inner| {
            inner.spawn(|| backup(&store.kv, &store.packs, &folder.path().join("packs"), &busy).unwrap());
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    drop(store);
    let restored = |place: &Path| {
        std::fs::rename(place.join(BACKUP_INDEX), place.join("index")).unwrap();
        assert!(place.join(BACKUP_PACKS).is_dir());
        open(place)
    };
    assert_eq!(restored(&quiet).all(), before);
    let busy = restored(&busy);
    assert!(busy.all().len() >= before.len());
    // What rows name is in the packs that were copied.
    let bucket = busy.find("plain");
    let objects = busy.names.objects(&bucket);
    for n in 0..7 {
        if let Current::Object(found) = objects.get(&key(n)).unwrap()
            && let Some(Content::Chunks { chunks, .. }) = found.object().map(|object| &object.content)
        {
            let ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id).collect();
            assert!(busy.chunks.get_many(&ids).into_iter().all(|read| read.is_ok()));
        }
    }
}

/// Goal: chunks that versions and parts name stay, in rows and in pages; those of what was deleted, replaced or given up go.
#[test]
fn versions_and_parts_keep_their_chunks_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let kept = store.bucket("kept", Versioning::Enabled);
    let plain = store.bucket("plain", Versioning::Unset);
    store
        .put(&plain, &key(1), &store.version(store.in_row(&[1, 2])))
        .unwrap();
    store
        .put(&plain, &key(2), &store.version(store.in_pages(&[3, 4])))
        .unwrap();
    let old = store.put(&kept, &key(1), &store.version(store.in_row(&[5]))).unwrap();
    store
        .put(&kept, &key(1), &store.version(store.in_pages(&[6, 7])))
        .unwrap();
    assert!(matches!(store.delete(&kept, &key(1), None), Deleted::MarkerPut(_)));
    let uploads = store.names.uploads(&plain);
    let upload = uploads.begin(&key(3), UploadRecord::of(owner())).unwrap();
    let part = |number: u64, content: NewContent| NewPart {
        number: PartNumber::new(number).unwrap(),
        md5: [0; 16],
        checksum: None,
        size: content.content().byte_len(),
        content,
        state: bytes::Bytes::new(),
    };
    let first = uploads.put_part(&upload, &part(1, store.in_pages(&[8, 9]))).unwrap();
    uploads.put_part(&upload, &part(2, store.in_row(&[10]))).unwrap();
    let (fence, seam) = store.send(&[11]);
    let change = PartChange {
        number: first.number,
        row: first.row,
        seam,
        state: bytes::Bytes::new(),
    };
    assert_eq!(
        uploads.change_parts(&upload, &[change], &fence).unwrap(),
        PartsChanged::Done
    );
    store.send(&[20, 21]);
    let report = store.collect();
    assert_eq!((report.swept.chunks, report.named.chunks), (2, 11), "{report:?}");
    assert!(store.there(&[20, 21]).iter().all(|there| !there));
    assert!(
        store
            .there(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
            .iter()
            .all(|there| *there)
    );

    // Replaced, deleted, sent again, given up.
    store.put(&plain, &key(2), &inline("small")).unwrap();
    assert!(matches!(
        store.delete(&kept, &key(1), Some(old.version.id)),
        Deleted::Version { .. }
    ));
    uploads.put_part(&upload, &part(2, store.in_row(&[12]))).unwrap();
    store.collect();
    assert_eq!(store.there(&[3, 4, 5, 10]), [false; 4]);
    assert!(store.there(&[1, 2, 6, 7, 8, 9, 11, 12]).iter().all(|there| *there));
    uploads.abort(&key(3), upload.id).unwrap();
    store.delete(&plain, &key(1), None);
    store.collect();
    assert_eq!(store.there(&[1, 2, 8, 9, 11, 12]), [false; 6]);
    assert_eq!(store.there(&[6, 7]), [true; 2]);
    // Pages of what is gone are read for an hour.
    store.clock.set_now(store.clock.now_ms() + 7_200_000);
    let report = store.collect();
    assert_eq!(report.manifests_swept, 2, "{report:?}");
    let objects = store.names.objects(&kept);
    let newest = objects
        .list_versions(
            &List {
                limit: 9,
                ..List::default()
            },
            &VersionStart::default(),
        )
        .unwrap();
    let Some(Listed::Item(older)) = newest.entries.get(1) else {
        panic!("{newest:?}");
    };
    let Some(Content::Manifest(pages)) = older.version.object().map(|object| &object.content) else {
        panic!("{older:?}");
    };
    assert_eq!(
        manifest_page(store.kv.as_ref(), &store.tenant, pages, 0).unwrap().len(),
        2
    );
}

/// Goal: a version cannot come to name what was condemned after its chunks were looked up.
#[test]
fn a_version_is_not_committed_behind_a_collection() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let bucket = store.bucket("plain", Versioning::Unset);
    let stale = store.version(store.in_row(&[1]));
    store.collect();
    assert_eq!(store.there(&[1]), [false]);
    let put = store.put(&bucket, &key(1), &stale);
    assert!(matches!(put, Err(Error::FenceMoved)), "{put:?}");
    let (fence, _) = store.send(&[1]);
    store.put(&bucket, &key(1), &stale.with_fence(fence)).unwrap();
    // Pages that were left for too long are given up, and do not come to count.
    let late = store.version(store.in_pages(&[2]));
    store.clock.set_now(store.clock.now_ms() + 120_000);
    store.collect();
    let (fence, _) = store.send(&[2]);
    let put = store.put(&bucket, &key(2), &late.with_fence(fence));
    assert!(matches!(put, Err(Error::Malformed { .. })), "{put:?}");
    store.collect();
    assert_eq!(store.there(&[1, 2]), [true, false]);
}

/// Goal: searches over many objects find what is there and read no more than their bound; the run that asks for more (`OBJECTS=n`)
/// tells how long they take.
#[test]
fn searches_over_many_objects_stay_within_their_bound() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Arc::new(RocksEngine::open(folder.path(), &RocksOptions::default()).unwrap());
    let surroundings = Arc::new(FixedSurroundings::new(1_000_000, 1));
    let names = Names::with_surroundings(Arc::new(Database::new(engine)), surroundings.clone());
    let (tenant, name) = (Tenant::default(), BucketName::new("many").unwrap());
    let bucket = names.buckets(&tenant).create(&name, NewBucket::of(owner())).unwrap();
    let objects = names.objects(&bucket);
    let count = objects_wanted();
    let mut random = fastrand::Rng::with_seed(5);
    let tag = |name: &str, n: u64| (name.to_owned(), n.to_string());
    let mut teams = vec![0_usize; 100];
    for n in 0..count {
        surroundings.set_now(1_000_000 + 1000 * n);
        let team = random.u64(..100);
        teams[team as usize] += 1;
        let mut new = inline(&"x".repeat(random.usize(..200)));
        new.record.tags = vec![tag("team", team), tag("half", n % 2)];
        new.record.headers.content_type = Some(format!("type/{}", n % 7));
        let key = ObjectKey::new(format!("f{}/{n}", n % 50)).unwrap();
        objects.put(&key, &new, &Condition::Always, &Cause::default()).unwrap();
    }
    let mut times = Vec::new();
    for n in 0..300 {
        let mut search = Search::default();
        let (team, newest) = (random.u64(..100), 1_000_000 + 1000 * count);
        match n % 6 {
            0 => search.tags = vec![tag("team", team)],
            1 => search.tags = vec![tag("half", 0), tag("team", team)],
            2 => (search.prefix, search.content_type) = (format!("f{}/", team % 50), Some("type/3".to_owned())),
            3 => (search.size, search.tags) = (Some(5..=6), vec![tag("half", 1)]),
            4 => (search.created_ms, search.owner) = (Some(newest - 5000..=newest), Some(owner())),
            _ => (search.content_type, search.size) = (Some("type/1".to_owned()), Some(0..=3)),
        }
        let began = std::time::Instant::now();
        let page = objects.search(&search, None, 50).unwrap();
        times.push(began.elapsed());
        assert!(page.scanned <= SEARCH_KEYS_MAX, "{search:?}: {}", page.scanned);
        if n % 6 == 0 {
            assert_eq!(page.objects.len(), teams[team as usize].min(50));
        }
    }
    times.sort();
    println!(
        "{count} objects: p50 {:.1?}, p95 {:.1?}, slowest {:.1?}",
        times[150], times[285], times[299]
    );
}
