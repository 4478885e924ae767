//! The object path over real packs and RocksDB: what is put reads back, whatever way it came.

mod parts;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_formats::{ChunkIndex, ChunkSizes, Chunker, DigestAlgorithm, FeatureFlags, IndexEncoder, Md5Stream};
use cairn_store::{ChunkStore as _, PackEngine, PackOptions};
use tempfile::TempDir;

use super::*;
use crate::collector::{CollectControl, CollectOptions, Collector, Roots};
use crate::names::{
    BucketName, Cause, Checksum, ChecksumKind, ChunkerKind, Condition, NewBucket, ObjectKey, ObjectVersion, Owner,
    PartNumber, Upload, UploadRecord,
};
use crate::{Database, RocksEngine, RocksOptions};

/// A server's folder, and what is open of it.
pub(super) struct World {
    folder: TempDir,
    pub(super) objects: Arc<Objects>,
    collector: Collector<RocksEngine>,
    rows: Arc<Database<RocksEngine>>,
    packs: Arc<PackEngine>,
}

fn small() -> ChunkSizes {
    ChunkSizes::new(1 << 10, 4 << 10, 16 << 10).unwrap()
}

fn options() -> ObjectOptions {
    ObjectOptions {
        block_len: (64 << 10, 64 << 10),
        digest_here_len: 8 << 10,
        part_len_min: 20_000,
        ..ObjectOptions::default()
    }
}

