//! Two tenants, each with what the other was given: names, ids, cursors, in every method that reads or changes by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use cairn_formats::{DigestAlgorithm, DomainId};
use cairn_store::ChunkKey;

use super::*;
use crate::{Database, Error, MemoryEngine};

const KEYS: usize = 6;

/// All that a tenant was ever given.
#[derive(Default)]
struct Given {
    buckets: Vec<Bucket>,
    versions: Vec<(ObjectKey, VersionId, ObjectVersion)>,
    uploads: Vec<(ObjectKey, Upload)>,
    ended: Vec<(ObjectKey, UploadId)>,
    access: Vec<AccessKeyId>,
    chunks: Vec<ChunkKey>,
    searches: Vec<(Search, SearchPlace)>,
    tenant_searches: Vec<(Search, TenantSearchPlace)>,
    list_starts: Vec<ListStart>,
    version_starts: Vec<VersionStart>,
}

struct World {
    names: Names,
    random: fastrand::Rng,
    tenants: [Tenant; 2],
    given: [Given; 2],
}

fn owner() -> Owner {
    Owner::new("anna").unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let kv = Arc::new(Database::new(Arc::new(MemoryEngine::new())));
        let surroundings = FixedSurroundings::new(1_000_000, seed);
        let mut world = Self {
            names: Names::with_surroundings(kv, Arc::new(surroundings)),
            random: fastrand::Rng::with_seed(seed),
            tenants: ["first", "second"].map(|name| Tenant::new(name).unwrap()),
            given: Default::default(),
        };
        for who in 0..2 {
            for n in 0..2 {
                let name = BucketName::new(&format!("{}-{n}", world.tenants[who].as_str())).unwrap();
                let mut new = NewBucket::of(owner());
                new.versioning = [Versioning::Enabled, Versioning::Unset][n];
                let made = world.names.buckets(&world.tenants[who]).create(&name, new).unwrap();
                world.given[who].buckets.push(made);
            }
        }
        world
    }

    fn key(&mut self) -> ObjectKey {
        ObjectKey::new(format!("key {}", self.random.usize(..KEYS))).unwrap()
    }

    /// A change of a tenant's own.
    fn step(&mut self, who: usize) {
        let (names, key) = (self.names.clone(), self.key());
        let bucket = self.random.choice(&self.given[who].buckets).unwrap().clone();
        let cause = Cause::default();
        let (tenant, mark) = (self.tenants[who].clone(), self.tenants[who].as_str().to_owned());
        let given = &mut self.given[who];
        match self.random.u32(..10) {
            0..5 => {
                let bytes = format!("{mark} {}", self.random.u64(..)).into_bytes();
                let id = DigestAlgorithm::default().id(&bytes);
                let content = NewContent::inline(DomainId::default(), id, bytes).unwrap();
                let mut new = NewVersion::new(owner(), content, Etag::of_md5(&[7; 16]));
                new.record.metadata.push(("of".to_owned(), mark));
                new.record.tags.push(("same".to_owned(), "yes".to_owned()));
                let written = names
                    .objects(&bucket)
                    .put(&key, &new, &Condition::Always, &cause)
                    .unwrap();
                let domain = DomainId::default();
                given.chunks.push(ChunkKey { domain, id });
                given.versions.push((key, written.version.id, written.version));
            }
            5 => {
                let deleted = names
                    .objects(&bucket)
                    .delete(&key, None, &owner(), &Condition::Always, &cause);
                if let Deleted::MarkerPut(id) = deleted.unwrap() {
                    let marker = names.objects(&bucket).version(&key, id).unwrap();
                    given.versions.push((key, id, marker));
                }
            }
            6 | 7 => {
                let begun = names.uploads(&bucket).begin(&key, UploadRecord::of(owner())).unwrap();
                given.uploads.push((key, begun));
            }
            8 => {
                if let Some((key, upload)) = given.uploads.pop() {
                    given
                        .buckets
                        .iter()
                        .for_each(|bucket| _ = names.uploads(bucket).abort(&key, upload.id));
                    given.ended.push((key, upload.id));
                }
            }
            _ => given
                .access
                .push(names.create_access_key(&tenant, &owner()).unwrap().id),
        }
    }

    /// Pages, for their cursors.
    fn list(&mut self, who: usize) {
        let Self {
            names, given, tenants, ..
        } = self;
        let given = &mut given[who];
        let searches = [
            Search::default(),
            Search {
                tags: vec![("same".to_owned(), "yes".to_owned())],
                ..Search::default()
            },
            Search {
                owner: Some(owner()),
                ..Search::default()
            },
            Search {
                size: Some(0..=u64::MAX),
                ..Search::default()
            },
        ];
        let list = List {
            limit: 1,
            ..List::default()
        };
        for bucket in &given.buckets {
            let objects = names.objects(bucket);
            for search in &searches {
                let next = objects.search(search, None, 1).unwrap().next;
                given.searches.extend(next.map(|next| (search.clone(), next)));
            }
            given.list_starts.extend(objects.list(&list).unwrap().next);
            given
                .version_starts
                .extend(objects.list_versions(&list, &VersionStart::AsListed).unwrap().next);
        }
        for search in searches {
            let next = names
                .buckets(&tenants[who])
                .search(&search, None, None, 1)
                .unwrap()
                .next;
            given.tenant_searches.extend(next.map(|next| (search, next)));
        }
    }

    fn is_own(&self, who: usize, version: &ObjectVersion) -> bool {
        let others = &self.given[1 - who].versions;
        let has_mark =
            |object: &ObjectRecord| object.metadata == [("of".to_owned(), self.tenants[who].as_str().to_owned())];
        version.object().is_none_or(has_mark)
            && (version.id.is_null() || others.iter().all(|(_, id, _)| *id != version.id))
    }

    /// A tenant asks with what the other was given.
    fn ask(&mut self, who: usize) {
        let mut random = self.random.fork();
        let (names, tenant) = (&self.names, &self.tenants[who]);
        let (own, other) = (&self.given[who], &self.given[1 - who]);
        let bucket = random.choice(&own.buckets).unwrap();
        let theirs = random.choice(&other.buckets).unwrap().name();
        let cause = Cause::default();
        let buckets = names.buckets(tenant);
        let no_bucket = |result: Result<()>| assert!(matches!(result, Err(Error::NoBucket { .. })), "{result:?}");
        no_bucket(buckets.get(theirs).map(drop));
        no_bucket(buckets.update(theirs, |_| Ok(())).map(drop));
        no_bucket(buckets.delete(theirs));
        no_bucket(buckets.search(&Search::default(), Some(theirs), None, 10).map(drop));
        assert!(matches!(
            buckets.create(theirs, NewBucket::of(owner())),
            Err(Error::BucketTaken { .. })
        ));
        for after in [None, Some(theirs)] {
            let list = ListBuckets {
                after,
                limit: 100,
                ..ListBuckets::default()
            };
            let listed = buckets.list(&list).unwrap().buckets;
            assert!(
                listed
                    .iter()
                    .all(|bucket| own.buckets.iter().any(|own| own.name() == bucket.name()))
            );
        }

        let objects = names.objects(bucket);
        if let Some((key, id, version)) = random.choice(&other.versions) {
            if let Current::Object(found) | Current::Deleted(found) = objects.get(key).unwrap() {
                assert!(self.is_own(who, &found));
            }
            match objects.version(key, *id) {
                Ok(found) => assert!(id.is_null() && self.is_own(who, &found)),
                Err(error) => assert!(matches!(error, Error::NoVersion { .. }), "{error:?}"),
            }
            if !id.is_null() {
                let changed = objects.update(key, Some(*id), &cause, |_| panic!("it was found"));
                assert!(matches!(changed, Err(Error::NoVersion { .. })));
                let deleted = objects
                    .delete(key, Some(*id), &owner(), &Condition::Always, &cause)
                    .unwrap();
                assert_eq!(deleted, Deleted::Nothing);
            }
            // Parts are in the row or under an id of their own, of the tenant.
            let mut paged = version.clone();
            if let VersionKind::Object(record) = &mut paged.kind {
                record.parts = Parts::Paged { id: [9; 16], count: 1 };
                assert!(objects.parts(&paged, 0, 10).is_err());
            }
            for start in [VersionStart::Version(key.clone(), *id), VersionStart::AsListed] {
                let list = List {
                    limit: 1000,
                    ..List::default()
                };
                for listed in objects.list_versions(&list, &start).unwrap().entries {
                    let Listed::Item(listed) = listed else {
                        panic!("no delimiter was given")
                    };
                    assert!(self.is_own(who, &listed.version));
                }
            }
        }
        for start in other.list_starts.iter().take(5) {
            let list = List {
                limit: 1000,
                start: ListStart::from_token(&start.to_token().unwrap()).unwrap(),
                ..List::default()
            };
            for listed in objects.list(&list).unwrap().entries {
                let Listed::Item(listed) = listed else {
                    panic!("no delimiter was given")
                };
                assert!(self.is_own(who, &listed.version));
            }
        }
        for start in other.version_starts.iter().take(5) {
            let list = List {
                limit: 1000,
                ..List::default()
            };
            for listed in objects.list_versions(&list, start).unwrap().entries {
                let Listed::Item(listed) = listed else {
                    panic!("no delimiter was given")
                };
                assert!(self.is_own(who, &listed.version));
            }
        }
        if let Some((search, place)) = random.choice(&other.searches) {
            let place = SearchPlace::from_bytes(&place.to_bytes()).unwrap();
            let found = objects.search(search, Some(&place), 1000);
            assert!(matches!(found, Err(Error::BadPlace { .. })), "{found:?}");
            // Changed by a byte anywhere it leads nowhere else either.
            let mut bytes = place.to_bytes();
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
            if let Ok(page) =
                SearchPlace::from_bytes(&bytes).and_then(|place| objects.search(search, Some(&place), 1000))
            {
                assert!(page.objects.iter().all(|found| self.is_own(who, &found.version)));
            }
        }
        for (search, place) in &other.tenant_searches {
            let found = buckets.search(search, None, Some(place), 1000);
            let found = found.map(|page| page.objects).unwrap_or_default();
            assert!(found.iter().all(|found| self.is_own(who, &found.object.version)));
            assert!(
                found
                    .iter()
                    .all(|found| own.buckets.iter().any(|own| *own.name() == found.bucket))
            );
        }

        let uploads = names.uploads(bucket);
        if let Some((key, upload)) = random.choice(&other.uploads) {
            let no_upload = |result: Result<()>| assert!(matches!(result, Err(Error::NoUpload { .. })), "{result:?}");
            no_upload(uploads.get(key, upload.id).map(drop));
            no_upload(uploads.abort(key, upload.id));
            no_upload(uploads.expire(key, upload.id, &cause));
            assert_eq!(uploads.parts(upload, None, 100).unwrap(), []);
            assert_eq!(uploads.part(upload, PartNumber::new(1).unwrap()).unwrap(), None);
            assert_eq!(uploads.completed(key, upload.id).unwrap(), None);
            let list = List {
                limit: 1000,
                ..List::default()
            };
            let (listed, _) = uploads.list(&list, Some((key, upload.id))).unwrap();
            for entry in listed {
                let Listed::Item(listed) = entry else {
                    panic!("no delimiter was given")
                };
                assert!(other.uploads.iter().all(|(_, upload)| upload.id != listed.id));
            }
        }
        for (key, id) in &other.ended {
            assert_eq!(uploads.completed(key, *id).unwrap(), None);
            assert!(uploads.get(key, *id).is_err());
        }

        if let Some(id) = random.choice(&other.access) {
            assert_eq!(names.access_key_of(tenant, id).unwrap(), None);
            assert!(!names.set_access_key(tenant, id, KeyState::Disabled).unwrap());
            assert!(!names.delete_access_key(tenant, id).unwrap());
            let page = names.list_access_keys(tenant, Some(id), 100).unwrap();
            assert!(page.keys.iter().all(|key| key.tenant == *tenant));
        }
        assert!(
            names
                .access_keys(tenant)
                .unwrap()
                .iter()
                .all(|key| key.tenant == *tenant)
        );
        for chunk in &other.chunks {
            assert_eq!(names.inline_chunk(tenant, chunk).unwrap(), None);
        }
        let ids: Vec<_> = other.chunks.iter().map(|chunk| chunk.id).collect();
        let there = names.has_inline_chunks(tenant, DomainId::default(), &ids).unwrap();
        assert!(there.iter().all(|there| !there));
        let named: BTreeSet<&str> = own.buckets.iter().map(|bucket| bucket.name().as_str()).collect();
        for shard in Shard::all() {
            for (_, event) in names.outbox(tenant).read(shard, 0, 10_000).unwrap() {
                let bucket = event.payload["bucket"].as_str().unwrap();
                assert!(named.contains(bucket), "{bucket}");
            }
        }
        assert_eq!(buckets.usage().unwrap().versions, self.count(who));
    }

    /// Versions that a tenant has, as its listings say.
    fn count(&self, who: usize) -> u64 {
        let list = List {
            limit: 10_000,
            ..List::default()
        };
        let count = |bucket: &Bucket| {
            let page = self.names.objects(bucket).list_versions(&list, &VersionStart::AsListed);
            page.unwrap().entries.len() as u64
        };
        self.given[who].buckets.iter().map(count).sum()
    }
}

/// Goal: nothing of a tenant is found, listed, counted or changed by whatever another asks for with the names, ids and cursors that the
/// first was given.
/// Method: both do the same kinds of things under the same keys; what is found must bear the mark of who asks.
#[test]
fn a_tenant_finds_nothing_by_the_ids_of_another() {
    let seeds = std::env::var("SEED").map_or(0..60, |seed| {
        let seed: u64 = seed.parse().unwrap();
        seed..seed + 1
    });
    for seed in seeds {
        let mut world = World::new(seed);
        for round in 0..8 {
            for _ in 0..12 {
                let who = world.random.usize(..2);
                world.step(who);
            }
            for who in 0..2 {
                world.list(who);
            }
            for who in 0..2 {
                println!("seed {seed}, round {round}, tenant {who}");
                world.ask(who);
            }
        }
        assert_eq!(world.names.tenants(None, 10).unwrap().tenants, world.tenants);
    }
}
