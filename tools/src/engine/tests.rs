//! The engine end to end on real folders: what goes in comes out, from every source, and lies are found.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cairn_formats::{
    ChunkId, ChunkIndex, ChunkSizes, DigestAlgorithm, EncodedChunk, FeatureFlags, IndexEncoder, StorableChunk,
};
use cairn_store::{ChunkStore, FlatOptions, FlatStore, Prune as _, StoreName};

use super::extract::ExtractReport;
use super::*;

struct Fixture {
    folder: tempfile::TempDir,
    store: FlatStore,
}

fn small() -> ChunkSizes {
    ChunkSizes::new(256, 1024, 4096).expect("they rise")
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        fs::create_dir(&root).unwrap();
        let store = FlatStore::open(&root, FlatOptions::default()).unwrap();
        Self { folder, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make(&self, blob: &[u8]) -> (ChunkIndex, MakeReport) {
        self.make_into(blob, Some(&self.store))
    }

    fn make_into(&self, blob: &[u8], store: Option<&dyn ChunkStore>) -> (ChunkIndex, MakeReport) {
        let options = MakeOptions {
            sizes: small(),
            ..MakeOptions::default()
        };
        let mut file = Vec::new();
        let mut encoder = IndexEncoder::start(FeatureFlags::blob(options.digest), options.sizes, &mut file);
        let mut input = blob;
        let report = make(
            &mut input,
            Path::new("input"),
            store,
            &options,
            &Progress::default(),
            &mut |id, len| {
                encoder.push(id, len, &mut file);
                Ok(())
            },
        )
        .unwrap();
        encoder.finish(&mut file);
        (ChunkIndex::parse(Bytes::from(file)).unwrap(), report)
    }

    fn extract(&self, index: &ChunkIndex, seeds: &[Seed], options: &ExtractOptions) -> Result<ExtractReport> {
        extract(
            index,
            &self.path("out"),
            &self.store,
            seeds,
            options,
            &Progress::default(),
        )
    }
}

/// Text-like, with repeats and a long run of zeros in the middle.
fn blob(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut blob: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
    let third = len / 3;
    blob[third..third + len / 10].fill(0);
    blob.copy_within(0..len / 5, len / 2);
    blob
}

/// A store that says that it is far, and counts what it is asked.
#[derive(Debug)]
struct Far<'a> {
    near: &'a FlatStore,
    asked: Mutex<Vec<Vec<ChunkId>>>,
}

impl<'a> Far<'a> {
    fn new(near: &'a FlatStore) -> Self {
        let asked = Mutex::default();
        Self { near, asked }
    }
}

