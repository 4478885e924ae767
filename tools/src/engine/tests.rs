//! The engine end to end on real folders: what goes in comes out, from every source, and lies are found.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cairn_formats::{ChunkId, ChunkIndex, ChunkSizes, DigestAlgorithm, FeatureFlags, IndexEncoder};
use cairn_store::{ChunkStore, FlatOptions, FlatStore};

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