fn open(folder: TempDir, options: ObjectOptions) -> World {
    let engine = RocksEngine::open(&folder.path().join("index"), &RocksOptions::default()).unwrap();
    let engine = Arc::new(engine);
    let packs = folder.path().join("packs");
    let (packs, _) = PackEngine::open_folder(&packs, PackOptions::default(), engine.clone()).unwrap();
    let packs = Arc::new(packs);
    let kv = Arc::new(Database::logged(engine, packs.clone()));
    crate::open_schema(kv.as_ref(), "the test").unwrap();
    let collector = Collector::new(kv.clone(), packs.clone(), Duration::ZERO).unwrap();
    World {
        folder,
        objects: Objects::new(Names::new(kv.clone()), packs.clone(), options),
        collector,
        rows: kv,
        packs,
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut ObjectOptions)) -> Self {
        let mut options = options();
        change(&mut options);
        open(TempDir::new().unwrap(), options)
    }

    pub(super) fn bucket(&self, name: &str, change: impl FnOnce(&mut crate::names::BucketSettings)) -> Bucket {
        let mut new = NewBucket::of(owner());
        new.settings.chunk_sizes = small();
        change(&mut new.settings);
        let name = BucketName::new(name).unwrap();
        self.objects
            .names()
            .buckets(&Tenant::default())
            .create(&name, new)
            .unwrap()
    }

    pub(super) fn put(&self, bucket: &Bucket, key: &str, bytes: &[u8]) -> ObjectVersion {
        let body = self.body(bucket, bytes);
        let describe = |_: &mut crate::names::NewVersion| {};
        let written = body.put(
            &self::key(key),
            &owner(),
            describe,
            &Condition::Always,
            &Cause::default(),
        );
        written.unwrap().version
    }

    pub(super) fn body(&self, bucket: &Bucket, bytes: &[u8]) -> Body {
        let wanted = DigestsWanted {
            md5: true,
            checksums: vec![cairn_formats::ChecksumAlgorithm::Crc64Nvme],
        };
        let mut writer = self.objects.writer(bucket, &wanted).unwrap();
        bytes.chunks(7001).for_each(|piece| writer.push(piece).unwrap());
        writer.finish().unwrap()
    }

    pub(super) fn get(&self, bucket: &Bucket, key: &str) -> Vec<u8> {
        let version = self.objects.names().objects(bucket).current(&self::key(key)).unwrap();
        self.read(bucket, &version, 0..u64::MAX)
    }

    fn read(&self, bucket: &Bucket, version: &ObjectVersion, range: std::ops::Range<u64>) -> Vec<u8> {
        let content = &version.object().unwrap().content;
        let reader = self.objects.read(bucket.tenant(), content, range).unwrap();
        reader.flat_map(|piece| piece.unwrap()).collect()
    }

    pub(super) fn part(&self, bucket: &Bucket, upload: &Upload, number: u64, bytes: &[u8]) {
        let wanted = DigestsWanted {
            md5: true,
            checksums: vec![cairn_formats::ChecksumAlgorithm::Crc32],
        };
        let mut writer = self.objects.part_writer(bucket, &wanted).unwrap();
        bytes.chunks(9001).for_each(|piece| writer.push(piece).unwrap());
        let body = writer.finish().unwrap();
        let sum = body.digested().checksums[0];
        let sum = Checksum::new(sum.algorithm().into(), ChecksumKind::FullObject, sum.as_bytes());
        body.put_part(upload, PartNumber::new(number).unwrap(), sum).unwrap();
    }

    pub(super) fn upload(&self, bucket: &Bucket, key: &str) -> Upload {
        let mut record = UploadRecord::of(owner());
        record.checksum = Some((ChecksumAlgorithm::Crc32, ChecksumKind::FullObject));
        self.objects
            .names()
            .uploads(bucket)
            .begin(&self::key(key), record)
            .unwrap()
    }

    pub(super) fn complete(&self, bucket: &Bucket, upload: &Upload, numbers: &[u64]) -> Completed {
        let listed: Vec<ListedPart> = numbers.iter().map(|&number| listed(number)).collect();
        let done = self
            .objects
            .complete(bucket, upload, &listed, |_| {}, &Condition::Always, &Cause::default());
        done.unwrap()
    }

    pub(super) fn collect(&self) -> crate::CollectReport {
        self.collect_blobs(None)
    }

    /// - `blob_days`: after which blobs go; long ago for all of them.
    pub(super) fn collect_blobs(&self, blob_days: Option<std::num::NonZeroU32>) -> crate::CollectReport {
        let options = CollectOptions {
            roots: Roots::Rooted,
            // All leases have run out.
            now: u64::MAX >> 1,
            grace: Duration::ZERO,
            reserve: false,
            blob_days,
            ..CollectOptions::default()
        };
        self.collector.collect(&options, &CollectControl::new()).unwrap()
    }

    pub(super) fn chunk_count(&self) -> usize {
        let mut count = 0;
        self.packs
            .for_each_in_order(&mut |_, _| {
                count += 1;
                Ok(())
            })
            .unwrap();
        count
    }

    pub(super) fn squeeze(
        &self,
        wait: &dyn Fn(u64) -> Duration,
        control: &CollectControl,
    ) -> crate::Result<cairn_store::RecompressReport> {
        crate::squeeze(&self.rows, &self.packs, cairn_formats::Level::new(3), wait, control)
    }

    pub(super) fn reopen(self) -> Self {
        let Self {
            folder,
            objects,
            collector,
            rows,
            packs,
        } = self;
        drop((objects, collector, rows, packs));
        open(folder, options())
    }
}

pub(super) fn listed(number: u64) -> ListedPart {
    ListedPart {
        number: PartNumber::new(number).unwrap(),
        etag: None,
        checksum: None,
    }
}

pub(super) fn owner() -> Owner {
    Owner::new("me").unwrap()
}

pub(super) fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    let mut stream = Md5Stream::default();
    stream.update(bytes);
    stream.finish()
}

/// The index that casync makes of these bytes.
pub(super) fn index_of(bytes: &[u8], sizes: ChunkSizes) -> Vec<u8> {
    let mut file = Vec::new();
    let algorithm = DigestAlgorithm::default();
    let mut encoder = IndexEncoder::start(FeatureFlags::blob(algorithm), sizes, &mut file);
    let mut chunker = Chunker::new(sizes, Default::default());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(chunker.cut(rest).unwrap_or(rest.len()));
        encoder.push(algorithm.id(chunk), chunk.len(), &mut file);
        rest = behind;
    }
    encoder.finish(&mut file);
    file
}

