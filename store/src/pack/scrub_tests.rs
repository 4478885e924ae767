//! Damage on purpose, and what a scrub makes of it.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use cairn_formats::{CHUNK_LEN_MAX, Chunk, Level};
use tempfile::TempDir;

use super::*;
use crate::{ChunkStoreExt as _, FlatOptions, FlatStore, MirrorOptions, MirrorStore, RateLimit};

/// Bytes of a chunk in these tests; noise, so they are those of its frame but for a few.
const CHUNK_LEN: usize = 64 << 10;

fn options() -> PackOptions {
    PackOptions {
        pack_len: 8 << 20,
        ..PackOptions::default()
    }
}

fn open(folder: &TempDir) -> PackStore {
    PackStore::open(folder.path(), options()).unwrap().0
}

fn chunk(n: u64) -> StorableChunk {
    let mut random = fastrand::Rng::with_seed(n);
    let mut plain = vec![0; CHUNK_LEN];
    random.fill(&mut plain);
    Chunk::from_plain(DigestAlgorithm::default(), plain.into()).encode(ChunkForm::Plain, Level::DEFAULT)
}

fn fill(store: &dyn ChunkStore, count: u64) {
    for n in 0..count {
        store.put_many(&[chunk(n)]).unwrap();
    }
    store.flush().unwrap();
}

fn is_good(store: &dyn ChunkStore, n: u64) -> bool {
    let got = store.get(chunk(n).id());
    got.is_ok_and(|got| got.open(DigestAlgorithm::default(), CHUNK_LEN_MAX).is_ok())
}

fn packs(folder: &TempDir) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut packs: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "pack"))
        .collect();
    packs.sort();
    packs
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Where the frame of a chunk lies.
fn place(store: &PackStore, n: u64) -> ChunkPlace {
    store.engine().places(&[store.key(chunk(n).id())]).unwrap()[0].unwrap()
}

fn scrub(store: &PackStore, sources: &[Arc<dyn ChunkStore>]) -> ScrubReport {
    let all = ScrubOptions {
        workers: 3,
        ..ScrubOptions::default()
    };
    store
        .engine()
        .scrub(&all, sources, &ScrubMemory::default(), &mut |_| true)
        .unwrap()
}

/// Goal: 100 planted flips are 100 healed chunks with a mirror, and 100 named chunks without.
/// Method: a flip in each of 100 chunks at random; CAIRN_SCRUB_MIB=10240 for the full run.
#[test]
fn a_hundred_flips_are_healed_from_a_mirror_and_named_without() {
    let mib: u64 = std::env::var("CAIRN_SCRUB_MIB").map_or(200, |mib| mib.parse().unwrap());
    let count = (mib << 20) / CHUNK_LEN as u64;
    for has_mirror in [true, false] {
        let [folder, other, empty] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
        let store = open(&folder);
        fill(&store, count);
        let mut random = fastrand::Rng::with_seed(7);
        let flipped = random.choose_multiple(0..count, 100);
        let mirror: Arc<dyn ChunkStore> = Arc::new(FlatStore::open(other.path(), FlatOptions::default()).unwrap());
        let mut damaged_packs = Vec::new();
        for &n in &flipped {
            let place = place(&store, n);
            damaged_packs.push(place.pack as usize);
            let pack = packs(&folder)[place.pack as usize - 1].clone();
            flip(&pack, place.offset + random.u64(..u64::from(place.len)));
            mirror.put_many(&[chunk(n)]).unwrap();
        }
        mirror.flush().unwrap();
        // The rest of a mirror, of which the nearest member has nothing.
        let members = vec![
            Arc::new(FlatStore::open(empty.path(), FlatOptions::default()).unwrap()) as Arc<dyn ChunkStore>,
            mirror,
        ];
        let mirror = MirrorStore::new(members, MirrorOptions::default());
        let sources: Vec<Arc<dyn ChunkStore>> = if has_mirror { vec![Arc::new(mirror)] } else { Vec::new() };
        let report = scrub(&store, &sources);
        let mut named: Vec<ChunkId> = report.damages.iter().filter_map(|damage| damage.id).collect();
        let mut expected: Vec<ChunkId> = flipped.iter().map(|&n| chunk(n).id()).collect();
        named.sort();
        expected.sort();
        assert_eq!(named, expected);
        assert_eq!(report.damages.len(), 100);
        // What was written anew lies in the last pack, which is read too.
        assert!((count - 100..=count).contains(&report.chunks), "{}", report.chunks);
        assert_eq!(report.healed, if has_mirror { 100 } else { 0 });
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        for n in 0..count {
            assert_eq!(is_good(&store, n), has_mirror || !flipped.contains(&n), "chunk {n}");
        }
        // Missing, not damaged: any upload heals.
        flipped.iter().for_each(|&n| store.put_many(&[chunk(n)]).unwrap());
        store.flush().unwrap();
        let again = scrub(&store, &[]);
        // Of the pack that is still open, without a footer, only what is found is looked at.
        let open_number = packs(&folder).len();
        let unused = damaged_packs.iter().filter(|&&number| number < open_number).count() as u64;
        assert_eq!((again.damaged, again.unused, again.chunks), (0, unused, count));
        drop(store);
        let store = open(&folder);
        let sealed = scrub(&store, &[]);
        assert_eq!((sealed.damaged, sealed.unused, sealed.chunks), (0, 100, count));
        assert!(flipped.iter().all(|&n| is_good(&store, n)));
    }
}

