//! Names against a map of lists: any order of calls, whatever a bucket keeps, has to leave what the map says, in every listing.

use std::collections::{BTreeMap, BTreeSet};

use cairn_formats::{DigestAlgorithm, DomainId};
use proptest::prelude::*;

use super::*;
use crate::{Database, Error, MemoryEngine};

/// Keys that are prefixes of each other, hold the delimiter, bytes that keys of rows escape, and more than one byte a character.
const KEYS: [&str; 14] = [
    "a",
    "a/",
    "a//b",
    "a/b",
    "a/b/c",
    "a/c",
    "a0",
    "b/x/1",
    "b/x/2",
    "b\0",
    "b\0\u{1}",
    "é",
    "é/ü",
    "\u{10ffff}/z",
];
const PREFIXES: [&str; 8] = ["", "a", "a/", "b", "b/x/", "é", "nothing", "a/b/c"];
const DELIMITERS: [&str; 4] = ["", "/", "//", "b"];

#[derive(Clone, Debug)]
enum Step {
    Put { key: usize, text: u8, condition: When },
    Delete { key: usize, condition: When },
    DeleteVersion { key: usize, nth: usize, condition: When },
    DeleteUnknown { key: usize },
    Tag { key: usize, nth: Option<usize>, value: u8 },
    Keep(Versioning),
    Clock(u64),
}

#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    Absent,
    Present,
    Tagged(u8),
}

/// A version of the model: what was put, or `None` for a delete marker; and the value of its tag.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    id: VersionId,
    text: Option<u8>,
    tag: Option<u8>,
    created_ms: u64,
}

#[derive(Default)]
struct Model {
    /// Newest first.
    keys: BTreeMap<String, Vec<Held>>,
    keeps: Versioning,
    events: u64,
}

impl Model {
    fn current(&self, key: &str) -> Option<&Held> {
        self.keys.get(key)?.first().filter(|held| held.text.is_some())
    }

    fn allows(condition: When, held: Option<&Held>) -> std::result::Result<(), &'static str> {
        let held = held.filter(|held| held.text.is_some());
        match (condition, held) {
            (When::Always, _) | (When::Absent, None) | (When::Present, Some(_)) => Ok(()),
            (When::Absent, Some(_)) => Err("precondition"),
            (_, None) => Err("no object"),
            (When::Tagged(text), Some(held)) => (held.text == Some(text)).then_some(()).ok_or("precondition"),
        }
    }

    fn write(&mut self, key: &str, held: Held) {
        let versions = self.keys.entry(key.to_owned()).or_default();
        if held.id.is_null() {
            versions.retain(|old| !old.id.is_null());
        }
        versions.insert(0, held);
        self.events += 1;
    }

    fn remove(&mut self, key: &str, id: VersionId) {
        let versions = self.keys.get_mut(key).expect("it was found there");
        versions.retain(|held| held.id != id);
        if versions.is_empty() {
            self.keys.remove(key);
        }
        self.events += 1;
    }
}

fn content(text: u8) -> NewVersion {
    let bytes = vec![text; usize::from(text)];
    let id = DigestAlgorithm::default().id(&bytes);
    let content = NewContent::inline(DomainId::default(), id, bytes).unwrap();
    let mut new = NewVersion::new(Owner::new("me").unwrap(), content, etag(text));
    new.record.headers.content_type = Some(format!("type/{}", text % 2));
    new.record.sha256 = text.is_multiple_of(2).then_some([text; 32]);
    new.record.blake3 = (text > 0).then_some([text; 32]);
    new
}

fn etag(text: u8) -> Etag {
    Etag::of_md5(&[text; 16])
}

fn condition(when: When) -> Condition {
    match when {
        When::Always => Condition::Always,
        When::Absent => Condition::Absent,
        When::Present => Condition::Present,
        When::Tagged(text) => Condition::Matches(vec![etag(text)]),
    }
}

/// What a call answered, as the model says it.
fn told<T>(result: crate::Result<T>) -> std::result::Result<T, &'static str> {
    result.map_err(|error| match error {
        Error::Precondition { .. } => "precondition",
        Error::NoObject { .. } => "no object",
        Error::NoVersion { .. } => "no version",
        error => panic!("{error:?}"),
    })
}

struct World {
    names: Names,
    clock: Arc<FixedSurroundings>,
    tenant: Tenant,
    bucket: BucketName,
    model: Model,
}