/// Goal: every size on each side of every bound reads back, whole and in ranges, with its digests and casync's index.
#[test]
fn objects_of_all_sizes_read_back() {
    let world = World::new();
    let bucket = world.bucket("bucket", |settings| settings.inline_len = 1 << 10);
    // Inlined; one chunk; few chunks; a page and more; several pages.
    let lens = [
        0,
        1,
        1000,
        1024,
        1025,
        4096,
        60_000,
        64 << 10,
        200_000,
        3_000_000,
        12_000_000,
    ];
    for (seed, len) in lens.into_iter().enumerate() {
        let bytes = noise(seed as u64, len);
        let version = world.put(&bucket, "a/key", &bytes);
        let record = version.object().unwrap();
        assert_eq!(
            (record.size, record.etag.md5()),
            (len as u64, Some(md5(&bytes))),
            "{len} bytes"
        );
        assert_eq!(record.checksums.len(), 1);
        assert!(world.get(&bucket, "a/key") == bytes, "{len} bytes");
        let mut random = fastrand::Rng::with_seed(len as u64);
        for _ in 0..20 {
            let from = random.usize(..=len);
            let to = random.usize(from..=len + 10);
            let found = world.read(&bucket, &version, from as u64..to as u64);
            assert!(found == bytes[from..to.min(len)], "{from}..{to} of {len} bytes");
        }
        let index = world.objects.index_file(bucket.tenant(), record, None).unwrap();
        assert!(index == index_of(&bytes, small()), "index of {len} bytes");
    }
    assert_eq!(world.objects.uploads(), 0);
}

/// Goal: an object of more chunks than a commit names, whose list has pages and starts of its own, reads back; so does its copy.
#[test]
fn objects_of_very_many_chunks_read_back() {
    let world = World::new();
    let sizes = ChunkSizes::new(48, 96, 400).unwrap();
    let bucket = world.bucket("bucket", |settings| settings.chunk_sizes = sizes);
    let bytes = noise(1, 3_000_000);
    let version = world.put(&bucket, "long", &bytes);
    let record = version.object().unwrap();
    let chunks = world.objects.chunks(bucket.tenant(), &record.content).unwrap();
    assert!(chunks.len() > crate::COMMIT_CHUNKS_MAX, "{} chunks", chunks.len());
    for from in [0, 1, 77_777, 1_500_000, 2_999_999] {
        let range = from..from + 100_000;
        let found = world.read(&bucket, &version, range.clone());
        assert!(found == bytes[from as usize..bytes.len().min(from as usize + 100_000)]);
        let (mut start, mut expected, mut visited) = (0, Vec::new(), Vec::new());
        for chunk in &chunks {
            let end = start + u64::from(chunk.len);
            if end > range.start && start < range.end {
                expected.push((start, chunk.id));
            }
            start = end;
        }
        let visit = |start, chunk: &crate::ManifestChunk| {
            visited.push((start, chunk.id));
            std::ops::ControlFlow::Continue(())
        };
        let looked = world
            .objects
            .for_each_chunk_in(bucket.tenant(), &record.content, range, visit);
        looked.unwrap();
        assert!(visited == expected, "from {from}");
    }
    let copy = world.objects.copy(&bucket, &version, &bucket).unwrap();
    let describe = |_: &mut crate::names::NewVersion| {};
    copy.put(&key("copy"), &owner(), describe, &Condition::Always, &Cause::default())
        .unwrap();
    assert!(world.get(&bucket, "copy") == bytes);
    let index = world.objects.index_file(bucket.tenant(), record, None).unwrap();
    assert!(index == index_of(&bytes, sizes));
}

/// Goal: equal content costs rows only, in the same object, another and a copy; what nobody names any more goes.
#[test]
fn equal_content_is_stored_once_and_goes_when_nobody_names_it() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let bytes = noise(1, 500_000);
    let one = world.put(&bucket, "one", &bytes);
    let chunks = world.chunk_count();
    assert_eq!(world.body(&bucket, &bytes).counts().new_chunks, 0);
    world.put(&bucket, "two", &bytes);
    let copy = world.objects.copy(&bucket, &one, &bucket).unwrap();
    assert_eq!(copy.digested().md5, Some(md5(&bytes)));
    let describe = |_: &mut crate::names::NewVersion| {};
    copy.put(&key("three"), &owner(), describe, &Condition::Always, &Cause::default())
        .unwrap();
    assert_eq!(world.chunk_count(), chunks);
    // A body that was dropped, and the first two names.
    drop(world.body(&bucket, &noise(2, 100_000)));
    let objects = world.objects.names().objects(&bucket);
    for name in ["one", "two"] {
        objects
            .delete(&key(name), None, &owner(), &Condition::Always, &Cause::default())
            .unwrap();
    }
    world.collect();
    assert_eq!(world.chunk_count(), chunks);
    assert!(world.get(&bucket, "three") == bytes);
    objects
        .delete(&key("three"), None, &owner(), &Condition::Always, &Cause::default())
        .unwrap();
    world.collect();
    assert_eq!(world.chunk_count(), 0);
}