/// A flip anywhere in a sealed pack is found and costs no chunk, also after the store was opened again.
#[test]
fn a_flip_in_any_part_of_a_pack_is_found_and_its_chunks_live_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    fill(&store, 10);
    let first = place(&store, 0);
    drop(store);
    let path = packs(&folder)[0].clone();
    let len = path.metadata().unwrap().len();
    let name = path.file_name().unwrap();
    for (at, what) in [
        (20, DamageKind::Header),
        (first.offset - 10, DamageKind::Head),
        (first.offset - 66, DamageKind::Head),
        (first.offset + 100, DamageKind::Chunk),
        (len - 30, DamageKind::Footer),
    ] {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(folder.path().join("FORMAT"), copy.path().join("FORMAT")).unwrap();
        std::fs::copy(&path, copy.path().join(name)).unwrap();
        let (store, other) = (open(&copy), tempfile::tempdir().unwrap());
        let mirror: Arc<dyn ChunkStore> = Arc::new(FlatStore::open(other.path(), FlatOptions::default()).unwrap());
        fill(&*mirror, 10);
        flip(&copy.path().join(name), at);
        let report = scrub(&store, &[mirror]);
        let found: Vec<DamageKind> = report.damages.iter().map(|damage| damage.what).collect();
        assert_eq!(found, [what], "{report:?}");
        drop(store);
        let store = open(&copy);
        assert!((0..10).all(|n| is_good(&store, n)), "{what:?}");
        // A header is never written again: the pack is opened by its file's name, holds nothing that counts, and is named.
        let left = u64::from(what == DamageKind::Header);
        assert_eq!(scrub(&store, &[]).damaged, left, "{what:?}");
    }
}

/// A pass that is stopped goes on where it was; then the pack longest unread comes first.
#[test]
fn passes_go_on_and_begin_with_what_is_longest_unread() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    fill(&store, 500);
    let state = ScrubFile::in_folder(folder.path());
    let rate = Some(Arc::new(RateLimit::new(NonZeroU64::new(1 << 34).unwrap())));
    let options = ScrubOptions {
        rate,
        ..ScrubOptions::default()
    };
    let mut heard = 0;
    let mut go_on = |bytes| {
        heard += bytes;
        heard < 13 << 20
    };
    let first = store.engine().scrub(&options, &[], &state, &mut go_on).unwrap();
    assert!(first.stopped && first.packs == 1, "{first:?}");
    let notes = state.load().unwrap();
    assert!(notes.values().any(|note| note.cursor > 0) && notes.values().any(|note| note.verified_at.is_some()));
    let soon = ScrubOptions {
        verified_before: u64::MAX - 1,
        ..ScrubOptions::default()
    };
    let second = store.engine().scrub(&soon, &[], &state, &mut |_| true).unwrap();
    assert!(!second.stopped && second.packs == packs(&folder).len());
    // What the first one read of the pack it was stopped in is not checked again; the first pack is.
    let pack_chunks = (8 << 20) / (CHUNK_LEN as u64 + 160);
    assert!(second.chunks < 500 && second.chunks > 500 - pack_chunks, "{second:?}");
    let due = ScrubOptions {
        verified_before: 1,
        ..ScrubOptions::default()
    };
    let third = store.engine().scrub(&due, &[], &state, &mut |_| true).unwrap();
    assert_eq!(third.packs, 0);
}

/// Quarantined bytes outlive compaction, also after the store was opened again, until somebody lets go of them.
#[test]
fn damaged_packs_are_kept_from_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    fill(&store, 300);
    let gone: Vec<ChunkId> = (2..300).map(|n| chunk(n).id()).collect();
    store.remove_many(&gone).unwrap();
    flip(&packs(&folder)[0], place(&store, 0).offset + 5);
    let state = ScrubFile::in_folder(folder.path());
    let report = store
        .engine()
        .scrub(&ScrubOptions::default(), &[], &state, &mut |_| true)
        .unwrap();
    assert_eq!((report.damaged, &report.damages[0].fate), (1, &Fate::Missing));
    let kept = packs(&folder)[0].clone();
    drop(store);
    let store = open(&folder);
    let compact = CompactOptions {
        live_share_min: 0.9,
        commits_kept_from: LogPosition {
            pack: u32::MAX,
            offset: 0,
        },
    };
    assert!(store.engine().compact(&compact).unwrap().packs_removed > 0);
    assert!(kept.exists());
    store.engine().release_damaged();
    store.engine().compact(&compact).unwrap();
    assert!(!kept.exists() && is_good(&store, 1));
}