impl World {
    fn new(kv: Arc<dyn Kv>) -> Self {
        let clock = Arc::new(FixedSurroundings::new(10_000, 3));
        let names = Names::with_surroundings(kv, clock.clone());
        let (tenant, bucket) = (Tenant::default(), BucketName::new("bucket").unwrap());
        let mut new = NewBucket::of(Owner::new("me").unwrap());
        new.settings.digests = vec![DigestFunction::Blake3];
        names.buckets(&tenant).create(&bucket, new).unwrap();
        Self {
            names,
            clock,
            tenant,
            bucket,
            model: Model::default(),
        }
    }

    fn bucket(&self) -> Bucket {
        self.names.buckets(&self.tenant).get(&self.bucket).unwrap()
    }

    fn step(&mut self, bucket: &Bucket, step: &Step) {
        let objects = self.names.objects(bucket);
        let (me, cause) = (Owner::new("me").unwrap(), Cause::default());
        match step {
            Step::Put {
                key,
                text,
                condition: when,
            } => {
                let key = KEYS[*key];
                let allowed = Model::allows(*when, self.model.current(key));
                let name = ObjectKey::new(key).unwrap();
                let put = told(objects.put(&name, &content(*text), &condition(*when), &cause));
                assert_eq!(put.as_ref().map(drop).map_err(|why| *why), allowed);
                let Ok(written) = put else { return };
                let id = written.version.id;
                assert_eq!(id.is_null(), self.model.keeps != Versioning::Enabled);
                let created_ms = written.version.created_ms();
                self.model.write(
                    key,
                    Held {
                        id,
                        text: Some(*text),
                        tag: None,
                        created_ms,
                    },
                );
            }
            Step::Delete { key, condition: when } => {
                let key = KEYS[*key];
                let allowed = Model::allows(*when, self.model.current(key));
                let name = ObjectKey::new(key).unwrap();
                let deleted = told(objects.delete(&name, None, &me, &condition(*when), &cause));
                assert_eq!(deleted.as_ref().map(drop).map_err(|why| *why), allowed);
                match deleted {
                    Err(_) => {}
                    Ok(Deleted::Nothing) => {
                        assert!(self.model.keeps == Versioning::Unset && !self.model.keys.contains_key(key));
                    }
                    Ok(Deleted::Version { id, .. }) => {
                        assert_eq!(self.model.keeps, Versioning::Unset);
                        self.model.remove(key, id);
                    }
                    Ok(Deleted::MarkerPut(id)) => {
                        let marker = objects.version(&name, id).unwrap();
                        let created_ms = marker.created_ms();
                        self.model.write(
                            key,
                            Held {
                                id,
                                text: None,
                                tag: None,
                                created_ms,
                            },
                        );
                    }
                }
            }
            Step::DeleteVersion {
                key,
                nth,
                condition: when,
            } => {
                let key = KEYS[*key];
                let Some(versions) = self.model.keys.get(key) else {
                    return;
                };
                let held = versions[*nth % versions.len()].clone();
                let allowed = Model::allows(*when, Some(&held));
                let name = ObjectKey::new(key).unwrap();
                let deleted = told(objects.delete(&name, Some(held.id), &me, &condition(*when), &cause));
                assert_eq!(deleted.as_ref().map(drop).map_err(|why| *why), allowed);
                if let Ok(deleted) = deleted {
                    let was_marker = held.text.is_none();
                    assert_eq!(
                        deleted,
                        Deleted::Version {
                            id: held.id,
                            was_marker
                        }
                    );
                    self.model.remove(key, held.id);
                }
            }
            Step::DeleteUnknown { key } => {
                let name = ObjectKey::new(KEYS[*key]).unwrap();
                let unknown = VersionId::parse(&"7".repeat(40)).unwrap();
                let deleted = objects.delete(&name, Some(unknown), &me, &Condition::Always, &cause);
                assert_eq!(deleted.unwrap(), Deleted::Nothing);
            }
            Step::Tag { key, nth, value } => {
                let key = KEYS[*key];
                let name = ObjectKey::new(key).unwrap();
                let versions = self.model.keys.get(key);
                let held = match nth {
                    None => self.model.current(key).cloned(),
                    Some(nth) => versions.map(|versions| versions[nth % versions.len()].clone()),
                };
                let id = nth.and(held.as_ref()).map(|held| held.id);
                let tags = vec![("tag".to_owned(), value.to_string())];
                let changed = told(objects.update(&name, id, &cause, |object| object.tags = tags.clone()));
                match held {
                    Some(held) if held.text.is_some() => {
                        changed.unwrap();
                        let versions = self.model.keys.get_mut(key).unwrap();
                        let held = versions.iter_mut().find(|old| old.id == held.id).unwrap();
                        held.tag = Some(*value);
                        self.model.events += 1;
                    }
                    _ => assert!(matches!(changed, Err("no object" | "no version"))),
                }
            }
            Step::Keep(keeps) => {
                // Never back to unset.
                if *keeps == Versioning::Unset {
                    return;
                }
                let buckets = self.names.buckets(&self.tenant);
                let kept = buckets.update(&self.bucket, |record| {
                    record.versioning = *keeps;
                    Ok(())
                });
                kept.unwrap();
                self.model.keeps = *keeps;
            }
            Step::Clock(now_ms) => self.clock.set_now(*now_ms),
        }
    }