/// Goal: an object in another dedup domain has its own chunks.
#[test]
fn a_copy_into_another_domain_copies_the_bytes() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let other = world.bucket("other", |settings| settings.domain = cairn_formats::DomainId(7));
    let bytes = noise(1, 300_000);
    let one = world.put(&bucket, "one", &bytes);
    let copy = world.objects.copy(&bucket, &one, &other).unwrap();
    assert_eq!(copy.counts().new_bytes, 300_000);
    let describe = |_: &mut crate::names::NewVersion| {};
    copy.put(&key("one"), &owner(), describe, &Condition::Always, &Cause::default())
        .unwrap();
    assert!(world.get(&other, "one") == bytes);
}

/// Goal: an index of chunks that are there is the object; of those that are not, the names are told.
#[test]
fn an_index_becomes_the_object_and_missing_chunks_are_named() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let bytes = noise(1, 400_000);
    let file = index_of(&bytes, small());
    let index = ChunkIndex::parse(Bytes::from(file.clone())).unwrap();
    let missing = world.objects.body_of_index(&bucket, &index, ChunkerKind::Casync);
    match missing {
        Err(Error::ChunksMissing { ids }) => assert_eq!(ids.len(), index.len()),
        other => panic!("{other:?}"),
    }
    world.put(&bucket, "one", &bytes);
    let body = world
        .objects
        .body_of_index(&bucket, &index, ChunkerKind::Casync)
        .unwrap();
    let describe = |_: &mut crate::names::NewVersion| {};
    let written = body
        .put(&key("two"), &owner(), describe, &Condition::Always, &Cause::default())
        .unwrap();
    assert!(world.get(&bucket, "two") == bytes);
    let record = written.version.object().unwrap();
    assert!(world.objects.index_file(bucket.tenant(), record, None).unwrap() == file);
}

/// Goal: an index that says of a chunk that it is longer or shorter than it is makes no object, also where it says both.
#[test]
fn an_index_that_lies_about_lengths_is_refused() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let bytes = noise(1, 400_000);
    world.put(&bucket, "one", &bytes);
    let honest = ChunkIndex::parse(Bytes::from(index_of(&bytes, small()))).unwrap();
    for (lie, by) in [(0, 1_isize), (3, -1), (honest.len() - 1, 1)] {
        let mut file = Vec::new();
        let sizes = ChunkSizes::new(1 << 10, 4 << 10, 32 << 10).unwrap();
        let mut index = IndexEncoder::start(honest.flags(), sizes, &mut file);
        for (at, span) in honest.spans().enumerate() {
            let len = (span.range.end - span.range.start) as usize;
            index.push(span.id, len, &mut file);
            if at == lie {
                index.push(span.id, len.strict_add_signed(by), &mut file);
            }
        }
        index.finish(&mut file);
        let index = ChunkIndex::parse(Bytes::from(file)).unwrap();
        let refused = world.objects.body_of_index(&bucket, &index, ChunkerKind::Casync);
        let lied_of = honest.span(lie).id;
        assert!(
            matches!(refused, Err(Error::ChunkLength { id, .. }) if id == lied_of),
            "{refused:?}"
        );
    }
}