impl ChunkStore for Far<'_> {
    fn name(&self) -> &StoreName {
        self.near.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> cairn_store::Result<Vec<bool>> {
        self.near.has_many(ids)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<cairn_store::Result<EncodedChunk>> {
        self.asked.lock().unwrap().push(ids.to_vec());
        self.near.get_many(ids)
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> cairn_store::Result<()> {
        self.near.put_many(chunks)
    }

    fn flush(&self) -> cairn_store::Result<()> {
        self.near.flush()
    }

    fn is_far(&self) -> bool {
        true
    }
}

/// Goal: a far store is asked for each chunk once, for many in a call, and the same comes out.
/// Method: blobs with repeats and zeros from nothing, beside a seed, and into what is there; all that is asked is looked at.
#[test]
fn a_far_store_is_asked_for_many_chunks_at_a_time_and_for_each_once() {
    for len in [0, 1, 256, 100_000, 5_000_001] {
        let fixture = Fixture::new();
        let bytes = blob(len as u64, len);
        let (index, _) = fixture.make(&bytes);
        let mut other = bytes.clone();
        for at in (0..len).step_by(40_000) {
            other[at] ^= 1;
        }
        let (seed_index, _) = fixture.make_into(&other, None);
        let seed_path = fixture.path("seed");
        fs::write(&seed_path, &other).unwrap();
        let ids: HashSet<ChunkId> = index.spans().map(|span| span.id).collect();
        for (seeded, in_place) in [(false, false), (true, false), (false, true), (true, true)] {
            let far = Far::new(&fixture.store);
            let out = fixture.path("out");
            fs::write(&out, &other[..len / 2]).unwrap();
            let seeds: Vec<Seed> = seeded
                .then(|| Seed::open(seed_index.clone(), &seed_path).unwrap())
                .into_iter()
                .collect();
            let options = ExtractOptions {
                in_place,
                workers: 3,
                ..ExtractOptions::default()
            };
            let report = extract(&index, &out, &far, &seeds, &options, &Progress::default()).unwrap();
            assert!(
                fs::read(&out).unwrap() == bytes,
                "{len} bytes, seed {seeded}, in place {in_place}"
            );
            assert_eq!(report.bytes, len as u64);
            let asked = far.asked.into_inner().unwrap();
            let each: Vec<ChunkId> = asked.iter().flatten().copied().collect();
            let distinct: HashSet<ChunkId> = each.iter().copied().collect();
            assert_eq!(each.len(), distinct.len(), "each once");
            assert!(distinct.is_subset(&ids));
            assert_eq!(report.chunks_store, each.len() as u64);
            assert!(
                asked.len() <= each.len() / 64 + 1,
                "{} calls for {} chunks",
                asked.len(),
                each.len()
            );
            if seeded {
                assert!(each.len() < ids.len() / 2 + 2);
            }
        }
    }
}

#[test]
fn a_chunk_that_a_far_store_lacks_ends_the_extraction() {
    let fixture = Fixture::new();
    let bytes = blob(5, 3_000_000);
    let (index, _) = fixture.make(&bytes);
    let lost = index.span(index.len() - 1).id;
    fixture.store.remove_many(&[lost]).unwrap();
    let far = Far::new(&fixture.store);
    let options = ExtractOptions::default();
    let error = extract(&index, &fixture.path("out"), &far, &[], &options, &Progress::default()).unwrap_err();
    assert!(error.to_string().contains(&lost.to_string()), "{error}");
    assert!(!fixture.path("out").exists());
}

#[test]
fn what_goes_in_comes_out() {
    for len in [0, 1, 47, 48, 255, 256, 4096, 100_000, 5_000_001] {
        let fixture = Fixture::new();
        let blob = blob(len as u64, len);
        let (index, report) = fixture.make(&blob);
        assert_eq!((report.bytes, report.chunks), (len as u64, index.len() as u64));
        let extracted = fixture.extract(&index, &[], &ExtractOptions::default()).unwrap();
        assert_eq!(fs::read(fixture.path("out")).unwrap(), blob, "{len} bytes");
        assert_eq!(extracted.bytes, len as u64);

        let mut output = Vec::new();
        let middle = len as u64 / 3..len as u64;
        cat(
            &index,
            middle.clone(),
            &fixture.store,
            3,
            &mut output,
            &Progress::default(),
        )
        .unwrap();
        assert_eq!(output, blob[middle.start as usize..], "{len} bytes");
        assert_eq!(
            verify_blob(&index, &fixture.path("out"), false, 2, &Progress::default()).unwrap(),
            vec![]
        );
    }
}

#[test]
fn known_chunks_are_not_stored_again() {
    let fixture = Fixture::new();
    let blob = blob(1, 3_000_000);
    let (index, first) = fixture.make(&blob);
    let (again, second) = fixture.make(&blob);
    assert_eq!(index.as_bytes(), again.as_bytes());
    assert!(first.chunks_stored < first.chunks, "repeats are stored once");
    assert_eq!(second.chunks_stored, 0);
}

#[test]
fn seeds_are_used_and_not_believed() {
    let fixture = Fixture::new();
    let old = blob(2, 3_000_000);
    let mut new = old.clone();
    new[1_500_000..1_510_000].fill(7);
    let (old_index, _) = fixture.make_into(&old, None);
    let (new_index, _) = fixture.make(&new);
    let seed_path = fixture.path("old");
    fs::write(&seed_path, &old).unwrap();
    let seed = || Seed::open(old_index.clone(), &seed_path).unwrap();
    let report = fixture
        .extract(&new_index, &[seed()], &ExtractOptions::default())
        .unwrap();
    assert_eq!(fs::read(fixture.path("out")).unwrap(), new);
    assert!(report.bytes_seeds > 2_000_000, "{report:?}");
    assert_eq!(report.seed_chunks_bad, 0);

    let mut spoiled = old;
    spoiled[10_000] ^= 1;
    fs::write(&seed_path, &spoiled).unwrap();
    let report = fixture
        .extract(&new_index, &[seed()], &ExtractOptions::default())
        .unwrap();
    assert_eq!(fs::read(fixture.path("out")).unwrap(), new);
    assert!(report.seed_chunks_bad >= 1, "{report:?}");
}

#[test]
fn in_place_mends_only_what_differs() {
    let fixture = Fixture::new();
    let wanted = blob(3, 2_000_000);
    let (index, _) = fixture.make(&wanted);
    let in_place = ExtractOptions {
        in_place: true,
        ..ExtractOptions::default()
    };
    for damage in [0..0, 0..1, 700_000..900_000, 1_999_999..2_000_000] {
        let mut target = wanted.clone();
        target[damage.clone()].fill(0xee);
        target.extend_from_slice(b"something after the end");
        fs::write(fixture.path("out"), &target).unwrap();
        let report = fixture.extract(&index, &[], &in_place).unwrap();
        assert_eq!(fs::read(fixture.path("out")).unwrap(), wanted);
        assert!(
            report.bytes_store <= (damage.len() as u64 + 2 * 4096),
            "{damage:?} {report:?}"
        );
    }
    fs::write(fixture.path("out"), &wanted[..1_000_000]).unwrap();
    fixture.extract(&index, &[], &in_place).unwrap();
    assert_eq!(fs::read(fixture.path("out")).unwrap(), wanted);
}

#[test]
fn a_missing_chunk_leaves_the_target_as_it_was() {
    let fixture = Fixture::new();
    let (index, _) = fixture.make_into(&blob(4, 500_000), None);
    fs::write(fixture.path("out"), b"old").unwrap();
    let error = fixture.extract(&index, &[], &ExtractOptions::default()).unwrap_err();
    assert!(
        matches!(error, Error::Store(cairn_store::Error::Missing { .. })),
        "{error}"
    );
    assert_eq!(fs::read(fixture.path("out")).unwrap(), b"old");
    let left: Vec<_> = fs::read_dir(fixture.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "only the store and the target: {left:?}");
}

/// desync fills such a gap with zeros and exits 0.
#[test]
fn a_zero_chunk_of_a_false_size_is_refused() {
    let fixture = Fixture::new();
    fixture.make(&vec![0; 3 * 4096]);
    let digest = DigestAlgorithm::default();
    let null: ChunkId = digest.id(&[0; 4096]);
    let mut file = Vec::new();
    let mut encoder = IndexEncoder::start(FeatureFlags::blob(digest), small(), &mut file);
    encoder.push(null, 4096, &mut file);
    encoder.push(null, 1000, &mut file);
    encoder.finish(&mut file);
    let index = ChunkIndex::parse(Bytes::from(file)).unwrap();
    let error = fixture
        .extract(&index, &[], &ExtractOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("at byte 4096") && error.contains(&null.to_string()),
        "{error}"
    );
    assert!(!fixture.path("out").exists());
}

#[test]
fn chop_refuses_a_blob_that_is_not_the_indexs() {
    let fixture = Fixture::new();
    let right = blob(5, 300_000);
    let (index, _) = fixture.make_into(&right, None);
    let chop = |blob: &[u8]| {
        let mut input = blob;
        let options = MakeOptions::default();
        chop(
            &mut input,
            Path::new("blob"),
            &index,
            &|_| true,
            Some(&fixture.store),
            &options,
            &Progress::default(),
        )
    };
    assert_eq!(chop(&right).unwrap().bytes, 300_000);
    let mut wrong = right.clone();
    wrong[200_000] ^= 1;
    assert!(matches!(chop(&wrong), Err(Error::Mismatch { .. })));
    assert!(matches!(chop(&right[..299_999]), Err(Error::Length { .. })));
    assert!(matches!(
        chop(&[&right[..], b"more"].concat()),
        Err(Error::Length { .. })
    ));
    let extracted = fixture.extract(&index, &[], &ExtractOptions::default()).unwrap();
    assert_eq!(
        extracted.bytes_store + extracted.bytes_null + extracted.bytes_self,
        300_000
    );
}

#[test]
fn a_cancelled_extraction_leaves_nothing() {
    let fixture = Fixture::new();
    let (index, _) = fixture.make(&blob(6, 300_000));
    let progress = Progress::default();
    progress.cancel_flag().store(true, Ordering::Relaxed);
    let options = ExtractOptions::default();
    let error = extract(&index, &fixture.path("out"), &fixture.store, &[], &options, &progress).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)));
    assert_eq!(
        fs::read_dir(fixture.folder.path()).unwrap().count(),
        1,
        "the store alone"
    );
}