    /// Everything that can be read is what the model says.
    fn check(&self, limit: usize) {
        let bucket = self.bucket();
        let objects = self.names.objects(&bucket);
        for key in KEYS {
            let name = ObjectKey::new(key).unwrap();
            let versions = self.model.keys.get(key).cloned().unwrap_or_default();
            match (objects.get(&name).unwrap(), versions.first()) {
                (Current::Object(found), Some(held)) => assert_eq!(held_of(&found), *held),
                (Current::Deleted(found), Some(held)) => assert_eq!(held_of(&found), *held),
                (Current::Nothing, None) => {}
                (found, held) => panic!("{key:?}: {found:?}, {held:?}"),
            }
            for held in &versions {
                assert_eq!(held_of(&objects.version(&name, held.id).unwrap()), *held);
            }
            let times: Vec<u64> = versions.iter().map(|held| held.created_ms).collect();
            assert!(times.is_sorted_by(|newer, older| newer >= older), "{key:?}: {times:?}");
        }
        for prefix in PREFIXES {
            for delimiter in DELIMITERS {
                self.check_listing(&bucket, prefix, delimiter, limit);
                self.check_versions(&bucket, prefix, delimiter, limit);
            }
            self.check_search(&bucket, prefix, limit);
        }
        self.check_counts(&bucket);
        self.check_digests(&bucket);
    }

    /// The first object of each digest, and that no other row is left.
    fn check_digests(&self, bucket: &Bucket) {
        check_digests(self.names.kv().as_ref()).unwrap().unwrap();
        for text in 0..4 {
            let (function, bytes) = (DigestFunction::Blake3, [text; 32]);
            let digest = ObjectDigest { function, bytes };
            let found = self.names.find_by_digest(&self.tenant, &digest, |_| true).unwrap();
            let mut keys = self.model.keys.keys();
            let expected =
                keys.find(|key| text > 0 && self.model.current(key).is_some_and(|held| held.text == Some(text)));
            assert_eq!(
                found.as_ref().map(|found| found.key.as_str()),
                expected.map(String::as_str)
            );
            assert!(found.is_none_or(|found| found.bucket == *bucket));
        }
    }

    fn check_listing(&self, bucket: &Bucket, prefix: &str, delimiter: &str, limit: usize) {
        let mut expected = Vec::new();
        for key in self.model.keys.keys().filter(|key| key.starts_with(prefix)) {
            if let Some(held) = self.model.current(key) {
                push(&mut expected, key, prefix, delimiter, (key.clone(), held.clone()));
            }
        }
        let mut found = Vec::new();
        let mut list = List {
            prefix,
            delimiter,
            start: ListStart::Beginning,
            limit,
        };
        loop {
            let page = self.names.objects(bucket).list(&list).unwrap();
            assert!(page.entries.len() <= limit);
            assert!(page.next.is_none() || page.entries.len() == limit);
            found.extend(page.entries.into_iter().map(|entry| match entry {
                Listed::Prefix(prefix) => Listed::Prefix(prefix),
                Listed::Item(object) => Listed::Item((object.key.to_string(), held_of(&object.version))),
            }));
            let Some(next) = page.next else { break };
            list.start = ListStart::from_token(&next.to_token().unwrap()).unwrap();
            assert_eq!(list.start, next);
        }
        assert_eq!(found, expected, "{prefix:?} {delimiter:?} by {limit}");
    }