/// Goal: an index of nothing is an empty object, and that of an object which desync cut is desync's.
#[test]
fn indexes_of_nothing_and_of_desync_come_back_as_they_were() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let bytes = noise(2, 100_000);
    world.put(&bucket, "one", &bytes);
    let of_desync = FeatureFlags(FeatureFlags::EXCLUDE_NODUMP).with_digest(DigestAlgorithm::default());
    let honest = ChunkIndex::parse(Bytes::from(index_of(&bytes, small()))).unwrap();
    let mut file = Vec::new();
    let mut index = IndexEncoder::start(of_desync, small(), &mut file);
    for span in honest.spans() {
        index.push(span.id, (span.range.end - span.range.start) as usize, &mut file);
    }
    index.finish(&mut file);
    for (name, file, kind, bytes) in [
        ("empty", index_of(b"", small()), ChunkerKind::Casync, &[][..]),
        ("desync's", file, ChunkerKind::Desync, &bytes[..]),
    ] {
        let index = ChunkIndex::parse(Bytes::from(file.clone())).unwrap();
        let body = world.objects.body_of_index(&bucket, &index, kind).unwrap();
        let describe = |_: &mut crate::names::NewVersion| {};
        let written = body
            .put(&key(name), &owner(), describe, &Condition::Always, &Cause::default())
            .unwrap();
        assert!(world.get(&bucket, name) == bytes, "{name}");
        let record = written.version.object().unwrap();
        let pieces = world.objects.index_pieces(bucket.tenant(), record, None);
        assert_eq!(pieces.byte_len(), file.len() as u64, "{name}");
        assert!(
            world.objects.index_file(bucket.tenant(), record, None).unwrap() == file,
            "{name}"
        );
    }
}

/// Goal: the chunks of a domain are those in packs and in rows, of that domain alone.
#[test]
fn a_domains_chunks_are_in_packs_and_in_rows_and_no_others() {
    let world = World::new();
    let bucket = world.bucket("bucket", |settings| settings.inline_len = 1 << 10);
    let other = world.bucket("other", |settings| settings.domain = cairn_formats::DomainId(7));
    let (long, short) = (noise(1, 50_000), noise(2, 700));
    let record = |version: &ObjectVersion| version.object().unwrap().clone();
    let mut ids = Vec::new();
    for (name, bytes) in [("long", &long), ("short", &short)] {
        let version = world.put(&bucket, name, bytes);
        let chunks = world
            .objects
            .chunks(bucket.tenant(), &record(&version).content)
            .unwrap();
        ids.extend(chunks.iter().map(|chunk| chunk.id));
    }
    let (own, others) = (world.objects.chunk_store(&bucket), world.objects.chunk_store(&other));
    assert!(own.has_many(&ids).unwrap().iter().all(|there| *there));
    assert!(others.has_many(&ids).unwrap().iter().all(|there| !*there));
    let mut found = Vec::new();
    for answer in own.get_many(&ids) {
        let chunk = answer.unwrap();
        assert!(own.stat(chunk.id, chunk.form).unwrap().is_some());
        found.extend_from_slice(chunk.open(DigestAlgorithm::default(), 1 << 20).unwrap().plain());
    }
    assert!(found == [long, short].concat());
    for (answer, &id) in others.get_many(&ids).into_iter().zip(&ids) {
        assert!(matches!(answer, Err(cairn_store::Error::Missing { .. })), "{answer:?}");
        assert!(others.stat(id, cairn_formats::ChunkForm::Plain).unwrap().is_none());
    }
}

/// Goal: a chunk that lies in the row of an object is found by an index, and outlives that object.
#[test]
fn an_index_may_name_chunks_that_lie_in_rows() {
    let world = World::new();
    let bucket = world.bucket("bucket", |settings| settings.inline_len = 1 << 10);
    let bytes = noise(3, 700);
    world.put(&bucket, "inlined", &bytes);
    assert_eq!(world.chunk_count(), 0);
    let index = ChunkIndex::parse(Bytes::from(index_of(&bytes, small()))).unwrap();
    let body = world
        .objects
        .body_of_index(&bucket, &index, ChunkerKind::Casync)
        .unwrap();
    let describe = |_: &mut crate::names::NewVersion| {};
    body.put(
        &key("by index"),
        &owner(),
        describe,
        &Condition::Always,
        &Cause::default(),
    )
    .unwrap();
    let objects = world.objects.names().objects(&bucket);
    objects
        .delete(&key("inlined"), None, &owner(), &Condition::Always, &Cause::default())
        .unwrap();
    world.collect();
    assert!(world.get(&bucket, "by index") == bytes);
}