    fn check_versions(&self, bucket: &Bucket, prefix: &str, delimiter: &str, limit: usize) {
        let mut expected = Vec::new();
        for (key, versions) in self.model.keys.iter().filter(|(key, _)| key.starts_with(prefix)) {
            for (n, held) in versions.iter().enumerate() {
                push(
                    &mut expected,
                    key,
                    prefix,
                    delimiter,
                    (key.clone(), held.clone(), n == 0),
                );
            }
        }
        let mut found = Vec::new();
        let list = List {
            prefix,
            delimiter,
            start: ListStart::Beginning,
            limit,
        };
        let mut from = VersionStart::default();
        loop {
            let page = self.names.objects(bucket).list_versions(&list, &from).unwrap();
            assert!(page.entries.len() <= limit);
            found.extend(page.entries.into_iter().map(|entry| match entry {
                Listed::Prefix(prefix) => Listed::Prefix(prefix),
                Listed::Item(listed) => {
                    Listed::Item((listed.key.to_string(), held_of(&listed.version), listed.is_latest))
                }
            }));
            let Some(next) = page.next else { break };
            from = next;
        }
        assert_eq!(found, expected, "{prefix:?} {delimiter:?} by {limit}");
    }

    fn check_search(&self, bucket: &Bucket, prefix: &str, limit: usize) {
        for search in [
            Search {
                tags: vec![("tag".to_owned(), "1".to_owned())],
                ..Search::default()
            },
            Search {
                content_type: Some("type/0".to_owned()),
                ..Search::default()
            },
            Search {
                size: Some(1..=2),
                owner: Some(Owner::new("me").unwrap()),
                ..Search::default()
            },
            Search {
                created_ms: Some(5_000..=u64::MAX),
                content_type: Some("type/1".to_owned()),
                tags: vec![("tag".to_owned(), "2".to_owned())],
                ..Search::default()
            },
            Search::default(),
        ] {
            let search = Search {
                prefix: prefix.to_owned(),
                ..search
            };
            let is_wanted = |key: &String| {
                let Some(Held {
                    text: Some(text),
                    tag,
                    created_ms,
                    ..
                }) = self.model.current(key)
                else {
                    return false;
                };
                let tag = tag.map(|tag| tag.to_string());
                key.starts_with(prefix)
                    && search
                        .tags
                        .first()
                        .is_none_or(|(_, wanted)| tag.as_ref() == Some(wanted))
                    && search
                        .content_type
                        .as_ref()
                        .is_none_or(|wanted| *wanted == format!("type/{}", text % 2))
                    && search.size.as_ref().is_none_or(|size| size.contains(&u64::from(*text)))
                    && search
                        .created_ms
                        .as_ref()
                        .is_none_or(|created| created.contains(created_ms))
            };
            let expected: BTreeSet<String> = self.model.keys.keys().filter(|key| is_wanted(key)).cloned().collect();
            let (mut found, mut from) = (Vec::new(), None);
            loop {
                let page = self
                    .names
                    .objects(bucket)
                    .search(&search, from.as_ref(), limit)
                    .unwrap();
                assert!(page.objects.len() <= limit && page.scanned <= SEARCH_KEYS_MAX);
                found.extend(page.objects.into_iter().map(|object| object.key.to_string()));
                let Some(next) = page.next else { break };
                from = Some(SearchPlace::from_bytes(&next.to_bytes()).unwrap());
            }
            let once: BTreeSet<String> = found.iter().cloned().collect();
            assert_eq!(once.len(), found.len(), "each once: {search:?}");
            assert_eq!(once, expected, "{search:?}");
        }
    }

    fn check_counts(&self, bucket: &Bucket) {
        let versions = || self.model.keys.values().flatten();
        let usage = Usage {
            objects: self
                .model
                .keys
                .keys()
                .filter(|key| self.model.current(key).is_some())
                .count() as u64,
            versions: versions().count() as u64,
            bytes: versions().map(|held| held.text.map_or(0, u64::from)).sum(),
        };
        let buckets = self.names.buckets(&self.tenant);
        assert_eq!(
            (buckets.usage().unwrap(), buckets.usage_of(bucket).unwrap()),
            (usage, usage)
        );
        assert_eq!(self.names.outbox(&self.tenant).lag("test").unwrap(), self.model.events);
        let mut inlined = BTreeSet::new();
        for text in versions().filter_map(|held| held.text).filter(|text| *text > 0) {
            inlined.insert(text);
        }
        for text in 0..4 {
            let bytes = vec![text; usize::from(text)];
            let chunk = cairn_store::ChunkKey {
                domain: DomainId::default(),
                id: DigestAlgorithm::default().id(&bytes),
            };
            let held = self.names.inline_chunk(&self.tenant, &chunk).unwrap();
            assert_eq!(held.as_deref(), inlined.contains(&text).then_some(bytes.as_slice()));
        }
    }

    /// After all versions are deleted there is not one row of the bucket left, and it can go.
    fn end(mut self) {
        let bucket = self.bucket();
        for (key, versions) in std::mem::take(&mut self.model.keys) {
            let name = ObjectKey::new(key).unwrap();
            for held in versions {
                let (me, cause) = (Owner::new("me").unwrap(), Cause::default());
                let deleted = self.names.buckets(&self.tenant).delete(&self.bucket);
                assert!(matches!(deleted, Err(Error::BucketNotEmpty { .. })), "{deleted:?}");
                let objects = self.names.objects(&bucket);
                let deleted = objects.delete(&name, Some(held.id), &me, &Condition::Always, &cause);
                assert!(matches!(deleted.unwrap(), Deleted::Version { .. }));
            }
        }
        self.names.buckets(&self.tenant).delete(&self.bucket).unwrap();
        sweep_names(self.names.kv().as_ref(), 0, None).unwrap();
        assert!(self.names.next_undigested(None).unwrap().is_none());
        let tables = [
            crate::Table::Buckets,
            crate::Table::BucketsGone,
            crate::Table::Objects,
            crate::Table::Markers,
            crate::Table::Versions,
            crate::Table::NullVersions,
            crate::Table::InlineChunks,
            crate::Table::Search,
            crate::Table::Digests,
        ];
        for table in tables {
            let range = crate::Key::of(&self.tenant, table).range();
            let page = self.names.kv().scan(&range, crate::Order::Forward, 1).unwrap();
            assert!(page.rows.is_empty(), "{table:?}: {:?}", page.rows);
        }
    }
}

fn held_of(version: &ObjectVersion) -> Held {
    let object = version.object();
    Held {
        id: version.id,
        text: object.map(|object| object.size as u8),
        tag: object.and_then(|object| object.tags.first()?.1.parse().ok()),
        created_ms: version.created_ms(),
    }
}

/// Adds an entry, or the prefix that it goes into unless that is the last one.
fn push<T: PartialEq>(entries: &mut Vec<Listed<T>>, key: &str, prefix: &str, delimiter: &str, item: T) {
    let behind = &key[prefix.len()..];
    match behind.find(delimiter).filter(|_| !delimiter.is_empty()) {
        None => entries.push(Listed::Item(item)),
        Some(at) => {
            let common = Listed::Prefix(key[..prefix.len() + at + delimiter.len()].to_owned());
            if entries.last() != Some(&common) {
                entries.push(common);
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS.len();
    let when = || {
        prop_oneof![
            6 => Just(When::Always),
            1 => Just(When::Absent),
            1 => Just(When::Present),
            1 => (0_u8..4).prop_map(When::Tagged),
        ]
    };
    let keeps = prop_oneof![Just(Versioning::Enabled), Just(Versioning::Suspended)];
    prop_oneof![
        8 => (key(), 0_u8..4, when()).prop_map(|(key, text, condition)| Step::Put { key, text, condition }),
        3 => (key(), when()).prop_map(|(key, condition)| Step::Delete { key, condition }),
        3 => (key(), 0_usize..4, when())
            .prop_map(|(key, nth, condition)| Step::DeleteVersion { key, nth, condition }),
        1 => key().prop_map(|key| Step::DeleteUnknown { key }),
        2 => (key(), prop::option::of(0_usize..4), 0_u8..4).prop_map(|(key, nth, value)| Step::Tag { key, nth, value }),
        1 => keeps.prop_map(Step::Keep),
        1 => (0_u64..20_000).prop_map(Step::Clock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Goal: see above. The handle of the bucket is as it was at the beginning: what it keeps has changed behind it.
    #[test]
    fn names_are_the_model(steps in prop::collection::vec(step(), 1..60), limit in 1_usize..7) {
        let kv = Arc::new(Database::new(Arc::new(MemoryEngine::new())));
        let mut world = World::new(kv);
        let bucket = world.bucket();
        for (n, step) in steps.iter().enumerate() {
            world.step(&bucket, step);
            if n % 20 == 19 {
                world.check(limit);
            }
        }
        world.check(limit);
        world.end();
    }
}