/// Goal: what two versions share is told in chunks and bytes, in whatever pieces of memory; and a version that is restored is as it was.
#[test]
fn versions_are_compared_and_restored() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let change = |record: &mut crate::names::BucketRecord| {
        record.versioning = crate::names::Versioning::Enabled;
        Ok(())
    };
    let buckets = world.objects.names().buckets(bucket.tenant());
    let bucket = buckets.update(bucket.name(), change).unwrap();
    let old = [noise(1, 200_000), noise(2, 300_000)].concat();
    let new = [noise(1, 200_000), noise(3, 100_000)].concat();
    let (first, second) = (world.put(&bucket, "key", &old), world.put(&bucket, "key", &new));
    let small = world.put(&bucket, "key", b"in its row");

    let ids = |version: &ObjectVersion| -> std::collections::BTreeMap<_, _> {
        let content = &version.object().unwrap().content;
        let chunks = world.objects.chunks(bucket.tenant(), content).unwrap();
        chunks.iter().map(|chunk| (chunk.id, u64::from(chunk.len))).collect()
    };
    let (a, b) = (ids(&first), ids(&second));
    let sum = |chunks: Vec<u64>| ChunkSum {
        chunks: chunks.len() as u64,
        bytes: chunks.iter().sum(),
    };
    let shared = sum(a
        .iter()
        .filter(|(id, _)| b.contains_key(id))
        .map(|(_, len)| *len)
        .collect());
    assert!(shared.chunks > 10);
    for at_once in [1, 7, 1 << 20] {
        let diff = world
            .objects
            .diff_within((&bucket, &first), (&bucket, &second), at_once)
            .unwrap();
        assert_eq!(diff.shared, shared);
        assert_eq!(diff.listed.map(|listed| listed.bytes), [500_000, 300_000]);
        assert_eq!(diff.only.map(|only| only.bytes + shared.bytes), [500_000, 300_000]);
        assert_eq!(diff.only[0].chunks + shared.chunks, a.len() as u64);
    }
    let diff = world.objects.diff((&bucket, &small), (&bucket, &small)).unwrap();
    assert_eq!((diff.shared.bytes, diff.only), (10, [ChunkSum::default(); 2]));

    let chunks = world.chunk_count();
    for version in [&first, &small] {
        let written = world
            .objects
            .restore(&bucket, &key("key"), version.id, &Condition::Present, &Cause::default());
        let written = written.unwrap().version;
        assert_ne!(written.id, version.id);
        assert_eq!(written.object().unwrap().etag, version.object().unwrap().etag);
        assert!(world.get(&bucket, "key") == world.read(&bucket, version, 0..u64::MAX));
    }
    assert_eq!(world.chunk_count(), chunks, "nothing was stored anew");
    let objects = world.objects.names().objects(&bucket);
    let deleted = objects.delete(&key("key"), None, &owner(), &Condition::Always, &Cause::default());
    let crate::names::Deleted::MarkerPut(marker) = deleted.unwrap() else {
        panic!("the bucket keeps versions");
    };
    let restore = |id| {
        world
            .objects
            .restore(&bucket, &key("key"), id, &Condition::Always, &Cause::default())
    };
    assert!(matches!(restore(marker), Err(Error::NoObject { .. })));
    assert!(matches!(
        restore(crate::names::VersionId::NULL),
        Err(Error::NoVersion { .. })
    ));
    restore(first.id).unwrap();
    assert!(world.get(&bucket, "key") == old);
}

/// Goal: damage is an error and never other bytes.
#[test]
fn a_chunk_that_is_gone_is_an_error() {
    let world = World::new();
    let bucket = world.bucket("bucket", |_| {});
    let version = world.put(&bucket, "one", &noise(1, 200_000));
    let chunks = world
        .objects
        .chunks(bucket.tenant(), &version.object().unwrap().content)
        .unwrap();
    let store = world.objects.store(cairn_formats::DomainId::default());
    let stored = store.get_many(&[chunks[3].id]).pop().unwrap().unwrap();
    assert!(store.set_aside(&stored).unwrap());
    let content = &version.object().unwrap().content;
    let reader = world.objects.read(bucket.tenant(), content, 0..u64::MAX).unwrap();
    assert!(reader.into_iter().any(|piece| piece.is_err()));
    assert!(matches!(
        world.objects.copy(&bucket, &version, &bucket),
        Err(Error::ChunksMissing { .. })
    ));
}
